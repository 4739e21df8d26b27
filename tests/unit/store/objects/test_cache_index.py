"""What the cache decides to keep: pure decisions."""

from __future__ import annotations

import pytest

from store.objects.cache_index import CacheIndex, Copy, State


def filled(*names: str, size: int = 30) -> tuple[CacheIndex, list[Copy]]:
    """An index of 100 bytes with copies, the first the least recently used."""
    index = CacheIndex(100)
    for name in names:
        index.find(name, size)
    return index, [index.use(name, size) for name in names]


def test_only_as_many_go_as_are_needed_the_oldest_first() -> None:
    index, (a, b, c) = filled("a", "b", "c")
    new = index.use("d", 40)
    assert index.admit(new) == [a]
    assert (index.bytes, len(index)) == (100, 3)
    new.state = State.WHOLE
    index.use("b", 30)
    assert index.admit(index.use("e", 50)) == [c, new]
    assert not b.pins
    assert index.bytes == 80


def test_what_is_pinned_or_busy_stays() -> None:
    index, (a, b, c) = filled("a", "b", "c")
    index.pin(a)
    b.busy = True  # being verified, though nobody waits for it any more
    assert index.admit(index.use("d", 30)) == [c]
    assert index.admit(index.use("e", 50)) is None
    assert index.bytes == 90


@pytest.mark.parametrize("state", [State.FOUND, State.WHOLE])
def test_room_that_there_is_costs_nothing(state: State) -> None:
    index, copies = filled("a", "b")
    for copy in copies:
        copy.state = state
    assert index.admit(index.use("c", 40)) == []
    assert index.bytes == 100


def test_refusal_changes_nothing() -> None:
    index, (a, b) = filled("a", "b")
    index.pin(b)
    assert index.admit(index.use("c", 71)) is None
    assert index.bytes == 60
    assert index.use("a", 30) is a


def test_copy_that_is_under_way_does_not_go() -> None:
    index = CacheIndex(100)
    first = index.use("a", 60)
    assert index.admit(first) == []
    assert index.admit(index.use("b", 60)) is None


def test_pinned_bytes_are_those_of_copies_with_pins_that_count() -> None:
    index, (a,) = filled("a")
    late = index.use("late", 50)
    index.pin(a)
    index.pin(a)
    index.pin(late)
    assert index.pinned_bytes == 30
    index.admit(late)
    assert index.pinned_bytes == 80
    index.unpin(a)
    assert index.pinned_bytes == 80
    index.unpin(a)
    index.lose(late)
    assert (index.pinned_bytes, index.bytes) == (0, 30)
    index.unpin(late)
    assert index.pinned_bytes == 0


def test_forgotten_copy_is_another_when_it_comes_again() -> None:
    index, (a,) = filled("a")
    index.forget(a)
    again = index.use("a", 30)
    assert again is not a
    index.forget(a)  # late news of the old one
    assert index.use("a", 30) is again
    assert index.bytes == 0
