"""Erased logs are nowhere any more, everything else is where it was, and the certificate says what went."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import cli.erase
from cli.settings import load_settings
from db.database import Connection, connect
from db.migrations import Layout
from schemas.errors import InvalidInput
from schemas.scope import ALL_SERVICES
from search.language import parse
from search.match import compile_match
from search.predicate import EVERYTHING
from store import open_sums
from store.dead_letters import DeadLetters
from store.objects.factory import make_object_store
from store.objects.port import ObjectStoreUnavailable
from store.objects.settings import ObjectSettings
from store.port import Count, DeadLetter, EncodedRow, StorePlan
from store.postgres_read import PostgresReadStore
from store.settings import StoreSettings
from store.tiers import catalogue, collecting, erasing_rows
from store.tiers.catalogue import StaleEpoch
from store.tiers.erasing import Eraser, NotYet, Remaining, predicate_of
from store.tiers.erasing_rows import TableRows, delete_letters
from store.tiers.progress import unwatched
from store.tiers.tiering import Tiering
from tests.commands import logfeed
from tests.store_sites import HOUR_US, TOPIC, now_us, row
from tests.tier_sites import CHUNK_US, DAY_US, TierSite, tier_site

QUERY = 'service:shop metadata.user:ann OR "ann@example.org"'
_WAITING = """
    SELECT FROM pg_locks JOIN pg_stat_activity USING (pid) WHERE NOT granted AND datname = current_database()"""
EVERY = 5
"""Each fifth row is one that goes."""


@pytest.fixture(params=[Layout.NATIVE.value, pytest.param(Layout.TIMESCALE.value, marks=pytest.mark.timescale)])
def place(request: pytest.FixtureRequest) -> tuple[str, Layout]:
    """URL and layout of a fresh database."""
    return request.getfixturevalue(f"{request.param}_url"), Layout(request.param)


@pytest.fixture
async def site(place: tuple[str, Layout], tmp_path: Path) -> AsyncIterator[TierSite]:
    store = make_object_store(ObjectSettings(url=f"file://{tmp_path}/objects"))
    async with tier_site(*place, tmp_path / "segments", StoreSettings(late_rows_max=20), store=store) as made:
        yield made


def rows(start_us: int, first: int, count: int = 50) -> list[EncodedRow]:
    def one(n: int) -> EncodedRow:
        if n % EVERY:
            return row(first + n, start_us + n, "bought", service_name="shop", metadata=b'{"user":"bob"}')
        if n % (2 * EVERY):
            return row(first + n, start_us + n, "mail to ANN@example.org", service_name="mail", correlation_id=str(n))
        return row(first + n, start_us + n, "bought", service_name="shop", metadata=b'{"user":"ann"}')

    return [one(n) for n in range(count)]


def eraser(site: TierSite, leader: Tiering, query: str = QUERY, **options: Any) -> Eraser:
    """Any: its options."""
    return Eraser(
        site.database,
        leader,
        site.segments,
        topic=TOPIC,
        query=query,
        requested_by="the test",
        copies=[Remaining("the broker", "later")],
        progress=unwatched,
        **options,
    )


def kept(*firsts: int, count: int = 50) -> list[int]:
    return [first + n for first in firsts for n in range(count) if n % EVERY]


async def seen(site: TierSite) -> None:
    await site.hot.process().claim("a", want=3, ttl_s=60)
    await site.hot.see(now_us() + 1_000 * DAY_US)


async def everywhere(site: TierSite) -> tuple[Tiering, int]:
    """Rows in a cold file, a warm one, a file whose table is there too, a finished table, an open one, and a late one."""
    start_us = await site.border_us()
    await site.hot.upkeep.ensure_chunks(now_us=start_us + 4 * CHUNK_US)
    for number in range(3):
        await site.store_rows(rows(start_us + number * CHUNK_US, 1_000 * (number + 1)))
    await site.store_rows(rows(start_us + 4 * CHUNK_US, 5_000), rows(start_us - HOUR_US, 6_000))
    leader = await site.leader()
    for number in range(3):
        end_us = start_us + (number + 1) * CHUNK_US
        await site.close_to(end_us)
        if number < 2:
            await leader.write_due(end_us)
            await leader.switch_due(end_us + 7 * DAY_US)
        if number == 0:
            await leader.move_due(end_us + 90 * DAY_US)
    await leader.write_due(end_us)
    await seen(site)
    return leader, start_us


async def waits_for_a_lock(site: TierSite, work: asyncio.Task[Any], which: str) -> None:
    """Until somebody waits for such a lock (a condition on pg_locks), or the work has ended. Any: whatever it says."""
    async with asyncio.timeout(30):
        while True:
            if work.done() or await site.database.fetch_all(f"{_WAITING} AND {which}"):
                return
            await asyncio.sleep(0.02)


async def has_a_part(site: TierSite) -> None:
    """Of what indexes open chunks beside them."""
    await site.database.execute(
        "INSERT INTO open_parts (table_name, kind, from_xid, to_xid, rows, open_from, range_start, range_end, open_bytes)"
        " VALUES ('open_metadata_0', 'metadata', 0, 1, 1, now(), now(), now(), '{}')"
    )


async def test_matching_rows_go_from_every_tier_and_all_others_stay(site: TierSite) -> None:
    leader, start_us = await everywhere(site)
    states = await site.states()
    assert states["serving", "cold"] == states["serving", "warm"] == 1
    assert states["written", "warm"] >= 1
    firsts = (1_000, 2_000, 3_000, 5_000, 6_000)
    assert len(await site.ids()) == 50 * len(firsts)

    certificate = await eraser(site, leader).erase()

    assert await site.ids() == kept(*firsts)
    assert certificate.rows == 10 * len(firsts)
    per_service: Counter[str] = Counter()
    for each in certificate.erased:
        per_service[each.service_name] += each.rows
    assert per_service == {"shop": 5 * len(firsts), "mail": 5 * len(firsts)}
    assert len(certificate.files_replaced) == 2
    stored = await site.database.fetch_one("SELECT certificate::text, finished_at IS NOT NULL FROM erasures")
    assert stored is not None
    assert json.loads(stored[0])["rows"] == certificate.rows
    assert stored[1]

    end_us = start_us + 400 * DAY_US
    await leader.write_due(end_us - 30 * DAY_US)
    await leader.switch_due(end_us - 30 * DAY_US)
    assert leader.failures == 0
    assert await site.ids() == kept(*firsts)
    again = await eraser(site, leader).erase()
    assert again.rows == 0
    assert again.files_replaced == ()


async def test_replaced_files_and_objects_are_deleted(site: TierSite, monkeypatch: pytest.MonkeyPatch) -> None:
    leader, _ = await everywhere(site)
    work = eraser(site, leader)
    certificate = await work.erase()
    assert site.store is not None
    assert [found async for found in site.store.list("segments")] != []
    monkeypatch.setattr(collecting, "DROP_DELAY_S", 0)
    await work.until_files_are_gone()
    assert not {*certificate.files_replaced} & {*site.files()}
    assert [found async for found in site.store.list("segments")] == []
    assert await site.ids() == kept(1_000, 2_000, 3_000, 5_000, 6_000)


async def test_files_by_correlation_id_are_found_by_their_filters(site: TierSite) -> None:
    leader, _ = await everywhere(site)
    certificate = await eraser(site, leader, "correlation_id:5").erase()
    assert certificate.rows == 5
    assert (await eraser(site, leader, "correlation_id:nobody").erase()).rows == 0


async def test_dead_letters_that_match_go(site: TierSite) -> None:
    letters = [
        DeadLetter(0, n, 0, "refused", "d", "shop", 0, line)
        for n, line in enumerate(
            [
                b'[1,1,9,"shop","x",null,{"user":"ann"}]',
                b'[2,2,9,"shop","x",null,{"user":"bob"}]',
                b"no log at all, of ann@example.org",
            ]
        )
    ]
    async with site.hot.writer.begin() as batch:
        await batch.commit(StorePlan(dead=letters))
    await seen(site)
    certificate = await eraser(site, await site.leader()).erase()
    assert (certificate.dead_letters, certificate.dead_letters_unreadable) == (1, 1)
    assert len(await site.hot.dead_lines()) == 2


async def test_dead_letters_are_read_a_few_megabytes_at_a_time(site: TierSite, monkeypatch: pytest.MonkeyPatch) -> None:
    line = b'[%d,1,9,"shop","' + b"x" * (3 << 20) + b'",null,{"user":"ann"}]'
    letters = [DeadLetter(0, n, 0, "refused", "d", "shop", 0, line % n) for n in range(8)]
    async with site.hot.writer.begin() as batch:
        await batch.commit(StorePlan(dead=letters))
    read: list[int] = []
    fetch_all = site.database.fetch_all

    async def watched(text: Any, params: Any = ()) -> list[tuple[Any, ...]]:
        rows = await fetch_all(text, params)
        read.append(sum(len(value) for values in rows for value in values if isinstance(value, bytes)))
        return rows

    monkeypatch.setattr(site.database, "fetch_all", watched)
    ann = compile_match(parse("metadata.user:ann"))
    assert await delete_letters(site.database, ann) == (8, 0)
    assert sum(read) > 8 * 3 << 20
    assert max(read) < 12 << 20


async def test_nothing_goes_before_all_that_was_acknowledged_is_stored(site: TierSite) -> None:
    leader, start_us = await everywhere(site)
    await site.hot.see(start_us)
    with pytest.raises(NotYet, match="partitions 0, 1, 2"):
        await eraser(site, leader, patience_s=0.0).erase()
    assert len(await site.ids()) == 250


async def test_whoever_keeps_pages_hears_of_it(site: TierSite) -> None:
    start_us = await site.border_us()
    await site.store_rows(rows(start_us, 1))
    await seen(site)
    version = await site.database.fetch_one("SELECT version FROM catalogue_version")
    await eraser(site, await site.leader()).erase()
    assert await site.database.fetch_one("SELECT version FROM catalogue_version") != version
    assert await site.ids() == kept(1)


async def test_a_closed_table_is_left_until_it_is_finished(site: TierSite) -> None:
    start_us = await site.border_us()
    await site.store_rows(rows(start_us, 1))
    await seen(site)
    await site.hot.upkeep.close_due(now_us=start_us + CHUNK_US + HOUR_US)
    leader = await site.leader()
    with pytest.raises(NotYet, match="closed and not finished"):
        await eraser(site, leader, patience_s=0.0).erase()
    erasing = asyncio.create_task(eraser(site, leader).erase())
    await asyncio.wait({erasing}, timeout=0.1)
    await site.hot.upkeep.finish_closed()
    assert (await erasing).rows == 10
    assert await site.ids() == kept(1)
    assert await leader.write_due(start_us + CHUNK_US) == 1
    assert leader.failures == 0


async def test_one_whose_lease_went_to_another_erases_nothing_more(site: TierSite) -> None:
    leader, _ = await everywhere(site)
    await site.leader("b")
    with pytest.raises(StaleEpoch):
        await eraser(site, leader).erase()
    assert len(await site.ids()) == 250
    certificate = await eraser(site, await site.leader("c")).erase()
    assert certificate.rows == 50


async def test_what_indexes_open_chunks_forgets_erased_values(site: TierSite) -> None:
    await site.store_rows(rows(await site.border_us(), 1))
    await seen(site)
    await has_a_part(site)
    await eraser(site, await site.leader()).erase()
    assert await site.database.fetch_all("SELECT table_name, kind FROM expired_tables") == [("open_metadata_0", "part")]


async def counts_of(site: TierSite, layout: Layout, start_us: int) -> int:
    """Rows of the open chunk, as a histogram has them."""
    async with PostgresReadStore(site.database, TOPIC, layout).snapshot() as snapshot:
        asked = Count(EVERYTHING, start_us, start_us + CHUNK_US, 60_000_000, start_us, budget_ms=20_000)
        found = await snapshot.count(asked, allowed=ALL_SERVICES)
    assert found.counted_from_us is None
    return sum(found.rows.values())


async def until_summed(site: TierSite, number: int) -> None:
    """Transactions of the server's other databases may be under way: what they are younger than is not summed yet."""
    async with asyncio.timeout(60):
        while True:
            await site.hot.upkeep.sum_open()
            row = await site.database.fetch_one(
                "SELECT coalesce(sum(rows), 0)::bigint FROM open_sum_rows JOIN open_sums USING (number)"
            )
            if row == (number,):
                return
            await asyncio.sleep(0.02)


