"""Versioned SQL, applied in order, each file in its own transaction.

Files are `NNNN_name.sql`, or `NNNN_name.native.sql` and `NNNN_name.timescale.sql` where the two layouts of the hot
store differ. Safe to run twice and from two processes at once (an advisory lock). Migrations only add: a program one version
older keeps working on a migrated database, so a database that is newer than the program is accepted.
"""

from __future__ import annotations

import hashlib
import re
from dataclasses import dataclass
from enum import StrEnum
from importlib import resources
from typing import Final

import structlog

from db.database import connect
from schemas.errors import ConfigurationError

log = structlog.get_logger(__name__)

_LOCK: Final = 7400
_FILE: Final = re.compile(r"(?P<version>\d{4})_(?P<name>[a-z_]+)(?:\.(?P<layout>native|timescale))?\.sql")


class Layout(StrEnum):
    """How the hot store divides rows by time."""

    NATIVE = "native"
    TIMESCALE = "timescale"


@dataclass(frozen=True, slots=True)
class Migration:
    """One file for one layout."""

    version: int
    name: str
    text: str

    @property
    def sha256(self) -> str:
        """Hex digest of the text: an applied file must never change."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def migrations(layout: Layout) -> list[Migration]:
    """The migrations of a layout, in order."""
    found = []
    for file in resources.files("db").joinpath("migrations").iterdir():
        match = _FILE.fullmatch(file.name)
        if match and match["layout"] in (None, layout.value):
            found.append(Migration(int(match["version"]), match["name"], file.read_text()))
    found.sort(key=lambda migration: migration.version)
    return found


async def migrate(url: str, layout: Layout, *, known: list[Migration] | None = None) -> list[Migration]:
    """Bring the database to this program's version; returns what was applied.

    Raises ConfigurationError when the database was made with the other layout or an applied file has changed,
    DatabaseUnavailable when it does not answer.
    """
    todo = migrations(layout) if known is None else known
    applied: list[Migration] = []
    connection = await connect(url, application_name="logfeed migrate")
    async with connection:
        await connection.execute("SELECT pg_advisory_lock(%s)", (_LOCK,))
        await connection.execute(
            "CREATE TABLE IF NOT EXISTS schema_migrations (version integer PRIMARY KEY, name text NOT NULL,"
            " layout text NOT NULL, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT clock_timestamp())"
        )
        cursor = await connection.execute("SELECT version, layout, sha256 FROM schema_migrations")
        done = {version: (layout_name, sha256) for version, layout_name, sha256 in await cursor.fetchall()}
        for migration in todo:
            if migration.version in done:
                layout_name, sha256 = done[migration.version]
                if layout_name != layout:
                    raise ConfigurationError(
                        f"this database was made with the {layout_name} layout, the configuration says {layout.value}"
                    )
                if sha256 != migration.sha256:
                    raise ConfigurationError(
                        f"migration {migration.version:04} was changed after it was applied: restore the released file"
                    )
                continue
            async with connection.transaction():
                await connection.execute(migration.text.encode())
                await connection.execute(
                    "INSERT INTO schema_migrations (version, name, layout, sha256) VALUES (%s, %s, %s, %s)",
                    (migration.version, migration.name, layout.value, migration.sha256),
                )
            log.info("migration applied", version=migration.version, name=migration.name)
            applied.append(migration)
        await connection.execute("SELECT pg_advisory_unlock(%s)", (_LOCK,))
    return applied


async def pending(url: str, layout: Layout) -> list[Migration]:
    """Migrations this program needs and the database lacks."""
    connection = await connect(url, application_name="logfeed migrate")
    async with connection:
        cursor = await connection.execute("SELECT to_regclass('schema_migrations') IS NOT NULL")
        row = await cursor.fetchone()
        if row is None or not row[0]:
            return migrations(layout)
        cursor = await connection.execute("SELECT version FROM schema_migrations")
        done = {version for (version,) in await cursor.fetchall()}
    return [migration for migration in migrations(layout) if migration.version not in done]
