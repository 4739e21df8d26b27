"""Figures out of messages, and what is made of them."""

from __future__ import annotations

import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connections.figures import figures_of, kind_of, percent
from connections.metrics import BUILT_IN, Finder, Rule, Side, Unit
from connections.series import Point, Series, downsampled, spearman
from patterns.masks import Masker

CLIENT, SERVER = Finder(BUILT_IN, Side.CLIENT), Finder(BUILT_IN, Side.SERVER)


@pytest.mark.parametrize(
    ("message", "value"),
    [
        ("MeasureRoundTripLatency | latency: 0.02", 0.02),
        ("latency=0.02s", 0.02),
        ("Latency 0.02", 0.02),
        ("LATENCY : 20ms after all", 0.02),
        ("latency 20 ms, jitter 3 ms", 0.02),
        ("latency: 20000 us", 0.02),
        ("latency: 2e-2.", 0.02),
        ("latency: 0.02 after 3 attempts", 0.02),
        ("latency: 1 latency: 2", 1.0),
        ("latency=20µs", 2e-5),
    ],
)
def test_spellings_of_one_figure_are_one(message: str, value: float) -> None:
    for finder in (CLIENT, SERVER):
        ((metric, found),) = finder.find(message)
        assert metric == "latency"
        assert found == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize(
    "message",
    [
        "nothing",
        "latency unknown",
        "latency: 5%",
        "latency: 0.02x",
        "latency: 10.1.2.3",
        "latency: 12 bytes",
        "translatency: 5",
        "latency: 1,234",
        "latency: 1e999",
        "latency: 1.7e308",
        "latency: -1e101",
        "Packet arrived late by 106 ms",
    ],
)
def test_what_only_looks_like_it_is_none(message: str) -> None:
    assert CLIENT.find(message) == []


def test_rules_are_of_a_side_and_have_a_unit() -> None:
    assert CLIENT.find("UpdateDecoderStats | Avg Decode Time: 0.004782") == [("decode_time", 0.004782)]
    assert SERVER.find("UpdateDecoderStats | Avg Decode Time: 0.004782") == []
    assert SERVER.find("SendVideo | Average  Encode Size: 12.5 kB") == [("encode_size", 12_500.0)]
    assert dict(SERVER.find("SendVideo | Average Encode Time: 6.494 ms")) == pytest.approx({"encode_time": 0.006494})
    both = Finder((*BUILT_IN, Rule("fps (now)", ("fps (now)",), Unit.MILLISECONDS)), Side.SERVER)
    assert both.find("fps (now)=2s, latency 1") == [("latency", 1.0), ("fps (now)", 2_000.0)]


def test_lines_are_counted() -> None:
    logs = [
        (7, 1, 9, "latency: 1"),
        (5, 2, 13, "latency: 3"),
        (9, 3, 17, "retry 7 failed"),
        (8, 5, 21, "retry 8 failed"),
    ]
    found = figures_of(logs, CLIENT, Masker())
    assert (found.lines, found.errors, found.warnings, found.first_us, found.last_us) == (4, 2, 1, 5, 9)
    assert found.error_kinds == {"retry <num> failed": 2}
    assert [found.series["latency"].point(index) for index in range(2)] == [Point(7, 1.0, 1), Point(5, 3.0, 2)]
    assert figures_of([], CLIENT, Masker()).first_us is None


@given(st.text())
def test_a_kind_of_errors_is_text_that_can_be_stored(message: str) -> None:
    kind = kind_of(message, Masker())
    assert "\0" not in kind
    assert len(kind.encode()) < 1_000
    assert kind == kind_of(message, Masker())


def test_percentages_are_of_something() -> None:
    assert (percent(1, 3), percent(0, 0), percent(3, 3)) == (33.33, 0.0, 100.0)


POINTS = st.lists(
    st.builds(
        Point, st.integers(-(2**62), 2**62), st.floats(allow_nan=False, allow_infinity=False), st.integers(0, 2**32 - 1)
    ),
    max_size=60,
)


def series_of(points: list[Point]) -> Series:
    series = Series()
    for point in points:
        series.add(point)
    return series


@given(POINTS, POINTS)
def test_points_are_kept_as_they_are(first: list[Point], second: list[Point]) -> None:
    found = Series.unpack([series_of(first).pack(), series_of(second).pack()])
    assert [found.point(index) for index in range(len(found))] == first + second
    values = [point.value for point in first + second]
    assert found.median == (statistics.median(values) if values else None)


def test_points_that_are_cut_are_refused() -> None:
    with pytest.raises(ValueError, match="expected points of 20 bytes"):
        Series.unpack([b"x" * 21])


@given(POINTS, st.integers(4, 20))
def test_fewer_points_keep_the_ends_and_the_extremes(points: list[Point], points_max: int) -> None:
    points = [point._replace(line=number) for number, point in enumerate(points)]
    found = downsampled(series_of(points), points_max)
    assert len(found) <= max(points_max, 2)
    assert [point.line for point in found] == sorted({point.line for point in found})
    assert set(found) <= set(points)
    if points:
        values = [point.value for point in found]
        assert (found[0], found[-1]) == (points[0], points[-1])
        assert min(values) == min(point.value for point in points)
        assert max(values) == max(point.value for point in points)


def test_rank_correlation_as_in_the_books() -> None:
    assert spearman(
        [(106, 7), (100, 27), (86, 2), (101, 50), (99, 28), (103, 29), (97, 20), (113, 12), (112, 6), (110, 17)]
    ) == (pytest.approx(-29 / 165))
    assert spearman([(1, 1), (2, 2), (2, 3)]) == pytest.approx(0.8660254)
    assert spearman([(1, 5), (2, 50), (3, 500)]) == pytest.approx(1)
    assert spearman([]) is None
    assert spearman([(1, 1)]) is None
    assert spearman([(1, 1), (1, 2)]) is None


@given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 5)), max_size=30))
def test_rank_correlation_is_bounded_and_symmetric(pairs: list[tuple[int, int]]) -> None:
    found = spearman(pairs)
    turned = spearman([(second, first) for first, second in pairs])
    if found is None or turned is None:
        assert found is turned
        return
    assert -1 - 1e-9 <= found <= 1 + 1e-9
    assert found == pytest.approx(turned)
