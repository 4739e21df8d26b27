"""Asks segments, in reader processes that are bounded, watched and started again (process.py, reader.py).

Promise: a scan ends: with its rows, with as much as its budget allowed, or with an error that says whether to try again. Its
budget is counted from when it comes: waiting for a reader and for its start is part of it. What a reader does or fails to do
never takes the caller along: one that dies or does not answer is killed, its scan gets SegmentReaderUnavailable, the next scan
starts another process. One that does not end when it is killed, since a disk hangs, keeps its place: there are never more
processes than readers, and when all of them hang scans are refused at once. Scans wait for a reader in the order they came, at
most `scans_waiting_max` of them and none longer than its budget. While others wait, a scan keeps its reader for one turn
(TURN_MS), then stands behind them with what it has found: a long search keeps no page out. A cancelled task interrupts its
scan at once and waits for nothing.

One event loop, no locks: a process belongs to one task from leaving the queue of idle ones until it is put back.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Coroutine, Iterable
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from runtime.sparing import SparingLog
from schemas.errors import LogfeedError
from schemas.record import Log
from store.port import Position
from store.segments.format import SegmentDamaged, SegmentMissing, SegmentReaderUnavailable
from store.segments.metrics import SCAN_SECONDS, SCANS_REFUSED, SCANS_WAITING
from store.segments.process import LOST, ReaderProcess
from store.segments.scans import (
    GRACE_MS,
    Counted,
    Failed,
    Found,
    Open,
    SegmentCount,
    SegmentCounts,
    SegmentResult,
    SegmentScan,
    rest_of,
    result_of,
)
from store.segments.settings import SegmentSettings

_HANG_S: Final = 5.0
"""After the end of its budget and the grace a reader is given up."""
_CANCEL_S: Final = 2.0
_CLOSE_S: Final = 12.0
"""A process that was killed has so long to end."""
log = SparingLog(structlog.get_logger(__name__))


class SegmentScanFailed(LogfeedError):
    """The scan cannot be answered: a defect, not a state that passes."""


class SegmentReader:
    """A bounded number of reader processes, started when they are needed."""

    def __init__(self, directories: Iterable[Path], settings: SegmentSettings, *, hang_s: float = _HANG_S) -> None:
        """directories: where segments lie; others are not readable. hang_s: patience beyond a scan's budget."""
        memory_mib = settings.reader_memory_mib
        self._opening = Open(
            tuple(str(path.resolve()) for path in directories),
            memory_mib=memory_mib,
            process_mib=2 * memory_mib + 256,
            threads=settings.reader_threads,
        )
        self._waiting_max = settings.scans_waiting_max
        self._hang_s = hang_s
        self._processes = [ReaderProcess(self._opening) for _ in range(settings.readers)]
        self._idle = list(self._processes)
        """Used from its end: a process that runs comes before one that would have to be started."""
        self._free = asyncio.Semaphore(settings.readers)
        """One for each idle process; who waits is served in order."""
        self._waiting = 0
        self._asked: dict[ReaderProcess, int] = {}
        """Which question each process works on."""
        self._starting: set[asyncio.Task[None]] = set()
        self._settling: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def start(self) -> None:
        """Start idle processes that do not run: the first scan would wait for one (0.3 s). Failures are left to the scans."""
        settled = []
        for process in [process for process in self._idle if not process.runs]:
            if self._is_closed or self._free.locked():
                break
            await self._free.acquire()  # at once
            self._idle.remove(process)
            settled.append(self._settle(self._begun(process, self._start(process))))
        await asyncio.gather(*settled)

    async def scan(self, scan: SegmentScan) -> SegmentResult:
        """The scan's rows. Raises SegmentReaderUnavailable (retriable), SegmentDamaged, SegmentMissing, SegmentScanFailed, when
        nothing was looked at."""
        ends_s = _now_s() + scan.budget_ms / 1000
        logs: list[Log] = []
        looked_to: Position | None = None
        while True:
            try:
                found = await self._turn(scan, ends_s)
            except LogfeedError:
                if looked_to is None:
                    raise
                return SegmentResult(logs, looked_to)
            assert isinstance(found, Found), "a scan is answered by rows"
            result = result_of(found)
            logs += result.logs
            looked_to = result.looked_to
            if not found.gave_way:
                return SegmentResult(logs, looked_to)
            scan = rest_of(scan, found)

    async def count(self, count: SegmentCount) -> SegmentCounts:
        """Numbers of rows. It waits, gives way and fails as a scan does; raises the same."""
        ends_s = _now_s() + count.budget_ms / 1000
        rows: Counter[tuple[int, int]] = Counter()
        looked_to: Position | None = None
        while True:
            try:
                found = await self._turn(count, ends_s)
            except LogfeedError:
                if looked_to is None:
                    raise
                return SegmentCounts(dict(rows), looked_to)
            assert isinstance(found, Counted), "a count is answered by numbers"
            rows.update({(start_us, level): number for start_us, level, number in found.rows})
            looked_to = found.looked_to
            if not found.gave_way:
                return SegmentCounts(dict(rows), looked_to)
            assert looked_to is not None, "who gives way has not come to the end"
            count = msgspec.structs.replace(count, high=looked_to)

    async def close(self) -> None:
        """End all processes; scans under way and those that wait get SegmentReaderUnavailable."""
        self._is_closed = True
        for task in self._starting:
            task.cancel()
        for process in self._processes:
            process.end()
        ending = [asyncio.ensure_future(self._idle_killed()) for _ in self._processes]
        _, stuck = await asyncio.wait(ending, timeout=_CLOSE_S)
        for task in (*stuck, *(self._settling if stuck else ())):  # who waits for a broken disk ends with it
            task.cancel()
        await asyncio.gather(*ending, *self._settling, return_exceptions=True)

    async def _idle_killed(self) -> None:
        await self._free.acquire()
        await self._idle.pop().kill()

    async def _turn(self, asked: SegmentScan | SegmentCount, ends_s: float) -> Found | Counted:
        """What one process answers within what is left of its time."""
        process = await self._taken(ends_s)
        await self._running(process, ends_s)
        left_ms = max(1, int((ends_s - _now_s()) * 1000))
        outcome = "failed"
        began_s = _now_s()
        try:
            answer = await self._answer(process, msgspec.structs.replace(asked, budget_ms=left_ms))
            outcome = "done"
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            SCAN_SECONDS.labels(outcome).observe(_now_s() - began_s)
        return _found(answer)

    async def _taken(self, ends_s: float) -> ReaderProcess:
        """A process that nobody else has."""
        self._check_open()
        if self._free.locked():
            if all(process.is_stuck for process in self._processes):
                SCANS_REFUSED.inc()
                raise SegmentReaderUnavailable(
                    "every reader of segments hangs and cannot be ended: does the disk of the files answer?",
                    retry_after_s=30,
                )
            if self._waiting >= self._waiting_max:
                SCANS_REFUSED.inc()
                raise SegmentReaderUnavailable(
                    f"{self._waiting} scans of segments are waiting already; try again shortly"
                )
            for process, number in self._asked.items():
                process.give_way(number)
        self._waiting += 1
        SCANS_WAITING.inc()
        try:
            async with asyncio.timeout(max(0.0, ends_s - _now_s())):
                await self._free.acquire()
        except TimeoutError:
            SCANS_REFUSED.inc()
            raise SegmentReaderUnavailable("every reader of segments was busy for the scan's whole budget") from None
        finally:
            self._waiting -= 1
            SCANS_WAITING.dec()
        if self._is_closed:
            self._free.release()
            self._check_open()
        return self._idle.pop()

    async def _running(self, process: ReaderProcess, ends_s: float) -> None:
        """Start the process unless it runs. Who cannot wait so long leaves it, started, to the next scan."""
        if process.runs:
            return
        starting = self._start(process)
        try:
            await asyncio.wait({starting}, timeout=max(0.0, ends_s - _now_s()))
        except asyncio.CancelledError:
            self._settle(self._begun(process, starting))
            raise
        if not starting.done():
            self._settle(self._begun(process, starting))
            raise SegmentReaderUnavailable("a reader of segments is being started; try again shortly")
        error = EOFError("the service is stopping") if starting.cancelled() else starting.exception()
        if error is not None:
            self._settle(self._settled(process, None))
            raise SegmentReaderUnavailable(f"a reader of segments did not start: {error}") from error

    def _start(self, process: ReaderProcess) -> asyncio.Task[None]:
        task = asyncio.create_task(process.start())
        self._starting.add(task)
        task.add_done_callback(self._starting.discard)
        return task

    async def _begun(self, process: ReaderProcess, starting: asyncio.Task[None]) -> None:
        """Release a process once it runs, or is not going to."""
        try:
            await asyncio.wait({starting})
            error = None if starting.cancelled() else starting.exception()
            if error is not None:
                log.warning("segment reader did not start", error=str(error), kind=type(error).__name__)
            if starting.cancelled() or error is not None:
                await process.kill()
        finally:
            self._released(process)

    def _check_open(self) -> None:
        if self._is_closed:
            raise SegmentReaderUnavailable("segments are no longer read: the service is stopping")

    def _released(self, process: ReaderProcess) -> None:
        self._idle.append(process)
        self._free.release()

    async def _answer(self, process: ReaderProcess, asked: SegmentScan | SegmentCount) -> Found | Counted | Failed:
        """Of a process that runs. It is released now, or once it is in order again, whatever happens."""
        number = -1
        try:
            number = self._asked[process] = process.send(asked)
            if self._waiting:
                process.give_way(number)
            async with asyncio.timeout((asked.budget_ms + GRACE_MS) / 1000 + self._hang_s):
                answer = await process.answer(number)
        except LOST as error:
            reason = "it did not answer in time" if isinstance(error, TimeoutError) else f"it ended ({error})"
            log.warning("segment reader lost", error=reason, kind=type(error).__name__)
            self._settle(self._settled(process, None))
            raise SegmentReaderUnavailable(
                f"a reader of segments was lost: {reason}; another one is started"
            ) from error
        except BaseException:  # cancelled, or what was to be sent cannot be
            self._settle(self._settled(process, number))
            raise
        finally:
            self._asked.pop(process, None)
        self._released(process)
        return answer

    def _settle(self, settling: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Have a process brought in order and released, whoever waits for it."""
        task = asyncio.create_task(settling)
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)
        return task

    async def _settled(self, process: ReaderProcess, number: int | None) -> None:
        """Of a process that was left in the middle of a question. None: of no more use."""
        try:
            if number is None:
                await process.kill()
                return
            async with asyncio.timeout(_CANCEL_S):
                await process.cancel(number)
        except LOST:
            await process.kill()
        finally:
            self._released(process)


def _now_s() -> float:
    return asyncio.get_running_loop().time()


def _found(answer: Found | Counted | Failed) -> Found | Counted:
    """Raises what the reader met."""
    if not isinstance(answer, Failed):
        return answer
    match answer.kind:
        case "missing":
            raise SegmentMissing(answer.segment)
        case "damaged":
            raise SegmentDamaged(answer.segment, answer.reason)
        case "nowhere":
            raise SegmentReaderUnavailable("the search got nowhere in its time: the reader of segments is busy")
        case "memory":
            raise SegmentReaderUnavailable(
                f"the search needs more memory than a reader of segments has: {answer.reason}"
            )
        case _:
            raise SegmentScanFailed(f"the scan of segments failed: {answer.reason}")
