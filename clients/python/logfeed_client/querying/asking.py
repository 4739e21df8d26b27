"""What both clients share: where the server is, how one asks, what an answer means, how long to be patient. Decides only.

Sent again, with the pause the server asks for or one that grows: what got no connection, 408, 429, 502, 503, 504. All
questions are GET, so that is always safe.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import httpx

from logfeed_client.connecting import checked_url, client_options, key_of
from logfeed_client.errors import LogfeedError, NotLogfeed, Unauthenticated, Unreachable, problem_of
from logfeed_client.querying.events import Frame
from logfeed_client.querying.questions import BASE, PAGE_LOGS_MAX, Filters, Parameters, Time, parameters_of, time_text
from logfeed_client.querying.results import Json, Kind, Log, TailGap, read
from logfeed_client.waiting import pause_s, retry_after_s

TAIL_PATH: Final = f"{BASE}/tail"
ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of one answer, unpacked; a page of the server's has 8 MiB."""
SILENCE_S: Final = 60.0
"""Without a byte for so long a tail's connection is dead: one that lives says so every 15 s."""
_AGAIN: Final = frozenset({408, 429, 502, 503, 504})
_CONNECT_S: Final = 10.0

Answer = TypeVar("Answer")
Chance = Callable[[], float]


@dataclass(frozen=True, slots=True)
class Address:
    """A server, and who asks."""

    url: str
    api_key: str | None
    timeout_s: float

    @classmethod
    def of(cls, url: str | None, api_key: str | None, timeout_s: float) -> Address:
        """With what the environment says where nothing is given. Raises ValueError."""
        return cls(checked_url(url), key_of(api_key), timeout_s)

    def options(self) -> dict[str, Any]:
        """Arguments of an httpx client: values of many types."""
        return {"timeout": httpx.Timeout(self.timeout_s, connect=_CONNECT_S), **client_options(self.url)}

    def headers(self, **more: str) -> dict[str, str]:
        """Of a request."""
        key = {} if self.api_key is None else {"Authorization": f"Bearer {self.api_key}"}
        return {**key, **{name.replace("_", "-"): value for name, value in more.items()}}


class Later(Exception):
    """The server wants to be asked again; never leaves this package."""

    def __init__(self, text: str, asked_s: float | None = None) -> None:
        """text: for people. asked_s: when."""
        super().__init__(text)
        self.asked_s = asked_s


@dataclass(slots=True)
class Patience:
    """How long one question, or one tail, is asked again."""

    give_up_after_s: float
    """Since the first failure in a row."""
    chance: Chance
    """0..1."""
    _failed_at_s: float | None = None
    _attempt: int = 0

    def pause_after(self, failure: Exception, *, now_s: float) -> float:
        """Seconds before the next attempt. now_s: monotonic. Raises Unreachable when that is too late."""
        self._failed_at_s = now_s if self._failed_at_s is None else self._failed_at_s
        asked_s = failure.asked_s if isinstance(failure, Later) else None
        pause = pause_s(self._attempt, asked_s, self.chance())
        self._attempt += 1
        if now_s + pause - self._failed_at_s > self.give_up_after_s:
            raise Unreachable(f"gave up after {now_s - self._failed_at_s:.0f} s: {reason_of(failure)}") from failure
        return pause

    def answered(self) -> None:
        """Failures before this count no more."""
        self._failed_at_s, self._attempt = None, 0


def reason_of(failure: Exception) -> str:
    """For people."""
    return str(failure) or type(failure).__name__


def answered(status: int, headers: Mapping[str, str], body: bytes, build: Callable[[Json], Kind]) -> Kind:
    """An answer as a type. Raises Later, ProblemError, NotLogfeed."""
    check(status, headers, body)
    return read(body, build)


def check(status: int, headers: Mapping[str, str], body: bytes) -> None:
    """Raises Later, ProblemError; NotLogfeed for an answer that is neither 200 nor a refusal."""
    if status == 200:
        return
    if status in _AGAIN:
        raise Later(str(problem_of(status, body)), retry_after_s(headers.get("Retry-After"), time.time()))
    if status < 400:
        raise NotLogfeed(f"the server answers {status}: is the address right?")
    raise problem_of(status, body)


def grown(received: bytearray, piece: bytes) -> None:
    """Take a piece of an answer. Raises NotLogfeed when it has too many."""
    received += piece
    if len(received) > ANSWER_BYTES_MAX:
        raise NotLogfeed(f"the answer has more than {ANSWER_BYTES_MAX} bytes")


def find_parameters(
    filters: Filters, *, order: str, page_logs: int, cursor: str | None, around: Time | None
) -> Parameters:
    """Of the first page that is asked for. Raises TypeError."""
    found = [*parameters_of(filters), ("order", order), ("limit", str(min(page_logs, PAGE_LOGS_MAX)))]
    if around is not None:
        found.append(("around", time_text(around)))
    return found if cursor is None else [*found, ("cursor", cursor)]


def with_cursor(parameters: Parameters, cursor: str) -> Parameters:
    """The same question, further on."""
    return [*(pair for pair in parameters if pair[0] != "cursor"), ("cursor", cursor)]


@dataclass(slots=True)
class TailPlace:
    """Where a tail stands, and which logs were handed out last."""

    token: str
    """`now` before the first message."""
    ids_max: int
    on_skipped: Callable[[int], None] | None
    on_gap: Callable[[TailGap], None] | None
    _seen: dict[str, None] = field(default_factory=dict)

    def headers(self) -> dict[str, str]:
        """In a header: a token may be longer than some proxies take an address to be."""
        return {"Last_Event_ID": self.token} if self.token != "now" else {}

    def take(self, frame: Frame) -> list[Log]:
        """The logs of a message that were not handed out. Raises Later, Unauthenticated when the server ends the tail,
        TailGapError for a gap that nobody is told of."""
        if frame.end is not None:
            if frame.is_final:
                raise Unauthenticated(401, {"title": "The tail has ended", "detail": frame.detail or frame.end})
            raise Later(f"the server ended the tail: {frame.detail or frame.end}")
        if frame.skipped and self.on_skipped is not None:
            self.on_skipped(frame.skipped)
        if frame.gap is not None:
            if self.on_gap is None:
                raise TailGapError(frame.gap, frame.token or self.token)
            self.on_gap(frame.gap)
        fresh = [log for log in frame.logs if log.id not in self._seen]
        self._seen.update((log.id, None) for log in fresh)
        while len(self._seen) > self.ids_max:
            del self._seen[next(iter(self._seen))]
        return fresh

    def handed_out(self, frame: Frame) -> None:
        """All of it: a new connection begins behind it."""
        self.token = frame.token or self.token


class TailGapError(LogfeedError):
    """Logs that came meanwhile cannot be shown any more: go on from `token`, and find what is missing by pages with
    `gap.query`."""

    def __init__(self, gap: TailGap, token: str) -> None:
        """gap: what is missing. token: behind it."""
        super().__init__(f"logs are missing ({gap.reason}): ask for /api/v1/logs?{gap.query}")
        self.gap = gap
        self.token = token
