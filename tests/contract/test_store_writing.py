"""The writers' side of the store, the same for every implementation (store/port.py, WriteStore).

INV-1 and INV-2 rest on this: each conflict is forced, and each time nothing at all of the batch may be there.
"""

from __future__ import annotations

import asyncio
import os
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import timedelta
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db.database import Connection, connect
from db.migrations import Layout
from schemas.errors import DatabaseUnavailable, LogfeedError
from store import postgres_write
from store.batches import _INSERT_KEYS, _KNOWN_KEYS
from store.chunks import attach_partition
from store.memory import MemoryDatabase, MemoryStore
from store.port import (
    BorderMoved,
    ChunkMissing,
    CountMismatch,
    DeadLetter,
    Fenced,
    KeyAlreadyStored,
    Lease,
    LedgerRow,
    NameTaken,
    OffsetMove,
    Outcome,
    RowsRefused,
    StoreConflict,
    StoredKey,
    StorePlan,
    WriteStore,
)
from tests.store_sites import (
    HOUR_US,
    TOPIC,
    MemorySite,
    PostgresSite,
    Site,
    booked,
    now_us,
    postgres_site,
    prepared,
    row,
)

LONG_S = 60.0
OVER_S = 0.0
"""A lease with this time to live is over at once."""
DAY_US = 24 * HOUR_US
FRAME = b"0123456789abcdef"

DATABASES = [Layout.NATIVE.value, pytest.param(Layout.TIMESCALE.value, marks=pytest.mark.timescale)]


@pytest.fixture(params=DATABASES)
def database_place(request: pytest.FixtureRequest) -> tuple[str, Layout]:
    """URL and layout of a fresh database."""
    return request.getfixturevalue(f"{request.param}_url"), Layout(request.param)


@pytest.fixture(params=[*DATABASES, "memory"])
def place(request: pytest.FixtureRequest) -> tuple[str, Layout] | None:
    """The same, or None for the store in memory."""
    if request.param == "memory":
        return None
    return request.getfixturevalue(f"{request.param}_url"), Layout(request.param)


@pytest.fixture
async def site(place: tuple[str, Layout] | None) -> AsyncIterator[Site]:
    if place is None:
        memory = MemoryDatabase()
        yield await prepared(MemorySite(memory, MemoryStore(memory)))
        return
    async with postgres_site(*place) as made:
        yield await prepared(made)


@pytest.fixture
async def database_site(database_place: tuple[str, Layout]) -> AsyncIterator[PostgresSite]:
    async with postgres_site(*database_place) as made:
        yield await prepared(made)


def move(lease: Lease, by: int = 1, *, stored_to_us: int = 0) -> OffsetMove:
    """The lease's partition goes on by so many offsets."""
    return OffsetMove(
        lease.partition, lease.epoch, lease.next_offset, lease.next_offset + by, FRAME, stored_to_us or now_us()
    )


async def claimed(process: WriteStore, owner: str = "a", *, want: int = 3, ttl_s: float = LONG_S) -> list[Lease]:
    return await process.claim(owner, want=want, ttl_s=ttl_s)


async def commit(process: WriteStore, plan: StorePlan) -> None:
    async with process.begin() as batch:
        await batch.commit(plan)


async def nothing_stored(site: Site, process: WriteStore, leases: list[Lease], owner: str = "a") -> None:
    """Rows, ledger, dead letters and offsets are as before anything was stored."""
    assert await site.rows() == []
    assert await site.ledger() == {}
    assert await site.dead_lines() == []
    renewed = await process.renew(owner, leases, ttl_s=LONG_S)
    assert [(lease.next_offset, lease.last_frame_id) for lease in renewed] == [(0, None)] * len(leases)


def full_plan(leases: list[Lease], *, hot: int = 3) -> StorePlan:
    """Something of everything, for a border at the current chunk."""
    return StorePlan(
        hot=[row(n, now_us()) for n in range(hot)],
        late=[row(100, now_us() - DAY_US)],
        keys=[StoredKey(b"key", b"body")],
        ledger=[*booked(hot + 1), *booked(2, Outcome.DUPLICATE)],
        dead=[DeadLetter(leases[0].partition, 0, 7, "refused", "NUL \0", "api", now_us(), b"line\0", 7)],
        moves=[move(lease) for lease in leases],
    )


# --- one batch ------------------------------------------------------------------------------------------------------


async def test_batch_is_stored_whole(site: Site) -> None:
    process = site.process()
    leases = await claimed(process)
    async with process.begin() as batch:
        assert batch.border.closed_before_us <= now_us()
        assert batch.border.late_generation == 1
        assert await batch.known_keys([b"key"]) == {}
        await batch.commit(full_plan(leases))
    assert [log_id for log_id, _ in await site.rows()] == [0, 1, 2, 100]
    assert await site.ledger() == {"stored": 4, "duplicate": 2}
    assert await site.dead_lines() == [b"line\0"]
    renewed = await process.renew("a", leases, ttl_s=LONG_S)
    assert [(lease.next_offset, lease.last_frame_id) for lease in renewed] == [(1, FRAME)] * 3


