"""Answers Loki's questions out of the store: in one snapshot each, within a place and a budget as pages have them.

Everything carries the right to read (INV-5): names and values of labels too are those of logs that may be read. What a budget
does not reach is told in `warnings`; points of a series that would need it are left out, never guessed.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from access.principal import Principal
from query.answers import Answers
from query.loki import shapes
from query.loki.labels import CORRELATION, LEVEL, SERVICE, is_level, is_service, looked_up
from query.loki.parameters import Span
from query.loki.pipeline import Labelled, Plan, grouped, is_of_stream, needs_services, plan
from query.loki.shapes import Labels
from query.loki.syntax import Constant, LogQuery, Measure, MetricQuery
from query.loki.windows import Windows, check_samples
from runtime.clock import Clock
from schemas.levels import LEVELS, level_name
from schemas.record import Log
from schemas.times import time_text
from search.bounds import services_of
from search.params import ParameterError
from search.predicate import Predicate, ServiceIn, all_of
from store.port import Count, Order, Position, Scan, Snapshot
from store.postgres_read import PAGE_BYTES_MAX

SERIES_MAX: Final = 500
"""Of one answer, as in Loki."""
SERVICES_COUNTED_MAX: Final = 100
"""Of sums by service: each is a count of its own."""
SAMPLE_ROWS: Final = 5_000
"""Newest logs that names and values of labels are taken of."""
ROWS_MAX: Final = 50_000
"""Logs of which labels are looked at, log by log, for one answer."""
BYTES_MAX: Final = 32 * 1024 * 1024
"""Of their messages, about; and of what the store cuts at its own bound, whatever it is that is large."""
COUNTS_MAX: Final = 1_000_000
"""Numbers that sums by service are made of."""
VALUES_MAX: Final = 1_000
_ROWS_AT_ONCE: Final = 1_000
_LEAST_MS: Final = 20


@dataclass(frozen=True, slots=True)
class Reply:
    """An answer's body, and how many logs it shows."""

    body: bytes
    rows: int = 0


