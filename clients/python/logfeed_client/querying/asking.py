"""What both clients share: where the server is, what is asked, what an answer means, how long to be patient. Decides only.

Sent again, with the pause the server asks for or one that grows: what got no connection, or an answer that was spoiled on its
way, 408, 429, 502, 503, 504. All questions are GET, so that is always safe.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import Any, Final, Generic, Literal

import httpx

from logfeed_client.connecting import checked_url, client_options, key_of
from logfeed_client.errors import LogfeedError, NotLogfeed, Unauthenticated, Unreachable, problem_of
from logfeed_client.querying.events import Frame
from logfeed_client.querying.questions import (
    BASE,
    PAGE_LOGS_MAX,
    Filters,
    Parameters,
    Time,
    correlation_path,
    log_path,
    parameters_of,
    time_text,
)
from logfeed_client.querying.results import (
    Histogram,
    Json,
    Kind,
    Log,
    LogContext,
    Page,
    TailGap,
    context_of,
    histogram_of,
    one_of,
    page_of,
    read,
)
from logfeed_client.waiting import pause_s, retry_after_s

TAIL_PATH: Final = f"{BASE}/tail"
ANSWER_BYTES_MAX: Final = 64 * 1024 * 1024
"""Of one answer, unpacked; a page of the server's has 8 MiB."""
SILENCE_S: Final = 60.0
"""Without a byte for so long a tail's connection is dead: one that lives says so every 15 s."""
_AGAIN: Final = frozenset({408, 429, 502, 503, 504})
_CONNECT_S: Final = 10.0

Chance = Callable[[], float]
Order = Literal["desc", "asc"]
"""By (timestamp, id): newest first, oldest first."""


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


PASSING: Final = (Later, httpx.TransportError, httpx.DecodingError)
"""After these the same is asked again."""

# --- questions


@dataclass(frozen=True, slots=True)
class Question(Generic[Kind]):
    """What is asked, and as what its answer is read."""

    path: str
    parameters: Parameters
    build: Callable[[Json], Kind]

    def request(self, address: Address) -> dict[str, Any]:
        """Arguments of httpx's `stream`: values of many types."""
        return {
            "method": "GET",
            "url": f"{address.url}{self.path}",
            "params": httpx.QueryParams(tuple(self.parameters)),
            "headers": address.headers(),
        }

    def read(self, response: httpx.Response, body: bytes) -> Kind:
        """An answer as a type. Raises Later, ProblemError, NotLogfeed."""
        check(response, body)
        return read(body, self.build)

    def after(self, cursor: str) -> Question[Kind]:
        """The same question, further on."""
        kept = [pair for pair in self.parameters if pair[0] != "cursor"]
        return replace(self, parameters=[*kept, ("cursor", cursor)])


def ask_pages(
    filters: Filters, *, order: Order, page_logs: int, cursor: str | None = None, around: Time | None = None
) -> Question[Page]:
    """The first page that is wanted. Raises TypeError."""
    found = [*parameters_of(filters), ("order", order), ("limit", str(min(page_logs, PAGE_LOGS_MAX)))]
    if around is not None:
        found.append(("around", time_text(around)))
    if cursor is not None:
        found.append(("cursor", cursor))
    return Question(f"{BASE}/logs", found, page_of)


def ask_one(log_id: str | int) -> Question[Log]:
    """One log."""
    return Question(log_path(log_id), [], one_of)


def ask_context(log_id: str | int, *, before: int, after: int) -> Question[LogContext]:
    """Its neighbours."""
    return Question(f"{log_path(log_id)}/context", [("before", str(before)), ("after", str(after))], context_of)


def ask_correlation(correlation_id: str, *, page_logs: int) -> Question[Page]:
    """The first page of a story."""
    return Question(correlation_path(correlation_id), [("limit", str(page_logs))], page_of)


def ask_histogram(filters: Filters, *, buckets: int) -> Question[Histogram]:
    """Counts over time. Raises TypeError."""
    return Question(f"{BASE}/histogram", [*parameters_of(filters), ("buckets", str(buckets))], histogram_of)


# --- answers


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


def check(response: httpx.Response, body: bytes) -> None:
    """Raises Later, ProblemError; NotLogfeed for an answer that is neither 200 nor a refusal."""
    status = response.status_code
    if status == 200:
        return
    if status in _AGAIN:
        raise Later(str(problem_of(status, body)), retry_after_s(response.headers.get("Retry-After"), time.time()))
    if status < 400:
        raise NotLogfeed(f"the server answers {status}: is the address right?")
    raise problem_of(status, body)


def grown(received: bytearray, piece: bytes) -> None:
    """Take a piece of an answer. Raises NotLogfeed when it has too many."""
    received += piece
    if len(received) > ANSWER_BYTES_MAX:
        raise NotLogfeed(f"the answer has more than {ANSWER_BYTES_MAX} bytes")


# --- tails


@dataclass(slots=True)
class TailPlace:
    """What a tail asks for, where it stands, and which logs were handed out last."""

    address: Address
    parameters: Parameters
    token: str
    """`now` before the first message."""
    ids_max: int
    on_skipped: Callable[[int], None] | None
    on_gap: Callable[[TailGap], None] | None
    _seen: dict[str, None] = field(default_factory=dict)

    def request(self) -> dict[str, Any]:
        """Arguments of httpx's `stream`: values of many types. The place goes in a header: it may be longer than some proxies
        take an address to be."""
        is_begun = self.token != "now"
        place = {"Last_Event_ID": self.token} if is_begun else {}
        begin = [] if is_begun else [("from", self.token)]
        return {
            "method": "GET",
            "url": f"{self.address.url}{TAIL_PATH}",
            "params": httpx.QueryParams((*self.parameters, *begin)),
            "headers": self.address.headers(Accept="text/event-stream", **place),
            "timeout": httpx.Timeout(SILENCE_S, connect=_CONNECT_S),
        }

    def take(self, frame: Frame) -> Iterator[Log]:
        """The logs of a message that were not handed out; behind the last of them a new connection begins behind the message.
        Who leaves before that is given the rest when it comes again. Raises Later, Unauthenticated when the server ends the
        tail, TailGapError for a gap that nobody is told of."""
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
        for log in frame.logs:
            if log.id not in self._seen:
                self._seen[log.id] = None
                if len(self._seen) > self.ids_max:
                    del self._seen[next(iter(self._seen))]
                yield log
        self.token = frame.token or self.token


class TailGapError(LogfeedError):
    """Logs that came meanwhile cannot be shown any more: go on from `token`, and find what is missing by pages with
    `gap.query`."""

    def __init__(self, gap: TailGap, token: str) -> None:
        """gap: what is missing. token: behind it."""
        super().__init__(f"logs are missing ({gap.reason}): ask for /api/v1/logs?{gap.query}")
        self.gap = gap
        self.token = token
