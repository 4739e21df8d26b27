"""The command `logfeed export`. Speaks HTTP only: it may run on any machine."""

from __future__ import annotations

import asyncio
import os
import sys
import time
from pathlib import Path
from typing import Annotated, Final

import typer

from cli.exporting.output import Compression, Format
from cli.exporting.progress import Screen, size_text
from cli.exporting.run import Export
from cli.exporting.state import ExportState, load
from cli.first_keys import FirstKey, api_key_for
from cli.http_client import URL_DEFAULT, URL_HELP, URL_VARIABLE, Refused, Unreachable, check_url, new_client
from cli.pages import QUESTION_STATUSES, explain, metadata_of, parameters_of
from runtime.clock import SystemClock
from schemas.errors import InvalidInput

EXIT_UNWRITABLE: Final = 1
EXIT_USAGE: Final = 2
EXIT_STOPPED: Final = 3
EXIT_INTERRUPTED: Final = 130
STANDARD_OUTPUT: Final = "-"

_WAIT_SHOWN_EVERY_S: Final = 5.0
_FORMATS: Final = {
    ".ndjson": Format.NDJSON,
    ".jsonl": Format.NDJSON,
    ".csv": Format.CSV,
    ".parquet": Format.PARQUET,
}
_COMPRESSIONS: Final = {".gz": Compression.GZIP, ".zst": Compression.ZSTD}


def export(
    query: Annotated[
        str | None,
        typer.Option("--query", metavar="QUERY", help="In the query language: timeout level:error, user.id:42."),
    ] = None,
    start_time: Annotated[
        str | None,
        typer.Option("--from", "--since", metavar="TIME", help="Not before: -2h, 2026-01-31T12:00Z."),
    ] = None,
    end_time: Annotated[str | None, typer.Option("--to", "--until", metavar="TIME", help="Before this time.")] = None,
    format: Annotated[
        Format | None,
        typer.Option(
            "--format", metavar="FORMAT", help="ndjson, csv or parquet; else by the file's name, else ndjson."
        ),
    ] = None,
    output: Annotated[
        str,
        typer.Option(
            "--output", "-o", metavar="FILE", help="Where to: .gz and .zst compress text; - is standard output."
        ),
    ] = STANDARD_OUTPUT,
    service: Annotated[
        list[str] | None,
        typer.Option("--service", "-s", metavar="NAME", help="Of this service, or NAME*; repeatable."),
    ] = None,
    level: Annotated[
        list[str] | None, typer.Option("--level", "-l", metavar="LEVEL", help="Of this level; repeatable.")
    ] = None,
    min_level: Annotated[str | None, typer.Option(metavar="LEVEL", help="Of this level or a graver one.")] = None,
    correlation_id: Annotated[
        str | None, typer.Option("--correlation-id", metavar="ID", help="With this correlation id.")
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option("--metadata", "-m", metavar="KEY=VALUE", help="With this metadata; repeatable."),
    ] = None,
    force: Annotated[bool, typer.Option("--force", help="Replace a file that is there.")] = False,
    restart: Annotated[
        bool, typer.Option("--restart", help="Forget an export into this file that was interrupted.")
    ] = False,
    give_up_after: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long to ask again when the server is busy or away.")
    ] = 300.0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only warnings and errors.")] = False,
    url: Annotated[str, typer.Option(envvar=URL_VARIABLE, metavar="URL", help=URL_HELP)] = URL_DEFAULT,
) -> None:
    """Write every log of a range to a file, the oldest first.

    Interrupt an export of ndjson or csv into a file when you like: the same
    command goes on where it stopped. One of parquet begins anew. A file bears
    its name once it is whole; until then it is FILE.tmp.

    [bold]Examples[/bold]
      logfeed export --from -1d -o day.parquet
      logfeed export --from 2026-01-01 --to 2026-02-01 -o january.ndjson.zst
      logfeed export --query 'timeout level:error' --format csv > errors.csv

    [bold]Exit codes[/bold]
      0    every log is written (there may be none)
      1    the output cannot be written
      2    the query or an option is not valid
      3    stopped before the end (no server, or it refuses); repeat to go on
      130  interrupted; repeat to go on
    """
    clock = SystemClock()
    path = None if output == STANDARD_OUTPUT else Path(output)
    screen = Screen(output, quiet=quiet, start=start_time, end=end_time, now_us=clock.now_us())
    try:
        parameters = parameters_of(
            query=query,
            start_time=start_time,
            end_time=end_time,
            service_name=service,
            level=level,
            min_level=min_level,
            correlation_id=correlation_id,
            order="asc",
        ) + metadata_of(metadata or [])
        asked = ExportState(check_url(url), parameters, *_kind(path, format))
        begun = _begun(path, asked, force=force, restart=restart)
    except InvalidInput as error:
        screen.warn(f"error: {error}")
        raise typer.Exit(EXIT_USAGE) from error
    code = _run(begun or asked, path, screen, clock, give_up_after_s=give_up_after)
    if code:
        raise typer.Exit(code)


