"""The client for asyncio: as `Client`, with `async for` and `await`.

    async with AsyncClient("https://logs.example", api_key=key) as logfeed:
        async for log in logfeed.logs(query="level:error", start_time=timedelta(hours=1)):
            print(log.timestamp, log.message)

One answer is in memory at a time. Tasks may share a client; what iterates belongs to one task.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import aclosing, suppress
from types import TracebackType
from typing import Any, Final, Self, Unpack

import httpx

from logfeed_client.async_subscriber import AsyncSubscriber
from logfeed_client.querying.asking import (
    PASSING,
    Address,
    Later,
    Order,
    Patience,
    Question,
    TailPlace,
    ask_context,
    ask_correlation,
    ask_histogram,
    ask_one,
    ask_pages,
    check,
    grown,
)
from logfeed_client.querying.events import EventReader, Frame, frame_of
from logfeed_client.querying.questions import PAGE_LOGS_MAX, Filters, Time, parameters_of
from logfeed_client.querying.results import Histogram, Kind, Log, LogContext, Page, TailGap


class AsyncClient:
    """Asks one server. Every call raises ProblemError when it is refused, Unreachable when patience is over, NotLogfeed."""

    def __init__(
        self,
        url: str | None = None,
        *,
        api_key: str | None = None,
        patience_s: float = 30.0,
        timeout_s: float = 60.0,
        client: httpx.AsyncClient | None = None,
    ) -> None:
        """url: of Logfeed, without a path; None: LOGFEED_URL, else http://127.0.0.1:8080. api_key: None: LOGFEED_API_KEY.
        patience_s: how long a question is asked again while the server is away or busy. timeout_s: without a byte of an answer.
        client: one of your own (proxies, certificates), closed by you. Raises ValueError."""
        self.address: Final = Address.of(url, api_key, timeout_s)
        self._patience_s = patience_s
        self._http = client or httpx.AsyncClient(**self.address.options())
        self._is_own = client is None

    async def __aenter__(self) -> Self:
        """The client."""
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See close."""
        await self.close()

    async def close(self) -> None:
        """Give connections back."""
        if self._is_own:
            await self._http.aclose()

    async def logs(
        self,
        *,
        limit: int | None = None,
        order: Order = "desc",
        page_logs: int = PAGE_LOGS_MAX,
        **filters: Unpack[Filters],
    ) -> AsyncGenerator[Log, None]:
        """The logs that match and were there at the first page, each once, in order; limit: at most so many."""
        if limit is not None and limit <= 0:
            return
        left = limit
        async with aclosing(self.pages(order=order, page_logs=min(page_logs, limit or page_logs), **filters)) as pages:
            async for page in pages:
                for log in page.logs if left is None else page.logs[:left]:
                    yield log
                if left is not None:
                    left -= len(page.logs)
                    if left <= 0:
                        return

    async def pages(
        self,
        *,
        order: Order = "desc",
        page_logs: int = PAGE_LOGS_MAX,
        cursor: str | None = None,
        around: Time | None = None,
        **filters: Unpack[Filters],
    ) -> AsyncGenerator[Page, None]:
        """Pages along `next_cursor`, to the end. page_logs: of one page, 1..1000. cursor: of a page of this question, goes on
        there. around: the id of a log, or a time, with which the first page begins."""
        asked = ask_pages(filters, order=order, page_logs=page_logs, cursor=cursor, around=around)
        async with aclosing(self._walk(asked)) as pages:
            async for page in pages:
                yield page

    async def get(self, log_id: str | int) -> Log:
        """One log, by its id alone. Raises NotFound."""
        return await self._ask(ask_one(log_id))

    async def context(self, log_id: str | int, *, before: int = 10, after: int = 10) -> LogContext:
        """A log and its neighbours in its service. Raises NotFound."""
        return await self._ask(ask_context(log_id, before=before, after=after))

    async def correlation(self, correlation_id: str) -> AsyncGenerator[Log, None]:
        """Every log with this correlation id, oldest first, over all services and all time."""
        async with aclosing(self.correlation_pages(correlation_id)) as pages:
            async for page in pages:
                for log in page.logs:
                    yield log

    async def correlation_pages(
        self, correlation_id: str, *, page_logs: int = PAGE_LOGS_MAX
    ) -> AsyncGenerator[Page, None]:
        """The same by pages, which say whether logs are `withheld`."""
        async with aclosing(self._walk(ask_correlation(correlation_id, page_logs=page_logs))) as pages:
            async for page in pages:
                yield page

    async def histogram(self, *, buckets: int = 60, **filters: Unpack[Filters]) -> Histogram:
        """How many logs match over time, by level; by default in the hour before now. buckets: at most so many, 1..400."""
        return await self._ask(ask_histogram(filters, buckets=buckets))

    def tail(
        self,
        *,
        from_token: str = "now",
        ids_max: int = 20_000,
        on_skipped: Callable[[int], None] | None = None,
        on_gap: Callable[[TailGap], None] | None = None,
        **filters: Unpack[Filters],
    ) -> AsyncTail:
        """Logs as they come, for ever. from_token: `tail` of a page, or `token` of an earlier tail; by default from now on.
        ids_max: ids that are remembered against copies. on_skipped: is told of logs that the server left out because this one
        was slow. on_gap: is told of logs that the broker has not any more; without it TailGapError is raised."""
        place = TailPlace(self.address, parameters_of(filters), from_token, ids_max, on_skipped, on_gap)
        return AsyncTail(self._http, place, Patience(self._patience_s, random.random))

    def subscriber(self, topic: str, **options: Any) -> AsyncSubscriber:
        """Of a derived topic, with this client's address, key and connections. options: of `AsyncSubscriber`."""
        return AsyncSubscriber(self.address.url, topic, api_key=self.address.api_key, client=self._http, **options)

    async def _walk(self, question: Question[Page]) -> AsyncGenerator[Page, None]:
        while True:
            page = await self._ask(question)
            yield page
            if page.next_cursor is None:
                return
            question = question.after(page.next_cursor)

    async def _ask(self, question: Question[Kind]) -> Kind:
        patience = Patience(self._patience_s, random.random)
        while True:
            try:
                async with self._http.stream(**question.request(self.address)) as response:
                    body = await _body(response)
                return question.read(response, body)
            except PASSING as failure:
                await asyncio.sleep(patience.pause_after(failure, now_s=time.monotonic()))


