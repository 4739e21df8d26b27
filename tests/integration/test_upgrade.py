"""From 0.1.0 to here: what it stored, and what it had accepted and not stored yet, is found once, and its programs go on
beside the new ones meanwhile, in the order of docs/upgrading.md."""

from __future__ import annotations

import asyncio
import gzip
import json
import subprocess
from collections.abc import Iterator
from typing import Any

import httpx
import pytest

from cli.canary.oracle import judge
from db.embedded import POSTGRES_BIN
from db.migrations import Layout, migrate, migrations
from infra.fleet import EMBEDDED, FULL, Fleet, Role, until
from tests.databases import create_database, drop_database
from tests.faults.producers import Producers, assert_exactly_once, fetch_all
from tests.fleets import Fleets
from tests.old_program import ABOUT, DATABASE, migrate_with, old_role, program_of

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]


def on_empty_database(fleets: Fleets, profile: str, **options: Any) -> Fleet:
    """A fleet whose database was never migrated."""
    fleet = fleets.make(profile, **options)
    drop_database(fleet.servers.url, fleet.database_url)
    fleet.database_url = create_database(fleet.servers.url)
    return fleet


@pytest.fixture(
    params=[EMBEDDED, pytest.param(FULL, marks=[pytest.mark.long, pytest.mark.kafka, pytest.mark.timescale])]
)
def fleet(request: pytest.FixtureRequest, fleets: Fleets) -> Iterator[Fleet]:
    for server in ("embedded_server",) if request.param == EMBEDDED else ("kafka_bootstrap", "timescale_server"):
        request.getfixturevalue(server)  # where there can be none, this is skipped too
    fleet = on_empty_database(fleets, request.param)
    yield fleet
    print(fleet.failures())
    fleets.end(fleet)


