"""The verdict of a long run: what leaks, lags, loses or refuses is said; what only moves is not."""

from __future__ import annotations

import math

import pytest

from bench.soak import Task, parse_arguments, series_of
from bench.soak_verdict import Look, Verdict, judge, slope


def looks(
    *, minutes: float = 60, leak_mib_per_hour: float = 0.0, lag_per_hour: float = 0.0, role: str = "writer"
) -> list[Look]:
    """Of an hour, memory going up and down by 8 MiB around its trend, and filling up in the first minutes."""
    made = []
    for number in range(int(minutes * 6)):
        at_s = number * 10.0
        filling = -100 * math.exp(-at_s / 60)
        memory = 200 + filling + 8 * math.sin(number / 7) + leak_mib_per_hour * at_s / 3_600
        lag = 20 + 10 * math.sin(number / 5) + lag_per_hour * at_s / 3_600
        made.append(Look(at_s, {role: memory, "ingest": 100.0}, int(lag), 0.4, 10_000_000 * number, 1_000))
    return made


def verdict(seen: list[Look], *, accepted: int = 100, booked: int = 100, refused: int = 0) -> Verdict:
    return judge(seen, accepted=accepted, booked=booked, refused=refused)


def test_what_moves_and_does_not_grow_holds() -> None:
    assert verdict(looks()).problems == []
    assert verdict(looks(leak_mib_per_hour=10)).holds, "less than shows among the noise"


def test_a_leak_is_named_with_its_role() -> None:
    (problem,) = verdict(looks(leak_mib_per_hour=60)).problems
    assert problem.startswith("memory of writer grows by ")
    grows = float(problem.split(" by ")[1].split()[0])
    assert grows == pytest.approx(60, abs=8)


@pytest.mark.parametrize("server", ["database", "broker"])
def test_buffers_that_fill_up_are_no_leak(server: str) -> None:
    assert verdict(looks(leak_mib_per_hour=500, role=server)).holds


def test_lag_that_grows_is_named() -> None:
    (problem,) = verdict(looks(lag_per_hour=5_000)).problems
    assert problem.startswith("what is not stored grows by ")


def test_losses_and_refusals_are_named_however_short_it_was() -> None:
    problems = verdict(looks(minutes=1), accepted=100, booked=99, refused=3).problems
    assert problems == [
        "100 logs were accepted, the ledger booked 99 as stored",
        "3 requests were refused for a time",
    ]


def test_slopes_of_a_minute_are_not_held_against_it() -> None:
    short = verdict(looks(minutes=1, leak_mib_per_hour=5_000, lag_per_hour=50_000))
    assert short.is_short
    assert short.holds


def test_slope_is_that_of_a_line() -> None:
    assert slope([(x, 3 * x + 7) for x in range(5)]) == pytest.approx(3)
    assert slope([(1, 5)]) == slope([]) == 0


def test_every_role_has_its_line() -> None:
    series = series_of(looks(minutes=1))
    assert {"lag_frames", "behind_s", "stored_mib", "memory_mib.writer", "memory_mib.ingest"} == set(series)
    assert len(series["memory_mib.writer"]) == 6


def test_by_default_it_is_an_hour_at_20_000_a_second() -> None:
    assert parse_arguments([]) == Task(minutes=60, rate=20_000)
    assert parse_arguments(["--minutes", "1", "--rate", "2000"]) == Task(minutes=1, rate=2_000)
    with pytest.raises(SystemExit):
        parse_arguments(["--rate", "0"])
