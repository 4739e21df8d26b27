"""How many logs there are over time: the width of buckets, and the answer's body. Pure.

Widths are those that people read off an axis. Buckets are aligned to them in UTC, weeks to Mondays, so that a bucket stays the
same one when the asked time moves on, and a bar of the axis is a bar of the clock.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Any, Final

import orjson

from schemas.levels import level_name
from schemas.times import time_text
from store.port import CountResult

ORIGIN_US: Final = -62_135_596_800_000_000
"""0001-01-01T00:00:00Z, a Monday, and the first time there is: buckets of every width begin there."""
_SECOND_US: Final = 1_000_000
_MINUTE_US: Final = 60 * _SECOND_US
_HOUR_US: Final = 60 * _MINUTE_US
_DAY_US: Final = 24 * _HOUR_US
WIDTHS_US: Final = (
    *(n * _SECOND_US for n in (1, 2, 5, 10, 15, 30)),
    *(n * _MINUTE_US for n in (1, 2, 5, 10, 15, 30)),
    *(n * _HOUR_US for n in (1, 2, 3, 6, 12)),
    _DAY_US,
    7 * _DAY_US,
)
"""Each divides a week. Past them: weeks, twice as many each time."""


def bucket_width_us(start_us: int, end_us: int, *, buckets_max: int) -> int:
    """The least width with which so many buckets at most reach from start_us, inclusive, to end_us, exclusive."""
    for width_us in WIDTHS_US:
        if buckets_between(start_us, end_us, width_us) <= buckets_max:
            return width_us
    width_us = 2 * WIDTHS_US[-1]
    while buckets_between(start_us, end_us, width_us) > buckets_max:
        width_us *= 2
    return width_us


def buckets_between(start_us: int, end_us: int, width_us: int) -> int:
    """How many aligned buckets have a part in this time; end_us exclusive, after start_us."""
    return (end_us - 1 - ORIGIN_US) // width_us - (start_us - ORIGIN_US) // width_us + 1


def histogram_json(counted: CountResult, *, start_us: int, end_us: int, width_us: int) -> bytes:
    """The body; see schemas.overview.HistogramAnswer."""
    buckets: dict[int, dict[str, int]] = defaultdict(dict)
    for (bucket_us, severity), rows in sorted(counted.rows.items()):
        counts = buckets[bucket_us]
        name = level_name(severity)
        counts[name] = counts.get(name, 0) + rows
    body: dict[str, Any] = {
        "start_time": time_text(start_us),
        "end_time": time_text(end_us),
        "bucket_s": width_us // _SECOND_US,
        "buckets": [{"start_time": time_text(us), "counts": counts} for us, counts in buckets.items()],
        "total": sum(counted.rows.values()),
        "counted_from": None if counted.counted_from_us is None else time_text(counted.counted_from_us),
        "is_estimated": False,
    }
    return orjson.dumps(body)
