"""A Logfeed of real processes, every HTTP role on one port, that clients of Elasticsearch send to and tests ask."""

from __future__ import annotations

import asyncio
import contextlib
import time
from collections import Counter
from collections.abc import Callable
from typing import Any, Final

import httpx

from access.accounts import Accounts
from access.principal import RateLimits
from db.database import Database
from infra.fleet import Fleet, Role

Json = dict[str, Any]
SOON_S: Final = 90.0
"""On a machine that is busy with other tests."""
PAGE: Final = 1_000


def until(condition: Callable[[], bool], what: Callable[[], str]) -> None:
    """Wait for a condition, with a deadline."""
    deadline = time.monotonic() + SOON_S
    while not condition():
        assert time.monotonic() < deadline, f"not within {SOON_S:.0f} s: {what()}"
        time.sleep(0.1)


class Site:
    """One Logfeed of real processes, with access control."""

    def __init__(self, fleet: Fleet, serve: Role) -> None:
        self.fleet = fleet
        self.serve = serve
        self._admin = self.key("admin:*")

    @property
    def url(self) -> str:
        return self.fleet.url("serve")

    @property
    def port(self) -> int:
        return self.fleet.ports["serve"]

    def key(self, *grants: str, rates: RateLimits | None = None) -> str:
        """A new key, known when this returns."""

        async def make() -> str:
            database = Database(self.fleet.database_url, application_name="shippers test", connections_max=2)
            await database.open()
            try:
                given: Json = {} if rates is None else {"rates": rates}
                return (await Accounts(database).create_key("test", grants, created_by="tests", **given)).text
            finally:
                await database.close()

        key = asyncio.run(make())

        def is_known() -> bool:
            return self.ask("/api/v1/auth/me", key).status_code == 200

        until(is_known, lambda: "the key is known")
        return key

    def ask(self, path: str, key: str | None = None, **parameters: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {key or self._admin}"}
        return httpx.get(f"{self.url}{path}", params=parameters, headers=headers, timeout=30, trust_env=False)

    def logs(self, service: str) -> list[Json]:
        """All logs of a service; none while Logfeed is away."""
        found: list[Json] = []
        cursor: str | None = None
        while True:
            more: Json = {"cursor": cursor} if cursor else {}
            answer = self.ask("/api/v1/logs", service_name=service, limit=PAGE, **more)
            if answer.status_code == 503:
                return []
            assert answer.status_code == 200, answer.text
            page = answer.json()
            found += page["logs"]
            cursor = page["next_cursor"]
            if cursor is None:
                return found

    def messages(self, service: str) -> Counter[str]:
        with contextlib.suppress(httpx.HTTPError):
            return Counter(log["message"] for log in self.logs(service))
        return Counter()

    def until_once(self, service: str, wanted: list[str], beside: Callable[[], str] = str) -> None:
        """Wait until each message is stored; then each is there once, and nothing else."""

        def are_there() -> bool:
            return set(self.messages(service)) >= set(wanted)

        def what() -> str:
            missing = set(wanted) - set(self.messages(service))
            return f"{len(missing)} of {len(wanted)} are missing, such as {sorted(missing)[:3]}; {beside()}"

        until(are_there, what)
        found = self.messages(service)
        twice = {message: count for message, count in found.items() if count > 1}
        assert not twice, f"{len(twice)} are there more than once"
        assert set(found) == set(wanted)

    def kill(self) -> None:
        self.serve.kill()

    def bring_back(self) -> None:
        self.serve.start()
        asyncio.run(self.fleet.ready("serve"))
