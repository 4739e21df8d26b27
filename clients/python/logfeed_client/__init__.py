"""Client of Logfeed for Python programs: sends their logs, asks for logs, subscribes to topics. See docs/python.md.

Nothing here is done by an import but two hooks of this process: its end, and its forks.
"""

from logfeed_client.async_subscriber import AsyncSubscriber
from logfeed_client.context import bind, correlation, correlation_id, outgoing_headers, propagate, propagate_async
from logfeed_client.errors import (
    Forbidden,
    InvalidQuestion,
    LogfeedError,
    NotFound,
    NotLogfeed,
    ProblemError,
    Unauthenticated,
    Unreachable,
)
from logfeed_client.handler import LogfeedHandler
from logfeed_client.middleware import CorrelationMiddleware, WsgiCorrelationMiddleware
from logfeed_client.processor import LogfeedProcessor
from logfeed_client.querying.asking import TailGapError
from logfeed_client.querying.async_client import AsyncClient, AsyncTail
from logfeed_client.querying.client import Client, Tail
from logfeed_client.querying.results import Bucket, Histogram, Log, LogContext, Page, TailGap
from logfeed_client.sending.limits import SenderLimits
from logfeed_client.sending.sender import Sender
from logfeed_client.sending.stats import SenderStats
from logfeed_client.subscriber import Gap, GapError, Record, Subscriber, SubscriptionError

__all__ = [
    "AsyncClient",
    "AsyncSubscriber",
    "AsyncTail",
    "Bucket",
    "Client",
    "CorrelationMiddleware",
    "Forbidden",
    "Gap",
    "GapError",
    "Histogram",
    "InvalidQuestion",
    "Log",
    "LogContext",
    "LogfeedError",
    "LogfeedHandler",
    "LogfeedProcessor",
    "NotFound",
    "NotLogfeed",
    "Page",
    "ProblemError",
    "Record",
    "Sender",
    "SenderLimits",
    "SenderStats",
    "Subscriber",
    "SubscriptionError",
    "Tail",
    "TailGap",
    "TailGapError",
    "Unauthenticated",
    "Unreachable",
    "WsgiCorrelationMiddleware",
    "bind",
    "correlation",
    "correlation_id",
    "outgoing_headers",
    "propagate",
    "propagate_async",
]
