"""Finds the rows that the database refuses as data, by halves, and turns them into dead letters."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Sequence

from store.port import EncodedRow
from writer.decode import DecodedFrame, without_rows

Refusal = Callable[[Sequence[EncodedRow]], Awaitable[str | None]]
"""Asks the store about rows: the error's text, or None when it would take them."""


async def refused_rows(frames: list[DecodedFrame], refusal: Refusal) -> list[DecodedFrame]:
    """The frames with every refused row as a dead letter. About 2·log2(rows) questions per refused row."""
    result = []
    for frame in frames:
        refused: dict[int, str] = {}
        await _search(frame.rows, 0, len(frame.rows), refusal, refused)
        result.append(without_rows(frame, refused) if refused else frame)
    return result


async def _search(rows: list[EncodedRow], start: int, end: int, refusal: Refusal, refused: dict[int, str]) -> None:
    if start == end:
        return
    problem = await refusal(rows[start:end])
    if problem is None:
        return
    if end - start == 1:
        refused[start] = problem
        return
    middle = (start + end) // 2
    await _search(rows, start, middle, refusal, refused)
    await _search(rows, middle, end, refusal, refused)
