"""`logfeed alerts test`: rules over stored logs (alerts/backtest.py), asked of the server page by page.

Holds one page. Severities are those of the levels' names, since pages show no more.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import msgspec
import typer

from cli.alert_client import JsonOption, KeyOption, UrlOption, asking, short
from cli.http_client import URL_DEFAULT
from cli.pages import Page
from cli.terminal import harmless, harmless_json
from schemas.errors import InvalidInput
from schemas.levels import parse_level
from schemas.record import Log

if TYPE_CHECKING:
    from collections.abc import Callable

    import httpx

    from alerts.backtest import Backtest
    from alerts.rules import RuleDocument

_GIVE_UP_S: Final = 60.0
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def backtest(
    path: Annotated[Path, typer.Argument(metavar="FILE", help="YAML file with rules, or a directory of them.")],
    since: Annotated[str, typer.Option("--since", metavar="TIME", help="From when: -7d, 2026-01-31T12:00Z.")] = "-7d",
    until: Annotated[str, typer.Option("--until", metavar="TIME", help="Up to when.")] = "now",
    rule: Annotated[str | None, typer.Option("--rule", metavar="NAME", help="Only this rule.")] = None,
    show: Annotated[int, typer.Option("--show", min=0, max=100_000, help="Decisions to print for each rule.")] = 50,
    as_json: JsonOption = False,
    config: Annotated[
        Path | None,
        typer.Option("--config", "-c", metavar="FILE", help="Settings, for how often would have been told."),
    ] = None,
    url: UrlOption = URL_DEFAULT,
    api_key: KeyOption = None,
) -> None:
    """Show when rules would have fired on stored logs, and how many messages would have come of it.

    Asks the server for the logs that each rule's query matches, oldest first, and holds none of them. Logs that came late
    count here.
    """
    from alerts.pacing import pace_of
    from alerts.rule_files import read_rules
    from cli.settings import load_settings
    from runtime.clock import SystemClock
    from search.params import ParameterError, parse_time

    now_us = SystemClock().now_us()
    try:
        start_us = parse_time(since, now_us, parameter="--since")
        end_us = parse_time(until, now_us, parameter="--until")
    except ParameterError as error:
        raise InvalidInput(str(error)) from error
    if start_us >= end_us:
        raise InvalidInput("--since must be before --until")
    documents = [document for document in read_rules(path) if rule in (None, document.name)]
    if not documents:
        raise InvalidInput(f"{path} has no rule {rule}" if rule else f"{path} has no rules")
    pace = pace_of(load_settings(config).alerts)
    for document in documents:
        backtest = _backtest(document, pace, start_us)

        async def run(client: httpx.AsyncClient, document: RuleDocument = document, tried: Backtest = backtest) -> None:
            await _walk(client, document, tried, start_us, end_us, show, as_json)

        asking(url, api_key, run)
        _print_tally(document, backtest, as_json)


def _backtest(document: RuleDocument, pace: Any, start_us: int) -> Backtest:  # a Pace
    from alerts.backtest import Backtest
    from alerts.rules import FILE_OWNER, Rule

    return Backtest(Rule(document, FILE_OWNER), pace=pace, start_us=start_us)


async def _walk(
    client: httpx.AsyncClient,
    document: RuleDocument,
    tried: Backtest,
    start_us: int,
    end_us: int,
    show: int,
    as_json: bool,
) -> None:
    from cli.pages import walk
    from runtime.clock import SystemClock
    from schemas.times import time_text

    parameters = [
        ("order", "asc"),
        ("start_time", time_text(start_us)),
        ("end_time", time_text(end_us)),
        ("query", document.query),
    ]
    printed = 0

    def tell(events: Iterator[Any]) -> None:
        nonlocal printed
        for event in events:
            line = _event_line(event, as_json)
            if line is not None and printed < show:
                printed += 1
                print(line)

    with _bar(document.name) as moved:
        pages = walk(
            client,
            parameters,
            read=_read_page,
            limit=None,
            cursor=None,
            clock=SystemClock(),
            give_up_after_s=_GIVE_UP_S,
            on_wait=lambda reason, pause_s: print(harmless(f"waiting {pause_s:.1f} s: {reason}"), file=sys.stderr),
        )
        async for page in pages:
            tell(tried.take(page.logs))
            if page.logs:
                moved((page.logs[-1].timestamp - start_us) / (end_us - start_us))
        tell(tried.advance(end_us))


def _event_line(event: Any, as_json: bool) -> str | None:  # a Decision or a Notification
    import orjson

    from alerts.evaluate import Decision
    from schemas.times import time_text

    if not isinstance(event, Decision):
        return None
    if as_json:
        shown = {
            "rule": event.rule,
            "state": event.state,
            "at": time_text(event.at_us),
            "started_at": time_text(event.started_us),
            "group": list(event.group),
            "value": event.value,
            "logs_in_window": event.count,
        }
        return harmless_json(orjson.dumps(shown).decode())
    groups = " ".join(event.group)
    return harmless(
        f"{short(time_text(event.at_us))}  {event.state:8}  {event.rule}  {groups}  value {event.value:.4g}"
    )


def _print_tally(document: RuleDocument, tried: Backtest, as_json: bool) -> None:
    import orjson

    tally = tried.tally
    told = tally.notifications
    if as_json:
        summary = {
            "rule": document.name,
            "logs": tally.logs,
            "fired": tally.firing,
            "resolved": tally.resolved,
            "messages": told.total(),
            "breaker_opened": told["breaker_opened"],
            "overflowed": tally.overflowed,
        }
        print(orjson.dumps(summary).decode())
        return
    storms = f", the breaker opened {told['breaker_opened']} times" if told["breaker_opened"] else ""
    print(
        f"{document.name}: {tally.logs:,} logs, fired {tally.firing} times, resolved {tally.resolved}; {told.total()} messages"
        f" to each channel{storms}"
    )
    if tally.overflowed:
        print(f"{document.name}: {tally.overflowed:,} logs were of more groups than groups_max ({document.groups_max})")


@contextmanager
def _bar(name: str) -> Iterator[Callable[[float], None]]:
    from rich.console import Console
    from rich.progress import Progress

    console = Console(stderr=True, highlight=False)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bars:
        task = bars.add_task(name, total=1.0)
        yield lambda share: bars.update(task, completed=share)


class _Shown(msgspec.Struct):
    """A log of a page (schemas/pages.py)."""

    id: str
    timestamp: str
    level: str
    service_name: str
    message: str
    correlation_id: str | None = None
    metadata: dict[str, Any] = {}  # JSON values


class _Page(msgspec.Struct):
    logs: list[_Shown]
    next_cursor: str | None
    scanned_to: str | None = None


_decode: Final = msgspec.json.Decoder(_Page).decode


def _read_page(content: bytes) -> Page[Log]:
    """Raises msgspec.MsgspecError or ValueError for what is no page. Severities are those of the levels' names."""
    page = _decode(content)
    return Page([_log(each) for each in page.logs], page.next_cursor, page.scanned_to)


def _log(shown: _Shown) -> Log:
    moment = datetime.fromisoformat(shown.timestamp)
    return Log(
        int(shown.id),
        (moment - _EPOCH) // timedelta(microseconds=1),
        parse_level(shown.level),
        shown.service_name,
        shown.message,
        shown.correlation_id,
        shown.metadata,
    )
