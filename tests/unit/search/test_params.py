"""URL parameters to a predicate, and texts to times."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest

from search.params import ParameterError, from_params, parse_time
from search.predicate import (
    EVERYTHING,
    Contains,
    CorrelationIs,
    LevelIn,
    Matches,
    MetaEquals,
    MinLevel,
    Predicate,
    ServiceIn,
    all_of,
    any_of,
)
from search.regex import parse_pattern

NOW_US = 1_767_225_600_000_000  # 2026-01-01T00:00:00Z


@pytest.mark.parametrize(
    "params, expected",
    [
        ({}, EVERYTHING),
        ({"q": "", "query": "", "regex": ""}, EVERYTHING),
        ({"service_name": ["a", "b*"]}, ServiceIn(frozenset("a"), frozenset("b"))),
        ({"level": ["warn", "ERROR"]}, LevelIn(((13, 20),))),
        ({"min_level": "warning"}, MinLevel(13)),
        ({"correlation_id": "c 1"}, CorrelationIs("c 1")),
        ({"q": "two words OR %_"}, Contains("two words OR %_")),
        ({"regex": "a+"}, Matches(parse_pattern("a+"))),
        ({"query": "a OR b"}, any_of(Contains("a"), Contains("b"))),
        ({"metadata": [("a.b", "1"), ("c", "")]}, all_of(MetaEquals(("a", "b"), "1"), MetaEquals(("c",), ""))),
        ({"q": "x", "min_level": "error"}, all_of(MinLevel(17), Contains("x"))),
    ],
)
def test_parameters_are_joined_by_and(params: dict[str, Any], expected: Predicate) -> None:
    assert from_params(**params) == expected


@pytest.mark.parametrize(
    "params, parameter, words, column",
    [
        ({"service_name": [""]}, "service_name", "got ''", None),
        ({"service_name": ["a b"]}, "service_name", "got 'a b'", None),
        ({"service_name": ["a"] * 201}, "service_name", "at most 200", None),
        ({"level": ["fetal"]}, "level", "did you mean fatal?", None),
        ({"min_level": ""}, "min_level", "levels are TRACE", None),
        ({"correlation_id": ""}, "correlation_id", "1..128", None),
        ({"correlation_id": "x" * 129}, "correlation_id", "1..128", None),
        ({"correlation_id": "\0"}, "correlation_id", "U+0000", None),
        ({"q": "\0"}, "q", "U+0000", None),
        ({"q": "x" * 4001}, "q", "at most 4,000", None),
        ({"regex": "a(b"}, "regex", "column 2: expected )", 2),
        ({"query": "level:"}, "query", "column 7: expected a value", 7),
        ({"metadata": [("", "x")]}, "metadata.", "must not be empty", None),
        ({"metadata": [("a*", "x")]}, "metadata.a*", "must not", None),
        ({"metadata": [("a", "\0")]}, "metadata.a", "U+0000", None),
        ({"metadata": [("a", "x")] * 51}, "metadata", "at most 50", None),
    ],
)
def test_a_wrong_value_names_its_parameter(
    params: dict[str, Any], parameter: str, words: str, column: int | None
) -> None:
    with pytest.raises(ParameterError) as caught:
        from_params(**params)
    assert caught.value.parameter == parameter
    assert words in caught.value.message
    assert caught.value.column == column
    assert str(caught.value) == f"{parameter}: {caught.value.message}"


def _us(year: int, month: int, day: int, hour: int, minute: int, second: int, us: int = 0) -> int:
    return int(datetime(year, month, day, hour, minute, second, tzinfo=UTC).timestamp()) * 1_000_000 + us


@pytest.mark.parametrize(
    "text, expected",
    [
        ("now", NOW_US),
        ("-15m", NOW_US - 900_000_000),
        ("-2h", NOW_US - 7_200_000_000),
        ("-7d", NOW_US - 604_800_000_000),
        ("-1w", NOW_US - 604_800_000_000),
        ("-30s", NOW_US - 30_000_000),
        ("-250ms", NOW_US - 250_000),
        ("2026-01-31T12:00:00Z", _us(2026, 1, 31, 12, 0, 0)),
        ("2026-01-31t12:00:00z", _us(2026, 1, 31, 12, 0, 0)),
        ("2026-01-31T12:00:00", _us(2026, 1, 31, 12, 0, 0)),
        ("2026-01-31 12:00", _us(2026, 1, 31, 12, 0, 0)),
        ("2026-01-31", _us(2026, 1, 31, 0, 0, 0)),
        ("2026-01-31T12:00:00.5Z", _us(2026, 1, 31, 12, 0, 0, 500_000)),
        ("2026-01-31T12:00:00,123456789Z", _us(2026, 1, 31, 12, 0, 0, 123_456)),
        ("2026-01-31T12:00:00+02:00", _us(2026, 1, 31, 10, 0, 0)),
        ("2026-01-31T12:00:00-0530", _us(2026, 1, 31, 17, 30, 0)),
        ("1969-12-31T23:59:59.999999Z", -1),
        ("0001-01-01", -62_135_596_800_000_000),
        ("9999-12-31T23:59:59.999999Z", 253_402_300_799_999_999),
    ],
)
def test_times_are_read_to_the_microsecond(text: str, expected: int) -> None:
    assert parse_time(text, NOW_US) == expected


@pytest.mark.parametrize(
    "text, words",
    [
        ("", "expected a time such as"),
        ("yesterday", "expected a time such as"),
        ("15m", "expected a time such as"),
        ("-15y", "expected a time such as"),
        ("1700000000", "expected a time such as"),
        ("٢٠٢٦-01-31", "expected a time such as"),
        ("2026-01-31T12:00:00 02:00", "must be written %2B"),
        ("2026-02-30", "is no time"),
        ("2026-01-31T24:00", "is no time"),
        ("2026-01-31T23:59:60Z", "is no time"),
        ("2026-01-31T12:00:00+25:00", "is no time"),
        ("2026-01-31T12:00:00+01:75", "is no time"),
        ("0001-01-01T00:00:00+02:00", "years 1..9999"),
        ("9999-12-31T23:00:00-02:00", "years 1..9999"),
        ("0000-01-01", "is no time"),
        ("-999999999w", "years 1..9999"),
    ],
)
def test_what_is_no_time_is_refused_with_an_example(text: str, words: str) -> None:
    with pytest.raises(ParameterError) as caught:
        parse_time(text, NOW_US, parameter="start_time")
    assert caught.value.parameter == "start_time"
    assert words in caught.value.message
