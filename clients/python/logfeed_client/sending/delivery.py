"""The sender's thread: takes lines, makes batches, sends the oldest first, keeps on disk what cannot be sent.

Order. What waits is, oldest first: the batch in hand (or its halves), the spool, the queue. One request at a time, always of
the oldest; while anything older waits, lines go into the spool behind it. So the logs of a process arrive in the order in
which they were put. What dead processes left is sent when nothing of this one's own waits.

Where nothing can be done (no spool, or it is full) lines stay in the queue, and the queue refuses. `close` gives the server one
more try; then what is left goes to the spool, or is dropped and told.

One thread runs `run`; `abandon` is called by another one when that is not done in time, under a lock that is never held
during a request. Memory: the batch in hand and its compressed copy, beside the queue.
"""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from dataclasses import dataclass
from typing import Final

from logfeed_client.connecting import shown_url
from logfeed_client.notes import Notes, sending
from logfeed_client.sending.answers import Outcome, Refused, Taken, TooLarge, Trouble, Wait
from logfeed_client.sending.batch import Batch
from logfeed_client.sending.disk import Disk
from logfeed_client.sending.limits import SenderLimits
from logfeed_client.sending.line_queue import LineQueue
from logfeed_client.sending.posting import Poster, Target
from logfeed_client.sending.spool import Spool
from logfeed_client.sending.stats import Counts
from logfeed_client.waiting import pause_s

_REPORT_S: Final = 10.0
"""Between two logs about logs that were dropped."""
_CLOSING_PAUSE_S: Final = 0.2
_NEVER: Final = float("inf")


@dataclass(slots=True)
class _Held:
    """A batch in hand."""

    batch: Batch
    logs: int
    """Of the queue: one about dropped logs is not counted."""


