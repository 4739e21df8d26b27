"""Each line is sent once, whatever becomes of the files and of the agent: real files, an agent that is killed at any
step, and a server that remembers bodies by their keys.
"""

from __future__ import annotations

import gzip
import json
import os
import random
import shutil
from pathlib import Path
from typing import Any

import pytest
import zstandard

from agent.shipping.checkpoint import write_state
from agent.shipping.joining import JoinRules
from schemas.record import METADATA_DEPTH_MAX
from tests.unit.agent.shipping_host import Host, numbered


@pytest.fixture
def host(tmp_path: Path) -> Host:
    return Host(tmp_path)


def test_lines_become_logs_with_their_time_level_and_place(host: Host) -> None:
    host.append(
        "a.log", "2026-11-18T10:00:00Z ERROR cannot pay", "without a time", '{"level": "warn", "msg": "x", "n": 1}'
    )
    host.append("j.log", '{"time": "2026-11-18T10:00:01Z", "level": "warn", "msg": "json", "n": 1, "trace_id": "t-1"}')
    host.settle()
    logs = {log["message"]: log for log in host.logs()}
    pay, other, own = logs["cannot pay"], logs["without a time"], logs["json"]
    assert (pay["timestamp"], pay["level"]) == (1_794_996_000_000_000, 17)
    assert pay["service_name"] == "shop"
    assert pay["metadata"] == {"host": "web-1", "file": "app/a.log"}
    assert other["timestamp"] == pay["timestamp"]
    assert (own["level"], own["correlation_id"], own["metadata"]["n"]) == (13, "t-1", 1)


def test_a_renamed_file_is_read_to_its_end_before_the_new_one(host: Host) -> None:
    host.append("a.log", *numbered(0, 10))
    host.settle(1)
    host.append("a.log", *numbered(10, 20))
    (host.folder / "a.log").rename(host.folder / "a.log.1")
    host.append("a.log.1", *numbered(20, 30))
    host.append("a.log", *numbered(30, 40))
    host.settle()
    assert host.messages() == numbered(0, 40)


def test_a_file_that_is_removed_while_it_is_open_is_read_to_its_end(host: Host) -> None:
    host.append("a.log", *numbered(0, 10))
    host.look()
    host.append("a.log", *numbered(10, 5_000))
    (host.folder / "a.log").unlink()
    host.settle()
    host.has_each_once(numbered(0, 5_000))


@pytest.mark.parametrize("sees_copy", [True, False])
def test_a_file_that_is_copied_and_truncated_is_sent_once(host: Host, sees_copy: bool) -> None:
    host.append("a.log", *numbered(0, 100))
    host.settle(1)
    host.append("a.log", *numbered(100, 200))
    shutil.copy(host.folder / "a.log", host.folder / "a.log.1")
    if sees_copy:
        host.look()
    os.truncate(host.folder / "a.log", 0)
    host.append("a.log", *numbered(200, 250))
    host.settle()
    host.has_each_once(numbered(0, 250))


def test_a_truncated_file_begins_anew_with_the_same_lines_too(host: Host) -> None:
    for _ in range(3):
        (host.folder / "a.log").write_text("started\n")
        host.settle(1)
        (host.folder / "a.log").write_text("")
        host.settle(1)
    assert host.messages() == ["started"] * 3


