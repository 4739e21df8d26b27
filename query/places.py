"""Places for the questions that the database works on, shared fairly among those who ask.

At most `places` questions are worked on, of one subject no more than `per_subject`, so that whoever asks slow questions without
end leaves places free. Who finds none waits, a bounded number in all and of each subject. A place that becomes free goes to
the subject that has fewest, of several to the one that has waited for longest; within a subject in order. So a question waits
for questions of others only while these have no more places than its own subject. One event loop, no locks.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from query import metrics
from query.errors import TooManyScans
from schemas.errors import TooManyQuestions


class FairPlaces:
    """The places of one process."""

    def __init__(self, *, places: int, per_subject: int, waiting_max: int, waiting_per_subject_max: int) -> None:
        """waiting_max: questions that wait in all; waiting_per_subject_max: of one subject."""
        self._free = places
        self._per_subject = per_subject
        self._waiting_max = waiting_max
        self._waiting_per_subject_max = waiting_per_subject_max
        self._held: Counter[str] = Counter()
        """Subjects that have a place."""
        self._queues: dict[str, deque[asyncio.Future[None]]] = {}
        """Subjects of which some wait."""
        self._order: OrderedDict[asyncio.Future[None], str] = OrderedDict()
        """Everyone who waits, longest first."""

    @property
    def waiting(self) -> int:
        """Questions that wait."""
        return len(self._order)

    @asynccontextmanager
    async def place(self, subject: str, *, wait_s: float) -> AsyncIterator[None]:
        """Hold a place. wait_s: for it to become free. Raises TooManyQuestions (the subject's own are in the way),
        TooManyScans."""
        if self._free and self._held[subject] < self._per_subject:
            self._take(subject)
        else:
            await self._wait(subject, wait_s)
        metrics.SCANS_RUNNING.inc()
        try:
            yield
        finally:
            metrics.SCANS_RUNNING.dec()
            self._give_back(subject)

    async def _wait(self, subject: str, wait_s: float) -> None:
        if len(self._queues.get(subject, ())) >= self._waiting_per_subject_max:
            raise self._refused(subject)
        if len(self._order) >= self._waiting_max:
            raise self._refused(subject)
        turn: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._queues.setdefault(subject, deque()).append(turn)
        self._order[turn] = subject
        metrics.SCANS_WAITING.set(len(self._order))
        try:
            async with asyncio.timeout(wait_s):
                await turn
        except BaseException as error:
            if turn in self._order:
                self._leave(turn, subject)
            elif turn.done() and not turn.cancelled():  # it was given a place that it can no longer use
                self._give_back(subject)
            if isinstance(error, TimeoutError):
                raise self._refused(subject) from None
            raise

    def _refused(self, subject: str) -> TooManyQuestions | TooManyScans:
        is_own = self._held[subject] >= self._per_subject
        metrics.SCANS_REFUSED.labels(reason="subject" if is_own else "all").inc()
        if not is_own:
            return TooManyScans()
        return TooManyQuestions(
            f"{self._held[subject]} of your questions are being answered, as many as one may ask at once; ask fewer at a time"
        )

    def _take(self, subject: str) -> None:
        self._free -= 1
        self._held[subject] += 1

    def _give_back(self, subject: str) -> None:
        self._free += 1
        self._held[subject] -= 1
        if not self._held[subject]:
            del self._held[subject]
        self._hand_on()

    def _hand_on(self) -> None:
        """Give what is free to those who wait: at most waiting_max subjects are looked at."""
        while self._free:
            eligible = [subject for subject in self._queues if self._held[subject] < self._per_subject]
            if not eligible:
                return
            fewest = min(self._held[subject] for subject in eligible)
            turn, subject = next(
                (turn, subject)
                for turn, subject in self._order.items()
                if self._held[subject] == fewest and subject in self._queues
            )
            self._leave(turn, subject)
            if not turn.done():  # else it was cancelled, and its task has not run since
                self._take(subject)
                turn.set_result(None)

    def _leave(self, turn: asyncio.Future[None], subject: str) -> None:
        del self._order[turn]
        queue = self._queues[subject]
        queue.remove(turn)
        if not queue:
            del self._queues[subject]
        metrics.SCANS_WAITING.set(len(self._order))
