"""The bytes in flight: bounded in all, and nobody's flood leaves no room for others."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.in_flight import Hold, InFlight
from runtime.telemetry import REGISTRY
from schemas.errors import Overloaded

MAX = 1_000


def flood(budget: InFlight, subject: str, size: int = 10) -> Hold:
    """Take all that is given."""
    hold = budget.hold(subject)
    with contextlib.suppress(Overloaded):
        while True:
            hold.grow(size)
    return hold


def test_one_that_sends_without_end_has_half_and_others_find_room() -> None:
    budget = InFlight(MAX)
    noisy = flood(budget, "noisy")
    assert budget.bytes == MAX // 2
    quiet = budget.hold("quiet")
    quiet.grow(200)
    noisy.close()
    quiet.close()
    assert budget.bytes == 0


@pytest.mark.parametrize("noisy", [1, 2, 3, 9])
def test_however_many_flood_it_there_is_room_for_one_more(noisy: int) -> None:
    """The first took half before the others came; as their requests end, each comes to the same."""
    budget = InFlight(MAX)
    holds = [flood(budget, f"noisy {number}", size=1) for number in range(noisy)]
    assert budget.bytes < MAX
    for _ in range(20):
        for number in range(noisy):
            holds[number].close()
            holds[number] = flood(budget, f"noisy {number}", size=1)
    free = MAX - budget.bytes
    assert free >= MAX // (noisy + 1) - noisy
    budget.hold("quiet").grow(free // 2)


def test_a_refusal_adds_nothing_and_is_counted() -> None:
    budget = InFlight(MAX)
    before = REGISTRY.get_sample_value("logfeed_ingest_in_flight_refusals_total") or 0.0
    hold = budget.hold("a")
    with pytest.raises(Overloaded, match="at most 1000"):
        hold.grow(501)
    assert budget.bytes == 0
    assert REGISTRY.get_sample_value("logfeed_ingest_in_flight_refusals_total") == before + 1
    hold.grow(500)


@given(st.lists(st.tuples(st.integers(0, 4), st.integers(0, 7), st.integers(0, 600)), max_size=80))
def test_the_sum_is_bounded_and_all_of_it_comes_back(steps: list[tuple[int, int, int]]) -> None:
    budget = InFlight(MAX)
    holds = [[budget.hold(f"s{subject}") for _ in range(8)] for subject in range(5)]
    held: dict[tuple[int, int], int] = {}
    for subject, number, count in steps:
        if count == 0:
            holds[subject][number].close()
            held.pop((subject, number), None)
            continue
        own = sum(size for (owner, _), size in held.items() if owner == subject)
        fits = own + count <= MAX - budget.bytes - count
        try:
            holds[subject][number].grow(count)
        except Overloaded:
            assert not fits
        else:
            assert fits
            held[subject, number] = held.get((subject, number), 0) + count
        assert budget.bytes == sum(held.values()) <= MAX
    for row in holds:
        for hold in row:
            hold.close()
            hold.close()
    assert budget.bytes == 0
    assert not budget._by_subject
