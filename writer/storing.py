"""Stores one batch: plans it and commits it until plan and store agree.

What may be wrong with a batch is dealt with here: keys that another batch stored meanwhile, a border that moved, a chunk that
is missing, rows that the database refuses (found by halves and put aside). A batch that never agrees is taken apart, so that
one partition's trouble is one partition's. One batch at a time; what a commit made true is told at once, before anything
that may fail.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final

import structlog

from runtime.clock import Clock
from runtime.sparing import SparingLog
from runtime.tracing import step
from store.port import BorderMoved, ChunkMissing, KeyAlreadyStored, RowsRefused, StorePlan, Upkeep, WriteStore
from writer import metrics
from writer.bisect import refused_rows
from writer.dead_window import DeadWindow
from writer.decode import DecodedFrame
from writer.plan import check_dead_lines, judged_lines, plan_batch
from writer.positions import BrokenSequence
from writer.settings import WriterSettings

log = structlog.get_logger(__name__)

ATTEMPTS_MAX: Final = 20


class Storing:
    """Stores batches of one writer."""

    def __init__(
        self,
        *,
        settings: WriterSettings,
        store: WriteStore,
        upkeep: Upkeep,
        clock: Clock,
        on_stored: Callable[[StorePlan], None],
    ) -> None:
        """on_stored: told of each plan as soon as it is committed."""
        self._store = store
        self._upkeep = upkeep
        self._clock = clock
        self._on_stored = on_stored
        self._repeated = SparingLog(log)
        self._lines_max = settings.dead_window_lines
        self._window = DeadWindow(
            seconds=settings.dead_window_s,
            lines_max=settings.dead_window_lines,
            dead_min=settings.dead_lines_min,
            ratio_max=settings.dead_ratio_max,
        )

    async def remember(self) -> None:
        """Judge dead letters by what was stored before this process as well: a writer that a supervisor starts again and
        again must not put aside a little more of a flood each time. Raises DatabaseUnavailable."""
        lines, dead = await self._store.recent_lines()
        counted = max(0, min(lines, self._lines_max))
        # Replayed letters are booked with a minus.
        self._window.note(counted, max(0, dead) * counted // max(lines, 1), self._clock.monotonic_s())

    async def store(self, frames: list[DecodedFrame], epochs: dict[int, int]) -> None:
        """Store consecutive frames of some partitions, all or nothing for each partition.

        Raises Fenced, DatabaseUnavailable, TooManyDeadLetters; BrokenSequence for a partition whose frames never agree
        with the store, after those of its neighbours were stored.
        """
        for _ in range(ATTEMPTS_MAX):
            try:
                with metrics.BATCH_SECONDS.time():
                    await self._try(frames, epochs)
                return
            except (KeyAlreadyStored, BorderMoved) as error:
                metrics.RETRIED.labels(type(error).__name__).inc()
            except ChunkMissing as error:
                metrics.RETRIED.labels("ChunkMissing").inc()
                self._repeated.warning("a chunk is missing, making it", error=str(error))
                await self._upkeep.ensure_chunks(now_us=self._clock.now_us())
            except RowsRefused as error:
                metrics.RETRIED.labels("RowsRefused").inc()
                # Its text names the row.
                self._repeated.warning("the database refuses a row, looking for it", error=str(error), kind="a row")
                frames = await refused_rows(frames, self._store.refusal, give_up_after=self._left_for(frames))
        await self._store_apart(frames, epochs)

    async def _store_apart(self, frames: list[DecodedFrame], epochs: dict[int, int]) -> None:
        partitions = sorted({frame.partition for frame in frames})
        if len(partitions) == 1:
            raise BrokenSequence(
                partitions[0],
                f"{len(frames)} frames from offset {frames[0].offset} on were planned {ATTEMPTS_MAX} times and never"
                " agreed with the store",
            )
        trouble: BrokenSequence | None = None
        for partition in partitions:
            try:
                await self.store([frame for frame in frames if frame.partition == partition], epochs)
            except BrokenSequence as error:
                trouble = trouble or error
        if trouble is not None:
            raise trouble

    async def _try(self, frames: Sequence[DecodedFrame], epochs: dict[int, int]) -> None:
        keys = [frame.key_hash for frame in frames if frame.key_hash is not None]
        async with self._store.begin() as transaction:
            with step("known keys"):
                known = await transaction.known_keys(keys) if keys else {}
            with step("plan"):
                plan = plan_batch(frames, epochs=epochs, known=known, border=transaction.border)
                check_dead_lines(plan, self._window, self._clock.monotonic_s())
            await transaction.commit(plan)
            lines, dead = judged_lines(plan)
            self._window.note(lines, dead, self._clock.monotonic_s())
            self._on_stored(plan)

    def _left_for(self, frames: Sequence[DecodedFrame]) -> int:
        """How many rows of these frames may still become dead letters."""
        dead = sum(number for frame in frames for counts in frame.dead_counts.values() for number in counts.values())
        lines = dead + sum(len(frame.rows) for frame in frames)
        return max(0, self._window.allowance(lines, self._clock.monotonic_s()) - dead)
