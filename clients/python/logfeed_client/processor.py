"""A structlog processor that sends each event: put it before the renderer.

    structlog.configure(processors=[
        structlog.processors.add_log_level,
        LogfeedProcessor("https://logs.example", service_name="shop", api_key=key),
        structlog.dev.ConsoleRenderer(),
    ])

The event dictionary goes on unchanged. Its `event` is the message; `level` (else the method's name), `timestamp` (a number,
or ISO 8601 text; else now), `correlation_id` (else the context's) and `exc_info` mean what they are named; all else is
metadata. structlog itself is not needed here.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, MutableMapping
from datetime import UTC, datetime
from typing import Any, Final

import httpx

from logfeed_client.fields import fragment, joined, quoted_once
from logfeed_client.handler import exception_fields, program_fields
from logfeed_client.lines import head_of, line_of
from logfeed_client.notes import LOGGER, sending
from logfeed_client.sending.limits import SenderLimits
from logfeed_client.sending.sender import ApiKey, Sender
from logfeed_client.sending.stats import SenderStats

_LEVELS: Final = {
    "trace": "TRACE",
    "notset": "TRACE",
    "debug": "DEBUG",
    "info": "INFO",
    "msg": "INFO",
    "log": "INFO",
    "warn": "WARN",
    "warning": "WARN",
    "err": "ERROR",
    "error": "ERROR",
    "exception": "ERROR",
    "critical": "FATAL",
    "fatal": "FATAL",
}
_MEANT: Final = frozenset({"event", "level", "timestamp", "correlation_id", "exc_info"})


class LogfeedProcessor:
    """Raises nothing into the program, and waits for nothing but `block_s`. Any thread may log."""

    def __init__(
        self,
        url: str | None = None,
        *,
        service_name: str | None = None,
        api_key: ApiKey | None = None,
        spool_dir: str | os.PathLike[str] | None = None,
        block_s: float = 0.0,
        metadata: Mapping[str, object] | None = None,
        sender: Sender | None = None,
        limits: SenderLimits | None = None,
        make_client: Callable[[], httpx.Client] | None = None,
    ) -> None:
        """As `LogfeedHandler`; close its `sender` yourself where the end of the program is too late. Raises ValueError."""
        if sender is None:
            if service_name is None:
                raise ValueError("service_name is needed: whose logs are these?")
            sender = Sender(
                url,
                service_name=service_name,
                api_key=api_key,
                spool_dir=spool_dir,
                block_s=block_s,
                limits=limits,
                make_client=make_client,
            )
        self.sender: Final = sender
        self._head = head_of(service_name or sender.service_name)
        self._fields = program_fields(metadata)

    def __call__(self, logger: Any, method_name: str, event_dict: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
        """As structlog calls processors: any logger, values of any type."""
        if sending.is_on:
            return event_dict
        try:
            name = getattr(logger, "name", None)
            if not (isinstance(name, str) and name.startswith(LOGGER)):
                self.sender.put(self._line(name, method_name, event_dict))
        except Exception as error:  # whatever the program's own objects raise
            self.sender.failed(error)
        return event_dict

    def stats(self) -> SenderStats:
        """Of the sender."""
        return self.sender.stats()

    def _line(self, name: object, method_name: str, event: Mapping[str, Any]) -> bytes:
        rest = {key: value for key, value in event.items() if key not in _MEANT}
        if (error := _error_of(event.get("exc_info"))) is not None:
            rest["exception"] = exception_fields(error)
        fields = joined(
            f'"logger":{quoted_once(name)}' if isinstance(name, str) else "",
            f'"pid":{os.getpid()}',
            self._fields,
            fragment(rest.items()),
        )
        return line_of(
            self._head,
            _time_us(event.get("timestamp")),
            _level(event.get("level", method_name)),
            str(event.get("event", "")),
            fields,
            correlation_id=event.get("correlation_id"),
        )


def _level(level: object) -> str:
    return _LEVELS.get(str(level).lower(), "INFO")


def _time_us(timestamp: object) -> int:
    """Microseconds since 1970; now where there is no time that can be read."""
    if isinstance(timestamp, str):
        try:
            timestamp = datetime.fromisoformat(timestamp)
        except ValueError:
            timestamp = None
    if isinstance(timestamp, datetime):
        aware = timestamp if timestamp.tzinfo else timestamp.replace(tzinfo=UTC)
        return int(aware.timestamp() * 1e6)
    if isinstance(timestamp, int | float) and 1e8 < timestamp < 1e11:
        return int(timestamp * 1e6)
    return time.time_ns() // 1_000


def _error_of(exc_info: object) -> BaseException | None:
    if isinstance(exc_info, BaseException):
        return exc_info
    if isinstance(exc_info, tuple) and len(exc_info) == 3 and isinstance(exc_info[1], BaseException):
        return exc_info[1]
    return sys.exception() if exc_info else None
