"""The predicate tree: what a log must be like, as plain values.

One tree serves page queries, tail, alert rules, routes and ingest filters. Nodes are frozen and hashable; each checks its
own arguments and raises ValueError with a message for people, so that a predicate that exists can be compiled by every
compiler. Build with the node classes and with `all_of`, `any_of`, `negate`, which simplify.

Every node is true or false of every log, never unknown: a missing correlation id or metadata field makes the leaf false,
and its negation true. Text compares by code points, as COLLATE "C" does.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Final, Literal, Protocol, TypeAlias

from schemas.levels import SEVERITY_MAX
from schemas.scope import ServiceScope
from search.letters import fold
from search.numbers import is_in_limits, json_text
from search.regex import Pattern, merge
from search.regex_dialects import to_re2

PATH_PARTS_MAX: Final = 8
ID_MAX: Final = 2**63 - 1
TIMESTAMP_MIN_US: Final = -62_135_596_800_000_000
"""0001-01-01T00:00:00Z, the first moment every engine can hold, in microseconds since the Unix epoch."""
TIMESTAMP_MAX_US: Final = 253_402_300_799_999_999
"""The last microsecond of the year 9999."""


class LogView(Protocol):
    """What a predicate judges; `schemas.record.Log` is one.

    id: Snowflake. timestamp: microseconds since the Unix epoch, UTC. level: severity number 1..24. metadata: JSON values.
    """

    @property
    def id(self) -> int: ...
    @property
    def timestamp(self) -> int: ...
    @property
    def level(self) -> int: ...
    @property
    def service_name(self) -> str: ...
    @property
    def message(self) -> str: ...
    @property
    def correlation_id(self) -> str | None: ...
    @property
    def metadata(self) -> dict[str, Any]: ...  # Any: whatever JSON the producer sent


@dataclass(frozen=True, slots=True)
class Everything:
    """True of every log."""


@dataclass(frozen=True, slots=True)
class Nothing:
    """True of no log."""


@dataclass(frozen=True, slots=True)
class And:
    """True when all children are."""

    children: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Or:
    """True when any child is."""

    children: tuple[Predicate, ...]


@dataclass(frozen=True, slots=True)
class Not:
    """True when the child is not."""

    child: Predicate


@dataclass(frozen=True, slots=True)
class ServiceIn:
    """The service is one of the names, or begins with one of the prefixes (`service:pay*`)."""

    names: frozenset[str] = frozenset()
    prefixes: frozenset[str] = frozenset()

    def __post_init__(self) -> None:
        for text in (*self.names, *self.prefixes):
            _check_text(text, "a service name")


@dataclass(frozen=True, slots=True)
class LevelIn:
    """The severity number is in one of the (least, greatest) ranges, both inclusive. ERROR is (17, 20)."""

    ranges: tuple[tuple[int, int], ...]

    def __post_init__(self) -> None:
        for least, greatest in self.ranges:
            if not 1 <= least <= greatest <= SEVERITY_MAX:
                raise ValueError(f"a range of levels must be within 1..{SEVERITY_MAX}, got {least}..{greatest}")
        object.__setattr__(self, "ranges", merge(self.ranges))


@dataclass(frozen=True, slots=True)
class MinLevel:
    """The severity number is at least this, 1..24."""

    severity: int

    def __post_init__(self) -> None:
        if not 1 <= self.severity <= SEVERITY_MAX:
            raise ValueError(f"severity must be 1..{SEVERITY_MAX}, got {self.severity}")


@dataclass(frozen=True, slots=True)
class TimeRange:
    """start_us <= timestamp < end_us, microseconds since the Unix epoch; None: no bound on that side."""

    start_us: int | None = None
    end_us: int | None = None

    def __post_init__(self) -> None:
        for bound in (self.start_us, self.end_us):
            if bound is not None and not TIMESTAMP_MIN_US <= bound <= TIMESTAMP_MAX_US:
                raise ValueError(f"a time must be in the years 1..9999, got {bound} microseconds since 1970")


@dataclass(frozen=True, slots=True)
class IdRange:
    """first <= id <= last, both inclusive; None: no bound on that side."""

    first: int | None = None
    last: int | None = None

    def __post_init__(self) -> None:
        for bound in (self.first, self.last):
            if bound is not None and not 0 <= bound <= ID_MAX:
                raise ValueError(f"an id must be 0..{ID_MAX}, got {bound}")


@dataclass(frozen=True, slots=True)
class CorrelationIs:
    """The correlation id is exactly this."""

    correlation_id: str

    def __post_init__(self) -> None:
        _check_text(self.correlation_id, "a correlation id")


@dataclass(frozen=True, slots=True)
class CorrelationPresent:
    """There is a correlation id."""


@dataclass(frozen=True, slots=True)
class Contains:
    """The message has this text in it, letters in either case (letters.py); no character of it is special."""

    text: str

    def __post_init__(self) -> None:
        _check_text(self.text, "text to search for")


@dataclass(frozen=True, slots=True)
class Matches:
    """The regular expression (regex.py) matches somewhere in the message."""

    pattern: Pattern


@dataclass(frozen=True, slots=True)
class FieldPresent:
    """The metadata has this field, with a value other than null. For `path` see MetaEquals."""

    path: tuple[str, ...]

    def __post_init__(self) -> None:
        _check_path(self.path)


@dataclass(frozen=True, slots=True)
class MetaEquals:
    """A metadata field equals the text.

    A JSON string equals it exactly. A number equals it when the text is a JSON number of the same value (1.0 = 1 = 1e0).
    A boolean equals `true` or `false`. null, arrays and objects equal nothing.

    path ("a", "b", "c") is the field a.b.c however its producer nested it: objects for the first parts, then one key with
    the rest in it: a → b → c, a → "b.c" or "a.b.c". Where several exist, any may match. Arrays are not entered.
    """

    path: tuple[str, ...]
    text: str

    def __post_init__(self) -> None:
        _check_path(self.path)
        _check_text(self.text, "a value")


Comparison: TypeAlias = Literal[">", ">=", "<", "<="]


@dataclass(frozen=True, slots=True)
class MetaCompare:
    """A metadata field is a JSON number that compares so, as exact decimals. Strings of digits are no numbers here."""

    path: tuple[str, ...]
    op: Comparison
    number: Decimal

    def __post_init__(self) -> None:
        _check_path(self.path)
        if self.op not in (">", ">=", "<", "<="):
            raise ValueError(f"a comparison is one of > >= < <=, got {self.op!r}")
        if not is_in_limits(self.number):
            raise ValueError("a number must have at most 100 digits and be between 1e-1000 and 1e1000 in size")


Predicate: TypeAlias = (
    Everything
    | Nothing
    | And
    | Or
    | Not
    | ServiceIn
    | LevelIn
    | MinLevel
    | TimeRange
    | IdRange
    | CorrelationIs
    | CorrelationPresent
    | Contains
    | Matches
    | FieldPresent
    | MetaEquals
    | MetaCompare
)

EVERYTHING: Final = Everything()
NOTHING: Final = Nothing()


def all_of(*predicates: Predicate) -> Predicate:
    """Their conjunction: flat, each child once, in order; Everything left out, Nothing alone."""
    children = _flat(predicates, And)
    children.pop(EVERYTHING, None)
    if NOTHING in children:
        return NOTHING
    return _only(children) or (And(tuple(children)) if children else EVERYTHING)


def any_of(*predicates: Predicate) -> Predicate:
    """Their disjunction: flat, each child once, in order; Nothing left out, Everything alone."""
    children = _flat(predicates, Or)
    children.pop(NOTHING, None)
    if EVERYTHING in children:
        return EVERYTHING
    return _only(children) or (Or(tuple(children)) if children else NOTHING)


def negate(predicate: Predicate) -> Predicate:
    """Its negation, without double negation."""
    match predicate:
        case Not(child):
            return child
        case Everything():
            return NOTHING
        case Nothing():
            return EVERYTHING
    return Not(predicate)


def within(allowed: ServiceScope) -> Predicate:
    """True of the logs of these services: what access control adds to a query with `all_of`."""
    if allowed.is_empty:
        return NOTHING
    named = EVERYTHING if allowed.everything else ServiceIn(allowed.names, allowed.prefixes)
    return all_of(named, negate(ServiceIn(allowed.excluded))) if allowed.excluded else named


def children_of(predicate: Predicate) -> tuple[Predicate, ...]:
    """The direct parts of a compound; empty for a leaf."""
    match predicate:
        case And(children) | Or(children):
            return children
        case Not(child):
            return (child,)
    return ()


def reads_metadata(predicate: Predicate) -> bool:
    """False: no part of the predicate looks at `metadata`."""
    if isinstance(predicate, (MetaEquals, MetaCompare, FieldPresent)):
        return True
    return any(map(reads_metadata, children_of(predicate)))


def cost_of(predicate: Predicate) -> int:
    """Roughly how dear one test is, so that compilers can put cheap ones first; the unit is one comparison."""
    match predicate:
        case Matches():
            return 40
        case Contains():
            return 10
        case MetaEquals(path) | MetaCompare(path) | FieldPresent(path):
            return 8 * len(path)
        case And() | Or() | Not():
            return 1 + sum(map(cost_of, children_of(predicate)))
    return 1


def canonical(predicate: Predicate) -> bytes:
    """A stable form for hashing: equal for predicates that differ only in the order or repetition of children, in the
    order of names, in the letter case of contained text, or in the spelling of a number or of a regular expression."""
    return json.dumps(["predicate-1", _plain(predicate)], separators=(",", ":")).encode()


_Plain: TypeAlias = Sequence["str | int | _Plain | None"]


def _plain(predicate: Predicate) -> _Plain:
    match predicate:
        case Everything() | Nothing() | CorrelationPresent():
            return [type(predicate).__name__]
        case And(children) | Or(children):
            return [type(predicate).__name__, *_sorted(map(_plain, children))]
        case Not(child):
            return ["Not", _plain(child)]
        case ServiceIn(names, prefixes):
            return ["ServiceIn", [*sorted(names)], [*sorted(prefixes)]]
        case LevelIn(ranges):
            return ["LevelIn", *[[least, greatest] for least, greatest in ranges]]
        case MinLevel(severity):
            return ["LevelIn", [severity, SEVERITY_MAX]]
        case TimeRange(first, last) | IdRange(first, last):
            return [type(predicate).__name__, first, last]
        case CorrelationIs(text):
            return ["CorrelationIs", text]
        case Contains(text):
            return ["Contains", fold(text)]
        case Matches(pattern):
            return ["Matches", to_re2(pattern)]
        case FieldPresent(path):
            return ["FieldPresent", [*path]]
        case MetaEquals(path, text):
            return ["MetaEquals", [*path], text]
        case MetaCompare(path, op, number):
            return ["MetaCompare", [*path], op, json_text(number)]


def _sorted(plains: Iterable[_Plain]) -> list[_Plain]:
    return [plain for _, plain in sorted({json.dumps(plain): plain for plain in plains}.items())]


def _flat(predicates: Iterable[Predicate], kind: type[And] | type[Or]) -> dict[Predicate, None]:
    """The predicates in order, each once, those of the same kind replaced by their children."""
    flat: dict[Predicate, None] = {}
    for predicate in predicates:
        flat |= _flat(children_of(predicate), kind) if isinstance(predicate, kind) else {predicate: None}
    return flat


def _only(children: dict[Predicate, None]) -> Predicate | None:
    return next(iter(children)) if len(children) == 1 else None


def _check_text(text: str, what: str) -> None:
    for char in text:
        if char == "\0" or "\ud800" <= char <= "\udfff":
            raise ValueError(f"{what} cannot have U+{ord(char):04X} in it: no stored text has")


def _check_path(path: tuple[str, ...]) -> None:
    if not 1 <= len(path) <= PATH_PARTS_MAX:
        raise ValueError(f"a field name has 1..{PATH_PARTS_MAX} parts between dots, got {len(path)}")
    for part in path:
        _check_text(part, "a field name")
        if part == "" or "*" in part:  # * is a wildcard in DuckDB's paths, even in quotes
            raise ValueError(f"a part of a field name must not be empty or have * in it, got {'.'.join(path)!r}")
