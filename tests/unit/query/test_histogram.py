"""Widths of buckets: pleasant ones, no more of them than asked for, aligned to the clock in UTC."""

from __future__ import annotations

from datetime import UTC, datetime

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from query.histogram import ORIGIN_US, WIDTHS_US, bucket_width_us, buckets_between, histogram_json
from schemas.overview import HistogramAnswer
from search.predicate import TIMESTAMP_MAX_US, TIMESTAMP_MIN_US
from store.port import CountResult

SECOND = 1_000_000
MINUTE, HOUR, DAY = 60 * SECOND, 3_600 * SECOND, 86_400 * SECOND
NOON = 1_767_268_800 * SECOND
"""2026-01-01T12:00:00Z, a Thursday."""
times = st.integers(TIMESTAMP_MIN_US, TIMESTAMP_MAX_US)


@pytest.mark.parametrize(
    "start_us, end_us, buckets, width_us",
    [
        (NOON - HOUR, NOON, 60, MINUTE),
        (NOON - HOUR + 1, NOON + 1, 60, 2 * MINUTE),  # sixty minutes that are no whole ones
        (NOON - 15 * MINUTE, NOON, 60, 15 * SECOND),
        (NOON - 15 * MINUTE, NOON, 400, 5 * SECOND),
        (NOON - DAY, NOON, 60, 30 * MINUTE),
        (NOON - 7 * DAY, NOON, 60, 3 * HOUR),
        (NOON - 400 * DAY, NOON, 60, 7 * DAY),
        (NOON - 400 * DAY, NOON, 30, 14 * DAY),
        (NOON, NOON + 1, 1, SECOND),
    ],
)
def test_the_least_pleasant_width_that_fits(start_us: int, end_us: int, buckets: int, width_us: int) -> None:
    assert bucket_width_us(start_us, end_us, buckets_max=buckets) == width_us


@given(times, times, st.integers(1, 400))
def test_there_are_never_more_buckets_than_asked_for(one: int, other: int, buckets: int) -> None:
    start_us, end_us = min(one, other), max(one, other) + 1
    width_us = bucket_width_us(start_us, end_us, buckets_max=buckets)
    edges = {(us - ORIGIN_US) // width_us for us in (start_us, end_us - 1)}
    assert max(edges) - min(edges) + 1 == buckets_between(start_us, end_us, width_us) <= buckets
    narrower = [each for each in WIDTHS_US if each < width_us]
    assert not narrower or buckets_between(start_us, end_us, narrower[-1]) > buckets


def test_buckets_begin_with_the_clock_and_weeks_on_mondays() -> None:
    for width_us in WIDTHS_US:
        edge_us = NOON - (NOON - ORIGIN_US) % width_us
        moment = datetime.fromtimestamp(edge_us / SECOND, UTC)
        if width_us <= DAY:
            assert edge_us % width_us == 0
        else:
            assert (moment.weekday(), moment.hour, moment.minute) == (0, 0, 0)


def test_levels_of_one_band_are_one_number_and_buckets_ascend() -> None:
    counted = CountResult({(NOON + MINUTE, 17): 2, (NOON, 9): 5, (NOON, 11): 1, (NOON, 17): 3}, NOON - 5)
    body = histogram_json(counted, start_us=NOON - HOUR, end_us=NOON + HOUR, width_us=MINUTE)
    assert HistogramAnswer.model_validate_json(body).model_dump() == orjson.loads(body)
    assert orjson.loads(body) == {
        "start_time": "2026-01-01T11:00:00.000000Z",
        "end_time": "2026-01-01T13:00:00.000000Z",
        "bucket_s": 60,
        "buckets": [
            {"start_time": "2026-01-01T12:00:00.000000Z", "counts": {"INFO": 6, "ERROR": 3}},
            {"start_time": "2026-01-01T12:01:00.000000Z", "counts": {"ERROR": 2}},
        ],
        "total": 11,
        "counted_from": "2026-01-01T11:59:59.999995Z",
        "is_estimated": False,
    }
