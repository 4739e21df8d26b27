"""Both HTTP services over one real database with access control on, in this process, and clients with any credentials."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi import FastAPI

from access.accounts import Accounts
from access.authenticator import AccessControl
from access.keys import NewKey
from access.passwords import hash_password
from broker.factory import make_broker
from cli.audit import AuditTrail
from cli.http_app import build_app
from cli.http_role import http_services, start_tails
from cli.settings import Settings
from cli.unread import UnreadRecords
from cli.write_store import write_store
from db.database import Connection, Database, connect
from db.migrations import Layout
from runtime.clock import Clock, SystemClock
from schemas.ids import first_id_at
from store.chunks import chunk_layout

PASSWORD = "correct horse battery"
_CHUNK_S = 6 * 3600
SOON_S = 30.0
"""Within which a change must act here, on a machine that is busy with other tests. Two seconds are promised."""


async def soon(condition: Callable[[], Awaitable[bool]], what: str, timeout_s: float = SOON_S) -> None:
    """Wait for a condition, with a deadline."""
    async with asyncio.timeout(timeout_s) as limit:
        while not await condition():
            assert not limit.expired(), what
            await asyncio.sleep(0.05)


@dataclass
class Site:
    """What runs. Keys that are made here are known at once."""

    app: FastAPI
    access: AccessControl
    database: Database
    accounts: Accounts

    def client(self, token: str | None = None, *, address: str = "127.0.0.1") -> httpx.AsyncClient:
        """Close it."""
        headers = {} if token is None else {"Authorization": f"Bearer {token}"}
        transport = httpx.ASGITransport(app=self.app, client=(address, 1234))
        return httpx.AsyncClient(transport=transport, base_url="https://logfeed.test", headers=headers)

    async def ask(self, token: str | None, method: str, path: str, **arguments: Any) -> httpx.Response:
        """One request. arguments: of httpx."""
        async with self.client(token) as client:
            return await client.request(method, path, **arguments)

    async def key(self, *grants: str, **options: Any) -> NewKey:
        """options: of create_key."""
        key = await self.accounts.create_key("test", grants, created_by="tests", **options)
        await self.access.directory.refresh()
        return key

    async def user(self, name: str, *grants: str, password: str = PASSWORD) -> int:
        """A user's number."""
        user_id = await self.accounts.create_user(name, grants, password_hash=hash_password(password))
        await self.access.directory.refresh()
        return user_id

    async def put(self, rows: Sequence[dict[str, Any]]) -> list[int]:
        """Store logs by hand; their ids."""
        clock = SystemClock()
        now_us = clock.now_us() - 60_000_000
        ids = []
        for index, row in enumerate(rows):
            log_id = first_id_at(now_us // 1000) + index
            ids.append(log_id)
            await self.database.execute(
                "INSERT INTO logs VALUES (to_timestamp(%s), %s, 9, %s, %s, %s, %s)",
                (
                    now_us / 1e6 + index,
                    log_id,
                    row["service_name"],
                    row.get("correlation_id"),
                    row.get("message", "m"),
                    json.dumps(row.get("metadata", {})),
                ),
            )
        return ids


async def waiting(connection: Connection, number: int = 1) -> None:
    """Until so many statements wait for locks in the connection's database."""

    async def are_there() -> bool:
        cursor = await connection.execute(
            "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
        )
        (found,) = await cursor.fetchone() or (0,)
        return bool(found >= number)

    await soon(are_there, f"{number} statements wait")


@asynccontextmanager
async def holding(site: Site, statement: str, params: tuple[Any, ...] = ()) -> AsyncIterator[Connection]:
    """A transaction that has executed this and goes on, on a connection of its own; it is not committed here."""
    connection = await connect(site.database.url, application_name="holds something")
    try:
        await connection.execute("BEGIN")
        await connection.execute(statement.encode(), params)
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def running(
    url: str,
    *,
    is_first: bool = True,
    query: dict[str, Any] | None = None,
    hosts: dict[str, Any] | None = None,
    public_url: str | None = None,
    clock: Clock | None = None,
    ingest: dict[str, Any] | None = None,
    **access: Any,
) -> AsyncIterator[Site]:
    """is_first: on this database. public_url: what clients ask is https://logfeed.test. clock: of access control.
    query, hosts, ingest, access: settings of these sections."""
    sections = {
        "query": query or {},
        "hosts": hosts or {},
        "ingest": ingest or {},
        "access": access,
        "http": {"public_url": public_url},
    }
    settings = Settings.model_validate({"database": {"url": url}, **sections})
    async with AsyncExitStack() as stack:
        database = Database(url, application_name="access test", connections_max=10, wait_s=5)
        await database.open()
        stack.push_async_callback(database.close)
        if is_first:
            await _open_chunks(database)
        broker = make_broker(settings.broker, database)
        stack.push_async_callback(broker.close)
        unread = UnreadRecords(settings.broker, database)
        stack.push_async_callback(unread.close)
        control = AccessControl(settings.access, database, clock or SystemClock(), public_url=settings.http.public_url)
        stack.push_async_callback(control.close)
        await control.open()
        await broker.open()
        await write_store(settings, database).register_partitions(settings.broker.topic, broker.partitions)
        trail = AuditTrail(settings, broker, database, instance="access test") if settings.access.audit else None
        if trail is not None:
            stack.push_async_callback(trail.stop)
            await trail.start()
        audit = None if trail is None else trail.log
        services = http_services(settings, broker, database, unread, control, audit, ingest=True, query=True)
        for service in services.values():
            stack.push_async_callback(service.stop)
            await service.start()
        await start_tails(services)

        async def ready() -> bool:
            return not any(service.ready() for service in services.values())

        await soon(ready, "the services are ready", 20)
        yield Site(build_app(list(services.values())), control, database, Accounts(database))


async def _open_chunks(database: Database) -> None:
    """This one, the one before and the one after."""
    first_s = int(SystemClock().now_us() / 1e6 // _CHUNK_S - 1) * _CHUNK_S
    async with database.connection() as connection:
        await connection.execute("UPDATE border SET closed_before = to_timestamp(%s)", (first_s,))
        for start_s in range(first_s, first_s + 3 * _CHUNK_S, _CHUNK_S):
            await chunk_layout(Layout.NATIVE).create(connection, start_s * 1_000_000, (start_s + _CHUNK_S) * 1_000_000)
