"""Reading from a real streaming replica: what it shows, when it is left out, what happens when it goes or its primary does."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Iterator

import psycopg
import pytest

from db.database import Database
from db.migrations import Layout
from db.worker_ids import WorkerIdLease
from runtime.clock import SystemClock
from runtime.telemetry import REGISTRY
from schemas.record import Log
from schemas.scope import ALL_SERVICES
from schemas.topics import LOGS_TOPIC
from search.predicate import EVERYTHING, CorrelationIs, MetaEquals, Predicate
from store import parts
from store.memory import CHUNK_US
from store.port import Count, OpenIndex, Order, Scan, Snapshot, SnapshotLost
from store.replicas.choice import AWAY_AFTER
from store.upkeep import PostgresUpkeep
from tests.reading_subjects import T0, PostgresSubject
from tests.replica_pair import Pair, reading, until_used

pytestmark = pytest.mark.timescale


@pytest.fixture(scope="module")
def pair(timescale_server: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pair]:
    """timescale_server: where there can be none, this is skipped too."""
    directory = tmp_path_factory.mktemp("replicas")
    directory.chmod(0o711)
    made = Pair(directory)
    made.start()
    yield made
    made.remove()


@pytest.fixture
async def places(pair: Pair) -> AsyncIterator[tuple[PostgresSubject, str, str]]:
    """A database with two open chunks, and its addresses on both servers."""
    primary_url, replica_url = await asyncio.to_thread(pair.make_database, os.environ["LOGFEED_TEST_RUN"])
    subject = await PostgresSubject(primary_url, Layout.TIMESCALE).open()
    await subject.open_chunks((T0, T0 + CHUNK_US))
    await subject.set_partitions({0: (10, T0), 1: (20, T0)})
    yield subject, primary_url, replica_url
    await subject.close()


def some(first: int, number: int) -> list[Log]:
    return [
        Log(
            id=n,
            timestamp=T0 + n * 1_000_000,
            level=9 + 4 * (n % 2),
            service_name="shop",
            message=f"message {n}",
            correlation_id=f"c{n % 5}",
            metadata={"user": f"u{n % 3}"},
        )
        for n in range(first, first + number)
    ]


async def ids(snapshot: Snapshot, predicate: Predicate = EVERYTHING) -> list[int]:
    result = await snapshot.scan(
        Scan(predicate, Order.OLDEST_FIRST, 1000, budget_ms=30_000, beyond_ms=30_000), allowed=ALL_SERVICES
    )
    assert result.finished
    return [log.id for log in result.logs]


def fallbacks(reason: str) -> float:
    return REGISTRY.get_sample_value("logfeed_query_replica_fallbacks_total", {"reason": reason}) or 0.0


async def test_a_replica_answers_every_kind_of_question_with_the_indexes_of_open_chunks(
    pair: Pair, places: tuple[PostgresSubject, str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    subject, primary_url, replica_url = places
    for name in ("ROWS_MIN", "QUIET_ROWS_MIN"):
        monkeypatch.setattr(parts, name, 1)
    await subject.put(some(1, 50))
    await subject.run("INSERT INTO asked_keys VALUES ('user', clock_timestamp())")
    await subject.run("UPDATE consumer_offsets SET stored_to = clock_timestamp()")
    upkeep = PostgresUpkeep(subject.database, LOGS_TOPIC, Layout.TIMESCALE)
    for by in OpenIndex:
        while await upkeep.index_open(by) == 0:
            await subject.run("UPDATE consumer_offsets SET stored_to = clock_timestamp()")
    while await upkeep.sum_open() == 0:  # what others of this server have begun before has to end first
        await subject.run("UPDATE consumer_offsets SET stored_to = clock_timestamp()")
    await subject.put(some(51, 4))  # in no part, in no sum
    pair.catch_up()
    async with reading(primary_url, replica_url) as store:
        async with store.snapshot() as snapshot:
            assert not snapshot.is_current
            assert snapshot.offsets == {0: 10, 1: 20}
            assert snapshot.visible_through_us > T0
            assert len(snapshot._catalogue._parts) == len(OpenIndex)  # type: ignore[attr-defined]  # what it knows
            assert await ids(snapshot) == list(range(1, 55))
            assert await ids(snapshot, CorrelationIs("c2")) == list(range(2, 55, 5))
            assert await ids(snapshot, MetaEquals(("user",), "u1")) == list(range(1, 55, 3))
            assert (await snapshot.by_id(7, allowed=ALL_SERVICES)) == some(7, 1)[0]
            count = Count(EVERYTHING, T0, T0 + CHUNK_US, CHUNK_US, T0)
            assert sum((await snapshot.count(count, allowed=ALL_SERVICES)).rows.values()) == 54
            second = await snapshot._second.runner()  # type: ignore[attr-defined]  # of the same moment
            assert second is not None
            assert await second.rows("SELECT count(*) FROM logs", ()) == [(54,)]
        assert [state.problem for state in store.states()] == [None]
        await until_noted(store, subject)


async def until_noted(store: object, subject: PostgresSubject) -> None:
    """Keys that questions on a replica ask for are noted on the primary, where parts are made by them."""
    from store.replicas.store import ReplicatedReadStore

    assert isinstance(store, ReplicatedReadStore)
    async with store.snapshot() as snapshot:
        snapshot.wanted_keys.add("elsewhere")  # type: ignore[attr-defined]  # as a scan that found it rare
    assert await subject.run("SELECT key FROM asked_keys WHERE key = 'elsewhere'") == [("elsewhere",)]


async def test_a_replica_that_has_not_replayed_something_claims_nothing_of_it_and_cursors_go_elsewhere(
    pair: Pair, places: tuple[PostgresSubject, str, str]
) -> None:
    subject, primary_url, replica_url = places
    await subject.put(some(1, 5))
    pair.catch_up()
    async with reading(primary_url, replica_url, lag_s_max=60) as store:
        with psycopg.connect(pair.replica.url, autocommit=True) as connection:
            connection.execute("SELECT pg_wal_replay_pause()")
        try:
            await subject.put(some(6, 5))
            await subject.run(
                "UPDATE consumer_offsets SET next_offset = 11, stored_to = stored_to + '1 h' WHERE partition = 0"
            )
            async with store.snapshot() as snapshot:
                assert await ids(snapshot) == [1, 2, 3, 4, 5]
                assert snapshot.offsets == {0: 10, 1: 20}
                shown_us = snapshot.visible_through_us
            before = fallbacks("behind")
            async with store.snapshot(at_least={0: 11, 1: 20}) as snapshot:
                assert snapshot.is_current
                assert len(await ids(snapshot)) == 10
                assert snapshot.visible_through_us >= shown_us
            assert fallbacks("behind") == before + 1
            async with reading(primary_url, replica_url, lag_s_max=0.001, look=False) as strict:
                await subject.put(some(11, 1))
                await strict.look()
                (state,) = strict.states()
                assert "behind" in str(state.problem)
                async with strict.snapshot() as snapshot:
                    assert snapshot.is_current
                with psycopg.connect(pair.replica.url, autocommit=True) as connection:
                    connection.execute("SELECT pg_wal_replay_resume()")
                await until_used(strict)
                async with strict.snapshot(at_least={0: 11}) as snapshot:
                    assert not snapshot.is_current
                    assert len(await ids(snapshot)) == 11
        finally:
            with psycopg.connect(pair.replica.url, autocommit=True) as connection:
                connection.execute("SELECT pg_wal_replay_resume()")


async def test_a_question_that_replaying_ends_is_asked_again_of_the_primary_and_the_replica_stays(
    pair: Pair, places: tuple[PostgresSubject, str, str]
) -> None:
    subject, primary_url, replica_url = places
    await subject.put(some(1, 5))
    await asyncio.to_thread(pair.set_on_replica, "max_standby_streaming_delay", "0")
    pair.catch_up()
    async with reading(primary_url, replica_url) as store:

        async def lost() -> None:
            async with store.snapshot() as snapshot:
                assert not snapshot.is_current
                # A lock that replaying needs: the question is in its way.
                await subject.run("ALTER TABLE border ADD COLUMN more integer")
                while True:
                    await ids(snapshot)

        before = fallbacks("broken")
        with pytest.raises(SnapshotLost):
            await asyncio.wait_for(lost(), 30)
        assert fallbacks("broken") == before + 1
        assert [state.problem for state in store.states()] == [None]
        async with store.snapshot(is_again=True) as snapshot:
            assert snapshot.is_current
            assert await ids(snapshot) == [1, 2, 3, 4, 5]
    await asyncio.to_thread(pair.set_on_replica, "max_standby_streaming_delay", "30000")


async def test_a_replica_that_goes_is_left_out_until_it_is_back_and_one_alone_goes_on(
    pair: Pair, places: tuple[PostgresSubject, str, str]
) -> None:
    """The last test: the replica is promoted in the end."""
    subject, primary_url, replica_url = places
    await subject.put(some(1, 5))
    pair.catch_up()
    async with reading(primary_url, replica_url) as store:
        pair.replica.kill()
        async with store.snapshot() as snapshot:
            assert snapshot.is_current
            assert len(await ids(snapshot)) == 5
        (state,) = store.states()
        assert state.problem is not None
        pair.replica.start()
        await until_used(store)

        lease = WorkerIdLease(subject.database, instance="before", clock=SystemClock())
        await lease.acquire()
        assert lease.worker == 0
        pair.catch_up()
        pair.primary.kill()
        for _ in range(AWAY_AFTER):
            await store.look()
        async with store.snapshot() as snapshot:
            assert not snapshot.is_current
            assert len(await ids(snapshot)) == 5

        # That number might have been leased by a transaction that the replica does not have: nobody takes one of these now.
        pair.replica.promote()
        database = Database(replica_url, application_name="after")
        await database.open()
        await database.execute("DELETE FROM worker_ids")
        lease = WorkerIdLease(database, instance="after", clock=SystemClock())
        await lease.acquire()
        assert lease.worker == 256
        await database.close()
        await store.look()
        (state,) = store.states()
        assert "no replica" in str(state.problem)
