"""Windows cover a range once, jump over what is empty, and shrink until they fit."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given, settings
from hypothesis import strategies as st

from store.catalogue import Table
from store.port import Position
from store.scan_windows import BEYOND, LEAST, LEAST_US, Ground, Pace, Walk, Window, predecessor, successor

HOUR = 3_600_000_000
YEAR = 365 * 24 * HOUR


def ground(
    chunks: Sequence[tuple[int, int]] = (), late: Sequence[tuple[str, int, int]] = (), open_from: int = 0
) -> Ground:
    """Finished chunks of a row per µs, late tables, and where the open part begins; the border is there too."""
    tables = [Table("chunk", False, True, start, end, end - start, is_indexed=True) for start, end in chunks]
    late_tables = [Table(name, True, False, start, end) for name, start, end in late]
    return Ground("logs", tables, [s for s, _ in chunks], [e for _, e in chunks], late_tables, open_from, open_from)


def windows(walk: Walk, *, width_us: int | None = None, chunks: int = 64) -> list[Window]:
    found = []
    while (window := walk.next(width_us=width_us, chunks=chunks)) is not None:
        found.append(window)
        walk.done(window)
        assert len(found) < 10_000
    return found


@st.composite
def grounds(draw: st.DrawFn) -> Ground:
    """Chunks between 0 and 100 with gaps, the open part behind them, late tables anywhere before it."""
    ends = sorted(draw(st.sets(st.integers(0, 100), max_size=10)))
    chunks = [(start, end) for start, end in zip(ends[::2], ends[1::2], strict=False)]
    open_from = draw(st.integers(ends[-1] if ends else 0, 110))
    starts = st.integers(0, 100)
    late = draw(st.lists(st.tuples(st.sampled_from("ab"), starts, st.integers(1, 40)), max_size=3))
    return ground(chunks, [(name, start, start + length) for name, start, length in late], open_from)


def holders(of: Ground, time: int) -> set[str]:
    """The tables that can hold a row with this timestamp."""
    late = {table.name for table in of.late if table.start_us <= time < table.end_us and time < of.late_end_us}
    is_in_chunk = any(start <= time < end for start, end in zip(of.starts_us, of.ends_us, strict=True))
    return late | {"logs"} if is_in_chunk or time >= of.open_from_us else late


POSITIONS = st.tuples(st.integers(0, 130), st.integers(0, 3))


@given(grounds(), st.booleans(), POSITIONS, POSITIONS, st.none() | st.integers(1, 40), st.integers(1, 4))
@settings(deadline=None, max_examples=300)
def test_every_place_is_in_exactly_one_window_with_all_its_tables(
    on: Ground, newest_first: bool, low: Position, high: Position, width: int | None, chunks: int
) -> None:
    found = windows(Walk(on, newest_first=newest_first, low=low, high=high), width_us=width, chunks=chunks)
    assert found == sorted(found, key=lambda window: window.low, reverse=newest_first)
    for window in found:
        assert low <= window.low < window.high <= high
        assert not window.low < (on.open_from_us, 0) < window.high
        assert window.is_open == (window.low >= (on.open_from_us, 0))
        assert all(window.low <= arm.low < arm.high <= window.high for arm in window.arms)
    for place in ((time, log_id) for time in range(130) for log_id in (0, 2)):
        asked = [arm.table for window in found for arm in window.arms if arm.low <= place < arm.high]
        expected = holders(on, place[0]) if low <= place < high else set()
        assert expected <= set(asked)
        assert asked.count("logs") <= 1
        assert sum(window.low <= place < window.high for window in found) <= 1


@given(grounds(), st.booleans(), st.lists(POSITIONS, max_size=30))
@settings(deadline=None)
def test_narrowed_windows_cover_everything_too(on: Ground, newest_first: bool, cuts: list[Position]) -> None:
    walk = Walk(on, newest_first=newest_first, low=LEAST, high=BEYOND)
    found = []
    while (window := walk.next(width_us=50)) is not None:
        cut = next((cut for cut in cuts if window.low <= cut < window.high), None)
        if cut is not None:
            cuts.remove(cut)
            narrowed = walk.narrow(window, cut)
            assert narrowed.low <= cut < narrowed.high
            assert (narrowed.high == window.high) if newest_first else (narrowed.low == window.low)
            window = narrowed
        found.append(window)
        walk.done(window)
        if len(found) > 100:  # the open part has no end
            break
    for time in range(60 if newest_first else 0, 60):
        asked = [arm.table for window in found for arm in window.arms if arm.low <= (time, 1) < arm.high]
        assert holders(on, time) <= set(asked)


def test_years_without_rows_cost_nothing() -> None:
    on = ground([(year * YEAR, year * YEAR + 6 * HOUR) for year in range(50)], open_from=60 * YEAR)
    for newest_first in (True, False):
        walk = Walk(on, newest_first=newest_first, low=LEAST, high=(60 * YEAR, 0))
        assert len(windows(walk, width_us=6 * HOUR)) == 50


def test_a_window_does_not_reach_over_a_long_emptiness() -> None:
    """Between these chunks lie others that are empty, and planning looks at each."""
    on = ground([(0, HOUR), (20 * HOUR, 26 * HOUR), (YEAR, YEAR + HOUR)], open_from=2 * YEAR)
    for newest_first in (True, False):
        walk = Walk(on, newest_first=newest_first, low=LEAST, high=(2 * YEAR, 0))
        arms = sorted((arm.low[0], arm.high[0]) for window in windows(walk) for arm in window.arms)
        assert arms == [(0, 26 * HOUR), (YEAR, YEAR + HOUR)]


def test_what_has_expired_is_not_asked() -> None:
    """Its table is there for some minutes, before the first chunk of the catalogue."""
    on = ground([(10, 20)], [("late", 0, 20)], open_from=20)
    (window,) = windows(Walk(on, newest_first=True, low=LEAST, high=(20, 0)))
    assert [(arm.table, arm.low) for arm in window.arms] == [("logs", (10, 0)), ("late", (0, 0))]


def test_an_open_late_table_is_asked_wherever_it_can_hold_rows() -> None:
    on = ground([(10, 20)], [("late", LEAST_US, BEYOND[0])], open_from=15)
    asked = windows(Walk(on, newest_first=True, low=LEAST, high=BEYOND))
    assert [[arm.table for arm in window.arms] for window in asked] == [["logs"], ["logs", "late"]]


def test_a_window_holds_as_many_chunks_as_so_many_rows_need() -> None:
    on = ground([(0, 10), (10, 40), (40, 60)], open_from=70)
    for newest_first, rows, bounds in (
        (True, 1, (40, 60)),
        (True, 21, (10, 60)),
        (True, 51, (0, 60)),
        (False, 10, (0, 10)),
        (False, 11, (0, 40)),
    ):
        window = Walk(on, newest_first=newest_first, low=LEAST, high=(65, 0)).next(rows=rows)
        assert window is not None
        assert (window.arms[0].low[0], window.arms[0].high[0], window.rows) == (*bounds, bounds[1] - bounds[0])
        assert window.is_indexed


def test_a_window_is_indexed_when_everything_in_it_is() -> None:
    def is_indexed(*tables: Table, late: Sequence[Table] = ()) -> bool:
        starts, ends = [table.start_us for table in tables], [table.end_us for table in tables]
        window = Walk(
            Ground("logs", tables, starts, ends, late, 99, 99), newest_first=True, low=LEAST, high=(9, 0)
        ).next()
        assert window is not None
        return window.is_indexed

    old = Table("old", False, True, 0, 5, 10)
    new = Table("new", False, True, 5, 9, 10, is_indexed=True)
    assert is_indexed(new)
    assert not is_indexed(old, new)
    assert not is_indexed(new, late=[Table("late", True, True, 0, 9, 10)])
    assert is_indexed(new, late=[Table("growing and small", True, False, 0, 9)])
    assert not is_indexed(new, late=[Table("elsewhere", True, True, 0, 9, 10, is_indexed=True), old])


def test_scanned_to_is_where_the_next_call_goes_on() -> None:
    on = ground([(0, 100)], open_from=100)
    newest = Walk(on, newest_first=True, low=LEAST, high=(100, 0))
    window = newest.next(width_us=10)
    assert window is not None
    newest.done(window)
    assert newest.scanned_to == (90, 0)
    oldest = Walk(on, newest_first=False, low=LEAST, high=BEYOND)
    window = oldest.next(width_us=10)
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
    for pace in (Pace(None), Pace(10_000)):
        for _ in range(10):
            pace.was_too_much(2_000)
        assert pace.rows == 1


def test_a_pace_makes_windows_as_long_as_they_may_take() -> None:
    """10,000 rows that took 4 ms and lay in 2 s: windows of 250 ms are 125 s wide, after three steps of eight at most."""
    pace = Pace(10_000)
    pace.took(4.0, span_us=2_000_000)
    widths = []
    for _ in range(4):
        pace.aim(250)
        assert pace.width_us is not None
        widths.append(pace.width_us)
        pace.took(pace.width_us / 500_000, span_us=pace.width_us)
    assert widths == [16_000_000, 125_000_000, 125_000_000, 125_000_000]
    pace.was_too_much(2_000)
    assert pace.width_us == 125_000_000 // 8


def test_many_rows_at_one_moment_are_counted_on() -> None:
    pace = Pace(10_000)
    pace.took(4.0, span_us=0)
    assert (pace.rows, pace.width_us) == (40_000, None)


def test_quick_windows_reach_over_more_chunks() -> None:
    pace = Pace(None)
    assert pace.chunks == 2
    for _ in range(4):
        pace.took(1.0)
    assert pace.chunks == 64
    pace.took(500.0)
    assert pace.chunks == 64
