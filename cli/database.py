"""`logfeed db`: migrations, and partitions that were halted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.usage import Command, group
from schemas.errors import InvalidInput

if TYPE_CHECKING:
    from cli.settings import Settings
    from db.database import Database

app = group(help="Prepare and repair the database.")

ConfigOption = Annotated[
    Path | None,
    typer.Option("--config", "-c", metavar="FILE", help="YAML file with settings; else the one LOGFEED_CONFIG names."),
]


def read_settings(config: Path | None, role: str) -> Settings:
    """Settings of a command that speaks to the database, with logging set up. Raises ConfigurationError."""
    from cli.settings import load_settings
    from runtime.telemetry import configure_logging

    settings = load_settings(config)
    configure_logging(level=settings.log.level, json_lines=settings.log.json_lines, role=role)
    return settings


@asynccontextmanager
async def opened_database(settings: Settings, role: str) -> AsyncIterator[Database]:
    """The database, known to answer and to have every table. Raises DatabaseUnavailable at once, ConfigurationError."""
    from cli.beginning import check_migrated
    from db.database import Database

    await check_migrated(settings)
    database = Database(settings.database_url(), application_name=f"logfeed {role}")
    await database.open()
    try:
        yield database
    finally:
        await database.close()


@app.command(cls=Command)
def migrate(config: ConfigOption = None) -> None:
    """Bring the database to this program's version. Safe to run twice and from two processes at once."""
    from db.migrations import migrate as apply_migrations

    settings = read_settings(config, "db")
    applied = asyncio.run(apply_migrations(settings.database_url(), settings.layout))
    print(f"{len(applied)} migrations applied" if applied else "the database is up to date")


@app.command(cls=Command)
def status(config: ConfigOption = None) -> None:
    """Show migrations that are missing, and each partition's owner, position and trouble. Exit code 1: something is wrong."""
    if not asyncio.run(_status(read_settings(config, "db"))):
        raise typer.Exit(1)


async def _status(settings: Settings) -> bool:
    from db.migrations import pending

    missing = await pending(settings.database_url(), settings.layout)
    for migration in missing:
        print(f"missing migration {migration.version:04} {migration.name}: run `logfeed db migrate`")
    if missing:
        return False
    async with opened_database(settings, "db") as database:
        rows = await database.fetch_all(
            "SELECT topic, partition, owner, next_offset,"
            " CASE WHEN isfinite(stored_to) THEN date_trunc('second', stored_to) END, halted"
            " FROM consumer_offsets ORDER BY topic, partition"
        )
    for topic, partition, owner, next_offset, stored_to, halted in rows:
        trouble = f"  HALTED: {halted}" if halted else ""
        print(
            f"{topic}/{partition}  next offset {next_offset}  stored to {stored_to or '-'}  owner {owner or '-'}{trouble}"
        )
    if not rows:
        print("the database is up to date; no writer has started on it yet")
    return not any(row[5] for row in rows)


@app.command(cls=Command)
def resume(
    partition: Annotated[int, typer.Argument(metavar="PARTITION", help="Number of the halted partition.")],
    config: ConfigOption = None,
    next_offset: Annotated[
        int | None,
        typer.Option(
            min=0,
            metavar="OFFSET",
            help="Go on from this offset instead, accepting that what lies between is lost or stored again.",
        ),
    ] = None,
) -> None:
    """Let a halted partition go on, after its cause was mended."""
    settings = read_settings(config, "db")
    asyncio.run(_resume(settings, partition, next_offset))
    print(f"partition {partition} goes on with the next lease (within {settings.writer.lease_ttl_s:.0f} s)")


async def _resume(settings: Settings, partition: int, next_offset: int | None) -> None:
    async with opened_database(settings, "db") as database:
        # The owner is dropped, so that the next claim reads the row anew under a higher epoch.
        changed = await database.execute(
            "UPDATE consumer_offsets SET halted = NULL, owner = NULL, lease_until = '-infinity', epoch = epoch + 1,"
            " last_frame_id = CASE WHEN %s::bigint IS NULL THEN last_frame_id END,"
            " next_offset = coalesce(%s::bigint, next_offset)"
            " WHERE topic = %s AND partition = %s AND halted IS NOT NULL",
            (next_offset, next_offset, settings.broker.topic, partition),
        )
    if not changed:
        raise InvalidInput(f"partition {partition} of {settings.broker.topic} is not halted: see `logfeed db status`")
