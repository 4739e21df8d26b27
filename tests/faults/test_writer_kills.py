"""INV-2 against everything that can happen to a writer, at exact moments of its transaction."""

from __future__ import annotations

import asyncio
import random
import signal
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from functools import partial

import httpx
import psycopg
import pytest
from _pytest.mark import ParameterSet

from infra.fleet import EMBEDDED, FULL, Fleet, Role, free_port, until
from tests.faults.conftest import MakeFleet
from tests.faults.producers import Producers, assert_exactly_once
from tests.faults.proxy import DatabaseProxy, Moment, Trap
from tests.faults.relay import Passing

BATCHES = b"logfeed write batches"
"""application_name of the connection that stores batches."""


_WAITS_FOR_LOGS = "SELECT FROM pg_locks WHERE relation = 'logs'::regclass AND NOT granted"


def in_both_profiles(moments: list[Moment], *, in_embedded: Moment) -> list[ParameterSet]:
    """All moments in the full profile, one in the embedded: the transaction is the same there. The others are long."""
    return [
        pytest.param(
            profile, moment, marks=[pytest.mark.long] if profile == EMBEDDED and moment is not in_embedded else []
        )
        for profile in (EMBEDDED, FULL)
        for moment in moments
    ]


@asynccontextmanager
async def proxied_writer(fleet: Fleet, **more: str) -> AsyncIterator[tuple[DatabaseProxy, Role]]:
    """Ingest and query straight, one writer through the proxy."""
    async with DatabaseProxy(fleet.database_url, application=BATCHES) as proxy:
        fleet.role("serve")
        writer = fleet.role("write", LOGFEED_DATABASE__URL=proxy.url, LOGFEED_WRITER__LEASE_TTL_S="2", **more)
        await fleet.ready("serve")
        yield proxy, writer


async def _send(fleet: Fleet, producers: Producers, *, requests: int) -> None:
    producers.seed += 1
    await producers.run(producers=2, requests=requests, logs_per_request=50)


async def _send_until(fleet: Fleet, producers: Producers, trap: Trap) -> None:
    """Send until the trap has fired, and a little more: a writer may take all that has come in one batch."""
    while not trap.fired.is_set():
        await _send(fleet, producers, requests=5)
    await _send(fleet, producers, requests=5)


@pytest.mark.parametrize("moment", list(Moment))
async def test_writer_killed_at_a_moment_stores_once(make_fleet: MakeFleet, profile: str, moment: Moment) -> None:
    fleet = await asyncio.to_thread(make_fleet, profile)
    async with proxied_writer(fleet) as (proxy, writer):
        producers = Producers(lambda: fleet.url("serve"), seed=0)
        await _send(fleet, producers, requests=2)
        trap = Trap(moment, lambda: writer.signal(signal.SIGKILL), cut=True, skip=1)
        proxy.trap = trap
        sending = asyncio.create_task(_send_until(fleet, producers, trap))
        await asyncio.wait_for(trap.fired.wait(), 60)
        assert writer.process is not None
        await asyncio.to_thread(writer.process.wait, 10)
        writer.start()
        await sending
        await assert_exactly_once(fleet.url("serve"), producers)


@pytest.mark.parametrize(
    "profile, moment",
    in_both_profiles(
        [Moment.MID_COPY, Moment.BEFORE_COMMIT, Moment.COMMIT_ANSWERED], in_embedded=Moment.COMMIT_ANSWERED
    ),
)
async def test_connection_cut_at_a_moment_stores_once(make_fleet: MakeFleet, profile: str, moment: Moment) -> None:
    """The outcome of a COMMIT whose answer never came is read back from the offsets; nothing becomes a dead letter."""
    fleet = await asyncio.to_thread(make_fleet, profile)
    async with proxied_writer(fleet) as (proxy, writer):
        producers = Producers(lambda: fleet.url("serve"), seed=10)
        await _send(fleet, producers, requests=2)
        for _ in range(3):
            proxy.trap = trap = Trap(moment, lambda: None, cut=True)
            await asyncio.wait_for(_send_until(fleet, producers, trap), 60)
        await assert_exactly_once(fleet.url("serve"), producers)
        assert writer.alive
        with psycopg.connect(fleet.database_url) as connection:
            assert connection.execute("SELECT count(*) FROM dead_letters").fetchone() == (0,)


