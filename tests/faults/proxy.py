"""A TCP proxy in front of PostgreSQL that acts at an exact moment of a writer's transaction.

It looks at what passes on connections whose start-up message names an application, and when a chosen piece of protocol
comes by, it calls back: before forwarding it (`before`), or after the server's answer was seen (`answered`), and can hold
or cut what follows. So a test kills, stops or disconnects a writer between COPY and COMMIT without a hook in the writer.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import StrEnum
from urllib.parse import urlsplit

from tests.faults.relay import Relay


class Moment(StrEnum):
    """Where in a batch's transaction the action falls. The bytes are what the client sends then."""

    BEFORE_BEGIN = "BEGIN"
    MID_COPY = "copy data"
    BEFORE_COMMIT = "COMMIT"
    COMMIT_ANSWERED = "commit answered"


@dataclass(slots=True)
class Trap:
    """Fires once, on the n-th time the moment comes by."""

    moment: Moment
    action: Callable[[], None]
    cut: bool = False
    """Close both sides after the action instead of forwarding."""
    skip: int = 0
    fired: asyncio.Event = field(default_factory=asyncio.Event)


_COPY_DATA = b"d"


class DatabaseProxy(Relay):
    """One proxy on a free loopback port. Async context manager."""

    def __init__(self, target_url: str, *, application: bytes) -> None:
        """target_url: the real database. application: part of the application_name whose connections are watched."""
        parts = urlsplit(target_url)
        super().__init__(parts.hostname or "127.0.0.1", parts.port or 5432)
        self._target_url = target_url
        self._application = application
        self._watched: dict[int, _Watch] = {}
        self.trap: Trap | None = None

    @property
    def url(self) -> str:
        """The database's URL through the proxy."""
        return self.url_of(self._target_url)

    def passes(self, connection: int, data: bytes, *, from_client: bool) -> bool:
        """See Relay."""
        watch = self._watched.setdefault(connection, _Watch(self))
        return watch.client_sends(data) if from_client else watch.server_sends(data)

    def watches(self, start_up: bytes) -> bool:
        """True when the start-up message is of a connection to watch."""
        return self._application in start_up

    def fire(self, moment: Moment) -> bool:
        """Spring the trap if this is its moment. False: nothing passes any more."""
        trap = self.trap
        if trap is None or trap.fired.is_set() or trap.moment is not moment:
            return True
        if trap.skip > 0:
            trap.skip -= 1
            return True
        trap.fired.set()
        trap.action()
        return not trap.cut


class _Watch:
    """Follows one connection's protocol closely enough to see the moments."""

    def __init__(self, proxy: DatabaseProxy) -> None:
        self._proxy = proxy
        self._watched = False
        self._commit_sent = False

    def client_sends(self, data: bytes) -> bool:
        if b"application_name" in data[:2000]:
            self._watched = self._proxy.watches(data[:2000])
        if not self._watched:
            return True
        passes = True
        if data[:1] == _COPY_DATA:
            passes &= self._proxy.fire(Moment.MID_COPY)
        if b"BEGIN" in data and b"COPY" not in data:
            passes &= self._proxy.fire(Moment.BEFORE_BEGIN)
        if b"COMMIT" in data:
            self._commit_sent = True
            passes &= self._proxy.fire(Moment.BEFORE_COMMIT)
        return passes

    def server_sends(self, data: bytes) -> bool:
        if self._watched and self._commit_sent and b"COMMIT\0" in data:
            self._commit_sent = False
            return self._proxy.fire(Moment.COMMIT_ANSWERED)
        return True
