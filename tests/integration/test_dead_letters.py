"""Dead letters: looked at within one's rights, stored after all in one transaction, or dropped."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec
import pytest

from broker.port import Delivered
from db.migrations import Layout
from schemas.errors import InvalidInput
from schemas.frames import FrameHeader, ServiceCounts, encode_headers, encode_lines
from schemas.record import Log, LogLine
from schemas.scope import ALL_SERVICES, NO_SERVICES, ServiceScope
from store.dead_letters import PREVIEW_BYTES, DeadLetterMissing, DeadLetters, ReplayRefused
from store.port import DeadLetter, LedgerRow, Outcome, StorePlan
from store.postgres_read import PostgresReadStore
from tests.store_sites import HOUR_US, TOPIC, PostgresSite, now_us, postgres_site, prepared
from writer.decode import decode_frame
from writer.plan import plan_batch

API_ONLY = ServiceScope(names=frozenset({"api"}))
WEB_PREFIX = ServiceScope(prefixes=frozenset({"we"}))
NUL = "NUL \0"


@pytest.fixture(params=[Layout.NATIVE.value, pytest.param(Layout.TIMESCALE.value, marks=pytest.mark.timescale)])
def place(request: pytest.FixtureRequest) -> tuple[str, Layout]:
    """URL and layout of a fresh database."""
    return request.getfixturevalue(f"{request.param}_url"), Layout(request.param)


@pytest.fixture
async def site(place: tuple[str, Layout]) -> AsyncIterator[PostgresSite]:
    async with postgres_site(*place) as made:
        yield await prepared(made)


def line(log_id: int, *, service: str = "api", message: str = "m", timestamp_us: int | None = None) -> bytes:
    """A line as it lies in a frame."""
    at_us = now_us() if timestamp_us is None else timestamp_us
    return msgspec.json.encode(LogLine(log_id, at_us, 14, service, message, None, msgspec.Raw(b"{}")))


async def die(site: PostgresSite, *letters: tuple[str, str, bytes]) -> list[int]:
    """Put (service, reason, line) aside, booked as dead; returns the letters' ids."""
    dead = [
        DeadLetter(0, 5, n, reason, f"{reason} because", service, 60_000_000, text)
        for n, (service, reason, text) in enumerate(letters)
    ]
    ledger = [LedgerRow(60_000_000, service, 0, Outcome.DEAD, reason, 1) for service, reason, _ in letters]
    async with site.writer.begin() as batch:
        await batch.commit(StorePlan(dead=dead, ledger=ledger))
    rows = await site.database.fetch_all("SELECT id FROM dead_letters ORDER BY id DESC LIMIT %s", (len(letters),))
    return sorted(letter_id for (letter_id,) in rows)


async def ledger_of(site: PostgresSite) -> set[tuple[str, int, str, str, int]]:
    """(service, level, outcome, reason, sum) of the one minute."""
    rows = await site.database.fetch_all(
        "SELECT service_name, level, outcome, reason, sum(count)::bigint FROM ledger GROUP BY 1, 2, 3, 4"
    )
    return {(service, level, outcome, reason, count) for service, level, outcome, reason, count in rows}


async def test_pages_are_newest_first_filtered_and_bounded(site: PostgresSite) -> None:
    letters = DeadLetters(site.database, site.layout)
    ids = await die(site, ("api", "refused", b"a" * 1_000), ("web", "key_reused", b"b"), ("api", "key_reused", b"c"))
    found = await letters.page(allowed=ALL_SERVICES)
    assert [letter.id for letter in found] == ids[::-1]
    assert (found[2].line, found[2].line_bytes) == (b"a" * PREVIEW_BYTES, 1_000)
    assert (found[1].service_name, found[1].reason, found[1].detail, found[1].received_minute_us, found[1].offset) == (
        *("web", "key_reused", "key_reused because", 60_000_000, 5),
    )
    assert [letter.id for letter in await letters.page(allowed=ALL_SERVICES, limit=2)] == [ids[2], ids[1]]
    assert [letter.id for letter in await letters.page(allowed=ALL_SERVICES, before_id=ids[1])] == [ids[0]]
    assert [letter.id for letter in await letters.page(allowed=ALL_SERVICES, service_name="api")] == [ids[2], ids[0]]
    assert [letter.id for letter in await letters.page(allowed=ALL_SERVICES, reason="refused")] == [ids[0]]
    with pytest.raises(InvalidInput, match=r"limit must be 1\.\.1000, got 0"):
        await letters.page(allowed=ALL_SERVICES, limit=0)