@pytest.mark.parametrize(
    "profile, moment",
    in_both_profiles([Moment.BEFORE_BEGIN, Moment.MID_COPY, Moment.BEFORE_COMMIT], in_embedded=Moment.BEFORE_COMMIT),
)
async def test_stopped_writer_loses_its_partition_and_is_fenced(
    make_fleet: MakeFleet, profile: str, moment: Moment
) -> None:
    fleet = await asyncio.to_thread(make_fleet, profile, partitions=1)
    health_port = free_port()
    async with proxied_writer(fleet, LOGFEED_WRITER__HEALTH_PORT=str(health_port)) as (proxy, stopped):
        producers = Producers(lambda: fleet.url("serve"), seed=20)
        await _send(fleet, producers, requests=2)
        trap = Trap(moment, lambda: stopped.signal(signal.SIGSTOP))
        proxy.trap = trap
        sending = asyncio.create_task(_send_until(fleet, producers, trap))
        await asyncio.wait_for(trap.fired.wait(), 60)
        successor = fleet.role("write", label="successor", LOGFEED_WRITER__LEASE_TTL_S="2")
        await sending
        await until(lambda: _owner_is(fleet, "successor"), what="the partition moved")
        await assert_exactly_once(fleet.url("serve"), producers)
        stopped.signal(signal.SIGCONT)
        await _send(fleet, producers, requests=5)
        await assert_exactly_once(fleet.url("serve"), producers)
        assert await _metric(health_port, "logfeed_fenced_total") == 1
        assert successor.alive
        assert stopped.alive


async def _metric(port: int, name: str) -> float:
    """A metric of a writer, from its own listener."""
    async with httpx.AsyncClient(trust_env=False, timeout=10) as client:
        text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
    (value,) = (line.rpartition(" ")[2] for line in text.splitlines() if line.startswith(f"{name} "))
    return float(value)


async def _owner_is(fleet: Fleet, name: str) -> bool:
    def ask() -> bool:
        with psycopg.connect(fleet.database_url) as connection:
            row = connection.execute(
                "SELECT owner FROM consumer_offsets WHERE topic = %s AND partition = 0", (fleet.topic,)
            ).fetchone()
            return row is not None and row[0] == name

    return await asyncio.to_thread(ask)


async def test_database_away_when_the_writer_starts_and_when_leases_run_out(
    make_fleet: MakeFleet, profile: str
) -> None:
    """Nothing is processed before leases and offsets were read."""
    fleet = await asyncio.to_thread(make_fleet, profile)
    async with DatabaseProxy(fleet.database_url, application=BATCHES) as proxy:
        proxy.turn(Passing.CUT)
        fleet.role("serve")
        writer = fleet.role("write", LOGFEED_DATABASE__URL=proxy.url, LOGFEED_WRITER__LEASE_TTL_S="1")
        await fleet.ready("serve")
        producers = Producers(lambda: fleet.url("serve"), seed=30)
        await _send(fleet, producers, requests=3)
        assert writer.alive
        proxy.turn(Passing.PASS)
        await assert_exactly_once(fleet.url("serve"), producers)
        proxy.turn(Passing.CUT)
        await _send(fleet, producers, requests=3)
        await until(lambda: _no_lease_is_left(fleet), what="the leases of one second have run out")
        proxy.turn(Passing.PASS)
        await assert_exactly_once(fleet.url("serve"), producers)
        assert writer.alive


async def _no_lease_is_left(fleet: Fleet) -> bool:
    def ask() -> bool:
        with psycopg.connect(fleet.database_url) as connection:
            held = "SELECT FROM consumer_offsets WHERE lease_until > clock_timestamp()"
            return not connection.execute(held).fetchall()

    return await asyncio.to_thread(ask)


