"""A generator process under the harness: started with its moulds made, told to go, given credit, asked for its report."""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import signal
import sys
from asyncio.subprocess import PIPE, Process
from collections.abc import Sequence
from types import TracebackType
from typing import Self

import msgspec

from bench.generator import GeneratorReport
from infra.fleet import REPOSITORY


class LoadFailed(Exception):
    """The generator ended without a report."""


class Load:
    """One load. Used as a context manager: ready inside, killed afterwards if it still runs."""

    def __init__(self, urls: Sequence[str], *, connections: int, logs: int = 1_000, **options: object) -> None:
        """options: further ones of bench.generator; True for a flag, None leaves one out."""
        self._command = [sys.executable, "-m", "bench.generator", *urls]
        for name, value in {"connections": connections, "logs": logs, **options}.items():
            if value is True:
                self._command.append(f"--{name}")
            elif value not in (None, False):
                self._command.append(f"--{name}={value}")
        self._process: Process | None = None

    async def __aenter__(self) -> Self:
        self._process = await asyncio.create_subprocess_exec(
            *self._command, cwd=REPOSITORY, stdin=PIPE, stdout=PIPE, preexec_fn=_die_with_parent
        )
        assert self._process.stdout is not None
        if await self._process.stdout.readline() != b"ready\n":
            raise LoadFailed("the generator did not start")
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        assert self._process is not None
        if self._process.returncode is None:
            with contextlib.suppress(ProcessLookupError):
                self._process.kill()
            await self._ended(self._process)

    @property
    def pid(self) -> int:
        """Of the process."""
        assert self._process is not None
        return self._process.pid

    def go(self) -> None:
        """Begin."""
        self._say("go")

    def grant(self, requests: int) -> None:
        """So many requests may have been sent, in all (with credit=True)."""
        self._say(str(requests))

    def stop(self) -> None:
        """End early; the report comes all the same."""
        assert self._process is not None
        with contextlib.suppress(ProcessLookupError):
            self._process.send_signal(signal.SIGTERM)

    async def report(self) -> GeneratorReport:
        """What became of it, when it has ended. Raises LoadFailed; what was wrong is on standard error."""
        assert self._process is not None
        assert self._process.stdout is not None
        text = await self._process.stdout.read()
        if await self._ended(self._process):
            raise LoadFailed(f"the generator ended with exit code {self._process.returncode}")
        return msgspec.json.decode(text, type=GeneratorReport)

    @staticmethod
    async def _ended(process: Process) -> int:
        """Its exit code. `wait` waits for the pipes too, and now and then for ever where one was written to as it ended."""
        while process.returncode is None:  # noqa: ASYNC110 - nothing else tells of it
            await asyncio.sleep(0.01)
        return process.returncode

    def _say(self, line: str) -> None:
        assert self._process is not None
        assert self._process.stdin is not None
        with contextlib.suppress(ConnectionError):
            self._process.stdin.write(f"{line}\n".encode())


def _die_with_parent() -> None:
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