async def test_recent_lines_are_those_stored_or_put_aside_but_for_reused_keys(site: Site) -> None:
    process = site.process()
    assert await process.recent_lines() == (0, 0)
    minute_us = now_us() // 60_000_000 * 60_000_000
    dead = [
        LedgerRow(minute_us - 3 * HOUR_US, "api", 0, Outcome.DEAD, reason, count)
        for reason, count in (("refused", 3), ("undecodable", 4), ("key_reused", 100))
    ]
    rows = [row(n, now_us()) for n in range(5)]
    await commit(process, StorePlan(hot=rows, ledger=[*booked(5), *booked(50, Outcome.DUPLICATE), *dead]))
    assert await site.process().recent_lines() == (12, 7)


async def test_rows_come_back_as_they_were_written(database_site: PostgresSite) -> None:
    text = "tab\t, line\n, quote ', back\\slash, 日本, \U0001f600"
    at_us = now_us()
    full = row(5, at_us, text, service_name="a/b", level=17, correlation_id=text, metadata=msgspec.Raw(b'{"n": 1.50}'))
    bare = row(6, at_us + 1, "", metadata=msgspec.Raw(b""))
    await commit(database_site.process(), StorePlan(hot=[full, bare], ledger=booked(2)))
    stored = await database_site.database.fetch_all(
        "SELECT (extract(epoch FROM timestamp) * 1000000)::bigint, id, level, service_name, correlation_id, message,"
        " metadata::text FROM logs ORDER BY id"
    )
    assert stored == [(at_us, 5, 17, "a/b", text, text, '{"n": 1.50}'), (at_us + 1, 6, 9, "api", None, "", "{}")]


async def test_leaving_a_batch_without_commit_stores_nothing(site: Site) -> None:
    process = site.process()
    leases = await claimed(process)
    async with process.begin():
        pass
    with pytest.raises(ZeroDivisionError):
        async with process.begin():
            raise ZeroDivisionError
    await nothing_stored(site, process, leases)
    await commit(process, full_plan(leases))
    assert len(await site.rows()) == 4


async def test_empty_plan_is_a_batch_too(site: Site) -> None:
    await commit(site.process(), StorePlan())
    assert await site.rows() == []


# --- conflicts: all or nothing ---------------------------------------------------------------------------------------


async def test_stored_key_rolls_the_batch_back(site: Site) -> None:
    """LF001."""
    process = site.process()
    leases = await claimed(process)
    await commit(process, StorePlan(keys=[StoredKey(b"key", b"first")]))
    with pytest.raises(KeyAlreadyStored):
        await commit(process, full_plan(leases))
    await nothing_stored(site, process, leases)
    async with process.begin() as batch:
        assert await batch.known_keys([b"key", b"other"]) == {b"key": b"first"}
        await batch.commit(replace(full_plan(leases), keys=[]))
    assert len(await site.rows()) == 4


async def test_key_stored_on_an_earlier_day_is_known(database_site: PostgresSite) -> None:
    process = database_site.process()
    await commit(process, StorePlan(keys=[StoredKey(b"key", b"first")]))
    async with database_site.database.connection() as connection:
        row_of_today = await (await connection.execute("SELECT stored_day FROM stored_keys")).fetchone()
        assert row_of_today is not None
        earlier = row_of_today[0] - timedelta(days=4)
        until = (earlier + timedelta(days=1)).isoformat()
        await attach_partition(connection, "stored_keys", "stored_keys_earlier", earlier.isoformat(), until)
        await connection.execute("UPDATE stored_keys SET stored_day = %s", (earlier,))
    async with process.begin() as batch:
        assert await batch.known_keys([b"key"]) == {b"key": b"first"}
    with pytest.raises(KeyAlreadyStored):
        await commit(process, StorePlan(keys=[StoredKey(b"key", b"first")]))


@pytest.mark.parametrize("wrong", [{"epoch": 99}, {"from_offset": 4}, {"partition": 77}])
async def test_batch_of_another_epoch_or_offset_is_fenced(site: Site, wrong: dict[str, Any]) -> None:
    """LF002: one wrong move of several undoes all of them."""
    process = site.process()
    leases = await claimed(process)
    plan = full_plan(leases)
    plan.moves[1] = replace(plan.moves[1], **wrong)
    with pytest.raises(Fenced):
        await commit(process, plan)
    await nothing_stored(site, process, leases)


