"""Every line is in exactly one row, under a pattern whose text is known, whatever becomes of patterns meanwhile."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from mining.tally import Tally
from patterns.counts import OTHER, Counted
from patterns.miner import InvalidSnapshot, Limits
from schemas.record import Log
from schemas.scope import AUDIT_SERVICE

MINUTE_US = 60_000_000


def log(number: int, message: str, service: str = "a", level: int = 9) -> Log:
    return Log(number, number * 7_000_000, level, service, message, None, {})


def summed(drained: list[Counted]) -> Counter[tuple[str, int, int]]:
    """(service, level, minute) -> lines, each with a text."""
    found: Counter[tuple[str, int, int]] = Counter()
    for counted in drained:
        for row in counted.rows:
            assert row.pattern_id in counted.texts
            found[row.service, row.level, row.minute] += row.lines
    return found


@settings(max_examples=60, deadline=None)
@given(st.integers(0, 10**6), st.sampled_from([3, 20, 10_000]), st.integers(1, 60))
def test_sums_are_the_lines_however_often_it_is_drained_and_begun_again(seed: int, known: int, every: int) -> None:
    rng = random.Random(seed)
    words = ["open", "closed", "user", "ann", "ben", "7", "10.0.0.1", "failed", "of", "x=1", "x=two"]
    limits = Limits(templates=known)
    tally, drained, logs = Tally(None, limits), [], []
    snapshot = b""
    for number in range(200):
        message = " ".join(rng.choice(words) for _ in range(rng.randint(1, 6)))
        logs.append(log(number, message, rng.choice("abc"), rng.choice((9, 17))))
        assert tally.take(logs[-1:]) == 1
        if number % every == 0:
            drained.append(tally.drain())
            snapshot = drained[-1].snapshot or snapshot
            if rng.random() < 0.3:
                tally = Tally(snapshot, limits)
    drained.append(tally.drain())
    expected = Counter((each.service_name, each.level, each.timestamp // MINUTE_US) for each in logs)
    assert summed(drained) == expected
    for counted in drained:
        assert not counted.merged.keys() & set(counted.revived), "live, or read as another one"
        assert not {into for (service, _), into in counted.merged.items() if (service, into) in counted.merged}
        assert all(into in counted.texts for into in counted.merged.values())


def test_lines_of_what_was_merged_come_under_what_it_became() -> None:
    tally = Tally()
    names = ["ada", "ben", "cleo", "dan", "eve"]
    tally.take([log(n, f"user {name} left early") for n, name in enumerate(names)])
    first = tally.drain()
    assert {first.texts[row.pattern_id] for row in first.rows} == {f"user {name} left early" for name in names}
    tally.take([log(9, "user fay left early"), log(10, "user gus left early")])
    second = tally.drain()
    (row,) = {(each.pattern_id) for each in second.rows}
    assert second.texts[row] == "user <*> left early"
    assert second.merged == {("a", each.pattern_id): row for each in first.rows}
    assert second.snapshot is not None


def test_nothing_learnt_needs_no_snapshot() -> None:
    tally = Tally()
    assert tally.drain().snapshot is not None, "the first one is needed to go on from"
    tally.take([log(1, "same words")])
    assert tally.drain().snapshot is not None
    tally.take([log(2, "same words")])
    again = tally.drain()
    assert again.snapshot is None
    assert [row.lines for row in again.rows] == [1]
    assert tally.drain(with_snapshot=True).snapshot is not None


def test_our_own_services_are_left_out() -> None:
    tally = Tally()
    assert tally.take([log(1, "GET /api/v1/logs", AUDIT_SERVICE), log(2, "hello there")]) == 1
    assert {row.service for row in tally.drain().rows} == {"a"}


def test_it_is_full_before_lines_lose_their_patterns() -> None:
    rng = random.Random(3)
    tally = Tally()
    number = 0
    while not tally.is_full:
        logs = [log(number + n, f"{rng.getrandbits(40):x}zz done", f"s{n % 50}") for n in range(10_000)]
        number += len(logs)
        tally.take(logs)
    counted = tally.drain()
    assert sum(row.lines for row in counted.rows) == number
    assert not any(row.pattern_id == OTHER for row in counted.rows)
    assert not tally.is_full


def test_a_snapshot_of_something_else_is_refused() -> None:
    with pytest.raises(InvalidSnapshot):
        Tally(b"something else")
