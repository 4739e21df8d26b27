"""What the query API answers about patterns, as its document describes it."""

from __future__ import annotations

from pydantic import Field

from schemas.pages import Answer


class PatternModel(Answer):
    """A kind of line, within the span, the services and the levels asked for."""

    id: str = Field(pattern=r"^[0-9a-f]{16}$", examples=["5f2a77c01d9be630"])
    """What `pattern:` of the query language takes."""
    template: str = Field(examples=["Failed password for <*> from <ip> port <num>"])
    """A line with its variable parts as wildcards; part of a message."""
    services: list[str] = Field(examples=[["sshd"]])
    """With lines in the span or the one before: those with most first, 20 at most."""
    services_count: int = Field(ge=0, examples=[1])
    """How many there are."""
    levels: dict[str, int] = Field(examples=[{"INFO": 1200, "ERROR": 3}])
    """Lines by level; of the span before where this one has none."""
    count: int = Field(ge=0, examples=[1203])
    """Lines in the span."""
    errors: int = Field(ge=0, examples=[3])
    """Of these, those of ERROR and FATAL."""
    count_before: int = Field(ge=0, examples=[1100])
    """Lines in the span before, which is as long."""
    change: float | None = Field(examples=[0.094])
    """count / count_before - 1; null where there were none before."""
    first_seen: str
    """Minute of its oldest line, as long as patterns are kept."""
    last_seen: str
    """Minute of its newest line."""
    samples: list[str] = Field(max_length=3, examples=[["382110771345817600"]])
    """Ids of some of its logs."""


class PatternProgress(Answer):
    """What the figures are of, and what they are worth. No line is sampled: each counts once, or is in a gap."""

    start: str
    """Of the span: the time asked for, widened to whole minutes or hours."""
    end: str
    """Exclusive."""
    resolution: int = Field(examples=[60])
    """Seconds: 60, or 3600 for spans of more than three hours or of days whose minutes are not kept any more."""
    counted_from: str | None
    """Logs received before may be missing; null: nothing was counted yet."""
    counted_through: str | None
    """All logs received before are counted; null: not known yet."""
    complete: bool
    """False: some logs received in the span were gone before they were counted, or it reaches before `counted_from`."""


class PatternListAnswer(PatternProgress):
    """Patterns, in the order asked for."""

    patterns: list[PatternModel]
    count: int = Field(ge=0)
    """Lines of all patterns in the span, those not listed included."""
    other: int = Field(ge=0)
    """Of these, lines whose pattern was not kept."""


class PatternPoint(Answer):
    """Lines of one step."""

    time: str
    """Its begin."""
    count: int
    errors: int


class OnePattern(PatternProgress):
    """A pattern over time."""

    pattern: PatternModel
    """The one that this id is read as by now: its own id may be another."""
    step: int = Field(examples=[60])
    """Seconds from one point to the next."""
    series: list[PatternPoint] = Field(max_length=500)
    """Every step of the span, oldest first."""
