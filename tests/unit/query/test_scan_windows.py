"""Windows cover a range once, jump over what is empty, and shrink until they fit."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from store.port import Position
from store.scan_windows import BEYOND, LEAST, Pace, Span, Walk, Window, predecessor, successor

HOUR = 3_600_000_000
YEAR = 365 * 24 * HOUR


def windows(walk: Walk, width_us: int) -> list[Window]:
    found = []
    while (window := walk.next(width_us)) is not None:
        found.append(window)
        walk.done(window)
        assert len(found) < 10_000
    return found


SPANS = st.lists(
    st.builds(
        lambda table, start, length: Span(table, start, start + length),
        st.sampled_from("abc"),
        *[st.integers(1, 60)] * 2,
    ),
    max_size=8,
)
POSITIONS = st.tuples(st.integers(0, 130), st.integers(0, 3))


@given(SPANS, st.booleans(), POSITIONS, POSITIONS, st.integers(1, 40), st.integers(1, 4), st.integers(0, 130))
@settings(deadline=None)
def test_every_place_is_in_exactly_one_window(
    spans: list[Span], newest_first: bool, low: Position, high: Position, width: int, most: int, barrier: int
) -> None:
    walk = Walk(spans, newest_first=newest_first, low=low, high=high, barrier_us=barrier, tables_max=most)
    found = windows(walk, width)
    ordered = sorted(found, key=lambda window: window.low, reverse=newest_first)
    assert found == ordered
    for window in found:
        assert low <= window.low < window.high <= high
        assert not window.low < (barrier, 0) < window.high
    for span in spans:
        for place in ((time, log_id) for time in range(span.start_us, span.end_us) for log_id in (0, 2)):
            holding = [window for window in found if window.low <= place < window.high]
            assert len(holding) == (low <= place < high)
            assert all(span.table in window.tables for window in holding)


@given(SPANS, st.booleans(), st.lists(POSITIONS, max_size=30))
@settings(deadline=None)
def test_narrowed_windows_cover_everything_too(spans: list[Span], newest_first: bool, cuts: list[Position]) -> None:
    walk = Walk(spans, newest_first=newest_first, low=LEAST, high=BEYOND, barrier_us=0, tables_max=9)
    edges = []
    while (window := walk.next(1_000)) is not None:
        cut = next((cut for cut in cuts if window.low <= cut < window.high), None)
        if cut is not None:
            cuts.remove(cut)
            narrowed = walk.narrow(window, cut)
            assert narrowed.low <= cut < narrowed.high
            edge = narrowed.high if newest_first else narrowed.low
            assert edge == (window.high if newest_first else window.low)
            window = narrowed
        edges.append((window.low, window.high))
        walk.done(window)
    for span in spans:
        place = (span.start_us, 1)
        assert sum(low <= place < high for low, high in edges) == 1


def test_years_without_rows_cost_nothing() -> None:
    spans = [Span("logs", year * YEAR, year * YEAR + 6 * HOUR) for year in range(50)]
    for newest_first in (True, False):
        walk = Walk(spans, newest_first=newest_first, low=LEAST, high=BEYOND, barrier_us=0, tables_max=64)
        assert len(windows(walk, 6 * HOUR)) == 50


def test_a_window_does_not_reach_over_a_long_emptiness() -> None:
    spans = [Span("logs", 0, HOUR), Span("logs", 20 * HOUR, 26 * HOUR), Span("logs", YEAR, YEAR + HOUR)]
    for newest_first in (True, False):
        walk = Walk(spans, newest_first=newest_first, low=LEAST, high=BEYOND, barrier_us=0, tables_max=64)
        found = sorted((window.low[0], window.high[0]) for window in windows(walk, 10 * YEAR))
        assert found == [(0, 26 * HOUR), (YEAR, YEAR + HOUR)]


def test_scanned_to_is_where_the_next_call_goes_on() -> None:
    spans = [Span("logs", 0, 100)]
    newest = Walk(spans, newest_first=True, low=LEAST, high=BEYOND, barrier_us=0, tables_max=9)
    window = newest.next(10)
    assert window is not None
    newest.done(window)
    assert newest.scanned_to == (90, 0)
    oldest = Walk(spans, newest_first=False, low=LEAST, high=BEYOND, barrier_us=0, tables_max=9)
    window = oldest.next(10)
    assert window is not None
    oldest.done(window)
    assert successor(oldest.scanned_to) == (10, 0)


@given(st.integers(-(10**15), 10**15), st.integers(0, 2**63 - 1))
@settings(deadline=None)
def test_neighbours_are_neighbours(timestamp_us: int, log_id: int) -> None:
    position = (timestamp_us, log_id)
    assert predecessor(position) < position < successor(position)
    assert predecessor(successor(position)) == position == successor(predecessor(position))


def test_a_pace_that_is_too_much_ends_at_one_row() -> None:
    pace = Pace(HOUR)
    for _ in range(10):
        pace.was_too_much()
    assert pace.rows == 1
    pace.was_quick()
    assert pace.rows == 4


def test_a_quick_pace_reaches_a_year_within_eight_windows() -> None:
    pace = Pace(HOUR)
    for _ in range(7):
        pace.was_quick()
    assert pace.width_us > YEAR
