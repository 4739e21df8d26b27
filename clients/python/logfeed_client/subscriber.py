"""A subscriber of one derived topic: long polls, one after the other.

Promises. Records come in order of each partition. `after` is always the place behind the last record that was handed out: who
saves it with what it made of that record goes on exactly there. Logs are delivered at least once; within one subscriber those
that come again are left out by their ids, of which the last `ids_max` are remembered; over a restart the last one handed out
may come again when `after` was not saved.

429, 503, other answers of 5xx and lost connections are waited out, as long as `Retry-After` says, or twice as long each time,
up to a minute. What no waiting cures is raised: SubscriptionError for credentials and parameters, and for an answer that is
none of Logfeed's (a proxy's page), of which ANSWER_BYTES_MAX are read at most; GapError for expired records.

One thread iterates; `close` may be called by another.
"""

from __future__ import annotations

import json
import random
import re
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self
from urllib.parse import quote

import httpx

from logfeed_client.connecting import client_options, key_of

_BACKOFF_S_MIN: Final = 0.5
_BACKOFF_S_MAX: Final = 60.0
_CONNECT_S: Final = 10.0
_NOW: Final = "now"
ANSWER_BYTES_MAX: Final = 256 * 1024 * 1024
"""Of one answer, unpacked; the server's are a quarter of it at most."""
_PLACE: Final = re.compile(r"([0-9]{1,4}:[0-9]{1,18}(,[0-9]{1,4}:[0-9]{1,18})*)?", re.ASCII)


@dataclass(frozen=True, slots=True)
class Record:
    """One log of a topic."""

    topic: str
    partition: int
    offset: int
    key: str
    """The log's service."""
    log: dict[str, Any]
    """As the API writes logs: id, timestamp, received_at, level, severity, service_name, message, correlation_id, metadata."""

    @property
    def id(self) -> str:
        """Of the log: the same however often it comes."""
        return str(self.log["id"])


@dataclass(frozen=True, slots=True)
class Gap:
    """Records that are not there any more."""

    topic: str
    after: str
    """The place that was asked for."""
    next: str
    """The place that goes on behind the gap."""
    reason: str
    """`expired`, or `remade`: the topic was made again."""
    detail: str


class SubscriptionError(Exception):
    """The server refuses this subscription, and waiting does not help."""

    def __init__(self, status: int, detail: str) -> None:
        """status: of HTTP. detail: for people."""
        super().__init__(f"{status}: {detail}")
        self.status = status
        self.detail = detail


class GapError(Exception):
    """Records behind the place are past their retention: go on from `gap.next`, and find what is missing by pages."""

    def __init__(self, gap: Gap) -> None:
        """gap: what is missing."""
        super().__init__(gap.detail)
        self.gap = gap


@dataclass(frozen=True, slots=True)
class Answered:
    """One answer of the server."""

    status: int
    retry_after: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Judged:
    """What an answer means for the iteration."""

    is_final: bool
    """False: ask the same again, later."""
    records: dict[str, Any] | None = None
    """The answer with records; None after a gap that was told."""


class TopicPlace:
    """Where a subscriber stands, what it asks for, and what answers mean. Decides only; both subscribers share it."""

    def __init__(
        self,
        url: str,
        topic: str,
        api_key: str | None,
        after: str,
        limit: int,
        wait_s: float,
        ids_max: int,
        on_gap: Callable[[Gap], None] | None,
    ) -> None:
        """As `Subscriber` takes them."""
        self.after = after
        self._topic = topic
        self._address = f"{url.rstrip('/')}/api/v1/topics/{quote(topic, safe='')}/records"
        key = key_of(api_key)
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._limit = limit
        self._wait_s = wait_s
        self._ids_max = ids_max
        self._ids: dict[str, None] = {}
        self._on_gap = on_gap
        self._backoff_s = _BACKOFF_S_MIN

    def begin(self) -> None:
        """A question that was not asked before."""
        self._backoff_s = _BACKOFF_S_MIN

    def request(self) -> dict[str, Any]:
        """Arguments of httpx's stream: values of many types."""
        return {
            "url": self._address,
            "params": {"after": self.after, "limit": self._limit, "wait": self._wait_s},
            "headers": self._headers,
            "timeout": httpx.Timeout(self._wait_s + 30.0, connect=_CONNECT_S),
        }

    def grow(self, body: bytearray, piece: bytes, status: int) -> None:
        """Take a piece of an answer. Raises SubscriptionError when it has too many."""
        body += piece
        if len(body) > ANSWER_BYTES_MAX:
            raise SubscriptionError(status, f"the answer has more than {ANSWER_BYTES_MAX} bytes")

    def judge(self, answered: Answered) -> Judged:
        """Raises SubscriptionError, GapError."""
        if answered.status == httpx.codes.OK:
            return Judged(True, _records(answered.body))
        if answered.status == httpx.codes.GONE:
            self._gap(answered.body)
            return Judged(True)
        if answered.status != httpx.codes.TOO_MANY_REQUESTS and answered.status < 500:
            raise SubscriptionError(answered.status, _detail(answered.body))
        return Judged(False)

    def pause_s(self, answered: Answered | None, chance: float) -> float:
        """Seconds before the same question is asked again. answered: None where there was no answer. chance: stretches it, so
        that this one is not in step with others who were refused at the same moment."""
        wanted_s = None if answered is None else _retry_after_s(answered.retry_after)
        pause_s = (self._backoff_s if wanted_s is None else wanted_s) * chance
        self._backoff_s = min(self._backoff_s * 2, _BACKOFF_S_MAX)
        return pause_s

    def records(self, answer: dict[str, Any]) -> Iterator[Record]:
        """The records of an answer that were not handed out; `after` stands behind each of them in turn, then behind all."""
        # From the first request on all partitions stand in the place; before, those that do not begin with their oldest
        # record, which is where this one began too. `now` was before the first record of each, else where it goes on.
        place = _positions(answer["next"] if self.after == _NOW else self.after)
        if self.after == _NOW:
            place |= {document["partition"]: document["offset"] for document in reversed(answer["records"])}
        for document in answer["records"]:
            record = Record(self._topic, document["partition"], document["offset"], document["key"], document["log"])
            place[record.partition] = record.offset + 1
            self.after = _text(place)
            if self._is_new(record.id):
                yield record
        self.after = answer["next"]

    def _gap(self, body: bytes) -> None:
        document = _document(body, httpx.codes.GONE)
        place, reason, detail = (document.get(name) for name in ("next", "reason", "detail"))
        if not (_is_place(place) and place != self.after):
            raise _not_ours(httpx.codes.GONE)
        gap = Gap(self._topic, self.after, str(place), str(reason), str(detail))
        if self._on_gap is None:
            raise GapError(gap)
        self._on_gap(gap)
        self.after = gap.next

    def _is_new(self, log_id: str) -> bool:
        if log_id in self._ids:
            return False
        self._ids[log_id] = None
        if len(self._ids) > self._ids_max:
            del self._ids[next(iter(self._ids))]
        return True


