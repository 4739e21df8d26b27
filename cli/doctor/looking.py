"""Looks at a deployment from the machine it runs on: settings, disks, ports, database, broker, object storage.

Changes nothing, makes no topic, takes no lease. Each look ends within LOOK_S; one that fails is a finding, the others go on.
"""

from __future__ import annotations

import asyncio
import os
import platform
import stat
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, suppress
from importlib.metadata import version
from pathlib import Path
from typing import Final

import httpx

from broker.factory import make_broker
from broker.port import Broker
from cli.doctor import judging
from cli.doctor.findings import Finding, fail, ok, warn
from cli.doctor.host import agent_files
from cli.http_client import own_server_trust
from cli.settings import Settings
from db.database import Database, Error, connect
from db.migrations import migrations, pending
from db.replication import PrimaryPosition, hosts_of, primary_position, replica_position
from db.server_facts import applied_migrations, server_facts
from db.server_settings import SERVER_SETTINGS
from runtime.clock import Clock
from schemas.errors import ConfigurationError, DatabaseUnavailable, LogfeedError
from schemas.scope import ServiceScope
from schemas.topics import WRITER_GROUP
from store.hosts import HostStore
from store.status import store_status
from store.steps import clock_us
from store.tiers.places import Places
from store.tiers.status import tier_status

LOOK_S: Final = 20.0
_NEWEST_RECORD_MS: Final = 2000
_MARKER_BYTES_MAX: Final = 100
_PORT_S: Final = 3.0

Look = Callable[[], Awaitable[list[Finding]]]


async def look(settings: Settings, clock: Clock) -> AsyncIterator[Finding]:
    """Everything, in the order in which things depend on one another."""
    yield ok("program", f"Logfeed {version('logfeed')}, Python {platform.python_version()}, profile {settings.profile}")
    for finding in (*_places(settings), *_secrets(settings)):
        yield finding
    for finding in await _looked(lambda: asyncio.to_thread(agent_files, settings.agent), "agent", LOOK_S):
        yield finding
    for finding in await _looked(lambda: _ports(settings), "ports", LOOK_S):
        yield finding
    async with AsyncExitStack() as stack:
        deployment = Deployment(settings, clock, stack)
        for what, step in deployment.looks():
            for finding in await _looked(step, what, LOOK_S):
                yield finding


async def _looked(look: Look, what: str, seconds: float) -> list[Finding]:
    try:
        async with asyncio.timeout(seconds):
            return await look()
    except TimeoutError:
        return [fail(what, f"did not answer within {seconds:.0f} s", "see whether it hangs, or is cut off")]
    except (LogfeedError, OSError) as error:
        return [fail(what, str(error), _ADVICE.get(what, ""))]


_ADVICE: Final = {
    "database": "start the server, or mend database.url (LOGFEED_DATABASE__URL)",
    "broker": "start the broker, or mend broker.bootstrap; docs/operating.md says which settings are needed",
    "objects": "mend objects.url, its credentials or its rights (docs/operating.md, Object storage)",
}


