"""What the miner saves: fenced, whole, bounded; and what is read of it."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest

from db.database import Database
from db.leases import Lease
from patterns.counts import OTHER, Counted, CountRow
from patterns.families import id_of
from schemas.scope import ALL_SERVICES, ServiceScope
from store.patterns.reading import Asked, PatternFigures, PatternReader, Sort, Span
from store.patterns.state import PATTERNS, GapInCounts, PatternState, StaleEpoch, StateMoved

HOUR_US = 3_600_000_000
NOW = 500_000 * 60
"""Minutes since the Unix epoch: a whole hour."""
NOW_US = NOW * 60_000_000
DAY = 1_440


def row(text: str, lines: int = 1, *, minute: int = NOW - 1, service: str = "a", level: int = 9) -> CountRow:
    first = minute * 10
    return CountRow(
        minute, service, level, id_of(text) if text else OTHER, lines, tuple(range(first, first + min(lines, 3)))
    )


@dataclass
class Miner:
    """One that saves."""

    database: Database
    lease: Lease
    state: PatternState
    through_us: int = NOW_US

    async def save(self, *rows: CountRow, texts: tuple[str, ...] = (), **more: object) -> None:
        merged = {("a", id_of(one)): id_of(into) for one, into in dict(more.pop("merged", ())).items()}  # type: ignore[call-overload]
        revived = [("a", id_of(text)) for text in more.pop("revived", ())]  # type: ignore[attr-defined]
        counted = Counted(rows, {id_of(text): text for text in texts} | {OTHER: ""}, merged, revived, b"snapshot")
        await self.state.save(
            counted,
            positions={0: self.state._version + 1},
            read_us={0: 1},
            counted_from_us=NOW_US - 40 * DAY * 60_000_000,
            counted_through_us=self.through_us,
            **more,  # type: ignore[arg-type]
        )

    async def lines(self, table: str) -> dict[tuple[str, str], int]:
        """(service, template) -> lines."""
        rows = await self.database.fetch_all(
            f"SELECT service_name, template, sum(lines)::bigint FROM {table} JOIN pattern_templates USING (key) GROUP BY 1, 2"
        )
        return {(service, template): lines for service, template, lines in rows}

    async def purge(self, **limits: int) -> None:
        defaults = {"minutes_days": 2, "retention_days": 30, "rows_max": 1_000, "templates_max": 1_000}
        await self.state.purge(NOW_US, **{**defaults, **limits})


@pytest.fixture
async def database(native_url: str) -> AsyncIterator[Database]:
    database = Database(native_url, application_name="pattern test", connections_max=4)
    await database.open()
    yield database
    await database.close()


@pytest.fixture
async def miner(database: Database) -> Miner:
    return await begun(database, "one")


async def begun(database: Database, name: str) -> Miner:
    lease = Lease(database, PATTERNS, name, ttl_s=60)
    await lease.take_over()
    state = PatternState(database, lease, "logs")
    await state.load()
    return Miner(database, lease, state)


async def test_what_was_saved_is_gone_on_from(database: Database, miner: Miner) -> None:
    await miner.save(row("x"), texts=("x",))
    again = await begun(database, "one")
    saved = await again.state.load()
    assert (saved.positions, saved.read_us, saved.snapshot) == ({0: 1}, {0: 1}, b"snapshot")


async def test_who_was_thought_dead_counts_nothing(database: Database, miner: Miner) -> None:
    await miner.save(row("x", 2), texts=("x",))
    second = await begun(database, "two")
    with pytest.raises(StaleEpoch):
        await miner.save(row("x", 5), texts=("x",))
    with pytest.raises(StaleEpoch):
        await miner.purge(minutes_days=1)
    await second.save(row("x", 1), texts=("x",))
    # The same epoch, and a state that another save of it has moved on.
    stale = PatternState(database, second.lease, "logs")
    with pytest.raises(StateMoved):
        await Miner(database, second.lease, stale).save(row("x", 7), texts=("x",))
    assert await second.lines("pattern_minutes") == await second.lines("pattern_hours") == {("a", "x"): 3}


async def test_rows_of_one_minute_add_up_and_keep_the_first_and_the_last_samples(miner: Miner) -> None:
    first = CountRow(NOW - 1, "a", 9, id_of("x"), 3, (10, 20, 30))
    await miner.save(first, texts=("x",))
    await miner.save(CountRow(NOW - 1, "a", 9, id_of("x"), 4, (30, 40, 50)), texts=("x",))
    for table in ("pattern_minutes", "pattern_hours"):
        assert await miner.database.fetch_all(f"SELECT lines, samples FROM {table}") == [(7, [10, 40, 50])]


async def figures(
    miner: Miner, *, allowed: ServiceScope = ALL_SERVICES, sort: Sort = Sort.COUNT
) -> list[PatternFigures]:
    span = Span.of(NOW_US - HOUR_US, NOW_US, minutes_from_us=0)
    found = await PatternReader(miner.database, "logs").find(Asked(span), sort, limit=100, allowed=allowed)
    return found.patterns


async def test_merged_counts_are_read_as_the_general_one_in_one_step(miner: Miner) -> None:
    await miner.save(row("a 1", 2, minute=NOW - 30), row("a 2", 3), texts=("a 1", "a 2"))
    await miner.save(row("a *", 4), texts=("a *",), merged={"a 1": "a *", "a 2": "a *"})
    (one,) = await figures(miner)
    assert (one.template, one.lines, one.first_us // 60_000_000) == ("a *", 9, NOW - 30)
    await miner.save(row("* *", 1), texts=("* *",), merged={"a *": "* *"})
    (one,) = await figures(miner)
    assert (one.template, one.lines, one.first_us // 60_000_000) == ("* *", 10, NOW - 30)
    assert await miner.database.fetch_all(
        "SELECT count(*) FROM pattern_templates t JOIN pattern_templates i ON i.key = t.into_key WHERE i.into_key IS NOT NULL"
    ) == [(0,)]
    assert await figures(miner, sort=Sort.NEW) == await figures(miner), "all of it is of this hour"
    # The miner has let go of the general one, and meets lines of a special one again.
    await miner.save(row("a 1", 1), texts=("a 1",), revived=("a 1",))
    assert {each.template: each.lines for each in await figures(miner)} == {"* *": 8, "a 1": 3}


async def test_a_general_one_without_lines_of_its_own_is_kept(miner: Miner) -> None:
    await miner.save(row("a 1", 2), texts=("a 1",))
    await miner.save(texts=("a *",), merged={"a 1": "a *", "never saved": "a *"})
    (one,) = await figures(miner)
    assert (one.template, one.lines) == ("a *", 2)
    assert await PatternReader(miner.database, "logs").texts([id_of("a 1"), id_of("a *")], allowed=ALL_SERVICES) == {
        id_of("a 1"): "a 1",
        id_of("a *"): "a *",
    }


async def test_counts_go_by_age_and_templates_with_them(miner: Miner) -> None:
    await miner.save(
        row("now"),
        row("days ago", minute=NOW - 5 * DAY),
        row("long ago", minute=NOW - 31 * DAY),
        row("", 3),
        texts=("now", "days ago", "long ago"),
    )
    await miner.purge()
    assert await miner.lines("pattern_minutes") == {("a", "now"): 1, ("a", ""): 3}
    assert await miner.lines("pattern_hours") == {("a", "now"): 1, ("a", "days ago"): 1, ("a", ""): 3}
    templates = {text for (text,) in await miner.database.fetch_all("SELECT template FROM pattern_templates")}
    assert templates == {"now", "days ago", ""}


async def test_templates_past_the_limit_go_and_their_lines_stay_in_the_sums(miner: Miner) -> None:
    texts = tuple(f"kind {number}" for number in range(20))
    rows = [row(text, 2, minute=NOW - 20 + number, service="ab"[number % 2]) for number, text in enumerate(texts)]
    await miner.save(*rows, texts=texts)
    await miner.purge(templates_max=7)
    for table in ("pattern_minutes", "pattern_hours"):
        found = await miner.lines(table)
        assert sum(found.values()) == 40
        kept = {template for _, template in found} - {""}
        assert kept == set(texts[-len(kept) :]), "those seen last"
        assert 5 <= len(kept) <= 7
    await miner.save(row("kind 0", 5, minute=NOW), texts=("kind 0",))
    assert (await miner.lines("pattern_minutes"))["a", "kind 0"] == 5, "what went may come again"


async def test_many_templates_go_a_bounded_number_in_a_transaction(
    miner: Miner, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each may have thousands of rows: all at once would not end in the time there is, and be tried again for ever."""
    texts = tuple(f"kind {number}" for number in range(2_600))
    await miner.save(*(row(text, 2) for text in texts), texts=texts)
    gone: list[int] = []
    forget = PatternState._forget_templates

    async def count() -> int:
        ((templates,),) = await miner.database.fetch_all("SELECT count(*) FROM pattern_templates WHERE template <> ''")
        return int(templates)

    async def counted(state: PatternState, templates_max: int) -> bool:
        before = await count()
        is_more = await forget(state, templates_max)
        gone.append(before - await count())
        return is_more

    monkeypatch.setattr(PatternState, "_forget_templates", counted)
    await miner.purge(templates_max=10, rows_max=10_000)
    assert max(gone) <= 1_000
    assert 2_590 <= sum(gone) < 2_600
    assert sum((await miner.lines("pattern_minutes")).values()) == 5_200


