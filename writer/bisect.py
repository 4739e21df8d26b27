"""Finds the rows that the database refuses as data, by halves, and turns them into dead letters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from store.port import EncodedRow
from writer.decode import DecodedFrame, without_rows
from writer.plan import TooManyDeadLetters

Refusal = Callable[[Sequence[EncodedRow]], Awaitable[str | None]]
"""Asks the store about rows: the error's text, or None when it would take them."""


async def refused_rows(frames: list[DecodedFrame], refusal: Refusal, *, give_up_after: int) -> list[DecodedFrame]:
    """The frames with every refused row as a dead letter. About 2·log2(rows) questions per refused row.

    Raises TooManyDeadLetters when more than give_up_after rows are refused: nothing is diverted then.
    """
    search = _Search(refusal, give_up_after)
    result = []
    for frame in frames:
        refused = await search.refused_in(frame)
        result.append(without_rows(frame, refused) if refused else frame)
    return result


class _Search:
    def __init__(self, refusal: Refusal, give_up_after: int) -> None:
        self._refusal = refusal
        self._left = give_up_after

    async def refused_in(self, frame: DecodedFrame) -> dict[int, str]:
        """Index in `rows` -> the database's error."""
        found: dict[int, str] = {}
        await self._halve(frame, 0, len(frame.rows), found)
        return found

    async def _halve(self, frame: DecodedFrame, start: int, end: int, found: dict[int, str]) -> None:
        if start == end:
            return
        problem = await self._refusal(frame.rows[start:end])
        if problem is None:
            return
        if end - start > 1:
            middle = (start + end) // 2
            await self._halve(frame, start, middle, found)
            await self._halve(frame, middle, end, found)
            return
        self._left -= 1
        if self._left < 0:
            raise TooManyDeadLetters(
                f"the database refuses more rows than may be put aside, at last in partition {frame.partition} offset"
                f" {frame.offset}: {problem}: look at the topic, then raise writer.dead_ratio_max to accept them"
            )
        found[start] = problem
