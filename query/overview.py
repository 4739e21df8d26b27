"""Answers about many logs at once: how many over time, and which values they have. Every call carries `allowed` (INV-5).

Each holds a place as a page does, and has a page's budget; what that does not reach is told by `counted_from`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final, Protocol, TypeVar

import msgspec
import orjson

from access.principal import Principal
from query import metrics
from query.facets import BYTES_MAX, ROWS_MAX, Field, Tally
from query.histogram import ORIGIN_US, histogram_json
from runtime.clock import Clock
from schemas.scope import ServiceScope
from schemas.times import time_text
from search.predicate import Predicate
from store.port import Count, Order, Position, Scan, Snapshot

_ROWS_AT_ONCE: Final = 2_000
"""Of the sample, one page; a few milliseconds of counting between two of them."""
_STOP_MS: Final = 20
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class HistogramQuestion:
    """Which logs, and how wide buckets are."""

    predicate: Predicate
    start_us: int
    end_us: int
    """Exclusive, after start_us."""
    width_us: int


@dataclass(frozen=True, slots=True)
class FacetQuestion:
    """Which logs, and which of their fields."""

    predicate: Predicate
    start_us: int
    end_us: int
    """Exclusive, after start_us."""
    fields: tuple[Field, ...]
    """None: the log's own and the commonest metadata keys."""
    top: int


class Asking(Protocol):
    """As query.answers.Answers has it."""

    async def ask(self, principal: Principal, ask: Callable[[Snapshot, bool], Awaitable[T]]) -> T:
        """In one snapshot, with a place."""


class Overview:
    """The answers' bodies, as JSON bytes."""

    def __init__(self, answers: Asking, clock: Clock, *, budget_ms: int) -> None:
        """budget_ms: of one answer."""
        self._answers = answers
        self._clock = clock
        self._budget_ms = budget_ms

    async def histogram(self, question: HistogramQuestion, principal: Principal) -> bytes:
        """Numbers of logs. Raises Overloaded, SegmentDamaged and what else a page raises."""

        async def ask(snapshot: Snapshot, is_again: bool) -> bytes:
            count = Count(
                question.predicate,
                question.start_us,
                question.end_us,
                question.width_us,
                ORIGIN_US,
                budget_ms=self._budget_ms,
                is_again=is_again,
            )
            counted = await snapshot.count(count, allowed=principal.may_read)
            metrics.COUNTS_UNFINISHED.inc(counted.counted_from_us is not None)
            return histogram_json(
                counted, start_us=question.start_us, end_us=question.end_us, width_us=question.width_us
            )

        return await self._answers.ask(principal, ask)

    async def facets(self, question: FacetQuestion, principal: Principal) -> bytes:
        """Values of the newest logs that match. Raises as `histogram` does."""

        async def ask(snapshot: Snapshot, is_again: bool) -> bytes:
            tally = Tally(question.fields)
            counted_from_us = await self._sampled(tally, question, snapshot, principal.may_read, is_again=is_again)
            return orjson.dumps(
                {
                    "facets": tally.facets(top=question.top),
                    "counted": tally.rows,
                    "counted_from": None if counted_from_us is None else time_text(counted_from_us),
                    "is_estimated": False,
                }
            )

        return await self._answers.ask(principal, ask)

    async def _sampled(
        self, tally: Tally, question: FacetQuestion, snapshot: Snapshot, allowed: ServiceScope, *, is_again: bool
    ) -> int | None:
        """Fill the tally; from when on it has every log that matches, None: it has all."""
        ends_s = self._clock.monotonic_s() + self._budget_ms / 1000
        after: Position | None = None
        bytes_left = BYTES_MAX
        while True:
            left_ms = int((ends_s - self._clock.monotonic_s()) * 1000)
            if after is not None and (left_ms <= _STOP_MS or bytes_left <= 0 or tally.rows >= ROWS_MAX):
                metrics.COUNTS_UNFINISHED.inc()
                return after[0] + 1
            scan = Scan(
                question.predicate,
                Order.NEWEST_FIRST,
                min(_ROWS_AT_ONCE, ROWS_MAX - tally.rows),
                after=after,
                start_us=question.start_us,
                end_us=question.end_us,
                budget_ms=max(1, left_ms),
                beyond_ms=max(1, left_ms // 20),
                is_again=is_again,
            )
            result = await snapshot.scan(scan, allowed=allowed)
            tally.add(result.logs)
            bytes_left -= sum(len(log.message) + len(msgspec.json.encode(log.metadata)) for log in result.logs)
            if result.scanned_to is None:
                return None
            after = result.scanned_to
