"""Asks segments, in reader processes that are bounded, watched and started again (reader.py).

Promise: a scan ends: with its rows, with as much as its budget allowed, or with an error that says whether to try again. What
a reader does or fails to do never takes the caller along: one that dies or does not answer is killed, its scan gets
SegmentReaderUnavailable, the next scan starts another process. Scans wait for a reader in the order they came, at most
`scans_waiting_max` of them and none longer than its budget. A cancelled task interrupts its scan at once and waits for nothing.

One event loop, no locks: a process belongs to one scan from leaving the queue of idle ones until its answer is read.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from runtime.sparing import SparingLog
from schemas.errors import LogfeedError
from store.segments.format import SegmentDamaged, SegmentMissing, SegmentReaderUnavailable
from store.segments.metrics import READERS_KILLED, READERS_STARTED, SCAN_SECONDS, SCANS_REFUSED, SCANS_WAITING
from store.segments.scans import (
    GRACE_MS,
    LENGTH,
    MESSAGE_BYTES_MAX,
    Cancel,
    Failed,
    Found,
    Open,
    Ready,
    SegmentResult,
    SegmentScan,
    framed,
    question_of,
    result_of,
)
from store.segments.settings import SegmentSettings

_ROOT: Final = str(Path(__file__).resolve().parents[2])
_START_S: Final = 30.0
_HANG_S: Final = 5.0
"""After the end of its budget and the grace a reader is given up."""
_CANCEL_S: Final = 2.0
_KILL_S: Final = 10.0
_ANSWER: Final = msgspec.msgpack.Decoder(Ready | Found | Failed)
_LOST: Final = (OSError, EOFError, TimeoutError, msgspec.MsgspecError)
"""What says that a process is of no more use."""
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
        self._processes = [_Process(self._opening) for _ in range(settings.readers)]
        self._idle = list(self._processes)
        """Used from its end: a process that runs comes before one that would have to be started."""
        self._free = asyncio.Semaphore(settings.readers)
        """One for each idle process; who waits is served in order."""
        self._waiting = 0
        self._settling: set[asyncio.Task[None]] = set()
        self._is_closed = False

    async def start(self) -> None:
        """Start all processes, before the first scan, which would wait for one (0.3 s). Failures are left to the scans."""
        started = await asyncio.gather(*(process.start() for process in self._processes), return_exceptions=True)
        for error in started:
            if isinstance(error, _LOST):
                log.warning("segment reader did not start", error=str(error))

    async def scan(self, scan: SegmentScan) -> SegmentResult:
        """The scan's rows. Raises SegmentReaderUnavailable (retriable), SegmentDamaged, SegmentMissing, SegmentScanFailed."""
        process = await self._taken(scan.budget_ms / 1000)
        outcome = "failed"
        began_s = asyncio.get_running_loop().time()
        try:
            answer = await self._asked(process, scan)
            outcome = "done"
        except asyncio.CancelledError:
            outcome = "cancelled"
            raise
        finally:
            SCAN_SECONDS.labels(outcome).observe(asyncio.get_running_loop().time() - began_s)
        return _result(answer)

    async def close(self) -> None:
        """End all processes; scans under way and those that wait get SegmentReaderUnavailable."""
        self._is_closed = True
        for process in self._processes:
            process.end()
        for _ in self._processes:
            await self._free.acquire()
            await self._idle.pop().kill()

    async def _taken(self, wait_s: float) -> _Process:
        """A process that nobody else has."""
        self._check_open()
        if self._free.locked() and self._waiting >= self._waiting_max:
            SCANS_REFUSED.inc()
            raise SegmentReaderUnavailable(f"{self._waiting} scans of segments are waiting already; try again shortly")
        self._waiting += 1
        SCANS_WAITING.inc()
        try:
            async with asyncio.timeout(wait_s):
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

    def _check_open(self) -> None:
        if self._is_closed:
            raise SegmentReaderUnavailable("segments are no longer read: the service is stopping")

    def _released(self, process: _Process) -> None:
        self._idle.append(process)
        self._free.release()

    async def _asked(self, process: _Process, scan: SegmentScan) -> Found | Failed:
        """The process's answer. The process is released now, or once it is in order again, whatever happens."""
        number = -1
        try:
            await process.start()
            number = process.send(scan)
            async with asyncio.timeout((scan.budget_ms + GRACE_MS) / 1000 + self._hang_s):
                answer = await process.answer(number)
        except _LOST as error:
            reason = "it did not answer in time" if isinstance(error, TimeoutError) else f"it ended ({error})"
            log.warning("segment reader lost", error=reason, kind=type(error).__name__)
            self._settle(process, None)
            raise SegmentReaderUnavailable(
                f"a reader of segments was lost: {reason}; another one is started"
            ) from error
        except BaseException:  # cancelled, or what was to be sent cannot be
            self._settle(process, number)
            raise
        self._released(process)
        return answer

    def _settle(self, process: _Process, number: int | None) -> None:
        """Bring a process in order that has been left in the middle of a question, or kill it (None), then release it."""
        task = asyncio.create_task(self._settled(process, number))
        self._settling.add(task)
        task.add_done_callback(self._settling.discard)

    async def _settled(self, process: _Process, number: int | None) -> None:
        try:
            if number is None:
                await process.kill()
                return
            async with asyncio.timeout(_CANCEL_S):
                await process.cancel(number)
        except _LOST:
            await process.kill()
        finally:
            self._released(process)


