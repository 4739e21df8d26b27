"""Settings of the store: how long rows stay, how they are divided by time, when that is closed."""

from __future__ import annotations

from pydantic import Field

from runtime.settings import Section


class StoreSettings(Section):
    """How the hot store divides, closes and drops rows."""

    retention_days: int = Field(default=400, ge=1, le=36_500)
    """Days after a log's timestamp until it is dropped, a chunk at a time. A year and a month: last year's same day stays
    comparable."""
    chunk_hours: int = Field(default=6, ge=1, le=24)
    """Hours of one chunk, counted from midnight UTC of 1970-01-01. Small enough that bulk indexes take seconds; planning
    costs about 1 ms for each chunk a query touches. A change applies to chunks made from then on."""
    metadata_index: bool = True
    """Index the metadata of closed tables, so that a rare value is found in milliseconds. Building it costs about 0.7 µs of
    one core for each field of each row, and as much disk as the other indexes together."""
    closing_delay_s: int = Field(default=900, ge=0, le=86_400)
    """Seconds by which everything visible must have passed a chunk's end before it is closed. Rows that come later still
    than that go to the late table, which costs more to read."""
    halted_closing_s: int = Field(default=21_600, ge=0, le=604_800)
    """Seconds after a chunk's end when it is closed although a halted partition has not passed it."""
    late_rows_max: int = Field(default=5_000_000, ge=1, le=1_000_000_000)
    """Rows of a late table after which the next one begins, about: the server's own statistics are asked."""
    late_age_s: int = Field(default=86_400, ge=60, le=2_592_000)
    """Seconds after which a late table that has rows is ended and the next one begins."""
