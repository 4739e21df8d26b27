"""JSON lines, columns and times: tables of what programs write and what it means."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any
from zoneinfo import ZoneInfo

import pytest

from formats.json_lines import parse_json
from formats.lines import Format, LineParser, detect
from formats.pipes import parse_pipes
from formats.times import TimeReader
from schemas.levels import LEVELS


def micros(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1_000_000)


NOW_US = micros("2026-11-22T12:00:00Z")
TIMES = TimeReader(zone=UTC, now_us=NOW_US)


@pytest.mark.parametrize(
    ("text", "moment"),
    [
        ("2015-10-18 18:01:47,978", "2015-10-18T18:01:47.978Z"),
        ("2015-10-18T18:01:47.123456789+02:00", "2015-10-18T16:01:47.123456Z"),
        ("2015-10-18 18:01:47 +0200", "2015-10-18T16:01:47Z"),
        ("2015-10-18 18:01:47 -02:00", "2015-10-18T20:01:47Z"),
        ("2015-10-18 18:01:47 UTC", "2015-10-18T18:01:47Z"),
        ("2015-10-18T18:01", "2015-10-18T18:01:00Z"),
        ("1445191307", "2015-10-18T18:01:47Z"),
        ("1445191307.978", "2015-10-18T18:01:47.978Z"),
        ("1445191307978", "2015-10-18T18:01:47.978Z"),
        ("1445191307978001", "2015-10-18T18:01:47.978001Z"),
        ("1445191307978001999", "2015-10-18T18:01:47.978001Z"),
        ("2023/01/02 03:04:05", "2023-01-02T03:04:05Z"),
        ("10/Oct/2000:13:55:36 -0700", "2000-10-10T20:55:36Z"),
        ("Sun Dec 04 04:47:44 2005", "2005-12-04T04:47:44Z"),
        ("[2015-10-18 18:01:47]", "2015-10-18T18:01:47Z"),
    ],
)
def test_times_in_many_spellings(text: str, moment: str) -> None:
    assert TIMES.any(text) == micros(moment)


@pytest.mark.parametrize(
    "text",
    [
        *("", "now", "7", "2015-13-01 00:00:00", "2015-02-30T00:00:00", "Feb 30 00:00:00", "Xyz 10 06:55:46"),
        *("Dec 10 24:55:46", "99999999999999999999", "2015-10-18 18:01:47 and more"),
    ],
)
def test_what_is_no_time_is_none(text: str) -> None:
    assert TIMES.any(text) is None


@pytest.mark.parametrize(
    ("now", "text", "moment"),
    [
        ("2026-11-22T12:00:00Z", "Dec 10 06:55:46", "2025-12-10T06:55:46Z"),
        ("2026-11-22T12:00:00Z", "Nov 22 11:59:59", "2026-11-22T11:59:59Z"),
        ("2026-11-22T12:00:00Z", "Nov 22 12:09:00", "2026-11-22T12:09:00Z"),  # clocks may differ by ten minutes
        ("2026-11-22T12:00:00Z", "Nov 22 12:11:00", "2025-11-22T12:11:00Z"),
        ("2027-01-01T00:00:05Z", "Dec 31 23:59:59", "2026-12-31T23:59:59Z"),
        ("2026-12-31T23:59:55Z", "Jan  1 00:00:03", "2027-01-01T00:00:03Z"),
        ("2026-11-22T12:00:00Z", "Feb 29 01:02:03", "2024-02-29T01:02:03Z"),
    ],
)
def test_line_without_a_year_belongs_to_the_nearest_past(now: str, text: str, moment: str) -> None:
    assert TimeReader(zone=UTC, now_us=micros(now)).syslog(text) == micros(moment)


def test_times_without_a_zone_are_of_the_zone_named() -> None:
    times = TimeReader(zone=ZoneInfo("Europe/Berlin"), now_us=NOW_US)
    assert times.any("2026-07-01 12:00:00") == micros("2026-07-01T10:00:00Z")
    assert times.any("2026-07-01 12:00:00Z") == micros("2026-07-01T12:00:00Z")
    assert times.syslog("Nov 22 12:59:00") == micros("2026-11-22T11:59:00Z")


AT = "2026-01-02T03:04:05.678Z"
AT_US = micros(AT)


@pytest.mark.parametrize(
    ("line", "expected"),
    [
        (
            f'{{"timestamp":"{AT}","level":"warning","message":"m","service":"s","trace_id":"t","user":7}}',
            (AT_US, LEVELS["WARN"], "m", "s", "t", {"user": 7}),
        ),
        (
            f'{{"@timestamp":"{AT}","log.level":"error","message":"m","service.name":"s","trace.id":"t"}}',
            (AT_US, LEVELS["ERROR"], "m", "s", "t", {}),
        ),
        (
            f'{{"@timestamp":"{AT}","log":{{"level":"error","logger":"l"}},"message":"m","service":{{"name":"s"}}}}',
            (AT_US, LEVELS["ERROR"], "m", "s", None, {"log": {"logger": "l"}}),
        ),
        (
            f'{{"ts":{AT_US / 1e6},"lvl":"dbg","msg":"m","requestId":12}}',
            (AT_US, LEVELS["DEBUG"], "m", None, "12", {}),
        ),
        (
            f'{{"time":{AT_US // 1000},"level":50,"pid":1,"hostname":"h","msg":"m"}}',
            (AT_US, LEVELS["ERROR"], "m", None, None, {"pid": 1, "hostname": "h"}),
        ),
        (
            f'{{"Timestamp":"{AT_US}000","SeverityText":"INFO","SeverityNumber":10,"Body":"m","TraceId":"t"}}',
            (AT_US, LEVELS["INFO"], "m", None, "t", {"SeverityNumber": 10}),
        ),
        (f'{{"log":"m\\n","stream":"stderr","time":"{AT}"}}', (AT_US, None, "m", None, None, {"stream": "stderr"})),
        ('{"message":"m","msg":"other"}', (None, None, "m", None, None, {"msg": "other"})),
        ('{"event":"started","level":"odd"}', (None, None, "started", None, None, {"level": "odd"})),
        ('{"a":1}', (None, None, '{"a":1}', None, None, {"a": 1})),
        ('{"message":"m","time":"soon"}', (None, None, "m", None, None, {"time": "soon"})),
    ],
)
def test_json_lines_under_the_names_of_many_loggers(line: str, expected: tuple[Any, ...]) -> None:
    entry = parse_json(line, TIMES)
    assert entry is not None
    found = (
        *(entry.time_us, entry.severity, entry.message),
        *(entry.service_name, entry.correlation_id, entry.metadata),
    )
    assert found == expected


@pytest.mark.parametrize("line", ["[1]", '"text"', "{", "{'a': 1}", '{"a": NaN}', "plain"])
def test_what_is_no_json_object_is_left_to_the_plain_parser(line: str) -> None:
    assert parse_json(line, TIMES) is None
    parser = LineParser(Format.JSON, pattern=None, zone=UTC, now_us=NOW_US, correlation_pattern=None)
    assert parser.parse(line).message == line


@pytest.mark.parametrize(
    ("line", "severity", "message"),
    [
        ("2020-07-30 22:31:05.468 | INFO | Render | Rendered 1", LEVELS["INFO"], "Render | Rendered 1"),
        ("2020-07-30 22:31:05.468|WARNING|late", LEVELS["WARN"], "late"),
        ("ERROR|2020-07-30T22:31:05.468Z|late", LEVELS["ERROR"], "late"),
        ("2020-07-30 22:31:05.468 | Render | Rendered 1", None, "Render | Rendered 1"),
        ("2020-07-30 22:31:05.468 | only text", None, "only text"),
        ("1596148265468|err|a|b|c", LEVELS["ERROR"], "a|b|c"),
        ("2020-07-30 22:31:05.468 | INFO |", LEVELS["INFO"], ""),
    ],
)
def test_columns(line: str, severity: int | None, message: str) -> None:
    entry = parse_pipes(line, TIMES)
    assert entry is not None
    assert (entry.time_us, entry.severity, entry.message) == (micros("2020-07-30T22:31:05.468Z"), severity, message)


@pytest.mark.parametrize("line", ["no columns", "a | b | c", "", "|"])
def test_what_is_not_in_columns(line: str) -> None:
    assert parse_pipes(line, TIMES) is None


@pytest.mark.parametrize(
    ("lines", "format"),
    [
        (['{"a":1}', '{"a":2}', "Traceback (most recent call last):"], Format.JSON),
        (["2020-07-30 22:31:05 | INFO | x", "2020-07-30 22:31:05 | INFO | y", "# made by hand"], Format.PIPE),
        (["2020-07-30 22:31:05 INFO a|b", "2020-07-30 22:31:05 INFO c|d"], Format.PLAIN),
        ([], Format.PLAIN),
        (["whatever"], Format.PLAIN),
    ],
)
def test_format_of_a_file_is_found_by_its_first_lines(lines: list[str], format: Format) -> None:
    assert detect(Format.AUTO, lines, zone=UTC, now_us=NOW_US)[0] is format


def test_format_that_the_user_names_stays() -> None:
    assert detect(Format.PLAIN, ['{"a":1}'], zone=UTC, now_us=NOW_US)[0] is Format.PLAIN
