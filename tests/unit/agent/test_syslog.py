"""Syslog as programs send it: messages, frames, and a spool that loses nothing that it took."""

from __future__ import annotations

import asyncio
import json
from datetime import UTC
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.metrics import SYSLOG_REFUSED
from agent.roots import Root
from agent.settings import SyslogSettings
from agent.shipping.batches import Collector
from agent.shipping.checkpoint import Checkpoint
from agent.shipping.files import FileSet
from agent.shipping.tailed import ShippedRoot
from agent.shipping.tailing import Tailer
from agent.syslog.framing import Frame, Framer
from agent.syslog.listener import SyslogListener
from agent.syslog.parse import encode, parse, service_of
from agent.syslog.spool import PATTERN, Spool, SpoolFull
from formats.times import TimeReader
from runtime.clock import SystemClock
from schemas.levels import LEVELS
from tests.access_site import soon

NOW_US = 1_795_000_000_000_000
"""2026-11-18T11:06:40Z"""
TIMES = TimeReader(zone=UTC, now_us=NOW_US)


def log_of(raw: bytes, service: str | None = None) -> dict[str, Any]:
    message = parse(raw, TIMES)
    line = encode(message, service=service, now_us=NOW_US, peer="10.0.0.9", agent="web-1", is_cut=False)
    found: dict[str, Any] = json.loads(line)
    return found


def test_rfc_5424_with_structured_data() -> None:
    log = log_of(
        b"<165>1 2003-08-24T05:14:15.000003-07:00 host.example su 77 ID47 "
        b'[exampleSDID@32473 iut="3" eventSource="App \\"x\\" \\] y"][other@1] \xef\xbb\xbfsu root failed'
    )
    assert log == {
        "timestamp": 1_061_727_255_000_003,
        "level": LEVELS["INFO"],
        "service_name": "su",
        "message": "su root failed",
        "metadata": {
            "host": "host.example",
            "agent": "web-1",
            "facility": "local4",
            "process": "su",
            "pid": "77",
            "message_id": "ID47",
            "structured": {"exampleSDID@32473": {"iut": "3", "eventSource": 'App "x" ] y'}, "other@1": {}},
        },
    }


@pytest.mark.parametrize(
    ("raw", "message", "process", "pid", "host"),
    [
        (b"<34>Oct 11 22:14:15 mymachine su[7]: failed", "failed", "su", "7", "mymachine"),
        (b"<34>Oct 11 22:14:15 su: failed", "failed", "su", None, "10.0.0.9"),
        (b"<34>2026-10-11T22:14:15+00:00 mymachine su: failed", "failed", "su", None, "mymachine"),
        (b"<34>su: failed\n", "failed", "su", None, "10.0.0.9"),
        (b"<34>Oct 11 22:14:15 mymachine no tag", "mymachine no tag", None, None, "10.0.0.9"),
        (b"just text", "just text", None, None, "10.0.0.9"),
        (b"<999>odd", "<999>odd", None, None, "10.0.0.9"),
        (b'<34>1 - - - - - [broken "x', '1 - - - - - [broken "x', None, None, "10.0.0.9"),
        (b"<34>1 - - - - - - ", "", None, None, "10.0.0.9"),
        (b"", "", None, None, "10.0.0.9"),
    ],
)
def test_rfc_3164_and_what_is_sent_as_such(
    raw: bytes, message: str, process: str | None, pid: str | None, host: str
) -> None:
    log = log_of(raw)
    assert log["message"] == message
    assert (log["metadata"].get("process"), log["metadata"].get("pid"), log["metadata"]["host"]) == (process, pid, host)


def test_a_time_without_a_year_belongs_to_the_nearest_past() -> None:
    assert log_of(b"<13>Nov 18 11:06:00 h p: x")["timestamp"] == NOW_US - 40_000_000
    assert log_of(b"<13>Nov 19 11:06:40 h p: x")["timestamp"] == NOW_US - 364 * 86_400_000_000
    assert log_of(b"<13>Dec 31 23:59:59 h p: x")["timestamp"] < NOW_US - 321 * 86_400_000_000


@pytest.mark.parametrize(
    ("severity", "level"),
    [*((n, "FATAL") for n in (0, 1, 2)), (3, "ERROR"), (4, "WARN"), (5, "INFO"), (6, "INFO"), (7, "DEBUG")],
)
def test_severities(severity: int, level: str) -> None:
    log = log_of(f"<{3 * 8 + severity}>x: y".encode())
    assert (log["level"], log["metadata"]["facility"]) == (LEVELS[level], "daemon")


@pytest.mark.parametrize(
    ("process", "service"),
    [("sshd", "sshd"), ("a b\x00c", "a_b_c"), (None, "syslog"), ("日本", "syslog"), ("x" * 300, "x" * 100)],
)
def test_a_program_names_its_service(process: str | None, service: str) -> None:
    assert service_of(process) == service
    assert log_of(b"<13>sshd: x", service="fixed")["service_name"] == "fixed"


def fed(data: bytes, sizes: list[int], bytes_max: int = 1_000) -> list[Frame]:
    framer = Framer(bytes_max)
    frames: list[Frame] = []
    place = 0
    for size in [*sizes, len(data)]:
        frames += framer.feed(data[place : place + size])
        place += size
    return frames + framer.end()


