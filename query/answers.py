"""Answers questions: takes a place, opens a snapshot, asks the store, writes the body.

Every question holds one of `scans_max` places while the database works for it, shared fairly among subjects (places.py); those
who wait are bounded too, and everyone past that is refused. So memory is at most scans_max pages of page_bytes_max (INV-4). A
table or file that is dropped under a question means a new snapshot, once. Every call carries `allowed` (INV-5). One event
loop, no locks.

Every page has a tag that says of what it was made: the question, who asks, and what is stored (the offsets of its snapshot).
It is made with the store's secret: else who knows the question would find the offsets by trying. Who sends it again and would
get the same gets nothing, without a row being read. Pages of what is closed are kept too, and
each time the store is asked, in two round trips, whether they are still true.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections import defaultdict
from collections.abc import AsyncGenerator, Awaitable, Callable, Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from typing import Any, Final, TypeVar

import orjson
import structlog

from access.principal import Principal
from query import metrics
from query.cache import Kept, Key, ResultCache
from query.cursor import VERSION as CURSOR_VERSION
from query.cursor import Cursor, CursorSeal
from query.errors import LogNotFound, SnapshotBehind
from query.page import Page, Question, Walk
from query.places import FairPlaces
from query.settings import QuerySettings
from query.tail.token import TailPlace, TailSeal
from runtime.clock import Clock
from schemas.errors import Overloaded
from schemas.ids import ID_MAX
from schemas.levels import level_name
from schemas.pages import log_json
from schemas.record import Log
from schemas.scope import RESERVED_SERVICES, ServiceScope
from schemas.times import time_text
from search.params import ParameterError
from search.predicate import CorrelationIs, Predicate, ServiceIn, all_of, negate, within
from store.port import LedgerRow, Order, Outcome, Position, ReadStore, Scan, ScanResult, Snapshot, SnapshotLost

Unread = Callable[[], Awaitable[dict[int, int]]]
"""Partition -> records that the broker has and the store has not (INV-1). May raise Overloaded."""

log = structlog.get_logger(__name__)

_HOUR_US: Final = 3_600_000_000
_LEDGER_S_MAX: Final = 30.0
"""For all hours of one answer together."""
_PIECE_LOGS: Final = 1_000
_ETAG_CHARS: Final = 32
_BODY_FORMAT: Final = 3
"""Raised with every change of what a page's body says of the same logs: its tags are others then."""
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Asked:
    """What an asker says of the answer that it may have already."""

    is_fresh: bool = False
    """No answer that was kept here is wanted."""
    etags: frozenset[str] = frozenset()
    """Tags of answers that it has."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A body, and the tag that it can be asked for again with."""

    body: bytes | None
    """None: the one that the asker has is still right."""
    etag: str | None