async def test_counts_are_exact_before_an_erasure_during_it_and_after_it(
    site: TierSite, place: tuple[str, Layout], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing_rows, "_PAGES_A_STEP", 1)
    start_us = await site.border_us()
    await site.store_rows(rows(start_us, 1, 400))
    await seen(site)
    await until_summed(site, 400)
    assert await counts_of(site, place[1], start_us) == 400
    leader = await site.leader()
    change, found = leader.catalogue.change, []

    @asynccontextmanager
    async def counting() -> AsyncIterator[Connection]:
        async with change() as connection:
            yield connection
        found.append(await counts_of(site, place[1], start_us))
        assert found[-1] == len(await site.ids())
        await until_summed(site, found[-1])

    monkeypatch.setattr(leader.catalogue, "change", counting)
    assert (await eraser(site, leader).erase()).rows == 80
    assert len({*found}) > 3, "it was counted between its steps"
    assert found[-1] == await counts_of(site, place[1], start_us) == 320
    await until_summed(site, 320)
    left = await site.database.fetch_all(
        "SELECT DISTINCT number FROM open_sum_rows WHERE number NOT IN (SELECT number FROM open_sums)"
    )
    assert left == [], "nothing of what was erased is summed any more"


async def test_a_sum_that_was_being_made_goes_with_the_rows_that_it_has(
    site: TierSite, place: tuple[str, Layout]
) -> None:
    start_us = await site.border_us()
    await site.store_rows(rows(start_us, 1))
    await seen(site)
    leader = await site.leader()
    async with await connect(place[0], application_name="another sealer") as other:
        await other.execute(open_sums._BEGIN)
        await open_sums._summed(other)
        erasing = asyncio.create_task(eraser(site, leader).erase())
        await waits_for_a_lock(site, erasing, "relation = 'open_sums'::regclass")
        await other.commit()
    assert (await erasing).rows == 10
    assert await counts_of(site, place[1], start_us) == len(await site.ids()) == 40


