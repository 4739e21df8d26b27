"""Hands out what comes in to all tails of a process: each log is matched once for each different question and right, and
written as JSON once for all.

Concurrency: one event loop. The follower's task calls `_sink`, tails join and leave between its events; nothing here waits.
A client that joins has read by itself up to the live end (`Follower.catch_up`), or a little beyond it in some partitions:
what it has already is kept from it. Memory: `queued_bytes_max` for all queues; bodies are shared among them.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Final

import orjson

from live.events import Event, Gap, Place
from live.follow import Follower
from query.tail import metrics
from query.tail.queue import ClientQueue
from query.tail.settings import TailSettings
from schemas.pages import log_json
from schemas.record import Log
from search.many import ManyMatcher
from search.match import Test, compile_match
from search.predicate import Predicate

_LEAST_BYTES_MAX: Final = 64 * 1024
"""Each client may have so much waiting, however many there are."""


@dataclass(eq=False, slots=True)
class Client:
    """One tail, as the hub knows it."""

    predicate: Predicate
    """What it asks for within its right."""
    start_us: int
    """Least timestamp."""
    queue: ClientQueue = field(default_factory=ClientQueue)
    has_some: asyncio.Event = field(default_factory=asyncio.Event)
    """Something waits."""
    taken: asyncio.Event = field(default_factory=asyncio.Event)
    """What waited was taken."""
    lost: asyncio.Event = field(default_factory=asyncio.Event)
    """It has to read by itself again."""
    place: Place = field(default_factory=Place)
    """While it reads by itself: what was queued. Once it has joined: where it stands apart from the live end."""
    is_joined: bool = False


@dataclass(slots=True)
class _Group:
    """Clients with the same predicate."""

    test: Test
    clients: dict[Client, None] = field(default_factory=dict)


class Hub:
    """The tails of one follower."""

    def __init__(self, follower: Follower, settings: TailSettings) -> None:
        """follower: run by the caller."""
        self._follower = follower
        self._settings = settings
        self._groups: dict[Predicate, _Group] = {}
        self._numbered: list[_Group] = []
        self._matcher: ManyMatcher | None = None
        self._tests: dict[Predicate, Test] = {}
        self._joined = 0
        self._apart: dict[Client, None] = {}
        """Joined clients that do not stand at the live end in every partition."""

    def enter(self, client: Client) -> None:
        """Know the client's question. Call `leave` at its end."""
        group = self._groups.get(client.predicate)
        if group is None:
            group = self._groups[client.predicate] = _Group(compile_match(client.predicate))
        group.clients[client] = None
        self._changed()

    def leave(self, client: Client) -> None:
        """Forget the client."""
        self._part(client)
        metrics.QUEUED.dec(client.queue.size_bytes)
        client.queue.take()
        group = self._groups[client.predicate]
        del group.clients[client]
        if not group.clients:
            del self._groups[client.predicate]
        self._changed()

    def join(self, client: Client) -> None:
        """From now on the client is given what comes; it stands where its place says. See `Follower.catch_up`."""
        live = self._follower.positions
        apart = {partition: at for partition, at in client.place.positions.items() if live.get(partition) != at}
        client.place = Place(apart)
        client.is_joined = True
        if apart:
            self._apart[client] = None
        self._joined += 1
        if self._joined == 1:
            self._follower.attach(self._sink)

    def offer_all(self, client: Client, event: Event) -> None:
        """Queue what the client reads by itself; nothing is skipped. Wait afterwards until `has_room`."""
        if isinstance(event, Gap):
            client.queue.add_gap(event)
            client.has_some.set()
            return
        test = self._groups[client.predicate].test
        for log in event.logs:
            if log.timestamp >= client.start_us and test(log):
                body = _body(log)
                client.queue.add(body, bytes_max=1 << 62)
                metrics.QUEUED.inc(len(body))
        if client.queue.bodies:
            client.has_some.set()

    def has_room(self, client: Client) -> bool:
        """Whether a client that reads by itself may go on."""
        return client.queue.size_bytes < self._bytes_max()

    def positions(self, client: Client) -> dict[int, int]:
        """Partition -> next offset after all that was queued for the client."""
        if not client.is_joined:
            return dict(client.place.positions)
        return {**self._follower.positions, **client.place.positions}

    # --- the live end ---

    def _sink(self, event: Event) -> None:
        held_back = self._held_back(event) if self._apart else ()
        if isinstance(event, Gap):
            for group in self._groups.values():
                for client in group.clients:
                    if client.is_joined and client not in held_back:
                        client.queue.add_gap(event)
                        client.has_some.set()
            return
        bytes_max = self._bytes_max()
        matcher = self._matcher or self._matcher_of_all()
        for log in event.logs:
            numbers = matcher.matches(log)
            if not numbers:
                continue
            body = _body(log)
            for number in numbers:
                self._offer(self._numbered[number].clients, log, body, held_back, bytes_max)

    def _offer(
        self, clients: Iterable[Client], log: Log, body: bytes, held_back: Iterable[Client], bytes_max: int
    ) -> None:
        for client in clients:
            if not client.is_joined or log.timestamp < client.start_us or (held_back and client in held_back):
                continue
            queue = client.queue
            before = queue.size_bytes
            if skipped := queue.add(body, bytes_max=bytes_max):
                metrics.SKIPPED.inc(skipped)
            metrics.QUEUED.inc(queue.size_bytes - before)
            client.has_some.set()

    def _held_back(self, event: Event) -> set[Client]:
        """Clients that must not be given the event: they have it already, or lack what lies before it and are lost."""
        held_back: set[Client] = set()
        for client in list(self._apart):
            if event.partition not in client.place.positions:
                continue
            expected = client.place.positions[event.partition]
            if event.offset == expected:
                del client.place.positions[event.partition]
                if not client.place.positions:
                    del self._apart[client]
                continue
            held_back.add(client)
            if event.offset > expected:
                self._lose(client)
        return held_back

    def _lose(self, client: Client) -> None:
        """The client has to read by itself again."""
        client.place = Place(self.positions(client))
        self._part(client)
        client.lost.set()

    def _part(self, client: Client) -> None:
        self._apart.pop(client, None)
        if client.is_joined:
            client.is_joined = False
            self._joined -= 1
            if not self._joined:
                self._follower.detach(self._sink)

    def _changed(self) -> None:
        self._matcher = None
        metrics.GROUPS.set(len(self._groups))

    def _matcher_of_all(self) -> ManyMatcher:
        if len(self._tests) > 10 * len(self._groups) + 1_000:
            self._tests.clear()
        self._numbered = list(self._groups.values())
        self._matcher = ManyMatcher(self._groups, compiled=self._tests)
        return self._matcher

    def _bytes_max(self) -> int:
        share = self._settings.queued_bytes_max // max(1, self._joined)
        return min(self._settings.client_bytes_max, max(share, _LEAST_BYTES_MAX))


def _body(log: Log) -> bytes:
    return orjson.dumps(log_json(log))
