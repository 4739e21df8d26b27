"""A primary and its streaming replica, which a test may hurt, and a read store over both."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg

from db.database import Database
from db.migrations import Layout
from infra.native.replica import TimescaleReplica
from infra.native.timescale import TimescaleNode
from schemas.topics import LOGS_TOPIC
from store.postgres_read import SNAPSHOT_S_MAX, PostgresReadStore
from store.replicas.replica import ReplicaSource
from store.replicas.store import OPEN_S_MAX, ReplicatedReadStore
from tests.databases import create_migrated_database


class Pair:
    """Two servers. Calls block."""

    def __init__(self, directory: Path) -> None:
        """directory: of their own, which the servers' account may enter."""
        self.primary = TimescaleNode(directory / "primary")
        self.replica = TimescaleReplica(directory / "replica")

    def start(self) -> None:
        """Both, and wait until they answer."""
        self.primary.start()
        self.replica.follow(self.primary)
        self.replica.start()

    def remove(self) -> None:
        """With all that they stored."""
        self.replica.remove()
        self.primary.remove()

    def make_database(self, run: str) -> tuple[str, str]:
        """A migrated one: its addresses on the primary and on the replica, where it is by then."""
        url = create_migrated_database(self.primary.url, Layout.TIMESCALE, run=run)
        self.catch_up()
        return url, self.replica.url_of(url.rsplit("/", 1)[1])

    def catch_up(self, *, timeout_s: float = 60.0) -> None:
        """Wait until the replica has replayed what the primary has written."""
        written = self.ask(self.primary, "SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint")
        deadline = time.monotonic() + timeout_s
        while self.ask(self.replica, "SELECT (pg_last_wal_replay_lsn() - '0/0')::bigint") < written:
            assert time.monotonic() < deadline, "the replica does not catch up"
            time.sleep(0.01)

    def set_on_replica(self, name: str, value: str) -> None:
        """Change a setting of the replica that needs no restart, and wait until it holds."""
        with psycopg.connect(self.replica.url, autocommit=True) as connection:
            connection.execute(f"ALTER SYSTEM SET {name} = '{value}'".encode())
            connection.execute("SELECT pg_reload_conf()")
        deadline = time.monotonic() + 30
        # The file beside the data is read last, so what is set so holds.
        while self.ask(self.replica, f"SELECT reset_val FROM pg_settings WHERE name = '{name}'") != value:
            assert time.monotonic() < deadline, f"{name} does not become {value!r}"
            time.sleep(0.02)

    @staticmethod
    def ask(node: TimescaleNode, query: str) -> Any:
        """The one value of an answer, of whatever type."""
        with psycopg.connect(node.url) as connection:
            row = connection.execute(query.encode()).fetchone()
        assert row is not None
        return row[0]


@asynccontextmanager
async def reading(
    primary_url: str, *replica_urls: str, lag_s_max: float = 10.0, look: bool = True
) -> AsyncIterator[ReplicatedReadStore]:
    """Reads both. look: a replica that can be used is waited for."""
    database = Database(primary_url, application_name="primary", connections_max=4, wait_s=2.0)
    await database.open()

    def store_on(place: Database, is_replica: bool) -> PostgresReadStore:
        return PostgresReadStore(
            place,
            LOGS_TOPIC,
            Layout.TIMESCALE,
            open_s_max=OPEN_S_MAX if is_replica else SNAPSHOT_S_MAX,
            primary=database if is_replica else None,
        )

    sources = [
        ReplicaSource(f"replica {n}", Database(url, application_name="replica", connections_max=4, wait_s=1.0))
        for n, url in enumerate(replica_urls)
    ]
    store = ReplicatedReadStore(database, sources, store_on, lag_s_max=lag_s_max)
    try:
        await store.open()
        if look:
            await until_used(store)
        yield store
    finally:
        await store.close()
        await database.close()


async def until_used(store: ReplicatedReadStore, *, used: bool = True) -> None:
    """Wait until each replica answers questions, or none does."""
    deadline = time.monotonic() + 30
    while not all((state.problem is None) is used for state in store.states()):
        assert time.monotonic() < deadline, store.states()
        await asyncio.sleep(0.02)
        await store.look()
