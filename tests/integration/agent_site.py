"""Real agents beside a real server: processes with files of their own."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import orjson
import yaml

from access.accounts import Accounts
from db.database import Database
from infra.fleet import REPOSITORY, Fleet, free_port

DEADLINE_S = 60.0


def until(condition: Callable[[], bool], what: Callable[[], str], timeout_s: float = DEADLINE_S) -> None:
    """Wait for a condition, with a deadline."""
    ends_s = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < ends_s, what()
        time.sleep(0.05)


def make_key(fleet: Fleet, *grants: str, **options: Any) -> str:
    """An API key of the fleet's server. options: of create_key."""

    async def make() -> str:
        database = Database(fleet.database_url, application_name="agent test", connections_max=2, wait_s=20)
        await database.open()
        try:
            return (await Accounts(database).create_key("agent", grants, created_by="tests", **options)).text
        finally:
            await database.close()

    return asyncio.run(make())


class AgentProcess:
    """One agent over a directory: logs/ is its root."""

    def __init__(self, directory: Path, url: str, key: str, *, service: str, **settings: Any) -> None:
        """settings: of the section `agent`."""
        self.logs = directory / "logs"
        self.logs.mkdir(parents=True)
        self.port = free_port()
        root = {"path": str(self.logs), "service": service, **settings.pop("root", {})}
        self.settings = {
            "name": directory.name,
            "url": url,
            "port": self.port,
            "state_dir": str(directory / "state"),
            "scan_s": 0.2,
            "roots": {"app": root},
            **settings,
        }
        self._config, self._key = directory / "agent.yml", key
        self.log_path = directory / "agent.log"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> AgentProcess:
        """As a user would."""
        self._config.write_text(yaml.safe_dump({"agent": self.settings}))
        clean = {name: value for name, value in os.environ.items() if not name.startswith("LOGFEED_")}
        with self.log_path.open("ab") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cli.main", "agent", "--config", str(self._config)],
                cwd=REPOSITORY,
                env={**clean, "LOGFEED_API_KEY": self._key},
                stdin=subprocess.DEVNULL,
                stderr=log,
            )
        return self

    def kill(self) -> None:
        """With SIGKILL."""
        self._signal(signal.SIGKILL)

    def stop(self) -> int:
        """With SIGTERM; its exit code."""
        return self._signal(signal.SIGTERM)

    def ended(self) -> int:
        """Its exit code, when it ends by itself."""
        assert self.process is not None
        return self.process.wait(DEADLINE_S)

    def _signal(self, number: signal.Signals) -> int:
        assert self.process is not None
        if self.process.poll() is None:
            self.process.send_signal(number)
        return self.process.wait(DEADLINE_S)

    def append(self, name: str, lines: list[str]) -> None:
        with (self.logs / name).open("a") as file:
            file.write("".join(f"{line}\n" for line in lines))

    def answers(self) -> bool:
        """Whether its API is there."""
        try:
            return httpx.get(f"http://127.0.0.1:{self.port}/livez", trust_env=False, timeout=5).status_code == 200
        except httpx.TransportError:
            return False

    def log_text(self) -> str:
        return self.log_path.read_text()[-3_000:]


class Reader:
    """Asks the server what it has."""

    def __init__(self, url: str, key: str) -> None:
        self._client = httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {key}"}, trust_env=False, timeout=30
        )

    def logs(self, service: str) -> list[dict[str, Any]]:
        """All of a service, by walking its pages."""
        found: list[dict[str, Any]] = []
        params = {"service_name": service, "limit": "1000"}
        while True:
            response = self._client.get("/api/v1/logs", params=params)
            assert response.status_code == 200, response.text
            page = orjson.loads(response.content)
            found += page["logs"]
            if page["next_cursor"] is None:
                return found
            params = {**params, "cursor": page["next_cursor"]}

    def has_each_once(self, service: str, expected: list[str], agent: AgentProcess) -> None:
        """Wait until all lines are there, then count them."""
        seen: list[str] = []

        def has_all() -> bool:
            seen[:] = [log["message"] for log in self.logs(service)]
            return len(set(expected) - set(seen)) == 0

        until(has_all, lambda: f"{len(seen)} of {len(expected)} are there\n{agent.log_text()}")
        assert {line: count for line, count in Counter(seen).items() if count > 1} == {}
        assert set(seen) == set(expected)
