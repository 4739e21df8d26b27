"""`logfeed hosts`: hosts that are heard of, and lines of files there, by the API."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import quote

import typer

from cli.alert_client import JsonOption, KeyOption, UrlOption, short
from cli.first_keys import FirstKey, api_key_for
from cli.http_client import URL_DEFAULT, Problem, Refused, Unreachable, check_url, new_client
from cli.terminal import harmless, harmless_json
from cli.usage import Command, Group

if TYPE_CHECKING:
    import httpx

EXIT_NOTHING: Final = 1
EXIT_QUESTION: Final = 2
EXIT_CUT: Final = 3
EXIT_INTERRUPTED: Final = 130

app = typer.Typer(cls=Group, help="Hosts whose agent is heard of, and the files there.")

_PATH: Final = "/api/v1/hosts"
_RECORD_BYTES_MAX: Final = 8 * 1024 * 1024
_PATIENCE_S: Final = 120.0
_QUESTION_STATUSES: Final = frozenset({400, 404, 422})
HostArgument = Annotated[str, typer.Argument(metavar="HOST", help="As `logfeed hosts` shows it.")]


@app.callback(invoke_without_command=True)
def hosts(
    context: typer.Context, as_json: JsonOption = False, url: UrlOption = URL_DEFAULT, api_key: KeyOption = None
) -> None:
    """List the hosts that have files of services that you may read: name, state, when last heard of, agent, services. Exit
    code 1 when there is none.

    [bold]Examples[/bold]
      logfeed hosts
      logfeed hosts files web-1
      logfeed hosts cat web-1 nginx/access.log -k timeout -n 20
    """
    if context.invoked_subcommand is None:
        found = asyncio.run(_Asking(url, api_key).listing("", "hosts"))
        _show(found, as_json, lambda host: f"{host['host']:30} {host['status']:4}  {_host_text(host)}")


@app.command(cls=Command)
def files(
    host: HostArgument, as_json: JsonOption = False, url: UrlOption = URL_DEFAULT, api_key: KeyOption = None
) -> None:
    """List the files of a host: bytes, when last written, service, name. Exit code 1 when there is none."""
    found = asyncio.run(_Asking(url, api_key).listing(f"/{quote(host, safe='')}/files", "files"))
    _show(found, as_json, _file_text)


@app.command(cls=Command)
def cat(
    host: HostArgument,
    name: Annotated[str, typer.Argument(metavar="NAME", help="The file, as `logfeed hosts files` shows it.")],
    keyword: Annotated[
        list[str] | None,
        typer.Option("--keyword", "-k", metavar="TEXT", help="Lines with this text; repeatable: with all of them."),
    ] = None,
    regex: Annotated[str | None, typer.Option("--regex", metavar="REGEX", help="Lines that match (RE2).")] = None,
    case: Annotated[bool, typer.Option("--case", help="Letters in the same case.")] = False,
    across_lines: Annotated[bool, typer.Option("--across-lines", help="Keywords may be in different lines.")] = False,
    lines: Annotated[
        int, typer.Option("-n", metavar="N", min=0, help="At most so many lines; with -f to begin with.")
    ] = 100,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with lines as they are written, until Ctrl-C.")
    ] = False,
    max_s: Annotated[int | None, typer.Option("--max-s", metavar="SECONDS", min=1, help="Most seconds.")] = None,
    as_json: JsonOption = False,
    url: UrlOption = URL_DEFAULT,
    api_key: KeyOption = None,
) -> None:
    """Show lines of a file on a host, the newest first; with --follow as they are written.

    [bold]Examples[/bold]
      logfeed hosts cat web-1 nginx/access.log -k ' 500 ' -n 20
      logfeed hosts cat web-1 nginx/access.log -f

    [bold]Exit codes[/bold]
      0    lines were found
      1    none was found
      2    there is no such host or file, or an option is not valid
      3    no server or host, or the answer was cut: standard error says why
      130  interrupted
    """
    asked = [("n", str(lines)), *(("keyword", text) for text in keyword or ())]
    asked += [] if regex is None else [("regex", regex)]
    asked += [] if max_s is None else [("max_s", str(max_s))]
    flags = {"case": case, "across_lines": across_lines, "follow": follow}
    asked += [(flag, "true") for flag, is_set in flags.items() if is_set]
    path = f"/{quote(host, safe='')}/files/{quote(name)}"
    try:
        code = asyncio.run(_print_lines(_Asking(url, api_key), path, asked, as_json=as_json, is_endless=follow))
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # the interpreter flushes once more at its end
        code = 0
    except Refused as refusal:
        print(f"error: {harmless(refusal.problem.text)}", file=sys.stderr)
        code = EXIT_QUESTION if refusal.problem.status in _QUESTION_STATUSES else EXIT_CUT
    except Unreachable as error:
        print(f"error: {harmless(str(error))}", file=sys.stderr)
        code = EXIT_CUT
    except KeyboardInterrupt:
        code = EXIT_INTERRUPTED
    if code:
        raise typer.Exit(code)


@app.command(cls=Command)
def forget(host: HostArgument, url: UrlOption = URL_DEFAULT, api_key: KeyOption = None) -> None:
    """Free a host's name for another key. Needs `admin` on all services. An agent that goes on registers it anew."""
    asyncio.run(_Asking(url, api_key).forget(host))
    print(f"{harmless(host)} forgotten")


