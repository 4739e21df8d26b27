"""What must hold of every log that a predicate can match: for the planner, which chooses tiers, chunks and indexes by it.

All answers are necessary conditions, never sufficient ones: ruling out by them is safe, skipping the predicate is not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

from schemas.levels import SEVERITY_MAX
from search.numbers import parse_number
from search.predicate import (
    And,
    CorrelationIs,
    IdRange,
    LevelIn,
    MetaEquals,
    MinLevel,
    Nothing,
    Or,
    Predicate,
    ServiceIn,
    TimeRange,
)


def services_of(predicate: Predicate) -> ServiceIn | None:
    """The services a match must be of; None: any service. An empty ServiceIn: there can be no match."""
    match predicate:
        case ServiceIn():
            return predicate
        case Nothing():
            return ServiceIn()
        case And(children):
            result: ServiceIn | None = None
            for services in filter(None, map(services_of, children)):
                result = services if result is None else _intersection(result, services)
            return result
        case Or(children):
            parts = [services_of(child) for child in children]
            known = [part for part in parts if part is not None]
            if len(known) < len(parts):
                return None
            return ServiceIn(
                frozenset().union(*(part.names for part in known)),
                frozenset().union(*(part.prefixes for part in known)),
            )
    return None


def correlation_of(predicate: Predicate) -> str | None:
    """The one correlation id a match must have, or None when there is no such one."""
    match predicate:
        case CorrelationIs(correlation_id):
            return correlation_id
        case And(children):
            return next((found for child in children if (found := correlation_of(child)) is not None), None)
        case Or(children) if children:
            ids = {correlation_of(child) for child in children if not isinstance(child, Nothing)}
            return ids.pop() if len(ids) == 1 else None
    return None


def metadata_texts(predicate: Predicate) -> frozenset[str]:
    """Texts each of which is the value of some field in a match's metadata: strings, never numbers or booleans."""
    match predicate:
        case MetaEquals(_, text) if parse_number(text) is None and text not in ("true", "false"):
            return frozenset((text,))
        case And(children):
            return frozenset().union(*map(metadata_texts, children))
        case Or(children) if children:
            first, *others = map(metadata_texts, children)
            return first.intersection(*others)
    return frozenset()


def time_bounds(predicate: Predicate) -> TimeRange:
    """The range a match's timestamp must be in; None in it: no bound. start_us >= end_us: there can be no match."""
    match predicate:
        case TimeRange():
            return predicate
        case Nothing():
            return TimeRange(0, 0)
        case And(children):
            bounds = [time_bounds(child) for child in children]
            return TimeRange(
                _combine(max, (b.start_us for b in bounds if b.start_us is not None)),
                _combine(min, (b.end_us for b in bounds if b.end_us is not None)),
            )
        case Or(children):
            bounds = [b for b in map(time_bounds, children) if not _is_empty(b)]
            if not bounds:
                return TimeRange(0, 0)
            starts = [b.start_us for b in bounds if b.start_us is not None]
            ends = [b.end_us for b in bounds if b.end_us is not None]
            return TimeRange(
                min(starts) if len(starts) == len(bounds) else None, max(ends) if len(ends) == len(bounds) else None
            )
    return TimeRange()


def id_bounds(predicate: Predicate) -> IdRange:
    """The range a match's id must be in; None in it: no bound. first > last: there can be no match."""
    match predicate:
        case IdRange():
            return predicate
        case And(children):
            bounds = [id_bounds(child) for child in children]
            return IdRange(
                _combine(max, (b.first for b in bounds if b.first is not None)),
                _combine(min, (b.last for b in bounds if b.last is not None)),
            )
    return IdRange()


def min_severity_of(predicate: Predicate) -> int:
    """The least severity number a match can have: 1 when the predicate says nothing about it."""
    match predicate:
        case MinLevel(severity):
            return severity
        case LevelIn(ranges):
            return ranges[0][0] if ranges else SEVERITY_MAX
        case Nothing():
            return SEVERITY_MAX
        case And(children):
            return max(map(min_severity_of, children), default=1)
        case Or(children):
            return min(map(min_severity_of, children), default=SEVERITY_MAX)
    return 1


def _intersection(a: ServiceIn, b: ServiceIn) -> ServiceIn:
    names = {name for name in a.names if _holds(b, name)} | {name for name in b.names if _holds(a, name)}
    prefixes = {longer for one, other in ((a, b), (b, a)) for longer in one.prefixes if _begins(longer, other.prefixes)}
    return ServiceIn(frozenset(names), frozenset(prefixes))


def _holds(services: ServiceIn, name: str) -> bool:
    return name in services.names or _begins(name, services.prefixes)


def _begins(text: str, prefixes: frozenset[str]) -> bool:
    return any(map(text.startswith, prefixes))


def _is_empty(bounds: TimeRange) -> bool:
    return bounds.start_us is not None and bounds.end_us is not None and bounds.start_us >= bounds.end_us


def _combine(choose: Callable[[Iterable[int]], int], values: Iterable[int]) -> int | None:
    found = list(values)
    return choose(found) if found else None
