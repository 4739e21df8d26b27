"""Stretches cover an interval once, and each names every segment that may hold rows in it."""

from __future__ import annotations

from itertools import pairwise

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from store.catalogue import Table
from store.port import Position
from store.scan_windows import Ground, predecessor
from store.segments.format import RowGroup, SegmentInfo
from store.tiers.segments import Segment, SegmentState, Tier
from store.tiers.stretches import FILES, Stretch, Stretches

INFO = SegmentInfo(1, 1, 0, 0, 0, 0, {}, {}, (), "", "")


def segment(
    number: int,
    start: int,
    end: int,
    tier: Tier = Tier.WARM,
    *,
    groups: tuple[tuple[int, int], ...] = (),
    size: int = 1,
) -> Segment:
    """groups: inclusive first and last time of each row group."""
    row_groups = tuple(RowGroup(1, first, last, 1) for first, last in groups)
    info = msgspec.structs.replace(INFO, row_groups=row_groups, bytes=size)
    return Segment(f"s{number:04}", SegmentState.SERVING, tier, "default", ("t",), start, end, info)


def ground(*chunks: tuple[int, int], open_from: int = 1_000_000) -> Ground:
    tables = [Table("chunk", False, True, start, end, 1) for start, end in chunks]
    return Ground("logs", tables, [s for s, _ in chunks], [e for _, e in chunks], [], open_from, open_from)


def walked(stretches: Stretches) -> list[Stretch]:
    found = []
    while (stretch := stretches.next()) is not None:
        found.append(stretch)
        stretches.done(stretch)
        assert len(found) < 10_000
    return found


