"""Rows of tables and segments become one order, up to where both have looked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from store.port import Position, ScanResult
from store.segments.scans import SegmentResult
from store.tiers.tiered_scan import merged
from tests.segment_rows import log_at

POSITIONS = st.sets(st.tuples(st.integers(0, 8), st.integers(0, 3)), max_size=12)


@given(POSITIONS, POSITIONS, st.integers(1, 13), st.integers(1, 13), st.booleans(), st.booleans())
def test_every_position_up_to_the_nearer_reach_is_there_once(
    in_tables: set[Position], in_segments: set[Position], first: int, second: int, newest_first: bool, has_tables: bool
) -> None:
    """Each side gives so many of its rows; the rest is behind its reach."""

    def given_of(positions: set[Position], count: int) -> tuple[list[Position], Position | None]:
        ordered = sorted(positions, reverse=newest_first)
        return (ordered, None) if count >= len(ordered) else (ordered[:count], ordered[count - 1])

    table_rows, table_reach = given_of(in_tables, first)
    segment_rows, segment_reach = given_of(in_segments, second)
    of_tables = ScanResult([log_at(*each) for each in table_rows], table_reach is None, table_reach)
    of_segments = SegmentResult([log_at(*each) for each in segment_rows], segment_reach)
    rows, reach = merged(of_tables if has_tables else None, of_segments, newest_first=newest_first)
    everything = in_segments | (in_tables if has_tables else set())
    if reach is not None:
        everything = {each for each in everything if (each >= reach if newest_first else each <= reach)}
    assert [(log.timestamp, log.id) for log in rows] == sorted(everything, reverse=newest_first)
    assert (reach is None) == (segment_reach is None and (table_reach is None or not has_tables))
