"""Questions that arrive while one statement runs share the next: many small ones cost little more than one.

Concurrency: one event loop. At most one statement of a `Gathering` is under way; whoever asks meanwhile waits for the next,
which takes up to `most` of them. Who is cancelled is taken out, so that nothing waits but callers who do. A failed
statement fails all that shared it; it has to have a deadline of its own, since nobody else asks while it hangs.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from itertools import islice
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Gathering(Generic[Question, Answer]):
    """Asks for many at once."""

    def __init__(self, ask: Callable[[Sequence[Question]], Awaitable[Sequence[Answer]]], *, most: int) -> None:
        """ask: the answers of the questions, in their order, within a bounded time. most: how many one call is given."""
        self._ask = ask
        self._most = most
        self._waiting: dict[asyncio.Future[Answer], Question] = {}
        """In the order in which they were asked."""
        self._running: asyncio.Task[None] | None = None

    async def ask(self, question: Question) -> Answer:
        """The answer. Raises what `ask` raises."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting[future] = question
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        try:
            return await future
        finally:
            self._waiting.pop(future, None)

    async def _run(self) -> None:
        try:
            while self._waiting:
                together = dict(islice(self._waiting.items(), self._most))
                for future in together:
                    del self._waiting[future]
                await self._answer(together)
        finally:
            self._running = None

    async def _answer(self, together: dict[asyncio.Future[Answer], Question]) -> None:
        try:
            answers = await self._ask(list(together.values()))
        except Exception as error:
            for future in together:
                if not future.done():
                    future.set_exception(error)
        else:
            for future, answer in zip(together, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
