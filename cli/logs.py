"""The command `logfeed logs`: finds logs over HTTP and prints them, page after page.

Holds one page at a time. Pages follow `next_cursor`; only its absence is the end, an empty page is not.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import aclosing
from enum import StrEnum
from typing import Annotated, Any, Final

import msgspec
import orjson
import typer
from rich.console import Console
from rich.text import Text

from cli.first_keys import FirstKey, api_key_for
from cli.following import follow as follow_tail
from cli.http_client import (
    URL_DEFAULT,
    URL_HELP,
    URL_VARIABLE,
    Refused,
    Unreachable,
    check_url,
    new_client,
)
from cli.log_view import LineView
from cli.pages import QUESTION_STATUSES, Page, Parameters, explain, metadata_of, parameters_of, walk
from cli.terminal import harmless, harmless_json
from runtime.clock import SystemClock
from schemas.errors import InvalidInput

EXIT_NOTHING: Final = 1
EXIT_QUESTION: Final = 2
EXIT_UNREACHABLE: Final = 3
EXIT_INTERRUPTED: Final = 130


class Order(StrEnum):
    """Order by (timestamp, id)."""

    DESC = "desc"
    ASC = "asc"


def logs(
    query: Annotated[
        str | None,
        typer.Argument(
            metavar="QUERY",
            help='In the query language: timeout level:error, "two words", /regex/, user.id:42.',
            show_default=False,
        ),
    ] = None,
    service: Annotated[
        list[str] | None,
        typer.Option(
            "--service", "-s", metavar="NAME", help="Of this service, or NAME*; repeatable.", show_default=False
        ),
    ] = None,
    level: Annotated[
        list[str] | None,
        typer.Option("--level", "-l", metavar="LEVEL", help="Of this level; repeatable.", show_default=False),
    ] = None,
    min_level: Annotated[
        str | None, typer.Option(metavar="LEVEL", help="Of this level or a graver one.", show_default=False)
    ] = None,
    start_time: Annotated[
        str | None,
        typer.Option(
            "--start-time",
            "--since",
            metavar="TIME",
            help="Not before: -15m, -2h, 2026-01-31T12:00Z.",
            show_default=False,
        ),
    ] = None,
    end_time: Annotated[
        str | None, typer.Option("--end-time", "--until", metavar="TIME", help="Before this time.", show_default=False)
    ] = None,
    correlation_id: Annotated[
        str | None,
        typer.Option("--correlation-id", "-c", metavar="ID", help="With this correlation id.", show_default=False),
    ] = None,
    q: Annotated[
        str | None,
        typer.Option("--q", metavar="TEXT", help="Whose message holds this text, in any case.", show_default=False),
    ] = None,
    regex: Annotated[
        str | None, typer.Option(metavar="REGEX", help="Whose message matches.", show_default=False)
    ] = None,
    metadata: Annotated[
        list[str] | None,
        typer.Option(
            "--metadata", "-m", metavar="KEY=VALUE", help="With this metadata; repeatable.", show_default=False
        ),
    ] = None,
    order: Annotated[Order, typer.Option(metavar="ORDER", help="desc: newest first. asc: oldest first.")] = Order.DESC,
    limit: Annotated[
        int, typer.Option("--limit", "-n", metavar="N", min=1, help="At most so many logs, over all pages.")
    ] = 100,
    everything: Annotated[bool, typer.Option("--all", help="All of them, however many.")] = False,
    follow: Annotated[
        bool,
        typer.Option("--follow", "-f", help="Then go on with what comes in, until Ctrl-C; oldest first."),
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines, as the API has them.")] = False,
    utc: Annotated[bool, typer.Option("--utc", help="Times in UTC instead of this machine's zone.")] = False,
    give_up_after: Annotated[
        float, typer.Option(min=0, metavar="SECONDS", help="How long to ask again when the server is busy or away.")
    ] = 30.0,
    url: Annotated[str, typer.Option(envvar=URL_VARIABLE, metavar="URL", help=URL_HELP)] = URL_DEFAULT,
) -> None:
    """Find logs and print them. All filters given must hold.

    [bold]Examples[/bold]
      logfeed logs                                   the newest 100
      logfeed logs 'timeout level:error' --since -1h
      logfeed logs -c 4bf92f3577b34da6 --order asc   one request, across services
      logfeed logs -s payments --all --json | jq .message
      logfeed logs -f 'level>=warn'                  the newest 100, then what comes in
      logfeed logs -- '-level:debug'                 a query that begins with -

    [bold]Exit codes[/bold]
      0    logs were found
      1    none was found
      2    the query or an option is not valid
      3    no server, or it refuses
      130  interrupted
    """
    screen = Console(stderr=True, highlight=False)
    try:
        if follow:
            _check_follow(end_time=end_time, everything=everything, order=order)
        base_url = check_url(url)
        parameters = parameters_of(
            query=query,
            service_name=service,
            level=level,
            min_level=min_level,
            start_time=start_time,
            end_time=end_time,
            correlation_id=correlation_id,
            q=q,
            regex=regex,
            order=order.value,
        ) + metadata_of(metadata or [])
    except InvalidInput as error:
        _complain(screen, str(error))
        raise typer.Exit(EXIT_QUESTION) from error
    found = _Printer(as_json=as_json, utc=utc)
    if follow:
        raise typer.Exit(_follow(found, screen, base_url, parameters, limit=limit, give_up_after_s=give_up_after))
    code = _print_all(
        found, screen, base_url, parameters, limit=None if everything else limit, give_up_after_s=give_up_after
    )
    if code:
        raise typer.Exit(code)


def _check_follow(*, end_time: str | None, everything: bool, order: Order) -> None:
    """Raises InvalidInput for what does not go together."""
    if end_time is not None:
        raise InvalidInput("--follow has no end: leave out --end-time")
    if everything:
        raise InvalidInput("--follow begins with the newest --limit logs: leave out --all")
    if order is not Order.DESC:
        raise InvalidInput("--follow shows the newest logs, oldest first: leave out --order")


class _Printer:
    """Writes logs to standard output."""

    def __init__(self, *, as_json: bool, utc: bool) -> None:
        console = Console(highlight=False)
        self._view = None if as_json else LineView(colour=console.is_terminal and not console.no_color, utc=utc)
        self.printed = 0

    def page(self, logs: list[dict[str, Any]]) -> None:
        """JSON objects of a page."""
        view = self._view
        lines = (harmless_json(orjson.dumps(log).decode()) if view is None else view.line(log) for log in logs)
        text = "".join(line + "\n" for line in lines)
        sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace"))
        sys.stdout.buffer.flush()
        self.printed += len(logs)


def _print_all(
    printer: _Printer,
    screen: Console,
    base_url: str,
    parameters: Parameters,
    *,
    limit: int | None,
    give_up_after_s: float,
) -> int:
    """The exit code."""

    async def run() -> None:
        async for page in _pages(base_url, parameters, screen, limit=limit, give_up_after_s=give_up_after_s):
            printer.page(page)

    try:
        asyncio.run(run())
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at its end
        return 0
    except Refused as refusal:
        _complain(screen, explain(refusal.problem, dict(parameters)))
        return EXIT_QUESTION if refusal.problem.status in QUESTION_STATUSES else EXIT_UNREACHABLE
    except Unreachable as error:
        _complain(screen, str(error))
        return EXIT_UNREACHABLE
    except InvalidInput as error:
        _complain(screen, str(error))
        return EXIT_QUESTION
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    if printer.printed:
        return 0
    if screen.is_terminal:
        screen.print("no logs found", style="dim")
    return EXIT_NOTHING


def _follow(
    printer: _Printer, screen: Console, base_url: str, parameters: Parameters, *, limit: int, give_up_after_s: float
) -> int:
    """The newest logs, then what comes after them. The exit code."""

    def on_wait(reason: str, pause_s: float) -> None:
        screen.print(Text(f"waiting {pause_s:.1f} s: {harmless(reason)}", style="dim"), soft_wrap=True)

    async def run() -> None:
        clock = SystemClock()
        async with new_client(base_url, api_key=api_key_for(base_url, FirstKey.ADMIN)) as client:
            newest: list[dict[str, Any]] = []
            token = None
            async for page in walk(
                client,
                parameters,
                read=_read,
                limit=limit,
                cursor=None,
                clock=clock,
                give_up_after_s=give_up_after_s,
                on_wait=on_wait,
            ):
                token = token or page.tail
                newest += page.logs
            printer.page(newest[::-1])
            if token is None:
                raise Unreachable("the server does not say where to follow from: it is older than this program")
            # The order of pages is none of a tail's business.
            asked = [(name, value) for name, value in parameters if name != "order"]
            following = follow_tail(client, asked, token, clock=clock, give_up_after_s=give_up_after_s, on_wait=on_wait)
            async with aclosing(following) as messages:
                async for message in messages:
                    if message.gap is not None:
                        where = harmless(str(message.gap.get("query", "")))
                        screen.print(Text(f"logs are missing here; pages have them: {where}", style="yellow"))
                    if message.skipped:
                        screen.print(Text(f"{message.skipped} logs were skipped", style="yellow"))
                    printer.page(message.logs)

    try:
        asyncio.run(run())
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except Refused as refusal:
        _complain(screen, explain(refusal.problem, dict(parameters)))
        return EXIT_QUESTION if refusal.problem.status in QUESTION_STATUSES else EXIT_UNREACHABLE
    except Unreachable as error:
        _complain(screen, str(error))
        return EXIT_UNREACHABLE
    except KeyboardInterrupt:
        return EXIT_INTERRUPTED
    return 0


async def _pages(
    base_url: str, parameters: Parameters, screen: Console, *, limit: int | None, give_up_after_s: float
) -> AsyncIterator[list[dict[str, Any]]]:
    """The logs of each page. Raises Unreachable, Refused."""
    with screen.status("searching …") as status:

        def on_wait(reason: str, pause_s: float) -> None:
            status.update(Text(f"waiting {pause_s:.1f} s: {harmless(reason)}"))

        async with new_client(base_url, api_key=api_key_for(base_url, FirstKey.ADMIN)) as client:
            pages = walk(
                client,
                parameters,
                read=_read,
                limit=limit,
                cursor=None,
                clock=SystemClock(),
                give_up_after_s=give_up_after_s,
                on_wait=on_wait,
            )
            async for page in pages:
                status.stop()
                yield page.logs
                if page.next_cursor is not None:
                    status.start()
                    status.update(Text(f"searching … {harmless(page.scanned_to or '')}"))


def _read(content: bytes) -> Page[dict[str, Any]]:
    return msgspec.convert(orjson.loads(content), Page[dict[str, Any]])


def _complain(screen: Console, text: str) -> None:
    screen.print(Text(f"error: {harmless(text, keep_newlines=True)}", style="red"), soft_wrap=True)
