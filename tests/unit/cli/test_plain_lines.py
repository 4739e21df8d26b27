"""Plain lines: every row of the table reads its own example, and real logs are read as loghub's people read them."""

from __future__ import annotations

import csv
from datetime import UTC, datetime
from pathlib import Path

import pytest

from cli.importing.records import read_records
from cli.importing.sources import Source, texts
from formats.lines import Format, LineParser, detect
from formats.patterns import PATTERNS
from formats.plain import PlainParser, is_continuation, usual_pattern
from formats.times import TimeReader
from schemas.levels import LEVELS

NOW_US = int(datetime(2026, 11, 22, 12, tzinfo=UTC).timestamp()) * 1_000_000
TIMES = TimeReader(zone=UTC, now_us=NOW_US)


def micros(text: str) -> int:
    return round(datetime.fromisoformat(text).timestamp() * 1_000_000)


@pytest.mark.parametrize("pattern", PATTERNS, ids=lambda pattern: pattern.name)
def test_each_example_is_read_by_its_own_pattern(pattern: object) -> None:
    assert isinstance(pattern, type(PATTERNS[0]))
    assert usual_pattern([pattern.example], TIMES) == pattern.name


@pytest.mark.parametrize(
    ("name", "time", "level", "message", "metadata"),
    [
        (
            "httpd-error",
            "2011-09-09T10:42:29.902022Z",
            "ERROR",
            "File does not exist: /a",
            {"module": "core", "pid": "35708:tid 4328", "client": "192.0.2.9:4711"},
        ),
        (
            "access",
            "2000-10-10T20:55:36Z",
            "INFO",
            '"GET /index.html HTTP/1.1" 200 2326',
            {"client": "192.0.2.7", "user": "ada", "status": "200"},
        ),
        (
            "hdfs",
            "2008-11-09T20:36:15Z",
            "INFO",
            "PacketResponder 1 for block blk_38 terminating",
            {"pid": "148", "logger": "dfs.DataNode$PacketResponder"},
        ),
        (
            "spring",
            "2024-05-01T12:00:00.123Z",
            "WARN",
            "started slowly",
            {"pid": "4711", "thread": "main", "logger": "c.example.App"},
        ),
        ("python", "2024-05-01T12:00:00.123Z", "ERROR", "could not charge", {"logger": "billing.worker"}),
        (
            "postgresql",
            "2024-05-01T12:00:00.123Z",
            "ERROR",
            "relation does not exist",
            {"pid": "4711", "user": "app@db"},
        ),
        ("nginx-error", "2023-01-02T03:04:05Z", "ERROR", "*1 open() failed", {"pid": "123"}),
        ("container", "2016-10-06T00:17:09.669794Z", None, "cannot bind", {"stream": "stderr"}),
        (
            "syslog-5424",
            "2003-10-11T22:14:15.003Z",
            "FATAL",
            "'su root' failed",
            {"host": "host.example", "process": "su", "pid": "77", "message_id": "ID47"},
        ),
        (
            "syslog",
            "2025-12-10T06:55:46Z",
            None,
            "Invalid user webmaster from 192.0.2.186",
            {"host": "LabSZ", "process": "sshd", "pid": "24200"},
        ),
        ("klog", "2026-01-02T15:04:05Z", "ERROR", "cannot list nodes", {"pid": "12345", "source": "server.go:123"}),
        ("time-level", "2024-05-01T12:00:00.123Z", "WARN", "disk is filling", {}),
        ("level-time", "2024-05-01T12:00:00.123Z", "ERROR", "cannot reach the database", {}),
        (
            "logfmt",
            "2024-05-01T12:00:00Z",
            "WARN",
            'time=2024-05-01T12:00:00Z level=warning msg="disk is filling" disk=sda',
            {},
        ),
        ("time", "2024-05-01T12:00:00Z", None, "worker 7: something failed", {}),
    ],
)
def test_example_says_time_level_message_and_the_rest(
    name: str, time: str, level: str | None, message: str, metadata: dict[str, str]
) -> None:
    example = next(pattern.example for pattern in PATTERNS if pattern.name == name)
    entry = PlainParser(None).parse(example, TIMES)
    assert entry.time_us == micros(time)
    assert entry.severity == (None if level is None else LEVELS[level])
    assert (entry.message, entry.metadata) == (message, metadata)


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ('192.0.2.7 - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.1" 503 0', "ERROR"),
        ('192.0.2.7 - - [10/Oct/2000:13:55:36 -0700] "GET / HTTP/1.1" 404 0', "WARN"),
        ("<11>Dec 10 06:55:46 web1 app: boom", "ERROR"),
        ("Dec 10 06:55:46 LabSZ sshd[1]: error: Received disconnect", "ERROR"),
        ("2024-05-01 12:00:00 worker started, level INFO", "INFO"),
        ("WARNING: low disk", "WARN"),
        ("[ERROR] nothing goes", "ERROR"),
    ],
)
def test_level_is_found_where_programs_put_it(line: str, level: str) -> None:
    assert PlainParser(None).parse(line, TIMES).severity == LEVELS[level]


