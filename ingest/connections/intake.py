"""Takes texts of connections: the same again is nothing, what extends the stored one adds its lines, another one is refused.

A text is received whole into a temporary file, compared with what is stored, then sent chunk by chunk: written down, published
under a key made of what was written down, and moved past (store/connections/texts.py). Killed anywhere, whoever sends the
text again goes on where it stopped, and each line is stored once: within 72 hours, for which keys are kept, also the chunk
that was under way. Reading and cutting run in threads. Texts at once are bounded.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Final

from access.principal import Principal
from connections.lines import Place
from connections.metrics import Finder, Side
from connections.settings import ConnectionSettings
from ingest.connections.chunks import Chunk, Timed, Window, body_of, check_first, figures, next_chunk, timed
from ingest.connections.spool import Spool
from ingest.errors import ConnectionNotFound, TextConflict
from patterns.masks import Masker
from runtime.clock import Clock
from runtime.turns import Turns
from schemas.errors import Overloaded
from store.connections.texts import ConnectionDetails, ConnectionTexts, Pending, TextState

Publish = Callable[[bytes, Principal, str], Awaitable[dict[str, Any]]]
"""Publishes NDJSON under an Idempotency-Key of the intake's own, with the rights and rates of a principal; the batch's answer,
once it is durable. Raises LogfeedError."""

_PUTS_AT_ONCE: Final = 2
_PUTS_WAITING_MAX: Final = 300
_PUT_WAIT_S: Final = 10.0


@dataclass(frozen=True, slots=True)
class Taken:
    """What became of a text."""

    lines: int
    """Logs of the whole text."""
    added: int
    """Of them, by this request."""
    filtered: int
    rejected: int
    shift_us: int


@dataclass(frozen=True, slots=True)
class _Prepared:
    """A chunk on its way."""

    chunk: Chunk
    pending: Pending
    logs: list[Timed]
    carried_us: int | None
    line_ends: int


class Intake:
    """The texts of one process."""

    def __init__(
        self,
        settings: ConnectionSettings,
        texts: ConnectionTexts,
        publish: Publish,
        *,
        retention_days: int,
        clock: Clock,
    ) -> None:
        """retention_days: of ingest: logs that are older are refused."""
        self.settings = settings
        self.clock = clock
        self._texts = texts
        self._publish = publish
        self._retention_days = retention_days
        self._finders = {side: Finder(settings.rules, side) for side in Side}
        self._at_once: Counter[str] = Counter()
        """Texts under way, by who sends them."""
        self._puts = Turns(at_once=_PUTS_AT_ONCE, waiting_max=_PUTS_WAITING_MAX, wait_s=_PUT_WAIT_S)

    async def put(self, connection_id: str, details: ConnectionDetails, subject: str) -> bool:
        """Whether it is new. subject: who sends it. A few at once, shared as turns are. Raises TooManyConnections,
        Overloaded."""
        async with self._puts.turn(subject):
            return await self._texts.put(connection_id, details, now_us=self.clock.now_us())

    @contextmanager
    def room(self, subject: str) -> Iterator[None]:
        """For one more text, before it is received. One subject leaves a place for others: a text may come slowly. Raises
        Overloaded."""
        most = self.settings.texts_max
        if self._at_once.total() >= most or self._at_once[subject] >= max(1, most - 1):
            raise Overloaded(
                f"{self._at_once.total()} texts are being taken, {self._at_once[subject]} of them yours: at once there are"
                f" {most}, one of them for others (connections.texts_max)",
                retry_after_s=2,
            )
        self._at_once[subject] += 1
        try:
            yield
        finally:
            self._at_once[subject] -= 1
            if not self._at_once[subject]:
                del self._at_once[subject]

    async def take(self, connection_id: str, side: Side, spool: Spool, principal: Principal, *, shifts: bool) -> Taken:
        """Store what is new of a text. shifts: where nobody has decided it yet, times move so that `last_updated` is now.

        Raises ConnectionNotFound, TextConflict, InvalidFields, and what publishing raises: what was published until then stays,
        and the same request goes on.
        """
        added = 0
        while True:
            state = await self._state(connection_id, side, spool)
            shift_us = self._shift(state, shifts)
            if not state.is_begun:
                await self._begin(connection_id, side, spool, state, shift_us)
                continue
            if state.pending is None and state.stored_bytes == spool.size:
                return Taken(state.lines, added, state.filtered, state.rejected, shift_us)
            prepared = await asyncio.to_thread(self._prepare, spool, state, shift_us)
            if state.pending is None:
                is_mine = await self._texts.intend(connection_id, side, state.stored_bytes, prepared.pending)
                if not is_mine:
                    continue
            added += await self._send(connection_id, side, spool, state, prepared, principal)

    async def _begin(self, connection_id: str, side: Side, spool: Spool, state: TextState, shift_us: int) -> None:
        first = await asyncio.to_thread(self._cut, spool, state)
        window = Window.at(self.clock.now_us(), self._retention_days)
        check_first(first.lines, shift_us, window, retention_days=self._retention_days)
        service_name = self.settings.service_of(side)
        await self._texts.begin(connection_id, side, service_name=service_name, shift_us=shift_us)

    async def _state(self, connection_id: str, side: Side, spool: Spool) -> TextState:
        state = await self._texts.state(connection_id, side)
        if state is None:
            raise ConnectionNotFound(f"there is no connection {connection_id}: put it first")
        if not await asyncio.to_thread(_is_extended, spool, state):
            raise TextConflict(
                f"another text of {connection_id}/{side} is stored, or begun: {state.stored_bytes} bytes of it;"
                f" a text may only grow at its end, this one has {spool.size} bytes"
            )
        return state

    def _shift(self, state: TextState, shifts: bool) -> int:
        if state.shift_us is not None:
            return state.shift_us
        return self.clock.now_us() - state.last_updated_us if shifts else 0

    async def _send(
        self,
        connection_id: str,
        side: Side,
        spool: Spool,
        state: TextState,
        prepared: _Prepared,
        principal: Principal,
    ) -> int:
        """Publish a chunk that is written down, and move past it; logs that this added."""
        end, logs = prepared.chunk.end, prepared.logs
        filtered = rejected = 0
        if logs:
            service_name = self.settings.service_of(side)
            body = body_of(logs, connection_id=connection_id, side=side, service_name=service_name)
            key = _key(connection_id, side, state.stored_bytes, prepared.pending)
            answer = await self._publish(body, principal, key)
            filtered, rejected = sum(answer["filtered"].values()), answer["rejected_count"]
        is_moved = await self._texts.advance(
            connection_id,
            side,
            state.stored_bytes,
            end,
            line_ends=prepared.line_ends,
            carried_us=prepared.carried_us,
            figures=await asyncio.to_thread(figures, logs, self._finders[side], Masker()),
            filtered=filtered,
            rejected=rejected,
            is_whole=end == spool.size,
        )
        return len(logs) if is_moved else 0

    def _prepare(self, spool: Spool, state: TextState, shift_us: int) -> _Prepared:
        """In a thread."""
        chunk = self._cut(spool, state)
        pending = state.pending or Pending(chunk.end, spool.sha256_to(chunk.end), self.clock.now_us())
        logs, carried_us = timed(
            chunk.lines,
            carried_us=state.carried_us,
            begins_us=state.last_updated_us + shift_us,
            shift_us=shift_us,
            window=Window.at(pending.judged_us, self._retention_days),
        )
        line_ends = state.line_ends + spool.line_ends_between(state.stored_bytes, chunk.end)
        return _Prepared(chunk, pending, logs, carried_us, line_ends)

    def _cut(self, spool: Spool, state: TextState) -> Chunk:
        end = spool.size if state.pending is None else state.pending.end
        place = Place(state.stored_bytes, state.line_ends, spool.is_within_line(state.stored_bytes))
        reading = spool.reading(place.offset, end)
        return next_chunk(reading, place, end=end, is_known=state.pending is not None)


def _key(connection_id: str, side: Side, stored_bytes: int, pending: Pending) -> str:
    """Of what was written down, by whoever sends it: another text that came to this id later has others."""
    return f"{connection_id}/{side}/{stored_bytes}-{pending.end}/{pending.judged_us}/{pending.sha256.hex()[:16]}"


def _is_extended(spool: Spool, state: TextState) -> bool:
    """Whether the text begins with what is stored, and with what may be. In a thread."""
    known = [(state.stored_bytes, state.sha256)]
    if state.pending is not None:
        known.append((state.pending.end, state.pending.sha256))
    return all(end <= spool.size and spool.sha256_to(end) == sha256 for end, sha256 in known)
