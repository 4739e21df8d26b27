"""The database is away for minutes while logs come in at load: no refusal, nothing lost, and what came meanwhile is not late.

Late is a log whose chunk was closed before it was stored. So chunks are of one minute here and closed without delay, and the
outage spans the ends of several, whatever the clock says: each log that came meanwhile must be in the chunk of its time.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime

import psycopg
import pytest

from infra.fleet import FULL, REPOSITORY, Fleet, die_with_parent, until
from tests.faults.conftest import MakeFleet
from tests.faults.producers import Producers, assert_exactly_once

OUTAGE_S = float(os.environ.get("LOGFEED_FAULT_OUTAGE_S", "150"))
CHUNKS_MIN = int(OUTAGE_S // 60)
"""Ends of chunks within the outage."""


@pytest.mark.long
@pytest.mark.timeout(OUTAGE_S + 400)
async def test_database_away_for_minutes_costs_nothing_and_makes_nothing_late(make_fleet: MakeFleet) -> None:
    fleet = await asyncio.to_thread(make_fleet, FULL)
    with psycopg.connect(fleet.database_url, autocommit=True) as connection:
        connection.execute("UPDATE border SET closed_before = date_trunc('minute', clock_timestamp())")
    fleet.role("serve")
    await fleet.ready("serve")
    with writer_of_minutes(fleet) as writer:
        producers = Producers(lambda: fleet.url("serve"), seed=600, retry_s=20)
        await producers.run(producers=2, requests=2, logs_per_request=50)
        await assert_exactly_once(fleet.url("serve"), producers)

        away_since = _now(fleet)
        await asyncio.to_thread(fleet.servers.kill_database)
        producers.seed += 1
        loop = asyncio.get_running_loop()
        back_s = loop.time() + OUTAGE_S
        while loop.time() < back_s:
            await producers.run(producers=4, requests=20, logs_per_request=50)
            producers.seed += 1
        assert producers.retries == 0, "ingest has refused logs while the database was away"
        await asyncio.to_thread(fleet.servers.start)
        back = _now(fleet)

        logs = await assert_exactly_once(fleet.url("serve"), producers, timeout_s=180)
        assert len(logs) == len(producers.acked)

        async def meanwhile_is_closed() -> bool:
            return await asyncio.to_thread(_closed_between, fleet, away_since, back) >= CHUNKS_MIN

        # So the closer came by, and had left them open until all of theirs was stored.
        await until(meanwhile_is_closed, what=f"{CHUNKS_MIN} chunks of the outage are closed", timeout_s=150)
        assert _rows(fleet, "logs_late_1") == 0, "logs that came while the database was away were treated as late"
        assert _rows(fleet, "logs") == len(producers.acked)
        assert writer.poll() is None


@contextmanager
def writer_of_minutes(fleet: Fleet) -> Iterator[subprocess.Popen[bytes]]:
    """A writer whose chunks are of a minute."""
    environment = fleet.environment(LOGFEED_STORE__CHUNK_HOURS="1", LOGFEED_STORE__CLOSING_DELAY_S="0")
    with (fleet.directory / "minutes.log").open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.faults.minute_chunks", "write", "--name", "minutes"],
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            preexec_fn=die_with_parent,
        )
    try:
        yield process
    finally:
        process.kill()
        process.wait()
        print((fleet.directory / "minutes.log").read_text()[-3000:])


def _now(fleet: Fleet) -> datetime:
    with psycopg.connect(fleet.database_url) as connection:
        row = connection.execute("SELECT clock_timestamp()").fetchone()
    assert row is not None
    now: datetime = row[0]
    return now


def _closed_between(fleet: Fleet, start: datetime, end: datetime) -> int:
    with psycopg.connect(fleet.database_url) as connection:
        row = connection.execute(
            "SELECT count(*) FROM catalogue WHERE kind = 'chunk' AND state <> 'open' AND range_end > %s AND range_end <= %s",
            (start, end),
        ).fetchone()
    assert row is not None
    return int(row[0])


def _rows(fleet: Fleet, table: str) -> int:
    with psycopg.connect(fleet.database_url) as connection:
        row = connection.execute(f"SELECT count(*) FROM {table}".encode()).fetchone()
    assert row is not None
    return int(row[0])
