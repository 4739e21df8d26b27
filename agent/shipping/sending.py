"""One request to the server, and what its answer means. Whoever asks decides what becomes of it.

The key makes it safe to send again, so everything that may pass is answered by the same request later. A server that does not
take logs for any other reason (a key that was revoked, an address that is another program's) is waited for too: the files
keep what is not sent, and somebody may mend it.
"""

from __future__ import annotations

from typing import Any, Final, NamedTuple

import httpx
import orjson

from agent.asking import NoAnswer, ask
from agent.shipping.checkpoint import Part
from runtime.clock import Clock
from runtime.patience import retry_after_s

_PATH: Final = "/api/v1/logs/batch"
_PAUSE_S_MAX: Final = 60.0
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
        """client: with the server's address and the key (see `agent/asking.py`)."""
        self._client, self._clock = client, clock

    async def send(self, part: Part, body: bytes) -> Outcome:
        """One attempt."""
        headers = {
            "Content-Type": "application/x-ndjson",
            "Content-Encoding": "zstd",
            "Idempotency-Key": part.key,
        }
        try:
            answer = await ask(self._client, "POST", _PATH, body, headers)
        except NoAnswer as error:
            return Away(str(error))
        pause_s = retry_after_s(answer.retry_after, self._clock.now_us())
        # A server that is down for long says so in hours; it may be back in minutes.
        pause_s = None if pause_s is None else min(pause_s, _PAUSE_S_MAX)
        return read_answer(answer.status, answer.content, logs=part.logs, pause_s=pause_s)

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