async def test_a_database_of_0_1_0_is_migrated_and_everything_is_found(fleets: Fleets, embedded_server: str) -> None:
    about = json.loads(ABOUT.read_text())
    fleet = await asyncio.to_thread(
        on_empty_database,
        fleets,
        EMBEDDED,
        partitions=about["partitions"],
        # However long ago it was filled.
        extra={"LOGFEED_STORE__RETENTION_DAYS": "36500", "LOGFEED_INGEST__RETENTION_DAYS": "36500"},
    )
    try:
        fleet.topic = about["topic"]
        await asyncio.to_thread(_restore, fleet.database_url)
        applied = await migrate(fleet.database_url, Layout.NATIVE)
        assert [each.version for each in applied] == [each.version for each in migrations(Layout.NATIVE)][4:]
        for name in ("query", "write"):
            await asyncio.to_thread(fleet.role, name)
        await fleet.ready("query")
        acknowledged = {(producer, number) for producer, number in about["acknowledged"]}
        assert 0 < about["stored"] < len(acknowledged), "some of it was accepted and not stored"

        async def are_stored() -> bool:
            return len(await fetch_all(fleet.url("query"))) >= len(acknowledged)

        await until(are_stored, what="what 0.1.0 had accepted is stored", timeout_s=120)
        logs = await fetch_all(fleet.url("query"))
        found = judge(
            sent=acknowledged,
            acknowledged=acknowledged,
            seen=[(log["metadata"]["producer"], log["metadata"]["number"]) for log in logs],
            positions=[(log["timestamp"], int(log["id"])) for log in reversed(logs)],
        )
        assert found.ok, str(found)
        await _adds_up(fleet, logs)
        log = logs[len(logs) // 2]
        (same,) = [each for each in await _story(fleet, log["correlation_id"]) if each["id"] == log["id"]]
        assert same["message"] == log["message"]
    except AssertionError as error:
        raise AssertionError(f"{error}\n{fleet.failures()}") from error
    finally:
        await asyncio.to_thread(fleets.end, fleet)


def _restore(url: str) -> None:
    command = [str(POSTGRES_BIN / "psql"), "--quiet", "--set", "ON_ERROR_STOP=1", "--dbname", url]
    done = subprocess.run(command, input=gzip.decompress(DATABASE.read_bytes()), capture_output=True)
    assert done.returncode == 0, done.stderr.decode()


async def _adds_up(fleet: Fleet, logs: list[dict[str, Any]]) -> None:
    """The ledger of the hours in which 0.1.0 ran."""
    hours = {"start_time": logs[-1]["timestamp"][:13] + ":00:00Z", "end_time": logs[0]["timestamp"][:13] + ":59:59Z"}
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        answer = await client.get(f"{fleet.url('query')}/api/v1/ledger", params=hours)
    assert answer.status_code == 200, answer.text
    ledger = answer.json()
    assert ledger["totals"]["balanced"], ledger["totals"]
    assert sum(ledger["totals"]["stored"].values()) == len(logs)


async def _story(fleet: Fleet, correlation_id: str) -> list[dict[str, Any]]:
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        answer = await client.get(f"{fleet.url('query')}/api/v1/correlations/{correlation_id}/logs")
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["logs"]
    return found


async def test_0_1_0_is_replaced_role_by_role_while_logs_come_in(
    fleet: Fleet, tmp_path_factory: pytest.TempPathFactory
) -> None:
    program = program_of("0.1.0", tmp_path_factory.mktemp("old"))
    if program is None:
        pytest.skip("this checkout's history does not reach to 0.1.0: git fetch --unshallow")
    await asyncio.to_thread(migrate_with, program, fleet)
    old = {
        name: await asyncio.to_thread(old_role, fleet, program, name, f"old {name}")
        for name in ("write", "ingest", "query")
    }
    await fleet.ready("old ingest", "old query")
    producers = Producers(lambda: fleet.url(labels["ingest"]))
    labels = {"ingest": "old ingest", "query": "old query"}
    sending = asyncio.create_task(producers.run(producers=3, requests=10_000, logs_per_request=5))
    try:
        await _goes_on(producers, fleet, labels)
        # 3. The new schema under the old programs.
        await migrate(fleet.database_url, fleet.servers.layout)
        await _goes_on(producers, fleet, labels)
        # 4. Query first, then writers, then ingest.
        await _replace(fleet, old["query"], "query", labels)
        await _goes_on(producers, fleet, labels)
        await _replace(fleet, old["write"], "write", labels)
        await _goes_on(producers, fleet, labels)
        await _replace(fleet, old["ingest"], "ingest", labels)
        await _goes_on(producers, fleet, labels)
        # And back: the old writer on the migrated database, fed by the new ingest.
        (writer,) = (role for role in fleet.roles if role.log_path.stem == "write")
        assert await asyncio.to_thread(writer.stop) == 0
        again = await asyncio.to_thread(old_role, fleet, program, "write", "old write again")
        await _goes_on(producers, fleet, labels)
        await _replace(fleet, again, "write", labels)
        await _goes_on(producers, fleet, labels)
    finally:
        sending.cancel()
        await asyncio.gather(sending, return_exceptions=True)
    # What was under way when the producers were stopped may be stored or not; all that was acknowledged is, once.
    await assert_exactly_once(fleet.url(labels["query"]), producers)


async def _goes_on(producers: Producers, fleet: Fleet, labels: dict[str, str]) -> None:
    """Logs that are sent from now on are acknowledged, and found."""
    before = len(producers.acked)
    await producers.acknowledged(before + 60)
    newest = max(producers.acked, key=lambda each: each[1])

    async def is_found() -> bool:
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            wanted = {"metadata.producer": newest[0], "metadata.number": newest[1], "limit": 10}
            answer = await client.get(f"{fleet.url(labels['query'])}/api/v1/logs", params=wanted)
        assert answer.status_code in (200, 503), answer.text
        return answer.status_code == 200 and len(answer.json()["logs"]) == 1

    await until(is_found, what=f"{newest} is found", timeout_s=120)


async def _replace(fleet: Fleet, old: Role, name: str, labels: dict[str, str]) -> None:
    assert await asyncio.to_thread(old.stop) == 0, old.log_text()[-2000:]
    # Its frames say which trace they belong to, which older writers pass over. Nobody collects them here.
    traced = {"LOGFEED_TRACING__ENDPOINT": "http://127.0.0.1:9/v1/traces", "LOGFEED_TRACING__RATIO": "1"}
    more = traced if name == "ingest" else {}
    await asyncio.to_thread(fleet.role, name, label="write" if name == "write" else f"new {name}", **more)
    if name != "write":
        await fleet.ready(f"new {name}")
        labels[name] = f"new {name}"
