"""What the commands of `logfeed alerts` share: the server, and how it is asked."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Annotated, Any, Final, TypeVar

import typer

from cli.first_keys import KEY_HELP, FirstKey, api_key_for
from cli.http_client import URL_HELP, URL_VARIABLE, Problem, Refused, Unreachable, check_url, new_client
from cli.terminal import harmless

if TYPE_CHECKING:
    import httpx

UrlOption = Annotated[str, typer.Option("--url", envvar=URL_VARIABLE, metavar="URL", help=URL_HELP)]
KeyOption = Annotated[str | None, typer.Option("--api-key", metavar="KEY", help=KEY_HELP, show_default=False)]
JsonOption = Annotated[bool, typer.Option("--json", help="JSON lines.")]
_Answer = TypeVar("_Answer")
_PATH: Final = "/api/v1/alerts"


def asking(url: str, api_key: str | None, ask: Callable[[httpx.AsyncClient], Awaitable[_Answer]]) -> _Answer:
    """What `ask` says. Raises what it raises."""

    async def run() -> _Answer:
        address = check_url(url)
        async with new_client(address, api_key=api_key or api_key_for(address, FirstKey.ADMIN, os.environ)) as client:
            return await ask(client)

    return asyncio.run(run())


async def request(client: httpx.AsyncClient, method: str, path: str, **arguments: Any) -> Any:  # JSON values
    """The answer of /api/v1/alerts/…; None for an empty one. Raises Unreachable, Refused. arguments: of httpx."""
    import httpx
    import orjson

    try:
        response = await client.request(method, _PATH + path, **arguments)
    except httpx.TransportError as error:
        raise Unreachable(
            f"{client.base_url}: no connection (is the server running? `logfeed up` starts one)"
        ) from error
    if not response.is_success:
        raise Refused(Problem.read(response))
    return orjson.loads(response.content) if response.content else None


def short(time: str) -> str:
    """A time without its fraction, harmless."""
    return harmless(time[:19]) + "Z"
