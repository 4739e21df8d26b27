"""Counts across tables, warm files and cold ones are those of the rows that pages show, wherever a budget ends them."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from db.migrations import Layout
from runtime.clock import ManualClock
from schemas.scope import ALL_SERVICES, ServiceScope
from schemas.topics import LOGS_TOPIC
from search.match import compile_match
from search.predicate import EVERYTHING, Contains, MetaEquals, MinLevel, Not, Predicate, ServiceIn
from store.memory import CHUNK_US
from store.port import Count, CountResult, ReadStore, SnapshotLost
from store.postgres_read import PostgresReadStore
from store.segments.format import SegmentDamaged
from store.tiers.access import SegmentsUnreachable
from store.tiers.counting import TieredCount
from store.tiers.retention import RetentionPolicy
from store.tiers.settings import RetentionClass, RetentionSettings
from tests.databases import create_migrated_database, drop_database
from tests.integration.test_tiers_reading import PREDICATES, files_of, overlapping, with_files
from tests.reading_subjects import HOUR, SECOND, T0, TieredSubject, a_log, counted, with_many_places

MINUTE = 60 * SECOND
DAY = 24 * HOUR
ORIGIN = T0 - 3 * DAY
"""A Monday."""


@pytest.fixture
async def native(native_url: str, tmp_path: Path) -> AsyncIterator[TieredSubject]:
    made = await TieredSubject(native_url, Layout.NATIVE, tmp_path / "segments").open()
    yield made
    await made.close()


def bounds(
    *, start: int = T0 - HOUR, end: int = T0 + 30 * HOUR, width: int = HOUR
) -> dict[str, Any]:  # of the types that Count takes
    return {"start_us": start, "end_us": end, "width_us": width, "origin_us": ORIGIN}


async def count(
    store: ReadStore, predicate: Predicate = EVERYTHING, *, allowed: ServiceScope = ALL_SERVICES, **options: Any
) -> CountResult:
    async with store.snapshot() as snapshot:
        return await snapshot.count(Count(predicate, **{**bounds(), **options}), allowed=allowed)


QUESTIONS = st.lists(
    st.tuples(
        PREDICATES,
        st.integers(-60, 30 * 60),
        st.integers(1, 30 * 60),
        st.sampled_from([MINUTE, 30 * MINUTE, 6 * HOUR, 7 * DAY]),
        st.sampled_from([1, 30, 5_000]),
        st.booleans(),
    ),
    min_size=12,
    max_size=12,
)


@given(st.permutations([("serving", False), ("written", False), ("serving", True), ("written", True)]), QUESTIONS)
@pytest.mark.timeout(400)
@settings(max_examples=5, deadline=None, suppress_health_check=list(HealthCheck))
def test_counts_over_all_homes_are_those_of_each_row_wherever_budgets_end(
    embedded_server: str,
    tmp_path_factory: pytest.TempPathFactory,
    homes: list[tuple[str, bool]],
    questions: list[tuple[Predicate, int, int, int, int, bool]],
) -> None:
    """Random rows, homes and questions. A count that its budget ended goes on from where it says it came: nothing is counted
    twice, and nothing is left out. `written` and emptied: files are asked instead of these tables."""
    from tests.conftest import RUN_VARIABLE

    url = create_migrated_database(embedded_server, Layout.NATIVE, run=os.environ[RUN_VARIABLE])

    async def run() -> None:
        subject = await TieredSubject(url, Layout.NATIVE, tmp_path_factory.mktemp("segments")).open()
        subject.HOMES = tuple(homes)
        try:
            logs = await with_many_places(subject)
            await subject.access.start_readers()  # which the shortest budgets would not wait for
            for predicate, start_min, length_min, width_us, budget_ms, is_narrow in questions:
                start_us = T0 + start_min * MINUTE
                within = bounds(start=start_us, end=start_us + length_min * MINUTE, width=width_us)
                allowed = ServiceScope(names=frozenset({"shop", "pay"})) if is_narrow else ALL_SERVICES
                found: Counter[tuple[int, int]] = Counter()
                left = dict(within)
                for _ in range(2_000):
                    part = await count(subject.store, predicate, allowed=allowed, **left, budget_ms=budget_ms)
                    found.update(part.rows)
                    if part.counted_from_us is None:
                        break
                    assert left["start_us"] < part.counted_from_us <= left["end_us"]
                    left["end_us"] = part.counted_from_us
                assert part.counted_from_us is None
                assert found == counted(logs, predicate, allowed=allowed, **within), (predicate, within, budget_ms)
        finally:
            await subject.close()

    try:
        asyncio.run(run())
    finally:
        drop_database(embedded_server, url)


async def test_a_day_of_files_is_counted_without_reading_them(native: TieredSubject) -> None:
    """By level, and by service where a file has no other: what the catalogue says of a file is enough."""
    logs = [
        log for log in await with_files(native) if log.timestamp < T0 + 2 * CHUNK_US and log.id <= a_log(179, at=0).id
    ]
    for path in files_of(native):
        path.unlink()
    await native.run("DELETE FROM logs_late_1")
    within = bounds(end=T0 + 2 * CHUNK_US, width=7 * DAY)
    both, not_mail = ServiceIn(frozenset({"shop", "pay"})), Not(ServiceIn(frozenset({"mail"})))
    unread: tuple[Predicate, ...] = (EVERYTHING, MinLevel(17), both, not_mail)
    for predicate in unread:
        assert (await count(native.store, predicate, **within)).rows == counted(logs, predicate, **within)
    to_be_read: tuple[Predicate, ...] = (ServiceIn(frozenset({"shop"})), Contains("message"))
    for predicate in to_be_read:
        with pytest.raises(SnapshotLost, match=r"moved_\d.*is not in"):
            await count(native.store, predicate, **within)


async def test_files_that_overlap_are_counted_in_groups(native: TieredSubject, monkeypatch: pytest.MonkeyPatch) -> None:
    logs = await overlapping(native)
    monkeypatch.setattr("store.tiers.stretches.FILES", 1)
    await native.access.start_readers()
    for predicate in (Contains("message 1"), ServiceIn(frozenset({"pay"}))):
        for width_us in (30 * MINUTE, 7 * DAY):
            found = await count(native.store, predicate, width_us=width_us, budget_ms=20_000)
            assert found == CountResult(counted(logs, predicate, **bounds(width=width_us)), None)


@pytest.mark.parametrize("how", ["damaged", "missing"])
async def test_rows_of_a_bad_file_are_counted_in_their_table(native: TieredSubject, how: str) -> None:
    logs = await with_files(native, (("written", False),))
    bad, *_ = files_of(native)
    bad.unlink()
    if how == "damaged":
        bad.write_bytes(b"PAR1 and no more")
    found = await count(native.store, Contains("message"), is_again=True)
    assert found == CountResult(counted(logs, Contains("message"), **bounds()), None)


async def test_a_damaged_file_that_alone_has_its_rows_ends_the_count_before_it(native: TieredSubject) -> None:
    logs = await with_files(native)
    for bad in files_of(native):
        bad.write_bytes(b"PAR1 and no more")
    found = await count(native.store, Contains("message"))
    assert found.counted_from_us is not None
    newer = bounds(start=found.counted_from_us)
    assert found.counted_from_us > T0 + CHUNK_US
    assert found.rows == counted(logs, Contains("message"), **newer)
    with pytest.raises(SegmentDamaged):
        await count(native.store, Contains("message"), end_us=T0 + CHUNK_US)


async def test_without_a_directory_of_files_the_newest_rows_are_counted(native: TieredSubject) -> None:
    logs = await with_files(native)
    blind = PostgresReadStore(native.database, LOGS_TOPIC, Layout.NATIVE)
    found = await count(blind, Contains("message"))
    assert found.counted_from_us is not None
    assert found.rows == counted(logs, Contains("message"), **bounds(start=found.counted_from_us))
    assert found.rows
    with pytest.raises(SegmentsUnreachable, match=r"tiers\.directory"):
        await count(blind, Contains("message"), end_us=T0 + CHUNK_US)


async def test_rows_past_the_age_of_their_class_are_not_counted(native_url: str, tmp_path: Path) -> None:
    classes = (
        RetentionClass(name="pay", days=2, services=("pay",), min_level="ERROR"),
        RetentionClass(name="short", days=1, services=("pay*",)),
    )
    policy = RetentionPolicy.of(RetentionSettings(classes=classes), default_days=4)
    clock = ManualClock(T0 + DAY)
    subject = await TieredSubject(native_url, Layout.NATIVE, tmp_path, retention=policy, clock=clock).open()
    logs = await with_files(subject, (("serving", False), ("written", False)))
    try:
        for hours in (24, 25, 24 + 9, 24 + 18, 48 + 7, 96 + 5, 96 + 19):
            clock.wall_us = T0 + hours * HOUR + 17 * SECOND
            shown = compile_match(Not(policy.hidden(T0 + hours * HOUR)))
            left = [log for log in logs if shown(log)]
            for predicate in (EVERYTHING, Contains("message 1"), MinLevel(17)):
                for width_us in (HOUR, 7 * DAY):
                    found = await count(subject.store, predicate, width_us=width_us)
                    expected = counted(left, predicate, **bounds(width=width_us))
                    assert found == CountResult(expected, None), (hours, predicate, width_us)
    finally:
        await subject.close()


async def test_a_window_that_takes_too_long_is_counted_narrower(
    native: TieredSubject, monkeypatch: pytest.MonkeyPatch
) -> None:
    logs = await with_many_places(native)
    of_tables = TieredCount._of_tables
    refused: list[int] = []

    async def slow(self: TieredCount, low_us: int, high_us: int, predicate: Predicate) -> Any:
        if high_us - low_us > 10 * MINUTE:
            refused.append(high_us - low_us)
            return None
        return await of_tables(self, low_us, high_us, predicate)

    monkeypatch.setattr(TieredCount, "_of_tables", slow)
    found = await count(native.store, MetaEquals(("n",), "7"), budget_ms=30_000)
    assert found == CountResult(counted(logs, MetaEquals(("n",), "7"), **bounds()), None)
    assert refused


async def test_a_row_that_is_stored_meanwhile_is_not_counted(native: TieredSubject) -> None:
    logs = await with_files(native)
    async with native.store.snapshot() as snapshot:
        await native.put([a_log(9_000, at=2 * CHUNK_US)])
        found = await snapshot.count(Count(EVERYTHING, **bounds()), allowed=ALL_SERVICES)
    assert found.rows == counted(logs, **bounds())
