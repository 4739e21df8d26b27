"""What is said and answered of connections, as the API's document describes it."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import BaseModel, ConfigDict, Field, StrictStr

ID_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$"
RESERVED_IDS: Final = frozenset({"statistics"})
"""Paths of their own."""
TEXT_CHARS_MAX: Final = 200
SideName = Literal["server", "client"]


class ConnectionIn(BaseModel):
    """Who was connected."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    username: StrictStr = Field(max_length=TEXT_CHARS_MAX, examples=["ada@example.com"])
    ip: StrictStr = Field(max_length=TEXT_CHARS_MAX, examples=["10.1.2.3"])
    version: StrictStr = Field(max_length=TEXT_CHARS_MAX, examples=["a1b2c3d"])
    last_updated: StrictStr = Field(max_length=60, examples=["2026-07-30T22:40:00Z"])
    """ISO 8601; UTC without a zone."""


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class ConnectionPut(_Answer):
    """It is kept."""

    id: str = Field(examples=["1001"])


class TextPut(_Answer):
    """What became of a text."""

    id: str = Field(examples=["1001"])
    side: SideName
    lines: int = Field(examples=[1500])
    """Logs of the whole text: lines, with those that belong to the one before."""
    added: int = Field(examples=[1500])
    """Of them, stored by this request."""
    filtered: int
    """Of all, dropped by ingest's filters."""
    rejected: int
    """Of all, refused by ingest."""
    shift_s: float
    """Seconds that were added to the times of its lines."""


class SideModel(_Answer):
    """The log of one side."""

    lines: int = Field(examples=[1500])
    errors: int = Field(examples=[19])
    """Lines of ERROR and above."""
    warnings: int = Field(examples=[50])
    """Lines of WARNING."""
    error_percent: float = Field(examples=[1.27])
    """Of its lines."""
    warning_percent: float = Field(examples=[3.33])


class ConnectionModel(_Answer):
    """One connection."""

    id: str = Field(examples=["1001"])
    """What its lines have as `metadata.connection_id`."""
    username: str = Field(examples=["ada@example.com"])
    ip: str = Field(examples=["10.1.2.3"])
    version: str = Field(examples=["a1b2c3d"])
    last_updated: str = Field(examples=["2026-07-30T22:40:00.000000Z"])
    server: SideModel | None
    """Null: its log is missing, or you may not read it."""
    client: SideModel | None
    """Null: its log is missing, or you may not read it."""


class ConnectionList(_Answer):
    """Connections, the one that was updated last first."""

    connections: list[ConnectionModel]
    next_cursor: str | None
    """Goes on; null when nothing follows."""


class MetricModel(_Answer):
    """One metric of one side."""

    metric: str = Field(examples=["latency"])
    unit: Literal["s", "ms", "bytes"]
    side: SideName
    count: int = Field(examples=[311])
    """Values."""
    median: float = Field(examples=[0.0412])
    """Of its values."""


class ErrorKind(_Answer):
    """Lines of ERROR and above that are alike."""

    message: str = Field(examples=["Listen | Connection reset by peer (errno <num>), retry <num>"])
    """With numbers and the like masked; empty: those of all further kinds."""
    count: int


class ConnectionSummary(_Answer):
    """The figures of one connection."""

    id: str
    server: SideModel | None
    client: SideModel | None
    missing_side: Literal["server", "client", "both"] | None
    """Whose log was not put; of what you may read."""
    medians: list[MetricModel]
    common_errors: list[ErrorKind]
    """The most common ones first, 20 at most."""


class SeriesAnswer(_Answer):
    """A metric over time."""

    metric: str = Field(examples=["latency"])
    unit: Literal["s", "ms", "bytes"]
    side: SideName | None
    """In whose log it is; null: in none."""
    points: list[tuple[str, float, int]] = Field(examples=[[["2026-07-30T22:31:09.408000Z", 0.054347, 9]]])
    """[time, value, number of its line], in the order of lines. When there are more than asked for: the first, the last, and
    of each stretch the least and the greatest."""
    count: int = Field(examples=[311])
    """Points that there are."""


class MedianModel(_Answer):
    """The middle of the connections' medians."""

    metric: str
    unit: Literal["s", "ms", "bytes"]
    median: float
    connections: int
    """That have the metric."""


class CommonError(ErrorKind):
    """A kind of errors, of all connections."""

    connections: int
    """That have it."""


class Correlation(_Answer):
    """Of errors (lines of both sides) and median latency, over connections that have a latency."""

    spearman: float | None
    """Rank correlation, -1 to 1; null for fewer than two connections, or where one side never differs."""
    n: int
    """Connections: the 10,000 that were updated last at most."""


class ConnectionStatistics(_Answer):
    """Figures of all connections."""

    connections: int
    medians: list[MedianModel]
    common_errors: list[CommonError]
    """The most common ones first, 20 at most."""
    errors_and_latency: Correlation
