"""Derived topics for who may tail: which there are, and their records from a place on.

A record is shown to who may tail its log's service, looked at again before each answer; others are passed over, and the place
moves on all the same. A service's topic is there for who may tail the service, and for nobody else.

Concurrency: one event loop. Requests wait for a topic's end to move (`ends.py`), then a few read at once, each through a reader
of its own.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec
import orjson

from access.errors import Forbidden
from access.principal import Principal
from broker.port import Delivered
from broker.topic_names import SERVICE_TOPICS, service_of
from broker.topics import Extent, Topics
from query.errors import TooManyTopicReads, TopicGone, TopicNotFound, TopicReadsFull
from query.topics import metrics
from query.topics.ends import Ends, has_more
from query.topics.place import NOW, parse_place, place_text
from query.topics.settings import TopicReadSettings
from runtime.stopping import Stop
from schemas.errors import OffsetOutOfRange
from schemas.scope import ServiceScope
from schemas.topics import TopicInfo, TopicKind, source_of

Recheck = Callable[[], Awaitable[Principal]]
"""Who asks, as of now. Raises what authentication raises."""
_POLL_MS: Final = 2_000
"""How long a read may take that has something to read."""
_TURN_S: Final = 10.0
_FEW_BYTES: Final = 64 * 1024
_RECORD_BYTES: Final = 4 * 1024
"""What a record counts for when few are asked for."""


class _Value(msgspec.Struct):
    """What is looked at of a record's log."""

    id: str
    service_name: str


_decode: Final = msgspec.json.Decoder(_Value).decode


@dataclass(slots=True)
class Records:
    """One answer."""

    topic: str
    shown: list[dict[str, Any]] = field(default_factory=list)  # JSON, logs as fragments
    positions: dict[int, int] = field(default_factory=dict)

    def json(self) -> bytes:
        """See schemas.derived.TopicRecords."""
        return orjson.dumps({"topic": self.topic, "records": self.shown, "next": place_text(self.positions)})


