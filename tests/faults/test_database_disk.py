"""The database's disk is full, or takes nothing any more (its processes sleep in the kernel, where no signal reaches them).

Writers pause, the broker keeps what ingest takes, and afterwards each log is there once, without anybody's help but that of who
mends the disk.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Iterator

import psutil
import pytest

from db.migrations import migrate
from infra.fleet import FULL, Fleet, Role, Servers, until
from infra.native import TimescaleNode
from tests.faults.producers import Producers, assert_exactly_once, ledger_settled
from tests.faults.small_disk import NoDisk, SmallDisk

pytestmark = [pytest.mark.kafka, pytest.mark.timescale, pytest.mark.slow, pytest.mark.timeout(400)]

DISK_MIB = 700
ENDS_WITHIN_S = 60.0
"""A role's own deadline is 25 s."""


@pytest.fixture
def disk(kafka_bootstrap: str, timescale_server: str) -> Iterator[SmallDisk]:
    # The shared servers skip, with the reason, where there can be none.
    try:
        with SmallDisk.mounted(DISK_MIB) as made:
            yield made
    except NoDisk as error:
        pytest.skip(f"no disk can be mounted here: {error}")


@pytest.fixture
def fleet(disk: SmallDisk) -> Iterator[Fleet]:
    """Kafka on the ordinary disk, the database on the small one."""
    directory = disk.path.parent
    servers = Servers(FULL, directory / "servers", timescale=TimescaleNode(disk.path / "timescale"))
    try:
        servers.start()
        asyncio.run(migrate(servers.url, servers.layout))
        made = Fleet(FULL, directory / "fleet", shared=servers, database_url=servers.url)
        try:
            yield made
        finally:
            made.stop_everything()
    finally:
        disk.thaw()
        servers.stop()


async def _begun(fleet: Fleet, producers: Producers) -> Role:
    """Ingest, query and a writer at work; the writer."""
    fleet.role("serve")
    writer = fleet.role("write")
    await fleet.ready("serve")
    await producers.run(producers=2, requests=4, logs_per_request=50)
    await assert_exactly_once(fleet.url("serve"), producers)
    return writer


async def test_a_full_disk_stops_nobody_but_writers_until_there_is_room(disk: SmallDisk, fleet: Fleet) -> None:
    producers = Producers(lambda: fleet.url("serve"), seed=500)
    writer = await _begun(fleet, producers)
    before = len(writer.log_text())
    await asyncio.to_thread(disk.fill)
    producers.seed += 1
    await producers.run(producers=4, requests=20, logs_per_request=200)
    assert producers.retries == 0, "ingest has refused logs that the broker could take"

    async def says_so() -> bool:
        return "No space left on device" in writer.log_text()[before:]

    await until(says_so, what="the writer says that there is no room", timeout_s=60)
    assert writer.alive
    await asyncio.to_thread(disk.make_room)
    # A server that could not write its log has ended: whoever made room starts it.
    await asyncio.to_thread(fleet.servers.start)
    await assert_exactly_once(fleet.url("serve"), producers)
    assert writer.alive


async def test_a_database_that_sleeps_in_the_kernel_holds_up_nobody_but_who_needs_it(
    disk: SmallDisk, fleet: Fleet
) -> None:
    producers = Producers(lambda: fleet.url("serve"), seed=510)
    writer = await _begun(fleet, producers)
    disk.freeze()
    try:
        producers.seed += 1
        await producers.run(producers=4, requests=10, logs_per_request=50)
        assert producers.retries == 0, "ingest has refused logs that the broker could take"
        await until(lambda: _sleeps(fleet), what="a process of the database sleeps in the kernel")
        writer.signal(signal.SIGTERM)
        assert writer.process is not None
        code = await asyncio.to_thread(writer.process.wait, ENDS_WITHIN_S)
        assert code == (1 if "the stop takes too long" in writer.log_text() else 0), writer.log_text()[-2000:]
        writer.start()
        producers.seed += 1
        await producers.run(producers=4, requests=10, logs_per_request=50)
        assert producers.retries == 0, "ingest has refused logs that the broker could take"
        assert any((await ledger_settled_or_nothing(fleet)).values())
    finally:
        disk.thaw()
    await assert_exactly_once(fleet.url("serve"), producers)
    assert writer.alive


async def ledger_settled_or_nothing(fleet: Fleet) -> dict[str, int]:
    """Partition -> records that are not stored, or one entry where nobody can say."""
    ledger = await ledger_settled(fleet.url("serve"))
    unread: dict[str, int] = ledger["unread"] if ledger else {"unknown": 1}
    return unread


async def _sleeps(fleet: Fleet) -> bool:
    assert fleet.timescale is not None
    assert fleet.timescale.pid is not None
    server = psutil.Process(fleet.timescale.pid)
    states = [process.status() for process in (server, *server.children(recursive=True))]
    return psutil.STATUS_DISK_SLEEP in states
