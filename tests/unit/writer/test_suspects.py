"""When a partition in trouble is halted, and when it is only looked at again."""

from __future__ import annotations

import math

from writer.suspects import Suspects


def suspects() -> Suspects:
    return Suspects(observations=3, pause_s=1.0)


def test_the_same_trouble_three_times_in_a_row_is_certain() -> None:
    watched = suspects()
    assert [watched.observe(4, "gap", now_s) for now_s in (0.0, 1.0, 2.0)] == [False, False, True]
    assert watched.times(4) == 0


def test_partition_is_set_aside_between_two_looks_and_its_neighbours_are_not() -> None:
    watched = suspects()
    watched.observe(4, "gap", 10.0)
    assert watched.is_set_aside(4, 10.9)
    assert not watched.is_set_aside(4, 11.0)
    assert not watched.is_set_aside(5, 10.5)
    assert watched.look_again_s([4, 5], 10.5) == 11.0
    assert watched.look_again_s([5], 10.5) == math.inf
    assert watched.look_again_s([4, 5], 11.0) == math.inf


def test_progress_between_two_troubles_begins_the_count_anew() -> None:
    watched = suspects()
    assert not watched.observe(4, "gap", 0.0)
    assert not watched.observe(4, "gap", 1.0)
    watched.clear(4)
    assert [watched.observe(4, "gap", now_s) for now_s in (2.0, 3.0, 4.0)] == [False, False, True]


def test_another_kind_of_trouble_begins_the_count_anew() -> None:
    watched = suspects()
    assert not watched.observe(4, "gap", 0.0)
    assert not watched.observe(4, "gap", 1.0)
    assert not watched.observe(4, "other frame", 2.0)
    assert watched.times(4) == 1


def test_partitions_are_counted_apart() -> None:
    watched = suspects()
    for partition in (1, 2):
        assert not watched.observe(partition, "gap", 0.0)
        assert not watched.observe(partition, "gap", 1.0)
    assert watched.observe(2, "gap", 2.0)
    assert watched.times(1) == 2
