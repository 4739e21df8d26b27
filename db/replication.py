"""What servers say of replication: how far the primary's WAL reaches, and how far a replica has replayed it.

Positions in the WAL are bytes since its beginning. Any account may ask for all of this.
"""

from __future__ import annotations

from typing import Final, LiteralString

import msgspec
from psycopg import conninfo

from db.database import Connection

# Inserted, not written: what a commit that waits for no disk has made visible counts.
_PRIMARY: Final[LiteralString] = """
    SELECT (pg_current_wal_insert_lsn() - '0/0')::bigint, (SELECT system_identifier FROM pg_control_system()),
        extract(epoch FROM pg_postmaster_start_time())::float8"""
_REPLICA: Final[LiteralString] = """
    SELECT pg_is_in_recovery(), CASE WHEN pg_is_in_recovery() THEN (pg_last_wal_replay_lsn() - '0/0')::bigint END,
        (SELECT system_identifier FROM pg_control_system()), current_setting('hot_standby_feedback') = 'on'"""
# The name of a file of WAL begins with its timeline.
TIMELINE: Final[LiteralString] = "('x' || left(pg_walfile_name(pg_current_wal_insert_lsn()), 8))::bit(32)::bigint"
"""SQL: the timeline that a primary writes: a promotion begins the next one."""
HOSTS_SHOWN_MAX: Final = 5


class PrimaryPosition(msgspec.Struct, frozen=True):
    """One look at a primary."""

    written: int
    cluster: int
    """The same on a primary and its replicas, on no other server."""
    started: float
    """When the server started: another one is another server."""


class ReplicaPosition(msgspec.Struct, frozen=True):
    """One look at a server that is said to be a replica."""

    is_replica: bool
    replayed: int | None
    cluster: int
    gives_feedback: bool
    """The primary keeps row versions that it reads, so replaying never has to end a question for them."""


async def primary_position(connection: Connection) -> PrimaryPosition:
    """Raises as `Connection.execute`, also on a standby."""
    row = await (await connection.execute(_PRIMARY)).fetchone()
    assert row is not None, "one row"
    return PrimaryPosition(*row)


async def replica_position(connection: Connection) -> ReplicaPosition:
    """Raises as `Connection.execute`."""
    row = await (await connection.execute(_REPLICA)).fetchone()
    assert row is not None, "one row"
    return ReplicaPosition(*row)


def hosts_of(url: str) -> str:
    """host:port of an address, of each where it names several; nothing secret. Raises ValueError where it cannot be read."""
    try:
        parts = conninfo.conninfo_to_dict(url)
    except Exception as error:  # a class of psycopg's, whose text would show the address
        raise ValueError("is no address of a PostgreSQL server") from error
    hosts = str(parts.get("host") or parts.get("hostaddr") or "localhost").split(",")[:HOSTS_SHOWN_MAX]
    ports = str(parts.get("port") or "5432").split(",")
    return ",".join(
        f"{host}:{ports[n] if len(ports) > 1 and n < len(ports) else ports[0]}" for n, host in enumerate(hosts)
    )
