"""Hosts in the database: one row each, written by its agent's heartbeats.

A name belongs to who registered it first, until somebody forgets it. Whether a host is away is judged by the database's clock,
which also wrote when it was last heard of. Listing carries `allowed` (INV-5); `one` is for who compares the host's services
with it and goes on to ask the agent.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from db.database import Connection, Database, bounded
from schemas.errors import InvalidInput
from schemas.scope import ServiceScope
from search.predicate import within
from search.sql_postgres import compile_postgres

_CALL_S: Final = 10.0
_LOCK: Final = 7419
"""Advisory: counting, then adding one more, is one step."""
_NOW_US: Final = "(extract(epoch FROM clock_timestamp()) * 1000000)::bigint"
_COLUMNS: Final = (
    "host, owner, address, token, version, services, (extract(epoch FROM last_seen) * 1000000)::bigint,"
    " extract(epoch FROM clock_timestamp() - last_seen)::float8"
)
_BEAT: Final = f"""
    UPDATE hosts SET address = %s, token = %s, version = %s, services = %s, last_seen = clock_timestamp()
    WHERE host = %s AND owner = %s RETURNING {_NOW_US}"""
_ADD: Final = f"""
    INSERT INTO hosts (address, token, version, services, host, owner) VALUES (%s, %s, %s, %s, %s, %s)
    RETURNING {_NOW_US}"""
_LIST: Final = f"""
    SELECT {_COLUMNS} FROM hosts
    WHERE host > %s AND (%s OR EXISTS (SELECT FROM unnest(services) AS s (service_name) WHERE {{wanted}}))
    ORDER BY host LIMIT %s"""
_ONE: Final = f"SELECT {_COLUMNS} FROM hosts WHERE host = %s"


class HostTaken(InvalidInput):
    """The host's name belongs to another key."""


class TooManyHosts(InvalidInput):
    """There are as many hosts as are kept."""


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """What an agent says of itself."""

    address: str
    token: str = field(repr=False)
    version: str
    services: Sequence[str]


@dataclass(frozen=True, slots=True)
class Host:
    """A host as it was last heard of."""

    name: str
    owner: str
    """Subject of the key that registered it."""
    address: str
    """scheme://host:port"""
    token: str = field(repr=False)
    version: str
    services: tuple[str, ...]
    seen_us: int
    """Microseconds since the Unix epoch, of the database's clock."""
    silent_s: float
    """Seconds since then, by the same clock."""


class HostStore:
    """The hosts of one database."""

    def __init__(self, database: Database, *, kept_max: int) -> None:
        """database: opened and closed by the caller."""
        self._database = database
        self._kept_max = kept_max

    async def beat(self, name: str, owner: str, heartbeat: Heartbeat) -> int:
        """Write a heartbeat down, of a new host too; the database's time, in microseconds. Raises HostTaken, TooManyHosts,
        DatabaseUnavailable."""
        row = (heartbeat.address, heartbeat.token, heartbeat.version, list(heartbeat.services), name, owner)
        async with bounded(_CALL_S):
            found = await self._database.fetch_one(_BEAT, row)
            if found is not None:
                return int(found[0])
            async with self._database.transaction() as connection:
                await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
                return await self._added(connection, name, owner, row)

    async def find(self, *, allowed: ServiceScope, after: str, limit: int) -> list[Host]:
        """By name: those that have a service that is allowed, and where all are, every host. after: name, exclusive. Raises
        DatabaseUnavailable."""
        wanted = compile_postgres(within(allowed))
        query = _LIST.format(wanted=wanted.text)
        async with bounded(_CALL_S):
            rows = await self._database.fetch_all(query, (after, allowed.everything, *wanted.params, limit))
        return [_host(row) for row in rows]

    async def one(self, name: str) -> Host | None:
        """Whoever asks looks at its services. Raises DatabaseUnavailable."""
        async with bounded(_CALL_S):
            row = await self._database.fetch_one(_ONE, (name,))
        return None if row is None else _host(row)

    async def forget(self, name: str) -> bool:
        """Whether there was such a host. Its name is free then. Raises DatabaseUnavailable."""
        async with bounded(_CALL_S):
            return await self._database.execute("DELETE FROM hosts WHERE host = %s", (name,)) > 0

    async def _added(self, connection: Connection, name: str, owner: str, row: tuple[Any, ...]) -> int:
        """Under the lock: nobody else adds one."""
        found: Any = await (await connection.execute("SELECT owner FROM hosts WHERE host = %s", (name,))).fetchone()
        if found is None:
            counted: Any = await (await connection.execute("SELECT count(*) FROM hosts")).fetchone()
            if counted[0] >= self._kept_max:
                raise TooManyHosts(
                    f"there are {counted[0]} hosts, as many as are kept (hosts.kept_max): forget some that are gone"
                )
        elif found[0] != owner:
            raise HostTaken(
                f"host {name} belongs to another key: an administrator can forget it (`logfeed hosts forget {name}`)"
            )
        statement = _ADD if found is None else _BEAT
        written: Any = await (await connection.execute(statement.encode(), row)).fetchone()
        return int(written[0])


def _host(row: tuple[Any, ...]) -> Host:
    name, owner, address, token, version, services, seen_us, silent_s = row
    return Host(name, owner, address, token, version, tuple(services), seen_us, silent_s)
