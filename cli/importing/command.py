"""The command `logfeed import`. Speaks HTTP only: it may run on any machine that has the files."""

from __future__ import annotations

import asyncio
import os
import secrets
import time
from pathlib import Path
from typing import Annotated, Final
from zoneinfo import ZoneInfo

import typer

from cli.first_keys import FirstKey, api_key_for
from cli.http_client import URL_DEFAULT, URL_HELP, URL_VARIABLE, Refused, Unreachable, check_url, new_client
from cli.importing.prepare import Choices, Job, prepare
from cli.importing.progress import Bar, Screen
from cli.importing.run import FileImport, Rejects
from cli.importing.sending import Sender
from cli.importing.sources import STANDARD_INPUT, Kind, Source
from cli.importing.state import Counts, Options, default_path
from cli.importing.timeline import RETENTION_DAYS_DEFAULT, TimeMode
from formats.lines import Format, compile_correlation
from runtime.clock import SystemClock
from schemas.errors import InvalidInput, LogfeedError
from schemas.record import SERVICE_NAME_CHARS_MAX, is_service_name

EXIT_REJECTED: Final = 1
EXIT_USAGE: Final = 2
EXIT_STOPPED: Final = 3
EXIT_INTERRUPTED: Final = 130

_WAIT_SHOWN_EVERY_S: Final = 5.0


def import_logs(
    files: Annotated[
        list[str],
        typer.Argument(
            metavar="FILE", help="Files to import, also .gz and .zst; - is standard input.", show_default=False
        ),
    ],
    service: Annotated[
        str | None,
        typer.Option(
            "--service", "-s", metavar="NAME", help="Service of lines that name none (needed for plain text)."
        ),
    ] = None,
    time_mode: Annotated[
        TimeMode,
        typer.Option(
            "--time",
            metavar="HOW",
            help="keep: the times in the file. shift: all times move so that the file's newest line is now."
            " now: the moment of the import.",
        ),
    ] = TimeMode.KEEP,
    format: Annotated[
        Format,
        typer.Option(
            "--format", metavar="FORMAT", help="plain, json or pipe: what the lines are. auto: as the first ones look."
        ),
    ] = Format.AUTO,
    zone: Annotated[
        str, typer.Option("--tz", metavar="ZONE", help="Time zone of times that name none, such as Europe/Berlin.")
    ] = "UTC",
    no_join: Annotated[
        bool, typer.Option("--no-join", help="Every line is a log, also stack traces and indented ones.")
    ] = False,
    together: Annotated[
        bool, typer.Option("--together", help="With --time shift: one shift for all files, so that they stay in step.")
    ] = False,
    correlation_pattern: Annotated[
        str | None,
        typer.Option(
            metavar="REGEX",
            help="Where a line's correlation id is: first group, RE2 syntax."
            " Without it: req-UUID, trace_id=…, request_id=…, correlation_id=….",
            show_default=False,
        ),
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            "--metadata", "-m", metavar="KEY=VALUE", help="Metadata for every log; repeatable.", show_default=False
        ),
    ] = None,
    retention_days: Annotated[
        int,
        typer.Option(
            min=1,
            metavar="DAYS",
            help="The server's ingest.retention_days: older lines are refused before anything is sent.",
        ),
    ] = RETENTION_DAYS_DEFAULT,
    state: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Where the import remembers how far it came, for one file; else under ~/.local/state/logfeed.",
            show_default=False,
        ),
    ] = None,
    restart: Annotated[
        bool,
        typer.Option("--restart", help="Forget an earlier import of the file: everything is sent and stored again."),
    ] = False,
    rejects: Annotated[
        Path | None,
        typer.Option(
            metavar="FILE",
            help="Append rejected logs with line numbers and reasons, as JSON lines.",
            show_default=False,
        ),
    ] = None,
    parallel: Annotated[int, typer.Option(metavar="REQUESTS", min=1, max=32, help="Requests in flight.")] = 4,
    give_up_after: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long to try again when the server does not take logs.")
    ] = 300.0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only warnings and errors.")] = False,
    url: Annotated[str, typer.Option(envvar=URL_VARIABLE, metavar="URL", help=URL_HELP)] = URL_DEFAULT,
) -> None:
    """Import log files: plain text, JSON lines, or columns separated by "|".

    Time and level of each line are found by themselves. Interrupt the import
    when you like: the same command goes on where it stopped, and each line is
    stored once. When the file has grown since, it imports what is new.

    [bold]Examples[/bold]
      logfeed import app.log --service shop
      logfeed import old/*.log.gz --service shop --time shift
      logfeed import events.jsonl
      zcat old.gz | logfeed import - --service shop

    [bold]Exit codes[/bold]
      0    every line is with the server (accepted, or dropped by its filters)
      1    some lines were rejected, all others are stored
      2    wrong usage, unreadable file, or lines past the retention
      3    stopped before the end (no server, or it refuses); repeat to go on
      130  interrupted; repeat to go on
    """
    screen = Screen(quiet=quiet)
    try:
        base_url = check_url(url)
        options = _options(service, time_mode, zone, format, not no_join, correlation_pattern, metadata or [])
        choices = Choices(options, base_url, restart, together, retention_days)
        sources = _open_sources(files, state, base_url, service)
        with screen:
            jobs = _prepare(sources, choices, screen)
        rejects_to = Rejects(screen, rejects)
    except LogfeedError as error:
        screen.warn(f"error: {error}")
        raise typer.Exit(EXIT_USAGE) from error
    code = _run(jobs, base_url, screen, rejects_to, parallel=parallel, give_up_after_s=give_up_after)
    if code:
        raise typer.Exit(code)


