"""Bodies as shippers send them, and the logs that they are.

Those of rsyslog, syslog-ng and elasticsearch-py come from the programs themselves (tests/integration/test_elastic_shippers.py);
those of Filebeat, Logstash, Fluent Bit and Vector, which no package index has, are written after their sources.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

import pytest

from ingest.parse import Window, to_log
from ingest.quick import opened, plain_lines, plain_of
from ingest.wire.elastic.bulk import Bulk, read_bulk
from schemas.frames import encode_lines
from schemas.record import Log

REQUESTS: Final = Path(__file__).parent / "requests"
WINDOW: Final = Window.at(1_795_342_000_000, 400)
AT: Final = 1_795_341_600_123_000
"""2026-11-22T10:00:00.123Z"""
INFO, WARN, ERROR = 9, 13, 17
TRACE: Final = "4bf92f3577b34da6a3ce929d0e0e4736"


def bulk_of(name: str, *, index: str | None = None, default_service: str | None = "unknown_service") -> Bulk:
    body = (REQUESTS / f"{name}.ndjson").read_bytes()
    return read_bulk(body, index=index, default_service=default_service, logs_max=1_000)


def logs_of(bulk: Bulk) -> list[Log]:
    logs = []
    for number, item in enumerate(bulk.items, 1):
        log = to_log(opened(item), number, WINDOW, may_hold_nul=False)
        assert isinstance(log, Log), log
        logs.append(log)
    return logs


EXPECTED: Final[dict[str, list[tuple[int, int, str, str, str | None, dict[str, Any]]]]] = {
    "filebeat": [
        (
            AT,
            INFO,
            "shop",
            "2026-11-22 10:00:00,123 ERROR payment declined for order 17",
            None,
            {
                "host": {"name": "web-1"},
                "agent": {
                    "id": "8b3e0a1e-5b0f-4c54-9f0e-0f0f3f1f9d11",
                    "name": "web-1",
                    "type": "filebeat",
                    "version": "8.17.0",
                    "ephemeral_id": "f7f5a3a0-9d1a-4b8e-8a5e-3a0a2b8c7d61",
                },
                "ecs": {"version": "8.0.0"},
                "log": {
                    "offset": 0,
                    "file": {"path": "/var/log/shop/app.log", "device_id": "2049", "inode": "131100"},
                },
                "input": {"type": "filestream"},
            },
        ),
        (
            AT + 2_000,
            WARN,
            "unknown_service",
            "the card is about to expire",
            TRACE,
            {
                "log": {"offset": 60, "file": {"path": "/var/log/shop/app.log"}},
                "input": {"type": "filestream"},
                "host": {"name": "web-1"},
                "_index": "filebeat-8.17.0",
            },
        ),
    ],
    "filebeat_ids": [
        (AT, INFO, "shop", "one", None, {"host": {"name": "web-1"}, "_id": "Zm9vYmFyYmF6MDEyMzQ1"}),
        (AT, INFO, "shop", "two", None, {"host": {"name": "web-1"}, "_id": "Zm9vYmFyYmF6MDEyMzQ2"}),
    ],
    "logstash": [
        (
            AT + 456,
            INFO,
            "edge_proxy",
            "GET /cart 200",
            None,
            {
                "@version": "1",
                "host": {"name": "edge-2"},
                "event": {"original": "GET /cart 200"},
                "service.name": "edge proxy",
            },
        )
    ],
    "logstash_data_stream": [
        (
            AT,
            INFO,
            "unknown_service",
            "GET /cart 200",
            None,
            {
                "@version": "1",
                "host": {"name": "edge-2"},
                "event": {"original": "GET /cart 200"},
                "data_stream": {"type": "logs", "dataset": "generic", "namespace": "default"},
                "_index": "logs-generic-default",
            },
        )
    ],
    "fluent_bit": [
        (
            AT,
            INFO,
            "unknown_service",
            "2026-11-22T10:00:00Z level=error order declined\n",
            None,
            {
                "stream": "stderr",
                "time": "2026-11-22T10:00:00.123456789Z",
                "kubernetes": {"pod_name": "shop-7c9", "container_name": "shop"},
                "_index": "fluent-bit",
            },
        )
    ],
    "fluent_bit_generate_id": [
        (AT, INFO, "shop", "one", None, {"_id": "f1c5e6a2-93ab-1c1d-2b3f-0a1b2c3d4e5f"}),
    ],
    "vector": [
        (
            AT + 456,
            INFO,
            "unknown_service",
            "payment declined",
            None,
            {"file": "/var/log/shop/app.log", "host": "web-1", "source_type": "file", "_index": "vector-2026.11.22"},
        )
    ],
    "ecs_logging": [
        (
            AT,
            ERROR,
            "shop",
            "payment declined",
            TRACE,
            {
                "ecs": {"version": "1.6.0"},
                "log": {
                    "logger": "shop.payments",
                    "origin": {"file": {"line": 17, "name": "payments.py"}, "function": "pay"},
                    "original": "payment declined",
                },
                "process": {
                    "name": "MainProcess",
                    "pid": 11,
                    "thread": {"id": 140_000_000_000_000, "name": "MainThread"},
                },
            },
        )
    ],
}


@pytest.mark.parametrize("name", EXPECTED)
def test_a_request_is_these_logs(name: str) -> None:
    found = [
        (log.timestamp, log.level, log.service_name, log.message, log.correlation_id, log.metadata)
        for log in logs_of(bulk_of(name))
    ]
    assert found == EXPECTED[name]


def test_every_stored_request_is_expected() -> None:
    assert {path.stem for path in REQUESTS.iterdir()} == set(EXPECTED)


@pytest.mark.parametrize("name", EXPECTED)
def test_the_short_way_gives_the_same_lines(name: str) -> None:
    bulk = bulk_of(name)
    plain = plain_of(bulk.items)
    assert plain is not None
    lines = plain_lines(plain, range(1, len(plain) + 1), WINDOW)
    assert lines is not None
    assert encode_lines(lines) == encode_lines(logs_of(bulk))


@pytest.mark.parametrize("name", ["filebeat_ids", "fluent_bit_generate_id"])
def test_ids_are_kept(name: str) -> None:
    bulk = bulk_of(name)
    assert [log.metadata["_id"] for log in logs_of(bulk)] == bulk.ids


def test_a_key_of_one_service_decides_where_none_is_named() -> None:
    items = bulk_of("vector", default_service=None).items
    log = to_log(opened(items[0]), 1, WINDOW, may_hold_nul=False, default_service="shop")
    assert isinstance(log, Log)
    assert log.service_name == "shop"
    assert log.metadata["_index"] == "vector-2026.11.22"


def test_the_index_of_the_path_holds_where_an_action_names_none() -> None:
    body = b'{"index":{}}\n{"message":"one"}\n{"index":{"_index":"own"}}\n{"message":"two"}\n'
    bulk = read_bulk(body, index="of-path", default_service="d", logs_max=10)
    assert bulk.indexes == ["of-path", "own"]
    assert [log.metadata for log in logs_of(bulk)] == [{"_index": "of-path"}, {"_index": "own"}]
