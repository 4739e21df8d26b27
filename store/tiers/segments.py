"""Which segments there are, as the catalogue has them (db/migrations/0006_segments.sql)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec

from store.segments.format import SegmentInfo
from store.steps import US

SEGMENTS: Final = f"""
SELECT name, state, tier, retention_class, sources, {US.format("range_start")}, {US.format("range_end")}, info::text
FROM segments WHERE {{}} ORDER BY range_start, name
"""
"""With a condition: the columns that `segments_of` takes."""

_info: Final = msgspec.json.Decoder(SegmentInfo)


class SegmentState(StrEnum):
    """Who has its rows."""

    WRITTEN = "written"
    """Its tables as well: readers may ask either."""
    SERVING = "serving"
    """It alone."""
    RETIRED = "retired"
    """Others; the file goes soon."""


class Tier(StrEnum):
    """Where readers get the file."""

    WARM = "warm"
    """In the directory of segments."""
    COLD = "cold"
    """In object storage."""


class Segment(msgspec.Struct, frozen=True):
    """One row of the catalogue of segments. Names are never given again, and but for state and tier nothing changes."""

    name: str
    state: SegmentState
    tier: Tier
    retention_class: str
    sources: tuple[str, ...]
    """Tables, or segments, of which it has all rows of its class."""
    start_us: int
    end_us: int
    """Exclusive."""
    info: SegmentInfo


def segments_of(rows: Iterable[Sequence[Any]]) -> Iterator[Segment]:
    """From the rows of SEGMENTS. Any: what the database answers."""
    for name, state, tier, retention_class, sources, start_us, end_us, info in rows:
        yield Segment(
            name,
            SegmentState(state),
            Tier(tier),
            retention_class,
            tuple(sources),
            start_us,
            end_us,
            _info.decode(info.encode()),
        )