def _show(found: list[dict[str, Any]], as_json: bool, text: Any) -> None:  # text: a function of one of them
    import orjson

    for each in found:
        print(harmless_json(orjson.dumps(each).decode()) if as_json else harmless(text(each)))
    if not found:
        raise typer.Exit(EXIT_NOTHING)


def _host_text(host: dict[str, Any]) -> str:
    return f"{short(host['last_seen'])}  {host['version']:10} {' '.join(host['services'])}"


def _file_text(file: dict[str, Any]) -> str:
    packed = f" ({file['compressed']})" if file["compressed"] else ""
    return f"{file['bytes']:>14}  {short(file['modified_at'])}  {file['service_name']:20} {file['name']}{packed}"


async def _print_lines(
    asking: _Asking, path: str, asked: list[tuple[str, str]], *, as_json: bool, is_endless: bool
) -> int:
    """The exit code."""
    import orjson

    shown = 0
    end: dict[str, Any] | None = None
    async with aclosing(asking.records(path, asked, is_endless=is_endless)) as records:
        async for record in records:
            end = record.get("end")
            if end is None:
                text = (
                    harmless_json(orjson.dumps(record).decode()) if as_json else harmless(str(record.get("line", "")))
                )
                sys.stdout.buffer.write(text.encode("utf-8", "backslashreplace") + b"\n")
                sys.stdout.buffer.flush()
                shown += 1
    status = "cut" if end is None else str(end.get("status"))
    is_short = status in ("deadline", "error", "cut") or (end is not None and end.get("error"))
    if is_short:
        reason = "the server's answer was cut" if end is None else str(end.get("error") or status)
        print(f"not all was looked at: {harmless(reason)}", file=sys.stderr)
    if status in ("error", "cut"):
        return EXIT_CUT
    return 0 if shown else EXIT_NOTHING


class _Asking:
    """One server."""

    def __init__(self, url: str, api_key: str | None) -> None:
        self._url = check_url(url)
        self._key = api_key or api_key_for(self._url, FirstKey.ADMIN, os.environ)

    async def listing(self, path: str, of: str) -> list[dict[str, Any]]:
        """All pages of a list. Raises Refused, Unreachable."""
        import orjson

        found: list[dict[str, Any]] = []
        asked: dict[str, str] = {}
        async with new_client(self._url, api_key=self._key) as client:
            while True:
                page = orjson.loads((await self._request(client, "GET", path, params=asked)).content)
                found += page[of]
                for error in page.get("errors", ()):
                    print(harmless(str(error)), file=sys.stderr)
                if page["next_cursor"] is None:
                    return found
                asked = {"cursor": page["next_cursor"]}

    async def forget(self, host: str) -> None:
        """Raises Refused, Unreachable."""
        async with new_client(self._url, api_key=self._key) as client:
            await self._request(client, "DELETE", f"/{quote(host, safe='')}")

    async def records(
        self, path: str, asked: list[tuple[str, str]], *, is_endless: bool
    ) -> AsyncGenerator[dict[str, Any], None]:
        """Each record of a file's answer. Raises Refused, Unreachable."""
        import httpx
        import orjson

        timeout = httpx.Timeout(10.0, read=None if is_endless else _PATIENCE_S)
        async with new_client(self._url, api_key=self._key) as client:
            parameters = httpx.QueryParams(tuple(asked))
            try:
                async with client.stream("GET", _PATH + path, params=parameters, timeout=timeout) as response:
                    if response.status_code != httpx.codes.OK:
                        await response.aread()
                        raise Refused(Problem.read(response))
                    rest = b""
                    async for piece in response.aiter_bytes():
                        *lines, rest = (rest + piece).split(b"\n")
                        for line in lines:
                            yield orjson.loads(line)
                        if len(rest) > _RECORD_BYTES_MAX:
                            raise Unreachable("the server answers with a record without end")
            except httpx.RemoteProtocolError:
                return  # without its end: the caller says so
            except httpx.TransportError as error:
                raise self._unreachable(error) from error
            except orjson.JSONDecodeError as error:
                raise Unreachable(f"{self._url}: what answers is no Logfeed: {error}") from error

    async def _request(
        self, client: httpx.AsyncClient, method: str, path: str, *, params: dict[str, str] | None = None
    ) -> httpx.Response:
        import httpx

        try:
            response = await client.request(method, _PATH + path, params=params)
        except httpx.TransportError as error:
            raise self._unreachable(error) from error
        if not response.is_success:
            raise Refused(Problem.read(response))
        return response

    def _unreachable(self, error: Exception) -> Unreachable:
        return Unreachable(f"{self._url}: {str(error) or type(error).__name__} (is the server running?)")
