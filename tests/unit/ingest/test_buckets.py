"""Token buckets and their table: the average holds, whatever is asked for, and made-up names win nothing."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.buckets import RETRY_AFTER_S_MAX, BucketTable, Rate, TokenBucket

TEN = Rate(10.0, 20.0)


@given(st.lists(st.tuples(st.floats(0, 5), st.integers(1, 50)), max_size=60))
def test_no_more_passes_than_burst_and_rate_but_for_the_last_whole(asked: list[tuple[float, int]]) -> None:
    bucket = TokenBucket.full(TEN, 0.0)
    now_s, passed, last = 0.0, 0, 0
    for pause_s, count in asked:
        now_s += pause_s
        bucket.refill(now_s)
        if bucket.tokens >= 1.0:
            bucket.tokens -= count
            passed, last = passed + count, count
    assert passed - last <= TEN.burst + TEN.per_s * now_s + 1e-6


@given(st.floats(-1e6, 0.99), st.floats(0.001, 1e6))
def test_whoever_waits_as_long_as_told_is_let_in(tokens: float, per_s: float) -> None:
    bucket = TokenBucket(Rate(per_s, 1e6), tokens, 100.0)
    wait_s = bucket.seconds_until_token()
    assert 1 <= wait_s <= RETRY_AFTER_S_MAX
    bucket.refill(100.0 + wait_s)
    assert bucket.tokens >= 1.0 - 1e-6 or wait_s == RETRY_AFTER_S_MAX


def test_a_clock_that_stands_still_or_steps_back_fills_nothing() -> None:
    bucket = TokenBucket.full(TEN, 100.0)
    bucket.tokens = 0.0
    for now_s in (100.0, 99.0):
        bucket.refill(now_s)
        assert bucket.tokens == 0.0


def test_a_bucket_that_owes_something_is_never_forgotten() -> None:
    table = BucketTable(3)
    for name in ("a", "b", "c"):
        bucket = table.add(name, TEN, 0.0)
        assert bucket is not None
        bucket.tokens = -100.0
    for number in range(1_000):
        assert table.add(f"made up {number}", TEN, number / 1_000) is None
    assert [table.find(name) is not None for name in ("a", "b", "c")] == [True] * 3
    assert len(table) == 3


def test_one_that_owes_much_keeps_no_other_from_making_room() -> None:
    table = BucketTable(3)
    for name in ("debtor", "b", "c"):
        bucket = table.add(name, TEN, 0.0)
        assert bucket is not None
        bucket.tokens = -1e9 if name == "debtor" else 0.0
    assert table.add("d", TEN, 1.0) is None
    assert table.add("d", TEN, 2.0) is not None, "b is full again"
    assert table.find("debtor") is not None
    assert table.find("b") is None


@pytest.mark.parametrize("buckets_max", [1, 4, 100])
def test_a_table_holds_no_more_than_it_may(buckets_max: int) -> None:
    table = BucketTable(buckets_max)
    for number in range(1_000):
        table.add(f"s{number}", TEN, float(number))
    assert len(table) == buckets_max