async def test_replay_is_a_new_revision_for_readers(site: PostgresSite) -> None:
    """It stores a row without moving an offset: who holds a page must not be told that nothing has changed."""
    store = PostgresReadStore(site.database, TOPIC, site.layout)
    (letter,) = await die(site, ("api", "refused", line(1)))
    async with store.snapshot() as snapshot:
        before, offsets = snapshot.revision, snapshot.offsets
    await DeadLetters(site.database, site.layout).replay(letter, allowed=ALL_SERVICES)
    async with store.snapshot() as snapshot:
        assert snapshot.revision != before
        assert snapshot.offsets == offsets


async def test_replay_that_takes_its_time_holds_up_no_closing(site: PostgresSite) -> None:
    """Until its COMMIT it holds nothing that the closer needs, which has the border in its hand."""
    (letter,) = await die(site, ("api", "refused", line(1)))
    async with site.writer.begin() as batch:
        border_us = batch.border.closed_before_us
    await site.see(border_us + 7 * HOUR_US)
    async with site.database.transaction() as replaying:
        await replaying.execute("DELETE FROM dead_letters WHERE id = %s", (letter,))
        assert await site.upkeep.close_due(now_us=now_us()) == 1


async def test_letters_that_are_dropped_at_once_are_one_new_revision(site: PostgresSite) -> None:
    """However many: a version of the one row for each would make each wait for all before it."""
    version = "SELECT version, pg_relation_size('catalogue_version') FROM catalogue_version"
    await die(site, *[("api", "refused", b"x")] * 2_000)
    before = await site.database.fetch_one(version)
    assert before is not None
    await site.database.execute("DELETE FROM dead_letters")
    assert await site.database.fetch_one(version) == (before[0] + 1, before[1])


async def test_letters_of_other_services_are_not_there(site: PostgresSite) -> None:
    """INV-5."""
    letters = DeadLetters(site.database, site.layout)
    api, web = await die(site, ("api", "refused", line(1)), ("web", "refused", line(2, service="web")))
    assert [letter.id for letter in await letters.page(allowed=API_ONLY)] == [api]
    assert [letter.id for letter in await letters.page(allowed=WEB_PREFIX)] == [web]
    assert await letters.page(allowed=NO_SERVICES) == []
    assert (await letters.show(api, allowed=API_ONLY)).line == (await letters.show(api, allowed=ALL_SERVICES)).line
    for call in (letters.show, letters.replay, letters.drop):
        with pytest.raises(DeadLetterMissing):
            await call(web, allowed=API_ONLY)
    assert await site.rows() == []
    assert len(await site.dead_lines()) == 2


async def test_replay_stores_the_line_and_books_it_from_dead_to_stored(site: PostgresSite) -> None:
    """INV-1: the sum of the minute stays."""
    letters = DeadLetters(site.database, site.layout)
    hot, late, other = await die(
        site,
        ("api", "key_reused", line(41)),
        ("api", "key_reused", line(42, timestamp_us=now_us() - 48 * HOUR_US)),
        ("api", "refused", line(43)),
    )
    assert await letters.replay(hot, allowed=API_ONLY) == 41
    assert await letters.replay(late, allowed=API_ONLY) == 42
    assert await site.rows() == [(41, "m"), (42, "m")]
    assert await site.database.fetch_one("SELECT id FROM logs_late_1") == (42,)
    assert [letter.id for letter in await letters.page(allowed=ALL_SERVICES)] == [other]
    assert await ledger_of(site) == {
        ("api", 0, "dead", "key_reused", 0),
        ("api", 0, "dead", "refused", 1),
        ("api", 13, "stored", "", 2),
    }
    with pytest.raises(DeadLetterMissing):
        await letters.replay(hot, allowed=API_ONLY)
    assert len(await site.rows()) == 2