def _options(
    service: str | None,
    time_mode: TimeMode,
    zone: str,
    format: Format,
    join: bool,
    correlation_pattern: str | None,
    metadata: list[str],
) -> Options:
    """The checked options. Raises InvalidInput."""
    if service is not None and not is_service_name(service):
        raise InvalidInput(
            f"--service must be 1..{SERVICE_NAME_CHARS_MAX} ASCII letters, digits and . _ - / , got {service!r}"
        )
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError) as error:
        raise InvalidInput(
            f"--tz: there is no time zone {zone!r}; expected a name such as UTC or Europe/Berlin"
        ) from error
    if correlation_pattern is not None:
        compile_correlation(correlation_pattern)
    pairs: dict[str, str] = {}
    for pair in metadata:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise InvalidInput(f"--metadata must be KEY=VALUE, got {pair!r}")
        pairs[key] = value
    return Options(service, time_mode, zone, format.value, join, correlation_pattern, dict(sorted(pairs.items())))


def _open_sources(
    files: list[str], state: Path | None, base_url: str, service: str | None
) -> list[tuple[Source, Path | None]]:
    """Each source with the place of its state. Raises InvalidInput or SourceError."""
    if state is not None and len(files) > 1:
        raise InvalidInput("--state is for one file; without it each file has a state of its own")
    if len(set(files)) < len(files):
        raise InvalidInput("a file is named twice")
    found: list[tuple[Source, Path | None]] = []
    for name in files:
        source = Source(name)
        if source.path is None and state is not None:
            raise InvalidInput(f"--state: an import from standard input ({STANDARD_INPUT}) cannot be resumed")
        path = None if source.path is None else state or default_path(source.path, base_url, service, os.environ)
        found.append((source, path))
    return found


def _prepare(sources: list[tuple[Source, Path | None]], choices: Choices, screen: Screen) -> list[Job]:
    bars: dict[str, Bar] = {}

    def scanning(source: Source, done: int) -> None:
        if source.name not in bars:
            bars[source.name] = screen.bar(f"{source.name}: looking for the newest line", total=source.size, done=done)
        bars[source.name].show(done=done)

    now_us = SystemClock().now_us()
    jobs = prepare(sources, choices, now_us=now_us, salt=secrets.token_hex(8), scanning=scanning)
    for bar in bars.values():
        bar.close()
    return jobs