async def test_a_letter_whose_replay_is_under_way_is_erased_as_a_log(site: TierSite, place: tuple[str, Layout]) -> None:
    start_us = await site.border_us()
    line = f'[777,{start_us},9,"shop","x",null,{{"user":"ann"}}]'.encode()
    await site.store_rows(rows(start_us, 1))
    async with site.hot.writer.begin() as batch:
        await batch.commit(StorePlan(dead=[DeadLetter(0, 1, 0, "refused", "d", "shop", 0, line)]))
    await seen(site)
    leader = await site.leader()
    ((letter_id,),) = await site.database.fetch_all("SELECT id FROM dead_letters")
    async with site.database.transaction() as other:
        await other.execute("LOCK TABLE ledger IN SHARE MODE")
        replaying = asyncio.create_task(DeadLetters(site.database, place[1]).replay(letter_id, allowed=ALL_SERVICES))
        await waits_for_a_lock(site, replaying, "relation = 'ledger'::regclass")
        erasing = asyncio.create_task(eraser(site, leader).erase())
        await waits_for_a_lock(site, erasing, "locktype = 'transactionid'")
    assert await replaying == 777
    certificate = await erasing
    assert (certificate.rows, certificate.dead_letters) == (11, 0)
    assert await site.ids() == kept(1)


