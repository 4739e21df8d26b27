"""`logfeed tier`: the role that moves rows from tables to files and object storage, and what people do about it by hand."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from cli.database import ConfigOption, opened_database, read_settings
from cli.terminal import harmless
from cli.usage import Command, Group

if TYPE_CHECKING:
    from cli.settings import Settings
    from store.tiers.progress import Progress
    from store.tiers.status import Stock, TierStatus

app = typer.Typer(
    cls=Group,
    help="Move rows to files and object storage as they age; without a command: run as a role, until it is stopped.",
    invoke_without_command=True,
)

_DAY_US: Final = 86_400_000_000


@app.callback()
def tier(
    context: typer.Context,
    config: ConfigOption = None,
    name: Annotated[
        str | None,
        typer.Option("--name", metavar="NAME", help="Stable name of this process (default: the host's name)."),
    ] = None,
) -> None:
    """Run the role: one process at a time leads, others stand by."""
    if context.invoked_subcommand is not None:
        return
    from cli.settings import load_settings
    from cli.tier_role import run_tier
    from runtime.telemetry import configure_logging

    settings = load_settings(config, {"tiers.name": name})
    configure_logging(level=settings.log.level, json_lines=settings.log.json_lines, role="tier")
    _run(run_tier(settings))


@app.command(cls=Command)
def status(
    config: ConfigOption = None,
    as_json: Annotated[bool, typer.Option("--json", help="One JSON object, times in microseconds since 1970.")] = False,
) -> None:
    """Show how much is where, what is due, and which process moves rows."""
    settings = read_settings(config, "tier")
    found = _run(_status(settings))
    if as_json:
        import msgspec

        print(msgspec.json.encode(found).decode())
        return
    _print_status(found, settings)


def _print_strays(settings: Settings) -> None:
    """Told where the directory is: it need not be on this host."""
    from rich.filesize import decimal

    from schemas.errors import ConfigurationError
    from store.tiers.places import Places
    from store.tiers.strays import Strays

    try:
        places = Places(settings.segment_directory())
        found = Strays(places).count()
    except (ConfigurationError, OSError):
        return
    if found.files or found.objects:
        print(
            f"unknown to the database, kept for {settings.tiers.strays_kept_days} days: {found.files} files "
            f"({decimal(found.file_bytes)}) in {harmless(str(places.strays))}, {found.objects} objects"
        )


async def _status(settings: Settings) -> TierStatus:
    from store.tiers.status import tier_status

    async with opened_database(settings, "tier") as database:
        return await tier_status(
            database, settings.tiers, settings.retention_policy(), has_objects=settings.objects.url is not None
        )


def _print_status(found: TierStatus, settings: Settings) -> None:
    from rich.console import Console
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for heading in ("tier", "class", "pieces", "rows", "bytes", "oldest", "newest"):
        table.add_column(heading, justify="right" if heading in ("pieces", "rows", "bytes") else "left")
    for stock in found.stocks:
        table.add_row(*_cells(stock))
    Console(highlight=False, soft_wrap=True).print(table)
    print()
    due = [
        f"{found.tables_to_write} tables to write ({found.rows_to_write:,} rows)" if found.tables_to_write else "",
        f"{found.tables_to_switch} tables to let go" if found.tables_to_switch else "",
        f"{found.segments_to_cool} files for object storage" if found.segments_to_cool else "",
        f"{found.segments_past_age} files past their age" if found.segments_past_age else "",
        f"{found.segments_to_remove} retired files to remove" if found.segments_to_remove else "",
    ]
    print("due: " + (", ".join(filter(None, due)) or "nothing"))
    print(
        f"leads: {harmless(found.leader)} (epoch {found.epoch})"
        if found.leader
        else "leads: nobody (run `logfeed tier`)"
    )
    _print_strays(settings)
    if not settings.tiers.enabled:
        print("tiers.enabled is off: rows stay in tables")


def _cells(stock: Stock) -> list[str]:
    from rich.filesize import decimal

    from schemas.times import time_text

    times = [time_text(us)[:16] + "Z" if us is not None else "-" for us in (stock.oldest_us, stock.newest_us)]
    return [stock.tier, stock.retention_class, f"{stock.pieces:,}", f"{stock.rows:,}", decimal(stock.bytes), *times]


@app.command("run", cls=Command)
def run_command(
    config: ConfigOption = None,
    now: Annotated[
        bool,
        typer.Option(
            "--now", help="Take over from a running role for as long as it takes, instead of leaving it to that."
        ),
    ] = False,
) -> None:
    """Do everything that is due, at full speed, and end. Runs where the files are. Exit code 1: something failed."""
    settings = read_settings(config, "tier")
    with bars() as progress:
        done, failures = _run(_run_once(settings, progress, take_over=now))
    told = {
        "write": "tables written",
        "switch": "tables let go",
        "merge": "merges",
        "cold": "files moved to object storage",
        "expire": "files past their age",
        "collect": "files removed",
    }
    lines = [f"{done[step]} {text}" for step, text in told.items() if done.get(step)]
    print("\n".join(lines) or "nothing was due")
    if failures:
        print(f"{failures} pieces failed: see above", file=sys.stderr)
        raise typer.Exit(1)


async def _run_once(settings: Settings, progress: Progress, *, take_over: bool) -> tuple[dict[str, int], int]:
    """Step -> how many pieces were done; how many failed."""
    from cli.tier_role import leading
    from runtime.clock import SystemClock
    from store.tiers.timing import do_all

    async with leading(settings, take_over=take_over, progress=progress) as (database, tiering):
        done, refused = await do_all(tiering.steps, database, SystemClock())
        return done, refused + tiering.failures


@app.command(cls=Command)
def verify(
    config: ConfigOption = None,
    now: Annotated[
        bool,
        typer.Option(
            "--now", help="At full speed, instead of leaving room to others as moving rows does (tiers.busy_share)."
        ),
    ] = False,
) -> None:
    """Read every file and object again and compare each value with what was written. Exit code 1: something is damaged.

    Runs where the files are; objects are fetched one after the other. Changes nothing.
    """
    settings = read_settings(config, "tier")
    with bars() as progress:
        checked, lines, filters = _run(_verify(settings, progress, share=1.0 if now else settings.tiers.busy_share))
    for line in lines:
        print(harmless(line))
    for line in filters:
        print(harmless(line), file=sys.stderr)
    print(
        f"{checked} segments read, {len(lines)} damaged"
        if lines
        else f"{checked} segments read, all as they were written"
    )
    if lines:
        raise typer.Exit(1)


async def _verify(settings: Settings, progress: Progress, *, share: float) -> tuple[int, list[str], list[str]]:
    from cli.tier_role import object_store
    from runtime.stopping import Stop
    from store.disk_room import DiskRoom
    from store.tiers.cold import ObjectFiles
    from store.tiers.pace import Pace
    from store.tiers.places import Places
    from store.tiers.verifying import segments_to_verify, verified

    places = Places(settings.segment_directory())
    lines, filters = [], []
    room = DiskRoom(places.directory, settings.tiers.disk_free_bytes_min, setting="tiers.disk_free_bytes_min")
    async with opened_database(settings, "tier") as database:
        segments = await segments_to_verify(database)
        pace = Pace(database, settings.broker.topic, share=share, stop=Stop())
        store = object_store(settings)
        objects = None if store is None else ObjectFiles(places, store, None, room)
        total, done = sum(each.info.bytes for each in segments), 0
        try:
            async for verdict in verified(segments, places, objects, pace):
                done += verdict.segment.info.bytes
                progress("verify", "files", done, total)
                if verdict.problem is not None:
                    lines.append(f"{verdict.segment.name}: {verdict.problem}")
                if verdict.filter_problem is not None:
                    filters.append(
                        f"{verdict.segment.name}: searches by correlation id are slow: {verdict.filter_problem}"
                    )
        finally:
            if store is not None:
                await store.close()
    return len(segments), lines, filters


@app.command(cls=Command)
def restore(
    when: Annotated[
        str,
        typer.Argument(
            metavar="RANGE",
            help="FROM/TO or a day, such as 2026-01-31T12:00/2026-02-02 or 2026-01-31; with relative times `-- -90d/-60d`.",
        ),
    ],
    days: Annotated[int, typer.Option("--days", min=1, max=36_500, help="Days they stay on the local disk.")] = 7,
    config: ConfigOption = None,
) -> None:
    """Bring files of a time back from object storage to the local disk, where searching them is fast.

    Takes over from a running role for as long as it takes. Each file is verified before it is used. Exit code 1: some failed.
    """
    settings = read_settings(config, "tier")
    with bars() as progress:
        restored, problems = _run(_restore(settings, when, days, progress))
    for problem in problems:
        print(harmless(problem))
    print(
        f"{restored} files are on the local disk for {days} days"
        if restored
        else "no file of that time is in object storage"
    )
    if problems:
        raise typer.Exit(1)


async def _restore(settings: Settings, when: str, days: int, progress: Progress) -> tuple[int, list[str]]:
    from cli.tier_role import leading
    from schemas.errors import ConfigurationError, LogfeedError
    from store.steps import clock_us
    from store.tiers.catalogue import StaleEpoch
    from store.tiers.segments import SegmentState, Tier

    restored, problems = 0, []
    async with leading(settings, take_over=True, progress=progress) as (database, tiering):
        if tiering.cold is None:
            raise ConfigurationError("no object storage: set objects.url (LOGFEED_OBJECTS__URL=s3://bucket/prefix)")
        async with database.connection() as connection:
            now_us = await clock_us(connection)
        start_us, end_us = parse_range(when, now_us)
        found = [
            each
            for each in await tiering.catalogue.segments(SegmentState.SERVING)
            if each.tier is Tier.COLD and each.start_us < end_us and each.end_us > start_us
        ]
        for done, segment in enumerate(found, 1):
            try:
                restored += await tiering.cold.thaw(segment, warm_until_us=now_us + days * _DAY_US)
            except StaleEpoch:
                raise
            except (LogfeedError, OSError) as error:
                problems.append(f"{segment.name}: {error}")
            progress("restore", "files", done, len(found))
    return restored, problems


def parse_range(text: str, now_us: int) -> tuple[int, int]:
    """[start, end) in microseconds of FROM/TO, each as search.params.parse_time takes it, or of a day. Raises InvalidInput."""
    from schemas.errors import InvalidInput
    from search.params import ParameterError, parse_time

    start, slash, end = text.partition("/")
    try:
        start_us = parse_time(start, now_us, parameter="RANGE")
        end_us = parse_time(end, now_us, parameter="RANGE") if slash else start_us + _DAY_US
    except ParameterError as error:
        raise InvalidInput(str(error)) from error
    if start_us >= end_us:
        raise InvalidInput(f"RANGE must end after it begins, got {text!r:.100}")
    return start_us, end_us


@contextmanager
def bars() -> Iterator[Progress]:
    """One bar for what is being done, on a terminal; nothing elsewhere."""
    from rich.console import Console
    from rich.progress import Progress as Bars
    from rich.progress import TaskID

    console = Console(stderr=True, highlight=False)
    with Bars(console=console, transient=True, disable=not console.is_terminal) as bars:
        shown: dict[str, TaskID] = {}

        def show(step: str, what: str, done: int, total: int) -> None:
            if step not in shown:
                shown[step] = bars.add_task(step, total=total)
            bars.update(shown[step], description=f"{step} {harmless(what)[:60]}", completed=done, total=total)

        yield show


def _run(work: Coroutine[Any, Any, Any]) -> Any:  # Any: what the work says
    return asyncio.run(work)
