"""Asks the agents of hosts, over HTTP: GET alone, no redirects, no proxy of the environment.

Each connection goes to the address that was judged (`runtime/outgoing.py`, `addresses.py`), and so does the agent's token; what
the user showed stays here. An answer counts where its status and type are an agent's; nothing else of its head is looked at.
What it says is read as it is asked for: a reader who is slow slows the agent down, and one who goes ends its answer.
"""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import aclosing, asynccontextmanager, suppress
from typing import Any, Final
from urllib.parse import quote

import httpx
import msgspec
import structlog

from query.hosts.addresses import is_permitted
from query.hosts.errors import HostAway, HostBusy, HostFileNotFound, HostSlow, HostUnreachable
from query.hosts.records import LIST_BYTES_MAX
from query.hosts.settings import HostSettings
from runtime.harmless import harmless
from runtime.outgoing import Address, Resolve, addresses_of, pinned, place_of, resolve
from runtime.sockets import alive_options
from schemas.errors import ConfigurationError, InvalidInput
from schemas.hosts import HEARTBEAT_S
from store.hosts import Host

log = structlog.get_logger(__name__)

Asked = Sequence[tuple[str, str]]
"""Parameters of the query string."""

_PROBLEM_BYTES_MAX: Final = 16 * 1024
_SHOWN_CHARS_MAX: Final = 500
_RETRY_S_MAX: Final = 60
_NDJSON: Final = "application/x-ndjson"
_JSON: Final = "application/json"


class Caller(msgspec.Struct, frozen=True):
    """What the agent is told of who asks."""

    subject: str
    traceparent: str

    def headers(self, host: Host) -> dict[str, str]:
        """Everything that is sent."""
        return {
            "Authorization": f"Bearer {host.token}",
            "X-Logfeed-Subject": self.subject,
            "traceparent": self.traceparent,
            "User-Agent": "logfeed-query",
            "Accept-Encoding": "identity",
        }


class Agents:
    """The agents of all hosts."""

    def __init__(self, settings: HostSettings, *, resolver: Resolve = resolve) -> None:
        """Raises ConfigurationError for authorities that cannot be read."""
        self._settings = settings
        self.networks = tuple(map(ipaddress.ip_network, settings.networks))
        """Where they may be."""
        self._resolve = resolver
        seconds = settings.connect_s
        self._client = httpx.AsyncClient(
            transport=httpx.AsyncHTTPTransport(
                verify=_trust(settings),
                # How many there are is decided before; a kept connection would be to where a name pointed once.
                limits=httpx.Limits(max_connections=None, max_keepalive_connections=0),
                socket_options=alive_options(),  # a followed file would wait to the end for a machine that is gone
            ),
            follow_redirects=False,
            trust_env=False,
            # How long the whole may take is the caller's business.
            timeout=httpx.Timeout(connect=seconds, read=None, write=seconds, pool=seconds),
        )

    async def close(self) -> None:
        """Free connections."""
        await self._client.aclose()

    async def list_files(self, host: Host, asked: Asked, caller: Caller) -> bytes:
        """The body of its answer, unread. Raises Host…, InvalidInput."""
        try:
            async with asyncio.timeout(self._settings.read_s_max):
                async with self._answer(host, "/files", asked, caller, media_type=_JSON) as answer:
                    body = bytearray()
                    async for piece in answer.aiter_raw():
                        body += piece
                        if len(body) > LIST_BYTES_MAX:
                            raise HostUnreachable(f"the agent of host {host.name} answers with a list without end")
                    return bytes(body)
        except TimeoutError as error:
            raise _slow(host) from error
        except httpx.HTTPError as error:
            raise _unreachable(host, error) from error

    @asynccontextmanager
    async def reading(
        self, host: Host, name: str, asked: Asked, caller: Caller
    ) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        """Pieces of the agent's answer, as they are read; leaving ends it. Raises Host…, InvalidInput; the pieces raise
        httpx.HTTPError."""
        async with self._answer(host, f"/files/{quote(name)}", asked, caller, media_type=_NDJSON) as answer:
            async with aclosing(_pieces(answer)) as pieces:
                yield pieces

    @asynccontextmanager
    async def _answer(
        self, host: Host, path: str, asked: Asked, caller: Caller, *, media_type: str
    ) -> AsyncIterator[httpx.Response]:
        """One whose head is an agent's."""
        target, name, extensions = pinned(host.address + path, await self._address(host))
        request = self._client.build_request(
            "GET",
            target,
            params=list(asked),
            headers={**caller.headers(host), "Host": name, "Accept": media_type},
            extensions=extensions,
        )
        try:
            async with asyncio.timeout(2 * self._settings.connect_s):
                answer = await self._client.send(request, stream=True)
        except (TimeoutError, httpx.TimeoutException) as error:
            raise _slow(host) from error
        except httpx.HTTPError as error:
            raise _unreachable(host, error) from error
        try:
            await self._check(host, answer, media_type)
            yield answer
        finally:
            with suppress(httpx.HTTPError):
                await answer.aclose()

    async def _address(self, host: Host) -> Address:
        """Where to connect. Raises HostUnreachable, HostSlow."""
        try:
            async with asyncio.timeout(self._settings.connect_s):
                addresses = await addresses_of(*place_of(host.address), self._resolve)
        except TimeoutError as error:
            raise _slow(host) from error
        except (OSError, UnicodeError) as error:
            raise _unreachable(host, error) from error
        for address in addresses:
            if is_permitted(address, self.networks):
                return address
        log.warning("a host's address is not in hosts.networks", host=host.name, address=host.address)
        raise HostUnreachable(f"the address of host {host.name} is not in the networks of agents (hosts.networks)")

    async def _check(self, host: Host, answer: httpx.Response, media_type: str) -> None:
        """Raises unless the agent says yes."""
        status = answer.status_code
        if status == httpx.codes.OK:
            found = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
            is_plain = answer.headers.get("content-encoding", "identity").lower() == "identity"
            if found != media_type or not is_plain:
                raise _faulty(host, f"answers {found[:60]!r} where {media_type} is expected")
            return
        try:
            async with asyncio.timeout(self._settings.connect_s):
                detail = await _detail(answer)
        except (TimeoutError, httpx.HTTPError):
            detail = ""
        match status:
            case httpx.codes.NOT_FOUND:
                raise HostFileNotFound
            case httpx.codes.BAD_REQUEST | httpx.codes.UNPROCESSABLE_ENTITY:
                raise InvalidInput(detail or "the agent refuses the question")
            case httpx.codes.UNAUTHORIZED:
                raise HostAway(
                    f"the agent of host {host.name} has started again: it is heard of within {HEARTBEAT_S} s",
                    retry_after_s=HEARTBEAT_S,
                )
            case httpx.codes.TOO_MANY_REQUESTS | httpx.codes.SERVICE_UNAVAILABLE:
                raise HostBusy(
                    f"the agent of host {host.name}: {detail}" if detail else None,
                    retry_after_s=_seconds(answer.headers.get("retry-after", "")),
                )
        raise _faulty(host, f"answers {status}")


