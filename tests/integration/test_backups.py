"""Backups and restores by the blocks of docs/upgrading.md: what was acknowledged before is there exactly once after."""

from __future__ import annotations

import asyncio
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from db.database import Database
from db.embedded import POSTGRES_BIN
from db.migrations import Layout
from infra.fleet import EMBEDDED, FULL, REPOSITORY, Fleet, until
from runtime.clock import SystemClock
from store.settings import StoreSettings
from store.upkeep import PostgresUpkeep
from tests import commands
from tests.faults.producers import Producers, assert_exactly_once

pytestmark = pytest.mark.timeout(300)

DAY_US = 86_400_000_000
OLD_LOGS = 40
OLD_PRODUCER = 900


def run_block(heading: str, **variables: Path | str) -> None:
    """The commands below a heading of docs/upgrading.md, as somebody would paste them."""
    document = (REPOSITORY / "docs/upgrading.md").read_text()
    section = document.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    (block,) = re.findall(r"^```sh\n(.*?)^```$", section, re.MULTILINE | re.DOTALL)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOGFEED_")}
    environment |= {name: str(value) for name, value in variables.items()}
    done = subprocess.run(
        ["bash", "-euo", "pipefail", "-c", block], cwd="/", env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


async def send(fleet: Fleet, label: str, producers: Producers, *, seed: int) -> None:
    """Some hundred logs, acknowledged."""
    producers.seed = seed
    await producers.run(producers=3, requests=8, logs_per_request=10)


async def send_old(fleet: Fleet, label: str, producers: Producers) -> None:
    """Logs of a hundred days ago, which go to files."""
    import httpx

    old_us = SystemClock().now_us() - 100 * DAY_US
    numbers = range(OLD_LOGS)
    lines = [
        json.dumps(
            {
                "service_name": "old",
                "message": f"old {number}",
                "timestamp": old_us + number,
                "metadata": {"producer": OLD_PRODUCER, "number": number},
            }
        )
        for number in numbers
    ]
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        headers = {"Content-Type": "application/x-ndjson"}
        answer = await client.post(f"{fleet.url(label)}/api/v1/logs/batch", content="\n".join(lines), headers=headers)
    assert answer.status_code == 201, answer.text
    producers.sent.update((OLD_PRODUCER, number) for number in numbers)
    producers.acked.update((OLD_PRODUCER, number) for number in numbers)


async def into_files(fleet: Fleet, layout: Layout) -> None:
    """What is old leaves its table for files, as the store's upkeep and `logfeed tier` do it over days."""
    database = Database(fleet.database_url, application_name="tests", connections_max=2)
    await database.open()
    try:

        async def stored() -> bool:
            row = await database.fetch_one("SELECT count(*) FROM logs_late_1")
            return row is not None and row[0] == OLD_LOGS

        await until(stored, what="old logs are stored")
        await database.execute("ANALYZE")
        upkeep = PostgresUpkeep(database, fleet.topic, layout, StoreSettings(late_rows_max=OLD_LOGS))
        await upkeep.close_due(now_us=SystemClock().now_us())
        await upkeep.finish_closed()
    finally:
        await database.close()
    ran = commands.logfeed("tier", "run", "--now", **settings(fleet))
    assert "1 tables let go" in ran.stdout, ran.stdout + ran.stderr


def settings(fleet: Fleet) -> dict[str, str]:
    return {name: value for name, value in fleet.environment().items() if name.startswith("LOGFEED_")}


def is_well(fleet: Fleet, ingest: str, query: str) -> None:
    """As docs/upgrading.md has it after a restore."""
    verified = commands.logfeed("tier", "verify", **settings(fleet))
    assert (verified.returncode, verified.stdout) == (0, "1 segments read, all as they were written\n"), verified.stderr
    canary = commands.logfeed(
        "canary", "--once", "10", "--rate", "50", "--url", fleet.url(query), "--ingest-url", fleet.url(ingest)
    )
    assert canary.returncode == 0, canary.stdout + canary.stderr


@pytest.mark.slow
async def test_embedded_backup_restores_all_that_was_acknowledged_before(
    embedded_server: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """embedded_server: where there can be none, this is skipped too."""
    directory = tmp_path_factory.mktemp("backups")
    directory.chmod(0o711)  # under root the server runs as another account and must pass through
    data, backup = directory / "embedded", directory / "backup"
    fleet = Fleet(EMBEDDED, directory, extra={"LOGFEED_DATA_DIR": str(data)})
    try:
        await asyncio.to_thread(fleet.start_servers)
        roles = [fleet.role("serve"), fleet.role("write")]
        producers = Producers(lambda: fleet.url("serve"))
        await fleet.ready("serve")
        await send_old(fleet, "serve", producers)
        await send(fleet, "serve", producers, seed=1)
        await asyncio.to_thread(asyncio.run, into_files(fleet, Layout.NATIVE))
        stored = await assert_exactly_once(fleet.url("serve"), producers)
        assert len(stored) == OLD_LOGS + 240

        run_block("Embedded: backup", DATA=data, BACKUP=backup, BIN=Path(sys.executable).parent)
        for role in roles:
            role.kill()
        await asyncio.to_thread(fleet.servers.kill_database)
        shutil.rmtree(data)
        run_block("Embedded: restore", DATA=data, BACKUP=backup)
        await asyncio.to_thread(fleet.servers.start)
        for role in roles:
            role.start()
        await fleet.ready("serve")

        assert await assert_exactly_once(fleet.url("serve"), producers) == stored
        is_well(fleet, "serve", "serve")
    finally:
        await asyncio.to_thread(fleet.stop_everything)


@pytest.mark.long
@pytest.mark.kafka
@pytest.mark.timescale
async def test_full_restore_reads_again_what_came_after_the_backup(
    kafka_bootstrap: str, timescale_server: str, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """kafka_bootstrap, timescale_server: where there can be none, this is skipped too."""
    directory = tmp_path_factory.mktemp("backups")
    directory.chmod(0o711)
    segments, backup = directory / "segments", directory / "backup"
    fleet = Fleet(FULL, directory, extra={"LOGFEED_TIERS__DIRECTORY": str(segments)})
    assert fleet.timescale is not None
    try:
        await asyncio.to_thread(fleet.start_servers)
        roles = [fleet.role("ingest"), fleet.role("query"), fleet.role("write")]
        producers = Producers(lambda: fleet.url("ingest"))
        await fleet.ready("ingest", "query")
        await send_old(fleet, "ingest", producers)
        await send(fleet, "ingest", producers, seed=1)
        await asyncio.to_thread(asyncio.run, into_files(fleet, Layout.TIMESCALE))
        before = await assert_exactly_once(fleet.url("query"), producers)

        path = f"{POSTGRES_BIN}:{os.environ['PATH']}"
        run_block("Full: backup", PGURL=fleet.timescale.url, SEGMENTS=segments, BACKUP=backup, PATH=path)
        await send(fleet, "ingest", producers, seed=2)
        after = await assert_exactly_once(fleet.url("query"), producers)
        assert len(after) == len(before) + 240

        for role in roles:
            role.kill()
        await asyncio.to_thread(fleet.servers.kill_database)
        pgdata = fleet.timescale.directory / "data"
        shutil.rmtree(pgdata)
        shutil.rmtree(segments)
        run_block("Full: restore", PGDATA=pgdata, SEGMENTS=segments, BACKUP=backup)
        for path_ in (pgdata, *pgdata.rglob("*")):
            fleet.timescale.own(path_)
        await asyncio.to_thread(fleet.servers.start)
        for role in roles:
            role.start()
        await fleet.ready("ingest", "query")

        assert await assert_exactly_once(fleet.url("query"), producers) == after
        is_well(fleet, "ingest", "query")
    finally:
        await asyncio.to_thread(fleet.stop_everything)