class Delivery:
    """Of one sender in one process."""

    def __init__(self, target: Target, limits: SenderLimits, queue: LineQueue, counts: Counts, notes: Notes) -> None:
        """Starts nothing: see `run`."""
        self._target, self._queue, self._counts, self._notes = target, queue, counts, notes
        self._poster = Poster(target, counts)
        self._disk = Disk(target.spool, limits, counts, notes)
        self._held: deque[_Held] = deque()
        self._hand = threading.RLock()
        self._progress = threading.Condition()
        self._attempt = 0
        self._retry_at_s = 0.0
        self._asked_until_s = 0.0
        """Before this the server wants to be left alone."""
        self._reported_at_s = -_REPORT_S
        self._ends_at_s = _NEVER
        self._abandoned = threading.Event()
        self.settled = 0
        """Logs of the queue that are not in memory only any more: stored, refused, spooled, or dropped."""
        self.trouble: Trouble | None = None

    # --- called by other threads

    @property
    def requesting(self) -> threading.Lock:
        """Held while a request is under way."""
        return self._poster.under_way

    def wait_settled(self, logs: int, timeout_s: float) -> bool:
        """Whether so many are settled within that time."""
        with self._progress:
            return self._progress.wait_for(lambda: self.settled >= logs, timeout_s)

    def close_by(self, ends_at_s: float) -> None:
        """The queue was closed: end by then (`time.monotonic`)."""
        self._ends_at_s = ends_at_s
        self._retry_at_s = min(self._retry_at_s, self._asked_until_s)  # one more try
        self._queue.want_all()

    def abandon(self) -> None:
        """The thread has not ended in time, or there is none: keep on disk what is in memory, or drop it. A request under way
        may still store its batch; spooled, it is sent again under its key. Raises nothing."""
        if not self._hand.acquire(timeout=1.0):
            return
        try:
            if not self._abandoned.is_set():
                self._finish()
        finally:
            self._hand.release()

    def forget(self) -> None:
        """In the child of a fork: leave everything to the parent."""
        self._disk.forget()

    def spooled(self) -> tuple[int, int]:
        """Segments and bytes on disk."""
        spool = self._disk.spool
        return (0, 0) if spool is None else (len(spool), spool.bytes)

    # --- the thread

    def run(self) -> None:
        """Until the queue is closed and everything is sent, or the time for that is over. Raises nothing."""
        sending.is_on = True
        with self._hand:
            self._disk.claim()
        while not self._abandoned.is_set():
            try:
                self._turn()
                if self._queue.is_closed and self._is_finished():
                    break
                self._queue.wait(self._idle_s(), for_lines=self._takes_lines())
            except Exception as error:  # a defect here must neither end sending nor the program
                self._notes.tell("failed", f"sending failed: {type(error).__name__}: {error}; it goes on")
                self._rest(Wait(Trouble.AWAY, str(error)))
        with self._hand:
            if not self._abandoned.is_set():
                self._finish()
        self._poster.close()

    def _turn(self) -> None:
        """Send while something is due and the server takes it; spool what has to wait."""
        while not self._abandoned.is_set() and time.monotonic() >= self._retry_at_s and not self._gives_up():
            with self._hand:
                found = self._oldest()
            if found is None:
                break
            batch, spool = found
            outcome = self._poster.post(batch, ends_at_s=self._ends_at_s)
            with self._hand:
                if self._abandoned.is_set():
                    return
                self._settle(batch, spool, outcome)
                self._keep_lines()
        with self._hand:
            self._keep_lines()

    def _oldest(self) -> tuple[Batch, Spool | None] | None:
        """The batch to send next, and the spool it lies in."""
        if self._held:
            return self._held[0].batch, None
        spool = self._disk.spool
        if spool is not None and len(spool):
            if (batch := self._disk.read(spool)) is not None:
                return batch, spool
            if len(spool):
                self._retry_at_s = self._disk.rests_until_s
                return None
        if self._queue.is_due() or self._has_report():
            self._take()
            if self._held:
                return self._held[0].batch, None
        if self._queue.is_closed:
            return None
        return self._disk.left_behind()

    def _take(self) -> None:
        """Lines of the queue become the batch in hand."""
        lines = self._queue.take()
        logs = len(lines)
        if (report := self._report()) is not None:
            lines.append(report)
        if lines:
            self._held.append(_Held(Batch.of(lines), logs))

    def _has_report(self) -> bool:
        return self._counts.has_unreported and (
            self._queue.is_closed or time.monotonic() >= self._reported_at_s + _REPORT_S
        )

    def _report(self) -> bytes | None:
        if not self._has_report():
            return None
        self._reported_at_s = time.monotonic()
        return self._counts.report(self._target.service_name, time.time_ns() // 1_000)

    def _settle(self, batch: Batch, spool: Spool | None, outcome: Outcome) -> None:
        match outcome:
            case Taken():
                self._counts.took(outcome)
                for reason in outcome.reasons:
                    self._notes.tell(
                        f"rejected {reason.code}", f"the server rejects logs: {reason.text or reason.code}"
                    )
                self._goes_on()
                self._done(batch, spool)
            case Refused(text=text):
                self._counts.drop("refused", self._lost_with(batch, spool))
                self._notes.tell("refused", f"the server refuses {batch.logs} logs for good: {text}")
                self._goes_on()
                self._done(batch, spool)
            case TooLarge(text=text):
                self._goes_on()
                self._split(batch, spool, text)
            case Wait():
                self._rest(outcome)
                if spool is None:
                    self._keep_held()

    def _lost_with(self, batch: Batch, spool: Spool | None) -> int:
        """Logs of the program in it: one that tells of dropped logs is none, or telling of it would have no end."""
        return self._held[0].logs if spool is None else batch.logs

    def _goes_on(self) -> None:
        if self.trouble is not None and self._trouble_passed():
            self._notes.tell("goes on", f"{shown_url(self._target.url)} takes logs again")
            self._notes.passed("goes on")
        self.trouble = None
        self._attempt = 0
        self._retry_at_s = self._asked_until_s = 0.0

    def _trouble_passed(self) -> bool:
        """Whether any was told."""
        return len([each for each in Trouble if self._notes.passed(each)]) > 0

    def _rest(self, wait: Wait) -> None:
        self._counts.retries += 1
        now_s = time.monotonic()
        pause = pause_s(self._attempt, wait.asked_s, random.random())
        if self._ends_at_s != _NEVER and wait.asked_s is None:
            pause = _CLOSING_PAUSE_S
        self._asked_until_s = 0.0 if wait.asked_s is None else now_s + wait.asked_s
        self._retry_at_s = now_s + pause
        self._attempt += 1
        self.trouble = wait.trouble
        spool = self._disk.spool
        where = f"kept in {spool.directory}" if spool is not None else "kept in memory while there is room"
        self._notes.tell(wait.trouble, f"logs wait and are {where}: {shown_url(self._target.url)}: {wait.text}")

    def _done(self, batch: Batch, spool: Spool | None) -> None:
        if spool is None:
            self._note_settled(self._held.popleft().logs)
            return
        try:
            spool.done(batch)
        except OSError as error:
            self._disk.failed(error)

    def _split(self, batch: Batch, spool: Spool | None, text: str) -> None:
        halves = batch.halves()
        if halves is None:
            self._counts.drop("too_large", self._lost_with(batch, spool))
            self._notes.tell("too large", f"a log is too large for the server and is dropped: {text}")
            self._done(batch, spool)
        elif spool is None:
            held = self._held.popleft()
            second = max(0, held.logs - halves[0].logs)
            self._held.extendleft((_Held(halves[1], second), _Held(halves[0], held.logs - second)))
        else:
            try:
                spool.split(batch, halves)
            except OSError as error:
                self._disk.failed(error)
                self._retry_at_s = self._disk.rests_until_s

    # --- the disk

    def _keep_held(self) -> None:
        """The batch in hand waits on disk, where there is one."""
        while self._held and self._disk.can_take():
            assert self._disk.spool is not None
            try:
                if not self._disk.spool.put(self._held[0].batch):
                    return
            except OSError as error:
                self._disk.failed(error)
                return
            self._note_settled(self._held.popleft().logs)

    def _keep_lines(self) -> None:
        """Lines whose time has come wait on disk while something older waits."""
        while self._has_older() and not self._held and self._disk.can_take() and self._queue.is_due():
            assert self._disk.spool is not None
            lines = self._queue.take()
            kept = 0
            try:
                kept = self._disk.spool.append(lines)
            except OSError as error:
                self._disk.failed(error)
            if kept < len(lines):
                self._queue.put_back(lines[kept:])
            self._note_settled(kept)

    def _has_older(self) -> bool:
        """Whether something waits that is older than the queue."""
        return bool(self._held) or self._disk.has_batches()

    # --- waiting and ending

    def _takes_lines(self) -> bool:
        """Whether a turn would do something with lines that are due."""
        if not self._has_older():
            return time.monotonic() >= self._retry_at_s
        return not self._held and self._disk.can_take()

    def _idle_s(self) -> float | None:
        """Until something is to be done besides lines that come."""
        now_s = time.monotonic()
        times_s = [self._ends_at_s]
        if self._has_older() or now_s < self._retry_at_s:
            times_s.append(self._retry_at_s)
        elif self._disk.spool is not None:
            times_s.append(self._disk.look_at_s)
        if now_s < self._disk.rests_until_s:
            times_s.append(self._disk.rests_until_s)
        first_s = min(times_s)
        return None if first_s == _NEVER else max(0.0, first_s - now_s)

    def _gives_up(self) -> bool:
        """While closing: no time is left, or the server is away and there is a disk."""
        if self._ends_at_s == _NEVER:
            return False
        return max(time.monotonic(), self._asked_until_s) >= self._ends_at_s or (
            self.trouble is not None and self._disk.spool is not None
        )

    def _is_finished(self) -> bool:
        return self._gives_up() or not (self._has_older() or len(self._queue) or self._has_report())

    def _finish(self) -> None:
        """Nothing is in memory afterwards."""
        self._abandoned.set()
        self._disk.rests_until_s = 0.0
        self._keep_held()
        lost = sum(held.logs for held in self._held)
        while len(self._queue):
            lines = self._queue.take()
            kept = 0
            if self._disk.spool is not None and not self._held:
                try:
                    kept = self._disk.spool.append(lines)
                except OSError as error:
                    self._disk.failed(error)
            lost += len(lines) - kept
        self._held.clear()
        if lost:
            self._counts.drop("closed", lost)
            self._notes.tell("closed", f"{lost} logs were not sent when the program ended, and are lost")
        self._disk.close()
        with self._progress:
            self.settled = self._queue.put_count
            self._progress.notify_all()

    def _note_settled(self, logs: int) -> None:
        with self._progress:
            self.settled += logs
            self._progress.notify_all()
