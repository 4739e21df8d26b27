"""Batches made in a thread of its own, one at a time, when asked for.

Reading and parsing hold the interpreter or wait for a disk or a pipe; the event loop goes on sending meanwhile. The thread is a
daemon: an import that ends early does not wait for a pipe that stays silent.
"""

from __future__ import annotations

import asyncio
import queue
import threading
from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

Item = TypeVar("Item")


class BackgroundIterator(Generic[Item]):
    """An iterator run by another thread. `next` may be called by several tasks; they are served in turn."""

    def __init__(self, make: Callable[[], Iterator[Item]]) -> None:
        """make: called in the thread."""
        self._make = make
        self._asked: queue.SimpleQueue[asyncio.Future[Item | None] | None] = queue.SimpleQueue()
        self._loop = asyncio.get_running_loop()
        self._turn = asyncio.Lock()
        threading.Thread(target=self._run, name="reading", daemon=True).start()

    async def next(self) -> Item | None:
        """The next item; None at the end. Raises what the iterator raises."""
        async with self._turn:
            answer: asyncio.Future[Item | None] = self._loop.create_future()
            self._asked.put(answer)
            return await answer

    def close(self) -> None:
        """End the thread after the item it is making."""
        self._asked.put(None)

    def _run(self) -> None:
        items: Iterator[Item] | None = None
        while (answer := self._asked.get()) is not None:
            try:
                items = self._make() if items is None else items
                item = next(items, None)
            except BaseException as error:  # handed to the task that waits
                self._settle(answer, error=error)
            else:
                self._settle(answer, item=item)

    def _settle(
        self, answer: asyncio.Future[Item | None], *, item: Item | None = None, error: BaseException | None = None
    ) -> None:
        def settle() -> None:
            if not answer.done():
                if error is not None:
                    answer.set_exception(error)
                else:
                    answer.set_result(item)

        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(settle)