async def test_deadlock_with_who_drops_a_chunk_is_retried(make_fleet: MakeFleet, profile: str) -> None:
    """Who drops or detaches a chunk takes the table whole; here it holds what the batch needs next, and waits for longer."""
    fleet = await asyncio.to_thread(make_fleet, profile)
    async with proxied_writer(fleet) as (proxy, writer):
        producers = Producers(lambda: fleet.url("serve"), seed=35)
        await _send(fleet, producers, requests=2)
        # The tables that the first batch lacks are made by now: it would end of that, not of the deadlock.
        await assert_exactly_once(fleet.url("serve"), producers)
        with psycopg.connect(fleet.database_url) as dropping, psycopg.connect(fleet.database_url) as watching:
            dropping.execute("SET LOCAL deadlock_timeout = '60s'")
            locking: list[asyncio.Future[object]] = []

            def lock() -> None:
                dropping.execute("SELECT FROM consumer_offsets FOR UPDATE")
                loop = asyncio.get_running_loop()
                take = partial(dropping.execute, "LOCK TABLE logs IN ACCESS EXCLUSIVE MODE")
                locking.append(loop.run_in_executor(None, take))
                # The batch goes on only when it stands in the way.
                while not watching.execute(_WAITS_FOR_LOGS).fetchall():
                    watching.rollback()

            trap = Trap(Moment.MID_COPY, lock)
            proxy.trap = trap
            sending = asyncio.create_task(_send_until(fleet, producers, trap))
            await asyncio.wait_for(trap.fired.wait(), 60)
            await asyncio.wait_for(locking[0], 30)
            dropping.rollback()
        await sending
        await assert_exactly_once(fleet.url("serve"), producers)
        assert "deadlock detected" in writer.log_text()
        assert writer.alive
        with psycopg.connect(fleet.database_url) as connection:
            assert connection.execute("SELECT count(*) FROM dead_letters").fetchone() == (0,)


async def test_writers_come_and_go_and_everything_is_stored_once(make_fleet: MakeFleet, profile: str) -> None:
    fleet = await asyncio.to_thread(make_fleet, profile)
    fleet.role("serve")
    writers = [fleet.role("write", label=f"w{number}", LOGFEED_WRITER__LEASE_TTL_S="1.5") for number in range(2)]
    await fleet.ready("serve")
    producers = Producers(lambda: fleet.url("serve"), seed=40)
    sending = asyncio.create_task(_send(fleet, producers, requests=60))
    end_by: list[Callable[[Role], object]] = [Role.kill, Role.stop]
    for round_number in range(6):
        await producers.acknowledged((round_number + 1) * 800)  # of 6,000
        writer = writers[round_number % 2]
        await asyncio.to_thread(end_by[round_number % 2], writer)
        writer.start()
    await sending
    await assert_exactly_once(fleet.url("serve"), producers)


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("profile", [pytest.param(EMBEDDED, marks=pytest.mark.long), FULL])
async def test_twenty_kills_a_broker_and_a_database_restart_while_200_000_logs_flow(
    make_fleet: MakeFleet, profile: str
) -> None:
    """The promise itself: producers retry with keys, writers die at random, servers crash; each log is stored once."""
    fleet = await asyncio.to_thread(make_fleet, profile)
    chance = random.Random(4)
    serve = fleet.role("serve")
    writers = [fleet.role("write", label=f"w{number}", LOGFEED_WRITER__LEASE_TTL_S="2") for number in range(2)]
    await fleet.ready("serve")
    producers = Producers(lambda: fleet.url("serve"), seed=50)
    kills = 0

    async def among_the_kills(request: int) -> None:
        async def enough() -> bool:
            return kills >= request * 20 // 50

        await until(enough, what=f"kill number {request * 20 // 50}", timeout_s=300)

    producers.before_request = among_the_kills
    sending = asyncio.create_task(producers.run(producers=8, requests=50, logs_per_request=500))
    while kills < 20:
        await asyncio.sleep(chance.uniform(0.2, 0.6))
        writer = chance.choice(writers)
        await asyncio.to_thread(writer.restart_killed)
        kills += 1
        if kills == 7:
            await asyncio.to_thread(fleet.restart_broker)
        if kills == 14:
            await asyncio.to_thread(fleet.restart_database)
    await sending
    assert len(producers.acked) == 200_000
    logs = await assert_exactly_once(fleet.url("serve"), producers, timeout_s=240)
    assert len(logs) == 200_000
    for role in (serve, *writers):
        role.signal(signal.SIGCONT)
        limit_mib = 300 if role is serve else 500
        assert role.peak_kib < limit_mib * 1024, f"{role.log_path.name}: {role.peak_kib} KiB"
    assert profile == EMBEDDED or fleet.kafka is not None
