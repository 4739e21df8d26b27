"""One request to the server, and its answer: bounded in bytes and in time, whatever answers there."""

from __future__ import annotations

import asyncio
from typing import Any, Final, NamedTuple

import httpx

from schemas.errors import LogfeedError

ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024
"""A batch whose logs are all rejected is answered with less."""
ANSWER_S_MAX: Final = 120.0
"""For all of an answer. A server under load may hold a request 30 s until its broker has it."""
_TIMEOUT: Final = httpx.Timeout(60.0, connect=10.0)
"""Seconds, of each step."""


class NoAnswer(LogfeedError):
    """The server does not answer."""


class Answer(NamedTuple):
    """content: as it came; empty when it is packed, which was not asked for. retry_after: that header."""

    status: int
    content: bytes
    retry_after: str | None


async def ask(
    client: httpx.AsyncClient,
    method: str,
    path: str,
    body: bytes,
    headers: dict[str, str],
    *,
    seconds_max: float = ANSWER_S_MAX,
) -> Answer:
    """One attempt. seconds_max: for all of it. Raises NoAnswer."""
    content = bytearray()
    try:
        async with asyncio.timeout(seconds_max):
            async with client.stream(method, path, content=body, headers=headers) as response:
                if response.headers.get("Content-Encoding", "identity") == "identity":
                    async for piece in response.aiter_raw():
                        content += piece
                        if len(content) > ANSWER_BYTES_MAX:
                            raise NoAnswer("what answers is no Logfeed server: its answer does not end")
                return Answer(response.status_code, bytes(content), response.headers.get("Retry-After"))
    except TimeoutError as error:
        raise NoAnswer("the answer does not come to its end") from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise NoAnswer(str(error) or type(error).__name__) from error


def new_client(url: str, *, api_key: str | None, trust: Any) -> httpx.AsyncClient:  # Any: httpx's verify
    """A client of the server; close it. Proxies of the environment do not hold for this machine."""
    headers = {
        "User-Agent": "logfeed-agent",
        "Accept": "application/json, application/problem+json",
        "Accept-Encoding": "identity",
    }
    if api_key is not None:
        headers["Authorization"] = f"Bearer {api_key}"
    place = httpx.URL(url)
    return httpx.AsyncClient(
        base_url=url,
        headers=headers,
        timeout=_TIMEOUT,
        limits=httpx.Limits(max_connections=2, max_keepalive_connections=2),
        trust_env=place.host not in ("127.0.0.1", "localhost", "::1"),
        # Loading all authorities takes 3 MB, for nothing where nobody speaks TLS.
        verify=trust if place.scheme == "https" else False,
    )
