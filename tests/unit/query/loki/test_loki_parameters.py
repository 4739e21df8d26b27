"""Loki's parameters, windows and shapes of answers."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from query.loki import parameters, shapes
from query.loki.parameters import Span
from query.loki.pipeline import Labelled
from query.loki.windows import BUCKETS_MAX, check_samples, window_at, windows_of
from schemas.record import Log
from search.params import ParameterError
from store.port import Order

NOW_US = 1_795_000_000_123_456
S = 1_000_000
HOUR_US = 3_600 * S


@pytest.mark.parametrize(
    ("text", "us"),
    [
        ("1795000000123456789", 1_795_000_000_123_457),
        ("1795000000123456000", 1_795_000_000_123_456),
        ("1795000000", 1_795_000_000 * S),
        ("1795000000.5", 1_795_000_000 * S + S // 2),
        ("0", 0),
        ("-1", -S),
        ("2026-11-18T11:06:40Z", 1_795_000_000 * S),
        ("2026-11-18T12:06:40.5+01:00", 1_795_000_000 * S + S // 2),
    ],
)
def test_times_are_nanoseconds_seconds_or_texts(text: str, us: int) -> None:
    assert parameters.time_us(text, "start") == us


@pytest.mark.parametrize("text", ["soon", "now", "-5m", "9" * 21, "99999999999999.9", "1e9", "９"])
def test_what_is_no_time_is_named(text: str) -> None:
    with pytest.raises(ParameterError, match="start"):
        parameters.time_us(text, "start")


def test_a_page_of_logcli_that_ends_a_nanosecond_after_a_line_has_the_lines_of_its_microsecond() -> None:
    """The end is exclusive; of the lines of one microsecond the page before may have had one, and this one has the others."""
    line_us = 1_795_000_000_123_456
    asked = parameters.span([("start", "0"), ("end", f"{line_us}001")], NOW_US)
    assert asked.end_us > line_us
    assert parameters.span([("start", f"{line_us}001"), ("end", f"{line_us + 9}000")], NOW_US).start_us > line_us


def test_the_last_hour_is_asked_for_where_nothing_is_said() -> None:
    assert parameters.span([], NOW_US) == Span(NOW_US - HOUR_US, NOW_US)
    assert parameters.span([("since", "2h")], NOW_US).start_us == NOW_US - 2 * HOUR_US
    future = parameters.span([("end", str(NOW_US * 1000 + HOUR_US * 5000))], NOW_US)
    assert future.start_us == NOW_US - HOUR_US
    with pytest.raises(ParameterError, match="end"):
        parameters.span([("start", "10"), ("end", "5")], NOW_US)


def test_limits_and_directions_are_lokis() -> None:
    assert parameters.limit([]) == 100
    assert parameters.limit([("limit", "5000")]) == 5_000
    for text in ("0", "-1", "x", "5001", "9" * 30, "٣"):
        with pytest.raises(ParameterError, match="limit"):
            parameters.limit([("limit", text)])
    assert parameters.order([]) is Order.NEWEST_FIRST
    assert parameters.order([("direction", "FORWARD")]) is Order.OLDEST_FIRST
    with pytest.raises(ParameterError):
        parameters.order([("direction", "up")])


def test_steps_are_durations_or_seconds() -> None:
    hour = Span(0, HOUR_US)
    assert parameters.step_us([], hour) == 14 * S
    assert parameters.step_us([("step", "15000ms")], hour) == 15 * S
    assert parameters.step_us([("step", "2.5")], hour) == 5 * S // 2
    for text in ("0", "-5", "x", "1ms", "1e9", "9" * 25):
        with pytest.raises(ParameterError):
            parameters.step_us([("step", text)], hour)


# Windows


def test_points_lie_on_multiples_of_the_step_around_what_was_asked() -> None:
    windows = windows_of(Span(65 * S, 290 * S), 60 * S, 60 * S, 0)
    assert (windows.first_us, windows.last_us, windows.points) == (60 * S, 300 * S, 5)
    assert (windows.start_us, windows.end_us, windows.width_us) == (0, 300 * S, 60 * S)


STEPS = st.integers(1, 30)


@given(st.lists(st.integers(0, 300), max_size=40), STEPS, STEPS, st.integers(0, 20), st.none() | st.integers(0, 300))
def test_each_point_counts_the_logs_of_the_range_before_it(
    times: list[int], step: int, length: int, offset: int, counted_from: int | None
) -> None:
    windows = windows_of(Span(100, 200), step, length, offset)
    buckets: dict[int, float] = {}
    for at in times:
        if windows.start_us <= at < windows.end_us and (counted_from is None or at >= counted_from):
            begin = at - (at - windows.start_us) % windows.width_us
            buckets[begin] = buckets.get(begin, 0) + 1
    found = dict(windows.points_of(buckets, counted_from_us=counted_from))
    for at in range(windows.first_us, windows.last_us + 1, step):
        first, last = at - offset - length, at - offset
        expected = sum(first <= each < last for each in times)
        is_known = counted_from is None or first >= counted_from
        assert found.get(at, 0) == (expected if is_known else 0)


def test_too_many_windows_or_points_are_refused() -> None:
    with pytest.raises(ParameterError, match="divides"):
        windows_of(Span(0, BUCKETS_MAX * 7 * S), 7_000 * S, 7_001 * S, 0)
    many = windows_of(Span(0, 10_000 * S), S, S, 0)
    check_samples(many, 19)
    with pytest.raises(ParameterError, match="larger step"):
        check_samples(many, 20)
    with pytest.raises(ParameterError, match="years"):
        window_at(-62_135_596_800_000_000, S, 0)


# Shapes


def _log(us: int, line: str) -> Log:
    return Log(1, us, 9, "a", line, None, {})


def test_streams_are_written_as_loki_writes_them() -> None:
    one = Labelled(_log(123_456_789_012, "super line"), {"test": "test"}, {}, {})
    two = Labelled(_log(123_456_789_013, "super line msg=text"), {"test": "test"}, {"foo": "a"}, {"msg": "text"})
    found = json.loads(shapes.logs_answer([one, two], is_categorized=True, warnings=["this is a warning"]))
    assert found == {
        "status": "success",
        "warnings": ["this is a warning"],
        "data": {
            "resultType": "streams",
            "encodingFlags": ["categorize-labels"],
            "result": [
                {
                    "stream": {"test": "test"},
                    "values": [
                        ["123456789012000", "super line", {}],
                        [
                            "123456789013000",
                            "super line msg=text",
                            {"structuredMetadata": {"foo": "a"}, "parsed": {"msg": "text"}},
                        ],
                    ],
                }
            ],
            "stats": {},
        },
    }
    plain = json.loads(shapes.logs_answer([one, two], is_categorized=False, warnings=[]))
    assert "warnings" not in plain
    assert plain["data"]["result"] == [
        {"stream": {"test": "test"}, "values": [["123456789012000", "super line"]]},
        {"stream": {"foo": "a", "msg": "text", "test": "test"}, "values": [["123456789013000", "super line msg=text"]]},
    ]


def test_numbers_are_texts_beside_seconds() -> None:
    found = json.loads(shapes.matrix_answer({(("level", "error"),): [(1_500_000, 3.0), (2_500_000, 0.25)], (): []}))
    assert found["data"]["result"] == [{"metric": {"level": "error"}, "values": [[1.5, "3"], [2.5, "0.25"]]}]
    assert json.loads(shapes.vector_answer({(): 2.0}, 4_000_000))["data"]["result"] == [
        {"metric": {}, "value": [4, "2"]}
    ]
    assert json.loads(shapes.scalar_answer(float("inf"), 0))["data"]["result"] == [0, "+Inf"]
