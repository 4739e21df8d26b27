"""How many lines may be put aside: small frames, clumps, quiet and busy services."""

from __future__ import annotations

import random
from itertools import count

import pytest
from hypothesis import given
from hypothesis import strategies as st

from writer.dead_window import DeadWindow
from writer.settings import WriterSettings


def window(**changed: float) -> DeadWindow:
    """With the defaults of the settings."""
    settings = WriterSettings(name="w")
    return DeadWindow(
        seconds=changed.get("seconds", settings.dead_window_s),
        lines_max=int(changed.get("lines_max", settings.dead_window_lines)),
        dead_min=int(changed.get("dead_min", settings.dead_lines_min)),
        ratio_max=changed.get("ratio_max", settings.dead_ratio_max),
    )


def takes(judge: DeadWindow, lines: int, dead: int, now_s: float) -> bool:
    """Commit a batch where it is allowed."""
    if dead > judge.allowance(lines, now_s):
        return False
    judge.note(lines, dead, now_s)
    return True


@pytest.mark.parametrize("frame_lines", [1, 7, 100])
def test_poison_alone_is_stopped_after_the_least_number_however_small_its_frames(frame_lines: int) -> None:
    judge = window()
    put_aside = next(n for n in count() if not takes(judge, frame_lines, frame_lines, n * 0.1)) * frame_lines
    assert 100 - frame_lines < put_aside <= 100


def test_poison_after_much_good_traffic_is_stopped_after_a_tenth_of_the_window() -> None:
    judge = window()
    for n in range(1_000):
        assert takes(judge, 1_000, 0, n * 0.01)
    put_aside = next(n for n in count() if not takes(judge, 10, 10, 10 + n * 0.01)) * 10
    assert 900 < put_aside <= 1_300


def test_one_bad_request_in_a_quiet_service_stops_nothing() -> None:
    judge = window()
    for hour in range(24):
        assert takes(judge, 60, 60, hour * 3600.0)
        assert takes(judge, 5, 0, hour * 3600.0 + 60)


def test_what_was_put_aside_long_ago_does_not_count() -> None:
    judge = window(seconds=600)
    assert takes(judge, 100, 100, 0.0)
    assert not takes(judge, 1, 1, 580.0)
    assert takes(judge, 100, 100, 620.0)


def test_traffic_with_a_few_bad_lines_goes_on() -> None:
    judge = window()
    chance = random.Random(5)
    for n in range(20_000):
        lines = chance.randint(1, 200)
        dead = sum(chance.random() < 0.07 for _ in range(lines))
        assert takes(judge, lines, dead, n * 0.02)


def test_batch_larger_than_the_window_is_judged_by_itself() -> None:
    judge = window(lines_max=1_000)
    assert takes(judge, 20_000, 1_900, 0.0)
    assert takes(judge, 20_000, 1_900, 1.0)
    assert not takes(judge, 20_000, 4_500, 2.0)


def test_a_refused_batch_leaves_the_window_as_it_was() -> None:
    judge = window()
    takes(judge, 50, 50, 0.0)
    assert not takes(judge, 500, 500, 0.0)
    assert (judge.lines, judge.dead) == (50, 50)


@given(st.lists(st.tuples(st.integers(0, 3_000), st.floats(0, 1), st.floats(0, 50)), max_size=400))
def test_window_is_bounded_and_never_forgets_the_last_lines(batches: list[tuple[int, float, float]]) -> None:
    judge = window(lines_max=5_000, seconds=300)
    now_s = 0.0
    history: list[tuple[float, int, int]] = []
    for lines, share, pause_s in batches:
        now_s += pause_s
        dead = int(lines * share)
        judge.note(lines, dead, now_s)
        history.append((now_s, lines, dead))
        assert len(judge._slices) <= 2 * 64 + 2
        assert 0 <= judge.dead <= judge.lines
        recent = sum(each[1] for each in history if each[0] > now_s - 300 * 63 / 64)
        assert judge.lines >= min(recent, 5_000)


def test_limits_that_could_never_be_exceeded_are_refused() -> None:
    with pytest.raises(ValueError, match="dead_lines_min must be below dead_window_lines, got 500 and 500"):
        WriterSettings(name="w", dead_lines_min=500, dead_window_lines=500)