async def test_same_batch_again_is_fenced_and_the_lease_says_that_it_was_stored(site: Site) -> None:
    """What a writer does after a COMMIT of unknown outcome."""
    process = site.process()
    leases = await claimed(process, want=1)
    plan = replace(full_plan(leases), keys=[])
    await commit(process, plan)
    with pytest.raises(Fenced):
        await commit(process, plan)
    (renewed,) = await process.renew("a", leases, ttl_s=LONG_S)
    assert (renewed.epoch, renewed.next_offset) == (plan.moves[0].epoch, plan.moves[0].next_offset)
    assert len(await site.rows()) == 4


async def test_batch_of_a_halted_partition_is_fenced(site: Site) -> None:
    process = site.process()
    leases = await claimed(process)
    await process.halt(leases[2], "frame id differs")
    await process.halt(leases[2], "something later")
    with pytest.raises(Fenced):
        await commit(process, full_plan(leases))
    await nothing_stored(site, process, leases)
    renewed = await process.renew("a", leases, ttl_s=LONG_S)
    assert [lease.halted for lease in renewed] == [None, None, "frame id differs"]
    await commit(process, full_plan(leases[:2]))
    assert len(await site.rows()) == 4


async def test_replaced_owner_cannot_store(site: Site) -> None:
    old, new = site.process(), site.process()
    leases = await claimed(old, "old", ttl_s=OVER_S)
    taken = await claimed(new, "new")
    assert [lease.epoch for lease in taken] == [lease.epoch + 1 for lease in leases]
    # A database ends the old owner's connection besides: it may find that out first.
    with pytest.raises((Fenced, DatabaseUnavailable)):
        await commit(old, full_plan(leases))
    with pytest.raises(Fenced):
        await commit(old, full_plan(leases))
    assert await old.renew("old", leases, ttl_s=LONG_S) == []
    await nothing_stored(site, new, taken, "new")


async def border_passes_the_current_chunk(site: Site, process: WriteStore) -> None:
    async with process.begin() as batch:
        closed_before_us = batch.border.closed_before_us
    seen_us = closed_before_us + 7 * HOUR_US
    await site.see(seen_us)
    await site.upkeep.ensure_chunks(now_us=seen_us)
    assert await site.upkeep.close_due(now_us=seen_us) == 1


async def test_border_that_moves_meanwhile_rolls_the_batch_back(site: Site) -> None:
    """LF003: the rows are stored by a new batch, in the late table."""
    process, other = site.process(), site.process()
    leases = await claimed(process)
    plan = StorePlan(hot=[row(1, now_us())], ledger=booked(1), moves=[move(leases[0])])
    async with process.begin() as batch:
        before = batch.border
        assert before.closed_before_us <= plan.hot[0].timestamp_us
        await border_passes_the_current_chunk(site, other)
        with pytest.raises(BorderMoved):
            await batch.commit(plan)
    await nothing_stored(site, process, leases)
    async with process.begin() as batch:
        assert batch.border.closed_before_us == before.closed_before_us + 6 * HOUR_US
        assert plan.hot[0].timestamp_us < batch.border.closed_before_us
        await batch.commit(replace(plan, hot=[], late=plan.hot))
    assert await site.rows() == [(1, "m")]


async def test_rows_after_the_border_are_stored_though_it_moves(site: Site) -> None:
    process, other = site.process(), site.process()
    async with process.begin() as batch:
        in_next_chunk = batch.border.closed_before_us + 6 * HOUR_US
        await border_passes_the_current_chunk(site, other)
        await batch.commit(StorePlan(hot=[row(1, in_next_chunk)], ledger=booked(1)))
    assert await site.rows() == [(1, "m")]


async def test_late_table_that_ends_meanwhile_rolls_the_batch_back(site: Site) -> None:
    """LF003 for late rows."""
    process = site.process()
    leases = await claimed(process)
    old_us = now_us() - 3 * DAY_US
    await commit(process, StorePlan(late=[row(1, old_us)], ledger=booked(1)))
    plan = StorePlan(late=[row(2, old_us)], ledger=booked(1), moves=[move(leases[0])])
    async with process.begin() as batch:
        assert await site.upkeep.close_due(now_us=now_us() + 2 * DAY_US) == 1
        with pytest.raises(BorderMoved):
            await batch.commit(plan)
    async with process.begin() as batch:
        assert batch.border.late_generation == 2
        await batch.commit(plan)
    assert await site.rows() == [(1, "m"), (2, "m")]


async def test_ledger_that_counts_otherwise_rolls_the_batch_back(site: Site) -> None:
    """LF004."""
    process = site.process()
    leases = await claimed(process)
    for stored in (3, 5):
        with pytest.raises(CountMismatch):
            await commit(process, replace(full_plan(leases), ledger=booked(stored)))
    await nothing_stored(site, process, leases)