async def _pieces(answer: httpx.Response) -> AsyncGenerator[bytes, None]:
    async for piece in answer.aiter_raw():
        yield piece


def _trust(settings: HostSettings) -> ssl.SSLContext:
    try:
        return ssl.create_default_context(cafile=settings.ca_file)
    except (OSError, ssl.SSLError) as error:
        reason = error.strerror or error
        raise ConfigurationError(
            f"hosts.ca_file: {settings.ca_file} cannot be read as certificates: {reason}"
        ) from error


async def _detail(answer: httpx.Response) -> str:
    """What its problem says, for people; may be empty."""
    body = b""
    async for piece in answer.aiter_raw():
        body += piece
        if len(body) > _PROBLEM_BYTES_MAX:
            return ""
    return problem_detail(body)


def problem_detail(body: bytes) -> str:
    """`detail` of a problem document (RFC 9457), harmless and short; empty where there is none."""
    try:
        document: Any = msgspec.json.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError):
        return ""
    detail = document.get("detail") if isinstance(document, dict) else None
    return harmless(detail)[:_SHOWN_CHARS_MAX] if isinstance(detail, str) else ""


def _seconds(retry_after: str) -> int:
    is_number = retry_after.isascii() and retry_after.isdecimal() and len(retry_after) <= 9
    return min(max(int(retry_after), 1), _RETRY_S_MAX) if is_number else 1


def _slow(host: Host) -> HostSlow:
    return HostSlow(f"the agent of host {host.name} does not answer in time")


def _unreachable(host: Host, error: Exception) -> HostUnreachable:
    # Where it is, and why, is for who runs the server.
    log.warning("an agent cannot be reached", host=host.name, address=host.address, error=harmless(str(error))[:200])
    return HostUnreachable(f"the agent of host {host.name} cannot be reached")


def _faulty(host: Host, what: str) -> HostUnreachable:
    log.warning("an agent does not answer as one", host=host.name, address=host.address, what=harmless(what))
    return HostUnreachable(f"what answers for host {host.name} is not its agent, or one of another version")