class _Process:
    """One reader process, or none yet. Used by one task at a time."""

    def __init__(self, opening: Open) -> None:
        self._opening = opening
        self._process: asyncio.subprocess.Process | None = None
        self._number = 0

    @property
    def pid(self) -> int | None:
        """Of the process that runs."""
        return None if self._process is None else self._process.pid

    async def start(self) -> None:
        """Unless it runs. Raises OSError, EOFError, TimeoutError."""
        if self._process is not None and self._process.returncode is None:
            return
        # No more of our environment than it needs: it runs what users ask, and secrets stand there.
        environment = {"PYTHONPATH": _ROOT, "PATH": os.environ.get("PATH", ""), "LANG": "C.UTF-8"}
        self._process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-P",
            "-m",
            "store.segments.reader",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            limit=1 << 20,
            env=environment,
        )
        READERS_STARTED.inc()
        async with asyncio.timeout(_START_S):
            self._write(self._opening)
            if not isinstance(await self._read(), Ready):
                raise EOFError("it did not say that it is ready")

    def send(self, scan: SegmentScan) -> int:
        """Ask; returns the question's number."""
        self._number += 1
        self._write(question_of(self._number, scan))
        return self._number

    async def answer(self, number: int) -> Found | Failed:
        """To the question with this number; answers to earlier ones are passed over. Raises EOFError, OSError."""
        while True:
            message = await self._read()
            if isinstance(message, (Found, Failed)) and message.number == number:
                return message

    async def cancel(self, number: int) -> None:
        """Interrupt the question and wait until the process is free. number -1: it was not even asked."""
        if number < 0:
            raise EOFError("it had not begun")
        self._write(Cancel(number))
        await self.answer(number)

    def end(self) -> None:
        """Kill it, whoever waits for it: their reading ends."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def kill(self) -> None:
        """End it and wait until nothing of it is left. Nobody may be reading from it."""
        if self._process is None:
            return
        if self._process.returncode is None:
            READERS_KILLED.inc()
        self.end()
        process, self._process = self._process, None
        assert process.stdin is not None, "it was started with pipes"
        assert process.stdout is not None, "it was started with pipes"
        process.stdin.close()
        with contextlib.suppress(TimeoutError):  # one that waits for a broken disk cannot be killed
            async with asyncio.timeout(_KILL_S):
                while await process.stdout.read(1 << 20):
                    pass
                await process.wait()

    def _write(self, message: msgspec.Struct) -> None:
        """Not drained: one message is under way at a time, and the pipe's end is noticed by reading."""
        if self._process is None or self._process.stdin is None:
            raise EOFError("it does not run")
        self._process.stdin.write(framed(message))

    async def _read(self) -> Any:  # Any: one of the messages
        if self._process is None or self._process.stdout is None:
            raise EOFError("it does not run")
        (size,) = LENGTH.unpack(await self._process.stdout.readexactly(LENGTH.size))
        if size > MESSAGE_BYTES_MAX:
            raise EOFError(f"a message of {size} bytes is none of ours")
        return _ANSWER.decode(await self._process.stdout.readexactly(size))


def _result(answer: Found | Failed) -> SegmentResult:
    """Raises what the reader met."""
    if isinstance(answer, Found):
        return result_of(answer)
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
