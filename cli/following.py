"""Follows logs as they come, over server-sent events: what `logfeed logs --follow` does after its page.

Goes on by itself after a cut, from the token of the last frame that came: nothing is missed, and nothing is shown twice. A copy
that the server could not tell (it does so from its database) is left out here by its id.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final

import httpx
import orjson

from cli.http_client import Problem, Refused, Unreachable
from cli.pages import Parameters
from runtime.clock import Clock
from runtime.patience import pause_before, retry_after_s

PATH: Final = "/api/v1/tail"
IDS_MAX: Final = 20_000
"""Ids of logs that were shown last, against copies."""
SILENCE_S: Final = 60.0
"""Without a byte for so long the connection is dead: a tail that lives says so every 15 s (`tail.heartbeat_s`)."""

_FINAL: Final = frozenset({400, 401, 403, 404, 405, 422})
_EVENT_BYTES_MAX: Final = 64 * 1024 * 1024
_LAST: Final = frozenset({"credentials"})
"""Reasons after which connecting again would not help."""


@dataclass(slots=True)
class Followed:
    """What one message says."""

    logs: list[dict[str, Any]]
    skipped: int = 0
    gap: dict[str, Any] | None = None


@dataclass(slots=True)
class _Stream:
    """Where following stands."""

    token: str
    seen: dict[str, None] = field(default_factory=dict)

    def new(self, logs: list[dict[str, Any]]) -> list[dict[str, Any]]:
        """Those that were not shown; remembers them."""
        fresh = [log for log in logs if log.get("id") not in self.seen]
        self.seen.update((str(log["id"]), None) for log in fresh if "id" in log)
        while len(self.seen) > IDS_MAX:
            del self.seen[next(iter(self.seen))]
        return fresh


class Ended(Refused):
    """The server has ended the tail, and would again."""


async def follow(
    client: httpx.AsyncClient,
    parameters: Parameters,
    token: str,
    *,
    clock: Clock,
    give_up_after_s: float,
    on_wait: Callable[[str, float], None],
) -> AsyncGenerator[Followed, None]:
    """What comes after the token, for ever. Close it (`contextlib.aclosing`).

    give_up_after_s: without a message from the server. on_wait: (reason, seconds of the coming pause). Raises Refused,
    Unreachable.
    """
    stream = _Stream(token)
    failed_at_s: float | None = None
    attempt = 0
    while True:
        asked_s: float | None = None
        try:
            async with aclosing(_connected(client, parameters, stream)) as messages:
                async for message in messages:
                    failed_at_s, attempt = None, 0
                    if message.logs or message.skipped or message.gap:
                        yield message
            reason = "the server ended the tail"
        except _Later as later:
            reason, asked_s = str(later), retry_after_s(later.retry_after, clock.now_us())
        except httpx.TransportError as error:
            reason = f"{client.base_url}: {str(error) or type(error).__name__}"
        failed_at_s = clock.monotonic_s() if failed_at_s is None else failed_at_s
        pause_s = pause_before(attempt, asked_s, random.random())
        if clock.monotonic_s() + pause_s - failed_at_s > give_up_after_s:
            raise Unreachable(f"gave up after {clock.monotonic_s() - failed_at_s:.0f} s: {reason}")
        on_wait(reason, pause_s)
        await asyncio.sleep(pause_s)
        attempt += 1


class _Later(Exception):
    """The server wants to be asked again."""

    def __init__(self, reason: str, retry_after: str | None) -> None:
        super().__init__(reason)
        self.retry_after = retry_after


async def _connected(
    client: httpx.AsyncClient, parameters: Parameters, stream: _Stream
) -> AsyncGenerator[Followed, None]:
    """Messages of one connection. Raises Refused, _Later, httpx.TransportError."""
    timeout = httpx.Timeout(10.0, read=SILENCE_S)
    # In a header: a token may be longer than some proxies take an address to be.
    headers = {"Accept": "text/event-stream", "Last-Event-ID": stream.token}
    asked = httpx.QueryParams(tuple(parameters))
    async with client.stream("GET", PATH, params=asked, headers=headers, timeout=timeout) as response:
        if response.status_code != httpx.codes.OK:
            await response.aread()
            problem = Problem.read(response)
            if response.status_code in _FINAL:
                raise Refused(problem)
            raise _Later(problem.text, response.headers.get("Retry-After"))
        async with aclosing(_events(response)) as events:
            async for event in events:
                message = orjson.loads(event)
                if "end" in message:
                    if message["end"] in _LAST:
                        raise Ended(
                            Problem(httpx.codes.UNAUTHORIZED, "The tail has ended", message.get("detail", ""), {})
                        )
                    raise _Later(str(message.get("detail", message["end"])), None)
                followed = Followed(
                    stream.new(message.get("logs") or []), message.get("skipped") or 0, message.get("gap")
                )
                # The consumer takes it whole, or is gone: only then does the next connection begin after it.
                yield followed
                stream.token = message.get("token") or stream.token


async def _events(response: httpx.Response) -> AsyncGenerator[bytes, None]:
    """The data of each whole event. An event that was cut off is dropped, as the standard has it."""
    rest = b""
    async for piece in response.aiter_bytes():
        rest += piece
        *events, rest = rest.split(b"\n\n")
        if len(rest) > _EVENT_BYTES_MAX:
            raise httpx.RemoteProtocolError(f"an event is longer than {_EVENT_BYTES_MAX} bytes")
        for event in events:
            data = [line[6:] for line in event.split(b"\n") if line.startswith(b"data: ")]
            if data:
                yield b"\n".join(data)
