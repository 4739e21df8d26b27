"""One request to the server, and what its answer means. Whoever asks decides what becomes of it.

The key makes it safe to send again, so everything that may pass is answered by the same request later. A server that does not
take logs for any other reason (a key that was revoked, an address that is another program's) is waited for too: the files
keep what is not sent, and somebody may mend it.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import httpx
import orjson

from agent.shipping.checkpoint import Part
from runtime.clock import Clock
from runtime.patience import retry_after_s

_PATH: Final = "/api/v1/logs/batch"
_TIMEOUT: Final = httpx.Timeout(60.0, connect=10.0)
"""Seconds. A server under load may hold a request 30 s until its broker has it."""
_REASON_CHARS_MAX: Final = 300


class Stored(NamedTuple):
    """The server has the request. rejected: logs that it will never take; reasons: of the first of them, by code."""

    accepted: int
    filtered: int
    rejected: int
    reasons: dict[str, str]


class TooLarge(NamedTuple):
    """It takes smaller requests."""

    reason: str


class KeyUsed(NamedTuple):
    """Another body has this key: the state of this agent is older than what it sent."""


class Away(NamedTuple):
    """Not now. pause_s: what the server asks for. is_refusal: somebody has to do something."""

    reason: str
    pause_s: float | None = None
    is_refusal: bool = False


Outcome = Stored | TooLarge | KeyUsed | Away


class Sender:
    """Sends to one server. Close it."""

    def __init__(self, client: httpx.AsyncClient, clock: Clock) -> None:
        """client: with the server's address and the key (see `new_client`)."""
        self._client, self._clock = client, clock

    async def send(self, part: Part, body: bytes) -> Outcome:
        """One attempt."""
        headers = {
            "Content-Type": "application/x-ndjson",
            "Content-Encoding": "zstd",
            "Idempotency-Key": part.key,
        }
        try:
            response = await self._client.post(_PATH, content=body, headers=headers)
        except httpx.TransportError as error:
            return Away(str(error) or type(error).__name__)
        return read_answer(
            response.status_code,
            response.content,
            logs=part.logs,
            pause_s=retry_after_s(response.headers.get("Retry-After"), self._clock.now_us()),
        )

    async def close(self) -> None:
        """Close its connections."""
        await self._client.aclose()


def read_answer(status: int, content: bytes, *, logs: int, pause_s: float | None) -> Outcome:
    """What a server, or something else at its address, says. Pure."""
    document = _document(content)
    if status in (200, 201):
        accepted, filtered = document.get("accepted"), document.get("filtered")
        if not isinstance(accepted, int) or not isinstance(filtered, dict):
            return Away("the answer is not that of a Logfeed server", is_refusal=True)
        dropped = sum(count for count in filtered.values() if isinstance(count, int))
        return Stored(accepted, dropped, max(0, logs - accepted - dropped), _reasons(document))
    reason = f"HTTP {status}: {document.get('title', '')} {document.get('detail', '')}".strip()[:_REASON_CHARS_MAX]
    if status in (403, 422) and (reasons := _reasons(document)):
        return Stored(0, 0, logs, reasons)
    if status == 422 and document.get("type") == "urn:logfeed:problem:key-reused":
        return KeyUsed()
    if status == 413:
        return TooLarge(reason)
    return Away(reason, pause_s, is_refusal=status < 500 and status not in (408, 429))


def _document(content: bytes) -> dict[str, Any]:  # JSON values
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError:
        return {}
    return document if isinstance(document, dict) else {}


def _reasons(document: dict[str, Any]) -> dict[str, str]:
    found: dict[str, str] = {}
    rejected = document.get("rejected")
    for item in rejected if isinstance(rejected, list) else ():
        if isinstance(item, dict):
            found.setdefault(str(item.get("code"))[:50], str(item.get("error"))[:_REASON_CHARS_MAX])
    return found


def new_client(url: str, *, api_key: str | None, trust: Any) -> httpx.AsyncClient:  # Any: httpx's verify
    """A client of the server; close it. Proxies of the environment do not hold for this machine."""
    headers = {"User-Agent": "logfeed-agent", "Accept": "application/json, application/problem+json"}
    if api_key is not None:
        headers["Authorization"] = f"Bearer {api_key}"
    return httpx.AsyncClient(
        base_url=url,
        headers=headers,
        timeout=_TIMEOUT,
        limits=httpx.Limits(max_connections=2, max_keepalive_connections=2),
        trust_env=httpx.URL(url).host not in ("127.0.0.1", "localhost", "::1"),
        # Loading all authorities takes 3 MB, for nothing where nobody speaks TLS.
        verify=trust if url.startswith("https") else False,
    )