async def test_server_counts_the_rows_itself(database_site: PostgresSite) -> None:
    """LF004 by the server: what one EncodedRow holds may be more than one row."""
    process = database_site.process()
    leases = await claimed(process)
    plan = full_plan(leases)
    plan.hot[0] = msgspec.structs.replace(plan.hot[0], copy_bytes=plan.hot[0].copy_bytes * 2)
    with pytest.raises(CountMismatch):
        await commit(process, plan)
    await nothing_stored(database_site, process, leases)


@pytest.mark.parametrize("poison", [{"message": "NUL \0"}, {"metadata": msgspec.Raw(b'{"a":"\\u0000"}')}])
async def test_poison_rows_are_refused_as_data_and_named(site: Site, poison: dict[str, Any]) -> None:
    process = site.process()
    leases = await claimed(process)
    plan = full_plan(leases)
    good = list(plan.hot)
    plan.hot[1] = row(1, now_us(), **poison)
    with pytest.raises(RowsRefused):
        await commit(process, plan)
    await nothing_stored(site, process, leases)
    assert await process.refusal(plan.hot)
    assert await process.refusal(plan.hot[1:2])
    assert await process.refusal(good) is None
    assert await process.refusal([row(1, now_us() - 400 * DAY_US)]) is None
    await nothing_stored(site, process, leases)


async def test_row_beyond_the_last_chunk_asks_for_a_chunk(site: Site) -> None:
    process = site.process()
    leases = await claimed(process)
    ahead_us = now_us() + 2 * DAY_US
    plan = replace(full_plan(leases), hot=[row(1, ahead_us)], ledger=booked(2))
    with pytest.raises(ChunkMissing):
        await commit(process, plan)
    await nothing_stored(site, process, leases)
    await site.upkeep.ensure_chunks(now_us=ahead_us)
    await commit(process, plan)
    assert len(await site.rows()) == 2


# --- leases ---------------------------------------------------------------------------------------------------------


async def test_claim_takes_no_more_than_wanted_and_returns_new_leases_only(site: Site) -> None:
    process = site.process()
    first = await claimed(process, want=1)
    assert [(lease.partition, lease.epoch, lease.next_offset, lease.last_frame_id) for lease in first] == [
        (0, 1, 0, None)
    ]
    assert await claimed(process, want=1) == []
    assert [lease.partition for lease in await claimed(process, want=3)] == [1, 2]
    assert await claimed(process, want=3) == []


async def test_lease_of_a_live_owner_is_left_alone(site: Site) -> None:
    await claimed(site.process(), "a", want=2)
    assert [lease.partition for lease in await claimed(site.process(), "b")] == [2]


async def test_released_lease_is_free_at_once(site: Site) -> None:
    first, second = site.process(), site.process()
    leases = await claimed(first, "a")
    assert await first.release("a", leases[1:]) == []
    taken = await claimed(second, "b")
    assert [(lease.partition, lease.epoch) for lease in taken] == [(1, 2), (2, 2)]
    assert await first.release("a", leases) == [1, 2], "those were another's by then"
    assert [lease.partition for lease in await claimed(second, "b")] == [0]


async def test_restart_under_the_same_name_takes_its_leases_at_once(site: Site) -> None:
    before = await claimed(site.process(), "a", want=2)
    await claimed(site.process(), "b", want=1)
    restarted = site.process()
    after = await claimed(restarted, "a", want=3)
    assert [(lease.partition, lease.epoch) for lease in after] == [(lease.partition, 2) for lease in before]
    assert await restarted.renew("a", before, ttl_s=LONG_S) == []
    assert await restarted.renew("a", after, ttl_s=LONG_S) == after


async def test_own_leases_from_before_come_before_free_ones(site: Site) -> None:
    process = site.process()
    leases = await claimed(process, "a")
    await process.release("a", leases[:2])
    assert [lease.partition for lease in await claimed(site.process(), "a", want=1)] == [2]


async def test_renewed_lease_is_current(site: Site) -> None:
    process, other = site.process(), site.process()
    leases = await claimed(process, ttl_s=OVER_S)
    await commit(process, full_plan(leases))
    renewed = await process.renew("a", leases, ttl_s=LONG_S)
    assert [(lease.epoch, lease.next_offset, lease.last_frame_id) for lease in renewed] == [(1, 1, FRAME)] * 3
    assert await claimed(other, "b") == []


async def test_lease_of_a_halted_partition_says_why(site: Site) -> None:
    process = site.process()
    (lease,) = await claimed(process, want=1, ttl_s=OVER_S)
    await process.halt(replace(lease, epoch=lease.epoch - 1), "somebody who lost it")
    await process.halt(lease, "topic recreated")
    taken = await claimed(site.process(), "b")
    assert [found.halted for found in taken] == ["topic recreated", None, None]


