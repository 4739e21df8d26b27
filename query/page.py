"""What a page asks of the store, and what its cursors say. Decides only; nothing here waits.

The first page freezes the walk: relative times as they were resolved, where the question has no end the greatest position
that it can show, and the snapshot's offsets. That position is the first log of a page that begins with the newest, and the
greatest of the snapshot for one that begins with the oldest, which has to ask for it only if it is not the last. Every later
page asks within these bounds, after the position in its cursor. A page may be walked in both directions; its logs are always
in the question's order (INV-6).

A page has a cursor to a side exactly when logs lie there, within the frozen bounds: ahead because the store looks for one
more log than the page holds, behind because a cursor knows whether logs were shown on its way. Only where a budget ended
before that was known may a cursor lead to an empty page.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

from query.cursor import Cursor
from schemas.ids import ID_MAX
from schemas.record import Log
from search.predicate import Predicate
from store.port import Order, Position, Scan, ScanResult


@dataclass(frozen=True, slots=True)
class Around:
    """A place in a walk: a log, by its id, or a time."""

    log_id: int | None = None
    us: int | None = None


@dataclass(frozen=True, slots=True)
class Question:
    """One question as sent: what to find, in which order, how much."""

    predicate: Predicate
    canonical: str
    """Everything that must stay the same along a walk, in one spelling; without limit and cursor."""
    order: Order
    limit: int
    start_us: int | None
    """Inclusive; resolved at this request. A cursor's frozen times take its place."""
    end_us: int | None
    """Exclusive; resolved at this request."""
    token: str | None
    """The cursor's token."""
    around: Around | None = None
    """Where the first page begins, in the midst of the walk: logs lie on both sides. None: at its beginning."""
    tail_canonical: str | None = None
    """`canonical` of the tail that goes on from here; None for a question that has an end."""


@dataclass(frozen=True, slots=True)
class Page:
    """One page, in the question's order."""

    logs: list[Log]
    next: Cursor | None
    prev: Cursor | None
    scanned_to_us: int | None
    """Timestamp at which the budget ended the search; None when it did not."""


@dataclass(frozen=True, slots=True)
class Walk:
    """A walk at one page: frozen bounds and, after the first page, where it stands."""

    start_us: int | None
    end_us: int | None
    last: Position | None
    offsets: dict[int, int]
    after: Position | None = None
    is_back: bool = False
    can_turn: bool = False

    @classmethod
    def begin(cls, question: Question, *, offsets: Mapping[int, int]) -> Walk:
        """At the first page."""
        return cls(question.start_us, question.end_us, None, dict(offsets))

    @classmethod
    def begin_at(
        cls, question: Question, place: Position, *, newest: Position | None, offsets: Mapping[int, int]
    ) -> Walk:
        """At the page that begins with this position, or with what follows it in the question's order. newest: of the snapshot:
        the walk has an end from its first page on, since both sides are open to it."""
        last = newest if question.end_us is None else None
        after = _before(place, _opposite(question.order))
        return cls(question.start_us, question.end_us, last, dict(offsets), after=after, can_turn=True)

    @classmethod
    def resume(cls, cursor: Cursor) -> Walk:
        """Where a cursor stands."""
        return cls(
            cursor.start_us, cursor.end_us, cursor.last, cursor.offsets, cursor.after, cursor.is_back, cursor.can_turn
        )

    def partitions_behind(self, offsets: Mapping[int, int]) -> list[int]:
        """Partitions in which a snapshot is older than the first page's."""
        return sorted(partition for partition, offset in self.offsets.items() if offsets.get(partition, 0) < offset)

    def scan(self, question: Question, *, budget_ms: int) -> Scan:
        """What this page asks of the store. A twentieth of the budget may go into what lies beyond a full page."""
        return Scan(
            predicate=question.predicate,
            order=self._direction(question),
            limit=question.limit,
            after=self.after,
            start_us=self.start_us,
            end_us=self.end_us,
            last=self.last,
            budget_ms=budget_ms,
            beyond_ms=budget_ms // 20,
        )

    def needs_newest(self, question: Question, result: ScanResult) -> bool:
        """Whether `page` has to know the greatest position of the snapshot."""
        has_end = self.end_us is not None or self.last is not None
        return not has_end and question.order is Order.OLDEST_FIRST and result.scanned_to is not None

    def is_settled(self, question: Question, result: ScanResult, *, closed_before_us: int) -> bool:
        """Whether everything that the page tells of lies before this time. What a first page freezes is told by its cursors:
        where that is the newest position of all, walks that begin later must not end there."""
        if self.needs_newest(question, result) or (question.around is not None and question.token is None):
            return False
        if self._direction(question) is Order.OLDEST_FIRST and result.scanned_to is not None:
            return result.scanned_to < (closed_before_us, 0)
        ends = [] if self.end_us is None else [(self.end_us, 0)]
        if self.last is not None:
            ends.append(_before(self.last, Order.OLDEST_FIRST))
        if self.after is not None and self._direction(question) is Order.NEWEST_FIRST:
            ends.append(self.after)
        return bool(ends) and min(ends) <= (closed_before_us, 0)

    def page(self, question: Question, result: ScanResult, *, newest: Position | None = None) -> Page:
        """The page, with cursors to both sides. newest: of the snapshot, where `needs_newest` asks for it."""
        frozen = self._frozen(question, result, newest)
        return frozen._page(question, result)

    def _frozen(self, question: Question, result: ScanResult, newest: Position | None) -> Walk:
        """The walk with its upper bound."""
        if self.end_us is not None or self.last is not None:
            return self
        if question.order is Order.OLDEST_FIRST:
            return replace(self, last=newest)
        first = (result.logs[0].timestamp, result.logs[0].id) if result.logs else result.scanned_to
        return replace(self, last=first)

    def _page(self, question: Question, result: ScanResult) -> Page:
        direction = self._direction(question)
        has_logs = bool(result.logs)
        onward = back = None
        if result.scanned_to is not None:
            onward = self._cursor(result.scanned_to, is_back=self.is_back, can_turn=self.can_turn or has_logs)
        if self.after is not None and self.can_turn:
            first = result.logs[0] if has_logs else None
            turn = _before(self.after, direction) if first is None else (first.timestamp, first.id)
            back = self._cursor(turn, is_back=not self.is_back, can_turn=has_logs or not result.finished)
        is_cut = result.scanned_to is not None and len(result.logs) < question.limit
        scanned_to_us = result.scanned_to[0] if is_cut and result.scanned_to is not None else None
        if self.is_back:
            return Page(result.logs[::-1], next=back, prev=onward, scanned_to_us=scanned_to_us)
        return Page(result.logs, next=onward, prev=back, scanned_to_us=scanned_to_us)

    def _direction(self, question: Question) -> Order:
        return _opposite(question.order) if self.is_back else question.order

    def _cursor(self, after: Position, *, is_back: bool, can_turn: bool) -> Cursor:
        return Cursor(after, is_back, self.start_us, self.end_us, self.last, self.offsets, can_turn)


def _opposite(order: Order) -> Order:
    return Order.OLDEST_FIRST if order is Order.NEWEST_FIRST else Order.NEWEST_FIRST


def _before(position: Position, direction: Order) -> Position:
    """The neighbour against the direction: turning round after it meets the position itself again."""
    timestamp_us, log_id = position
    if direction is Order.NEWEST_FIRST:
        return (timestamp_us, log_id - 1) if log_id > 0 else (timestamp_us - 1, ID_MAX)
    return (timestamp_us, log_id + 1) if log_id < ID_MAX else (timestamp_us + 1, 0)
