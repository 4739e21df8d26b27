"""Hands frames to the broker, and keeps requests away while the broker could lose what nobody has stored.

Three tasks beside the requests: one connects the producer where the broker was away at the start, one asks for the
retention's risk, one publishes the counts of requests that had nothing to keep. Counts are kept per minute of reception;
one frame of them after the other goes out. One that was certainly not sent gets a new key for the next attempt, and with it
another partition: the one without a leader holds up no counts. One that may have been taken goes out again under its own key
until it is acknowledged, so that the writer books it once; a few of those may wait while others pass. A request without
room for its counts gets 503 rather than uncounted logs; one with logs to keep needs none, its frame carries them.

The tasks outlive unexpected errors, cancellations that are not theirs included: they log them, show them, and try again.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from typing import Final

import structlog

from broker.port import Broker, Producer, Record
from ingest import metrics
from ingest.errors import RetentionAtRisk
from ingest.receive import SERVICES_MAX, frame_headers
from ingest.settings import IngestSettings
from runtime.sparing import SparingLog
from runtime.stopping import Stop, every
from schemas.errors import (
    BrokerUnavailable,
    ConfigurationError,
    LogfeedError,
    Overloaded,
    PartitionUnavailable,
    RecordNotSent,
)
from schemas.frames import FRAME_BYTES_MAX, FrameHeader, ServiceCounts
from schemas.topics import WRITER_GROUP

log = structlog.get_logger(__name__)

COUNTS_MAX: Final = 20_000
"""Most (minute, service) entries of counts that wait."""
_COUNTS_PER_FRAME: Final = 1_000
_DOUBTFUL_MAX: Final = 8
"""Most frames of counts that may have been taken and are not acknowledged; while there are so many, no other goes out."""
_KEYS_MAX: Final = 4
"""Keys that a frame of counts is tried under in one go."""
_CONNECT_EVERY_S: Final = 2.0
_MINUTE_MS: Final = 60_000
Counts = Mapping[str, ServiceCounts]


@dataclass(frozen=True, slots=True)
class _CountsFrame:
    record: Record
    key: bytes
    minute_ms: int
    counts: Counts


class Publisher:
    """One producer, shared by all requests."""

    def __init__(
        self, broker: Broker, settings: IngestSettings, *, new_frame_id: Callable[[], bytes] | None = None
    ) -> None:
        """broker: opened by whoever made it, before or after. new_frame_id: 16 random bytes (tests)."""
        self._broker = broker
        self._settings = settings
        self._new_frame_id = new_frame_id or (lambda: os.urandom(16))
        self._producer: Producer | None = None
        self._risk = 0.0
        self._broker_problem: str | None = "the broker was not reached yet"
        self._waiting: dict[int, dict[str, ServiceCounts]] = {}
        self._waiting_entries = 0
        self._promised_entries = 0
        self._failed: dict[str, str] = {}
        """Task -> the unexpected error of its last attempt."""
        self._unsent: _CountsFrame | None = None
        """Certainly not sent yet: free to take another key."""
        self._doubtful: list[_CountsFrame] = []
        """May have been taken: bound to their keys."""
        self._repeated = SparingLog(log)

    # --- state ---

    def problems(self) -> list[str]:
        """What keeps requests from being taken, for people; empty when nothing does."""
        found = [] if self._broker_problem is None else [self._broker_problem]
        if self._risk >= self._settings.retention_risk_max:
            found.append(self._risk_text())
        if self._waiting_entries >= COUNTS_MAX - SERVICES_MAX:
            found.append(self._counts_text())
        found.extend(f"{task} failed: {error}" for task, error in self._failed.items())
        return found

    def check(self) -> None:
        """Raises RecordNotSent, RetentionAtRisk when a request would be refused whatever is in it."""
        if self._producer is None:
            raise RecordNotSent("the broker does not answer", retry_after_s=2)
        if self._risk >= self._settings.retention_risk_max:
            raise RetentionAtRisk(self._risk_text(), retry_after_s=30)

    def _risk_text(self) -> str:
        return (
            f"logs that no writer has stored have used up {self._risk:.0%} of the broker's retention (limit "
            f"{self._settings.retention_risk_max:.0%}): start writers, or look at why they halt"
        )

    def _counts_text(self) -> str:
        return f"{self._waiting_entries} counts of requests without kept logs wait to be published (limit {COUNTS_MAX})"

    # --- frames ---

    async def publish(self, value: bytes, header: FrameHeader) -> None:
        """One frame; returns when it is durable.

        Raises RecordTooLarge, Overloaded, RecordNotSent (nothing was sent), BrokerUnavailable (may have been stored).
        """
        await self._publish(Record(value, frame_headers(header, value)), header.key_hash)

    async def _publish(self, record: Record, key: bytes | None) -> None:
        self.check()
        producer = self._producer
        if producer is None:
            raise RecordNotSent("the broker does not answer", retry_after_s=2)
        began_s = time.perf_counter()
        try:
            async with asyncio.timeout(self._settings.publish_deadline_s):
                await producer.publish(record, partition_key=key)
        except TimeoutError:
            self._broker_problem = f"the broker did not acknowledge within {self._settings.publish_deadline_s:g} s"
            raise BrokerUnavailable(self._broker_problem) from None
        except PartitionUnavailable:
            raise  # one key's trouble: nothing that another process would not have as well
        except BrokerUnavailable as error:
            self._broker_problem = str(error)
            raise
        self._broker_problem = None
        metrics.PUBLISH_SECONDS.observe(time.perf_counter() - began_s)
        metrics.FRAME_BYTES.inc(record.size_bytes)

    def new_frame_id(self) -> bytes:
        """16 random bytes."""
        return self._new_frame_id()

    # --- counts without logs ---

    @contextmanager
    def room(self, entries: int) -> Iterator[None]:
        """Keep room for so many entries, which the block may `note` once. Raises Overloaded; nothing has changed then."""
        if entries and self._waiting_entries + self._promised_entries + entries > COUNTS_MAX:
            raise Overloaded(self._counts_text(), retry_after_s=2)
        self._promised_entries += entries
        try:
            yield
        finally:
            self._promised_entries -= entries

    def note(self, received_ms: int, counts: Counts) -> None:
        """Book the counts of a request that has nothing to keep with the next periodic frame."""
        minute = self._waiting.setdefault(received_ms // _MINUTE_MS * _MINUTE_MS, {})
        for service_name, count in counts.items():
            sum_ = minute.get(service_name)
            if sum_ is None:
                sum_ = minute[service_name] = ServiceCounts()
                self._waiting_entries += 1
            _add(sum_, count)

    async def flush_counts(self) -> bool:
        """Publish what waits; False when something is left because the broker does not take it."""
        left = await self._flush_waiting()
        if left is None or isinstance(left, PartitionUnavailable) or len(self._doubtful) >= _DOUBTFUL_MAX:
            left = await self._flush_doubtful() or left
        if left is None:
            return True
        self._repeated.warning("counts not published, they are kept", error=str(left))
        return False

    async def _flush_waiting(self) -> Overloaded | None:
        """Publish what was certainly not sent; why something is left, if it is."""
        keys = 0
        while self._unsent is not None or self._waiting:
            if len(self._doubtful) >= _DOUBTFUL_MAX:
                return Overloaded(f"{len(self._doubtful)} frames of counts wait for their acknowledgement")
            # Doubtful from here on, unless it is known better: whatever ends this attempt, it must not be booked twice.
            frame = self._unsent or self._next_counts()
            self._unsent = None
            self._doubtful.append(frame)
            try:
                await self._publish(frame.record, frame.key)
            except RecordNotSent as error:
                self._doubtful.remove(frame)
                self._unsent = self._counts_frame(frame.minute_ms, frame.counts)
                keys += 1
                if not isinstance(error, PartitionUnavailable) or keys >= _KEYS_MAX:
                    return error
            except BrokerUnavailable as error:
                return error
            except Overloaded as error:
                self._doubtful.remove(frame)
                self._unsent = frame
                return error
            else:
                self._doubtful.remove(frame)
        return None

    async def _flush_doubtful(self) -> Overloaded | None:
        """Publish once more what may have been taken; why something is left, if it is."""
        left: Overloaded | None = None
        for frame in list(self._doubtful):
            try:
                await self._publish(frame.record, frame.key)
            except PartitionUnavailable as error:
                left = error
            except Overloaded as error:
                return error
            else:
                self._doubtful.remove(frame)
        return left

    def _next_counts(self) -> _CountsFrame:
        minute_ms, waiting = next(iter(self._waiting.items()))
        names = list(waiting)[:_COUNTS_PER_FRAME]
        counts = {name: waiting.pop(name) for name in names}
        self._waiting_entries -= len(names)
        if not waiting:
            del self._waiting[minute_ms]
        return self._counts_frame(minute_ms, counts)

    def _counts_frame(self, minute_ms: int, counts: Counts) -> _CountsFrame:
        """The counts under a new key."""
        frame_id = self._new_frame_id()
        key = sha256(b"counts\0" + frame_id).digest()
        header = FrameHeader(
            frame_id=frame_id, received_ms=minute_ms, counts=dict(counts), key_hash=key, body_sha256=key
        )
        return _CountsFrame(Record(b"", frame_headers(header, b"")), key, minute_ms, counts)

    # --- running ---

    async def run(self, stop: Stop) -> None:
        """Connect, poll and flush until the stop, whatever fails."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._connect(stop))
            tasks.create_task(
                every(
                    self._settings.retention_poll_s,
                    self._surviving("asking for the retention's risk", self.poll_risk),
                    stop,
                )
            )
            tasks.create_task(
                every(self._settings.counts_flush_s, self._surviving("publishing counts", self._flush), stop)
            )

    async def connect(self) -> None:
        """Make the producer. Raises BrokerUnavailable."""
        if self._producer is None:
            self._producer = await self._broker.producer()
            self._broker_problem = None

    async def poll_risk(self) -> None:
        """Ask how near unstored logs are to being deleted; also finds out whether the broker is back."""
        if self._producer is None:
            return
        try:
            self._risk = await self._broker.retention_risk(WRITER_GROUP)
            self._broker_problem = None
        except (Overloaded, ConfigurationError) as error:
            self._broker_problem = str(error)
        metrics.RETENTION_RISK.set(self._risk)

    async def close(self) -> None:
        """Publish the counts that wait, then close the producer."""
        if self._producer is None:
            return
        if not await self.flush_counts():
            frames = self._doubtful if self._unsent is None else [*self._doubtful, self._unsent]
            entries = self._waiting_entries + sum(len(frame.counts) for frame in frames)
            log.error("counts of requests without kept logs may be lost", entries=entries)
        await self._producer.close()
        self._producer = None
        self._broker_problem = "ingest is stopped"

    async def _connect(self, stop: Stop) -> None:
        attempt = self._surviving("reaching the broker", self._try_connect)
        await attempt()
        while self._producer is None and not await stop.wait(_CONNECT_EVERY_S):
            await attempt()

    async def _try_connect(self) -> None:
        try:
            await self.connect()
        except LogfeedError as error:
            self._broker_problem = str(error)
            self._repeated.warning("broker not reached, trying again", error=str(error))

    async def _flush(self) -> None:
        if self._producer is not None:
            await self.flush_counts()

    def _surviving(self, task: str, action: Callable[[], Awaitable[None]]) -> Callable[[], Awaitable[None]]:
        """The action; what it does not expect is logged, and shown until an attempt succeeds."""

        async def attempt() -> None:
            try:
                await action()
            except asyncio.CancelledError as error:
                if _is_being_cancelled():
                    raise
                self._fail(task, error)  # of something that the action waited for
            except Exception as error:
                self._fail(task, error)
            else:
                self._failed.pop(task, None)

        return attempt

    def _fail(self, task: str, error: BaseException) -> None:
        self._failed[task] = repr(error)
        self._repeated.exception(f"{task} failed, it will be tried again", error)


def _is_being_cancelled() -> bool:
    task = asyncio.current_task()
    return task is not None and task.cancelling() > 0


def _add(sum_: ServiceCounts, count: ServiceCounts) -> None:
    sum_.received += count.received
    for name, logs in count.filtered.items():
        sum_.filtered[name] = sum_.filtered.get(name, 0) + logs
    for reason, logs in count.rejected.items():
        sum_.rejected[reason] = sum_.rejected.get(reason, 0) + logs


assert FRAME_BYTES_MAX > _COUNTS_PER_FRAME * 12_288, "a frame of counts must fit"
