"""One reader process and the messages to and from it (reader.py). reading.py says which scan has it when."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from pathlib import Path
from typing import Any, Final

import msgspec
import structlog

from store.segments.metrics import READERS_KILLED, READERS_STARTED, READERS_STUCK
from store.segments.scans import (
    LENGTH,
    MESSAGE_BYTES_MAX,
    Cancel,
    Counted,
    Failed,
    Found,
    GiveWay,
    Open,
    Ready,
    SegmentCount,
    SegmentScan,
    count_question_of,
    framed,
    question_of,
)

LOST: Final = (OSError, EOFError, TimeoutError, msgspec.MsgspecError)
"""What says that a process is of no more use."""

_ROOT: Final = str(Path(__file__).resolve().parents[2])
_START_S: Final = 30.0
_KILL_S: Final = 10.0
_ANSWER: Final = msgspec.msgpack.Decoder(Ready | Found | Counted | Failed)


log = structlog.get_logger(__name__)


class ReaderProcess:
    """One reader process, or none yet. Used by one task at a time."""

    def __init__(self, opening: Open) -> None:
        """opening: how it is to work."""
        self._opening = opening
        self._process: asyncio.subprocess.Process | None = None
        self._number = 0
        self.is_stuck = False
        """It was killed and has not ended."""
        self._coming: int | None = None
        """Bytes of the message whose length was read: whoever read that may have been cancelled since."""

    @property
    def pid(self) -> int | None:
        """Of the process that runs."""
        return None if self._process is None else self._process.pid

    @property
    def runs(self) -> bool:
        """Whether it was started and has not ended since."""
        return self._process is not None and self._process.returncode is None

    async def start(self) -> None:
        """Start it; it must not run. Raises LOST errors; `kill` then removes what is left."""
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
        self._coming = None
        READERS_STARTED.inc()
        async with asyncio.timeout(_START_S):
            self._write(self._opening)
            if not isinstance(await self._read(), Ready):
                raise EOFError("it did not say that it is ready")

    def send(self, asked: SegmentScan | SegmentCount) -> int:
        """Ask; returns the question's number."""
        self._number += 1
        if isinstance(asked, SegmentCount):
            self._write(count_question_of(self._number, asked))
        else:
            self._write(question_of(self._number, asked))
        return self._number

    async def answer(self, number: int) -> Found | Counted | Failed:
        """To the question with this number; answers to earlier ones are passed over. Raises EOFError, OSError."""
        while True:
            message = await self._read()
            if isinstance(message, (Found, Counted, Failed)) and message.number == number:
                return message

    async def cancel(self, number: int) -> None:
        """Interrupt the question and wait until the process is free. number -1: it was not even asked."""
        if number < 0:
            raise EOFError("it had not begun")
        self._write(Cancel(number))
        await self.answer(number)

    def give_way(self, number: int) -> None:
        """Others wait: the answer to this question is what it will have looked at shortly."""
        self._write(GiveWay(number))

    def end(self) -> None:
        """Kill it, whoever waits for it: their reading ends."""
        if self._process is not None and self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()

    async def kill(self) -> None:
        """End it and wait until nothing of it is left, however long that takes: one that waits for a broken disk cannot be
        killed, and one more in its place would wait as well. Nobody may be reading from it."""
        if self._process is None:
            return
        if self._process.returncode is None:
            READERS_KILLED.inc()
        self.end()
        process = self._process
        assert process.stdin is not None, "it was started with pipes"
        assert process.stdout is not None, "it was started with pipes"
        process.stdin.close()
        ending = asyncio.ensure_future(_ended(process.stdout, process))
        try:
            await asyncio.wait({ending}, timeout=_KILL_S)
            if not ending.done():
                self.is_stuck = True
                READERS_STUCK.inc()
                log.error("a reader of segments was killed and does not end: does a disk hang?", pid=process.pid)
                await asyncio.wait({ending})
        finally:
            ending.cancel()
            if self.is_stuck:
                self.is_stuck = False
                READERS_STUCK.dec()
        self._process = None

    def _write(self, message: msgspec.Struct) -> None:
        """Not drained: one message is under way at a time, and the pipe's end is noticed by reading."""
        if self._process is None or self._process.stdin is None:
            raise EOFError("it does not run")
        self._process.stdin.write(framed(message))

    async def _read(self) -> Any:  # Any: one of the messages
        if self._process is None or self._process.stdout is None:
            raise EOFError("it does not run")
        if self._coming is None:
            (self._coming,) = LENGTH.unpack(await self._process.stdout.readexactly(LENGTH.size))
        if self._coming > MESSAGE_BYTES_MAX:
            raise EOFError(f"a message of {self._coming} bytes is none of ours")
        content = await self._process.stdout.readexactly(self._coming)
        self._coming = None
        return _ANSWER.decode(content)


async def _ended(output: asyncio.StreamReader, process: asyncio.subprocess.Process) -> None:
    while await output.read(1 << 20):
        pass
    await process.wait()
