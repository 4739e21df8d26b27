"""Joining what one has read by oneself to what everybody is given."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from live.events import Batch, Gap, GapReason, Place, Recent


def batch(offset: int, partition: int = 0) -> Batch:
    return Batch(partition, offset, offset + 1, 0, [])


@given(stands=st.integers(0, 6), live_from=st.integers(0, 6))
def test_nothing_is_taken_twice_and_what_is_missing_is_told(stands: int, live_from: int) -> None:
    place = Place({0: stands})
    answers = [place.takes(batch(offset)) for offset in range(live_from, 10)]
    if live_from > stands:
        assert answers == [None] * len(answers)
        assert place.positions == {0: stands}
    else:
        assert answers == [offset >= stands for offset in range(live_from, 10)]
        assert place.positions == {0: 10}


def test_a_gap_moves_the_place_also_backwards() -> None:
    place = Place({0: 70})
    assert place.is_beyond({0: 3})
    assert place.takes(Gap(0, 70, 0, GapReason.REMADE))
    assert place.takes(batch(0))
    assert place.positions == {0: 1}


def test_who_stands_in_the_middle_of_a_gap_goes_on_behind_it() -> None:
    """It read on by itself while the live end was away for longer than the broker keeps records."""
    recent, live = Recent(bytes_max=10_000), {0: 101}
    for event in (batch(9), Gap(0, 10, 100, GapReason.EXPIRED), batch(100)):
        recent.add(event)
    place = Place({0: 50})
    assert recent.covers(place, live)
    taken = [event.offset for event in recent.events() if place.takes(event)]
    assert taken == [10, 100]
    assert place.positions == live


def test_a_partition_that_was_not_there_before_is_taken_from_its_first_event() -> None:
    place = Place({0: 5})
    assert place.takes(batch(3, partition=1))
    assert place.positions == {0: 5, 1: 4}


def test_the_live_end_is_reached_when_no_partition_lacks_anything() -> None:
    place = Place({0: 5, 1: 2})
    assert not place.has_reached({0: 5, 1: 3})
    assert not place.has_reached({0: 5, 2: 1})
    assert place.has_reached({0: 4, 1: 2, 2: 0})


@given(
    partitions=st.lists(st.integers(0, 2), max_size=20),
    stands=st.fixed_dictionaries({0: st.integers(0, 8), 1: st.integers(0, 8), 2: st.integers(0, 8)}),
    bytes_max=st.integers(0, 2_000),
)
def test_what_was_handed_out_lately_leads_to_the_live_end_or_is_not_used(
    partitions: list[int], stands: dict[int, int], bytes_max: int
) -> None:
    recent, live = Recent(bytes_max=bytes_max), dict.fromkeys(range(3), 0)
    for partition in partitions:
        recent.add(batch(live[partition], partition))
        live[partition] += 1
    place = Place(dict(stands))
    covered = recent.covers(place, live)
    kept = recent.events()
    assert sum(event.size_bytes for event in kept) <= bytes_max
    missing = {(p, offset) for p, end in live.items() for offset in range(stands[p], end)}
    is_here = missing <= {(event.partition, event.offset) for event in kept}
    assert covered == (is_here and all(stands[p] <= live[p] for p in live))
    if covered:
        taken = [(event.partition, event.offset) for event in kept if place.takes(event)]
        assert set(taken) == missing
        assert len(taken) == len(missing)
        assert place.positions == live
    recent.clear()
    assert recent.events() == []
