"""A running Logfeed with access control, asked as Loki is asked."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import os
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlencode

import httpx
import websockets
from websockets.asyncio.client import ClientConnection

from access.accounts import Accounts
from access.principal import RateLimits
from db.database import Database
from infra.fleet import EMBEDDED, Fleet
from schemas.scope import AUDIT_SERVICE
from tests.fleets import Fleets

PUSH = "/loki/api/v1/push"
_SETTINGS = {
    "LOGFEED_TAIL__FRAME_EVERY_MS": "50",
    # Bodies that clients once sent have times that grow old.
    "LOGFEED_INGEST__RETENTION_DAYS": "36500",
    "LOGFEED_STORE__RETENTION_DAYS": "36500",
}
_numbers = itertools.count()
Json = dict[str, Any]


@contextmanager
def loki_site(fleets: Fleets, **extra: str) -> Iterator[LokiSite]:
    """Ingest and query in one process, as `logfeed up` has them, and a writer. extra: environment."""
    fleet = fleets.make(EMBEDDED, partitions=2, access="true", extra={**_SETTINGS, **extra})
    try:
        fleet.role("serve")
        fleet.role("write")
        asyncio.run(fleet.ready("serve"))
        yield LokiSite(fleet)
    finally:
        fleets.end(fleet)


def new_service(prefix: str) -> str:
    """A name that no other test has."""
    return f"{prefix}/{os.getpid()}-{next(_numbers)}"


@dataclass
class LokiSite:
    """What runs."""

    fleet: Fleet

    @property
    def url(self) -> str:
        """Of the one server."""
        return self.fleet.url("serve")

    async def key(self, *grants: str, rates: RateLimits | None = None) -> str:
        """A new key's text, known to the server."""
        async with self.database() as database:
            key = await Accounts(database).create_key("test", grants, created_by="tests", rates=rates or RateLimits())
        ends_s = time.monotonic() + 20
        while (await self.ask(key.text, "/api/v1/auth/me")).status_code == 401:
            assert time.monotonic() < ends_s, "the key is known within seconds"
            await asyncio.sleep(0.05)
        return key.text

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Database]:
        """The rows' database."""
        database = Database(self.fleet.database_url, application_name="loki test", connections_max=2)
        await database.open()
        try:
            yield database
        finally:
            await database.close()

    async def ask(
        self, key: str | None, path: str, headers: dict[str, str] | None = None, /, **parameters: Any
    ) -> httpx.Response:
        """A GET."""
        async with self.client(key) as client:
            return await client.get(path, params=parameters, headers=headers)

    def client(self, key: str | None) -> httpx.AsyncClient:
        """Close it."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        return httpx.AsyncClient(base_url=self.url, headers=headers, trust_env=False, timeout=30)

    async def push(self, key: str | None, body: bytes, **headers: str) -> httpx.Response:
        """As JSON, unless a header says otherwise."""
        sent = {"content-type": "application/json"} | {name.replace("_", "-"): text for name, text in headers.items()}
        async with self.client(key) as client:
            return await client.post(PUSH, content=body, headers=sent)

    async def stored(self, key: str, service: str, number: int, timeout_s: float = 60.0) -> list[Json]:
        """The logs of a service, the oldest first, once there are so many."""
        ends_s = time.monotonic() + timeout_s
        while True:
            with contextlib.suppress(httpx.TransportError):
                answer = await self.ask(key, "/api/v1/logs", service_name=service, limit=1000, order="asc")
                if answer.status_code == 200 and len(answer.json()["logs"]) >= number:
                    logs: list[Json] = answer.json()["logs"]
                    assert len(logs) == number, [log["message"] for log in logs]
                    return logs
            assert time.monotonic() < ends_s, f"{number} logs of {service} are stored\n{self.fleet.failures()}"
            await asyncio.sleep(0.05)

    async def settled(self, key: str, service: str, number: int) -> list[Json]:
        """As `stored`, once everything that was taken until now is stored: none came twice."""
        marker = new_service("marker")
        grants = await self.key(f"write:{marker}", f"read:{marker}")
        async with self.client(grants) as client:
            for _ in range(2 * self.fleet.partitions):  # each partition has one behind all else
                answer = await client.post("/api/v1/logs", json={"service_name": marker, "message": "last"})
                assert answer.status_code == 201, answer.text
        await self.stored(grants, marker, 2 * self.fleet.partitions)
        return await self.stored(key, service, number)

    def tail(self, key: str | None, **parameters: Any) -> contextlib.AbstractAsyncContextManager[ClientConnection]:
        """A WebSocket."""
        headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        address = f"{self.url.replace('http', 'ws', 1)}/loki/api/v1/tail?{urlencode(parameters)}"
        return websockets.connect(address, additional_headers=headers, proxy=None, max_size=None)

    async def audited(self, path: str, question: str) -> list[Json]:
        """Entries of the audit log about a path, whose question has this in it, once there is one."""
        key = await self.key(f"admin:{AUDIT_SERVICE}")
        ends_s = time.monotonic() + 60
        while True:
            answer = await self.ask(
                key, "/api/v1/logs", service_name=AUDIT_SERVICE, limit=1000, **{"metadata.path": path}
            )
            found = [log["metadata"] for log in answer.json()["logs"] if question in log["metadata"]["question"]]
            if found:
                return found
            assert time.monotonic() < ends_s, f"{path} is in the audit log"
            await asyncio.sleep(0.1)
