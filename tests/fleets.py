"""Fleets, and brokers alone, on servers that this test process keeps for them, and which tests may kill and stop.

A start of these takes seconds of both cores, which each test would pay. So they start at the first need and stay, and each
fleet gets a database and a topic of its own. Whoever killed one may leave it so: it runs when it is handed out again. The
servers that all processes share (tests.services) are hurt by nobody.
"""

from __future__ import annotations

import asyncio
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from aiokafka.admin import AIOKafkaAdminClient

from infra.fleet import EMBEDDED, FULL, Fleet, Servers
from tests.databases import create_migrated_database, drop_database


class OwnBroker:
    """A broker that a test may hurt: Kafka, or the queue in a fresh database. Its calls block, in any thread."""

    def __init__(self, kind: str, servers: Servers, address: str) -> None:
        self.kind = kind
        self.address = address
        """host:port, or the database's URL."""
        self._servers = servers

    @property
    def pid(self) -> int | None:
        """Of the process that other processes of it descend from."""
        server = self._servers.kafka or self._servers.embedded
        assert server is not None
        return server.pid

    def kill(self) -> None:
        """With SIGKILL."""
        self._servers.kill_broker()

    def bring_back(self) -> None:
        """Start it where it does not run."""
        self._servers.start_broker()


class Fleets:
    """Makes fleets; one process, one thread at a time."""

    def __init__(self, run: str) -> None:
        """run: name of the test run."""
        self._run = run
        self._directory = Path(tempfile.mkdtemp(prefix="logfeed-fleets-"))
        self._directory.chmod(0o711)  # under root the servers run as another account and must pass through
        self._servers: dict[str, Servers] = {}
        self._made: dict[str, list[Fleet]] = {}

    def make(self, profile: str, **options: Any) -> Fleet:
        """A fleet on running servers, with a migrated database; no role runs yet. options: of `Fleet`."""
        servers = self._servers_of(profile)
        servers.start()
        url = create_migrated_database(servers.url, servers.layout, run=self._run)
        directory = Path(tempfile.mkdtemp(prefix="fleet-", dir=self._directory))
        directory.chmod(0o711)
        fleet = Fleet(profile, directory, shared=servers, database_url=url, **options)
        self._made.setdefault(profile, []).append(fleet)
        return fleet

    def end(self, fleet: Fleet) -> None:
        """Kill its roles, and remove what it stored."""
        fleet.stop_everything()
        fleet.servers.start()
        drop_database(fleet.servers.url, fleet.database_url)
        others = self._made[fleet.profile]
        others.remove(fleet)
        if fleet.kafka is not None and not others:
            asyncio.run(_delete_topics(fleet.kafka.bootstrap))
        shutil.rmtree(fleet.directory, ignore_errors=True)

    @contextmanager
    def broker(self, kind: str) -> Iterator[OwnBroker]:
        """One that runs; kind: queue or kafka."""
        servers = self._servers_of(FULL if kind == "kafka" else EMBEDDED)
        servers.start_broker()
        if servers.kafka is not None:
            yield OwnBroker(kind, servers, servers.kafka.bootstrap)
            return
        url = create_migrated_database(servers.url, servers.layout, run=self._run)
        yield OwnBroker(kind, servers, url)
        servers.start_broker()
        drop_database(servers.url, url)

    def _servers_of(self, profile: str) -> Servers:
        if profile not in self._servers:
            self._servers[profile] = Servers(profile, self._directory / profile)
        return self._servers[profile]

    def stop(self) -> None:
        """The servers too."""
        for servers in self._servers.values():
            servers.stop()
        shutil.rmtree(self._directory, ignore_errors=True)


async def _delete_topics(bootstrap: str) -> None:
    """All but the broker's own: names of derived topics are the same in each fleet."""
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.delete_topics([topic for topic in await admin.list_topics() if not topic.startswith("__")])
    finally:
        await admin.close()
