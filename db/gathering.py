"""Questions that arrive while one statement runs share the next: many small ones cost little more than one.

Concurrency: one event loop. At most one statement of a `Gathering` is under way; whoever asks meanwhile waits for the next,
which takes up to `most` of them. Who is cancelled only stops waiting. A failed statement fails all that shared it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

Question = TypeVar("Question")
Answer = TypeVar("Answer")


class Gathering(Generic[Question, Answer]):
    """Asks for many at once."""

    def __init__(self, ask: Callable[[Sequence[Question]], Awaitable[Sequence[Answer]]], *, most: int) -> None:
        """ask: the answers of the questions, in their order. most: how many one call may be given."""
        self._ask = ask
        self._most = most
        self._waiting: list[tuple[Question, asyncio.Future[Answer]]] = []
        self._running: asyncio.Task[None] | None = None

    async def ask(self, question: Question) -> Answer:
        """The answer. Raises what `ask` raises."""
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._waiting.append((question, future))
        if self._running is None:
            self._running = asyncio.create_task(self._run())
        return await future

    async def _run(self) -> None:
        try:
            while self._waiting:
                together, self._waiting = self._waiting[: self._most], self._waiting[self._most :]
                await self._answer([each for each in together if not each[1].done()])
        finally:
            self._running = None

    async def _answer(self, together: Sequence[tuple[Question, asyncio.Future[Answer]]]) -> None:
        if not together:
            return
        try:
            answers = await self._ask([question for question, _ in together])
        except Exception as error:
            for _, future in together:
                if not future.done():
                    future.set_exception(error)
        else:
            for (_, future), answer in zip(together, answers, strict=True):
                if not future.done():
                    future.set_result(answer)