async def test_rows_of_a_table_that_closes_meanwhile_are_certified(
    site: TierSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(erasing_rows, "_PAGES_A_STEP", 1)
    start_us = await site.border_us()
    await site.store_rows(rows(start_us, 1, 400))
    await has_a_part(site)
    leader = await site.leader()
    tables = TableRows(site.database, leader.catalogue, predicate_of(QUERY))
    steps = 0
    change = leader.catalogue.change

    @asynccontextmanager
    async def closing() -> AsyncIterator[Connection]:
        nonlocal steps
        steps += 1
        if steps == 3:
            await site.hot.process().claim("a", want=3, ttl_s=60)
            await site.hot.see(start_us + CHUNK_US + HOUR_US)
            await site.hot.upkeep.close_due(now_us=start_us + CHUNK_US + HOUR_US)
        async with change() as connection:
            yield connection

    monkeypatch.setattr(leader.catalogue, "change", closing)
    removed, left = await tables.delete(lambda *_: None)
    assert len(left) == 1
    assert 0 < removed.total() < 80
    assert await site.database.fetch_all("SELECT FROM open_parts") == []
    assert await site.database.fetch_all("SELECT table_name FROM expired_tables") == [("open_metadata_0",)]
    await site.hot.upkeep.finish_closed()
    again, left = await tables.delete(lambda *_: None, only=left)
    assert left == []
    assert removed.total() + again.total() == 80
    assert await site.ids() == kept(1, count=400)


async def matching_in(site: TierSite, table: str) -> int:
    found = await site.database.fetch_one(
        f"SELECT count(*) FROM {table} WHERE message ~* 'ann@' OR metadata @> '{{\"user\":\"ann\"}}'"
    )
    assert found is not None
    count: int = found[0]
    return count


async def test_rows_go_from_tables_that_have_left_the_catalogue_and_are_counted_once(site: TierSite) -> None:
    leader, _ = await everywhere(site)
    left = [name for (name,) in await site.database.fetch_all("SELECT table_name FROM expired_tables")]
    assert [await matching_in(site, table) for table in left] == [10] * len(left)
    certificate = await eraser(site, leader).erase()
    assert [await matching_in(site, table) for table in left] == [0] * len(left)
    assert certificate.rows == 50
    assert not any(table in each.what for table in left for each in certificate.remaining)


async def test_a_table_that_has_left_and_cannot_be_looked_at_is_certified_as_remaining(
    site: TierSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(catalogue, "_LOCK_TIMEOUT_MS", 200)
    leader, _ = await everywhere(site)
    kept_back, *others = [name for (name,) in await site.database.fetch_all("SELECT table_name FROM expired_tables")]
    async with site.database.transaction() as reader:
        await reader.execute(f"LOCK TABLE {kept_back} IN SHARE MODE".encode())
        certificate = await eraser(site, leader).erase()
    assert certificate.rows == 50
    assert [await matching_in(site, table) for table in others] == [0] * len(others)
    (named,) = [each for each in certificate.remaining if kept_back in each.what]
    assert "dropped" in named.until


async def test_a_table_that_is_dropped_meanwhile_is_no_trouble(site: TierSite) -> None:
    leader, _ = await everywhere(site)
    dropped, *_ = [name for (name,) in await site.database.fetch_all("SELECT table_name FROM expired_tables")]
    async with site.database.transaction() as dropping:
        await dropping.execute(f"DROP TABLE {dropped}".encode())
        erasing = asyncio.create_task(eraser(site, leader).erase())
        await waits_for_a_lock(site, erasing, "locktype = 'relation'")
    certificate = await erasing
    assert certificate.rows == 50
    assert not any(dropped in each.what for each in certificate.remaining)


@pytest.mark.parametrize("query", ["", "   ", "(", "level:loud"])
def test_a_query_that_says_nothing_or_nonsense_erases_nothing(query: str) -> None:
    with pytest.raises(InvalidInput, match="--where"):
        predicate_of(query)


async def test_the_command_asks_first_and_writes_the_certificate(native_url: str, tmp_path: Path) -> None:
    async with tier_site(native_url, Layout.NATIVE, tmp_path / "segments") as site:
        await site.store_rows(rows(await site.border_us(), 1))
        await seen(site)
        settings = {"LOGFEED_DATABASE__URL": native_url, "LOGFEED_TIERS__DIRECTORY": str(site.directory)}

        def erase(*arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
            return logfeed("erase", "--where", QUERY, *arguments, stdin=typed, **settings)

        assert erase(typed="n\n").returncode == 1
        assert len(await site.ids()) == 50
        output = tmp_path / "certificate.json"
        done = erase("--yes", "--by", "the office", "-o", str(output))
        assert done.returncode == 0, done.stderr
        assert done.stdout == f"10 logs and 0 dead letters erased; certificate: {output}\n"
        assert json.loads(output.read_text())["requested_by"] == "the office"
        assert await site.ids() == kept(1)


async def test_files_of_a_table_that_loses_rows_are_named_and_waited_for(
    site: TierSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    start_us = await site.border_us()
    await site.store_rows(rows(start_us, 1))
    await site.close_to(start_us + CHUNK_US)
    leader = await site.leader()
    await leader.write_due(start_us + CHUNK_US)
    (written,) = await site.all_segments()
    await seen(site)
    work = eraser(site, leader)
    certificate = await work.erase()
    assert certificate.rows == 10
    assert any("files" in each.what and "logfeed tier" in each.until for each in certificate.remaining)
    monkeypatch.setattr(collecting, "DROP_DELAY_S", 0)
    await work.until_files_are_gone()
    assert written.name not in site.files()
    assert await site.ids() == kept(1)


async def test_an_erasure_that_is_begun_again_lets_go_what_indexes_open_chunks(
    site: TierSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    await site.store_rows(rows(await site.border_us(), 1))
    await seen(site)
    await has_a_part(site)
    leader = await site.leader()
    with monkeypatch.context() as killed:
        killed.setattr(erasing_rows, "_PARTS_LOCK", "SELECT 1 / 0")
        with pytest.raises(Exception, match="division by zero"):
            await eraser(site, leader).erase()
    assert await site.ids() == kept(1)
    assert (await eraser(site, leader).erase()).rows == 0
    assert await site.database.fetch_all("SELECT FROM open_parts") == []


async def test_statistics_of_tables_forget_erased_values(site: TierSite) -> None:
    start_us = await site.border_us()
    await site.store_rows(rows(start_us, 1, 400))
    await site.close_to(start_us + CHUNK_US)
    await seen(site)
    remembered = "SELECT tablename FROM pg_stats WHERE concat(most_common_vals, histogram_bounds) ~* 'ann@'"
    assert await site.database.fetch_all(remembered) != []
    await eraser(site, await site.leader()).erase()
    assert await site.database.fetch_all(remembered) == []


async def test_rows_go_from_files_whose_table_the_sealer_has_dropped(site: TierSite) -> None:
    start_us = await site.border_us()
    await site.store_rows(rows(start_us, 1))
    await site.close_to(start_us + CHUNK_US)
    leader = await site.leader()
    await leader.write_due(start_us + CHUNK_US)
    await site.hot.upkeep.drop_expired(now_us=start_us + 500 * DAY_US, retention_us=400 * DAY_US)
    assert await site.states() == {("written", "warm"): 1}
    await seen(site)
    await eraser(site, leader).erase()
    left = [each for each in await site.all_segments() if str(each.state) != "retired"]
    found = [log_id for each in left for log_id in await site.ids_in(each)]
    assert {*found} <= {*kept(1)}


async def test_the_certificate_is_there_although_waiting_for_files_fails(
    native_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("LOGFEED_DATABASE__URL", native_url)
    monkeypatch.setenv("LOGFEED_TIERS__DIRECTORY", str(tmp_path / "segments"))

    async def fails(*_: object) -> None:
        raise ObjectStoreUnavailable

    monkeypatch.setattr(Eraser, "until_files_are_gone", fails)
    output = tmp_path / "certificate.json"
    with pytest.raises(ObjectStoreUnavailable):
        await cli.erase._erase(load_settings(None), QUERY, "me", output, unwatched, wait=True)
    assert json.loads(output.read_text())["rows"] == 0