def test_an_archive_is_the_file_that_it_was(host: Host) -> None:
    host.append("a.log", *numbered(0, 100))
    host.settle(1)
    host.append("a.log", *numbered(100, 150))
    (host.folder / "a.log").rename(host.folder / "a.log.1")
    host.append("a.log", *numbered(150, 200))
    host.look()
    host.turn()
    packed = gzip.compress((host.folder / "a.log.1").read_bytes())
    (host.folder / "a.log.1.gz").write_bytes(packed[: len(packed) // 2])
    host.look()
    (host.folder / "a.log.1.gz").write_bytes(packed)
    (host.folder / "a.log.1").unlink()
    host.settle()
    host.start()
    host.settle()
    host.has_each_once(numbered(0, 200))


@pytest.mark.parametrize("pack", [gzip.compress, zstandard.compress])
def test_rotations_while_the_agent_was_away_are_caught_up(host: Host, pack: Any) -> None:
    host.append("a.log", *numbered(0, 100))
    host.settle(1)
    host.append("a.log", *numbered(100, 150))
    generations: list[Path] = []
    for number in range(3):
        (host.folder / "a.log").rename(host.folder / f"old{number}")
        generations.insert(0, host.folder / f"old{number}")
        host.append("a.log", *numbered(150 + number * 50, 200 + number * 50))
    for number, path in enumerate(generations, 1):
        if number == 1:
            path.rename(host.folder / "a.log.1")
        else:
            host.pack(path.name, f"a.log.{number}.{'gz' if pack is gzip.compress else 'zst'}", pack)
    host.start()
    host.settle()
    host.has_each_once(numbered(0, 300))


def test_archives_that_were_there_before_the_agent_are_left_alone(tmp_path: Path) -> None:
    host = Host(tmp_path)
    (host.folder / "a.log.1.gz").write_bytes(gzip.compress(b"old\n"))
    host.append("a.log", "new")
    host.settle()
    assert host.messages() == ["new"]


def test_an_end_is_where_a_root_may_begin(tmp_path: Path) -> None:
    host = Host(tmp_path, begin_at_end=True)
    host.append("a.log", "old", "half of a li", end="")
    host.settle(1)
    host.append("a.log", "ne", "new")
    host.append("b.log", "another file", "later")
    host.settle()
    host.has_each_once(["new", "another file", "later"])


def test_last_lines_without_an_end_are_sent_once_they_are_old(host: Host) -> None:
    host.append("a.log", "whole", "half", end="")
    host.settle(5)
    assert host.messages() == ["whole"]
    host.settle(40)
    assert host.messages() == ["whole", "half"]
    host.append("a.log", " and more")
    host.settle()
    assert host.messages() == ["whole", "half", " and more"]


def test_a_stack_trace_is_one_log_also_when_it_comes_in_pieces(tmp_path: Path) -> None:
    host = Host(tmp_path, joins_automatically=True, join_timeout_s=2.0)
    host.append("a.log", "2026-11-18T10:00:00Z ERROR failed", "Traceback (most recent call last):")
    host.look()
    assert not host.turn()
    host.append("a.log", "  File x", "ValueError: y")
    host.settle(10)
    host.append("a.log", "2026-11-18T10:00:01Z INFO next")
    host.settle(10)
    assert host.messages() == ["failed\nTraceback (most recent call last):\n  File x\nValueError: y", "next"]


def test_busy_logs_leave_room_for_others(host: Host) -> None:
    host.append("busy.log", *numbered(0, 20_000))
    host.append("quiet.log", "a quiet line")
    host.look()
    host.turn()
    host.turn()
    assert "a quiet line" in host.messages()


def test_lines_that_become_long_in_json_fit_a_request(host: Host) -> None:
    (host.folder / "a.log").write_bytes(b"\x01" * 255 * 1024 + b"\n" + b"\x02" * 400_000 + b"\n" + b"q\n" * 50_000)
    host.settle(10)
    sizes = [zstandard.get_frame_parameters(body).content_size for body in host.bodies.values()]
    assert max(sizes) < 8 * 1024 * 1024
    assert sum(message == "q" for message in host.messages()) == 50_000


def test_a_damaged_archive_is_sent_as_far_as_it_goes(host: Host) -> None:
    host.append("a.log", "now")
    host.settle(1)
    lines = [f"{number} {random.Random(number).randbytes(30).hex()}" for number in range(20_000)]
    packed = gzip.compress("\n".join(lines).encode())
    (host.folder / "a.log.1.gz").write_bytes(packed[: len(packed) // 2])
    os.utime(host.folder / "a.log.1.gz", (host.now_us / 1e6 + 60, host.now_us / 1e6 + 60))
    host.settle()
    found = host.messages()
    assert 5_000 < len(found) < 15_000
    assert found[1:] == lines[: len(found) - 1]


@pytest.mark.parametrize("seed", range(6))
def test_each_line_is_sent_once_through_rotation_truncation_and_kills(tmp_path: Path, seed: int) -> None:
    chance = random.Random(seed)
    host = Host(tmp_path, joins_automatically=True, rules=JoinRules())
    expected: list[str] = []
    written = {"a.log": 0, "b.log": 0}
    host.look()
    assert not host.turn()
    for _ in range(60):
        name = chance.choice(list(written))
        more = chance.randrange(1, 400)
        lines = [f"{name} number {written[name] + number} {chance.random()}" for number in range(more)]
        written[name] += more
        expected += lines
        host.append(name, *lines)
        path = host.folder / name
        match chance.randrange(7):
            case 0:  # renamed, and an older one packed
                for number in range(60, 0, -1):
                    for end in ("", ".gz"):
                        if (old := host.folder / f"{name}.{number}{end}").exists():
                            old.rename(host.folder / f"{name}.{number + 1}{end}")
                path.rename(host.folder / f"{name}.1")
                if (host.folder / f"{name}.2").exists():
                    host.pack(f"{name}.2", f"{name}.2.gz")
            case 1:  # copied and truncated, between two looks
                shutil.copy(path, host.folder / f"{name}-20261118-{written[name]:06}")
                os.truncate(path, 0)
            case 2:
                host.look()
            case 3:
                host.start()
            case 4:
                host.look()
                host.turn(killed=chance.choice(["before", "unsent", "after"]))
            case _:
                host.look()
                host.turn()
    host.settle()
    host.start()
    host.settle()
    host.has_each_once(expected)


def test_a_state_of_before_a_crash_sends_what_was_on_its_way_again(host: Host) -> None:
    host.append("a.log", *numbered(0, 50))
    host.look()
    host.turn(killed="after")
    assert len(host.bodies) == 1
    host.settle()
    host.has_each_once(numbered(0, 50))
    assert write_state(host.state, b"")


def test_a_mark_of_byte_order_is_no_part_of_the_first_line(host: Host) -> None:
    lines = ['{"time": "2026-11-18T10:00:01Z", "msg": "first"}', '{"time": "2026-11-18T10:00:02Z", "msg": "second"}']
    host.append("a.log", *(("\ufeff" if not number else "") + line for number, line in enumerate(lines)))
    host.settle(5)
    host.start()
    host.append("a.log", '{"time": "2026-11-18T10:00:02Z", "msg": "\ufeffthird"}')
    host.append("b.log", "\ufeffpacked")
    host.settle(0.1)
    (host.folder / "c.log.1.gz").write_bytes(gzip.compress(b"\xef\xbb\xbfof an archive\n"))
    os.utime(host.folder / "c.log.1.gz", (host.now_us / 1e6 + 60, host.now_us / 1e6 + 60))
    host.settle(5)
    host.has_each_once(["first", "second", "\ufeffthird", "packed", "of an archive"])


def test_fields_that_are_nested_too_deep_for_the_server_are_left_out_and_said(host: Host) -> None:
    deep: Any = "x"
    for _ in range(METADATA_DEPTH_MAX):
        deep = [deep]
    host.append("a.log", json.dumps({"msg": "deep", "n": deep}), json.dumps({"msg": "fits", "n": deep[0]}))
    host.settle(5)
    logs = {log["message"]: log["metadata"] for log in host.logs()}
    assert logs["fits"]["n"] == deep[0]
    assert logs["deep"] == {"host": "web-1", "file": "app/a.log", "_fields_left_out": True}