class Answers:
    """The answers' bodies, as JSON bytes."""

    def __init__(self, settings: QuerySettings, store: ReadStore, *, clock: Clock, unread: Unread) -> None:
        """store, unread: opened and closed by the caller."""
        self._settings = settings
        self._store = store
        self._clock = clock
        self._unread = unread
        self._cache = ResultCache(bytes_max=settings.cache_bytes_max, clock=clock)
        self._places = FairPlaces(
            places=settings.scans_max,
            per_subject=settings.scans_per_subject_max,
            waiting_max=settings.scans_waiting_max,
            waiting_per_subject_max=settings.scans_waiting_per_subject_max,
        )
        self._seal: CursorSeal | None = None
        self._tail_seal: TailSeal | None = None
        self._tag_key = b""
        """Made with the seals."""

    async def find(self, question: Question, principal: Principal, *, asked: Asked) -> Answer:
        """A page. Raises CursorError, LogNotFound (the log it is to begin with), Overloaded."""

        def body_of(page: Page, snapshot: Snapshot, seal: CursorSeal) -> dict[str, Any]:
            metrics.PAGES_UNFINISHED.inc(page.scanned_to_us is not None)
            return {
                "logs": list(map(log_json, page.logs)),
                "count": len(page.logs),
                "next_cursor": _sealed(seal, page.next, principal, question.canonical),
                "prev_cursor": _sealed(seal, page.prev, principal, question.canonical),
                "scanned_to": None if page.scanned_to_us is None else time_text(page.scanned_to_us),
                "visible_through": time_text(snapshot.visible_through_us) if snapshot.visible_through_us else None,
                "tail": self._tail_token(question, snapshot, principal),
            }

        return await self._page(question, principal, asked, body_of)

    async def _page(
        self,
        question: Question,
        principal: Principal,
        asked: Asked,
        body_of: Callable[[Page, Snapshot, CursorSeal], dict[str, Any]],
        beside: Callable[[Snapshot], Awaitable[dict[str, Any]]] | None = None,
    ) -> Answer:
        """A page of a walk, with a tag unless its budget ended it. beside: what else its body says."""
        key, allowed = _page_key(question, principal), principal.may_read

        async def ask(snapshot: Snapshot, seal: CursorSeal, walk: Walk | None, *, is_again: bool) -> Answer:
            current = walk or await self._begun(question, snapshot, allowed)
            _check_not_behind(current.partitions_behind(snapshot.offsets))
            etag = self._etag(key, allowed, snapshot.revision, sorted(snapshot.offsets.items()))
            if etag in asked.etags:
                metrics.NOT_MODIFIED.inc()
                return Answer(None, etag)
            here = (*key, snapshot.place)
            kept = None if asked.is_fresh else await self._still_true(here, allowed, snapshot)
            if kept is not None:
                return Answer(None if kept.etag in asked.etags else kept.body, kept.etag)
            scan = current.scan(question, budget_ms=self._settings.scan_budget_ms)
            result = await snapshot.scan(replace(scan, is_again=is_again), allowed=allowed)
            newest = await snapshot.newest() if current.needs_newest(question, result) else None
            page = current.page(question, result, newest=newest)
            metrics.LOGS_SHOWN.inc(len(page.logs))
            more = {} if beside is None else await beside(snapshot)
            body = orjson.dumps({**body_of(page, snapshot, seal), **more})
            if page.scanned_to_us is not None:
                return Answer(body, None)
            if current.is_settled(question, result, closed_before_us=snapshot.closed_before_us):
                etag = self._etag(key, allowed, snapshot.revision, hashlib.sha256(body).hexdigest())
                kept = Kept(body, snapshot.revision, snapshot.mark, etag)
                self._keep(here, kept, allowed, self._settings.cache_ttl_s)
            return Answer(body, etag)

        async with self.place(principal):
            seal = await self._opened_seal()
            walk = None
            if question.token is not None:
                walk = Walk.resume(seal.open(question.token, subject=principal.subject, question=question.canonical))
            return await self._in_snapshot(
                lambda snapshot, is_again: ask(snapshot, seal, walk, is_again=is_again),
                at_least=None if walk is None else walk.offsets,
            )

    async def oldest_first(
        self, predicate: Predicate, principal: Principal, *, start_us: int, end_us: int
    ) -> AsyncGenerator[tuple[Sequence[Log], int], None]:
        """Logs of [start_us, end_us) that may be read, in order, in pieces: each with the time before which no further one
        matches. A place and a snapshot of its own for each piece, none between them. Raises Overloaded."""
        after: Position | None = None
        while True:
            scan = Scan(
                predicate,
                Order.OLDEST_FIRST,
                _PIECE_LOGS,
                after=after,
                start_us=start_us,
                end_us=end_us,
                budget_ms=self._settings.scan_budget_ms,
            )

            async def ask(snapshot: Snapshot, is_again: bool, scan: Scan = scan) -> ScanResult:
                return await snapshot.scan(replace(scan, is_again=is_again), allowed=principal.may_read)

            result = await self.ask(principal, ask)
            after = result.scanned_to
            yield result.logs, end_us if after is None else after[0]
            if after is None:
                return

    @staticmethod
    async def _begun(question: Question, snapshot: Snapshot, allowed: ServiceScope) -> Walk:
        """The walk at its first page. Raises LogNotFound."""
        around = question.around
        if around is None:
            return Walk.begin(question, offsets=snapshot.offsets)
        if around.log_id is not None:
            log = await _existing(snapshot, around.log_id, allowed)
            place = log.timestamp, log.id
        else:
            assert around.us is not None, "a place is a log or a time"
            place = around.us, ID_MAX if question.order is Order.NEWEST_FIRST else 0
        newest = await snapshot.newest() if question.end_us is None else None
        return Walk.begin_at(question, place, newest=newest, offsets=snapshot.offsets)

    async def walked(
        self, question: Question, cursor: Cursor | None, principal: Principal, *, allowed: ServiceScope
    ) -> Page:
        """A page of a walk that stays in this process; cursor: None at its beginning. principal: whose place it takes. Raises
        SnapshotBehind, Overloaded."""

        async def ask(snapshot: Snapshot, is_again: bool) -> Page:
            walk = Walk.begin(question, offsets=snapshot.offsets) if cursor is None else Walk.resume(cursor)
            _check_not_behind(walk.partitions_behind(snapshot.offsets))
            scan = walk.scan(question, budget_ms=self._settings.scan_budget_ms)
            result = await snapshot.scan(replace(scan, is_again=is_again), allowed=allowed)
            newest = await snapshot.newest() if walk.needs_newest(question, result) else None
            return walk.page(question, result, newest=newest)

        return await self.ask(principal, ask, at_least=None if cursor is None else cursor.offsets)

    async def newest(self, predicate: Predicate, principal: Principal, *, limit: int) -> tuple[list[Log], bool]:
        """The newest logs that match, as many as a page's bytes and time allow, and whether these are all. Raises
        Overloaded."""
        scan = Scan(predicate, Order.NEWEST_FIRST, limit, budget_ms=self._settings.scan_budget_ms)

        async def ask(snapshot: Snapshot, is_again: bool) -> tuple[list[Log], bool]:
            result = await snapshot.scan(replace(scan, is_again=is_again), allowed=principal.may_read)
            return result.logs, result.finished

        return await self.ask(principal, ask)

    async def one(self, log_id: int, principal: Principal, *, is_fresh: bool) -> bytes:
        """The log with this id. Raises LogNotFound, Overloaded."""
        allowed = principal.may_read

        async def ask(snapshot: Snapshot, is_again: bool) -> bytes:
            key = ("log", str(log_id), snapshot.place)
            # Nothing that comes can change a log.
            kept = None if is_fresh else self._kept(key, allowed, revision=snapshot.revision)
            if kept is not None:
                return kept.body
            body = orjson.dumps({"log": log_json(await _existing(snapshot, log_id, allowed))})
            self._keep(key, Kept(body, snapshot.revision, snapshot.mark), allowed, self._settings.cache_ttl_s)
            return body

        return await self.ask(principal, ask)

    async def context(self, log_id: int, principal: Principal, *, before: int, after: int) -> bytes:
        """A log with its neighbours of the same service. Raises LogNotFound, Overloaded."""

        async def ask(snapshot: Snapshot, is_again: bool) -> bytes:
            log = await _existing(snapshot, log_id, principal.may_read)
            sides: list[list[Log]] = []
            is_complete = True
            for order, limit in ((Order.NEWEST_FIRST, before), (Order.OLDEST_FIRST, after)):
                scan = Scan(
                    ServiceIn(frozenset((log.service_name,))),
                    order,
                    limit,
                    after=(log.timestamp, log.id),
                    budget_ms=self._settings.scan_budget_ms,
                    is_again=is_again,
                )
                result = await snapshot.scan(scan, allowed=principal.may_read)
                sides.append(result.logs)
                is_complete = is_complete and (result.finished or len(result.logs) == limit)
            return orjson.dumps(
                {
                    "before": list(map(log_json, reversed(sides[0]))),
                    "log": log_json(log),
                    "after": list(map(log_json, sides[1])),
                    "complete": is_complete,
                }
            )

        return await self.ask(principal, ask)

    async def correlation(
        self, correlation_id: str, principal: Principal, *, limit: int, token: str | None, asked: Asked
    ) -> Answer:
        """A page of one correlation id's story, oldest first. Raises CursorError, Overloaded."""
        story = Question(
            CorrelationIs(correlation_id),
            f"correlation\n{correlation_id}",
            Order.OLDEST_FIRST,
            limit,
            start_us=None,
            end_us=None,
            token=token,
        )

        def body_of(page: Page, snapshot: Snapshot, seal: CursorSeal) -> dict[str, Any]:
            return {
                "logs": list(map(log_json, page.logs)),
                "next_cursor": _sealed(seal, page.next, principal, story.canonical),
            }

        async def beside(snapshot: Snapshot) -> dict[str, Any]:
            return {"withheld": await self._is_withheld(story, snapshot, principal.may_read)}

        return await self._page(story, principal, asked, body_of, beside)

    async def _is_withheld(self, story: Question, snapshot: Snapshot, allowed: ServiceScope) -> bool:
        """Whether services that may not be read have logs of the story: that, and nothing else of them. A search that does not
        end in its time counts as found."""
        if allowed.everything:
            return False
        others = all_of(story.predicate, negate(within(allowed)))
        scan = Scan(others, story.order, 1, budget_ms=self._settings.scan_budget_ms)
        found = await snapshot.scan(scan, allowed=ServiceScope(everything=True, excluded=RESERVED_SERVICES))
        return bool(found.logs) or not found.finished

    async def services(self, principal: Principal, *, is_fresh: bool) -> bytes:
        """Every service that may be read. Raises Overloaded."""
        kept = None if is_fresh else self._kept(("services",), principal.may_read, revision=0)
        if kept is not None:
            return kept.body
        async with self.place(principal):
            found = await self._store.services(allowed=principal.may_read)
        services = [
            {
                "service_name": service.service_name,
                "last_seen": time_text(service.last_seen_us),
                "counts": service.counts_by_level,
            }
            for service in found
        ]
        body = orjson.dumps({"services": services})
        self._keep(("services",), Kept(body, 0, 0), principal.may_read, self._settings.services_ttl_s)
        return body

    async def ledger(
        self, principal: Principal, *, start_us: int, end_us: int, service_names: tuple[str, ...]
    ) -> bytes:
        """The ledger's minutes in [start, end), read hour by hour. Raises ParameterError (too many sums), Overloaded."""
        # Asked first: what is stored meanwhile is in both, never in neither (INV-1).
        unread = await self._unread_records()
        rows: list[LedgerRow] = []
        rows_max = self._settings.ledger_rows_max
        async with self.place(principal):
            ends_s = self._clock.monotonic_s() + _LEDGER_S_MAX
            for hour_us in range(start_us, end_us, _HOUR_US):
                left_s = ends_s - self._clock.monotonic_s()
                if left_s <= 0:
                    raise Overloaded(
                        f"the ledger was not read in {_LEDGER_S_MAX:g} s: ask for a shorter time, or again shortly"
                    )
                rows += await self._store.ledger(
                    start_us=hour_us,
                    end_us=min(hour_us + _HOUR_US, end_us),
                    allowed=principal.may_read,
                    service_names=service_names,
                    rows_max=rows_max - len(rows) + 1,
                    budget_ms=int(left_s * 1000),
                )
                if len(rows) > rows_max:
                    raise ParameterError(
                        "start_time",
                        f"the answer would have more than {rows_max} sums: ask for a shorter time or for fewer services",
                    )
        by_minute: dict[tuple[int, str], list[LedgerRow]] = defaultdict(list)
        for row in rows:
            by_minute[row.minute_us, row.service_name].append(row)
        return orjson.dumps(
            {
                "rows": [
                    {"minute": time_text(minute_us), "service_name": name, **_sums(booked)}
                    for (minute_us, name), booked in sorted(by_minute.items())
                ],
                "totals": _sums(rows),
                "unread": unread,
            }
        )

    async def is_ready(self, *, timeout_s: float) -> bool:
        """Whether the store answers now."""
        try:
            async with asyncio.timeout(timeout_s):
                await self._opened_seal()
                async with self._store.snapshot():
                    return True
        except (Overloaded, TimeoutError):
            return False

    async def ask(
        self,
        principal: Principal,
        ask: Callable[[Snapshot, bool], Awaitable[T]],
        *,
        at_least: Mapping[int, int] | None = None,
    ) -> T:
        """What `ask` makes of a snapshot, within a place for questions; of a new one where that was lost (True). at_least:
        offsets that it has reached where there is one that has. Raises TooManyQuestions, Overloaded."""
        async with self.place(principal):
            return await self._in_snapshot(ask, at_least=at_least)

    async def _in_snapshot(
        self, ask: Callable[[Snapshot, bool], Awaitable[T]], *, at_least: Mapping[int, int] | None
    ) -> T:
        """ask: of a snapshot, and whether another one was lost before."""
        try:
            async with self._store.snapshot(at_least=at_least) as snapshot:
                return await ask(snapshot, False)
        except SnapshotLost as lost:
            metrics.SNAPSHOTS_LOST.inc()
            log.warning("snapshot lost, asking again", cause=str(lost.__cause__ or lost))
        except LogNotFound:
            if snapshot.is_current:
                raise
        async with self._store.snapshot(at_least=at_least, is_again=True) as snapshot:
            return await ask(snapshot, True)

    def place(self, principal: Principal) -> AbstractAsyncContextManager[None]:
        """One of the places for questions. Raises TooManyQuestions, TooManyScans."""
        return self._places.place(principal.subject, wait_s=self._settings.scan_wait_ms / 1000)

    async def _opened_seal(self) -> CursorSeal:
        """Asked of the store at first need, so that a service starts with the database away."""
        if self._seal is None:
            secret = await self._store.cursor_secret()
            self._tail_seal = TailSeal(secret)
            self._tag_key = hmac.digest(secret, b"logfeed tag", "sha256")
            self._seal = CursorSeal(secret)
        return self._seal

    def _etag(self, key: Key, allowed: ServiceScope, *state: object) -> str:
        """A tag of what an answer was made of, which nobody can tell from it; another question, right, state or program that
        would write another body has another. The seals were opened before."""
        right = allowed.everything, sorted(allowed.names), sorted(allowed.prefixes), sorted(allowed.excluded)
        made = _BODY_FORMAT, CURSOR_VERSION
        of = repr((key, right, made, state)).encode("utf-8", "surrogatepass")
        return hmac.digest(self._tag_key, of, "sha256").hex()[:_ETAG_CHARS]

    async def tail_seal(self) -> TailSeal:
        """What seals tokens of tails. Raises Overloaded."""
        await self._opened_seal()
        assert self._tail_seal is not None, "made with the other one"
        return self._tail_seal

    def _tail_token(self, question: Question, snapshot: Snapshot, principal: Principal) -> str | None:
        """Where a tail begins that is exactly the rest of this snapshot; only a first page is of one snapshot."""
        if question.token is not None or question.tail_canonical is None or self._tail_seal is None:
            return None
        place = TailPlace(snapshot.offsets, snapshot.visible_through_us // 1000)
        return self._tail_seal.seal(place, subject=principal.subject, question=question.tail_canonical)

    async def _unread_records(self) -> dict[str, int] | None:
        try:
            return {str(partition): records for partition, records in sorted((await self._unread()).items())}
        except Overloaded:
            return None

    async def _still_true(self, key: Key, allowed: ServiceScope, snapshot: Snapshot) -> Kept | None:
        """The kept answer, if the snapshot would give the same logs, and cursors that lead to the same ones."""
        kept = self._cache.get(key, allowed=allowed)
        if kept is not None and (kept.revision != snapshot.revision or await snapshot.late_since(kept.mark)):
            kept = None
        return _counted(kept)

    def _kept(self, key: Key, allowed: ServiceScope, *, revision: int) -> Kept | None:
        """The kept answer, if it was made of this revision."""
        kept = self._cache.get(key, allowed=allowed)
        return _counted(kept if kept is not None and kept.revision == revision else None)

    def _keep(self, key: Key, kept: Kept, allowed: ServiceScope, ttl_s: float) -> None:
        self._cache.put(key, kept, allowed=allowed, ttl_s=ttl_s)
        metrics.CACHE_BYTES.set(self._cache.size_bytes)


def _counted(given: Kept | None) -> Kept | None:
    (metrics.CACHE_MISSES if given is None else metrics.CACHE_HITS).inc()
    return given


def _page_key(question: Question, principal: Principal) -> Key:
    """With the subject, because cursors in the answer are bound to it; with times as resolved now, unless frozen."""
    times = "" if question.token is not None else f"{question.start_us} {question.end_us} {question.around}"
    return ("page", principal.subject, question.canonical, str(question.limit), times, question.token or "")


async def _existing(snapshot: Snapshot, log_id: int, allowed: ServiceScope) -> Log:
    log = await snapshot.by_id(log_id, allowed=allowed)
    if log is None:
        raise LogNotFound(f"there is no log {log_id}, or it may not be read")
    return log


def _check_not_behind(partitions: list[int]) -> None:
    if partitions:
        metrics.CURSORS_BEHIND.inc()
        raise SnapshotBehind(
            f"the database is behind what the first page has shown (partitions {', '.join(map(str, partitions))}):"
            " it was restored or is a replica that lags; try again shortly",
            retry_after_s=2,
        )


def _sealed(seal: CursorSeal, cursor: Cursor | None, principal: Principal, question: str) -> str | None:
    return None if cursor is None else seal.seal(cursor, subject=principal.subject, question=question)


def _sums(rows: Iterable[LedgerRow]) -> dict[str, Any]:
    """Sums of booked rows; see schemas.pages.LedgerSums."""
    totals: dict[Outcome, int] = dict.fromkeys(Outcome, 0)
    parts: dict[Outcome, dict[str, int]] = {outcome: {} for outcome in Outcome}
    for row in rows:
        label = level_name(row.level) if row.outcome is Outcome.STORED else row.reason
        totals[row.outcome] += row.count
        parts[row.outcome][label] = parts[row.outcome].get(label, 0) + row.count
    accounted = sum(count for outcome, count in totals.items() if outcome is not Outcome.RECEIVED)
    return {
        "received": totals[Outcome.RECEIVED],
        "stored": parts[Outcome.STORED],
        "filtered": parts[Outcome.FILTERED],
        "rejected": parts[Outcome.REJECTED],
        "duplicate": totals[Outcome.DUPLICATE],
        "dead_lettered": parts[Outcome.DEAD],
        "balanced": totals[Outcome.RECEIVED] == accounted,
    }