async def test_writers_are_counted_while_they_live(site: Site) -> None:
    process = site.process()
    assert await process.live_writers("a", ttl_s=LONG_S) == 1
    assert await process.live_writers("b", ttl_s=LONG_S) == 2
    await process.live_writers("c", ttl_s=OVER_S)
    assert await process.live_writers("a", ttl_s=LONG_S) == 2


async def test_departed_writer_is_counted_no_more(site: Site) -> None:
    process, other = site.process(), site.process()
    assert await process.live_writers("a", ttl_s=LONG_S) == 1
    assert await other.live_writers("b", ttl_s=LONG_S) == 2
    await process.depart("a")
    await process.depart("a")
    assert await other.live_writers("b", ttl_s=LONG_S) == 1
    assert await process.live_writers("a", ttl_s=LONG_S) == 2


async def test_second_process_under_a_name_ends_the_first_and_only_that(site: Site) -> None:
    first, second = site.process(), site.process()
    await first.live_writers("a", ttl_s=LONG_S)
    assert await second.live_writers("a", ttl_s=LONG_S) == 1
    for _ in range(2):
        with pytest.raises(NameTaken, match="--name"):
            await first.live_writers("a", ttl_s=LONG_S)
        assert await second.live_writers("a", ttl_s=LONG_S) == 1
    await first.depart("a")
    assert await site.process().live_writers("b", ttl_s=LONG_S) == 2


async def test_restart_of_a_killed_writer_is_no_second_writer(site: Site) -> None:
    await site.process().live_writers("a", ttl_s=LONG_S)
    restarted = site.process()
    for _ in range(3):
        assert await restarted.live_writers("a", ttl_s=LONG_S) == 1


async def test_caught_up_goes_no_further_than_the_stores_clock(site: Site) -> None:
    """A writer whose clock stepped forward must not make chunks close."""
    process = site.process()
    (lease,) = await claimed(process, want=1)
    before_us = await site.upkeep.clock_us()
    await process.mark_caught_up([(lease, 0, before_us + 30 * DAY_US)])
    stored_to_us = await site.stored_to_us(0)
    assert stored_to_us is not None
    assert before_us <= stored_to_us <= await site.upkeep.clock_us()


async def test_caught_up_needs_the_epoch_and_the_offset(site: Site) -> None:
    process = site.process()
    leases = await claimed(process)
    assert await site.stored_to_us(0) is None
    await process.mark_caught_up([(leases[0], 0, 5_000_000), (leases[1], 3, 5_000_000)])
    await process.mark_caught_up([(replace(leases[2], epoch=9), 0, 5_000_000)])
    await process.mark_caught_up([(leases[0], 0, 4_000_000)])
    assert [await site.stored_to_us(partition) for partition in range(3)] == [5_000_000, None, None]
    await commit(
        process, StorePlan(moves=[move(leases[0], stored_to_us=3_000_000), move(leases[1], stored_to_us=7_000_000)])
    )
    assert [await site.stored_to_us(partition) for partition in range(3)] == [5_000_000, 7_000_000, None]


async def test_registering_partitions_again_changes_nothing(site: Site) -> None:
    process = site.process()
    leases = await claimed(process)
    await commit(process, full_plan(leases))
    await process.register_partitions(TOPIC, 4)
    assert [lease.next_offset for lease in await process.renew("a", leases, ttl_s=LONG_S)] == [1, 1, 1]
    assert [lease.partition for lease in await claimed(process, want=4)] == [3]


# --- stopped writers, lost connections (databases) ----------------------------------------------------------------------


