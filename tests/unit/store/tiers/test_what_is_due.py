"""What is merged, and how long tables stay hot: decided without a database."""

from __future__ import annotations

from typing import Any

import pytest

from store.segments.format import RowGroup, SegmentInfo
from store.segments.settings import SegmentSettings
from store.tiers.hot import HotWindows
from store.tiers.merging import merges_due
from store.tiers.places import key_of, name_of
from store.tiers.segments import Segment, SegmentState, Tier
from store.tiers.settings import TierSettings

DAY_US = 86_400_000_000
HOUR_US = 3_600_000_000
SETTINGS = SegmentSettings(rows_max=100)


def segment(name: str, start_us: int, **fields: Any) -> Segment:
    """Of one hour and ten rows unless said otherwise. Any: fields of Segment, and rows."""
    rows = fields.pop("rows", 10)
    info = SegmentInfo(
        rows, 1_000, start_us, start_us + HOUR_US - 1, 1, 2, {"s": rows}, {9: rows}, (RowGroup(rows, 0, 0, 0),), "", ""
    )
    plain: dict[str, Any] = {
        "state": SegmentState.SERVING,
        "tier": Tier.WARM,
        "retention_class": "default",
        "end_us": start_us + HOUR_US,
    }
    return Segment(name=name, sources=("t",), start_us=start_us, info=info, **{**plain, **fields})


def merged(*segments: Segment, files_min: int = 2) -> list[list[str]]:
    return [[each.name for each in group] for group in merges_due(segments, SETTINGS, files_min=files_min)]


def test_small_files_of_one_day_and_class_are_merged() -> None:
    day = 20_000 * DAY_US
    files = [
        segment("a", day),
        segment("b", day + 23 * HOUR_US),
        segment("c", day + DAY_US),
        segment("d", day, retention_class="x"),
    ]
    assert merged(*files) == [["a", "b"]]
    assert merged(*files, files_min=3) == []
    assert merged(*files, files_min=0) == []


@pytest.mark.parametrize(
    "fields",
    [
        {"state": SegmentState.WRITTEN},
        {"state": SegmentState.RETIRED},
        {"tier": Tier.COLD},
        {"rows": 51},
        {"end_us": 20_001 * DAY_US + 1},
    ],
)
def test_others_stay_as_they_are(fields: dict[str, Any]) -> None:
    day = 20_000 * DAY_US
    assert merged(segment("a", day, **fields), segment("b", day)) == []


def test_a_group_fits_one_file() -> None:
    day = 20_000 * DAY_US
    files = [segment(str(n), day + n, rows=40) for n in range(5)]
    assert merged(*files) == [["0", "1"], ["2", "3"]]


def test_a_day_before_1970_is_a_day() -> None:
    assert merged(segment("a", -DAY_US), segment("b", -HOUR_US), segment("c", 0)) == [["a", "b"]]


def test_the_first_pattern_that_matches_says_how_long_a_service_is_hot() -> None:
    hot = HotWindows(TierSettings(hot_days=7, hot_days_by_service={"pay": 1, "pay*": 30, "batch": 0}))
    assert hot.longest_us(["pay"]) == DAY_US
    assert hot.longest_us(["payments"]) == 30 * DAY_US
    assert hot.longest_us(["batch"]) == 0
    assert hot.longest_us(["batch", "other", "pay"]) == 7 * DAY_US
    assert hot.longest_us([]) == 7 * DAY_US


def test_keys_say_class_and_day() -> None:
    found = segment("n-default-0.parquet", 20_000 * DAY_US + HOUR_US)
    assert key_of(found) == "segments/class=default/day=2024-10-04/n-default-0.parquet"
    assert name_of(key_of(found)) == found.name