class Deployment:
    """Database and broker, opened when they are needed."""

    def __init__(self, settings: Settings, clock: Clock, stack: AsyncExitStack) -> None:
        """stack: closes what is opened."""
        self._settings = settings
        self._clock = clock
        self._stack = stack
        self._database: Database | None = None
        self._ends: dict[int, int] = {}
        self.has_tables = False
        """Whether the database answers and has every table."""

    def looks(self) -> Iterator[tuple[str, Look]]:
        """(subject, look), those that can look once the ones before have."""
        yield "database", self.database
        if self._settings.database.replicas:
            yield "replicas", self.replicas
        if self.has_tables or self._settings.broker.kind == "kafka":
            yield "broker", self.broker
        if self.has_tables:
            yield "access", self.access
            yield "writers", self.stored
            yield "tiers", self.tiers
            yield "hosts", self.hosts
        yield "objects", self.objects

    async def database(self) -> list[Finding]:
        """Whether it answers, what it is set to, its clock, its tables."""
        settings = self._settings
        try:
            url = settings.database_url()
        except ConfigurationError as error:
            return [fail("database", str(error), "")]
        wanted = (*SERVER_SETTINGS, *judging.DURABLE)
        # Not of a pool, which would go on trying: whether it can be connected to is the question.
        async with await connect(url, application_name="logfeed doctor") as connection:
            facts = await server_facts(connection, wanted)
            asked_us = self._clock.now_us()
            their_us = await clock_us(connection)
            answered_us = self._clock.now_us()
        took_us = max(0, answered_us - asked_us)
        database = Database(url, application_name="logfeed doctor", connections_max=2, wait_s=LOOK_S / 2)
        await database.open()
        self._stack.push_async_callback(database.close)
        self._database = database
        found = judging.server(facts, wants_timescale=settings.profile == "full")
        found.append(judging.clock("the database", their_us - (asked_us + answered_us) // 2, took_us // 2 + 1))
        found.append(await self._migrated(url, database))
        return found

    async def replicas(self) -> list[Finding]:
        """Whether each of them answers, is one, and how far it is behind."""
        found: list[Finding] = []
        for secret in self._settings.database.replicas:
            address = secret.get_secret_value()
            name = hosts_of(address)
            try:
                async with await connect(address, application_name="logfeed doctor") as connection:
                    position = await replica_position(connection)
            except (DatabaseUnavailable, Error) as error:
                found.append(fail("replicas", f"{name}: {error}", "start it, or mend database.replicas"))
                continue
            found += judging.replica(name, position, await self._primary())
        return found

    async def _primary(self) -> PrimaryPosition | None:
        try:
            async with self._opened().connection() as connection:
                return await primary_position(connection)
        except (DatabaseUnavailable, Error):
            return None

    async def _migrated(self, url: str, database: Database) -> Finding:
        layout = self._settings.layout
        missing = [each.version for each in await pending(url, layout)]
        self.has_tables = not missing
        applied = []
        if self.has_tables:
            async with database.connection() as connection:
                applied = await applied_migrations(connection)
        return judging.migrated(missing, applied, [each.version for each in migrations(layout)])

    def _opened(self) -> Database:
        if self._database is None:
            raise DatabaseUnavailable("the database was not asked")
        return self._database

    async def access(self) -> list[Finding]:
        """Whether anybody can get in."""
        from access.accounts import Accounts

        if not self._settings.access.enabled:
            return [warn("access", "is off: whoever reaches a port reads and writes everything", "set access.enabled")]
        if not await Accounts(self._opened()).has_keys():
            return [warn("access", "there is no key: nobody gets in", "`logfeed keys create NAME --write '*'`")]
        return [ok("access", "is on, and there are keys")]

    async def broker(self) -> list[Finding]:
        """Whether it answers, and whether its settings and the topic's keep logs: as a role asserts at its start."""
        settings = self._settings.broker
        # It is looked at, not made.
        broker = make_broker(settings.model_copy(update={"create_topic": False}), self._database)
        self._stack.push_async_callback(broker.close)
        await broker.open()
        where = settings.bootstrap if settings.kind == "kafka" else "the queue in the database"
        found = [ok("broker", f"{where}: topic {broker.topic}, {broker.partitions} partitions, safe settings")]
        newest_us = await self._newest_us(broker)
        if newest_us is not None and (ahead := judging.broker_clock(newest_us, self._clock.now_us())):
            found.append(ahead)
        return found

    async def _newest_us(self, broker: Broker) -> int | None:
        """Append time of a newest record; None when there is none."""
        reader = await broker.reader(group=WRITER_GROUP)
        try:
            partitions = range(broker.partitions)
            self._ends = await reader.end_offsets(partitions)
            first = await reader.first_offsets(partitions)
            newest = {each: end - 1 for each, end in self._ends.items() if end > first.get(each, end)}
            if not newest:
                return None
            await reader.seek(newest)
            records = await reader.poll(max_bytes=1, wait_ms=_NEWEST_RECORD_MS)
            return max((record.append_ms * 1000 for record in records), default=None)
        finally:
            await reader.close()

    async def stored(self) -> list[Finding]:
        """How far writers are, what is halted, what was put aside, who leads."""
        database = self._opened()
        status = await store_status(database, self._settings.broker.topic)
        async with database.connection() as connection:
            now_us = await clock_us(connection)
        return [*judging.stored(status, self._ends, now_us), *judging.roles(status.leaders)]

    async def tiers(self) -> list[Finding]:
        """What is due, and whose directory it is."""
        settings, database = self._settings, self._opened()
        if not settings.tiers.enabled:
            return [ok("tiers", "are off (tiers.enabled)")]
        status = await tier_status(
            database, settings.tiers, settings.retention_policy(), has_objects=settings.objects.url is not None
        )
        found = [judging.tiers(status)]
        try:
            places = Places(settings.segment_directory())
        except ConfigurationError:
            return found  # a role of this machine has nothing to do with files
        row = await database.fetch_one("SELECT value FROM secrets WHERE name = 'installation'")
        marker = judging.marker(
            str(places.directory), _read(places.marker), bytes(row[0]).hex() if row is not None else None
        )
        return [*found, marker] if marker is not None else found

    async def hosts(self) -> list[Finding]:
        """Which agents are heard of."""
        store = HostStore(self._opened(), kept_max=self._settings.hosts.kept_max)
        found = await store.find(allowed=ServiceScope(everything=True), after="", limit=self._settings.hosts.kept_max)
        judged = judging.hosts({host.name: host.silent_s for host in found})
        return [] if judged is None else [judged]

    async def objects(self) -> list[Finding]:
        """Whether object storage answers and lets us in."""
        from store.objects.factory import make_object_store

        url = self._settings.objects.url
        if url is None:
            return []
        store = make_object_store(self._settings.object_settings())
        try:
            await store.check()
        finally:
            await store.close()
        return [ok("objects", f"{url} answers and lets us in")]


def _places(settings: Settings) -> Iterator[Finding]:
    """Room on the disks of this machine."""
    seen: set[int] = set()
    for directory in _directories(settings):
        try:
            device, found = directory.stat().st_dev, os.statvfs(directory)
        except FileNotFoundError:
            continue
        except OSError as error:
            yield fail(
                "disk", f"{directory}: {error.strerror}", "give the directory to the account that runs the roles"
            )
            continue
        if device not in seen:
            seen.add(device)
            yield judging.disk(
                str(directory),
                found.f_bavail * found.f_frsize,
                found.f_blocks * found.f_frsize,
                needed_bytes=settings.tiers.disk_free_bytes_min,
            )


def _directories(settings: Settings) -> Iterator[Path]:
    yield settings.data_dir
    with suppress(ConfigurationError):
        yield settings.segment_directory()
    if settings.objects.url is not None:
        cache = settings.object_settings().cache_dir
        if cache is not None:
            yield cache


def _secrets(settings: Settings) -> Iterator[Finding]:
    """Who may read files that open everything."""
    keys = settings.data_dir / "keys"
    files = [settings.data_dir / "postgres.json", *(sorted(keys.iterdir()) if keys.is_dir() else ())]
    wrong = []
    for path in (keys, *files, *filter(None, [settings.http.tls_key])):
        try:
            mode = stat.S_IMODE(path.stat().st_mode)
        except OSError:
            continue
        if finding := judging.private(str(path), mode, is_directory=path == keys):
            wrong.append(finding)
    yield from wrong
    if keys.is_dir() and not wrong:
        yield ok("keys", f"{keys} is its owner's alone")


async def _ports(settings: Settings) -> list[Finding]:
    """Who listens where the roles of this machine would."""
    http = settings.http
    wanted = {
        "http.port": (http.host, http.port, http.has_tls),
        "writer.health_port": (settings.writer.health_host, settings.writer.health_port, False),
        "tiers.health_port": (settings.tiers.health_host, settings.tiers.health_port, False),
        "alerts.health_port": (settings.alerts.health_host, settings.alerts.health_port, False),
        "patterns.health_port": (settings.patterns.health_host, settings.patterns.health_port, False),
        "routing.health_port": (settings.routing.health_host, settings.routing.health_port, False),
        "agent.health_port": (settings.agent.health_host, settings.agent.health_port, False),
    }
    trust = own_server_trust(http.tls_cert)
    async with httpx.AsyncClient(trust_env=False, timeout=_PORT_S, verify=trust) as client:
        return [
            await _port(client, name, "127.0.0.1" if host in ("", "0.0.0.0", "::") else host, port, tls)
            for name, (host, port, tls) in wanted.items()
            if port
        ]


async def _port(client: httpx.AsyncClient, name: str, host: str, port: int, tls: bool) -> Finding:
    place = f"{name} {host}:{port}"
    shown = f"[{host}]" if ":" in host else host
    try:
        answer = await client.get(f"{'https' if tls else 'http'}://{shown}:{port}/readyz")
        document = answer.json()
        problems = [str(each) for each in document["problems"]]
    except httpx.ConnectError:
        return ok("ports", f"{place}: nobody listens")
    except (httpx.HTTPError, ValueError, KeyError, TypeError):
        return fail("ports", f"{place}: another program listens", f"end it, or choose another {name}")
    if problems:
        return warn("ports", f"{place}: not ready: {'; '.join(problems)}", "see the lines below, and that role's log")
    return ok("ports", f"{place}: ready")


def _read(marker: Path) -> str | None:
    try:
        with marker.open(encoding="utf-8", errors="replace") as file:
            return file.read(_MARKER_BYTES_MAX).strip()
    except OSError:
        return None
