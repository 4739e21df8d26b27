"""A Logfeed of real processes that shippers send to and tests ask: ingest, a writer, query, with access control on."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from access.accounts import Accounts
from access.principal import RateLimits
from db.database import Database
from infra.fleet import Fleet, Role, until
from tests.fleets import Fleets

DEADLINE_S = 60.0


@dataclass
class ShipperSite:
    """Its fleet and keys."""

    fleet: Fleet
    ingest: Role
    write_key: str
    """Of all services."""
    read_key: str

    @property
    def url(self) -> str:
        """Base URL of ingest."""
        return self.fleet.url("ingest")

    def key(self, *grants: str, rates: RateLimits | None = None) -> str:
        """The text of a new key, which ingest knows soon (`knows`). Not inside an event loop."""
        return asyncio.run(_make_key(self.fleet.database_url, grants, rates))

    async def logs(self, **parameters: Any) -> list[dict[str, Any]]:
        """Every log that a question finds."""
        found: list[dict[str, Any]] = []
        cursor: str | None = None
        headers = {"Authorization": f"Bearer {self.read_key}"}
        async with httpx.AsyncClient(trust_env=False, timeout=30, headers=headers) as client:
            while True:
                query = {"limit": 1000, **parameters, **({"cursor": cursor} if cursor else {})}
                answer = await client.get(f"{self.fleet.url('query')}/api/v1/logs", params=query)
                assert answer.status_code == 200, answer.text
                page = answer.json()
                found += page["logs"]
                cursor = page["next_cursor"]
                if cursor is None:
                    return found

    async def stored(self, count: int, **parameters: Any) -> list[dict[str, Any]]:
        """Waits until a question finds so many logs and nothing waits to be stored; then they are all there are. By time."""

        async def are_there() -> bool:
            return len(await self.logs(**parameters)) >= count and await self._nothing_waits()

        await until(are_there, what=f"{count} logs are stored", timeout_s=DEADLINE_S)
        logs = await self.logs(**parameters)
        assert len(logs) == count, f"{len(logs)} instead of {count}"
        return logs[::-1]

    async def knows(self, key: str) -> None:
        """Waits until ingest knows a key."""

        async def is_known() -> bool:
            headers = {"Authorization": f"Bearer {key}", "Content-Type": "application/x-ndjson"}
            async with httpx.AsyncClient(trust_env=False, timeout=30, headers=headers) as client:
                return (await client.post(f"{self.url}/api/v1/logs/batch", content=b"")).status_code != 401

        await until(is_known, what="the key is known", timeout_s=DEADLINE_S)

    async def metric(self, name: str) -> float:
        """A metric of ingest, with its labels; 0 where it was not counted yet."""
        async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
            lines = (await client.get(f"{self.url}/metrics")).text.splitlines()
        return sum(float(line.rpartition(" ")[2]) for line in lines if line.startswith(f"{name} "))

    async def _nothing_waits(self) -> bool:
        headers = {"Authorization": f"Bearer {self.read_key}"}
        async with httpx.AsyncClient(trust_env=False, timeout=30, headers=headers) as client:
            answer = await client.get(f"{self.fleet.url('query')}/api/v1/ledger", params={"start_time": "-1h"})
        return answer.status_code == 200 and not any(answer.json()["unread"].values())

    async def ready(self) -> None:
        """Waits for all roles."""
        await self.fleet.ready("ingest", "query")


@contextmanager
def shipper_site(fleets: Fleets, profile: str) -> Iterator[ShipperSite]:
    """Running. Not inside an event loop."""
    fleet = fleets.make(profile, access="true")
    try:
        write_key = asyncio.run(_make_key(fleet.database_url, ["write:*"], None))
        read_key = asyncio.run(_make_key(fleet.database_url, ["admin:*"], None))
        ingest = fleet.role("ingest")
        fleet.role("write")
        fleet.role("query")
        site = ShipperSite(fleet, ingest, write_key, read_key)
        try:
            asyncio.run(site.ready())
        except AssertionError as error:
            raise AssertionError(f"{error}\n{fleet.failures()}") from error
        yield site
    finally:
        fleets.end(fleet)


async def _make_key(database_url: str, grants: Sequence[str], rates: RateLimits | None) -> str:
    database = Database(database_url, application_name="test keys", connections_max=1)
    await database.open()
    try:
        made = await Accounts(database).create_key(
            "test", list(grants), created_by="tests", rates=rates or RateLimits(None, None, 1.0)
        )
        return made.text
    finally:
        await database.close()
