"""Answers about patterns: takes a place, asks the store, writes the body. Every call carries `allowed` (INV-5).

Also what `pattern:ID` in a query stands for: its text, if the asker may read a service that has it. An id is a hash of its
text, so an answer never changes; what is not known now may be known soon, and is asked again.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Any, Final

import orjson

from access.principal import Principal
from patterns.expression import shown_id
from query import params
from query.errors import PatternNotFound
from query.params import PatternQuestion
from runtime.clock import Clock
from schemas.scope import ServiceScope
from schemas.times import time_text
from store.patterns.reading import Asked, PatternFigures, PatternReader, Progress, Span

POINTS_MAX: Final = 500
_DAY_US: Final = 86_400_000_000
TemplateText = Callable[[int], str | None]
"""Id -> text of a pattern; None where it is not known or may not be read."""
Place = Callable[[Principal], AbstractAsyncContextManager[None]]
"""One of the places for questions. Raises TooManyQuestions, Overloaded."""


@dataclass(frozen=True, slots=True)
class PatternTexts:
    """Texts by id, for who may read them."""

    reader: PatternReader
    place: Place
    """Of a question: to look for texts is one."""

    async def of(
        self, items: Iterable[tuple[str, str]], principal: Principal, *, allowed: ServiceScope
    ) -> TemplateText:
        """What the `pattern:ID` terms of a request's parameters stand for. Raises TooManyQuestions, Overloaded; asks nothing
        where there are none."""
        ids = params.pattern_ids(items)
        texts: dict[int, str] = {}
        if ids:
            async with self.place(principal):
                texts = await self.reader.texts(ids, allowed=allowed)
        return texts.get


class PatternAnswers:
    """The answers' bodies, as JSON bytes."""

    def __init__(self, reader: PatternReader, place: Place, *, minutes_days: int, clock: Clock) -> None:
        """place: of a question. minutes_days: how long rows by the minute are kept."""
        self._reader = reader
        self._place = place
        self._minutes_us = minutes_days * _DAY_US
        self._clock = clock

    async def find(self, question: PatternQuestion, principal: Principal) -> bytes:
        """Patterns. Raises Overloaded."""
        asked = self._asked(question)
        async with self._place(principal):
            found = await self._reader.find(asked, question.sort, limit=question.limit, allowed=principal.may_read)
        return orjson.dumps(
            {
                **_progress(asked.span, found.progress),
                "patterns": [_pattern(figures) for figures in found.patterns],
                "count": found.lines,
                "other": found.other_lines,
            }
        )

    async def one(self, pattern_id: int, question: PatternQuestion, principal: Principal) -> bytes:
        """A pattern over time. Raises PatternNotFound, Overloaded."""
        asked = self._asked(question)
        async with self._place(principal):
            found = await self._reader.history(pattern_id, asked, points_max=POINTS_MAX, allowed=principal.may_read)
        if found is None:
            raise PatternNotFound(f"there is no pattern {shown_id(pattern_id)}, or it may not be read")
        return orjson.dumps(
            {
                **_progress(asked.span, found.progress),
                "pattern": _pattern(found.figures),
                "step": found.step_us // 1_000_000,
                "series": [
                    {"time": time_text(point.start_us), "count": point.lines, "errors": point.errors}
                    for point in found.points
                ],
            }
        )

    def _asked(self, question: PatternQuestion) -> Asked:
        span = Span.of(question.start_us, question.end_us, minutes_from_us=self._clock.now_us() - self._minutes_us)
        return Asked(span, question.services, question.min_level)


def _progress(span: Span, progress: Progress) -> dict[str, Any]:
    begins_us = progress.counted_from_us
    return {
        "start": time_text(span.start_us),
        "end": time_text(span.end_us),
        "resolution": span.unit * 60,
        "counted_from": None if begins_us is None else time_text(begins_us),
        "counted_through": None if progress.counted_through_us is None else time_text(progress.counted_through_us),
        "complete": not progress.has_gap and begins_us is not None and begins_us <= span.start_us,
    }


def _pattern(figures: PatternFigures) -> dict[str, Any]:
    return {
        "id": shown_id(figures.pattern_id),
        "template": figures.template,
        "services": list(figures.services),
        "services_count": figures.services_number,
        "levels": figures.levels,
        "count": figures.lines,
        "errors": figures.errors,
        "count_before": figures.lines_before,
        "change": round(figures.lines / figures.lines_before - 1, 4) if figures.lines_before else None,
        "first_seen": time_text(figures.first_us),
        "last_seen": time_text(figures.last_us),
        "samples": [str(log_id) for log_id in figures.samples],
    }