class AsyncTail:
    """Iterates over logs as they come. After a cut it goes on where it stood: nothing is missed, nothing comes twice."""

    def __init__(self, http: httpx.AsyncClient, place: TailPlace, patience: Patience) -> None:
        """Use `AsyncClient.tail`."""
        self._http, self._place, self._patience = http, place, patience
        self._closed = asyncio.Event()

    @property
    def token(self) -> str:
        """Behind the last message whose logs were all handed out: another tail of the same question goes on from it."""
        return self._place.token

    def close(self) -> None:
        """End the iteration, with the next message at the latest (15 s)."""
        self._closed.set()

    async def __aiter__(self) -> AsyncGenerator[Log, None]:
        """Raises ProblemError, Unreachable, TailGapError."""
        while not self._closed.is_set():
            try:
                async with aclosing(self._frames()) as frames:
                    async for frame in frames:
                        self._patience.answered()
                        for log in self._place.take(frame):
                            yield log
                        if self._closed.is_set():
                            return
                raise Later("the connection ended")
            except PASSING as failure:
                pause_s = self._patience.pause_after(failure, now_s=time.monotonic())
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._closed.wait(), pause_s)

    async def _frames(self) -> AsyncGenerator[Frame, None]:
        """Messages of one connection."""
        async with self._http.stream(**self._place.request()) as response:
            if response.status_code != httpx.codes.OK:
                check(response, await _body(response))
            reader = EventReader()
            async for piece in response.aiter_bytes():
                for event in reader.feed(piece):
                    yield frame_of(event)


async def _body(response: httpx.Response) -> bytes:
    """All of an answer. Raises NotLogfeed for one that is too long."""
    received = bytearray()
    async for piece in response.aiter_bytes():
        grown(received, piece)
    return bytes(received)
