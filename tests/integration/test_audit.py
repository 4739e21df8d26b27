"""Who looked at what is written down, through the real pipeline."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest

from access.audit import BYTES_MAX, QUESTION_CHARS_MAX, AuditFull, AuditLog, Look
from access.principal import ANYONE
from broker.queue import QueueBroker
from cli.audit import AuditTrail
from cli.settings import Settings
from runtime.clock import SystemClock
from runtime.stopping import Stop
from runtime.telemetry import REGISTRY
from schemas.errors import BrokerUnavailable
from schemas.frames import decode_lines, decompress
from schemas.record import LogLine
from schemas.scope import AUDIT_SERVICE
from tests.access_site import Site, running, soon

LOOK = Look(path="/api/v1/logs", question="q=x", rows=3, status=200, address="10.0.0.1")


@pytest.fixture
async def site(native_url: str) -> AsyncIterator[Site]:
    async with running(native_url) as site:
        yield site


async def published(site: Site) -> list[LogLine]:
    """Every line that the broker has."""
    broker = QueueBroker(site.database, Settings().broker)
    await broker.open()
    reader = await broker.reader(group="audit-test")
    lines: list[LogLine] = []
    try:
        await reader.seek(dict.fromkeys(range(broker.partitions), 0))
        while records := await reader.poll(max_bytes=1 << 24, wait_ms=100):
            for record in records:
                lines += decode_lines(decompress(record.value))
    finally:
        await reader.close()
        await broker.close()
    return lines


async def test_who_looked_at_what_is_published_and_nobody_can_forge_it(site: Site) -> None:
    ids = await site.put([{"service_name": "shop", "correlation_id": "s"} for _ in range(3)])
    key = await site.key("read:shop", "write:*")
    for path in (
        "/api/v1/logs?q=m",
        f"/api/v1/logs/{ids[0]}",
        f"/api/v1/logs/{ids[1]}/context",
        "/api/v1/correlations/s/logs",
        "/api/v1/services",
        "/api/v1/ledger",
    ):
        assert (await site.ask(key.text, "GET", path)).status_code == 200
    assert (await site.ask(key.text, "GET", "/api/v1/logs?levle=x")).status_code == 422
    forged = {"service_name": AUDIT_SERVICE, "message": "I was never here"}
    assert (await site.ask(key.text, "POST", "/api/v1/logs", json=forged)).status_code == 403
    found: list[dict[str, Any]] = []

    async def are_there() -> bool:
        found[:] = [msgspec.json.decode(line.metadata) for line in await published(site)]
        return len(found) >= 6

    await soon(are_there, "they are published", 20)
    assert [(entry["path"].removeprefix("/api/v1/"), entry["rows"]) for entry in found] == [
        ("logs", 3),
        (f"logs/{ids[0]}", 1),
        (f"logs/{ids[1]}/context", 3),
        ("correlations/s/logs", 3),
        ("services", 0),
        ("ledger", 0),
    ]
    assert {entry["subject"] for entry in found} == {f"key:{key.prefix}"}
    assert found[0]["question"] == "q=m"
    assert found[0]["address"] == "127.0.0.1"


async def test_changes_of_alerting_are_written_down_and_trials_with_the_logs_they_looked_at(site: Site) -> None:
    await site.put([{"service_name": name} for name in ("shop", "shop", "pay/a")])
    key = await site.key("alert:shop", "read:shop")
    rule = {"name": "errors", "condition": {"count": {"at_least": 1}}}
    base = "/api/v1/alerts"
    hush = {
        "matchers": [{"label": "rule", "op": "=", "value": "errors"}],
        "ends_at": "2100-01-01T00:00:00Z",
        "starts_at": "2099-12-31T00:00:00Z",
        "comment": "a move",
    }
    silence_id = ""
    for method, path, body, status in (
        ("POST", "rules", rule, 201),
        ("POST", "rules", rule, 409),
        ("PUT", "rules/errors", {**rule, "query": "card"}, 200),
        ("GET", "rules", None, 200),
        ("POST", "trials", {"rule": rule, "start_time": "-1h"}, 200),
        ("POST", "silences", hush, 201),
        ("DELETE", "silences/{}", None, 204),
        ("DELETE", "rules/errors", None, 204),
    ):
        answer = await site.ask(key.text, method, f"{base}/{path.format(silence_id)}", json=body)
        assert answer.status_code == status, answer.text
        silence_id = answer.json().get("id", silence_id) if answer.content else silence_id
    found: list[dict[str, Any]] = []

    async def are_there() -> bool:
        found[:] = [msgspec.json.decode(line.metadata) for line in await published(site)]
        return len(found) >= 6

    await soon(are_there, "they are published", 20)
    period = "from 2099-12-31T00:00:00.000000Z to 2100-01-01T00:00:00.000000Z"
    assert [(entry.get("change"), entry.get("target"), entry.get("rows")) for entry in found] == [
        ("made the rule errors", "rule:errors", None),
        ("changed the rule errors", "rule:errors", None),
        (None, None, 2),
        (f"silenced alerts with rule=errors {period}", f"silence:{silence_id}", None),
        (f"ended the silence {silence_id}", f"silence:{silence_id}", None),
        ("removed the rule errors", "rule:errors", None),
    ]
    assert {entry["subject"] for entry in found} == {f"key:{key.prefix}"}
    assert found[2]["path"] == f"{base}/trials"
    assert not any("permissions" in entry for entry in found)


async def test_the_audit_log_is_read_like_any_service_by_who_may(site: Site) -> None:
    await site.put([{"service_name": AUDIT_SERVICE}, {"service_name": "shop"}])
    for grants, services in (
        (["admin:*"], {"shop"}),
        (["read:*"], {"shop"}),
        (["read:logfeed/*", "read:shop"], {"shop"}),
        ([f"admin:{AUDIT_SERVICE}"], {AUDIT_SERVICE}),
        (["admin:*", f"admin:{AUDIT_SERVICE}"], {AUDIT_SERVICE, "shop"}),
    ):
        key = await site.key(*grants)
        page = (await site.ask(key.text, "GET", "/api/v1/logs")).json()
        assert {log["service_name"] for log in page["logs"]} == services, grants
        named = (await site.ask(key.text, "GET", f"/api/v1/logs?service_name={AUDIT_SERVICE}")).json()
        assert bool(named["logs"]) == (AUDIT_SERVICE in services), grants


async def test_entries_wait_for_the_broker_under_one_key_and_questions_are_refused_when_they_are_too_many() -> None:
    calls: list[tuple[bytes, str]] = []
    is_away = True

    async def publish(lines: bytes, key: str) -> int:
        calls.append((lines, key))
        if is_away:
            raise BrokerUnavailable
        return 0

    audit, stop = AuditLog(publish, SystemClock()), Stop()
    running = asyncio.create_task(audit.run(stop))
    audit.note(ANYONE, LOOK)

    async def was_tried_twice() -> bool:
        return len(calls) >= 2

    await soon(was_tried_twice, "it is tried again", 10)
    assert len(set(calls)) == 1, "the same entries under the same key"
    audit.check()
    noted = 1
    while audit._bytes < BYTES_MAX:
        audit.note(ANYONE, msgspec.structs.replace(LOOK, question="x" * 10_000))
        noted += 1
    with pytest.raises(AuditFull):
        audit.check()
    is_away = False
    calls.clear()
    stop.set()
    await running
    assert sum(lines.count(b"\n") for lines, _ in calls) == noted, "what waits is published before the end"
    audit.check()


async def test_no_part_of_a_question_stays_unwritten(site: Site) -> None:
    await site.put([{"service_name": "pay", "correlation_id": "a\tb"}])
    key = await site.key("read:*")
    padding = "x" * 3_990
    long = f"query=NOT+%22{padding}%22&q=&service_name=pay"
    short = f"query=NOT+%22{padding[:1_000]}%22&service_name=pay"
    for question in (long, short):
        answer = await site.ask(key.text, "GET", f"/api/v1/logs?{question}")
        assert answer.status_code == 200, answer.text
        assert answer.json()["count"] == 1
    assert (await site.ask(key.text, "GET", "/api/v1/correlations/a%09b/logs")).json()["logs"]
    found: list[dict[str, Any]] = []

    async def are_there() -> bool:
        found[:] = [msgspec.json.decode(line.metadata) for line in await published(site)]
        return len(found) >= 3

    await soon(are_there, "they are published", 20)
    assert [entry["question"] for entry in found] == [long, short, ""]
    assert found[2]["path"] == "/api/v1/correlations/a%09b/logs"
    too_long = await site.ask(key.text, "GET", f"/api/v1/logs?service_name=pay&metadata.k={'x' * QUESTION_CHARS_MAX}")
    assert (too_long.status_code, too_long.json()["errors"][0]["field"]) == (422, "query string")


async def test_an_entry_that_ingest_rejects_is_not_taken_for_published(native_url: str) -> None:
    async with running(native_url) as site:
        broker = QueueBroker(site.database, Settings().broker)
        await broker.open()
        trail = AuditTrail(Settings(), broker, site.database, instance="a clock that is ahead")
        await trail.start()
        try:

            async def takes_logs() -> bool:
                return not trail._ingest.ready()

            await soon(takes_logs, "it has a worker number", 20)
            good = {"service_name": AUDIT_SERVICE, "message": "now"}
            ahead = {**good, "message": "ahead", "timestamp": SystemClock().now_us() + 3_600_000_000}
            lines = b"".join(msgspec.json.encode(line) + b"\n" for line in (good, ahead, good))
            assert await trail._publish(lines, "key") == 1
        finally:
            await trail.stop()
            await broker.close()
        assert sorted(line.message for line in await published(site)) == ["now", "now"]


async def test_what_was_rejected_is_counted_as_lost() -> None:
    async def publish(lines: bytes, key: str) -> int:
        return 1

    def count(outcome: str) -> float:
        return REGISTRY.get_sample_value("logfeed_audit_entries_total", {"outcome": outcome}) or 0.0

    lost, done = count("lost"), count("published")
    audit, stop = AuditLog(publish, SystemClock()), Stop()
    audit.note(ANYONE, LOOK)
    audit.note(ANYONE, LOOK)
    stop.set()
    await audit.run(stop)
    assert (count("lost") - lost, count("published") - done) == (1, 1)
