"""What LogQL's subset can say, as plain values."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Literal, TypeAlias

from schemas.errors import InvalidInput


class LogQLError(InvalidInput):
    """The query is not in the part of LogQL that is understood here."""

    def __init__(self, problem: str, column: int) -> None:
        """problem: without the place. column: 1-based, in characters."""
        super().__init__(f"column {column}: {problem}")
        self.problem, self.column = problem, column


Op: TypeAlias = Literal["=", "!=", "=~", "!~", ">", ">=", "<", "<="]


@dataclass(frozen=True, slots=True)
class Compare:
    """A label compared: as text, or with a number (of seconds, of bytes)."""

    name: str
    op: Op
    value: str | float
    column: int = field(compare=False)


@dataclass(frozen=True, slots=True)
class AllOf:
    """All of them."""

    parts: tuple[Condition, ...]


@dataclass(frozen=True, slots=True)
class AnyOf:
    """Any of them."""

    parts: tuple[Condition, ...]


Condition: TypeAlias = "Compare | AllOf | AnyOf"


@dataclass(frozen=True, slots=True)
class LineFilter:
    """Lines that contain, or match, any of the texts; negated: none of them."""

    is_regex: bool
    is_negated: bool
    texts: tuple[str, ...]
    column: int = field(compare=False)


class Parser(StrEnum):
    """What takes labels out of lines."""

    JSON = "json"
    LOGFMT = "logfmt"


@dataclass(frozen=True, slots=True)
class Parse:
    """Labels are taken out of the line."""

    parser: Parser


@dataclass(frozen=True, slots=True)
class Keep:
    """Only these labels stay; negated: these go."""

    names: frozenset[str]
    is_negated: bool


Stage: TypeAlias = "LineFilter | Parse | Keep | AllOf | AnyOf | Compare"


@dataclass(frozen=True, slots=True)
class LogQuery:
    """Which logs, and what is made of their labels."""

    matchers: tuple[Compare, ...]
    stages: tuple[Stage, ...] = ()


class Measure(StrEnum):
    """What is measured over a range of time."""

    COUNT = "count_over_time"
    RATE = "rate"
    BYTES = "bytes_over_time"
    BYTES_RATE = "bytes_rate"


@dataclass(frozen=True, slots=True)
class MetricQuery:
    """A measure of logs over time."""

    measure: Measure
    logs: LogQuery
    range_us: int
    offset_us: int = 0
    by: tuple[str, ...] | None = None
    """Labels of the sums; None: a series for each stream."""


@dataclass(frozen=True, slots=True)
class Constant:
    """`vector(1)`, `1 + 1`."""

    value: float
    is_vector: bool


Query: TypeAlias = "LogQuery | MetricQuery | Constant"