SEGMENTS = st.lists(st.tuples(st.integers(0, 100), st.integers(1, 30), st.sampled_from(Tier)), max_size=12).map(
    lambda found: [segment(n, start, start + length, tier) for n, (start, length, tier) in enumerate(found)]
)
TIMES = st.lists(st.integers(0, 100), min_size=2, max_size=8).map(sorted)
LATE_SEGMENTS = st.lists(st.tuples(TIMES, st.sampled_from(Tier)), max_size=40).map(
    lambda found: [
        segment(n, times[0], times[-1] + 1, tier, groups=tuple(zip(times[::2], times[1::2], strict=False)))
        for n, (times, tier) in enumerate((times[: len(times) // 2 * 2], tier) for times, tier in found)
    ]
)
"""With row groups and gaps between them, many overlapping."""
POSITIONS = st.tuples(st.integers(-5, 140), st.integers(0, 3))


@st.composite
def grounds(draw: st.DrawFn) -> Ground:
    ends = sorted(draw(st.sets(st.integers(0, 130), max_size=8)))
    return ground(*zip(ends[::2], ends[1::2], strict=False), open_from=draw(st.integers(130, 150)))


def pieces_of(one: Segment) -> list[tuple[int, int]]:
    """Where it may have rows, as its row groups say."""
    groups = one.info.row_groups
    return [(group.first_us, group.last_us + 1) for group in groups] if groups else [(one.start_us, one.end_us)]


@given(SEGMENTS | LATE_SEGMENTS, grounds(), POSITIONS, POSITIONS, st.booleans())
@settings(deadline=None, max_examples=500)
def test_every_position_is_in_one_stretch_with_all_its_segments(
    segments: list[Segment], on: Ground, low: Position, high: Position, newest_first: bool
) -> None:
    found = walked(Stretches(segments, on, low, high, newest_first=newest_first))
    if low >= high:
        assert found == []
        return
    in_order = found[::-1] if newest_first else found
    assert (in_order[0].low, in_order[-1].high) == (low, high)
    assert all(one.high == other.low for one, other in pairwise(in_order))
    for stretch in found:
        assert stretch.low < stretch.high
        for each in segments:
            may_hold = any((start, 0) < stretch.high and (end, 0) > stretch.low for start, end in pieces_of(each))
            assert each in stretch.segments or not may_hold
        groups = list(stretch.groups())
        assert [each for group in groups for each in group] == list(stretch.segments)
        assert all(len(group) <= FILES for group in groups)


@given(SEGMENTS, POSITIONS, st.booleans(), st.data())
@settings(deadline=None, max_examples=200)
def test_a_walk_goes_on_from_any_position_in_a_stretch(
    segments: list[Segment], last: Position, newest_first: bool, data: st.DataObject
) -> None:
    low, high = (0, 0), (140, 0)
    stretches = Stretches(segments, ground(), low, high, newest_first=newest_first)
    stretch = stretches.next()
    assert stretch is not None
    least, most = stretch.low, predecessor(stretch.high)
    position = min(max(last, least), most)
    stretches.done_to(position)
    assert stretches.scanned_to == position
    rest = stretches.next()
    if rest is not None:
        assert (rest.high if newest_first else predecessor(rest.low)) == position


def test_chunks_that_no_segment_overlaps_are_asked_alone() -> None:
    segments = [segment(0, 0, 10), segment(1, 10, 20), segment(2, 40, 50)]
    for newest_first in (True, False):
        found = walked(Stretches(segments, ground((22, 30)), (0, 0), (60, 0), newest_first=newest_first))
        assert [len(stretch.segments) for stretch in found] == ([1, 0, 2] if newest_first else [2, 0, 1])
        without_chunks = walked(Stretches(segments, ground(), (0, 0), (60, 0), newest_first=newest_first))
        assert [len(stretch.segments) for stretch in without_chunks] == [3]


def test_a_stretch_asks_few_files_and_fetches_fewer() -> None:
    warm = [segment(n, n * 10, n * 10 + 10) for n in range(100)]
    found = walked(Stretches(warm, ground(), (0, 0), (1_000, 0), newest_first=True))
    assert [len(stretch.segments) for stretch in found] == [FILES, FILES, FILES, 100 - 3 * FILES]
    cold = [segment(n, n * 10, n * 10 + 10, Tier.COLD) for n in range(20)]
    found = walked(Stretches(cold, ground(), (0, 0), (200, 0), newest_first=False))
    assert [len(stretch.segments) for stretch in found] == [1, 2, 4, 4, 4, 4, 1]


@pytest.mark.parametrize("newest_first", [True, False])
def test_no_more_is_fetched_at_once_than_there_is_room_for(newest_first: bool) -> None:
    """One file alone may be larger; whether it fits is found out when it is fetched."""
    cold = [segment(n, n * 10, n * 10 + 10, Tier.COLD) for n in range(6)]
    size = cold[0].info.bytes

    def stretches(segments: list[Segment], bytes_max: int) -> list[Stretch]:
        on, low, high = ground(), (0, 0), (200, 0)
        return walked(Stretches(segments, on, low, high, newest_first=newest_first, cold_bytes_max=bytes_max))

    found = stretches(cold, 2 * size)
    assert [len(stretch.segments) for stretch in found] == [1, 2, 2, 1]
    found = stretches(cold, size - 1)
    assert [len(stretch.segments) for stretch in found] == [1] * 6
    over_each_other = [segment(n, 0, 10, Tier.COLD) for n in range(5)]
    *_, stretch = sorted(stretches(over_each_other, size - 1), key=lambda found: len(found.segments))
    assert [len(group) for group in stretch.groups(2 * size)] == [2, 2, 1]
    assert [len(group) for group in stretch.groups(1)] == [1] * 5


def test_late_files_are_asked_where_they_have_rows() -> None:
    """400 that lie across each other, each with rows at two times of its own."""
    late = [segment(n, n, 1_000 + n + 1, Tier.COLD, groups=((n, n), (1_000 + n, 1_000 + n))) for n in range(400)]
    for newest_first in (True, False):
        found = walked(Stretches(late, ground(), (0, 0), (2_000, 0), newest_first=newest_first))
        assert max(len(stretch.segments) for stretch in found) <= 4


def test_many_files_of_one_moment_are_asked_in_groups() -> None:
    for size, groups in ((1, 13), (64 << 20, 100)):
        late = [segment(n, 0, 1_000, Tier.COLD, size=size) for n in range(400)]
        (stretch,) = walked(Stretches(late, ground(), (0, 0), (1_000, 0), newest_first=True))
        found = list(stretch.groups())
        assert len(found) == groups
        assert [each for group in found for each in group] == late


def test_what_need_not_be_fetched_comes_first() -> None:
    segments = [segment(0, 0, 10, Tier.COLD), segment(1, 10, 20), segment(2, 20, 30)]
    found = walked(Stretches(segments, ground(), (0, 0), (30, 0), newest_first=True))
    assert [[each.tier for each in stretch.segments] for stretch in found] == [[Tier.WARM, Tier.WARM], [Tier.COLD]]


def test_a_border_divides_a_stretch_that_lies_on_both_sides_of_it() -> None:
    for newest_first, expected in ((True, ((30, 0), (60, 0))), (False, ((0, 5), (30, 0)))):
        stretches = Stretches((), ground(), (0, 5), (60, 0), newest_first=newest_first)
        stretch = stretches.next()
        assert stretch is not None
        part = stretches.within(stretch, 30)
        assert (part.low, part.high) == expected
        assert stretches.within(part, 30) == part
        stretches.done(part)
        other = stretches.next()
        assert other is not None
        assert {part.low, part.high} & {other.low, other.high} == {(30, 0)}
