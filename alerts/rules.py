"""What a rule is: the document that people write, checked strictly, and the limits that bound what it may cost.

The same document is a rule of a YAML file and the body of the API. `Rule` is a document under its owner. Whatever decides when
the rule holds goes into `fingerprint`: another one means that what was counted before counts no more.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Annotated, Any, Final, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator, model_validator

from alerts.durations import Duration, duration_text
from alerts.texts import check_text
from search.language import QueryError, parse, parse_path
from search.predicate import Predicate

NAME: Final = r"^[a-z0-9][a-z0-9._-]{0,99}$"
BUCKETS_MAX: Final = 240
"""Buckets of one window: `window` is at most so many times `every`."""
GROUPS_MAX: Final = 1_000
GROUP_FIELDS_MAX: Final = 4
LABELS_MAX: Final = 20
LABEL_CHARS_MAX: Final = 200
CHANNELS_MAX: Final = 10
DISTINCT_MAX: Final = 1_000
RULES_MAX: Final = 2_000
"""Of one installation."""
CELLS_MAX: Final = 2_000_000
"""Of all rules: groups times buckets, 100 bytes each at most."""
QUERY_CHARS_MAX: Final = 2_000_000
"""Of all queries together: reading them costs 2 µs a character at worst."""
FILE_OWNER: Final = "file"
"""Owner of the rules of files: whoever runs the installation."""

_LABEL: Final = re.compile(r"[a-zA-Z_][a-zA-Z0-9_.]{0,99}")
OWN_LABELS: Final = frozenset({"rule", "severity"})
PATTERN_LABEL: Final = "pattern"
"""Label with a new pattern's text."""
NEW_PATTERN_RULES_MAX: Final = 20
"""Of one installation: each has a miner of its own, 13 MB and more when full."""
Severity = Literal["info", "warning", "critical"]


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, use_attribute_docstrings=True)


class CountCondition(_Document):
    """So many logs in the window."""

    at_least: int = Field(ge=1, le=10**12)
    """Logs."""


class RateCondition(_Document):
    """So many logs a time, on average over the window."""

    at_least: float = Field(gt=0, le=10**12, allow_inf_nan=False)
    """Logs per `per`."""
    per: Duration = Field(default=1, ge=1, le=86_400)
    """The time, one second when left out."""


class ErrorRatioCondition(_Document):
    """So large a share of the rule's logs is of level ERROR or FATAL."""

    at_least: float = Field(gt=0, le=1, allow_inf_nan=False)
    """0.05 is one in twenty."""
    min_logs: int = Field(default=1, ge=1, le=10**12)
    """With fewer logs in the window it does not hold: one error of one log is not yet a trend."""


class DistinctCondition(_Document):
    """So many different values of a field in the window."""

    field: str
    """service, level, correlation_id or a metadata field (user.id)."""
    at_least: int = Field(ge=1, le=DISTINCT_MAX)
    """Values."""

    @field_validator("field")
    @classmethod
    def _is_field(cls, field: str) -> str:
        return check_field(field)


class SilenceCondition(_Document):
    """No log in the window. With `group_by`: of a group that was heard of before."""

    forget: Duration = Field(default=86_400, ge=60, le=30 * 86_400)
    """A group that is silent for so long is forgotten, and its alert resolved."""


class NewPatternCondition(_Document):
    """A pattern of messages (docs/patterns.md) that its service never had before. Each is told once, by itself."""

    learn: Duration = Field(default=86_400, ge=0, le=30 * 86_400)
    """For so long after the rule's begin patterns are learnt and not told, by the logs' timestamps."""


class Condition(_Document):
    """Exactly one of these."""

    count: CountCondition | None = None
    rate: RateCondition | None = None
    error_ratio: ErrorRatioCondition | None = None
    distinct: DistinctCondition | None = None
    silence: SilenceCondition | None = None
    new_pattern: NewPatternCondition | None = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if len(self.model_fields_set) != 1 or self.kind is None:
            raise ValueError(f"expected exactly one of {', '.join(type(self).model_fields)}")
        return self

    @property
    def kind(self) -> str | None:
        """Name of the one that is set."""
        return next((name for name in type(self).model_fields if getattr(self, name) is not None), None)


