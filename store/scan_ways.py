"""What about a question decides how its rows are found. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from schemas.levels import SEVERITY_MAX
from search.bounds import correlation_of
from search.predicate import (
    And,
    Contains,
    Everything,
    LevelIn,
    Matches,
    MinLevel,
    Predicate,
    ServiceIn,
    children_of,
)

ERRORS_FROM: Final = 17
"""Severity from which a finished table has an index of its own."""


@dataclass(frozen=True, slots=True)
class Traits:
    """Of a predicate."""

    is_everything: bool
    is_slow: bool
    """It reads texts: a row may take long."""
    has_bulk_index: bool
    """An index of finished chunks holds the rows in order, or few more than these."""
    correlation: str | None
    """The one correlation id that rows must have."""

    @classmethod
    def of(cls, predicate: Predicate) -> Traits:
        """The traits of a predicate."""
        conjuncts = predicate.children if isinstance(predicate, And) else (predicate,)
        return cls(
            is_everything=isinstance(predicate, Everything),
            is_slow=_reads_text(predicate),
            has_bulk_index=any(map(_has_bulk_index, conjuncts)),
            correlation=correlation_of(predicate),
        )


def _has_bulk_index(conjunct: Predicate) -> bool:
    match conjunct:
        case ServiceIn(names, prefixes):
            return len(names) == 1 and not prefixes
        case MinLevel(severity):
            return severity >= ERRORS_FROM
        case LevelIn(ranges):
            return min((least for least, _ in ranges), default=SEVERITY_MAX) >= ERRORS_FROM
    return False


def _reads_text(predicate: Predicate) -> bool:
    return isinstance(predicate, (Contains, Matches)) or any(map(_reads_text, children_of(predicate)))
