"""The command `logfeed status`: what GET /api/v1/status says, as a screen."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Annotated, Final

import httpx
import msgspec
import typer
from rich.console import Console
from rich.text import Text

from cli.first_keys import FirstKey, api_key_for
from cli.http_client import (
    URL_DEFAULT,
    URL_HELP,
    URL_VARIABLE,
    Problem,
    Refused,
    Unreachable,
    check_url,
    new_client,
    request_patiently,
)
from cli.terminal import harmless
from runtime.clock import SystemClock
from schemas.errors import InvalidInput

PATH: Final = "/api/v1/status"
EXIT_UNREACHABLE: Final = 1
EXIT_USAGE: Final = 2
_CLEAR: Final = "\x1b[H\x1b[J"
_UNITS: Final = ("B", "KiB", "MiB", "GiB", "TiB")


Count = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Stock(msgspec.Struct):
    """See schemas/status.py, as the following; what a newer server says besides is passed over."""

    tier: str
    retention_class: str
    pieces: Count
    rows: Count
    bytes: Count
    oldest: str | None
    newest: str | None


class Partition(msgspec.Struct):
    """Of the broker."""

    partition: Count
    writer: str | None
    stored_offset: Count
    lag_records: Count | None
    stored_to: str | None
    halted: str | None


class Role(msgspec.Struct):
    """Of one process at a time."""

    name: str
    leader: str | None


class DeadLetters(msgspec.Struct):
    """Of a reason and a service."""

    reason: str
    service_name: str
    count: Count
    newest: str
    newest_id: str


class Replica(msgspec.Struct):
    """Of the database."""

    server: str
    problem: str | None
    behind_s: float | None


class Status(msgspec.Struct):
    """The answer."""

    tiers: list[Stock]
    due: dict[str, Count]
    partitions: list[Partition]
    writers: list[str]
    roles: list[Role]
    dead_letters: list[DeadLetters]
    replicas: list[Replica] = []


def status(
    as_json: Annotated[bool, typer.Option("--json", help="The answer as the API has it.")] = False,
    watch: Annotated[bool, typer.Option("--watch", "-w", help="Again and again, until Ctrl-C.")] = False,
    every: Annotated[float, typer.Option(min=0.5, metavar="SECONDS", help="With --watch: how often.")] = 2.0,
    give_up_after: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long to ask again when the server is busy or away.")
    ] = 10.0,
    url: Annotated[str, typer.Option(envvar=URL_VARIABLE, metavar="URL", help=URL_HELP)] = URL_DEFAULT,
) -> None:
    """Show how the installation stands: writers, partitions and how far they are behind, roles, tiers, dead letters.

    Asks a running query service (permission admin on all services). `logfeed doctor` looks from the machine itself, and judges.

    [bold]Exit codes[/bold]
      0    it answered
      1    no server, or it refuses
      2    an option is not valid
      130  interrupted
    """
    errors = Console(stderr=True, highlight=False)

    def show(content: bytes) -> None:
        if as_json:
            text = content.decode() + "\n"
        else:
            text = screen(_read(content), datetime.now(UTC))
            if watch and sys.stdout.isatty():
                text = _CLEAR + text
        sys.stdout.write(text)
        sys.stdout.flush()

    try:
        asyncio.run(_ask(check_url(url), show, every_s=every if watch else None, give_up_after_s=give_up_after))
    except InvalidInput as error:
        _complain(errors, str(error))
        raise typer.Exit(EXIT_USAGE) from error
    except (Refused, Unreachable) as error:
        _complain(errors, str(error))
        raise typer.Exit(EXIT_UNREACHABLE) from error


async def _ask(url: str, show: Callable[[bytes], None], *, every_s: float | None, give_up_after_s: float) -> None:
    async with new_client(url, api_key=api_key_for(url, FirstKey.ADMIN)) as client:
        while True:
            answer = await request_patiently(
                client,
                "GET",
                PATH,
                clock=SystemClock(),
                give_up_after_s=give_up_after_s,
                on_wait=lambda _reason, _pause_s: None,
            )
            if answer.status_code != httpx.codes.OK:
                raise Refused(Problem.read(answer))
            show(answer.content)
            if every_s is None:
                return
            await asyncio.sleep(every_s)


def _read(content: bytes) -> Status:
    try:
        return msgspec.json.decode(content, type=Status)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise Unreachable(f"the answer is not that of a Logfeed server ({error}): {content[:200]!r}") from error


def screen(found: Status, now: datetime) -> str:
    """Lines for people, with their ends. Whatever the answer holds, it takes these lines."""
    return "".join(harmless(line) + "\n" for part in _PARTS for line in part(found, now))


def _partitions(found: Status, now: datetime) -> Iterable[str]:
    known = [each.lag_records for each in found.partitions if each.lag_records is not None]
    lag = "the broker does not say how far they are behind" if not known else f"{_count(sum(known))} records behind"
    yield f"writers     {', '.join(found.writers) or 'NOBODY'}: {lag}"
    for each in found.partitions:
        behind = "?" if each.lag_records is None else _count(each.lag_records)
        ago = "" if each.stored_to is None else f", stored to {_ago(each.stored_to, now)} ago"
        yield (
            f"  partition {each.partition:<3} {each.writer or 'nobody':<20} {behind:>8} behind,"
            f" next offset {each.stored_offset}{ago}"
        )
        if each.halted is not None:
            yield f"    HALTED: {' '.join(each.halted.split())}"


def _roles(found: Status, _now: datetime) -> Iterable[str]:
    leaders = [f"{each.name}: {each.leader or 'NOBODY'}" for each in found.roles]
    yield f"roles       {', '.join(leaders) or 'none yet'}"


def _tiers(found: Status, _now: datetime) -> Iterable[str]:
    due = [f"{name.replace('_', ' ')}: {_count(number)}" for name, number in found.due.items() if number]
    yield f"tiers       due: {', '.join(due) or 'nothing'}"
    for each in found.tiers:
        span = f"{each.oldest[:16]} to {each.newest[:16]}" if each.oldest and each.newest else ""
        yield (
            f"  {each.tier:<7} {each.retention_class:<12} {each.pieces:>6} pieces {_count(each.rows):>10} rows"
            f" {_bytes(each.bytes):>10}  {span}".rstrip()
        )


def _dead(found: Status, _now: datetime) -> Iterable[str]:
    if not found.dead_letters:
        yield "dead        no lines were put aside"
        return
    yield f"dead        {_count(sum(each.count for each in found.dead_letters))} lines were put aside"
    for each in found.dead_letters:
        yield (
            f"  {each.count:>8} {each.reason:<12} {each.service_name or '-':<20} newest {each.newest[:19]}:"
            f" logfeed dead show {each.newest_id}"
        )


def _replicas(found: Status, _now: datetime) -> Iterable[str]:
    used = sum(each.problem is None for each in found.replicas)
    if found.replicas:
        yield f"replicas    {used} of {len(found.replicas)} answer questions"
    for each in found.replicas:
        behind = "" if each.behind_s is None else f", {each.behind_s:.0f} s behind"
        yield f"  {each.server:<28} {'answers' if each.problem is None else 'LEFT OUT: ' + each.problem}{behind}"


_PARTS: Final = (_partitions, _roles, _tiers, _dead, _replicas)


def _ago(time: str, now: datetime) -> str:
    try:
        seconds = (now - datetime.fromisoformat(time)).total_seconds()
    except (ValueError, TypeError, OverflowError):  # none, without a zone, or where the calendar ends
        return time
    if seconds < 120:
        return f"{max(0.0, seconds):.1f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def _count(number: int) -> str:
    return f"{number:,}"


def _bytes(number: float) -> str:
    for unit in _UNITS:
        if number < 1024 or unit == _UNITS[-1]:
            break
        number /= 1024
    return f"{number:.0f} {unit}" if unit == "B" else f"{number:.1f} {unit}"


def _complain(errors: Console, text: str) -> None:
    errors.print(Text(f"error: {harmless(text, keep_newlines=True)}", style="red"), soft_wrap=True)
