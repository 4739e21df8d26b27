"""Windows of a count: every moment in exactly one, whatever each took."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from store.count_windows import LEAST_US, CountWalk

SECOND = 1_000_000
MINUTE = 60 * SECOND


@given(
    st.integers(-10_000, 10_000),
    st.integers(0, 100_000),
    st.sampled_from([1, 7, 60, 3_600]),
    st.lists(st.integers(-10_000, 110_000), max_size=3),
    st.lists(
        st.tuples(st.sampled_from(["done", "part", "much", "skip"]), st.floats(0.1, 5_000)), min_size=1, max_size=40
    ),
)
def test_windows_follow_one_another_down_to_the_end(
    low_s: int, length_s: int, width_s: int, borders_s: list[int], steps: list[tuple[str, float]]
) -> None:
    low, high = low_s * SECOND, (low_s + length_s) * SECOND
    borders = [border * SECOND + 1 for border in borders_s]
    walk = CountWalk(low, high, width_us=width_s * SECOND, origin_us=-(10**12), borders_us=borders)
    counted: list[tuple[int, int]] = []
    number = 0
    while (window := walk.next()) is not None and number < 5_000:
        what, took_ms = steps[number % len(steps)]
        number += 1
        assert low <= window[0] < window[1] == walk.high_us
        assert not any(window[0] < border < window[1] for border in borders)
        if what == "much" and walk.was_too_much():
            narrower = walk.next()
            assert narrower is not None
            assert narrower[1] - narrower[0] <= window[1] - window[0]
            continue
        reached = window[0] if what != "part" else (window[0] + window[1]) // 2
        if what == "skip":
            walk.skip_to(reached)
        else:
            walk.done_to(reached, took_ms=took_ms)
        counted.append((reached, window[1]))
    covered_to = high
    for start, end in counted:
        assert end == covered_to
        covered_to = start
    assert walk.high_us == max(covered_to, low) or number == 5_000


def test_windows_are_whole_buckets_and_grow_while_they_are_quick() -> None:
    walk = CountWalk(0, 1_000 * MINUTE + 5, width_us=MINUTE, origin_us=0)
    spans = []
    while (window := walk.next()) is not None:
        assert window[0] % MINUTE == 0
        spans.append(window[1] - window[0])
        walk.done_to(window[0], took_ms=1)
    assert len(spans) < 8
    assert spans[:-1] == sorted(spans[:-1])


def test_what_is_slow_is_counted_in_narrower_windows() -> None:
    walk = CountWalk(0, 1_000 * MINUTE, width_us=100 * MINUTE, origin_us=0)
    (low, high) = walk.next() or (0, 0)
    walk.done_to(low, took_ms=3_000)
    (low, high) = walk.next() or (0, 0)
    assert high - low == 10 * MINUTE


def test_narrowing_ends() -> None:
    walk = CountWalk(0, 1_000 * MINUTE, width_us=100 * MINUTE, origin_us=0)
    times = 0
    while walk.was_too_much():
        times += 1
        assert times < 20
    (low, high) = walk.next() or (0, 0)
    assert high - low == LEAST_US
