"""Joining what one has read by oneself to what everybody is given."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from live.events import Batch, Gap, GapReason, Place


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


def test_a_partition_that_was_not_there_before_is_taken_from_its_first_event() -> None:
    place = Place({0: 5})
    assert place.takes(batch(3, partition=1))
    assert place.positions == {0: 5, 1: 4}


def test_the_live_end_is_reached_when_no_partition_lacks_anything() -> None:
    place = Place({0: 5, 1: 2})
    assert not place.has_reached({0: 5, 1: 3})
    assert not place.has_reached({0: 5, 2: 1})
    assert place.has_reached({0: 4, 1: 2, 2: 0})
