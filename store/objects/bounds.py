"""What both stores put around every call: a place among the transfers, a deadline, a figure.

The deadline counts from the call's beginning, its wait for a place included, and grows with the bytes to be moved as
soon as they are known. Where it ends a call is `ObjectStoreUnavailable`; whatever the call had begun is cancelled.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Final, Literal

from schemas.errors import LogfeedError
from store.disk_room import DiskFull
from store.objects.metrics import CALL_SECONDS, FAILURES, TRANSFERS_RUNNING
from store.objects.port import ObjectDamaged, ObjectMissing, ObjectStoreRefused, ObjectStoreUnavailable
from store.objects.settings import ObjectSettings

Operation = Literal["check", "put", "get", "size", "delete", "list"]

_REASONS: Final[tuple[tuple[type[LogfeedError], str], ...]] = (
    (ObjectMissing, "missing"),
    (ObjectDamaged, "damaged"),
    (ObjectStoreRefused, "refused"),
    (ObjectStoreUnavailable, "unavailable"),
    (DiskFull, "disk_full"),
)


def reason_of(error: LogfeedError) -> str:
    """The failure's label in metrics."""
    return next((reason for kind, reason in _REASONS if isinstance(error, kind)), "too_large")


class Deadline:
    """When a call must have ended."""

    def __init__(self, timeout: asyncio.Timeout, bytes_per_s: int) -> None:
        """bytes_per_s: how fast bytes must move at least."""
        self._timeout = timeout
        self._bytes_per_s = bytes_per_s

    def allow(self, moved_bytes: int) -> None:
        """So many bytes are to be moved: grant the time for them."""
        when = self._timeout.when()
        assert when is not None
        self._timeout.reschedule(when + moved_bytes / self._bytes_per_s)


class Bounds:
    """Of one store. For one event loop."""

    def __init__(self, settings: ObjectSettings, place: str) -> None:
        """place: the store, as for people."""
        self._call_s = settings.call_deadline_s
        self._bytes_per_s = settings.transfer_bytes_per_s_min
        self._transfers = asyncio.Semaphore(settings.transfers_max)
        self._place = place

    @asynccontextmanager
    async def call(self, operation: Operation, what: str) -> AsyncIterator[Deadline]:
        """A call that moves no object. what: the key or prefix, for the error."""
        timeout = asyncio.timeout(self._call_s)
        try:
            with CALL_SECONDS.labels(operation).time():
                async with timeout:
                    yield Deadline(timeout, self._bytes_per_s)
        except TimeoutError:
            if not timeout.expired():
                raise
            FAILURES.labels(operation, "unavailable").inc()
            raise ObjectStoreUnavailable(
                f"{self._place}: {operation} {what} did not end within its deadline"
                " (objects.call_deadline_s, and objects.transfer_bytes_per_s_min for its bytes)"
            ) from None
        except LogfeedError as error:
            FAILURES.labels(operation, reason_of(error)).inc()
            raise

    @asynccontextmanager
    async def transfer(self, operation: Operation, what: str) -> AsyncIterator[Deadline]:
        """A call that moves an object: one of `transfers_max` at once."""
        async with self.call(operation, what) as deadline, self._transfers:
            with TRANSFERS_RUNNING.track_inprogress():
                yield deadline
