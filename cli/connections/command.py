"""The command `logfeed import-connections`. Speaks HTTP only: it may run on any machine that has the files.

Safe to repeat: the server stores of each text what is new. Some connections are under way at once; memory: their texts.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any, Final
from urllib.parse import quote

import httpx
import typer

from cli.connections.fetching import TextUnavailable, fetch, shown
from cli.connections.sources import Wanted, find_connections
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
from cli.importing.progress import Bar, Screen
from runtime.clock import SystemClock
from schemas.errors import LogfeedError

EXIT_REFUSED: Final = 1
EXIT_USAGE: Final = 2
EXIT_STOPPED: Final = 3
EXIT_INTERRUPTED: Final = 130
_PATH: Final = "/api/v1/connections"
_ANSWER_S: Final = 600.0
"""For a text of very many lines."""
_WAIT_SHOWN_EVERY_S: Final = 5.0
_ABOUT_THE_TEXT: Final = frozenset({409, 413, 422})
"""Statuses of refusals that are of one connection alone: others go on."""


class TimeChoice(StrEnum):
    """Which times lines get."""

    KEEP = "keep"
    SHIFT = "shift"


def import_connections(
    source: Annotated[
        Path,
        typer.Argument(
            metavar="DIRECTORY|MANIFEST",
            help="Directory with manifest.jsonl, or with files such as server1001.txt and client1001.txt; or a manifest.",
            show_default=False,
        ),
    ],
    time_choice: Annotated[
        TimeChoice,
        typer.Option(
            "--time",
            metavar="HOW",
            help="keep: the times in the texts. shift: moved, so that each connection was updated last just now.",
        ),
    ] = TimeChoice.KEEP,
    parallel: Annotated[int, typer.Option(metavar="N", min=1, max=16, help="Connections under way at once.")] = 2,
    give_up_after: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long to try again when the server does not take logs.")
    ] = 300.0,
    quiet: Annotated[bool, typer.Option("--quiet", "-q", help="Print only warnings and errors.")] = False,
    url: Annotated[str, typer.Option(envvar=URL_VARIABLE, metavar="URL", help=URL_HELP)] = URL_DEFAULT,
) -> None:
    """Import the server's and client's logs of connections.

    A manifest has a JSON object a line: connection_id, username, ip, version,
    last_updated, and server and client: a path, an http(s) or s3 address, or
    null. Interrupt it when you like: the same command goes on, and each line
    is stored once. When texts have grown since, it imports what is new.

    [bold]Examples[/bold]
      logfeed import-connections connections/
      logfeed import-connections manifest.jsonl --time shift

    [bold]Exit codes[/bold]
      0    every line is with the server
      1    some texts could not be read or were refused, all others are stored
      2    wrong usage, or a manifest that is not valid: nothing was sent
      3    stopped before the end (no server, or it refuses); repeat to go on
      130  interrupted; repeat to go on
    """
    screen = Screen(quiet=quiet)
    try:
        base_url = check_url(url)
        wanted = find_connections(source)
    except LogfeedError as error:
        screen.warn(f"error: {error}")
        raise typer.Exit(EXIT_USAGE) from error
    begun_s = time.monotonic()
    run = _Run(wanted, base_url, screen, shifts=time_choice is TimeChoice.SHIFT, give_up_after_s=give_up_after)
    try:
        with screen:
            asyncio.run(run.send_all(parallel))
    except KeyboardInterrupt:
        screen.warn(f"interrupted; {run.counts.text}: repeat the same command to go on")
        raise typer.Exit(EXIT_INTERRUPTED) from None
    except LogfeedError as error:
        screen.warn(f"error: {error}\n{run.counts.text}: repeat the same command to go on")
        raise typer.Exit(EXIT_STOPPED) from error
    screen.note(f"{run.counts.text}; {time.monotonic() - begun_s:.1f} s")
    if run.counts.failed:
        raise typer.Exit(EXIT_REFUSED)


@dataclass(slots=True)
class _Counts:
    connections: int = 0
    texts: int = 0
    lines: int = 0
    added: int = 0
    filtered: int = 0
    rejected: int = 0
    failed: int = 0

    @property
    def text(self) -> str:
        """One line for people."""
        return (
            f"{self.connections:,} connections, {self.texts:,} texts with {self.lines:,} lines: added {self.added:,},"
            f" filtered {self.filtered:,}, rejected {self.rejected:,}; {self.failed:,} texts or connections not taken"
        )


class _Run:
    """One import."""

    def __init__(
        self, wanted: list[Wanted], base_url: str, screen: Screen, *, shifts: bool, give_up_after_s: float
    ) -> None:
        self.counts = _Counts()
        self._wanted = wanted
        self._base_url = base_url
        self._screen = screen
        self._shifts = shifts
        self._give_up_after_s = give_up_after_s
        self._clock = SystemClock()
        self._shown_s = float("-inf")
        self._sent_bytes = 0

    async def send_all(self, parallel: int) -> None:
        """Raises Unreachable, Refused: of what concerns all connections."""
        sizes = sum(size for wanted in self._wanted for size in map(_size_of, wanted.texts.values()))
        bar = self._screen.bar(f"{len(self._wanted)} connections", total=sizes or None, done=0)
        waiting = iter(self._wanted)
        key = api_key_for(self._base_url, FirstKey.INGEST)
        async with new_client(self._base_url, connections=parallel, api_key=key) as client:
            client.timeout = httpx.Timeout(_ANSWER_S, connect=10.0)
            tasks = [asyncio.create_task(self._send_some(client, waiting, bar)) for _ in range(parallel)]
            try:
                await asyncio.gather(*tasks)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)
        bar.close()

    async def _send_some(self, client: httpx.AsyncClient, waiting: Iterator[Wanted], bar: Bar) -> None:
        for wanted in waiting:
            path = f"{_PATH}/{quote(wanted.connection_id, safe='')}"
            try:
                await self._put(client, path, json=wanted.details)
            except Refused as error:
                self._failed(wanted.connection_id, error)
                continue
            self.counts.connections += 1
            for side, place in wanted.texts.items():
                await self._send_text(client, f"{path}/logs/{side}", place)
                bar.show(done=self._sent_bytes, lines=f"{self.counts.lines:,} lines")

    async def _send_text(self, client: httpx.AsyncClient, path: str, place: str) -> None:
        try:
            text = await fetch(place)
            parameters = {"time": "shift"} if self._shifts else {}
            headers = {"Content-Type": "text/plain; charset=utf-8"}
            taken = await self._put(client, path, content=text, headers=headers, params=parameters)
        except (TextUnavailable, Refused) as error:
            self._failed(shown(place), error)
            return
        self._sent_bytes += len(text)
        counts = self.counts
        counts.texts += 1
        for name in ("lines", "added", "filtered", "rejected"):
            setattr(counts, name, getattr(counts, name) + int(taken[name]))
        if taken["rejected"]:
            self._screen.warn(f"{shown(place)}: the server rejected {taken['rejected']:,} lines")

    async def _put(self, client: httpx.AsyncClient, path: str, **arguments: Any) -> dict[str, Any]:  # of httpx
        response = await request_patiently(
            client,
            "PUT",
            path,
            clock=self._clock,
            give_up_after_s=self._give_up_after_s,
            on_wait=self._on_wait,
            **arguments,
        )
        if response.status_code not in (200, 201):
            raise Refused(Problem.read(response))
        try:
            document: dict[str, Any] = response.json()
        except ValueError as error:
            raise Unreachable(f"{self._base_url}: this is no Logfeed server") from error
        return document

    def _failed(self, what: str, error: LogfeedError) -> None:
        """Goes on, unless the next one would be refused as well."""
        if isinstance(error, Refused) and error.problem.status not in _ABOUT_THE_TEXT:
            raise error
        self.counts.failed += 1
        self._screen.warn(f"{what}: {error}" if isinstance(error, Refused) else str(error))

    def _on_wait(self, reason: str, pause_s: float) -> None:
        if self._clock.monotonic_s() - self._shown_s >= _WAIT_SHOWN_EVERY_S:
            self._shown_s = self._clock.monotonic_s()
            self._screen.note(f"waiting {pause_s:.1f} s: {reason}")


def _size_of(place: str) -> int:
    """Of a file; what is fetched is not known before."""
    try:
        return Path(place).stat().st_size
    except OSError:
        return 0
