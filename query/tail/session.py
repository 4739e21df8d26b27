"""One tail from its begin to its end: frames for one client, whatever carries them.

It reads by itself up to the live end, then is given what the hub has for it. At most one frame in `frame_every_ms`, with all
that came meanwhile; an empty one now and then shows that it lives. Each frame has a token: who goes on from it gets exactly
what came after that frame. What was skipped, and what cannot be read, is told before the logs that follow it, with the token
of the frame before: going on from there asks for it again.

Concurrency: `frames` is iterated by one task; beside it one task reads up to the live end and waits while the client does not
take what it read.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import aclosing, asynccontextmanager, suppress
from dataclasses import dataclass
from enum import StrEnum
from typing import Final
from urllib.parse import urlencode

import orjson

from access.errors import AccessUnknown, Forbidden, Unauthenticated
from access.principal import Principal
from live.events import Gap, Place
from live.follow import Follower
from query.params import TailQuestion
from query.tail import metrics
from query.tail.hub import Client, Hub
from query.tail.settings import TailSettings
from query.tail.token import TailPlace, TailSeal
from runtime.clock import Clock
from runtime.stopping import Stop
from schemas.errors import LogfeedError
from schemas.ids import first_id_at
from search.predicate import all_of, within

_CLOCKS_APART_MS: Final = 60_000
"""How much earlier than the token a gap is taken to begin: ids are given by ingest's clocks."""
Recheck = Callable[[], Awaitable[Principal]]
"""Who tails, as of now. Raises what authentication raises."""


class FrameKind(StrEnum):
    """What a frame tells."""

    LOGS = "logs"
    SKIPPED = "skipped"
    GAP = "gap"
    END = "end"


@dataclass(frozen=True, slots=True)
class Frame:
    """One message to the client."""

    kind: FrameKind
    body: bytes
    """JSON."""
    token: str


class EndReason(StrEnum):
    """Why a tail ends from here."""

    CREDENTIALS = "credentials"
    """They have expired or were revoked."""
    PERMISSIONS = "permissions"
    """They are not those it began with."""
    UNKNOWN = "unknown"
    """The database has not said for too long who may what."""
    STOPPING = "stopping"
    """The server stops."""


