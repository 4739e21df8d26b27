"""The command `logfeed canary`."""

from __future__ import annotations

import asyncio
import secrets
import sys
import time
from typing import TYPE_CHECKING, Annotated, Final

import typer
from rich.console import Console
from rich.text import Text

from cli.first_keys import FirstKey, api_key_for
from cli.http_client import URL_DEFAULT, URL_HELP, URL_VARIABLE, Refused, Unreachable, check_url, new_client
from cli.terminal import harmless
from schemas.errors import InvalidInput

if TYPE_CHECKING:
    from cli.canary.oracle import Verdict
    from cli.canary.probe import Plan, Probe
    from runtime.stopping import Stop

EXIT_NOT_OK: Final = 1
EXIT_USAGE: Final = 2
RATE_MAX: Final = 100.0
COUNT_MAX: Final = 1_000_000
_TOLD_AGAIN_S: Final = 60.0
_LINE_EVERY_S: Final = 60.0
_SHOWN_EVERY_S: Final = 1.0
_STOP_MARGIN_S: Final = 60.0


def canary(
    once: Annotated[
        int | None,
        typer.Option(
            "--once", min=1, max=COUNT_MAX, metavar="COUNT", help="Send so many logs, read them back, report, end."
        ),
    ] = None,
    for_: Annotated[
        str | None,
        typer.Option("--for", metavar="DURATION", help="Send for so long, 90s or 1h30m, then report and end."),
    ] = None,
    rate: Annotated[
        float, typer.Option(min=0.01, max=RATE_MAX, metavar="LOGS/s", help="Logs a second, at most.")
    ] = 1.0,
    lost_after: Annotated[
        float,
        typer.Option(
            min=1, max=86_400, metavar="SECONDS", help="What is not seen so long after its acknowledgement is lost."
        ),
    ] = 60.0,
    give_up_after: Annotated[
        float,
        typer.Option(min=0, metavar="SECONDS", help="How long a log is sent again when the server is busy or away."),
    ] = 30.0,
    tail: Annotated[bool, typer.Option("--tail/--no-tail", help="Read back by a tail, too (permission tail).")] = True,
    as_json: Annotated[bool, typer.Option("--json", help="The report as one line of JSON.")] = False,
    metrics_port: Annotated[
        int | None,
        typer.Option(min=1, max=65535, metavar="PORT", help="Serve /metrics, /livez and /readyz meanwhile."),
    ] = None,
    metrics_host: Annotated[
        str, typer.Option(metavar="ADDRESS", help="Address to serve these on; they need no key.")
    ] = "127.0.0.1",
    url: Annotated[str, typer.Option(envvar=URL_VARIABLE, metavar="URL", help=URL_HELP)] = URL_DEFAULT,
    ingest_url: Annotated[
        str | None, typer.Option(metavar="URL", help="Address of ingest, where it is another one.", show_default=False)
    ] = None,
) -> None:
    """Send numbered logs, read them back, and tell whether each is there exactly once, in order, and how soon.

    Goes on until Ctrl-C, unless told --once or --for. The logs are of the service logfeed/canary, one a request, each under an
    Idempotency-Key, every tenth request twice. The API key needs the permissions write, read and tail on that service.

    [bold]Examples[/bold]
      logfeed canary --once 100 --rate 20           is all well, after an upgrade or a restore?
      logfeed canary --metrics-port 9096            beside a deployment, for Prometheus
      logfeed canary --for 10m --json | jq .delays

    [bold]Exit codes[/bold]
      0  each acknowledged log was seen exactly once, nothing else was, and all were acknowledged
      1  not so; or no server, or it refuses
      2  an option is not valid
    """
    screen = Console(stderr=True, highlight=False)
    try:
        if once is not None and for_ is not None:
            raise InvalidInput("--once and --for each say when to end: give one of them")
        seconds = None if for_ is None else _duration(for_)
        base_url = check_url(url)
        send_url = base_url if ingest_url is None else check_url(ingest_url)
    except InvalidInput as error:
        _complain(screen, str(error))
        raise typer.Exit(EXIT_USAGE) from error
    from cli.canary.probe import Plan

    plan = Plan(
        run=secrets.token_hex(6),
        rate=rate,
        count=once,
        seconds=seconds,
        lost_after_s=lost_after,
        give_up_after_s=give_up_after,
    )
    watch = _Watch(screen, goes_on=once is None and for_ is None)
    metrics = None if metrics_port is None else (metrics_host, metrics_port)
    try:
        verdict = asyncio.run(_run(plan, watch, base_url, send_url, with_tail=tail, metrics=metrics))
    except Refused as refusal:
        _complain(screen, f"{refusal.problem.text}{_hint(refusal)}")
        raise typer.Exit(EXIT_NOT_OK) from refusal
    except Unreachable as error:
        _complain(screen, str(error))
        raise typer.Exit(EXIT_NOT_OK) from error
    from cli.canary.report import as_json as json_of
    from cli.canary.report import as_text

    problems = verdict.problems
    print((json_of if as_json else as_text)(plan.run, verdict, problems))
    sys.stdout.flush()
    if problems:
        raise typer.Exit(EXIT_NOT_OK)


