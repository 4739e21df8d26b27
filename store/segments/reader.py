"""The reader process: `python -m store.segments.reader`, started by reading.py, which speaks to it by its standard streams.

What users ask runs here and not beside the query service's requests: DuckDB with a limit of memory and nothing in reach but
the given directories (duck.py). A process that grows past its limit all the same ends itself; so does one whose parent has
gone. Two threads: this one listens, watches the time and the memory and interrupts; the other one asks DuckDB.
"""

from __future__ import annotations

import os
import queue
import select
import signal
import sys
import threading
from typing import Any, Final

import duckdb
import msgspec
import psutil

from runtime.clock import SystemClock
from store.segments.duck import connected
from store.segments.format import SegmentDamaged, SegmentMissing
from store.segments.scanning import ScanCancelled, ScanGotNowhere, Scanner
from store.segments.scans import (
    GRACE_MS,
    LENGTH,
    Cancel,
    CountQuestion,
    Failed,
    GiveWay,
    Open,
    Question,
    Ready,
    framed,
)

TOO_LARGE: Final = 3
"""Exit status of a process that held too much memory."""

_INPUT, _OUTPUT = 0, 1
_WATCH_S: Final = 0.05
_MESSAGE: Final = msgspec.msgpack.Decoder(Open | Question | CountQuestion | Cancel | GiveWay)


def main() -> None:
    """Serve until the parent goes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # a terminal sends it to the whole group: the parent decides
    opening = _read()
    if not isinstance(opening, Open):
        raise SystemExit("the first message must say how to work")
    connection = connected(opening.directories, memory_mib=opening.memory_mib, threads=opening.threads)
    reader = _Reader(connection, rss_max=opening.process_mib * 1024 * 1024)
    _write(Ready())
    reader.serve()


class _Reader:
    """One question at a time."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, *, rss_max: int) -> None:
        self._connection = connection
        self._clock = SystemClock()
        self._scanner = Scanner(connection, self._clock)
        self._rss_max = rss_max
        self._process = psutil.Process()
        self._questions: queue.SimpleQueue[Question | CountQuestion] = queue.SimpleQueue()
        self._current: Question | CountQuestion | None = None
        """Set here when it comes, unset by the worker after its answer."""
        self._interrupt_s = 0.0
        self._cancelled: int | None = None
        self._gives_way: int | None = None

    def serve(self) -> None:
        """Listen; interrupt what is over its time, again and again, since an interrupt between statements is lost."""
        threading.Thread(target=self._work, daemon=True).start()
        while True:
            readable, _, _ = select.select([_INPUT], [], [], _WATCH_S if self._current is not None else None)
            if readable:
                self._take(_read())
            question = self._current
            if question is None:
                continue
            if self._process.memory_info().rss > self._rss_max:
                os._exit(TOO_LARGE)
            if self._cancelled == question.number or self._clock.monotonic_s() >= self._interrupt_s:
                self._connection.interrupt()

    def _take(self, message: Open | Question | CountQuestion | Cancel | GiveWay | None) -> None:
        match message:
            case Question() | CountQuestion():
                self._interrupt_s = self._clock.monotonic_s() + (message.budget_ms + GRACE_MS) / 1000
                self._current = message
                self._questions.put(message)
            case Cancel():
                self._cancelled = message.number
            case GiveWay():
                self._gives_way = message.number
            case _:
                os._exit(0)  # at once: DuckDB may be in the middle of a statement

    def _work(self) -> None:
        while True:
            question = self._questions.get()
            answer = self._answer(question)
            self._current = None
            _write(answer)

    def _answer(self, question: Question | CountQuestion) -> msgspec.Struct:
        number = question.number

        def got_on() -> None:
            self._interrupt_s = min(self._interrupt_s, ends_s)

        def is_cancelled() -> bool:
            return self._cancelled == number

        def gives_way() -> bool:
            return self._gives_way == number

        ends_s = self._clock.monotonic_s() + question.budget_ms / 1000
        scanner = self._scanner
        try:
            if isinstance(question, CountQuestion):
                return scanner.count(question, is_cancelled=is_cancelled, gives_way=gives_way, got_on=got_on)
            return scanner.run(question, is_cancelled=is_cancelled, gives_way=gives_way, got_on=got_on)
        except SegmentMissing as error:
            return Failed(number, "missing", error.segment, str(error))
        except SegmentDamaged as error:
            return Failed(number, "damaged", error.segment, error.reason)
        except ScanCancelled:
            return Failed(number, "cancelled", "", "")
        except ScanGotNowhere:
            return Failed(number, "nowhere", "", "")
        except duckdb.OutOfMemoryException as error:
            return Failed(number, "memory", "", f"{error}".splitlines()[0])
        except Exception as error:  # whatever it is, the parent waits for an answer
            return Failed(number, "failed", "", f"{type(error).__name__}: {error}"[:1_000])


def _read() -> Any:  # Any: one of the messages, None at the end
    head = _exactly(LENGTH.size)
    content = _exactly(LENGTH.unpack(head)[0]) if head else b""
    return _MESSAGE.decode(content) if content else None


def _exactly(size: int) -> bytes:
    """So many bytes of input; none when it ends."""
    parts = []
    while size:
        part = os.read(_INPUT, min(size, 1 << 20))
        if not part:
            return b""
        parts.append(part)
        size -= len(part)
    return b"".join(parts)


def _write(message: msgspec.Struct) -> None:
    """One thread at a time: main before the worker begins, then the worker."""
    content = memoryview(framed(message))
    try:
        while content:
            content = content[os.write(_OUTPUT, content) :]
    except BrokenPipeError:
        os._exit(0)


if __name__ == "__main__":
    if sys.platform != "win32":
        main()