class TailSession:
    """One client's tail."""

    def __init__(
        self,
        question: TailQuestion,
        principal: Principal,
        begins: TailPlace | None,
        *,
        recheck: Recheck,
        seal: TailSeal,
        hub: Hub,
        follower: Follower,
        settings: TailSettings,
        clock: Clock,
        stop: Stop,
    ) -> None:
        """begins: None from now on."""
        self._question = question
        self._principal = principal
        self._begins = begins
        self._recheck = recheck
        self._sealed = seal.bound(subject=principal.subject, question=question.canonical)
        self._hub = hub
        self._follower = follower
        self._settings = settings
        self._clock = clock
        self._stop = stop
        predicate = all_of(question.predicate, within(principal.may_tail))
        self._client = Client(predicate, question.start_us if question.start_us is not None else -(1 << 63))
        self._token = ""
        self._at_ms = begins.at_ms if begins is not None else clock.now_us() // 1000
        self.logs_sent = 0
        self.end: EndReason | None = None

    async def frames(self) -> AsyncGenerator[Frame, None]:
        """Frames until the tail ends; the last one says why. Close it (`contextlib.aclosing`)."""
        hub, client = self._hub, self._client
        async with self._follower.using():
            hub.enter(client)
            try:
                async with self._reading() as reading:
                    async for frame in self._told(reading):
                        yield frame
            finally:
                hub.leave(client)

    async def _told(self, reading: asyncio.Task[None]) -> AsyncGenerator[Frame, None]:
        settings, client, clock = self._settings, self._client, self._clock
        check_s = clock.monotonic_s() + settings.check_s
        beat_s = clock.monotonic_s()
        while True:
            now_s = clock.monotonic_s()
            if reading.done():
                reading.result()
            if now_s >= check_s:
                check_s = now_s + settings.check_s
                self.end = await self._ended()
            if self._stop.is_set:
                self.end = EndReason.STOPPING
            if self.end is not None:
                yield self._last(self.end)
                return
            # A token says where to go on, so nothing is sent before that is known.
            is_due = not client.queue.is_empty or now_s >= beat_s
            if is_due and self._hub.positions(client):
                for frame in self._frames():
                    yield frame
                beat_s = clock.monotonic_s() + settings.heartbeat_s
                # Not the stop's `wait`, whose task would cost more than the frame.
                await asyncio.sleep(settings.frame_every_ms / 1000)
                continue
            await self._until_some(min(check_s, max(beat_s, now_s + settings.frame_every_ms / 1000)) - now_s)

    async def _until_some(self, seconds: float) -> None:
        self._client.has_some.clear()
        if self._client.queue.is_empty:
            with suppress(TimeoutError):
                async with asyncio.timeout(seconds):
                    await self._client.has_some.wait()

    def _frames(self) -> list[Frame]:
        """All that waits."""
        taken = self._client.queue.take()
        self._client.taken.set()
        before = self._token
        self._at_ms, missing_since_ms = self._clock.now_us() // 1000, self._at_ms
        self._token = token = self._sealed(TailPlace(self._hub.positions(self._client), self._at_ms))
        frames = []
        if taken.gaps:
            frames += [_gap_frame(gap, self._gap_query(missing_since_ms), before or token) for gap in taken.gaps]
        if taken.skipped:
            frames.append(_frame(FrameKind.SKIPPED, b'{"skipped":%d' % taken.skipped, before or token))
        frames.append(_frame(FrameKind.LOGS, b'{"logs":[%b]' % b",".join(taken.bodies), token))
        self.logs_sent += len(taken.bodies)
        metrics.SENT.inc(len(taken.bodies))
        metrics.QUEUED.dec(sum(map(len, taken.bodies)))
        return frames

    def _last(self, reason: EndReason) -> Frame:
        metrics.ENDED.labels(reason).inc()
        return Frame(FrameKind.END, orjson.dumps({"end": reason}), self._token)

    def _gap_query(self, since_ms: int) -> str:
        """The query string of the pages that have what was received since then: ids order by time of reception."""
        first = first_id_at(since_ms - _CLOCKS_APART_MS)
        last = first_id_at(self._at_ms + _CLOCKS_APART_MS)
        items = [(name, value) for name, value in self._question.items if name != "query"]
        query = next((value for name, value in self._question.items if name == "query"), "")
        bounds = f"id>={first} id<{last}"
        items.append(("query", f"({query}) {bounds}" if query.strip() else bounds))
        return urlencode([*items, ("order", "asc")])

    async def _ended(self) -> EndReason | None:
        """Whether who tails may no longer."""
        try:
            principal = await self._recheck()
        except (Unauthenticated, Forbidden):
            return EndReason.CREDENTIALS
        except AccessUnknown:
            return EndReason.UNKNOWN
        if principal.subject != self._principal.subject or principal.may_tail != self._principal.may_tail:
            return EndReason.PERMISSIONS
        return None

    @asynccontextmanager
    async def _reading(self) -> AsyncGenerator[asyncio.Task[None], None]:
        task = asyncio.create_task(self._read_up(), name="tail reads up")
        try:
            yield task
        finally:
            task.cancel()
            with suppress(asyncio.CancelledError, LogfeedError):
                await task

    async def _read_up(self) -> None:
        """Read to the live end, and again whenever the hub has lost the client."""
        hub, client = self._hub, self._client
        if self._begins is None:
            client.place = Place(await self._follower.live())
        else:
            client.place = Place(dict(self._begins.offsets))
        while True:
            async with aclosing(self._follower.catch_up(client.place, lambda: hub.join(client))) as events:
                async for event in events:
                    hub.offer_all(client, event)
                    while not hub.has_room(client):
                        client.taken.clear()
                        await client.taken.wait()
            while client.is_joined:
                await client.lost.wait()
            client.lost.clear()


def _frame(kind: FrameKind, open_body: bytes, token: str) -> Frame:
    return Frame(kind, b'%b,"token":"%b"}' % (open_body, token.encode()), token)


def _gap_frame(gap: Gap, query: str, token: str) -> Frame:
    told = {"reason": gap.reason, "query": query}
    return _frame(FrameKind.GAP, b'{"gap":%b' % orjson.dumps(told), token)