@given(st.lists(st.integers(1, 9), max_size=40))
def test_frames_do_not_depend_on_pieces(sizes: list[int]) -> None:
    data = b"<13>one\n11 <13>two\nmor<14>three\r\n\n5 <1>x<13>2 four\n7 <13>cut"
    expected = [b"<13>one", b"<13>two\nmor", b"<14>three\r", b"<1>x<", b"13>2 four", b"<13>cut"]
    assert [frame.raw for frame in fed(data, sizes)] == expected


@given(st.lists(st.integers(1, 50), max_size=20))
def test_long_messages_are_cut_and_the_next_is_whole(sizes: list[int]) -> None:
    data = b"<13>" + b"x" * 100 + b"\n104 <14>" + b"y" * 100 + b"<15>z\n"
    found = fed(data, sizes, bytes_max=20)
    assert found == [
        Frame(b"<13>" + b"x" * 16, True),
        Frame(b"<14>" + b"y" * 16, True),
        Frame(b"<15>z", False),
    ]


def test_the_spool_keeps_whole_lines_in_bounded_files(tmp_path: Path) -> None:
    spool = Spool(tmp_path, bytes_max=1_000, segment_bytes=100)
    for number in range(20):
        spool.append(b"line %04d\n" % number)
    names = sorted(path.name for path in tmp_path.iterdir())
    assert len(names) == 2
    assert [spool.is_closed(name) for name in names] == [True, False]
    with pytest.raises(SpoolFull):
        spool.append(b"x" * 900)
    (tmp_path / names[0]).unlink()
    spool.append(b"x" * 800 + b"\n")
    spool.close()


def test_what_a_killed_process_wrote_is_kept_but_for_half_a_line(tmp_path: Path) -> None:
    spool = Spool(tmp_path, bytes_max=1_000)
    spool.append(b"whole\n")
    spool.close()
    (first,) = tmp_path.iterdir()
    with first.open("ab") as file:
        file.write(b"hal")
    again = Spool(tmp_path, bytes_max=1_000)
    assert first.read_bytes() == b"whole\n"
    again.append(b"more\n")
    assert again.is_closed(first.name)
    assert len(list(tmp_path.iterdir())) == 2
    again.close()


def test_structured_data_that_is_too_much_for_the_server_is_left_out_and_said() -> None:
    values = " ".join(f'k{number}="{"v" * 500}"' for number in range(130))
    message = parse(f"<13>1 - host app - - [a {values}] the text".encode(), TIMES)
    assert len(message.structured["a"]) == 130
    log = json.loads(encode(message, service=None, now_us=1, peer="p", agent="a", is_cut=False))
    assert log["message"] == "the text"
    assert "structured" not in log["metadata"]
    assert log["metadata"]["_fields_left_out"] is True


def test_a_small_spool_that_is_full_has_room_again_once_it_is_sent(tmp_path: Path) -> None:
    spool = Spool(tmp_path, bytes_max=2_000)
    spool.append(b"x" * 1_200 + b"\n")
    (name,) = (path.name for path in tmp_path.iterdir())
    assert not spool.is_closed(name)
    with pytest.raises(SpoolFull):
        spool.append(b"y" * 900 + b"\n")
    assert spool.is_closed(name)
    assert not spool.is_closed("000000000002.ndjson"), "it is made before anybody knows of it"
    (tmp_path / name).unlink()
    spool.append(b"y" * 900 + b"\n")
    spool.close()


def test_a_file_of_the_spool_that_grew_after_it_was_looked_at_stays_until_that_is_sent(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", bytes_max=1_000_000, segment_bytes=100)
    checkpoint = Checkpoint(tmp_path / "state")
    state, _ = checkpoint.load()
    files = FileSet([ShippedRoot(Root("(s)", tmp_path / "spool", "s", (PATTERN,)), is_ready=True)], state, files_max=9)
    tailer = Tailer(files, host="h", unfinished_line_s=30)
    collector = Collector(files, tailer, state, batch_bytes_max=1, is_closed_segment=spool.is_closed)
    spool.append(b'{"n":1}\n')
    files.scan(0, 0.0)
    assert collector.collect(0, 0.0) is not None
    spool.append(b'{"n":2}' + b" " * 100 + b"\n")
    spool.append(b'{"n":3}\n')
    assert collector.removable() == []
    first = min((tmp_path / "spool").iterdir())
    while collector.collect(0, 0.0) is not None:
        files.scan(0, 0.0)
    assert collector.removable() == [first]
    files.close()
    checkpoint.close()
    spool.close()


def connections() -> list[list[str]]:
    """As the kernel shows them: the address is the second, the state the fourth (01: established), the timer the sixth (02: of
    keep-alive)."""
    return [line.split() for line in Path("/proc/net/tcp").read_text().splitlines()[1:]]


async def test_a_sender_that_is_gone_without_a_word_loses_its_place(tmp_path: Path) -> None:
    spool = Spool(tmp_path, bytes_max=1_000_000)
    listener = SyslogListener(SyslogSettings(tcp_port=0, connections_max=1), spool, SystemClock(), agent="a")
    await listener.start()
    refused = SYSLOG_REFUSED._value.get()
    _reader, writer = await asyncio.open_connection("127.0.0.1", listener.tcp_port)
    port = f":{listener.tcp_port:04X}"

    async def is_watched() -> bool:
        return any(row[1].endswith(port) and row[3] == "01" and row[5].startswith("02:") for row in connections())

    await soon(is_watched, "the connection has no timer")
    async with asyncio.timeout(20):
        other, closing = await asyncio.open_connection("127.0.0.1", listener.tcp_port)
        assert await other.read() == b""
    assert SYSLOG_REFUSED._value.get() == refused + 1
    writer.close()
    closing.close()
    await listener.stop()