class TopicReads:
    """The derived topics of one process, for readers over HTTP."""

    def __init__(self, settings: TopicReadSettings, topics: Topics, named: Sequence[TopicInfo], *, stop: Stop) -> None:
        """topics: closed by the caller. named: by the settings; others are topics of services. stop: ends what waits."""
        self.settings = settings
        self._topics = topics
        self._named = {info.name: info for info in named}
        self._stop = stop
        self._open: Counter[str] = Counter()
        self._fetches = asyncio.Semaphore(settings.fetches_max)
        self._ends = Ends(topics)

    def check(self, principal: Principal) -> None:
        """Raises Forbidden."""
        if principal.may_tail.is_empty:
            raise Forbidden("you may not tail the logs of any service")

    async def listing(self, principal: Principal) -> list[dict[str, Any]]:
        """The topics that the principal may read records of, as JSON. Raises TooManyTopicReads, Overloaded."""
        with self._counted(principal.subject):
            there = await self._topics.names()
            infos = [info for name in sorted(there) if (info := self._info(name, principal.may_tail)) is not None]
            extents = await self._topics.extents([info.name for info in infos])
        return [_listed(info, extents.get(info.name, {})) for info in infos]

    async def records(
        self, name: str, principal: Principal, recheck: Recheck, *, after: str, limit: int, wait_s: float
    ) -> Records:
        """Records behind the place; waits for some when there are none. Empty: none came, or none that may be seen.

        Raises TopicNotFound, TopicGone, ParameterError, TooManyTopicReads, Overloaded, and what recheck raises.
        """
        self.check(principal)
        self._check_topic(name, principal)
        wanted = {} if after == NOW else parse_place(after)
        with self._counted(principal.subject):
            extents = await self._extents(name)
            found = Records(name, positions=self._begin(name, extents, wanted, is_now=after == NOW))
            ends_s = asyncio.get_running_loop().time() + wait_s
            while True:
                if has_more(extents, found.positions):
                    records = await self._fetch(found, limit)
                    # Of now: a read, and the wait for its turn, may have taken ten seconds.
                    principal = await recheck()
                    self._check_topic(name, principal)
                    _take(found, records, principal.may_tail, limit)
                if found.shown or self._stop.is_set:
                    break
                left_s = ends_s - asyncio.get_running_loop().time()
                if left_s <= 0:
                    break
                has_more_now = await self._ends.beyond(name, found.positions, min(left_s, self.settings.check_s))
                principal = await recheck()
                self._check_topic(name, principal)
                if has_more_now:  # otherwise nobody asks for each who waits what is asked for all of them
                    extents = await self._extents(name)
        metrics.SENT.inc(len(found.shown))
        return found

    async def stop(self) -> None:
        """What waits ends with its next look."""
        self._stop.set()
        await self._ends.stop()
        await self._topics.close()

    async def _extents(self, name: str) -> Mapping[int, Extent]:
        extents = (await self._topics.extents([name])).get(name)
        if not extents:
            raise TopicNotFound(f"topic {name} is not there yet: it comes with its first log")
        return extents

    def _begin(
        self, name: str, extents: Mapping[int, Extent], wanted: Mapping[int, int], *, is_now: bool
    ) -> dict[int, int]:
        """partition -> where to read. Raises TopicGone."""
        begins = {partition: extent.next if is_now else extent.first for partition, extent in extents.items()}
        positions = begins | dict(wanted)
        if any(partition not in extents or offset > extents[partition].next for partition, offset in positions.items()):
            raise self._gone(name, {partition: extent.first for partition, extent in extents.items()}, "remade")
        expired = {
            partition: extent.first for partition, extent in extents.items() if positions[partition] < extent.first
        }
        if expired:
            raise self._gone(name, positions | expired, "expired")
        return positions

    async def _fetch(self, found: Records, limit: int) -> Sequence[Delivered]:
        """One read, through a reader of its own: a few at once. Raises TopicGone, TopicReadsFull, Overloaded."""
        max_bytes = min(self.settings.answer_bytes_max, max(_FEW_BYTES, limit * _RECORD_BYTES))
        try:
            async with asyncio.timeout(_TURN_S):
                await self._fetches.acquire()
        except TimeoutError as error:
            raise TopicReadsFull(retry_after_s=2) from error
        try:
            reader = await self._topics.reader(found.topic)
            try:
                await reader.seek(found.positions)
                return await reader.poll(max_bytes=max_bytes, wait_ms=_POLL_MS)
            except OffsetOutOfRange as error:
                reason = "expired" if error.wanted < error.first else "remade"
                raise self._gone(found.topic, found.positions | {error.partition: error.first}, reason) from error
            finally:
                await reader.close()
        finally:
            self._fetches.release()

    def _check_topic(self, name: str, principal: Principal) -> None:
        if self._info(name, principal.may_tail) is None:
            raise TopicNotFound(f"there is no topic {name[:249]}, or you may not read it")

    @contextmanager
    def _counted(self, subject: str) -> Iterator[None]:
        settings = self.settings
        if self._open[subject] >= settings.subject_reads_max:
            metrics.REFUSED.labels("subject").inc()
            raise TooManyTopicReads(
                f"{self._open[subject]} of your requests for records are open, as many as there may be", retry_after_s=2
            )
        if self._open.total() >= settings.reads_max:
            metrics.REFUSED.labels("process").inc()
            raise TopicReadsFull(retry_after_s=5)
        self._open[subject] += 1
        metrics.READS.set(self._open.total())
        try:
            yield
        finally:
            self._open[subject] -= 1
            if not self._open[subject]:
                del self._open[subject]
            metrics.READS.set(self._open.total())

    def _info(self, name: str, allowed: ServiceScope) -> TopicInfo | None:
        """What a topic is; None for what is none of ours, or not for who may this."""
        if name.startswith(SERVICE_TOPICS):
            service = service_of(name)
            if service is None or not allowed.permits(service):
                return None
            return TopicInfo(name, TopicKind.SERVICE, f"logs of {service}")
        return self._named.get(name)

    @staticmethod
    def _gone(name: str, positions: Mapping[int, int], reason: str) -> TopicGone:
        what = "are past their retention" if reason == "expired" else "are of a topic that was made again"
        return TopicGone(
            f"records of {name} behind this place {what}: go on from `next`, the oldest there are, and find what is missing"
            " with /api/v1/logs",
            reason=reason,
            following=place_text(positions),
        )


def _take(found: Records, records: Sequence[Delivered], allowed: ServiceScope, limit: int) -> None:
    """Add what may be seen, up to the limit, and move on behind what was gone through."""
    for record in records:
        if len(found.shown) >= limit:
            break
        found.positions[record.partition] = record.offset + 1
        source = source_of(record.headers)
        if source is None:
            continue  # not the router's: nobody knows whose log it is
        try:
            log = _decode(record.value)
        except msgspec.MsgspecError:
            continue
        if allowed.permits(log.service_name):
            found.shown.append(
                {
                    "partition": record.partition,
                    "offset": record.offset,
                    "key": log.service_name,
                    "source": {"partition": source.partition, "offset": source.offset, "index": source.index},
                    "log": orjson.Fragment(record.value),
                }
            )


def _listed(info: TopicInfo, extents: Mapping[int, Extent]) -> dict[str, Any]:
    return {
        "name": info.name,
        "kind": info.kind,
        "description": info.description,
        "partitions": [
            {"partition": partition, "first_offset": extent.first, "next_offset": extent.next}
            for partition, extent in sorted(extents.items())
        ],
    }
