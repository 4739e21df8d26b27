"""What is measured on: the servers and roles of one profile, as real processes in a directory of their own."""

from __future__ import annotations

import asyncio
import contextlib
import shutil
import signal
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from access.accounts import Accounts
from bench.options import Options
from bench.processes import Roles
from bench.watch import Store
from db.database import Database
from infra.fleet import Fleet, Role, until

if TYPE_CHECKING:
    from bench.fill import Filled

_DRAIN_S: Final = 900.0


@dataclass(frozen=True, slots=True)
class Keys:
    """API keys, as texts."""

    write: str
    read: str
    """Tails too."""


class Site:
    """One fleet. Servers run from the start; roles are started by the section that needs them first."""

    def __init__(self, fleet: Fleet, options: Options, keys: Keys) -> None:
        """fleet: servers started and migrated. keys: of its database."""
        self.fleet = fleet
        self._keys = keys
        self._options = options
        self._ingests: list[Role] = []
        self._writers: list[Role] = []
        self._query: Role | None = None
        self._tier: Role | None = None
        self.filled: Filled | None = None
        """What bench/fill.py has put into the store."""

    @property
    def ingest_urls(self) -> list[str]:
        """Base URLs of the ingest processes, with a key that may write."""
        return [_with_key(self.fleet.url(f"ingest-{number}"), self._keys.write) for number in range(len(self._ingests))]

    @property
    def query_url(self) -> str:
        """Base URL of the query process, with a key that may read and tail."""
        return _with_key(self.fleet.url("query"), self._keys.read)

    @property
    def read_key(self) -> str:
        """Opens the query process."""
        return self._keys.read

    @property
    def database_pid(self) -> int:
        """Of the database's postmaster."""
        server = self.fleet.embedded or self.fleet.timescale
        assert server is not None
        assert server.pid is not None
        return server.pid

    def roles(self) -> Roles:
        """Every role that runs, with its processes; the queue of the embedded profile is in its database."""
        roles = {
            "ingest": _pids(self._ingests),
            "writer": _pids(self._writers),
            "query": _pids([self._query] if self._query else []),
            "tier": _pids([self._tier] if self._tier else []),
            "database": [self.database_pid],
        }
        if self.fleet.kafka is not None and self.fleet.kafka.pid is not None:
            roles["broker"] = [self.fleet.kafka.pid]
        return {role: pids for role, pids in roles.items() if pids}

    def processes(self) -> Roles:
        """As `roles`, each process of ours by itself."""
        ours = [role for role in (*self._ingests, *self._writers, self._query, self._tier) if role is not None]
        servers = {name: pids for name, pids in self.roles().items() if name in ("database", "broker")}
        return {role.log_path.stem: pids for role in ours if (pids := _pids([role]))} | servers

    async def start_pipeline(self, **settings: str) -> None:
        """Ingest and writers run and are ready afterwards. settings: environment of the roles, at their first start."""
        if not self._ingests:
            for number in range(self._options.ingests):
                self._ingests.append(self.fleet.role("ingest", label=f"ingest-{number}", **settings))
            for number in range(self._options.writers):
                self._writers.append(self.fleet.role("write", label=f"writer-{number}", **settings))
        for role in self._writers:
            if not role.alive:
                role.start()
        await self._ready(*(f"ingest-{number}" for number in range(len(self._ingests))))
        await self._ready(*(f"writer-{number}" for number in range(len(self._writers))))

    async def start_query(self) -> None:
        """Query runs and is ready afterwards."""
        if self._query is None:
            self._query = self.fleet.role("query")
        await self._ready("query")

    def start_tier(self) -> None:
        """Rows that are due become files."""
        if self._tier is None:
            self._tier = self.fleet.role("tier")

    async def run_writers(self, count: int) -> None:
        """So many writers run, and are ready; those beyond them have stored what they had in hand and ended."""
        for number in range(len(self._writers), count):
            self._writers.append(self.fleet.role("write", label=f"writer-{number}"))
        for number, role in enumerate(self._writers):
            if number >= count and role.alive:
                role.stop()
            elif number < count and not role.alive:
                role.start()
        await self._ready(*(f"writer-{number}" for number in range(count)))

    async def run_ingests(self, count: int) -> None:
        """At least so many ingest processes run, and are ready."""
        for number in range(len(self._ingests), count):
            self._ingests.append(self.fleet.role("ingest", label=f"ingest-{number}"))
        await self._ready(*(f"ingest-{number}" for number in range(count)))

    def stop_writers(self) -> None:
        """Writers have stored what they had in hand and ended; `start_pipeline` starts them again."""
        for role in self._writers:
            if role.alive:
                role.stop()

    async def drained(self, store: Store) -> None:
        """Wait until nothing waits to be stored. Raises RuntimeError when a role has ended meanwhile."""

        async def nothing_waits() -> bool:
            self.check()
            return await store.unread_frames() == 0

        await until(nothing_waits, what="everything accepted is stored", timeout_s=_DRAIN_S)

    def check(self) -> None:
        """Raises RuntimeError with the ends of the logs when a role has ended."""
        beside = [role for role in (self._query, self._tier) if role is not None]
        for role in (*self._ingests, *self._writers, *beside):
            if not role.alive:
                raise RuntimeError(f"{role.log_path.name} has ended:\n{self.fleet.failures()}")

    def check_ingests(self) -> None:
        """Raises RuntimeError when an ingest process has ended."""
        for role in self._ingests:
            if not role.alive:
                raise RuntimeError(f"{role.log_path.name} has ended:\n{self.fleet.failures()}")

    async def _ready(self, *labels: str) -> None:
        try:
            await self.fleet.ready(*labels)
        except AssertionError as error:
            raise RuntimeError(f"{error}\n{self.fleet.failures()}") from error


@contextlib.contextmanager
def running_site(profile: str, options: Options) -> Iterator[Site]:
    """A site with its servers; everything is stopped and deleted afterwards. Not inside an event loop."""
    directory = Path(tempfile.mkdtemp(prefix="logfeed-bench-"))
    directory.chmod(0o711)
    fleet = Fleet(
        profile,
        directory,
        partitions=options.partitions,
        extra={
            "LOGFEED_LOG__LEVEL": "warning",
            "LOGFEED_TIERS__DIRECTORY": str(directory / "segments"),
            # The key that reads is one subject.
            "LOGFEED_TAIL__SUBJECT_TAILS_MAX": "2000",
        },
        access="true",
        writers_listen=True,
    )
    try:
        fleet.start_servers()
        yield Site(fleet, options, asyncio.run(_made_keys(fleet.database_url)))
    finally:
        for role in fleet.roles:
            if role.alive:
                role.signal(signal.SIGKILL)
        fleet.stop_everything()
        shutil.rmtree(directory, ignore_errors=True)


async def _made_keys(database_url: str) -> Keys:
    database = Database(database_url, application_name="bench keys", connections_max=2)
    await database.open()
    try:
        accounts = Accounts(database)
        made = [
            await accounts.create_key("bench", grants, created_by="bench")
            for grants in (["write:*"], ["read:*", "tail:*"])
        ]
        return Keys(*(key.text for key in made))
    finally:
        await database.close()


def _with_key(url: str, key: str) -> str:
    """As bench/wire.py takes it."""
    return url.replace("://", f"://{key}@", 1)


def _pids(roles: list[Role]) -> list[int]:
    return [role.process.pid for role in roles if role.process is not None and role.alive]