def _kind(path: Path | None, format: Format | None) -> tuple[Format, Compression]:
    """What is written, by the file's name where it is not said. Raises InvalidInput."""
    suffixes = [] if path is None else [suffix.lower() for suffix in path.suffixes]
    compression = _COMPRESSIONS.get(suffixes[-1] if suffixes else "", Compression.NONE)
    inner = suffixes[:-1] if compression is not Compression.NONE else suffixes
    format = format or _FORMATS.get(inner[-1] if inner else "", Format.NDJSON)
    if format is Format.PARQUET and compression is not Compression.NONE:
        raise InvalidInput(f"{path}: a Parquet file is compressed in itself; name it without {suffixes[-1]}")
    if format is Format.PARQUET and path is None and sys.stdout.isatty():
        raise InvalidInput("a Parquet file is nothing for a terminal: name a file with -o")
    return format, compression


def _begun(path: Path | None, asked: ExportState, *, force: bool, restart: bool) -> ExportState | None:
    """The state of an export of this kind that was interrupted. Raises InvalidInput."""
    if path is None:
        return None
    if path.is_dir() or not path.absolute().parent.is_dir():
        raise InvalidInput(f"{path}: cannot be a file there")
    if path.exists() and not force:
        raise InvalidInput(f"{path} is there already; --force replaces it")
    try:
        return None if restart else load(path, asked)
    except OSError as error:
        raise InvalidInput(
            f"{path}: an earlier export cannot be read: {error.strerror}; --restart begins anew"
        ) from error


def _run(state: ExportState, path: Path | None, screen: Screen, clock: SystemClock, *, give_up_after_s: float) -> int:
    """The exit code."""
    begun_s, logs_before = time.monotonic(), state.logs
    if state.logs:
        screen.note(f"{path}: goes on after {state.logs:,} logs")
    try:
        job = Export(state, path)
    except OSError as error:
        screen.warn(f"error: {path}: cannot be written: {error.strerror}")
        return EXIT_UNWRITABLE
    try:
        with screen:
            asyncio.run(_walk(job, screen, clock, give_up_after_s=give_up_after_s))
    except KeyboardInterrupt:
        screen.warn(f"interrupted; {_how_to_go_on(job)}")
        return EXIT_INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at its end
        return EXIT_UNWRITABLE
    except Refused as refusal:
        screen.warn(f"error: {explain(refusal.problem, dict(state.parameters))}\n{_how_to_go_on(job)}")
        return EXIT_USAGE if refusal.problem.status in QUESTION_STATUSES else EXIT_STOPPED
    except Unreachable as error:
        screen.warn(f"error: {error}\n{_how_to_go_on(job)}")
        return EXIT_STOPPED
    except OSError as error:
        screen.warn(f"error: {path or 'standard output'}: cannot be written: {error.strerror}; {_how_to_go_on(job)}")
        return EXIT_UNWRITABLE
    seconds = max(time.monotonic() - begun_s, 0.001)
    rate = (state.logs - logs_before) / seconds
    screen.note(f"{state.logs:,} logs, {size_text(state.bytes)}; {seconds:.1f} s, {rate:,.0f} logs/s")
    return 0


async def _walk(job: Export, screen: Screen, clock: SystemClock, *, give_up_after_s: float) -> None:
    shown_s = float("-inf")

    def on_wait(reason: str, pause_s: float) -> None:
        nonlocal shown_s
        if clock.monotonic_s() - shown_s >= _WAIT_SHOWN_EVERY_S:
            shown_s = clock.monotonic_s()
            screen.note(f"waiting {pause_s:.1f} s: {reason}")

    def on_page(state: ExportState, written: int) -> None:
        screen.show(logs=state.logs, bytes=written, first=state.first, reached=state.reached)

    async with new_client(job.state.url, api_key=api_key_for(job.state.url, FirstKey.ADMIN)) as client:
        await job.run(client, clock=clock, give_up_after_s=give_up_after_s, on_wait=on_wait, on_page=on_page)


def _how_to_go_on(job: Export) -> str:
    logs = job.state.logs
    if job.stop():
        return f"{logs:,} logs are written: repeat the same command to go on (--restart begins anew)"
    return "the output is not complete; repeat the command to begin anew"
