"""What the query API answers about many logs at once: the shapes, for the OpenAPI document."""

from __future__ import annotations

from pydantic import Field

from schemas.pages import Answer


class Bucket(Answer):
    """Logs of a stretch of time."""

    start_time: str = Field(examples=["2026-11-22T12:34:00.000000Z"])
    """Where it begins; it ends `bucket_s` seconds later, exclusive."""
    counts: dict[str, int] = Field(examples=[{"INFO": 1200, "ERROR": 3}])
    """By level; levels without logs are left out."""


class HistogramAnswer(Answer):
    """How many logs match, over time."""

    start_time: str = Field(examples=["2026-11-22T12:00:00.000000Z"])
    """As resolved; inclusive."""
    end_time: str = Field(examples=["2026-11-22T13:00:00.000000Z"])
    """As resolved; exclusive."""
    bucket_s: int = Field(examples=[120])
    """Width of each bucket, in seconds. Buckets begin at multiples of it in UTC, weeks on Mondays."""
    buckets: list[Bucket]
    """Ascending; empty ones are left out. The first and the last may reach past what was asked for, and have no logs there."""
    total: int
    """Of all buckets."""
    counted_from: str | None
    """Logs from this time on are counted, earlier ones are not: the time ran out. The bucket it lies in has a part of its logs.
    null: all are."""
    is_estimated: bool
    """The numbers may differ a little from what pages show."""


class FacetValue(Answer):
    """One value of a field."""

    value: str
    """As `metadata.KEY=VALUE` or the parameter of this name takes it."""
    count: int


class Facet(Answer):
    """Values of one field."""

    field: str = Field(examples=["level", "metadata.user.id"])
    values: list[FacetValue]
    """The commonest, most logs first."""
    others: int
    """Logs that have another value here."""


class FacetsAnswer(Answer):
    """Values of the newest logs that match."""

    facets: list[Facet]
    counted: int
    """How many logs were looked at."""
    counted_from: str | None
    """All logs from this time on are counted; older ones are not. null: all are."""
    is_estimated: bool
    """The numbers may differ a little from what pages show."""
