"""Worker numbers: two processes never share one, whatever dies, and ids end before the lease does."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any, cast

import pytest
from pydantic import ValidationError
from structlog.testing import capture_logs

from db.database import Database
from db.worker_ids import STOP_AFTER_S, ClockSkewed, NoWorkerIdFree, WorkerIdLease
from idgen.snowflake import ClockMovedBack, IdsUnavailable, LeaseEnded
from ingest.settings import IngestSettings
from runtime.clock import ManualClock, SystemClock
from runtime.stopping import Stop
from runtime.telemetry import REGISTRY
from schemas.errors import Overloaded
from schemas.ids import received_ms


@pytest.fixture
async def database(native_url: str) -> AsyncIterator[Database]:
    database = Database(native_url, application_name="test")
    await database.open()
    yield database
    await database.close()


def clock(offset_s: float = 0.0) -> ManualClock:
    return ManualClock(SystemClock().now_us() + int(offset_s * 1e6))


async def taken(database: Database, instance: str = "a", at: ManualClock | None = None) -> WorkerIdLease:
    lease = WorkerIdLease(database, instance=instance, clock=at or clock())
    await lease.acquire()
    return lease


async def set_row(database: Database, worker: int, *, lease: str, reserved: str) -> None:
    """lease, reserved: seconds from now."""
    await database.execute(
        "UPDATE worker_ids SET lease_until = clock_timestamp() + %s::interval, "
        "reserved_until_ms = (extract(epoch FROM clock_timestamp() + %s::interval) * 1000)::bigint WHERE worker = %s",
        (lease, reserved, worker),
    )


async def test_processes_that_start_at_once_get_different_numbers(database: Database) -> None:
    leases = await asyncio.gather(*(taken(database, "same name") for _ in range(12)))
    assert sorted(lease.worker or 0 for lease in leases) == list(range(12))
    ids = [each for lease in leases for each in lease.take(100)]
    assert len(set(ids)) == 1200


async def test_number_of_a_killed_process_is_not_reused_before_lease_and_reserved_time_passed(
    database: Database,
) -> None:
    killed = await taken(database)
    assert killed.worker == 0
    await set_row(database, 0, lease="-1 s", reserved="600 s")
    assert (await taken(database)).worker == 1, "the reserved milliseconds lie ahead"
    await set_row(database, 0, lease="600 s", reserved="-1 s")
    assert (await taken(database)).worker == 2, "the lease runs"
    await set_row(database, 0, lease="-1 s", reserved="-1 s")
    assert (await taken(database, at=clock(-60))).worker == 3, "the taker's clock is before the reserved time"
    assert (await taken(database)).worker == 0


async def test_number_given_back_is_taken_again_with_later_ids(database: Database) -> None:
    at = clock()
    first = await taken(database, at=at)
    used = first.take(10)
    await first.release()
    with pytest.raises(LeaseEnded, match="given back"):
        first.take(1)
    at.advance(0.005)
    second = await taken(database, at=at)
    assert second.worker == 0
    assert received_ms(second.take(1)[0]) > received_ms(used[-1])
    row = await database.fetch_one("SELECT owner FROM worker_ids WHERE worker = 0")
    assert row == (second.owner,)
    await first.release()
    assert await second.renew(), "a release without a lease takes nothing away"


async def test_restart_with_the_clock_back_gives_no_id_again(database: Database) -> None:
    first = await taken(database)
    used = first.take(10)
    await first.release()
    second = await taken(database, at=clock(-120))
    assert second.worker == 1
    assert second.take(1) != used[:1]


async def test_ids_stop_after_55_minutes_without_database_and_go_on_after_a_renewal(database: Database) -> None:
    at = clock()
    lease = await taken(database, at=at)
    at.monotonic += STOP_AFTER_S - 1
    assert lease.take(1)
    at.monotonic += 1
    with pytest.raises(LeaseEnded, match="not renewed for 55 minutes") as refused:
        lease.take(1)
    assert refused.value.retry_after_s > 0
    assert lease.problem is not None
    assert await lease.renew()
    assert lease.take(1)


async def test_clock_a_year_ahead_or_an_hour_back_gives_no_ids(database: Database) -> None:
    at = clock()
    lease = await taken(database, at=at)
    first = lease.take(1)
    at.wall_us += 365 * 86_400_000_000
    with pytest.raises(LeaseEnded):
        lease.take(1)
    at.wall_us -= 365 * 86_400_000_000 + 3_600_000_000
    with pytest.raises(ClockMovedBack):
        lease.take(1)
    at.wall_us += 3_600_000_000
    assert lease.take(1)[0] == first[0] + 1


def clock_refusals() -> float:
    return REGISTRY.get_sample_value("logfeed_clock_refusals_total") or 0.0


@pytest.mark.parametrize("step_s", [-3600, 365 * 86_400])
async def test_clock_steps_are_counted_shown_and_logged_once_a_minute(database: Database, step_s: int) -> None:
    at, before = clock(), clock_refusals()
    lease = await taken(database, at=at)
    lease.take(1)
    with capture_logs() as logs:
        at.wall_us += step_s * 1_000_000
        assert "the clock" in str(lease.problem)
        for refusals in range(1, 4):
            with pytest.raises(IdsUnavailable):
                lease.take(1)
            assert clock_refusals() == before + refusals
        assert [each["log_level"] for each in logs] == ["error"]
        at.monotonic += 60
        with pytest.raises(IdsUnavailable):
            lease.take(1)
        assert len(logs) == 2
        with pytest.raises(ClockSkewed):
            await lease.renew()
        with pytest.raises(LeaseEnded, match="correct the clock"):
            lease.take(1)
        assert clock_refusals() == before + 5
        assert "correct the clock" in str(lease.problem)
    at.wall_us -= step_s * 1_000_000
    await lease.acquire()
    assert lease.problem is None
    await lease.release()
    with pytest.raises(LeaseEnded):
        lease.take(1)
    assert clock_refusals() == before + 5, "a number given back is no matter of the clock"


async def test_lost_lease_is_noticed_and_replaced(database: Database) -> None:
    lease = await taken(database)
    await database.execute("UPDATE worker_ids SET owner = 'thief' WHERE worker = 0")
    assert not await lease.renew()
    with pytest.raises(LeaseEnded, match="was lost"):
        lease.take(1)
    await lease.acquire()
    assert lease.worker == 1
    await set_row(database, 1, lease="-1 s", reserved="-1 s")
    assert not await lease.renew(), "a lease that ran out is not revived: another may have had it"


async def test_renewal_extends_lease_and_reserved_time(database: Database) -> None:
    lease = await taken(database)
    await set_row(database, 0, lease="10 s", reserved="10 s")
    assert await lease.renew()
    row = await database.fetch_one(
        "SELECT lease_until > clock_timestamp() + '59 min'::interval, "
        "reserved_until_ms > extract(epoch FROM clock_timestamp()) * 1000 + 59 * 60000 FROM worker_ids WHERE worker = 0"
    )
    assert row == (True, True)


@pytest.mark.parametrize("offset_s", [-400, 400])
async def test_clock_far_from_the_databases_is_refused_with_the_reason(database: Database, offset_s: int) -> None:
    with pytest.raises(ClockSkewed, match="correct the clock"):
        await taken(database, at=clock(offset_s))
    at = clock()
    lease = await taken(database, at=at)
    at.wall_us += offset_s * 1_000_000
    with pytest.raises(ClockSkewed):
        await lease.renew()
    with pytest.raises(LeaseEnded, match="this machine's clock"):
        lease.take(1)


async def test_all_numbers_leased_is_told(database: Database) -> None:
    await database.execute(
        "INSERT INTO worker_ids SELECT n, 'other', clock_timestamp() + '1 h'::interval, 0 FROM generate_series(0, 1023) AS n"
    )
    with pytest.raises(NoWorkerIdFree) as refused:
        await taken(database)
    assert isinstance(refused.value, Overloaded), "a start waits for what is overloaded"
    assert refused.value.retry_after_s == 60
    await set_row(database, 300, lease="-1 s", reserved="-1 s")
    with pytest.raises(NoWorkerIdFree):
        await taken(database)
    await set_row(database, 7, lease="-1 s", reserved="-1 s")
    assert (await taken(database)).worker == 7


async def test_a_quarter_is_left_for_the_next_timeline_and_a_young_one_gives_out_its_own_alone(
    database: Database,
) -> None:
    """Who took a number in the last moments of the timeline before may be unknown to a replica that was promoted."""
    await database.execute(
        "INSERT INTO worker_ids SELECT n, 'other', clock_timestamp() + '1 h'::interval, 0 FROM generate_series(0, 255) AS n"
    )
    assert (await taken(database)).worker == 512, "256 to 511 are the next timeline's"
    await database.execute("UPDATE timelines SET seen_at = clock_timestamp()")
    with pytest.raises(NoWorkerIdFree):
        await taken(database)
    await set_row(database, 9, lease="-1 s", reserved="-1 s")
    assert (await taken(database)).worker == 9


async def test_regions_have_numbers_of_their_own(database: Database) -> None:
    async def worker(region: int, regions: int = 3) -> int | None:
        settings = IngestSettings(region=region, regions=regions)
        lease = WorkerIdLease(database, instance="a", clock=clock(), numbers=settings.worker_numbers)
        await lease.acquire()
        return lease.worker

    assert [await worker(region) for region in (0, 1, 2, 0, 1)] == [0, 341, 682, 1, 342]
    assert await worker(15, regions=16) == 960
    shares = [set(IngestSettings(region=n, regions=16).worker_numbers) for n in range(16)]
    assert len(set().union(*shares)) == sum(map(len, shares)) == 1024
    with pytest.raises(ValidationError, match=r"region must be 0\.\.1"):
        IngestSettings(region=2, regions=2)


@asynccontextmanager
async def kept(lease: WorkerIdLease, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[None]:
    """The keeper runs, with short pauses while ids are missing."""
    monkeypatch.setattr("db.worker_ids.RETRY_S", 0.01)
    stop = Stop()
    async with asyncio.timeout(30), asyncio.TaskGroup() as group:
        group.create_task(lease.keep(stop))
        yield
        stop.set()


async def until_problem(lease: WorkerIdLease, text: str | None) -> None:
    """Wait until the problem has this in it, or there is none."""
    while not (lease.problem is None if text is None else text in str(lease.problem)):  # noqa: ASYNC110  # asks a property
        await asyncio.sleep(0.005)


@pytest.mark.parametrize("offset_s", [-400, 400])
async def test_keeper_waits_for_the_right_clock_says_so_and_repeats_no_id(
    database: Database, monkeypatch: pytest.MonkeyPatch, offset_s: int
) -> None:
    others = (await taken(database)).take(100)
    at, before = clock(offset_s), clock_refusals()
    lease = WorkerIdLease(database, instance="a", clock=at)
    with capture_logs() as logs:
        async with kept(lease, monkeypatch):
            await until_problem(lease, "correct the clock")
            with pytest.raises(LeaseEnded, match="correct the clock") as refused:
                lease.take(1)
            assert refused.value.retry_after_s > 0
            assert clock_refusals() == before + 1
            at.wall_us -= offset_s * 1_000_000
            await until_problem(lease, None)
            mine = lease.take(100)
    assert not set(mine) & set(others)
    refusals = [entry for entry in logs if entry["log_level"] == "error" and "correct the clock" in entry["error"]]
    assert len(refusals) == 2, "the lease's trouble once however often it was tried, the request's once"


async def test_keeper_replaces_a_lost_number(database: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("db.worker_ids.RENEW_S", 0.01)
    lease = WorkerIdLease(database, instance="a", clock=clock())
    async with kept(lease, monkeypatch):
        await until_problem(lease, None)
        used = lease.take(10)
        await database.execute("UPDATE worker_ids SET owner = 'thief' WHERE worker = 0")
        while lease.worker != 1:  # noqa: ASYNC110  # asks a property
            await asyncio.sleep(0.005)
        assert not set(lease.take(10)) & set(used)


class Broken:
    """A database whose every statement fails as nobody expects, while it is broken."""

    def __init__(self, database: Database) -> None:
        self._database = database
        self.is_broken = True

    def __getattr__(self, name: str) -> Any:
        if self.is_broken:
            raise RuntimeError("no such thing")
        return getattr(self._database, name)


async def test_unexpected_errors_neither_end_the_keeper_nor_the_ids_it_has(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("db.worker_ids.RENEW_S", 0.01)
    broken, at = Broken(database), clock()
    lease = WorkerIdLease(cast(Database, broken), instance="a", clock=at)
    async with kept(lease, monkeypatch):
        await until_problem(lease, "no such thing")
        with pytest.raises(LeaseEnded):
            lease.take(1)
        broken.is_broken = False
        await until_problem(lease, None)
        broken.is_broken = True
        assert lease.take(1)
        at.monotonic += STOP_AFTER_S
        with pytest.raises(LeaseEnded, match="not renewed for 55 minutes"):
            lease.take(1)
        broken.is_broken = False
        await until_problem(lease, None)
        assert lease.take(1)


async def test_keeper_ends_at_the_stop(database: Database) -> None:
    lease, stop = await taken(database), Stop()
    keeper = asyncio.create_task(lease.keep(stop))
    stop.set()
    async with asyncio.timeout(5):
        await keeper
