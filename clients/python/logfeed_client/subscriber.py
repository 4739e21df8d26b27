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
        """url: of Logfeed, without a path. after: a place that was saved, "now", or "" for the oldest record. limit: records
        of a request. wait_s: how long one request waits for records. ids_max: ids that are remembered. on_gap: is told of
        expired records, and the subscriber goes on; without it GapError is raised. client: one of your own (proxies,
        certificates), closed by you."""
        self.after = after
        self._topic = topic
        self._address = f"{url.rstrip('/')}/api/v1/topics/{quote(topic, safe='')}/records"
        self._headers = {} if api_key is None else {"Authorization": f"Bearer {api_key}"}
        self._limit = limit
        self._wait_s = wait_s
        self._ids_max = ids_max
        self._ids: dict[str, None] = {}
        self._on_gap = on_gap
        self._client = client or httpx.Client()
        self._is_own = client is None
        self._closed = threading.Event()

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
            place = None if self.after == _NOW else _positions(self.after)
            for document in answer["records"]:
                record = Record(
                    self._topic, document["partition"], document["offset"], document["key"], document["log"]
                )
                if place is not None:
                    # From the first request on all partitions stand in the place; before, those that do not begin with
                    # their oldest record, which is where this one began too.
                    place[record.partition] = record.offset + 1
                    self.after = _text(place)
                if self._is_new(record.id):
                    yield record
                    if self._closed.is_set():
                        return
            self.after = answer["next"]

    def _answer(self) -> dict[str, Any] | None:
        """The next answer; None after a gap that was told, and when it is closed. Waits out what passes by itself."""
        backoff_s = _BACKOFF_S_MIN
        while not self._closed.is_set():
            wanted_s: float | None = None
            try:
                response, body = self._get()
            except (httpx.TransportError, httpx.DecodingError, RuntimeError):
                if self._closed.is_set():
                    return None
            else:
                if response.status_code == httpx.codes.OK:
                    return _records(body)
                if response.status_code == httpx.codes.GONE:
                    self._gap(body)
                    return None
                if response.status_code != httpx.codes.TOO_MANY_REQUESTS and response.status_code < 500:
                    raise SubscriptionError(response.status_code, _detail(body))
                wanted_s = _retry_after_s(response)
            # Not in step with others who were refused at the same moment.
            self._closed.wait((backoff_s if wanted_s is None else wanted_s) * random.uniform(1.0, 1.3))
            backoff_s = min(backoff_s * 2, _BACKOFF_S_MAX)
        return None

    def _get(self) -> tuple[httpx.Response, bytes]:
        """One answer and its body. Raises SubscriptionError for one that is too long, and what httpx raises."""
        body = bytearray()
        with self._client.stream(
            "GET",
            self._address,
            params={"after": self.after, "limit": self._limit, "wait": self._wait_s},
            headers=self._headers,
            timeout=httpx.Timeout(self._wait_s + 30.0, connect=_CONNECT_S),
        ) as response:
            for piece in response.iter_bytes():
                body += piece
                if len(body) > ANSWER_BYTES_MAX:
                    raise SubscriptionError(response.status_code, f"the answer has more than {ANSWER_BYTES_MAX} bytes")
        return response, bytes(body)

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


def _retry_after_s(response: httpx.Response) -> float | None:
    text = response.headers.get("Retry-After", "")
    return min(float(text), _BACKOFF_S_MAX) if text.isascii() and text.isdecimal() else None