class LokiAnswers:
    """One process's."""

    def __init__(self, answers: Answers, clock: Clock, *, budget_ms: int) -> None:
        """budget_ms: of one answer."""
        self._answers = answers
        self._clock = clock
        self._budget_ms = budget_ms

    async def planned(self, query: LogQuery, principal: Principal) -> Plan:
        """The compiled query. Raises LogQLError, Overloaded."""
        names: Sequence[str] = ()
        if needs_services(query):
            names = [each["service_name"] for each in await self._services(principal)]
        return plan(query, names)

    # --- logs ---

    async def logs(
        self, query: LogQuery, asked: Span, principal: Principal, *, order: Order, limit: int, is_categorized: bool
    ) -> Reply:
        """Lines, by streams. Raises Overloaded and what else a page raises."""
        compiled = await self.planned(query, principal)
        found: list[Labelled] = []

        def take(logs: list[Log]) -> bool:
            for log in logs:
                labelled = compiled.labelled(log)
                if labelled is not None:
                    found.append(labelled)
                    if len(found) == limit:
                        return False
            return True

        at_once = limit if compiled.is_exact else _ROWS_AT_ONCE
        looked_to = await self._walk(compiled.predicate, asked, principal, order, take, found, at_once=at_once)
        warnings = [] if looked_to is None else [_unfinished(looked_to, order)]
        body = shapes.logs_answer(found, is_categorized=is_categorized, warnings=warnings)
        return Reply(body, len(found))

    async def _walk(
        self,
        predicate: Predicate,
        asked: Span,
        principal: Principal,
        order: Order,
        take: Callable[[list[Log]], bool],
        reset: list[Any],
        *,
        at_once: int = _ROWS_AT_ONCE,
        rows_max: int = ROWS_MAX,
    ) -> int | None:
        """Give logs to `take` until it wants no more (False). The time from which on they were not looked at, where the budget
        or a bound ended it; None: all were, or `take` had enough. reset: what `take` fills, emptied where it begins anew."""

        async def ask(snapshot: Snapshot, is_again: bool) -> int | None:
            reset.clear()
            ends_s = self._clock.monotonic_s() + self._budget_ms / 1000
            after: Position | None = None
            rows = size = 0
            while True:
                left_ms = int((ends_s - self._clock.monotonic_s()) * 1000)
                if after is not None and (left_ms < _LEAST_MS or rows >= rows_max or size >= BYTES_MAX):
                    return after[0]
                scan = Scan(
                    predicate,
                    order,
                    min(at_once, rows_max - rows),
                    after=after,
                    start_us=asked.start_us,
                    end_us=asked.end_us,
                    budget_ms=max(_LEAST_MS, left_ms),
                    beyond_ms=max(1, left_ms // 20),
                    is_again=is_again,
                )
                result = await snapshot.scan(scan, allowed=principal.may_read)
                rows += len(result.logs)
                is_cut = len(result.logs) < scan.limit and result.scanned_to is not None
                size += max(sum(len(log.message) for log in result.logs), PAGE_BYTES_MAX if is_cut else 0)
                if not take(result.logs) or result.scanned_to is None:
                    return None
                after = result.scanned_to

        if asked.start_us >= asked.end_us:
            return None
        return await self._answers.ask(principal, ask)

    # --- measures ---

    async def measured(
        self, query: MetricQuery, windows: Windows, principal: Principal
    ) -> tuple[dict[Labels, list[tuple[int, float]]], list[str]]:
        """Series, and warnings. Raises ParameterError past SERIES_MAX, and what a page raises."""
        compiled = await self.planned(query.logs, principal)
        is_counted = (
            query.measure in (Measure.COUNT, Measure.RATE)
            and compiled.is_exact
            and compiled.keeps_streams
            and all(map(is_of_stream, query.by if query.by is not None else ()))
            and (query.by is not None or not compiled.has_parsers)
        )
        if is_counted:
            buckets, counted_from_us = await self._counted(compiled, query, windows, principal)
        else:
            buckets, counted_from_us = await self._summed(compiled, query, windows, principal)
        check_samples(windows, len(buckets))
        per = windows.range_us / 1e6 if query.measure in (Measure.RATE, Measure.BYTES_RATE) else 1.0
        series = {
            labels: [(us, value / per) for us, value in windows.points_of(found, counted_from_us=counted_from_us)]
            for labels, found in buckets.items()
        }
        warnings = [] if counted_from_us is None else [_unfinished(counted_from_us, Order.NEWEST_FIRST)]
        return series, warnings

    async def _counted(
        self, compiled: Plan, query: MetricQuery, windows: Windows, principal: Principal
    ) -> tuple[dict[Labels, dict[int, float]], int | None]:
        """By the store's own counts: by level at once, by service one after the other."""
        by = (SERVICE, LEVEL) if query.by is None else query.by
        names: list[str] | None = None
        if any(not is_level(name) for name in by):
            names = await self._names(compiled.predicate, principal)
        if windows.start_us >= windows.end_us:
            return {}, None

        async def ask(snapshot: Snapshot, is_again: bool) -> tuple[dict[Labels, dict[int, float]], int | None]:
            ends_s = self._clock.monotonic_s() + self._budget_ms / 1000
            found: dict[Labels, dict[int, float]] = defaultdict(lambda: defaultdict(float))
            counted_from_us: int | None = None
            counts = 0
            for name in [""] if names is None else names:
                left_ms = int((ends_s - self._clock.monotonic_s()) * 1000)
                of_service = compiled.predicate if names is None else all_of(compiled.predicate, _only(name))
                count = Count(
                    of_service,
                    windows.start_us,
                    windows.end_us,
                    windows.width_us,
                    windows.start_us,
                    budget_ms=max(_LEAST_MS, left_ms),
                    is_again=is_again,
                )
                counted = await snapshot.count(count, allowed=principal.may_read)
                if counted.counted_from_us is not None:
                    counted_from_us = max(counted.counted_from_us, counted_from_us or counted.counted_from_us)
                counts += len(counted.rows)
                if counts > COUNTS_MAX:
                    raise ParameterError(
                        "step", "too many windows of too many services: use a larger step, or name fewer services"
                    )
                for (bucket_us, severity), rows in counted.rows.items():
                    values = {LEVEL: level_name(severity).lower(), SERVICE: name}
                    found[grouped(values, by)][bucket_us] += rows
            return found, counted_from_us

        return await self._answers.ask(principal, ask)

    async def _summed(
        self, compiled: Plan, query: MetricQuery, windows: Windows, principal: Principal
    ) -> tuple[dict[Labels, dict[int, float]], int | None]:
        """Log by log, the newest first, as far as the bounds allow."""
        found: dict[Labels, dict[int, float]] = defaultdict(lambda: defaultdict(float))
        taken: list[dict[Labels, dict[int, float]]] = []
        is_bytes = query.measure in (Measure.BYTES, Measure.BYTES_RATE)

        def take(logs: list[Log]) -> bool:
            if not taken:
                found.clear()
                taken.append(found)
            for log in logs:
                labelled = compiled.labelled(log)
                if labelled is None:
                    continue
                labels = labelled.all
                key = tuple(sorted(labels.items())) if query.by is None else grouped(labels, query.by)
                bucket_us = log.timestamp - (log.timestamp - windows.start_us) % windows.width_us
                found[key][bucket_us] += len(log.message.encode()) if is_bytes else 1
                if len(found) > SERIES_MAX:
                    raise ParameterError(
                        "query", f"maximum of series ({SERIES_MAX}) reached for a single query: sum by fewer"
                    )
            return True

        asked = Span(windows.start_us, windows.end_us)
        looked_to = await self._walk(compiled.predicate, asked, principal, Order.NEWEST_FIRST, take, taken)
        return found, None if looked_to is None else looked_to + 1

    async def range(self, query: MetricQuery | Constant, windows: Windows, principal: Principal) -> Reply:
        """A matrix."""
        if isinstance(query, Constant):
            times = range(windows.first_us, windows.last_us + 1, windows.step_us)
            return Reply(shapes.matrix_answer({(): [(us, query.value) for us in times]}))
        series, warnings = await self.measured(query, windows, principal)
        return Reply(shapes.matrix_answer(series, warnings=warnings))

    async def instant(
        self, query: MetricQuery | Constant, windows: Windows | None, at_us: int, principal: Principal
    ) -> Reply:
        """A vector, or a number. windows: of a query for a measure."""
        if isinstance(query, Constant):
            if query.is_vector:
                return Reply(shapes.vector_answer({(): query.value}, at_us))
            return Reply(shapes.scalar_answer(query.value, at_us))
        assert windows is not None, "only a constant has none"
        series, warnings = await self.measured(query, windows, principal)
        values = {labels: points[-1][1] for labels, points in series.items() if points}
        return Reply(shapes.vector_answer(values, at_us, warnings=warnings))

    # --- labels ---

    async def label_names(self, query: LogQuery | None, asked: Span, principal: Principal) -> Reply:
        """Labels of the newest logs."""
        values = await self._sample(query, asked, principal)
        return Reply(shapes.list_answer(sorted({LEVEL, SERVICE, *values} if values else ())))

    async def label_values(self, name: str, query: LogQuery | None, asked: Span, principal: Principal) -> Reply:
        """A label's values: of services and levels all that there are, of others those of the newest logs."""
        if query is None and name == SERVICE:
            return Reply(shapes.list_answer([each["service_name"] for each in await self._services(principal)]))
        if query is None and is_level(name):
            named = {level for each in await self._services(principal) for level in each["counts"]}
            return Reply(shapes.list_answer([level.lower() for level in LEVELS if level in named]))
        values = await self._sample(query, asked, principal)
        known = values.get(name) or values.get(_own_name(name)) or {}
        return Reply(shapes.list_answer(sorted(known)[:VALUES_MAX]))

    async def series(self, queries: Sequence[LogQuery], asked: Span, principal: Principal) -> Reply:
        """Streams of the newest logs."""
        found: set[Labels] = set()
        for query in queries or [LogQuery(())]:
            compiled = await self.planned(query, principal)
            of_one: list[Labels] = []

            def take(logs: list[Log], compiled: Plan = compiled, of_one: list[Labels] = of_one) -> bool:
                for log in logs:
                    labelled = compiled.labelled(log)
                    if labelled is not None:
                        of_one.append(tuple(sorted(labelled.stream.items())))
                return True

            await self._walk(
                compiled.predicate, asked, principal, Order.NEWEST_FIRST, take, of_one, rows_max=SAMPLE_ROWS
            )
            found.update(of_one)
        return Reply(shapes.list_answer([dict(labels) for labels in sorted(found)]))

    async def detected_fields(
        self, query: LogQuery, asked: Span, principal: Principal, *, limit: int, line_limit: int
    ) -> Reply:
        """Structured metadata of the newest logs, with how many values each has."""
        values = await self._sample(query, asked, principal, rows_max=min(line_limit, SAMPLE_ROWS), with_parsed=True)
        fields = [
            {"label": name, "type": _type_of(found), "cardinality": len(found), "parsers": None}
            for name, found in sorted(values.items())
            if name != SERVICE
        ]
        return Reply(orjson.dumps({"fields": fields[:limit], "limit": limit}))

    async def stats(self, query: LogQuery, asked: Span, principal: Principal) -> Reply:
        """How many logs there are. Streams, chunks and bytes are Loki's own: nothing here is laid out like that."""
        compiled = await self.planned(query, principal)
        entries = 0
        if asked.start_us < asked.end_us:
            windows = Windows(asked.end_us, asked.end_us, 1, asked.end_us - asked.start_us)
            measure = MetricQuery(Measure.COUNT, query, windows.range_us, 0, ())
            found, _ = await self._counted(compiled, measure, windows, principal)
            entries = int(sum(sum(buckets.values()) for buckets in found.values()))
        return Reply(orjson.dumps({"streams": 0, "chunks": 0, "bytes": 0, "entries": entries}))

    async def _sample(
        self,
        query: LogQuery | None,
        asked: Span,
        principal: Principal,
        *,
        rows_max: int = SAMPLE_ROWS,
        with_parsed: bool = False,
    ) -> dict[str, dict[str, None]]:
        """Labels of the newest logs, and the values of each, VALUES_MAX at most."""
        compiled = await self.planned(query or LogQuery(()), principal)
        values: dict[str, dict[str, None]] = {}
        begun: list[None] = []

        def take(logs: list[Log]) -> bool:
            if not begun:
                values.clear()
                begun.append(None)
            for log in logs:
                labelled = compiled.labelled(log)
                if labelled is None:
                    continue
                for name, value in (labelled.all if with_parsed else {**labelled.stream, **labelled.metadata}).items():
                    known = values.setdefault(name, {})
                    if len(known) < VALUES_MAX:
                        known[value] = None
            return True

        await self._walk(compiled.predicate, asked, principal, Order.NEWEST_FIRST, take, begun, rows_max=rows_max)
        return values

    async def _services(self, principal: Principal) -> list[dict[str, Any]]:
        """As /api/v1/services has them."""
        found: list[dict[str, Any]] = orjson.loads(await self._answers.services(principal, is_fresh=False))["services"]
        return found

    async def _names(self, predicate: Predicate, principal: Principal) -> list[str]:
        """Services that a match can be of. Raises ParameterError past SERVICES_COUNTED_MAX."""
        wanted = services_of(predicate)
        names = [each["service_name"] for each in await self._services(principal)]
        if wanted is not None:
            prefixes = tuple(wanted.prefixes)
            names = [name for name in names if name in wanted.names or name.startswith(prefixes)]
        if len(names) > SERVICES_COUNTED_MAX:
            raise ParameterError(
                "query", f"{len(names)} services are too many to count each: name fewer, or sum by level alone"
            )
        return names


def _only(name: str) -> Predicate:
    return ServiceIn(frozenset((name,)))


def _own_name(name: str) -> str:
    """Of a label that has another name with us."""
    if is_service(name):
        return SERVICE
    return LEVEL if is_level(name) else CORRELATION if looked_up({CORRELATION: "x"}, name) else name


def _type_of(values: dict[str, None]) -> str:
    try:
        numbers = [float(value) for value in values]
    except ValueError:
        return "boolean" if set(values) <= {"true", "false"} else "string"
    return "int" if all(number.is_integer() for number in numbers) and not any("." in v for v in values) else "float"


def _unfinished(us: int, order: Order) -> str:
    side = "before" if order is Order.NEWEST_FIRST else "after"
    return f"the time for one question ended: what lies {side} {time_text(us)} is not in this answer; ask for a shorter range"
