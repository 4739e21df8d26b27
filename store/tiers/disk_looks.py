"""Looks at a file system that may hang: each in a thread of its own, with a deadline.

A call into a file system that hangs (a network one whose server is gone) cannot be ended. Its thread is left behind, a daemon,
so that it holds up neither the event loop nor the end of the process; while too many are left behind no further look begins.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from typing import Final, TypeVar

from schemas.errors import Overloaded

_UNDER_WAY_MAX: Final = 64

T = TypeVar("T")


class DiskHangs(Overloaded):
    """The file system does not answer; try again shortly."""


class DiskLooks:
    """Of one event loop."""

    def __init__(self) -> None:
        """Nothing is looked at yet."""
        self._under_way = 0

    async def look(self, work: Callable[[], T], *, timeout_s: float) -> T:
        """What the work returns, which only looks: nobody waits for its end after timeout_s. Raises DiskHangs, OSError."""
        if self._under_way >= _UNDER_WAY_MAX:
            raise DiskHangs
        loop = asyncio.get_running_loop()
        answer: asyncio.Future[T] = loop.create_future()

        def run() -> None:
            try:
                found, error = [work()], None
            except OSError as raised:
                found, error = [], raised
            with contextlib.suppress(RuntimeError):  # the loop is closed: nobody waits any more
                loop.call_soon_threadsafe(done, found, error)

        def done(found: list[T], error: OSError | None) -> None:
            self._under_way -= 1
            if answer.done():
                return
            if error is not None:
                answer.set_exception(error)
            else:
                answer.set_result(found[0])

        self._under_way += 1
        threading.Thread(target=run, daemon=True, name="look at a disk").start()
        try:
            async with asyncio.timeout(timeout_s):
                return await answer
        except TimeoutError:
            raise DiskHangs from None
