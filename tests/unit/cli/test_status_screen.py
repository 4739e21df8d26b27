"""`logfeed status` as people read it."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import msgspec
import pytest

from cli.http_client import Unreachable
from cli.status import Status, _read, screen
from schemas.status import StatusAnswer

NOW = datetime(2026, 11, 26, 12, 0, 0, tzinfo=UTC)
ANSWER: dict[str, Any] = {
    "tiers": [
        {
            "tier": "hot",
            "retention_class": "all",
            "pieces": 12,
            "rows": 1_234_567,
            "bytes": 3_650_722_201,
            "oldest": "2026-11-20T00:00:00.000000Z",
            "newest": "2026-11-26T12:00:00.000000Z",
        }
    ],
    "due": {
        "tables_to_write": 2,
        "rows_to_write": 1_000,
        "tables_to_switch": 0,
        "segments_to_cool": 0,
        "segments_past_age": 0,
        "segments_to_remove": 0,
    },
    "partitions": [
        {
            "partition": 0,
            "writer": "w1",
            "stored_offset": 41,
            "end_offset": 1241,
            "lag_records": 1200,
            "stored_to": "2026-11-26T11:59:30.000000Z",
            "halted": None,
        },
        {
            "partition": 1,
            "writer": None,
            "stored_offset": 7,
            "end_offset": None,
            "lag_records": None,
            "stored_to": None,
            "halted": "offsets are\ngone \x1b[31m",
        },
    ],
    "writers": ["w1"],
    "roles": [{"name": "tier", "leader": "t1"}, {"name": "alerts", "leader": None}],
    "dead_letters": [
        {
            "reason": "refused",
            "service_name": "shop",
            "count": 3,
            "newest": "2026-11-26T11:00:00.000000Z",
            "newest_id": "17",
        }
    ],
    "replicas": [
        {"server": "db2:5432", "problem": None, "behind_s": 0.0},
        {"server": "db3:5432", "problem": "it did not answer", "behind_s": None},
    ],
}


def test_shows_who_is_behind_what_is_due_and_what_died() -> None:
    StatusAnswer.model_validate(ANSWER)
    lines = screen(_read(msgspec.json.encode(ANSWER)), NOW).splitlines()
    assert lines[0] == "writers     w1: 1,200 records behind"
    assert " ".join(lines[1].split()) == "partition 0 w1 1,200 behind, next offset 41, stored to 30.0 s ago"
    assert " ".join(lines[2].split()) == "partition 1 nobody ? behind, next offset 7"
    assert lines[3] == "    HALTED: offsets are gone \\x1b[31m"
    assert lines[4] == "roles       tier: t1, alerts: NOBODY"
    assert lines[5] == "tiers       due: tables to write: 2, rows to write: 1,000"
    assert " ".join(lines[6].split()) == "hot all 12 pieces 1,234,567 rows 3.4 GiB 2026-11-20T00:00 to 2026-11-26T12:00"
    assert lines[7] == "dead        3 lines were put aside"
    assert lines[8].endswith("newest 2026-11-26T11:00:00: logfeed dead show 17")
    assert lines[9] == "replicas    1 of 2 answer questions"
    assert " ".join(lines[10].split()) == "db2:5432 answers, 0 s behind"
    assert " ".join(lines[11].split()) == "db3:5432 LEFT OUT: it did not answer"


def test_an_installation_without_anything_is_shown_too() -> None:
    empty = Status(tiers=[], due={}, partitions=[], writers=[], roles=[], dead_letters=[])
    assert screen(empty, NOW).splitlines() == [
        "writers     NOBODY: the broker does not say how far they are behind",
        "roles       none yet",
        "tiers       due: nothing",
        "dead        no lines were put aside",
    ]


def test_what_a_newer_server_says_besides_is_passed_over() -> None:
    assert _read(msgspec.json.encode({**ANSWER, "weather": "fine"})).writers == ["w1"]


@pytest.mark.parametrize("content", [b"<html>", b"[]", b"{}", b"\xff"])
def test_what_is_no_status_is_said_to_be_none(content: bytes) -> None:
    with pytest.raises(Unreachable, match="not that of a Logfeed server"):
        _read(content)
