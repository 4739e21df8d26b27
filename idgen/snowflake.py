"""Snowflake ids: a whole request's ids in one call, unique under any clock.

Promise: no id is given out twice in the life of the object, ids strictly increase, and none carries a millisecond past
the lease (`reserved_until_ms`). Together with a worker number that only one process holds at a time and a first
millisecond after everything its last holder gave out (db/worker_ids.py), ids are unique across processes and restarts.

Time is an argument. Where it steps back a little, a logical clock goes on from the last id; where it steps back a lot,
the call is refused. A range longer than what is left of a millisecond borrows the following ones, up to a bound.
Nothing waits: a refusal is an exception with the seconds after which a retry makes sense, and changes nothing.
One task at a time: no locks, no awaits.
"""

from __future__ import annotations

from typing import Final

from schemas.errors import ConfigurationError, Overloaded
from schemas.ids import EPOCH_MS, SEQUENCES, TIME_SHIFT, WORKERS

BACKWARD_MS_MAX: Final = 10_000
"""Step of the clock backwards, in milliseconds, that the logical clock rides out."""
BORROWED_MS_MAX: Final = 1_000
"""How far past the greatest time seen ids may run, in milliseconds: 4,096 ids each."""
_RETRY_AFTER_S_MAX: Final = 60


class IdsUnavailable(Overloaded):
    """No ids can be given out now; try again shortly."""


class ClockMovedBack(IdsUnavailable):
    """The clock stepped back further than ids can ride out."""


class LeaseEnded(IdsUnavailable):
    """The worker number is not ours any longer, or not for the time the clock shows."""


class IdsExhausted(IdsUnavailable):
    """More ids were asked for than the coming milliseconds have."""


class Snowflake:
    """Gives out ids of one worker number."""

    def __init__(
        self,
        *,
        worker: int,
        last_ms: int,
        reserved_until_ms: int,
        backward_ms_max: int = BACKWARD_MS_MAX,
        borrowed_ms_max: int = BORROWED_MS_MAX,
    ) -> None:
        """worker: 0..1023. last_ms: Unix milliseconds that earlier holders may have used, inclusive.

        reserved_until_ms: last Unix millisecond (inclusive) that an id of this object may carry.
        Raises ConfigurationError for a worker number out of range.
        """
        if not 0 <= worker < WORKERS:
            raise ConfigurationError(f"worker must be 0..{WORKERS - 1}, got {worker}")
        self.worker = worker
        self._reserved_until_ms = reserved_until_ms
        self._backward_ms_max = backward_ms_max
        self._borrowed_ms_max = borrowed_ms_max
        self._seen_ms = max(last_ms, EPOCH_MS - 1)
        """Greatest time seen."""
        self._next = self._slot(self._seen_ms + 1)
        """Slot of the next id: milliseconds * SEQUENCES + sequence, without the worker. Never decreases."""

    @property
    def last_ms(self) -> int:
        """Unix milliseconds of the last id given out (or that earlier holders may have used)."""
        return (self._next - 1) // SEQUENCES + EPOCH_MS

    @property
    def reserved_until_ms(self) -> int:
        """Last Unix millisecond that an id may carry."""
        return self._reserved_until_ms

    def extend(self, reserved_until_ms: int) -> None:
        """The lease was renewed. Never shortens it."""
        self._reserved_until_ms = max(self._reserved_until_ms, reserved_until_ms)

    def take(self, count: int, now_ms: int) -> list[int]:
        """`count` ids, increasing. now_ms: the clock, Unix milliseconds.

        Given the first one, the others follow from it alone (`ids_from`). About 0.04 µs an id.
        Raises ClockMovedBack, LeaseEnded, IdsExhausted (nothing was given out); ValueError for a count below 1.
        """
        if count < 1:
            raise ValueError(f"count must be at least 1, got {count}")
        first = max(self._next, self._slot(now_ms))
        seen_ms = max(self._seen_ms, now_ms)
        last_ms = (first + count - 1) // SEQUENCES + EPOCH_MS
        self._check(last_ms, now_ms, seen_ms)
        self._check_borrowed(last_ms, seen_ms)
        self._seen_ms = seen_ms
        self._next = first + count
        return _ids(first, count, self.worker)

    def check_clock(self, now_ms: int) -> None:
        """Raises ClockMovedBack or LeaseEnded when `take` would, for a single id."""
        first = max(self._next, self._slot(now_ms))
        self._check(first // SEQUENCES + EPOCH_MS, now_ms, max(self._seen_ms, now_ms))

    def _check(self, last_ms: int, now_ms: int, seen_ms: int) -> None:
        back_ms = seen_ms - now_ms
        if back_ms > self._backward_ms_max:
            raise ClockMovedBack(
                f"the clock stepped back {back_ms / 1000:.3f} s, ids ride out at most {self._backward_ms_max / 1000:g} s: "
                "correct the clock, or wait until it has caught up",
                retry_after_s=_seconds(back_ms - self._backward_ms_max),
            )
        if last_ms > self._reserved_until_ms:
            raise LeaseEnded(
                f"worker number {self.worker} is leased until {self._reserved_until_ms} (Unix ms), the ids asked for "
                f"would reach {last_ms}: the clock jumped ahead, or the database was away for too long",
                retry_after_s=_RETRY_AFTER_S_MAX,
            )

    def _check_borrowed(self, last_ms: int, seen_ms: int) -> None:
        borrowed_ms = last_ms - seen_ms
        if borrowed_ms > self._borrowed_ms_max:
            raise IdsExhausted(
                f"ids would run {borrowed_ms} ms ahead of the clock, at most {self._borrowed_ms_max} ms are borrowed",
                retry_after_s=_seconds(borrowed_ms - self._borrowed_ms_max),
            )

    @staticmethod
    def _slot(unix_ms: int) -> int:
        return (unix_ms - EPOCH_MS) * SEQUENCES


def ids_from(first_id: int, count: int) -> list[int]:
    """The ids of one `take` again, from its first one: a retried request gets the ids it had."""
    worker = (first_id >> (SEQUENCES.bit_length() - 1)) % WORKERS
    return _ids((first_id >> TIME_SHIFT) * SEQUENCES + first_id % SEQUENCES, count, worker)


def _ids(first: int, count: int, worker: int) -> list[int]:
    ids: list[int] = []
    slot, end = first, first + count
    while slot < end:
        ms, sequence = divmod(slot, SEQUENCES)
        length = min(SEQUENCES - sequence, end - slot)
        start = (ms << TIME_SHIFT) | (worker * SEQUENCES) | sequence
        ids.extend(range(start, start + length))
        slot += length
    return ids


def _seconds(milliseconds: int) -> int:
    return min(_RETRY_AFTER_S_MAX, max(1, -(-milliseconds // 1000)))
