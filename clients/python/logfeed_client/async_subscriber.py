"""`Subscriber` for asyncio: the same promises, `async for` and `await`. One task iterates; `close` may be called by another."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Callable
from contextlib import suppress
from types import TracebackType
from typing import Any, Self

import httpx

from logfeed_client.connecting import client_options
from logfeed_client.subscriber import Answered, Gap, Record, TopicPlace


class AsyncSubscriber:
    """Iterates over the records of a topic, for ever."""

    def __init__(
        self,
        url: str,
        topic: str,
        *,
        api_key: str | None = None,
        after: str = "",
        limit: int = 500,
        wait_s: float = 20.0,
        ids_max: int = 100_000,
        on_gap: Callable[[Gap], None] | None = None,
        client: httpx.AsyncClient | None = None,
    ) -> None:
        """As `Subscriber`. client: one of your own, closed by you."""
        self._place = TopicPlace(url, topic, api_key, after, limit, wait_s, ids_max, on_gap)
        self._client = client or httpx.AsyncClient(**client_options(url))
        self._is_own = client is None
        self._closed = asyncio.Event()

    @property
    def after(self) -> str:
        """The place behind the last record that was handed out."""
        return self._place.after

    async def __aenter__(self) -> Self:
        """The subscriber."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See close."""
        await self.close()

    async def close(self) -> None:
        """End the iteration: at once while it waits for the server to come back, else with the request under way."""
        self._closed.set()
        if self._is_own:
            await self._client.aclose()

    async def __aiter__(self) -> AsyncGenerator[Record, None]:
        """Records, until `close`. Raises SubscriptionError, GapError."""
        while not self._closed.is_set():
            answer = await self._answer()
            if answer is None:
                continue
            for record in self._place.records(answer):
                yield record
                if self._closed.is_set():
                    return

    async def _answer(self) -> dict[str, Any] | None:
        """The next answer; None after a gap that was told, and when it is closed. Waits out what passes by itself."""
        self._place.begin()
        while not self._closed.is_set():
            answered: Answered | None = None
            try:
                answered = await self._get()
            except (httpx.TransportError, httpx.DecodingError):
                pass
            except RuntimeError:  # the client was closed: here, or by whoever owns it
                if not self._closed.is_set():
                    raise
            if answered is not None:
                judged = self._place.judge(answered)
                if judged.is_final:
                    return judged.records
            with suppress(TimeoutError):
                await asyncio.wait_for(self._closed.wait(), self._place.pause_s(answered, random.uniform(1.0, 1.3)))
        return None

    async def _get(self) -> Answered:
        """One answer. Raises SubscriptionError for one that is too long, and what httpx raises."""
        body = bytearray()
        async with self._client.stream("GET", **self._place.request()) as response:
            async for piece in response.aiter_bytes():
                self._place.grow(body, piece, response.status_code)
        return Answered(response.status_code, response.headers.get("Retry-After", ""), bytes(body))
