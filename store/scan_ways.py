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
from search.sql import Sql
from search.sql_postgres import indexable_metadata

ERRORS_FROM: Final = 17
"""Severity from which a finished table has an index of its own."""
INDEX_EXCESS: Final = 3
"""An index is asked over rows that hold so many times what is wanted: the estimate is rough, and a second statement dearer."""
# Measured (docs/performance.md): a row met in order, with a test on its metadata; a match found by GIN, read and sorted; a
# statement more, with its planning.
_WALKED_ROW_US: Final = 0.3
_INDEXED_ROW_US: Final = 8.0
_INDEX_US: Final = 1_500.0


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
    terms: Sql | None
    """What a GIN index on metadata answers, of all rows that match and some others."""

    @classmethod
    def of(cls, predicate: Predicate) -> Traits:
        """The traits of a predicate."""
        conjuncts = predicate.children if isinstance(predicate, And) else (predicate,)
        return cls(
            is_everything=isinstance(predicate, Everything),
            is_slow=_reads_text(predicate),
            has_bulk_index=any(map(_has_bulk_index, conjuncts)),
            correlation=correlation_of(predicate),
            terms=indexable_metadata(predicate),
        )


@dataclass(slots=True)
class Density:
    """How many of the rows looked at so far match."""

    rows: int = 0
    hits: int = 0

    def saw(self, rows: int, hits: int) -> None:
        """So many rows were looked at, in any way."""
        self.rows += rows
        self.hits += hits

    @property
    def share(self) -> float:
        """Of all rows, as far as is known: none found may be one in twice as many."""
        return (self.hits + 0.5) / (self.rows + 1)

    def rows_with(self, hits: int) -> float:
        """How many rows hold so many hits, about."""
        return hits / self.share


def prefers_index(density: Density, *, wanted: int, rows_beside: int = 0) -> bool:
    """Whether an index on metadata finds so many rows sooner than a walk over all rows in their order does.

    The walk looks at every row until it has enough. The index finds matches only, in no order: more than are wanted, and
    looks at rows_beside that it does not hold.
    """
    walk_us = density.rows_with(wanted) * _WALKED_ROW_US
    index_us = _INDEX_US + INDEX_EXCESS * wanted * _INDEXED_ROW_US + rows_beside * _WALKED_ROW_US
    return index_us < walk_us


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
