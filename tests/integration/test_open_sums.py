"""Sums of open chunks are exact at every moment: whatever is stored while they are made, after erasures, crashes and copies."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from db.database import connect
from db.migrations import Layout
from schemas.record import Log
from schemas.scope import ALL_SERVICES, ServiceScope
from search.predicate import EVERYTHING, Contains, MinLevel, Predicate, ServiceIn
from store.memory import CHUNK_US
from store.open_sums import SUMS_MAX, Sum, sum_open, sums_that_count, sums_to_merge
from store.port import Count, CountResult
from tests.reading_subjects import HOUR, SECOND, T0, PostgresSubject, TieredSubject, a_log, counted, row

MINUTE = 60 * SECOND
ORIGIN = T0 - 72 * HOUR


@pytest.fixture(params=list(Layout))
def place(request: pytest.FixtureRequest) -> tuple[str, Layout]:
    return request.getfixturevalue(f"{request.param.value}_url"), request.param


@pytest.fixture
async def subject(place: tuple[str, Layout], tmp_path: Path) -> AsyncIterator[PostgresSubject]:
    made = await TieredSubject(*place, tmp_path / "segments").open()
    yield made
    await made.close()


def bounds(
    *, start: int = T0, end: int = T0 + 18 * HOUR, width: int = 30 * MINUTE
) -> dict[str, Any]:  # of the types that Count takes
    return {"start_us": start, "end_us": end, "width_us": width, "origin_us": ORIGIN}


async def count(
    subject: PostgresSubject, predicate: Predicate = EVERYTHING, *, allowed: ServiceScope = ALL_SERVICES, **options: Any
) -> CountResult:
    async with subject.store.snapshot() as snapshot:
        asked = Count(predicate, **{**bounds(), **options}, budget_ms=20_000)
        return await snapshot.count(asked, allowed=allowed)


async def check(subject: PostgresSubject, logs: list[Log]) -> None:
    scope = ServiceScope(names=frozenset({"pay"}), prefixes=frozenset({"s"}))
    for predicate in (EVERYTHING, MinLevel(17), ServiceIn(frozenset({"pay"})), Contains("message 1")):
        for options in (
            {},
            {"start": T0 + 7 * MINUTE + 1, "end": T0 + 13 * HOUR + 5},
            {"width": SECOND * 15, "end": T0 + HOUR},
        ):
            for allowed in (ALL_SERVICES, scope):
                within = bounds(**options)
                found = await count(subject, predicate, allowed=allowed, **within)
                expected = counted(logs, predicate, allowed=allowed, **within)
                assert found == CountResult(expected, None), (predicate, options, allowed)


def some(first: int, number: int) -> list[Log]:
    chance = random.Random(first)
    return [
        a_log(
            first + n,
            at=chance.randrange(18 * HOUR),
            service_name=chance.choice(["shop", "pay", "mail"]),
            level=chance.choice([9, 13, 17]),
        )
        for n in range(number)
    ]


async def make(subject: PostgresSubject) -> int:
    """Transactions of other tests on this server may be under way: what they are younger than is not summed yet."""
    return await sum_open(subject.connection)


async def summed(subject: PostgresSubject) -> int:
    ((rows,),) = await subject.run(
        "SELECT coalesce(sum(rows), 0)::bigint FROM open_sum_rows JOIN open_sums USING (number)"
    )
    return int(rows)


async def test_counts_stay_exact_while_rows_come_and_chunks_are_finished(subject: PostgresSubject) -> None:
    await subject.open_chunks(T0 + n * CHUNK_US for n in range(3))
    logs: list[Log] = []
    for step in range(SUMS_MAX + 4):
        more = some(1_000 * step, 40)
        await subject.put(more)
        logs += more
        await make(subject)
        if step % 6 == 0:
            await check(subject, logs)
    ((sums,),) = await subject.run("SELECT count(*) FROM open_sums")
    assert 1 <= sums <= SUMS_MAX
    rest = some(90_000, 30)
    await subject.put(rest)
    await check(subject, logs + rest)
    await subject.close_before(T0 + CHUNK_US)
    late = [a_log(95_000 + n, at=n * MINUTE) for n in range(20)]
    await subject.put(late)
    await check(subject, logs + rest + late)
    await subject.finish()
    await make(subject)
    await check(subject, logs + rest + late)
    ((old,),) = await subject.run(
        "SELECT count(*) FROM open_sum_rows WHERE minute < (SELECT closed_before FROM border)"
    )
    assert old == 0


async def test_a_row_that_was_on_its_way_is_counted_once(subject: PostgresSubject) -> None:
    await subject.open_chunks(T0 + n * CHUNK_US for n in range(3))
    before, slow, after = some(0, 10), some(100, 10), some(200, 10)
    await subject.put(before)
    other = await connect(subject._url, application_name="slow")
    async with other:
        await other.execute("BEGIN")
        async with other.cursor() as cursor:
            await cursor.executemany(
                b"INSERT INTO logs VALUES (%s, %s, %s, %s, %s, %s, %s)", [row(log) for log in slow]
            )
        await subject.put(after)
        await make(subject)
        await check(subject, before + after)
        await other.commit()
    await check(subject, before + slow + after)
    await make(subject)
    await check(subject, before + slow + after)


async def test_sums_are_used_and_not_only_made(subject: PostgresSubject) -> None:
    """Numbers that a hand has changed are answered: nobody has looked at the rows."""
    await subject.open_chunks(T0 + n * CHUNK_US for n in range(3))
    await subject.put(some(0, 50))
    async with asyncio.timeout(90):  # a transaction of another test's database may be older than these rows
        while await summed(subject) < 50:
            await make(subject)
            await asyncio.sleep(0.05)
    await subject.run("UPDATE open_sum_rows SET rows = rows * 100")
    assert sum((await count(subject)).rows.values()) == 5_000
    assert sum((await count(subject, Contains("message"))).rows.values()) == 50


async def test_sums_of_another_cluster_and_of_a_crash_are_not_believed(subject: PostgresSubject) -> None:
    await subject.open_chunks(T0 + n * CHUNK_US for n in range(3))
    logs = some(0, 50)
    await subject.put(logs)
    await make(subject)
    await subject.run("UPDATE open_sums SET built_xid = built_xid + 1000")
    await subject.run("UPDATE open_sum_rows SET rows = rows * 100")
    await check(subject, logs)
    await make(subject)  # makes them anew
    await check(subject, logs)
    await subject.run("TRUNCATE open_sums, open_sum_rows")
    await check(subject, logs)


async def test_a_chunk_that_was_finished_before_an_older_one_is_counted_once(subject: PostgresSubject) -> None:
    await subject.open_chunks(T0 + n * CHUNK_US for n in range(3))
    logs = some(0, 60)
    await subject.put(logs)
    await make(subject)
    await subject.close_before(T0 + 2 * CHUNK_US)
    await subject.run(
        "UPDATE catalogue SET state = 'open' WHERE kind = 'chunk' AND range_start = to_timestamp(%s)", T0 / SECOND
    )
    await subject.finish()
    await check(subject, logs)


def a_sum(number: int, from_xid: int, to_xid: int, *, open_from_us: int = 0, is_own: bool = True) -> Sum:
    return Sum(number, from_xid, to_xid, 1, open_from_us, is_own)


def test_sums_count_up_to_the_first_gap() -> None:
    def numbers(*sums: Sum, open_from_us: int = 10) -> list[int]:
        fields = ("number", "from_xid", "to_xid", "entries", "open_from_us", "is_own")
        rows = [[getattr(each, name) for name in fields] for each in sums]
        return [each.number for each in sums_that_count(rows, open_from_us)]

    one, two, three = a_sum(1, 0, 5), a_sum(2, 5, 9), a_sum(3, 9, 12)
    assert numbers(one, two, three) == [1, 2, 3]
    assert numbers(two, three) == []
    assert numbers(one, three) == [1]
    assert numbers(one, a_sum(2, 5, 9, is_own=False), three) == [1]
    assert numbers(one, a_sum(2, 5, 9, open_from_us=11), three) == [1]
    assert numbers() == []


def test_the_newest_sums_are_made_into_one_when_there_are_many() -> None:
    assert sums_to_merge([1] * (SUMS_MAX - 1)) == 0
    assert sums_to_merge([1] * SUMS_MAX) == SUMS_MAX
    assert sums_to_merge([1_000, *([1] * (SUMS_MAX - 1))]) == SUMS_MAX - 1