@pytest.mark.parametrize("line", ["user typed ERROR-free text", "no level here", "mistakes: 0 errors", ""])
def test_level_is_none_when_no_word_stands_for_one(line: str) -> None:
    assert PlainParser(None).parse(line, TIMES).severity is None


@pytest.mark.parametrize(
    ("line", "continues"),
    [
        ("\tat com.example.App.main(App.java:3)", True),
        ('  File "app.py", line 3, in <module>', True),
        ("Caused by: java.io.IOException: gone", True),
        ("Traceback (most recent call last):", True),
        ("ValueError: no number", True),
        ("java.lang.NullPointerException", True),
        ("org.example.deep.CustomException: text", True),
        ("something happened", False),
        ("Error rate is 3 %", False),
    ],
)
def test_lines_of_stack_traces_are_continuations(line: str, continues: bool) -> None:
    assert is_continuation(line) is continues


def test_a_line_with_its_own_time_is_no_continuation() -> None:
    parser = LineParser(Format.PLAIN, pattern=None, zone=UTC, now_us=NOW_US, correlation_pattern=None)
    assert parser.continues("2024-05-01 12:00:00 first", "  indented")
    assert not parser.continues("x", "May  1 12:00:00 host app: y")


@pytest.mark.parametrize(
    ("line", "found"),
    [
        ("GET [req-38101a0b-2096-447d-96ea-a692162415ae 1 2]", "req-38101a0b-2096-447d-96ea-a692162415ae"),
        ("paid trace_id=4bf92f3577b34da6 ok", "4bf92f3577b34da6"),
        ('paid {"requestId": "abc-123"}', "abc-123"),
        ("Correlation-ID: x.y:z1", "x.y:z1"),
        ("a fluid=12345 mixture", None),
        ("trace_id= and nothing", None),
    ],
)
def test_correlation_ids_are_found_in_plain_lines(line: str, found: str | None) -> None:
    parser = LineParser(Format.PLAIN, pattern=None, zone=UTC, now_us=NOW_US, correlation_pattern=None)
    assert parser.parse(line).correlation_id == found


def test_own_correlation_pattern_takes_its_first_group() -> None:
    parser = LineParser(Format.PLAIN, pattern=None, zone=UTC, now_us=NOW_US, correlation_pattern=r"block (blk_-?\d+)")
    assert parser.parse("PacketResponder 1 for block blk_-388 terminating").correlation_id == "blk_-388"


CLIENT = "[client "


@pytest.mark.parametrize(
    ("system", "pattern", "correlated"),
    [
        ("Apache", "httpd-error", 0),
        ("HDFS", "hdfs", 0),
        ("Hadoop", "log4j", 0),
        ("OpenSSH", "syslog", 0),
        ("OpenStack", "openstack", 1845),
        ("Zookeeper", "zookeeper", 0),
    ],
)
def test_real_lines_are_one_log_each_and_read_as_loghub_reads_them(
    shared_data: Path, system: str, pattern: str, correlated: int
) -> None:
    source = Source(str(shared_data / f"{system}_2k.log"))
    head = [text for number, text in texts(source.samples(16)) if number]
    found = detect(Format.AUTO, head, zone=UTC, now_us=NOW_US)
    assert found == (Format.PLAIN, pattern)
    parser = LineParser(found[0], pattern=found[1], zone=UTC, now_us=NOW_US, correlation_pattern=None)
    reader = source.open()
    records = list(read_records(reader, start=0, end=source.size, lines_before=0, continues=parser.continues))
    reader.close()
    entries = [parser.parse(record.text) for record in records]
    with (shared_data / f"{system}_2k_structured.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert len(entries) == len(rows) == 2000
    for entry, row in zip(entries, rows, strict=True):
        assert entry.time_us is not None
        content = row["Content"].strip()
        if content.startswith(CLIENT):
            content = content.partition("] ")[2]
        assert entry.message.strip() == content
        if "Level" in row:
            assert entry.severity == PlainParser(None).parse(f"[{row['Level'].upper()}] x", TIMES).severity
    assert sum(entry.correlation_id is not None for entry in entries) == correlated


def test_columns_of_connection_logs_are_read(shared_data: Path) -> None:
    total = 0
    for path in sorted((shared_data / "connections").glob("*.txt")):
        source = Source(str(path))
        head = [text for number, text in texts(source.samples(16)) if number]
        format, pattern = detect(Format.AUTO, head, zone=UTC, now_us=NOW_US)
        assert format is Format.PIPE
        parser = LineParser(format, pattern=pattern, zone=UTC, now_us=NOW_US, correlation_pattern=None)
        lines = path.read_text(encoding="utf-8").splitlines()
        for line in lines:
            entry = parser.parse(line)
            _, level, rest = line.split(" | ", 2)
            assert entry.time_us == micros(line[:23] + "Z")
            assert (entry.message, entry.severity) == (rest, LEVELS["WARN" if level == "WARNING" else level])
        total += len(lines)
    assert total == 3800
