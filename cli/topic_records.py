"""`logfeed topics list` and `logfeed topics read`: derived topics by the API."""

from __future__ import annotations

import asyncio
import os
import sys
from typing import Annotated, Any, Final
from urllib.parse import quote

import typer

from cli.alert_client import JsonOption, KeyOption, UrlOption
from cli.first_keys import FirstKey, api_key_for
from cli.http_client import URL_DEFAULT, Problem, Refused, check_url, new_client, request_patiently
from cli.log_view import LineView
from cli.terminal import harmless, harmless_json

_PATH: Final = "/api/v1/topics"
_WAIT_S: Final = 20.0
_GIVE_UP_S: Final = 300.0
_PAGE: Final = 1_000
_IDS_MAX: Final = 100_000
_GONE: Final = 410


def list_topics(as_json: JsonOption = False, url: UrlOption = URL_DEFAULT, api_key: KeyOption = None) -> None:
    """Show the derived topics that you may read, and how many records each has. Exit code 1 when there is none."""
    import orjson

    found = asyncio.run(_Asking(url, api_key).listing())
    for topic in found:
        records = sum(each["next_offset"] - each["first_offset"] for each in topic["partitions"])
        line = f"{topic['name']:40} {topic['kind']:8} {records:>10} records  {topic['description']}"
        print(harmless_json(orjson.dumps(topic).decode()) if as_json else harmless(line))
    if not found:
        raise typer.Exit(1)


def read_topic(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The topic: logs.errors.")],
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on with what comes, until Ctrl-C.")] = False,
    after: Annotated[
        str, typer.Option("--after", metavar="PLACE", help="A place that was told before, or `now`; else the oldest.")
    ] = "",
    as_json: JsonOption = False,
    utc: Annotated[bool, typer.Option("--utc", help="Times in UTC.")] = False,
    url: UrlOption = URL_DEFAULT,
    api_key: KeyOption = None,
) -> None:
    """Show the records of a derived topic, oldest first; then, on standard error, the place behind the last one.

    A log that comes again is left out. Records that are past their retention are told, and passed over.

    [bold]Examples[/bold]
      logfeed topics read logs.errors
      logfeed topics read logs.errors --after now --follow
    """
    import orjson

    view = LineView(colour=sys.stdout.isatty() and "NO_COLOR" not in os.environ, utc=utc)

    def show(log: dict[str, Any]) -> None:
        print(harmless_json(orjson.dumps(log).decode()) if as_json else view.line(log), flush=follow)

    asking = _Asking(url, api_key)
    try:
        asyncio.run(asking.read(name, after, follow=follow, show=show))
    finally:
        if asking.place:
            print(f"go on with --after {harmless(asking.place)}", file=sys.stderr)


class _Asking:
    """One server."""

    def __init__(self, url: str, api_key: str | None) -> None:
        self._url = check_url(url)
        self._key = api_key or api_key_for(self._url, FirstKey.ADMIN, os.environ)
        self.place = ""

    async def listing(self) -> list[dict[str, Any]]:
        """Topics as the API lists them."""
        topics: list[dict[str, Any]] = (await self._get(_PATH, {}))["topics"]
        return topics

    async def read(self, name: str, after: str, *, follow: bool, show: Any) -> None:  # a function of a log
        """Show records until there are no more, or for ever."""
        seen: dict[str, None] = {}
        path = f"{_PATH}/{quote(name, safe='')}/records"
        while True:
            asked = {"after": after, "limit": _PAGE, "wait": _WAIT_S if follow else 0}
            page = await self._get(path, asked)
            for record in page.get("records", ()):
                log = record["log"]
                if log["id"] not in seen:
                    seen[log["id"]] = None
                    show(log)
            while len(seen) > _IDS_MAX:
                del seen[next(iter(seen))]
            is_end = "records" in page and page["next"] == after
            after = self.place = page["next"]
            if is_end and not follow:
                return

    async def _get(self, path: str, parameters: dict[str, Any]) -> dict[str, Any]:
        """The answer, or the problem of a gap. Raises Refused, Unreachable."""
        import orjson

        from runtime.clock import SystemClock

        async with new_client(self._url, api_key=self._key) as client:
            response = await request_patiently(
                client,
                "GET",
                path,
                clock=SystemClock(),
                give_up_after_s=_GIVE_UP_S,
                on_wait=lambda reason, pause_s: print(f"{harmless(reason)}: again in {pause_s:.1f} s", file=sys.stderr),
                params=parameters,
            )
        problem = Problem.read(response)
        if response.status_code == _GONE:
            print(harmless(problem.text), file=sys.stderr)
        elif not response.is_success:
            raise Refused(problem)
        found: dict[str, Any] = orjson.loads(response.content)
        return found
