"""Batches as requests: compressed, with their key; whatever comes of one is an outcome."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx

from logfeed_client.sending.answers import Outcome, Trouble, Wait, judge
from logfeed_client.sending.batch import Batch, compression
from logfeed_client.sending.stats import Counts

PATH: Final = "/api/v1/logs/batch"
_READ_S: Final = 45.0
"""A server under load may hold a request 30 s until its broker has it."""
_CONNECT_S: Final = 5.0
_ANSWER_BYTES_MAX: Final = 1024 * 1024
_COMPRESSED_FROM_BYTES: Final = 512


@dataclass(frozen=True, slots=True)
class Target:
    """Where logs go."""

    url: str
    """Without a path."""
    service_name: str
    """Whose logs the sender's own are."""
    api_key: Callable[[], str | None]
    """Asked for each request: a key may be renewed."""
    make_client: Callable[[], httpx.Client]
    spool: Path | None


class Poster:
    """Of one sender in one process; its thread alone sends."""

    def __init__(self, target: Target, counts: Counts) -> None:
        """Connects with the first request."""
        self._target, self._counts = target, counts
        self._client: httpx.Client | None = None
        self._compression = compression()
        self.under_way = threading.Lock()
        """Held during a request: a fork amid an import, or amid TLS, would leave its child with locks that nobody opens."""

    def post(self, batch: Batch, *, ends_at_s: float) -> Outcome:
        """One request; its answer by ends_at_s (`time.monotonic`) at the latest, or soon after. Raises nothing."""
        self._counts.requests += 1
        try:
            with self.under_way:
                status, headers, body = self._answer(batch, ends_at_s)
        except httpx.TransportError as error:
            return Wait(Trouble.AWAY, f"{type(error).__name__}: {error}" if str(error) else type(error).__name__)
        except Exception as error:  # the program's own key, client or address
            return Wait(Trouble.FOREIGN, f"{type(error).__name__}: {error}")
        return judge(status, headers, body, logs=batch.logs, now_s=time.time())

    def _answer(self, batch: Batch, ends_at_s: float) -> tuple[int, httpx.Headers, bytes]:
        if self._client is None:
            self._client = self._target.make_client()
        headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": batch.key}
        if (key := self._target.api_key()) is not None:
            headers["Authorization"] = f"Bearer {key}"
        content = batch.body
        if len(content) >= _COMPRESSED_FROM_BYTES:
            headers["Content-Encoding"], compress = self._compression
            content = compress(content)
        read_s = min(_READ_S, max(0.1, ends_at_s - time.monotonic()))
        timeout = httpx.Timeout(read_s, connect=min(_CONNECT_S, read_s))
        received = bytearray()
        with self._client.stream(
            "POST", f"{self._target.url}{PATH}", content=content, headers=headers, timeout=timeout
        ) as response:
            for piece in response.iter_bytes():
                received += piece
                if len(received) > _ANSWER_BYTES_MAX:
                    break
        return response.status_code, response.headers, bytes(received)

    def close(self) -> None:
        """The client, where there is one. Raises nothing."""
        if self._client is not None:
            with contextlib.suppress(Exception):
                self._client.close()
