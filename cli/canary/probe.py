"""Sends a canary's logs and reads them back. What that means is the oracle's to say.

Three tasks of one event loop: one sends, a log a request under an Idempotency-Key, the next one once the last was answered;
one walks pages, in order, from the oldest log that is not settled; one follows the tail. Each tenth request is sent twice under
its key, since a retry must not store twice. Memory: the oracle's, one page, one frame of the tail.

A walk tells whether something is lost only when it came to its end, and the tail only while it is not cut off: while nobody
answers, nothing is lost, it waits.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Any, Final

import httpx
import msgspec
import orjson

from cli.canary.oracle import Oracle, Verdict, Way
from cli.following import follow
from cli.http_client import Problem, Refused, Unreachable, request_patiently
from cli.pages import Page, Parameters, walk
from runtime.clock import Clock
from runtime.stopping import Stop
from schemas.errors import LogfeedError
from schemas.times import time_text

SERVICE: Final = "logfeed/canary"
_SEND_PATH: Final = "/api/v1/logs"
_REPEATED_EVERY: Final = 10
_LOOK_S: Final = 0.25
"""Between two walks: what delays of pages are measured to."""
_READ_PATIENCE_S: Final = 10.0
"""How long one walk is tried before the next one is begun."""
_FOREVER_S: Final = 1e9
_SETTLE_MARGIN_S: Final = 15.0
_LAST_US: Final = 250_000_000_000_000_000
"""Of the calendar, about; in the year 9892."""


class Shown(msgspec.Struct):
    """What the canary reads of a log (schemas/pages.py, LogModel)."""

    id: str
    timestamp: str
    message: str
    metadata: dict[str, Any]  # JSON values


@dataclass(frozen=True, slots=True)
class Plan:
    """What to send."""

    run: str
    """Of this run alone: the correlation id of its logs, and part of its keys."""
    rate: float
    """Logs a second, at most."""
    count: int | None = None
    """So many, then read them back and end. None: no limit."""
    seconds: float | None = None
    """For so long, then read back and end. None: until it is stopped."""
    lost_after_s: float = 60.0
    give_up_after_s: float = 30.0
    """How long a request is repeated until its log counts as unacknowledged."""


def message_of(run: str, number: int, sent_us: int) -> str:
    """The text of a log: it says all that is known of it, so that any change shows."""
    return f"canary log {number} of run {run}, sent at {sent_us}"


def recognised(shown: Shown, run: str) -> tuple[int, int, bool]:
    """(number, when it was sent, whether text and time agree with these). 0: it is no log of a canary, whoever wrote it."""
    number, sent_us = shown.metadata.get("number"), shown.metadata.get("sent_us")
    if type(number) is not int or type(sent_us) is not int or not 0 < number < 2**53 or not 0 < sent_us < _LAST_US:
        return 0, 0, False
    return number, sent_us, shown.message == message_of(run, number, sent_us) and shown.timestamp == time_text(sent_us)


class Probe:
    """One run."""

    def __init__(
        self,
        plan: Plan,
        *,
        sending: httpx.AsyncClient,
        asking: httpx.AsyncClient,
        with_tail: bool,
        clock: Clock,
        tell: Callable[[str], None],
        on_delay: Callable[[str, float], None] | None = None,
    ) -> None:
        """sending, asking: clients of ingest and of query, closed by the caller. tell: is told what people should know.
        on_delay: see Oracle."""
        self._plan = plan
        self._sending, self._asking = sending, asking
        self._clock = clock
        self._tell = tell
        ways = (Way.PAGES, Way.TAIL) if with_tail else (Way.PAGES,)
        self.oracle = Oracle(lost_after_us=int(plan.lost_after_s * 1e6), ways=ways, on_delay=on_delay)
        self._with_tail = with_tail
        self._sent_us: dict[int, int] = {}
        """Number -> wall time it was sent at, of those the oracle knows. Ascending with the numbers."""
        self._last_us = clock.now_us()
        self._began_us = self._last_us
        self._tail_is_cut = False

    def verdict(self) -> Verdict:
        """So far."""
        return self.oracle.verdict(self._now_us())

    async def run(self, stop: Stop) -> Verdict:
        """Send, read back, and say how it went. stop: sends no more; what was sent is read back for a bounded time.

        Raises Refused where the server will never take or show what is asked, Unreachable where nobody answers at the start, or
        somebody who is no Logfeed server.
        """
        async with self._reading():
            await self._send_all(stop)
            await self._until_settled()
        await self._last_walk()
        return self.verdict()

    @asynccontextmanager
    async def _reading(self) -> AsyncIterator[None]:
        """Read beside the block, whose task is cancelled when reading is refused for good."""
        token = await self._tail_token() if self._with_tail else None
        reading: list[asyncio.Task[None]] = []
        try:
            async with asyncio.TaskGroup() as group:
                reading.append(group.create_task(self._look()))
                if token is not None:
                    reading.append(group.create_task(self._follow(token)))
                yield
                for task in reading:
                    task.cancel()
        except* LogfeedError as errors:
            raise errors.exceptions[0] from None

    # Sending

    async def _send_all(self, stop: Stop) -> None:
        plan = self._plan
        due_s = self._clock.monotonic_s()
        end_s = _FOREVER_S if plan.seconds is None else due_s + plan.seconds
        sent = 0
        while (plan.count is None or sent < plan.count) and due_s < end_s:
            if await stop.wait(max(0.0, due_s - self._clock.monotonic_s())):
                return
            if not self.oracle.has_room:
                due_s = self._clock.monotonic_s() + _LOOK_S  # readers are away: nobody could judge more logs
                continue
            sent += 1
            await self._send_one(is_repeated=sent % _REPEATED_EVERY == 0)
            # Whoever was held up does not make up for it: the rate is a bound.
            due_s = max(due_s + 1 / plan.rate, self._clock.monotonic_s())

    async def _send_one(self, *, is_repeated: bool) -> None:
        number = self.oracle.send(self._now_us())
        self._last_us = max(self._last_us + 1, self._clock.now_us())
        self._sent_us[number] = self._last_us
        while (oldest := next(iter(self._sent_us))) < (self.oracle.oldest_known or 0):
            del self._sent_us[oldest]
        try:
            await self._post(number)
        except Unreachable as error:
            self.oracle.give_up(number, self._now_us())
            self._tell(f"log {number} was not acknowledged: {error}")
            return
        self.oracle.acknowledge(number, self._now_us())
        if is_repeated:
            try:
                await self._post(number)
            except Unreachable as error:
                self._tell(f"log {number} was not acknowledged once more: {error}")

    async def _post(self, number: int) -> None:
        plan, sent_us = self._plan, self._sent_us[number]
        log = {
            "service_name": SERVICE,
            "timestamp": time_text(sent_us),
            "message": message_of(plan.run, number, sent_us),
            "correlation_id": plan.run,
            "metadata": {"number": number, "sent_us": sent_us},
        }
        response = await request_patiently(
            self._sending,
            "POST",
            _SEND_PATH,
            clock=self._clock,
            give_up_after_s=plan.give_up_after_s,
            on_wait=self._waiting("sending"),
            content=orjson.dumps(log),
            headers={"Content-Type": "application/json", "Idempotency-Key": f"{plan.run}-{number}"},
        )
        if response.status_code == httpx.codes.OK:
            raise Refused(Problem(200, "A filter dropped the canary's log", f"let {SERVICE} pass `ingest.filters`", {}))
        if response.status_code != httpx.codes.CREATED:
            raise Refused(Problem.read(response))

    # Reading back

    async def _look(self) -> None:
        while True:
            if self.oracle.waits:
                try:
                    await self._walk(self.oracle.oldest_waiting)
                except Unreachable as error:
                    self._tell(f"pages cannot be read: {error}")
            await asyncio.sleep(_LOOK_S)

    async def _walk(self, first: int | None) -> None:
        """One walk in order, from a log on. Raises Refused, Unreachable."""
        if first is None:
            return
        judged = self.oracle.walk(self._now_us())
        parameters = [*self._question(), ("start_time", time_text(self._sent_us[first])), ("order", "asc")]
        pages = walk(
            self._asking,
            parameters,
            read=_read,
            limit=None,
            cursor=None,
            clock=self._clock,
            give_up_after_s=_READ_PATIENCE_S,
            on_wait=self._waiting("pages"),
        )
        async with aclosing(pages):
            async for page in pages:
                now_us = self._now_us()
                for shown in page.logs:
                    number, intact = self._recognise(shown)
                    judged.see(number, shown.id, now_us, intact=intact)
        judged.end()

    async def _last_walk(self) -> None:
        """Everything that can still be judged, once more: what is there twice may have come after it was seen first."""
        try:
            await self._walk(self.oracle.oldest_known)
        except Unreachable as error:
            self._tell(f"pages cannot be read: {error}")

    async def _tail_token(self) -> str:
        """Where the tail begins: before the first log is sent."""
        response = await request_patiently(
            self._asking,
            "GET",
            _SEND_PATH,
            clock=self._clock,
            give_up_after_s=self._plan.give_up_after_s,
            on_wait=self._waiting("pages"),
            params=httpx.QueryParams((*self._tail_question(), ("limit", "1"))),
        )
        if response.status_code != httpx.codes.OK:
            raise Refused(Problem.read(response))
        token = _read(response.content).tail
        if token is None:
            raise Unreachable("the server does not say where to follow from: it is older than this program")
        return token

    async def _follow(self, token: str) -> None:
        messages = follow(
            self._asking,
            self._tail_question(),
            token,
            clock=self._clock,
            give_up_after_s=_FOREVER_S,
            on_wait=self._tail_waits,
        )
        judging = asyncio.create_task(self._judge_tail())
        try:
            async with aclosing(messages):
                async for message in messages:
                    self._tail_is_cut = False
                    now_us = self._now_us()
                    if message.gap is not None or message.skipped:
                        self.oracle.gap(now_us)
                    for log in message.logs:
                        shown = _convert(log)
                        number, intact = self._recognise(shown)
                        self.oracle.see(Way.TAIL, number, shown.id, now_us, intact=intact)
        finally:
            judging.cancel()

    async def _judge_tail(self) -> None:
        while True:
            await asyncio.sleep(_LOOK_S)
            if not self._tail_is_cut:
                self.oracle.judge_tail(self._now_us())

    def _tail_waits(self, reason: str, pause_s: float) -> None:
        self._tail_is_cut = True
        self._waiting("tail")(reason, pause_s)

    async def _until_settled(self) -> None:
        """Until each log was seen or is lost, or until it is clear that nobody answers."""
        patience_s = self._plan.lost_after_s + _SETTLE_MARGIN_S
        deadline_s = self._clock.monotonic_s() + patience_s
        while self.oracle.waits and self._clock.monotonic_s() < deadline_s:  # noqa: ASYNC110  # as verdicts do, it asks
            await asyncio.sleep(_LOOK_S / 5)

    # Of all three

    def _question(self) -> Parameters:
        return [("service_name", SERVICE), ("correlation_id", self._plan.run)]

    def _tail_question(self) -> Parameters:
        return [*self._question(), ("start_time", time_text(self._began_us))]

    def _recognise(self, shown: Shown) -> tuple[int, bool]:
        """(number, whether it is as it was sent). 0: no log of a canary has this number."""
        number, sent_us, as_sent = recognised(shown, self._plan.run)
        return number, as_sent and self._sent_us.get(number, sent_us) == sent_us

    def _waiting(self, what: str) -> Callable[[str, float], None]:
        return lambda reason, _pause_s: self._tell(f"{what} waits: {reason}")

    def _now_us(self) -> int:
        return int(self._clock.monotonic_s() * 1e6)


def _convert(log: dict[str, Any]) -> Shown:  # JSON values
    try:
        return msgspec.convert(log, Shown)
    except msgspec.ValidationError as error:
        raise Unreachable(f"the tail sends what is no log: {error}") from error


def _read(content: bytes) -> Page[Shown]:
    return msgspec.convert(orjson.loads(content), Page[Shown])
