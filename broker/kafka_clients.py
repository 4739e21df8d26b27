"""How Kafka clients of every kind are made, started and ended.

aiokafka leaves a connection behind when a start is cancelled, and its endings may hang. So no start is cut short: one that
is not waited for any longer goes on and is ended in the background; and every ending is a task of its own with a deadline.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, Final

import structlog
from aiokafka.helpers import create_ssl_context

from broker.settings import BrokerSettings

log = structlog.get_logger(__name__)

BACKOFF_S: Final = 0.1
END_S: Final = 5.0
"""How long an ending may take."""


def connection(settings: BrokerSettings, client_id: str) -> dict[str, Any]:
    """How every client connects. One request gets a third of the operation's time, so that a hung one can be repeated."""
    secure = settings.security_protocol.endswith("SSL")
    return {
        "bootstrap_servers": settings.bootstrap,
        "client_id": client_id,
        "request_timeout_ms": max(500, settings.request_timeout_ms // 3),
        "retry_backoff_ms": int(BACKOFF_S * 1000),
        "security_protocol": settings.security_protocol,
        "ssl_context": create_ssl_context(cafile=settings.ssl_cafile) if secure else None,
        "sasl_mechanism": settings.sasl_mechanism,
        "sasl_plain_username": settings.sasl_username,
        "sasl_plain_password": settings.sasl_password.get_secret_value() if settings.sasl_password else None,
    }


class Endings:
    """Endings of clients: each runs in a task of its own for a bounded time, so that no caller hangs on a broker that does
    not answer, and none is forgotten when its caller is cancelled."""

    def __init__(self) -> None:
        self._tasks: set[asyncio.Task[None]] = set()

    def begin(self, ending: Coroutine[Any, Any, None], what: str, timeout_s: float = END_S) -> asyncio.Task[None]:
        """Run an ending in the background. Coroutine's types are of what it yields to the loop: nobody's business."""
        task = asyncio.create_task(_bounded_end(ending, what, timeout_s))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

    async def run(self, ending: Coroutine[Any, Any, None], what: str, timeout_s: float = END_S) -> None:
        """Run an ending and wait for it; a caller that is cancelled leaves it in the background."""
        await asyncio.wait({self.begin(ending, what, timeout_s)})

    async def finish(self, timeout_s: float) -> None:
        """Wait for the endings under way; those that take longer end by themselves."""
        if self._tasks:
            await asyncio.wait(set(self._tasks), timeout=timeout_s)


async def _bounded_end(ending: Coroutine[Any, Any, None], what: str, timeout_s: float) -> None:
    try:
        async with asyncio.timeout(timeout_s):
            await ending
    except TimeoutError:
        log.warning("kafka client did not end in time", client=what, seconds=timeout_s)
    except Exception as error:  # whatever it is, it is over
        log.warning("kafka client ended with an error", client=what, error=repr(error))


async def start_whole(
    start: Coroutine[Any, Any, None],
    end: Callable[[], Coroutine[Any, Any, None]],
    endings: Endings,
    what: str,
    timeout_s: float,
) -> None:
    """Start a client within the time. A start that fails, or is not waited for any longer, ends with the client's ending."""
    starting = asyncio.ensure_future(start)
    try:
        async with asyncio.timeout(timeout_s):
            await asyncio.shield(starting)
    except BaseException:
        ending = endings.begin(_end_started(starting, end, timeout_s), what, timeout_s + END_S)
        if starting.done():
            await asyncio.wait({ending})
        raise


async def _end_started(
    starting: asyncio.Future[None], end: Callable[[], Coroutine[Any, Any, None]], patience_s: float
) -> None:
    """End a client that may still be starting: cut short, it would leave its first connection open."""
    try:
        await asyncio.wait({starting}, timeout=patience_s)
    finally:
        starting.cancel()
    await asyncio.wait({starting})
    if not starting.cancelled():
        starting.exception()  # seen: who started it knows
    await end()
