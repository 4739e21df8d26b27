"""Counts of patterns: the sums are those of the lines, whatever the bounds hold."""

from __future__ import annotations

from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patterns.counts import OTHER, CountRow, PatternCounts, latest

MINUTE_US = 60_000_000


def test_lines_are_counted_by_minute_service_level_and_pattern() -> None:
    counts = PatternCounts()
    counts.add(MINUTE_US - 1, "a", 9, 5, 1)
    counts.add(MINUTE_US, "a", 9, 5, 2)
    counts.add(MINUTE_US + 1, "a", 9, 5, 3)
    counts.add(MINUTE_US, "a", 17, 5, 4)
    counts.add(MINUTE_US, "b", 9, 6, 5)
    counts.add(-1, "a", 9, 5, 6)
    assert len(counts) == 5
    assert counts.drain() == [
        CountRow(-1, "a", 9, 5, 1, (6,)),
        CountRow(0, "a", 9, 5, 1, (1,)),
        CountRow(1, "a", 9, 5, 2, (2, 3)),
        CountRow(1, "a", 17, 5, 1, (4,)),
        CountRow(1, "b", 9, 6, 1, (5,)),
    ]
    assert counts.drain() == []


def test_samples_are_the_first_log_and_the_last_two() -> None:
    counts = PatternCounts()
    for log_id in range(10, 20):
        counts.add(0, "a", 9, 5, log_id)
    assert counts.drain()[0].samples == (10, 18, 19)


def test_what_the_bounds_do_not_hold_is_counted_without_pattern_then_without_service() -> None:
    counts = PatternCounts(rows_max=10)
    for pattern_id in range(1, 14):
        counts.add(0, "a", 9, pattern_id, 100 + pattern_id)
    counts.add(0, "a", 9, 3, 200)
    counts.add(0, "b", 9, 1, 201)
    counts.add(7 * MINUTE_US, "c", 9, 1, 202)
    rows = counts.drain()
    assert len(rows) == 12
    assert rows[0] == CountRow(0, "", 0, OTHER, 2, (201, 202))
    assert rows[1] == CountRow(0, "a", 9, OTHER, 3, (111, 112, 113))
    assert CountRow(0, "a", 9, 3, 2, (103, 200)) in rows


def test_merged_patterns_are_counted_as_what_they_became() -> None:
    counts = PatternCounts()
    for service, pattern_id, log_id in (
        ("a", 1, 10),
        ("a", 2, 11),
        ("a", 3, 12),
        ("b", 1, 13),
        ("a", 1, 14),
        ("a", 1, 15),
    ):
        counts.add(0, service, 9, pattern_id, log_id)
    rows = counts.drain(into={("a", 1): 2, ("a", 2): 3})
    assert rows == [CountRow(0, "a", 9, 3, 5, (10, 14, 15)), CountRow(0, "b", 9, 1, 1, (13,))]


def test_merges_that_lead_back_end() -> None:
    assert latest("a", 1, {("a", 1): 2, ("a", 2): 1}) in (1, 2)
    assert latest("a", 7, {}) == 7


_lines = st.lists(
    st.tuples(
        st.integers(-2, 3).map(lambda minute: minute * MINUTE_US),
        st.sampled_from("abc"),
        st.integers(1, 24),
        st.integers(1, 6),
        st.integers(0, 1_000),
    ),
    max_size=60,
)


@settings(deadline=None)
@given(
    _lines, st.integers(1, 20), st.dictionaries(st.tuples(st.sampled_from("abc"), st.integers(1, 6)), st.integers(1, 6))
)
def test_the_sum_of_counts_is_the_number_of_lines(
    lines: list[tuple[int, str, int, int, int]], rows_max: int, into: dict[tuple[str, int], int]
) -> None:
    counts = PatternCounts(rows_max)
    rows: list[CountRow] = []
    for index, line in enumerate(lines):
        counts.add(*line)
        assert len(counts) <= rows_max + max(1, rows_max // 10) + 1
        if index == 30:
            rows += counts.drain(into)
    rows += counts.drain(into)
    assert sum(row.lines for row in rows) == len(lines)
    given_by_service = Counter(service for _, service, _, _, _ in lines)
    for service, found in Counter({name: sum(r.lines for r in rows if r.service == name) for name in "abc"}).items():
        assert found <= given_by_service[service]
    assert all(0 < len(row.samples) <= 3 and len(row.samples) <= row.lines for row in rows)
    assert {log_id for row in rows for log_id in row.samples} <= {log_id for *_, log_id in lines}


def test_no_rows_at_all_are_refused() -> None:
    with pytest.raises(ValueError, match="at least 1"):
        PatternCounts(0)
