"""How the client commands speak to a Logfeed server: where it is, what its problems mean, how long to be patient.

`request_patiently` sends again what can be sent again: no connection, 408, 429 and 5xx, with the pause the server asks for or
one that grows. So what is sent must be safe to send twice: GET, or a POST with an Idempotency-Key.
Memory: one response at a time for each request under way.
"""

from __future__ import annotations

import asyncio
import os
import random
import ssl
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
import orjson

from runtime.clock import Clock
from runtime.patience import pause_before, retry_after_s
from schemas.errors import InvalidInput, LogfeedError

URL_DEFAULT: Final = "http://127.0.0.1:8080"
URL_VARIABLE: Final = "LOGFEED_URL"
URL_HELP: Final = "Address of the server."
CA_VARIABLE: Final = "LOGFEED_CA_FILE"
"""PEM file of the authorities that https servers are believed by, instead of the usual ones."""

Trust = ssl.SSLContext | bool
"""Of httpx: True is the usual authorities."""

_LOCAL: Final = ("127.0.0.1", "localhost", "::1")
_TIMEOUT: Final = httpx.Timeout(60.0, connect=10.0)
"""Seconds. A server under load may hold a request 30 s until its broker has it."""
_RETRIED: Final = frozenset({408, 429, 500, 502, 503, 504})


class Unreachable(LogfeedError):
    """The server does not answer, or has answered "later" for too long."""


class Refused(LogfeedError):
    """The server refuses the request: sending it again would not help."""

    def __init__(self, problem: Problem) -> None:
        """problem: what the server said."""
        super().__init__(problem.text)
        self.problem = problem


class Problem:
    """A refusal, as RFC 9457 writes it; `members` are the document's further fields."""

    def __init__(self, status: int, title: str, detail: str, members: Mapping[str, Any]) -> None:  # JSON values
        """status: HTTP. title, detail: for people, may be empty."""
        self.status, self.title, self.detail, self.members = status, title, detail, members

    @classmethod
    def read(cls, response: httpx.Response) -> Problem:
        """Of any response: one that is no problem document keeps the start of its text as detail."""
        try:
            document = orjson.loads(response.content)
        except orjson.JSONDecodeError:
            document = None
        if not isinstance(document, dict):
            return cls(response.status_code, response.reason_phrase, response.text[:300].strip(), {})
        title, detail = document.get("title"), document.get("detail")
        if response.status_code == httpx.codes.UNAUTHORIZED and isinstance(detail, str):
            detail += "; set LOGFEED_API_KEY, or LOGFEED_DATA_DIR to the directory of a `logfeed up` on this machine"
        return cls(
            response.status_code,
            title if isinstance(title, str) else response.reason_phrase,
            detail if isinstance(detail, str) else "",
            document,
        )

    @property
    def text(self) -> str:
        """One line for people."""
        return f"{self.title}: {self.detail}" if self.detail else f"{self.title} (HTTP {self.status})"


def check_url(url: str) -> str:
    """The server's address without a slash at the end. Raises InvalidInput when it is no http or https URL."""
    try:
        parsed = urlsplit(url)
        httpx.URL(url)
    except (ValueError, httpx.InvalidURL) as error:
        raise InvalidInput(f"--url: {url!r} is no URL: {error}") from error
    if parsed.scheme not in ("http", "https") or not parsed.hostname or parsed.query or parsed.fragment:
        raise InvalidInput(f"--url must be like {URL_DEFAULT}, got {url!r}")
    return url.rstrip("/")


def trust_of(environment: Mapping[str, str] | None = None) -> Trust:
    """Whom https servers are believed by: what LOGFEED_CA_FILE names, else the usual authorities. Raises InvalidInput."""
    file = (os.environ if environment is None else environment).get(CA_VARIABLE, "").strip()
    if not file:
        return True
    try:
        return ssl.create_default_context(cafile=file)
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(f"{CA_VARIABLE}: {file} cannot be read as PEM certificates: {error.strerror}") from error


def own_server_trust(cert: Path | None) -> Trust:
    """For a server of this process's own making, whatever name its certificate bears: just that certificate is believed.

    cert: PEM, None where it speaks no TLS.
    """
    if cert is None:
        return True
    context = ssl.create_default_context(cafile=str(cert))
    context.check_hostname = False
    context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    return context


def new_client(
    url: str, *, connections: int = 4, api_key: str | None = None, trust: Trust | None = None
) -> httpx.AsyncClient:
    """A client of the server; close it. connections: most at once. Proxies of the environment do not hold for this machine.

    trust: for https; None is `trust_of()`. Raises InvalidInput.
    """
    headers = {"User-Agent": "logfeed-cli", "Accept": "application/json, application/problem+json"}
    if api_key is not None:
        headers["Authorization"] = f"Bearer {api_key}"
    limits = httpx.Limits(max_connections=connections, max_keepalive_connections=connections)
    return httpx.AsyncClient(
        base_url=url,
        headers=headers,
        timeout=_TIMEOUT,
        limits=limits,
        trust_env=urlsplit(url).hostname not in _LOCAL,
        verify=trust_of() if trust is None else trust,
    )


async def request_patiently(
    client: httpx.AsyncClient,
    method: str,
    path: str,
    *,
    clock: Clock,
    give_up_after_s: float,
    on_wait: Callable[[str, float], None],
    **arguments: Any,  # of httpx's request: params, content, headers
) -> httpx.Response:
    """The first answer that is final (2xx, or a refusal that stays one).

    give_up_after_s: after the first failure. on_wait: (reason, seconds of the coming pause). Raises Unreachable.
    """
    failed_at_s: float | None = None
    attempt = 0
    while True:
        asked_s: float | None = None
        try:
            response = await client.request(method, path, **arguments)
        except httpx.TransportError as error:
            reason = f"{client.base_url}: {_transport_reason(error)}"
        else:
            if response.status_code not in _RETRIED:
                return response
            asked_s = retry_after_s(response.headers.get("Retry-After"), clock.now_us())
            reason = Problem.read(response).text
        failed_at_s = clock.monotonic_s() if failed_at_s is None else failed_at_s
        pause_s = pause_before(attempt, asked_s, random.random())
        if clock.monotonic_s() + pause_s - failed_at_s > give_up_after_s:
            raise Unreachable(f"gave up after {clock.monotonic_s() - failed_at_s:.0f} s: {reason}")
        on_wait(reason, pause_s)
        await asyncio.sleep(pause_s)
        attempt += 1


def _transport_reason(error: httpx.TransportError) -> str:
    match error:
        case httpx.ConnectError() if "CERTIFICATE_VERIFY_FAILED" in str(error):
            reason = str(error).partition(": ")[2]
            return f"its certificate is not believed ({reason}): {CA_VARIABLE} names a file of authorities"
        case httpx.ConnectError():
            return "no connection (is the server running? `logfeed up` starts one)"
        case httpx.TimeoutException():
            return "no answer in time"
        case _:
            return str(error) or type(error).__name__