async def gone(site: PostgresSite, pid: int) -> None:
    """Wait until a backend is no more."""
    deadline = time.monotonic() + 10
    while await site.database.fetch_one("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,)):
        assert time.monotonic() < deadline
        await asyncio.sleep(0.02)


@asynccontextmanager
async def stopped_owner(site: PostgresSite, leases: list[Lease]) -> AsyncIterator[Connection]:
    """A connection that stands for the owner of the leases, stopped after it has locked their rows and begun a COPY."""
    connection = await connect(site.database.url, application_name="stopped")
    try:
        await connection.execute(
            "UPDATE consumer_offsets SET backend_pid = pg_backend_pid(), backend_start = "
            "(SELECT backend_start FROM pg_stat_activity WHERE pid = pg_backend_pid()) WHERE partition = ANY(%s)",
            ([lease.partition for lease in leases],),
        )
        await connection.execute("BEGIN")
        await connection.execute("SELECT 1 FROM consumer_offsets WHERE topic = %s FOR UPDATE", (TOPIC,))
        connection.pgconn.exec_(b"COPY logs FROM STDIN (FORMAT binary)")
        yield connection
    finally:
        await connection.close()


async def test_successor_ends_the_transaction_of_a_stopped_owner(database_site: PostgresSite) -> None:
    """It holds the very rows that the successor needs, in a state that no cancel ends."""
    leases = await claimed(database_site.process(), "stopped", ttl_s=OVER_S)
    async with stopped_owner(database_site, leases) as connection:
        successor = database_site.process()
        started = time.monotonic()
        taken = await claimed(successor, "successor")
        assert time.monotonic() - started < 5
        assert [(lease.partition, lease.epoch) for lease in taken] == [(0, 2), (1, 2), (2, 2)]
        await gone(database_site, connection.info.backend_pid)
        await commit(successor, full_plan(taken))
    assert len(await database_site.rows()) == 4


async def test_restarted_owner_ends_the_transaction_it_left(database_site: PostgresSite) -> None:
    leases = await claimed(database_site.process(), "a")
    async with stopped_owner(database_site, leases) as connection:
        assert len(await claimed(database_site.process(), "a")) == 3
        await gone(database_site, connection.info.backend_pid)


async def test_backend_of_a_live_owner_is_never_ended(database_site: PostgresSite) -> None:
    leases = await claimed(database_site.process(), "live")
    async with stopped_owner(database_site, leases) as connection:
        started = time.monotonic()
        assert await claimed(database_site.process(), "other") == []
        assert time.monotonic() - started < 2
        pid = connection.info.backend_pid
        assert await database_site.database.fetch_one("SELECT 1 FROM pg_stat_activity WHERE pid = %s", (pid,))


async def test_backend_that_only_has_the_same_pid_is_not_ended(database_site: PostgresSite) -> None:
    leases = await claimed(database_site.process(), "old", ttl_s=OVER_S)
    bystander = await connect(database_site.database.url, application_name="bystander")
    async with bystander:
        await database_site.database.execute(
            "UPDATE consumer_offsets SET backend_pid = %s, backend_start = clock_timestamp()",
            (bystander.info.backend_pid,),
        )
        assert len(await claimed(database_site.process(), "new")) == len(leases)
        await bystander.execute("SELECT 1")


async def test_lock_of_a_stranger_is_not_waited_for(database_site: PostgresSite) -> None:
    stranger = await connect(database_site.database.url, application_name="stranger")
    async with stranger:
        await stranger.execute("BEGIN")
        await stranger.execute("SELECT 1 FROM consumer_offsets WHERE partition = 1 FOR UPDATE")
        process = database_site.process()
        started = time.monotonic()
        assert [lease.partition for lease in await claimed(process)] == [0, 2]
        assert time.monotonic() - started < 2
        await stranger.rollback()
        assert [lease.partition for lease in await claimed(process)] == [1]


async def test_writer_stopped_in_the_middle_of_a_batch_is_fenced(database_site: PostgresSite) -> None:
    """FAULTS 6, seen from the writer that comes back."""
    old, new = database_site.process(), database_site.process()
    leases = await claimed(old, "old", ttl_s=OVER_S)
    taken: list[Lease] = []

    async def store_slowly() -> None:
        async with old.begin() as batch:
            taken.extend(await claimed(new, "new"))
            await batch.commit(full_plan(leases))

    with pytest.raises(DatabaseUnavailable):
        await store_slowly()
    assert await old.renew("old", leases, ttl_s=LONG_S) == []
    await nothing_stored(database_site, new, taken, "new")
    await new.release("new", taken[:1])
    (again,) = await claimed(old, "old", want=1)
    await commit(old, full_plan([again]))
    assert len(await database_site.rows()) == 4


async def test_lost_connection_is_replaced_and_named_beside_the_leases(database_site: PostgresSite) -> None:
    """FAULTS 9: a connection dropped in the middle of a batch stores nothing and costs one error."""
    process = database_site.process()
    leases = await claimed(process)
    before = await database_site.backend(0)
    assert before is not None

    async def lose_the_connection() -> None:
        async with process.begin() as batch:
            await database_site.database.execute("SELECT pg_terminate_backend(%s, 5000)", (before[0],))
            await batch.commit(full_plan(leases))

    with pytest.raises(DatabaseUnavailable):
        await lose_the_connection()
    await nothing_stored(database_site, process, leases)
    await commit(process, full_plan(leases))
    after = await database_site.backend(2)
    assert after is not None
    assert after != before
    assert await database_site.database.fetch_one(
        "SELECT 1 FROM pg_stat_activity WHERE pid = %s AND backend_start = %s AND application_name = 'test batches'",
        after,
    )
    assert len(await database_site.rows()) == 4


async def test_cancelled_batch_stores_nothing_and_the_next_one_works(database_site: PostgresSite) -> None:
    process = database_site.process()
    leases = await claimed(process)
    blocker = await connect(database_site.database.url, application_name="blocker")
    async with blocker:
        await blocker.execute("BEGIN")
        await blocker.execute("LOCK TABLE dead_letters")
        task = asyncio.create_task(commit(process, full_plan(leases)))
        deadline = time.monotonic() + 10
        while not await database_site.database.fetch_one("SELECT 1 FROM pg_locks WHERE NOT granted"):
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    await nothing_stored(database_site, process, leases)
    await commit(process, full_plan(leases))
    assert len(await database_site.rows()) == 4


async def test_hung_database_is_left_after_a_while(native_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Neither answer nor end of the connection: the writer goes on with another one."""
    monkeypatch.setattr(postgres_write, "_BATCH_S", 0.5)
    async with postgres_site(native_url, Layout.NATIVE) as made:
        site = await prepared(made)
        process = site.process()
        leases = await claimed(process)
        backend = await site.backend(0)
        assert backend is not None
        os.kill(backend[0], signal.SIGSTOP)
        try:
            with pytest.raises(DatabaseUnavailable, match="within"):
                await asyncio.wait_for(commit(process, full_plan(leases)), 15)
        finally:
            os.kill(backend[0], signal.SIGCONT)
        await nothing_stored(site, process, leases)
        monkeypatch.undo()
        await commit(process, full_plan(leases))
        assert len(await site.rows()) == 4


async def test_known_keys_are_found_by_an_index(database_site: PostgresSite) -> None:
    async with database_site.database.connection() as connection:
        await connection.execute(
            "INSERT INTO stored_keys SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date,"
            " sha256(int4send(n)), sha256('b') FROM generate_series(1, 20000) AS n"
        )
        await connection.execute("ANALYZE stored_keys")
        cursor = await connection.execute("SELECT tableoid::regclass::text FROM stored_keys LIMIT 1")
        ((today,),) = await cursor.fetchall()
        for query, parameters in (
            (_KNOWN_KEYS, ([b"k" * 32, b"l" * 32],)),
            (_INSERT_KEYS, ([b"k" * 32], [b"b" * 32], [0], [0], 1)),
        ):
            cursor = await connection.execute(f"EXPLAIN {query}".encode(), parameters)
            plan = [line for (line,) in await cursor.fetchall()]
            assert not any(f"Seq Scan on {today}" in line for line in plan), "\n".join(plan)
            assert any(f"Scan on {today}" in line or f" on {today} " in line for line in plan), "\n".join(plan)


# --- any sequence -----------------------------------------------------------------------------------------------------


@dataclass
class Partition:
    """What a partition must be."""

    owner: str | None = None
    epoch: int = 0
    over: bool = True
    next_offset: int = 0
    halted: bool = False


@dataclass
class Model:
    """What a store must hold after the same calls."""

    partitions: list[Partition] = field(default_factory=lambda: [Partition() for _ in range(3)])
    held: dict[str, dict[int, Lease]] = field(default_factory=lambda: {"a": {}, "b": {}})
    """owner -> partition -> the lease its process was given"""
    keys: set[int] = field(default_factory=set)
    ids: set[int] = field(default_factory=set)

    def holds(self, owner: str, number: int) -> bool:
        lease = self.held[owner].get(number)
        return lease is not None and lease.epoch == self.partitions[number].epoch

    def claimable(self, owner: str, want: int) -> list[int]:
        own = sum(self.holds(owner, number) for number in range(3))
        free = [
            (partition.owner != owner, number)
            for number, partition in enumerate(self.partitions)
            if not self.holds(owner, number) and (partition.owner == owner or partition.over)
        ]
        return sorted(number for _, number in sorted(free)[: max(0, want - own)])


owners = st.sampled_from(["a", "b"])
steps = st.one_of(
    st.tuples(st.just("claim"), owners, st.integers(0, 3), st.booleans()),
    st.tuples(st.just("restart"), owners),
    st.tuples(st.just("renew"), owners),
    st.tuples(st.just("release"), owners, st.integers(0, 2)),
    st.tuples(st.just("halt"), owners, st.integers(0, 2)),
    st.tuples(
        st.just("commit"),
        owners,
        st.sets(st.integers(0, 2), max_size=3),
        st.integers(0, 3),
        st.none() | st.integers(0, 4),
        st.sampled_from(["right", "right", "right", "count", "offset"]),
    ),
)


class Run:
    """One sequence of steps on a store of its own, beside the model."""

    def __init__(self, site: Site, topic: str) -> None:
        self.site, self.topic, self.model = site, topic, Model()
        self.processes = {owner: site.process(topic) for owner in ("a", "b")}

    async def step(self, name: str, owner: str, *rest: object) -> None:
        await getattr(self, name)(owner, *rest)

    async def claim(self, owner: str, want: int, over: bool) -> None:
        expected = self.model.claimable(owner, want)
        taken = await self.processes[owner].claim(owner, want=want, ttl_s=OVER_S if over else LONG_S)
        assert [lease.partition for lease in taken] == expected
        for lease in taken:
            partition = self.model.partitions[lease.partition]
            partition.owner, partition.epoch, partition.over = owner, partition.epoch + 1, over
            self.model.held[owner][lease.partition] = lease
            assert (lease.epoch, lease.next_offset) == (partition.epoch, partition.next_offset)
            assert (lease.halted is not None) == partition.halted

    async def restart(self, owner: str) -> None:
        self.processes[owner] = self.site.process(self.topic)
        self.model.held[owner] = {}

    async def renew(self, owner: str) -> None:
        leases = list(self.model.held[owner].values())
        expected = {number for number in self.model.held[owner] if self.model.holds(owner, number)}
        renewed = await self.processes[owner].renew(owner, leases, ttl_s=LONG_S)
        assert {lease.partition for lease in renewed} == expected
        self.model.held[owner] = {lease.partition: lease for lease in renewed}
        for lease in renewed:
            assert lease.next_offset == self.model.partitions[lease.partition].next_offset
            self.model.partitions[lease.partition].over = False

    async def release(self, owner: str, number: int) -> None:
        lease = self.model.held[owner].pop(number, None)
        if lease is None:
            return
        await self.processes[owner].release(owner, [lease])
        partition = self.model.partitions[number]
        if lease.epoch == partition.epoch:
            partition.owner, partition.over = None, True

    async def halt(self, owner: str, number: int) -> None:
        lease = self.model.held[owner].get(number)
        if lease is not None:
            await self.processes[owner].halt(lease, "test")
            self.model.partitions[number].halted |= self.model.holds(owner, number)

    async def outcome_of(self, owner: str, plan: StorePlan) -> type[LogfeedError] | None:
        """The class of the conflict, None when the batch was stored."""
        for _ in range(2):
            try:
                await commit(self.processes[owner], plan)
            except StoreConflict as conflict:
                return type(conflict)
            except DatabaseUnavailable:
                # The process was replaced and its connection ended: it notices once.
                continue
            return None
        return DatabaseUnavailable

    async def commit(self, owner: str, numbers: set[int], rows: int, key: int | None, how: str) -> None:
        model = self.model
        leases = [model.held[owner][number] for number in sorted(numbers) if number in model.held[owner]]
        moves = [
            replace(move(lease), from_offset=model.partitions[lease.partition].next_offset + (how == "offset"))
            for lease in leases
        ]
        ids = [fresh_id() for _ in range(rows)]
        plan = StorePlan(
            hot=[row(log_id, now_us()) for log_id in ids[1:]],
            late=[row(log_id, now_us() - DAY_US) for log_id in ids[:1]],
            keys=[] if key is None else [StoredKey(f"{self.topic} {key}".encode(), b"body")],
            ledger=booked(rows + (how == "count")),
            moves=[replace(found, next_offset=found.from_offset + 1) for found in moves],
        )
        expected: set[type[LogfeedError]] = set()
        if how == "count":
            expected.add(CountMismatch)
        if key in model.keys:
            expected.add(KeyAlreadyStored)
        lost = any(
            not model.holds(owner, lease.partition) or model.partitions[lease.partition].halted for lease in leases
        )
        if lost or (leases and how == "offset"):
            expected.add(Fenced)
        outcome = await self.outcome_of(owner, plan)
        if outcome is not None:
            assert outcome in expected
            return
        assert not expected
        model.ids |= set(ids)
        model.keys |= set() if key is None else {key}
        for lease in leases:
            model.partitions[lease.partition].next_offset += 1


_ids = iter(range(1, 1 << 62))


def fresh_id() -> int:
    return next(_ids)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow]
)
@given(sequence=st.lists(steps, max_size=14))
async def test_any_sequence_leaves_what_the_model_says(site: Site, sequence: list[tuple[str, ...]]) -> None:
    if isinstance(site, MemorySite):
        memory = MemoryDatabase()
        site = await prepared(MemorySite(memory, MemoryStore(memory)))
    first = fresh_id()
    run = Run(site, f"topic {first}")
    await run.processes["a"].register_partitions(run.topic, 3)
    for name, owner, *rest in sequence:
        await run.step(name, owner, *rest)
    assert {log_id for log_id, _ in await site.rows() if log_id > first} == run.model.ids
    if isinstance(site, PostgresSite):
        offsets = await site.database.fetch_all(
            "SELECT next_offset FROM consumer_offsets WHERE topic = %s ORDER BY partition", (run.topic,)
        )
        assert [offset for (offset,) in offsets] == [partition.next_offset for partition in run.model.partitions]
        for process in site.processes:
            await process.close()