class RuleDocument(_Document):
    """A rule as people write it."""

    name: str = Field(pattern=NAME, examples=["payment-errors"])
    """Unique: lower case letters, digits and . _ -"""
    query: str = Field(default="", max_length=4_000, examples=["service:pay/* level>=error"])
    """Which logs it is about, in the query language; empty: all that its owner may see."""
    window: Duration = Field(default=300, ge=1, le=7 * 86_400)
    """How far back each look goes."""
    every: Duration | None = Field(default=None, ge=1, le=86_400)
    """Time between two looks; `window` is a multiple of it. Left out: a tenth of the window, or what comes nearest."""
    for_: Duration = Field(default=0, ge=0, le=86_400, alias="for")
    """How long the condition must hold before the rule fires."""
    lateness: Duration = Field(default=10, ge=0, le=3_600)
    """How much later than its timestamp a log may arrive and still count. Each look waits so long."""
    condition: Condition
    """What must be so in the window."""
    group_by: tuple[str, ...] = Field(default=(), max_length=GROUP_FIELDS_MAX, examples=[["service"]])
    """Fields; each combination of their values is watched by itself."""
    groups_max: int = Field(default=100, ge=1, le=GROUPS_MAX)
    """Groups that are told apart at once; more are watched together as `(other)`."""
    severity: Severity = "warning"
    """For people and for matchers."""
    labels: dict[str, str] = Field(default={}, max_length=LABELS_MAX, examples=[{"team": "payments"}])
    """More for matchers."""
    summary: str = Field(default="", max_length=500)
    """A sentence for whoever is woken."""
    runbook: str | None = Field(default=None, max_length=2_000, examples=["https://wiki.example/payments"])
    """What to do; an http or https address."""
    channels: tuple[str, ...] = Field(default=(), max_length=CHANNELS_MAX, examples=[["ops"]])
    """Where it is told; names of `alerts.channels`. Empty: `alerts.default_channels`."""

    @field_validator("query")
    @classmethod
    def _is_query(cls, query: str) -> str:
        try:
            parse(query)
        except QueryError as error:
            raise ValueError(f"is not in the query language: {error}") from error
        return query

    @field_validator("summary")
    @classmethod
    def _can_be_stored(cls, summary: str) -> str:
        check_text(summary)
        return summary

    @field_validator("channels")
    @classmethod
    def _are_names(cls, channels: tuple[str, ...]) -> tuple[str, ...]:
        for channel in channels:
            check_text(channel)
        return channels

    @field_validator("group_by")
    @classmethod
    def _are_fields(cls, fields: tuple[str, ...]) -> tuple[str, ...]:
        if len(set(fields)) < len(fields):
            raise ValueError("expected each field once")
        for field in fields:
            if field in OWN_LABELS:
                raise ValueError(f"{field!r} is a label of every alert: a field of that name cannot be grouped by")
        return tuple(map(check_field, fields))

    @field_validator("labels")
    @classmethod
    def _are_labels(cls, labels: dict[str, str]) -> dict[str, str]:
        for name, value in labels.items():
            if not _LABEL.fullmatch(name) or name in OWN_LABELS:
                raise ValueError(
                    f"{name!r:.120} cannot be a label: expected letters, digits, _ and ., not rule or severity"
                )
            if len(value) > LABEL_CHARS_MAX:
                raise ValueError(f"label {name} has {len(value)} characters, at most {LABEL_CHARS_MAX} are taken")
            check_text(value)
        return labels

    @field_validator("runbook")
    @classmethod
    def _is_link(cls, link: str | None) -> str | None:
        if link is not None:
            try:
                parts = urlsplit(link)
            except ValueError as error:
                raise ValueError(f"is no address: {error}") from error
            if parts.scheme not in ("http", "https") or not parts.hostname or not link.isprintable() or " " in link:
                raise ValueError("expected an http or https address")
        return link

    @model_validator(mode="after")
    def _fits(self) -> Self:
        every = self.every_s
        if self.window % every or not 1 <= self.window // every <= BUCKETS_MAX:
            raise ValueError(
                f"window must be 1..{BUCKETS_MAX} times every, got window {duration_text(self.window)} and every"
                f" {duration_text(every)}"
            )
        if overlap := sorted(set(self.group_labels) & set(self.labels)):
            raise ValueError(f"{overlap[0]!r} is both a label and a field of groups")
        if self.condition.new_pattern is not None and PATTERN_LABEL in self.group_by:
            raise ValueError(f"{PATTERN_LABEL!r} is what new patterns are grouped by already: leave it out of group_by")
        return self

    @property
    def every_s(self) -> int:
        """Seconds between two looks."""
        if self.every is not None:
            return self.every
        return next(self.window // parts for parts in (10, 9, 8, 7, 6, 5, 4, 3, 2, 1) if self.window % parts == 0)

    @cached_property
    def predicate(self) -> Predicate:
        """Of its query."""
        return parse(self.query)

    @property
    def group_labels(self) -> tuple[str, ...]:
        """What groups are told apart by: `group_by`, and for new patterns the service and the pattern."""
        if self.condition.new_pattern is None:
            return self.group_by
        return tuple(dict.fromkeys((*self.group_by, "service", PATTERN_LABEL)))

    @property
    def cells(self) -> int:
        """What it may hold: groups times buckets, times values where these are told apart."""
        groups = self.groups_max + 1 if self.group_labels else 1
        values = self.condition.distinct.at_least if self.condition.distinct else 1
        return groups * (self.window // self.every_s) * values

    def as_json(self) -> dict[str, Any]:  # JSON values
        """The document with what was left out left out, durations as text."""
        found: dict[str, Any] = self.model_dump(mode="json", by_alias=True, exclude_unset=True)
        for name in ("window", "every", "for", "lateness"):
            if isinstance(found.get(name), int):
                found[name] = duration_text(found[name])
        return found


@dataclass(frozen=True)
class Rule:
    """A rule under its owner."""

    document: RuleDocument
    owner: str
    """Subject of who made it (`user:7`, `key:…`), or FILE_OWNER."""

    @property
    def name(self) -> str:
        """Unique."""
        return self.document.name

    @cached_property
    def fingerprint(self) -> str:
        """Of what decides when it holds."""
        parts = self.document.model_dump_json(
            include={"query", "window", "every", "for_", "lateness", "condition", "group_by", "groups_max"},
            # So that rules of other kinds are what they were before there was this one.
            exclude=None if self.document.condition.new_pattern else {"condition": {"new_pattern"}},
        )
        return hashlib.sha256(f"1 {self.owner} {parts}".encode()).hexdigest()[:32]


FieldName = Annotated[str, Field(max_length=300)]


def check_field(field: str) -> str:
    """A field to group by or to tell apart. Raises ValueError."""
    if field not in ("service", "level", "correlation_id"):
        try:
            parse_path(field)
        except ValueError as error:
            raise ValueError(f"{field!r:.120} is no field: {error}") from error
    return field


def check_together(documents: Sequence[RuleDocument]) -> None:
    """What no rule can know alone. Raises ValueError."""
    for what, most, advice, weigh in _BOUNDS:
        weight = sum(map(weigh, documents))
        if weight > most:
            raise ValueError(f"expected at most {most:,} {what} in all rules together, got {weight:,}{advice}")


def check_share(
    document: RuleDocument, before: RuleDocument | None, mine: Sequence[RuleDocument], others: Sequence[RuleDocument]
) -> None:
    """A rule of somebody who has `mine` besides, where there are those of others: nobody's rules may keep others from having
    any. before: what it replaces of theirs; to have no more than that is always allowed. Raises ValueError."""
    for what, most, advice, weigh in _BOUNDS:
        weight = sum(map(weigh, mine)) + weigh(document)
        grows = weigh(document) > (0 if before is None else weigh(before))
        if grows and weight > most - weight - sum(map(weigh, others)):
            raise ValueError(
                f"your rules would have {weight:,} {what}: of {most:,} one owner may have as much as all leave free{advice}"
            )


_BOUNDS: Final[tuple[tuple[str, int, str, Callable[[RuleDocument], int]], ...]] = (
    ("rules", RULES_MAX, "", lambda document: 1),
    (
        "rules with new_pattern",
        NEW_PATTERN_RULES_MAX,
        "",
        lambda document: document.condition.new_pattern is not None,
    ),
    (
        "counts (groups x buckets, x values of `distinct`)",
        CELLS_MAX,
        ": lower groups_max, or raise every",
        lambda document: document.cells,
    ),
    ("characters of queries", QUERY_CHARS_MAX, "", lambda document: len(document.query)),
)
"""(what, at most, what to do, how much of it a rule has)."""
