"""Percentiles, medians and rates, where they are easy to get wrong."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bench.quantiles import at, median, percentile, rate

VALUES = st.lists(st.floats(-1e6, 1e6), min_size=1)


def test_percentiles_by_the_nearest_rank() -> None:
    values = [float(value) for value in range(1, 101)]
    assert percentile(values, 0.5) == 50
    assert percentile(values, 0.99) == 99
    assert percentile(values, 1.0) == 100
    assert percentile(values, 0.0) == 1
    assert percentile([7.0], 0.99) == 7


@given(VALUES, st.floats(0, 1))
def test_a_percentile_is_a_value_with_its_share_below(values: list[float], share: float) -> None:
    found = percentile(values, share)
    assert found in values
    assert sum(value <= found for value in values) >= share * len(values) - 1e-9


@given(VALUES)
def test_the_median_is_in_the_middle(values: list[float]) -> None:
    found = median(values)
    assert sum(value <= found for value in values) * 2 >= len(values)
    assert sum(value >= found for value in values) * 2 >= len(values)


def test_nothing_has_no_percentile() -> None:
    assert math.isnan(percentile([], 0.5))
    assert math.isnan(median([]))
    with pytest.raises(ValueError, match="without points"):
        at([], 1.0)


def test_a_series_is_linear_between_its_points_and_constant_outside() -> None:
    points = [(10.0, 0.0), (12.0, 100.0), (13.0, 100.0)]
    assert [at(points, when) for when in (9.0, 10.0, 11.0, 12.0, 12.5, 13.0, 99.0)] == [0, 0, 50, 100, 100, 100, 100]
    assert rate(points, 10.0, 12.0) == 50
    assert rate(points, 11.0, 13.0) == 25
