"""Event times in every spelling; outside the window they are rejected with the reason."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.errors import ItemError
from ingest.parse import Window, decode_one, to_log
from ingest.timestamps import parse_timestamp
from schemas.record import Log

MOMENT_US = 1_795_000_000_123_456
NOW = datetime.fromtimestamp(MOMENT_US / 1e6, UTC)
WINDOW = Window.at(MOMENT_US // 1000, 400)


@pytest.mark.parametrize(
    ("text", "expected_us"),
    [
        ("2026-11-22T10:00:00Z", 1_795_341_600_000_000),
        ("2026-11-22T10:00:00", 1_795_341_600_000_000),
        ("2026-11-22 10:00:00", 1_795_341_600_000_000),
        ("2026-11-22t10:00:00z", 1_795_341_600_000_000),
        ("2026-11-22T12:00:00+02:00", 1_795_341_600_000_000),
        ("2026-11-22T10:00:00.123456789Z", 1_795_341_600_123_456),
        ("2026-11-22T10:00:00,123Z", 1_795_341_600_123_000),
        ("20261122T100000Z", 1_795_341_600_000_000),
        (" 2026-11-22T10:00:00Z ", 1_795_341_600_000_000),
        ("1795341600", 1_795_341_600_000_000),
        ("1795341600123456789", 1_795_341_600_123_456),
        (1_795_341_600, 1_795_341_600_000_000),
        (1_795_341_600.25, 1_795_341_600_250_000),
        (1_795_341_600_123, 1_795_341_600_123_000),
        (1_795_341_600_123_456, 1_795_341_600_123_456),
        (1_795_341_600_123_456_789, 1_795_341_600_123_456),
        ("0001-01-01T00:00:00Z", -62_135_596_800_000_000),
        ("9999-12-31T23:59:59Z", 253_402_300_799_000_000),
        (-1, -1_000_000),
        (0, 0),
    ],
)
def test_spellings(text: str | float, expected_us: int) -> None:
    assert parse_timestamp(text) == expected_us


@pytest.mark.parametrize("text", ["", "soon", "2026-13-01T00:00:00Z", "2026-11-22T10:00:61Z", "12", "Nov 22 10:00:00"])
def test_unreadable_text_names_what_was_expected(text: str) -> None:
    with pytest.raises(ValueError, match="expected ISO 8601"):
        parse_timestamp(text)


@given(st.datetimes(timezones=st.just(UTC)))
def test_iso_text_round_trips(moment: datetime) -> None:
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    expected = (moment - epoch).days * 86_400_000_000 + (moment - epoch).seconds * 1_000_000 + moment.microsecond
    assert parse_timestamp(moment.isoformat()) == expected


@given(st.one_of(st.integers(), st.floats(allow_nan=False, allow_infinity=False)))
def test_any_number_is_some_time(number: float) -> None:
    assert isinstance(parse_timestamp(number), int)


@pytest.mark.parametrize(
    ("timestamp", "reason"),
    [
        ('"0001-01-01T00:00:00Z"', "older than the retention of 400 days"),
        ('"9999-12-31T23:59:59-14:00"', "more than 10 minutes ahead"),
        ("-5", "older than the retention"),
        ("0", "older than the retention"),
        ("1e300", "more than 10 minutes ahead"),
        ("9" * 300, "more than 10 minutes ahead"),
        ('"soon"', "expected ISO 8601"),
        ("true", "expected text"),
        ("[]", "expected text"),
    ],
)
def test_times_outside_the_window_are_rejected(timestamp: str, reason: str) -> None:
    item = decode_one(f'{{"service_name":"a","message":"m","timestamp":{timestamp}}}'.encode())
    found = to_log(item, 1, WINDOW, may_hold_nul=False)
    assert isinstance(found, ItemError)
    assert found.code == "timestamp"
    assert reason in found.text


@pytest.mark.parametrize("timestamp", [f'"{NOW.isoformat()}"', str(MOMENT_US * 1000), str(MOMENT_US // 1000)])
def test_nanoseconds_where_seconds_were_meant_are_understood(timestamp: str) -> None:
    found = to_log(
        decode_one(f'{{"service_name":"a","message":"m","timestamp":{timestamp}}}'.encode()),
        1,
        WINDOW,
        may_hold_nul=False,
    )
    assert isinstance(found, Log)
    assert abs(found.timestamp - MOMENT_US) < 1000


def test_window_includes_its_ends() -> None:
    for timestamp, taken in (
        (WINDOW.oldest_us, True),
        (WINDOW.oldest_us - 1, False),
        (WINDOW.newest_us, True),
        (WINDOW.newest_us + 1, False),
    ):
        item = decode_one(f'{{"service_name":"a","message":"m","timestamp":{timestamp}}}'.encode())
        assert isinstance(to_log(item, 1, WINDOW, may_hold_nul=False), Log) is taken