async def _run(
    plan: Plan, watch: _Watch, url: str, send_url: str, *, with_tail: bool, metrics: tuple[str, int] | None
) -> Verdict:
    from cli.canary.metrics import DELAY
    from cli.canary.probe import Probe
    from runtime.clock import SystemClock
    from runtime.stopping import Stop, listen_for_signals

    stop, ended = Stop(), Stop()
    # What was sent is read back first; a second signal ends it at once.
    listen_for_signals(stop, ends_within_s=plan.lost_after_s + plan.give_up_after_s + _STOP_MARGIN_S)
    async with (
        new_client(send_url, api_key=api_key_for(send_url, FirstKey.INGEST)) as sending,
        new_client(url, api_key=api_key_for(url, FirstKey.ADMIN)) as asking,
    ):
        probe = Probe(
            plan,
            sending=sending,
            asking=asking,
            with_tail=with_tail,
            clock=SystemClock(),
            tell=watch.tell,
            on_delay=lambda way, seconds: DELAY.labels(way).observe(seconds),
        )
        beside = [asyncio.create_task(watch.watch(probe, ended))]
        if metrics is not None:
            beside.append(asyncio.create_task(_serve(*metrics, ended)))
        running = asyncio.create_task(probe.run(stop))
        try:
            # What ends beside it early has failed: the port is taken.
            await asyncio.wait({running, *beside}, return_when=asyncio.FIRST_COMPLETED)
            for task in beside:
                if task.done():
                    task.result()
            return await running
        finally:
            ended.set()
            running.cancel()
            await asyncio.gather(running, *beside, return_exceptions=True)


async def _serve(host: str, port: int, ended: Stop) -> None:
    from fastapi import APIRouter

    from cli.serving import serve_http
    from cli.settings import HttpSettings

    class Health:
        """See HttpService. A canary's work is to watch: it is ready whatever it sees."""

        router = APIRouter()

        def ready(self) -> list[str]:
            """See HttpService."""
            return []

    await serve_http(HttpSettings(host=host, port=port), [Health()], ended)


class _Watch:
    """What people and Prometheus are told meanwhile."""

    def __init__(self, screen: Console, *, goes_on: bool) -> None:
        self._screen = screen
        self._goes_on = goes_on
        self._told: dict[str, float] = {}

    def tell(self, text: str) -> None:
        """Something that people should know; the same again after a minute at the earliest."""
        now_s = time.monotonic()
        self._told = {each: at_s for each, at_s in self._told.items() if now_s - at_s < _TOLD_AGAIN_S}
        if text not in self._told:
            self._told[text] = now_s
            self._screen.print(Text(harmless(text), style="dim"), soft_wrap=True)

    async def watch(self, probe: Probe, ended: Stop) -> None:
        """Until it has ended."""
        from cli.canary.metrics import Shown
        from cli.canary.report import as_line

        shown, next_line_s = Shown(), time.monotonic() + _LINE_EVERY_S
        while True:
            has_ended = await ended.wait(_SHOWN_EVERY_S)
            verdict = probe.verdict()
            shown.update(verdict)
            if has_ended:
                return
            for problem in verdict.broken:
                self.tell(f"NOT OK: {problem}")
            if self._goes_on and time.monotonic() >= next_line_s:
                next_line_s += _LINE_EVERY_S
                self._screen.print(as_line(verdict), markup=False, soft_wrap=True)


def _duration(text: str) -> float:
    from alerts.durations import parse_duration

    try:
        seconds = parse_duration(text)
    except ValueError as error:
        raise InvalidInput(f"--for: {error}, got {text!r:.100}") from error
    if not seconds:
        raise InvalidInput("--for must be at least 1s")
    return float(seconds)


def _hint(refusal: Refused) -> str:
    if refusal.problem.status in (401, 403):
        return (
            "; a canary needs a key made by `logfeed keys create canary --write logfeed/canary --read logfeed/canary"
            " --tail logfeed/canary`, in LOGFEED_API_KEY"
        )
    return ""


def _complain(screen: Console, text: str) -> None:
    screen.print(Text(f"error: {harmless(text, keep_newlines=True)}", style="red"), soft_wrap=True)