class Subscriber:
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
        client: httpx.Client | None = None,
    ) -> None:
        """url: of Logfeed, without a path. api_key: None: LOGFEED_API_KEY. after: a place that was saved, "now", or "" for the
        oldest record. limit: records of a request. wait_s: how long one request waits for records. ids_max: ids that are
        remembered. on_gap: is told of expired records, and the subscriber goes on; without it GapError is raised. client: one
        of your own (proxies, certificates), closed by you. Raises ValueError."""
        self._place = TopicPlace(url, topic, api_key, after, limit, wait_s, ids_max, on_gap)
        self._client = client or httpx.Client(**client_options(url))
        self._is_own = client is None
        self._closed = threading.Event()

    @property
    def after(self) -> str:
        """The place behind the last record that was handed out."""
        return self._place.after

    def __enter__(self) -> Self:
        """The subscriber."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """See close."""
        self.close()

    def close(self) -> None:
        """End the iteration: at once while it waits for the server to come back, else with the request under way."""
        self._closed.set()
        if self._is_own:
            self._client.close()

    def __iter__(self) -> Iterator[Record]:
        """Records, until `close`. Raises SubscriptionError, GapError."""
        while not self._closed.is_set():
            answer = self._answer()
            if answer is None:
                continue
            for record in self._place.records(answer):
                yield record
                if self._closed.is_set():
                    return

    def _answer(self) -> dict[str, Any] | None:
        """The next answer; None after a gap that was told, and when it is closed. Waits out what passes by itself."""
        self._place.begin()
        while not self._closed.is_set():
            answered: Answered | None = None
            try:
                answered = self._get()
            except (httpx.TransportError, httpx.DecodingError):
                pass
            except RuntimeError:  # the client was closed: here, or by whoever owns it
                if not self._closed.is_set():
                    raise
            if answered is not None:
                judged = self._place.judge(answered)
                if judged.is_final:
                    return judged.records
            self._closed.wait(self._place.pause_s(answered, random.uniform(1.0, 1.3)))
        return None

    def _get(self) -> Answered:
        """One answer. Raises SubscriptionError for one that is too long, and what httpx raises."""
        body = bytearray()
        with self._client.stream("GET", **self._place.request()) as response:
            for piece in response.iter_bytes():
                self._place.grow(body, piece, response.status_code)
        return Answered(response.status_code, response.headers.get("Retry-After", ""), bytes(body))


def _not_ours(status: int) -> SubscriptionError:
    return SubscriptionError(
        status, "this is no answer of Logfeed's: is the address right, and is no other program before it?"
    )


def _document(body: bytes, status: int) -> dict[str, Any]:
    """Raises SubscriptionError."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise _not_ours(status) from error
    if not isinstance(document, dict):
        raise _not_ours(status)
    return document


def _records(body: bytes) -> dict[str, Any]:
    """An answer with records. Raises SubscriptionError."""
    answer = _document(body, httpx.codes.OK)
    records = answer.get("records")
    if not (isinstance(records, list) and all(map(_is_record, records)) and _is_place(answer.get("next"))):
        raise _not_ours(httpx.codes.OK)
    return answer


def _is_record(document: Any) -> bool:  # a JSON value
    return (
        isinstance(document, dict)
        and type(document.get("partition")) is type(document.get("offset")) is int
        and isinstance(document.get("key"), str)
        and isinstance(log := document.get("log"), dict)
        and isinstance(log.get("id"), str)
    )


def _is_place(text: Any) -> bool:  # a JSON value
    return isinstance(text, str) and _PLACE.fullmatch(text) is not None


def _positions(place: str) -> dict[int, int]:
    pairs = (pair.partition(":") for pair in place.split(",") if pair)
    return {int(partition): int(offset) for partition, _, offset in pairs}


def _text(positions: dict[int, int]) -> str:
    return ",".join(f"{partition}:{offset}" for partition, offset in sorted(positions.items()))


def _detail(body: bytes) -> str:
    try:
        return str(json.loads(body)["detail"])[:500]
    except (ValueError, KeyError, TypeError, RecursionError):
        return body[:500].decode("utf-8", "replace")


def _retry_after_s(text: str) -> float | None:
    return min(float(text), _BACKOFF_S_MAX) if text.isascii() and text.isdecimal() else None