def _run(
    jobs: list[Job], base_url: str, screen: Screen, rejects: Rejects, *, parallel: int, give_up_after_s: float
) -> int:
    """Import the files one after the other; the exit code."""
    begun_s = time.monotonic()
    lines_before = sum(job.state.counts.lines for job in jobs)
    try:
        with screen:
            asyncio.run(_send_all(jobs, base_url, screen, rejects, parallel=parallel, give_up_after_s=give_up_after_s))
    except KeyboardInterrupt:
        screen.warn(f"interrupted; {_how_to_go_on(jobs)}")
        return EXIT_INTERRUPTED
    except (Unreachable, Refused, LogfeedError) as error:
        screen.warn(f"error: {error}\n{_how_to_go_on(jobs)}")
        return EXIT_STOPPED
    finally:
        rejects.close()
    total = _sum(jobs)
    seconds = max(time.monotonic() - begun_s, 0.001)
    screen.note(_summary(jobs, total, lines_before=lines_before, seconds=seconds))
    return EXIT_REJECTED if total.rejected else 0


async def _send_all(
    jobs: list[Job], base_url: str, screen: Screen, rejects: Rejects, *, parallel: int, give_up_after_s: float
) -> None:
    clock = SystemClock()
    shown_s = float("-inf")

    def on_wait(reason: str, pause_s: float) -> None:
        nonlocal shown_s
        if clock.monotonic_s() - shown_s >= _WAIT_SHOWN_EVERY_S:
            shown_s = clock.monotonic_s()
            screen.note(f"waiting {pause_s:.1f} s: {reason}")

    async with new_client(base_url, connections=parallel, api_key=api_key_for(base_url, FirstKey.INGEST)) as client:
        sender = Sender(client, clock, give_up_after_s=give_up_after_s, on_wait=on_wait)
        for job in jobs:
            for note in job.notes:
                screen.warn(note)
            if job.state.is_finished:
                screen.note(f"{job.source.name}: {_nothing_left(job)}")
                continue
            if job.state.counts.lines:
                screen.note(f"{job.source.name}: goes on after {job.state.counts.lines:,} lines")
            await FileImport(job, sender=sender, screen=screen, rejects=rejects, clock=clock, parallel=parallel).run()


def _nothing_left(job: Job) -> str:
    if job.source.kind is Kind.FILE and not job.source.size:
        return "is empty"
    return "was imported before and has not grown; --restart imports it anew"


def _how_to_go_on(jobs: list[Job]) -> str:
    if any(not job.source.resumable for job in jobs):
        return "an import from standard input cannot go on; lines sent so far are stored"
    left = sum(not job.state.is_finished for job in jobs)
    total = _sum(jobs)
    done = f"{total.lines:,} lines are with the server, {left} of {len(jobs)} files not complete"
    return f"{done}: repeat the same command to go on"


def _sum(jobs: list[Job]) -> Counts:
    each = [job.state.counts for job in jobs]
    return Counts(*(sum(getattr(counts, name) for counts in each) for name in Counts.__struct_fields__))


def _summary(jobs: list[Job], total: Counts, *, lines_before: int, seconds: float) -> str:
    files = f"{len(jobs)} files: " if len(jobs) > 1 else ""
    earlier = f", {lines_before:,} of the lines in earlier runs" if lines_before else ""
    rate = (total.lines - lines_before) / seconds
    return (
        f"{files}read {total.lines:,} lines as {total.read:,} logs: accepted {total.accepted:,}, filtered {total.filtered:,},"
        f" rejected {total.rejected:,}; {seconds:.1f} s, {rate:,.0f} lines/s{earlier}"
    )
