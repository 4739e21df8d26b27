"""Decides what one transaction changes: which frames are new, which are copies, where rows go, what the ledger says.

Pure. The same frames, known keys and border always give the same plan; so a batch that was rolled back is simply planned
again with what the store knows by then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from schemas.errors import LogfeedError
from store.port import KEY_REUSED, Border, DeadLetter, EncodedRow, LedgerRow, OffsetMove, Outcome, StoredKey, StorePlan
from writer.dead_window import DeadWindow
from writer.decode import DecodedFrame, all_dead


class TooManyDeadLetters(LogfeedError):
    """So many lines cannot be stored that something else must be wrong; nothing of the batch was diverted."""


@dataclass(slots=True)
class _Booking:
    """The ledger of one batch while it is added up."""

    sums: dict[tuple[int, str, int, Outcome, str], int] = field(default_factory=dict)

    def add(
        self, minute_us: int, service: str, outcome: Outcome, count: int, *, level: int = 0, reason: str = ""
    ) -> None:
        if count:
            key = (minute_us, service, level, outcome, reason)
            self.sums[key] = self.sums.get(key, 0) + count

    def rows(self) -> list[LedgerRow]:
        return [LedgerRow(*key, count) for key, count in sorted(self.sums.items())]


def plan_batch(
    frames: Sequence[DecodedFrame],
    *,
    epochs: Mapping[int, int],
    known: Mapping[bytes, bytes],
    border: Border,
) -> StorePlan:
    """The plan for consecutive frames of each partition.

    frames: offsets of one partition must follow one another. epochs: partition -> epoch of our lease. known: key hash ->
    body sha256 of what is stored already. Within the batch the first copy of a key wins.
    """
    plan = StorePlan()
    booking = _Booking()
    seen = dict(known)
    for frame in frames:
        stored_sha = seen.get(frame.key_hash) if frame.key_hash is not None else None
        if stored_sha is not None and stored_sha == frame.body_sha256:
            _book_duplicate(frame, booking)
            continue
        if stored_sha is not None:
            dead, dead_counts = all_dead(frame, KEY_REUSED, "the Idempotency-Key was stored before with another body")
            _book_received(frame, booking)
            _book_dead(frame.minute_us, dead_counts, booking)
            plan.dead += dead
            continue
        if frame.key_hash is not None:
            sha = frame.body_sha256 or b""
            seen[frame.key_hash] = sha
            plan.keys.append(StoredKey(frame.key_hash, sha, frame.partition, frame.offset))
        _book_received(frame, booking)
        _book_dead(frame.minute_us, frame.dead_counts, booking)
        plan.dead += frame.dead
        for (service, level), count in Counter(frame.bookings).items():
            booking.add(frame.minute_us, service, Outcome.STORED, count, level=level)
        _split(frame.rows, border.closed_before_us, plan)
    plan.ledger = booking.rows()
    plan.moves = list(_moves(frames, epochs))
    return plan


def judged_lines(plan: StorePlan) -> tuple[int, int]:
    """(lines, of them dead) that count for the limit. Reused keys are the clients' doing and do not."""
    dead = sum(row.count for row in plan.ledger if row.outcome is Outcome.DEAD and row.reason != KEY_REUSED)
    return len(plan.hot) + len(plan.late) + dead, dead


def check_dead_lines(plan: StorePlan, window: DeadWindow, now_s: float) -> None:
    """Refuse a plan that would divert more than the window allows.

    Raises TooManyDeadLetters.
    """
    lines, dead = judged_lines(plan)
    if dead > window.allowance(lines, now_s):
        first = next(letter for letter in plan.dead if letter.reason != KEY_REUSED)
        raise TooManyDeadLetters(
            f"{window.dead + dead} of {window.lines + lines} lines cannot be stored, {window.dead} of them put aside"
            f" before (now: {_describe(first)}): look at the topic, then raise writer.dead_ratio_max to accept them"
        )


def _split(rows: Sequence[EncodedRow], closed_before_us: int, plan: StorePlan) -> None:
    if min([row.timestamp_us for row in rows], default=closed_before_us) >= closed_before_us:
        plan.hot += rows
        return
    for row in rows:
        (plan.hot if row.timestamp_us >= closed_before_us else plan.late).append(row)


def _describe(letter: DeadLetter) -> str:
    return f"partition {letter.partition} offset {letter.offset} line {letter.line_index}: {letter.reason}: {letter.detail}"


def _book_received(frame: DecodedFrame, booking: _Booking) -> None:
    for service, counts in frame.counts.items():
        booking.add(frame.minute_us, service, Outcome.RECEIVED, counts.received)
        for rule, number in counts.filtered.items():
            booking.add(frame.minute_us, service, Outcome.FILTERED, number, reason=rule)
        for reason, number in counts.rejected.items():
            booking.add(frame.minute_us, service, Outcome.REJECTED, number, reason=reason)


def _book_duplicate(frame: DecodedFrame, booking: _Booking) -> None:
    """A copy counts as a whole, whatever its filters said this time."""
    for service, counts in frame.counts.items():
        booking.add(frame.minute_us, service, Outcome.RECEIVED, counts.received)
        booking.add(frame.minute_us, service, Outcome.DUPLICATE, counts.received)


def _book_dead(minute_us: int, dead_counts: Mapping[str, Mapping[str, int]], booking: _Booking) -> None:
    for reason, services in dead_counts.items():
        for service, number in services.items():
            booking.add(minute_us, service, Outcome.DEAD, number, reason=reason)


def _moves(frames: Iterable[DecodedFrame], epochs: Mapping[int, int]) -> Iterable[OffsetMove]:
    first: dict[int, DecodedFrame] = {}
    last: dict[int, DecodedFrame] = {}
    for frame in frames:
        first.setdefault(frame.partition, frame)
        last[frame.partition] = frame
    for partition in sorted(last):
        yield OffsetMove(
            partition=partition,
            epoch=epochs[partition],
            from_offset=first[partition].offset,
            next_offset=last[partition].offset + 1,
            last_frame_id=last[partition].frame_id,
            stored_to_us=last[partition].append_ms * 1000,
        )
