"""What a PostgreSQL server says of itself, for whoever judges an installation. Changes nothing."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Final, LiteralString

import msgspec

from db.database import Connection

_SETTINGS: Final[LiteralString] = "SELECT name, setting, unit FROM pg_settings WHERE name = ANY(%s)"
_FACTS: Final[LiteralString] = """
    SELECT current_setting('server_version_num')::integer, current_setting('server_version'),
        (SELECT extversion FROM pg_extension WHERE extname = 'timescaledb'),
        (SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'client backend'),
        pg_database_size(current_database()), pg_is_in_recovery()"""
_APPLIED: Final[LiteralString] = "SELECT version FROM schema_migrations ORDER BY version"
_UNITS: Final = {
    "B": 1,
    "kB": 1024,
    "8kB": 8192,
    "16kB": 16384,
    "32kB": 32768,
    "MB": 1024**2,
    "GB": 1024**3,
    "TB": 1024**4,
    "us": 0.001,
    "ms": 1,
    "s": 1000,
    "min": 60_000,
    "h": 3_600_000,
    "d": 86_400_000,
}
"""Bytes, and milliseconds."""
_WITH_UNIT: Final = re.compile(r"(\d+)([a-zA-Z]+)")


class ServerFacts(msgspec.Struct, frozen=True):
    """One look at a server and a database of it."""

    version_number: int
    """170006 for 17.6."""
    version: str
    timescale: str | None
    """Version of the extension; None: it is not there."""
    connections: int
    """Of clients, now."""
    database_bytes: int
    is_standby: bool
    settings: Mapping[str, str | float]
    """Name -> value in bytes or milliseconds where it has such a unit, else text."""


async def server_facts(connection: Connection, settings: Iterable[str]) -> ServerFacts:
    """settings: names of those to look at. What a server does not have is left out."""
    facts = await (await connection.execute(_FACTS)).fetchone()
    assert facts is not None
    number, version, timescale, connections, size, is_standby = facts
    found = await (await connection.execute(_SETTINGS, (list(settings),))).fetchall()
    values = {name: in_base_unit(text, unit) for name, text, unit in found}
    return ServerFacts(number, version, timescale, connections, size, is_standby, values)


async def applied_migrations(connection: Connection) -> list[int]:
    """Versions, ascending."""
    return [version for (version,) in await (await connection.execute(_APPLIED)).fetchall()]


def in_base_unit(number: str, unit: str | None) -> str | float:
    """As pg_settings has them, in bytes or milliseconds; a text where there is no unit."""
    return number if unit not in _UNITS else float(number) * _UNITS[unit]


def setting_value(text: str) -> str | float:
    """As configurations have them, `512MB`, `15min`, in bytes or milliseconds; what has no such unit stays as it is."""
    found = _WITH_UNIT.fullmatch(text)
    return text if found is None else in_base_unit(found[1], found[2])
