"""`logfeed lake`: the files of rows as a table of Apache Iceberg. Speaks to the database and to the warehouse directly."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from cli.database import ConfigOption, opened_database, read_settings
from cli.usage import Command, group
from schemas.errors import ConfigurationError, Overloaded

if TYPE_CHECKING:
    from cli.settings import Settings
    from store.lake.publishing import Lake, Published

app = group(help="Show the files of rows to other engines, as a table of Apache Iceberg (docs/scale.md).")

_ROLE = "lake"


@app.command(cls=Command)
def publish(
    config: ConfigOption = None,
    every: Annotated[
        float | None,
        typer.Option("--every", min=1, metavar="SECONDS", help="Go on: publish again so long after each time."),
    ] = None,
    anew: Annotated[
        bool, typer.Option("--anew", help="Forget the table and make it again; no file of rows is touched.")
    ] = False,
) -> None:
    """Bring the table to the files that there are now.

    Files are entered where they lie and are not read. Safe to repeat, to kill,
    and to run twice at once: what changed is one commit.

    [bold]Exit codes[/bold]
      0    the table is what it should be
      1    it could not be published; repeat
      2    the configuration is not valid
    """
    settings = read_settings(config, _ROLE)
    asyncio.run(_publish(settings, every_s=every, anew=anew))


@app.command(cls=Command)
def status(config: ConfigOption = None) -> None:
    """Show the table, and what publishing now would change. Exit code 1: it was never published."""
    settings = read_settings(config, _ROLE)
    if not asyncio.run(_status(settings)):
        raise typer.Exit(1)


@asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Lake]:
    try:
        from store.lake.publishing import Lake
    except ModuleNotFoundError as error:
        if error.name is None or error.name.split(".")[0] not in ("pyiceberg", "sqlalchemy"):
            raise
        raise ConfigurationError(
            "`logfeed lake` needs pyiceberg, which is not installed: `make install-lake`, or pip install 'logfeed[lake]'"
        ) from error
    from store.lake.locations import Locations

    locations = Locations.of(settings.lake, settings.objects, Path(settings.segment_directory()))
    async with opened_database(settings, _ROLE) as database:
        yield Lake(database, settings.lake, settings.objects, locations)


async def _publish(settings: Settings, *, every_s: float | None, anew: bool) -> None:
    async with _opened(settings) as lake:
        print(_told(await lake.publish(anew=anew)), flush=True)
        while every_s is not None:
            await asyncio.sleep(every_s)
            try:
                print(_told(await lake.publish()), flush=True)
            except Overloaded as error:
                print(f"not published, trying again in {every_s:g} s: {error}", flush=True)


async def _status(settings: Settings) -> bool:
    async with _opened(settings) as lake:
        found = await lake.status()
    if found is None:
        print("never published: run `logfeed lake publish`")
        return False
    name = f"{settings.lake.catalog}.{settings.lake.namespace}.{settings.lake.table}"
    published = "never" if found.published_at is None else _time(found.published_at.timestamp())
    newest = "-" if found.newest_us is None else _time(found.newest_us / 1_000_000)
    for label, value in (
        ("table", name),
        ("location", found.location),
        ("metadata", found.metadata),
        ("snapshot", f"{found.snapshot_id or '-'}, published {published}"),
        ("files", f"{found.files:,} with {found.rows:,} logs, the newest of {newest}"),
        ("to publish", f"{found.to_add:,} files to enter, {found.to_remove:,} to take out"),
    ):
        print(f"{label:<11} {value}")
    return True


def _told(published: Published) -> str:
    change = (
        "nothing changed"
        if not published.added and not published.removed
        else (f"{published.added:,} files entered, {published.removed:,} taken out")
    )
    return f"{change}; the table has {published.files:,} files with {published.rows:,} logs"


def _time(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, UTC).isoformat(timespec="seconds").replace("+00:00", "Z")
