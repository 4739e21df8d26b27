"""Blocking calls under control: a few threads, and only as many readers as may wait for them.

A file system that hangs holds the thread that asked it, for good: nobody can take it back. So whoever waits for a step
waits with a deadline, a reader counts until its last step has come back, and when all places are taken the next one is
refused at once (`ReadersFull`), instead of waiting behind a disk that does not answer. Used from one event loop.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import asynccontextmanager
from typing import Final, TypeVar

from agent.errors import ReadersFull
from agent.metrics import READERS, READERS_REFUSED

Result = TypeVar("Result")

_RETRY_AFTER_S: Final = 2


class ReaderPool:
    """Threads, and places for readers."""

    def __init__(self, *, threads: int, readers_max: int) -> None:
        """threads: blocking calls at once. readers_max: open answers, those that follow a file included."""
        self._threads = ThreadPoolExecutor(max_workers=threads, thread_name_prefix="reader")
        self._readers_max = readers_max
        self._readers = 0

    @asynccontextmanager
    async def place(self) -> AsyncIterator[ReaderPlace]:
        """A place for one reader. Raises ReadersFull."""
        if self._readers >= self._readers_max:
            READERS_REFUSED.inc()
            raise ReadersFull(
                f"{self._readers} files are being read, which is as many as may be: try again shortly",
                retry_after_s=_RETRY_AFTER_S,
            )
        self._readers += 1
        READERS.set(self._readers)
        place = ReaderPlace(self._threads, self._leave)
        try:
            yield place
        finally:
            place.leave()

    def _leave(self) -> None:
        self._readers -= 1
        READERS.set(self._readers)

    def stop(self) -> None:
        """Take no more; threads that hang are left alone."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class ReaderPlace:
    """One reader's: its calls follow one another."""

    def __init__(self, threads: ThreadPoolExecutor, on_leave: Callable[[], None]) -> None:
        self._threads, self._on_leave = threads, on_leave
        self._running: Future[object] | None = None
        self._at_end: list[Callable[[], None]] = []
        self._loop = asyncio.get_running_loop()

    async def call(self, work: Callable[[], Result], *, timeout_s: float | None = None) -> Result:
        """What the work returns or raises, from a thread. Raises TimeoutError: the work goes on, and nothing else is called."""
        future = self._threads.submit(work)
        self._running = future  # type: ignore[assignment]  # of whatever result
        return await asyncio.wait_for(asyncio.shield(asyncio.wrap_future(future)), timeout_s)

    def at_end(self, work: Callable[[], None]) -> None:
        """To be done once the last call has come back; must not block."""
        self._at_end.append(work)

    def leave(self) -> None:
        """Give the place back, once the last call has come back."""
        if self._running is None or self._running.done():
            self._leave()
        else:
            self._running.add_done_callback(lambda _: self._loop.call_soon_threadsafe(self._leave))

    def _leave(self) -> None:
        for work in self._at_end:
            work()
        self._on_leave()