async def test_rows_past_the_limit_go_oldest_first(miner: Miner) -> None:
    await miner.save(*(row("x", minute=NOW - number) for number in range(50)), texts=("x",))
    await miner.purge(rows_max=10)
    assert await miner.database.fetch_all("SELECT min(start), count(*) FROM pattern_minutes") == [(NOW - 9, 10)]


async def test_a_gap_is_told_for_its_time_alone(miner: Miner) -> None:
    gap = GapInCounts(NOW_US - HOUR_US // 2, NOW_US - HOUR_US // 4, "expired")
    await miner.save(row("x"), texts=("x",), gaps=[gap])
    reader = PatternReader(miner.database, "logs")
    for start_us, has_gap in ((NOW_US - HOUR_US, True), (NOW_US - HOUR_US // 4, False), (NOW_US - 2 * HOUR_US, True)):
        span = Span.of(start_us, NOW_US, minutes_from_us=0)
        found = await reader.find(Asked(span), Sort.COUNT, limit=1, allowed=ALL_SERVICES)
        assert found.progress.has_gap == has_gap
    await miner.purge(retention_days=30)
    assert await miner.database.fetch_all("SELECT count(*) FROM pattern_gaps") == [(1,)]


async def test_spans_of_minutes_and_of_hours_say_the_same(miner: Miner) -> None:
    rows = [row(f"kind {number % 3}", number, minute=NOW - number) for number in range(1, 60)]
    await miner.save(*rows, texts=("kind 0", "kind 1", "kind 2"))
    reader = PatternReader(miner.database, "logs")
    found = []
    for minutes_from_us in (0, NOW_US):
        span = Span.of(NOW_US - HOUR_US, NOW_US, minutes_from_us=minutes_from_us)
        assert span.start_us == NOW_US - HOUR_US
        found.append(await reader.find(Asked(span), Sort.COUNT, limit=2, allowed=ALL_SERVICES))
    assert [[(each.template, each.lines) for each in one.patterns] for one in found] == [
        [("kind 2", 610), ("kind 1", 590)]
    ] * 2
    assert [one.lines for one in found] == [sum(range(1, 60))] * 2
    history = await reader.history(id_of("kind 1"), Asked(span), points_max=10, allowed=ALL_SERVICES)
    assert history is not None
    assert [point.lines for point in history.points] == [590]
    assert await reader.history(id_of("kind 1"), Asked(span), points_max=10, allowed=ServiceScope()) is None