@pytest.mark.parametrize(
    "text, reason",
    [
        (line(1, message=NUL), "invalid byte sequence"),
        (b"[1,2", "is no line that can be stored"),
        (b"\xff", "is no line that can be stored"),
        (line(1, service="web"), "of service 'web', it was counted as 'api'"),
        (line(1, timestamp_us=now_us() + 30 * 24 * HOUR_US), "cannot be stored"),
        (line(1, timestamp_us=1 << 64), "does not fit its column"),
    ],
    ids=["NUL", "cut", "no UTF-8", "other service", "no chunk", "no timestamp"],
)
async def test_line_that_is_still_refused_stays_with_a_clear_error(
    site: PostgresSite, text: bytes, reason: str
) -> None:
    letters = DeadLetters(site.database, site.layout)
    (letter_id,) = await die(site, ("api", "refused", text))
    before = await ledger_of(site)
    with pytest.raises(ReplayRefused, match=f"dead letter {letter_id} .*stays: .*{reason}|dead letter .*{reason}"):
        await letters.replay(letter_id, allowed=ALL_SERVICES)
    assert (await letters.show(letter_id, allowed=ALL_SERVICES)).line == text
    assert await site.rows() == []
    assert await ledger_of(site) == before


@pytest.mark.parametrize(
    ("reason", "text", "says"),
    [
        ("no_frame", b"\x28\xb5\x2f\xfd cut", "is a whole record that could not be read as a frame"),
        ("missing", b"", "stands for logs that a frame counted and did not hold"),
    ],
)
async def test_letter_that_is_no_line_says_so_and_can_be_dropped(
    site: PostgresSite, reason: str, text: bytes, says: str
) -> None:
    letters = DeadLetters(site.database, site.layout)
    (letter_id,) = await die(site, ("", reason, text))
    with pytest.raises(ReplayRefused, match=rf"{says}: .*drop it \({reason} because\)"):
        await letters.replay(letter_id, allowed=ALL_SERVICES)
    assert (await letters.show(letter_id, allowed=ALL_SERVICES)).line == text
    await letters.drop(letter_id, allowed=ALL_SERVICES)
    assert await letters.page(allowed=ALL_SERVICES) == []
    assert await ledger_of(site) == {("", 0, "dead", reason, 1)}


async def test_frame_that_contradicts_its_headers_is_replayed_line_by_line(site: PostgresSite) -> None:
    """INV-1: what the writer put aside of it adds up before, between and after."""
    now_ms = now_us() // 1000
    logs = [
        Log(n, now_us(), 9, service, "m", None, {}) for n, service in ((1, "api"), (2, "web"), (3, "web"), (4, "other"))
    ]
    head = FrameHeader(
        frame_id=bytes(16),
        received_ms=now_ms,
        counts={"api": ServiceCounts(received=4, filtered={"debug": 1}), "web": ServiceCounts(received=2)},
    )
    record = Delivered(0, 0, now_ms, encode_headers(head), encode_lines(logs))
    store = site.writer
    (lease,) = await store.claim("w", want=1, ttl_s=60)
    async with store.begin() as batch:
        plan = plan_batch([decode_frame(record)], epochs={0: lease.epoch}, known={}, border=batch.border)
        await batch.commit(plan)
    await _adds_up(site)
    letters = DeadLetters(site.database, site.layout)
    found = await letters.page(allowed=ALL_SERVICES, reason="mismatch")
    assert [(letter.log_id, letter.service_name) for letter in found[::-1]] == [
        (1, "api"),
        (2, "web"),
        (3, "web"),
        (4, "other"),
    ]
    for letter in found:
        await letters.replay(letter.id, allowed=ALL_SERVICES)
        await _adds_up(site)
    assert [log_id for log_id, _ in await site.rows()] == [1, 2, 3, 4]
    (missing,) = await letters.page(allowed=ALL_SERVICES)
    assert (missing.reason, missing.service_name) == ("missing", "api")
    assert await ledger_of(site) >= {("api", 0, "dead", "missing", 2), ("other", 0, "received", "", 1)}


async def _adds_up(site: PostgresSite) -> None:
    """Per minute and service."""
    assert (
        await site.database.fetch_all(
            "SELECT minute, service_name, sum(CASE outcome WHEN 'received' THEN count ELSE -count END) FROM ledger"
            " GROUP BY 1, 2 HAVING sum(CASE outcome WHEN 'received' THEN count ELSE -count END) <> 0"
        )
        == []
    )


async def test_drop_deletes_the_letter_and_leaves_the_ledger(site: PostgresSite) -> None:
    letters = DeadLetters(site.database, site.layout)
    (letter_id,) = await die(site, ("api", "refused", b"x"))
    await letters.drop(letter_id, allowed=API_ONLY)
    assert await letters.page(allowed=ALL_SERVICES) == []
    assert await ledger_of(site) == {("api", 0, "dead", "refused", 1)}
