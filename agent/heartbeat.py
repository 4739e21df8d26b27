"""Tells the server where this host's agent is, and with which token it may be asked: at the start, then as often as the
server says.

Whatever becomes of it, shipping and answering go on: a server that does not know hosts, or refuses this one, is told again at
the same pace.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final
from urllib.parse import quote

import httpx
import orjson
import structlog

from agent.asking import NoAnswer, ask
from agent.metrics import HEARTBEATS
from runtime.clock import Clock
from runtime.patience import retry_after_s
from runtime.stopping import Stop
from schemas.errors import ConfigurationError

log = structlog.get_logger(__name__)

HEARTBEAT_S: Final = 10.0
"""Between two, unless the server says otherwise."""
_BETWEEN_S: Final = (1.0, 300.0)
_REASON_CHARS_MAX: Final = 300


class Heartbeat:
    """Of one host."""

    def __init__(
        self,
        new_client: Callable[[], httpx.AsyncClient],
        clock: Clock,
        *,
        host: str,
        address: str,
        token: str,
        version: str,
        services: Sequence[str],
    ) -> None:
        """new_client: with the server's address and the key in force. address: where the server reaches this agent.
        token: of this start. services: of the roots, for display."""
        self._new_client, self._clock = new_client, clock
        self._path = f"/api/v1/hosts/{quote(host, safe='')}"
        self._body = orjson.dumps(
            {"address": address, "token": token, "version": version, "services": sorted(set(services))}
        )
        self.problem: str | None = None
        """Why the server does not know this host, for people."""

    async def run(self, stop: Stop) -> None:
        """Tell until the stop."""
        client = self._new_client()
        try:
            while not stop.is_set:
                pause_s, is_refused = await self._tell(client)
                if is_refused:
                    client = await self._renewed(client)
                await stop.wait(pause_s)
        finally:
            await client.aclose()

    async def _renewed(self, client: httpx.AsyncClient) -> httpx.AsyncClient:
        """One with the key as it is now; a key that cannot be read now leaves the one that there is."""
        try:
            renewed = self._new_client()
        except ConfigurationError as error:
            log.warning("the API key cannot be read", reason=str(error))
            return client
        await client.aclose()
        return renewed

    async def _tell(self, client: httpx.AsyncClient) -> tuple[float, bool]:
        """(seconds until the next one, whether somebody has to do something)."""
        headers = {"Content-Type": "application/json"}
        try:
            answer = await ask(client, "PUT", self._path, self._body, headers, seconds_max=HEARTBEAT_S)
        except NoAnswer as error:
            self._failed(str(error))
            return HEARTBEAT_S, False
        pause_s, reason = read_answer(answer.status, answer.content)
        if reason is None:
            HEARTBEATS.labels(outcome="heard").inc()
            if self.problem is not None:
                log.info("the server knows this host again")
            self.problem = None
            return pause_s, False
        self._failed(reason)
        asked_s = retry_after_s(answer.retry_after, self._clock.now_us())
        return max(HEARTBEAT_S, min(asked_s or 0.0, _BETWEEN_S[1])), answer.status in (401, 403)

    def _failed(self, reason: str) -> None:
        HEARTBEATS.labels(outcome="failed").inc()
        if reason != self.problem:
            log.warning("the server does not know this host", reason=reason)
        self.problem = reason


def read_answer(status: int, content: bytes) -> tuple[float, str | None]:
    """(seconds until the next heartbeat, reason when it was not heard). Pure."""
    try:
        document = orjson.loads(content)
    except orjson.JSONDecodeError:
        document = None
    fields = document if isinstance(document, dict) else {}
    if status != 200:
        reason = f"HTTP {status}: {fields.get('title', '')} {fields.get('detail', '')}".strip()
        return HEARTBEAT_S, reason[:_REASON_CHARS_MAX]
    asked = fields.get("heartbeat_s")
    if not isinstance(asked, int | float) or isinstance(asked, bool):
        return HEARTBEAT_S, "the answer is not that of a Logfeed server"
    return min(max(float(asked), _BETWEEN_S[0]), _BETWEEN_S[1]), None
