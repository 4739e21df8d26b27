"""The writer's loop: lease partitions, read frames, store batches.

Concurrency: one loop task reads, decodes and decides; while the database stores one batch, the next is gathered and
decoded. Beside it one task renews leases and notices gains and losses, and one asks for new partitions. They share
`_leases` under `_lease_lock`; the loop alone touches positions and batches. Nothing of a batch survives a failure: after
any doubt the loop releases its leases, takes them again and reads from the offsets the store holds.

A partition in trouble (a gap, other frames than were stored) is set aside for a moment and halted only when a third session
in a row finds the same (writer/suspects.py); one without a leader, or with one that does not answer, is left out until it has
one that does. The others go on.

Bounded: two batches of `batch_bytes_max` (one being stored, one being gathered), one poll of `_POLL_BYTES`, and the frame
that makes a batch full. Records are decoded one at a time; the event loop is served every `_UNSERVED_S`.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable, Collection, Container, Iterable, Mapping
from dataclasses import dataclass, field

import structlog

from broker.port import Broker, Delivered, Reader
from runtime.clock import Clock
from runtime.sparing import SparingLog
from runtime.stopping import Stop, every
from runtime.tracing import UNTRACED
from schemas.errors import LogfeedError, OffsetOutOfRange, Overloaded
from schemas.frames import UnknownRecordVersion
from schemas.topics import WRITER_GROUP
from store.port import Fenced, Lease, Outcome, StorePlan, Upkeep, WriteStore
from writer import metrics
from writer.decode import DecodedFrame, decode_frame
from writer.group_offsets import GroupOffsets
from writer.positions import BrokenSequence, NewerRecord, Positions
from writer.settings import WriterSettings
from writer.spans import BatchSpans
from writer.storing import Storing
from writer.suspects import Suspects

log = structlog.get_logger(__name__)

_POLL_MS = 100
_POLL_BYTES = 4 * 1024 * 1024
"""Compressed bytes of one poll. What they decode to is bounded by the batch: the rest waits undecoded."""
_UNSERVED_S = 0.002
"""How long decoding keeps the event loop to itself, and the record that it is at then."""
_FRAMES_MAX = 5_000
"""Most frames in one batch: small ones cost by the piece."""
_OBSERVATIONS = 3
"""Sessions in a row that must find a partition in the same trouble before it is halted."""
_SET_ASIDE_S = 1.0
"""How long a partition in trouble is left alone between two of them."""
_BACKOFF_S_MAX = 5.0
_DRAIN_S = 5.0


class StuckConsumer(LogfeedError):
    """The broker has records for this writer and none arrive; ending the process starts a fresh consumer."""


@dataclass(slots=True)
class _Batch:
    frames: list[DecodedFrame] = field(default_factory=list)
    rows: int = 0
    bytes: int = 0
    began_s: float = 0.0

    def add(self, frame: DecodedFrame, record: Delivered, now_s: float) -> None:
        if not self.frames:
            self.began_s = now_s
        self.frames.append(frame)
        self.rows += len(frame.rows)
        headers_bytes = sum(len(name) + len(value) for name, value in record.headers)
        self.bytes += len(record.value) + headers_bytes + len(frame.ndjson)


class Consumer:
    """One writer. `run` returns after the stop, or raises what an operator or a supervisor must see."""

    def __init__(
        self,
        *,
        settings: WriterSettings,
        broker: Broker,
        store: WriteStore,
        upkeep: Upkeep,
        clock: Clock,
        stop: Stop,
        spans: BatchSpans | None = None,
    ) -> None:
        """Takes opened adapters; closes only the reader it makes. spans: None traces nothing."""
        self._settings = settings
        self._broker = broker
        self._store = store
        self._clock = clock
        self._stop = stop
        self._storing = Storing(settings=settings, store=store, upkeep=upkeep, clock=clock, on_stored=self._note_stored)
        self._spans = spans
        self._group_offsets = GroupOffsets(broker, clock)
        self._suspects = Suspects(observations=_OBSERVATIONS, pause_s=_SET_ASIDE_S)
        self._look_again_s = math.inf
        """When a partition that is set aside is due."""
        self._positions = Positions()
        self._leases: dict[int, Lease] = {}
        self._lease_lock = asyncio.Lock()
        self._stored: dict[int, int] = {}
        """partition -> next offset known to be stored, of the leases held."""
        self._away: set[int] = set()
        """Partitions of ours without a leader when the session began."""
        self._registered = 0
        """Partitions that the store knows of."""
        self._repeated = SparingLog(log)
        self._problems: set[str] = set()
        """Of the broker, told already."""
        self._changed = False
        self._in_session = False
        self._waiting: deque[Delivered] = deque()
        self._beside: list[asyncio.Task[None]] = []
        self._looked_s = -math.inf
        self._moved_s = clock.monotonic_s()
        self.ready = False

    async def run(self) -> None:
        """Store until the stop. Connection trouble is retried for ever; a stuck consumer, too many dead letters and another
        writer of the same name end it."""
        await self._until_available(self._register)
        await self._until_available(self._storing.remember)
        self._beside = [
            asyncio.create_task(every(self._settings.lease_ttl_s / 3, self._heartbeat, self._stop)),
            asyncio.create_task(every(self._settings.partitions_check_s, self._notice_partitions, self._stop)),
        ]
        try:
            backoff_s = 0.1
            while not self._stop.is_set:
                try:
                    await self._session()
                    backoff_s = 0.1
                    continue
                except Fenced as error:
                    log.warning("batch refused: a partition moved or an earlier commit had succeeded", error=str(error))
                except NewerRecord as error:
                    await self._halt(error.partition, str(error))
                except (OffsetOutOfRange, BrokenSequence) as error:
                    await self._suspect(error.partition, error)
                except Overloaded as error:
                    self.ready = False
                    # Others may take the partitions while this writer can do nothing with them.
                    self._in_session = False
                    await self._release()
                    self._repeated.warning("waiting for the broker or the database, trying again", error=str(error))
                    await self._stop.wait(backoff_s)
                    backoff_s = min(backoff_s * 2, _BACKOFF_S_MAX)
                await self._release()
        finally:
            self.ready = False
            for task in self._beside:
                task.cancel()
            await asyncio.gather(*self._beside, return_exceptions=True)
            if await self._release():
                await self._depart()

    async def _register(self) -> None:
        partitions = self._broker.partitions
        await self._store.register_partitions(self._broker.topic, partitions)
        self._registered = partitions

    async def _depart(self) -> None:
        try:
            await self._store.depart(self._settings.name)
        except Overloaded as error:
            log.warning("others learn of the departure when its time ran out", error=str(error))

    async def _until_available(self, action: Callable[[], Awaitable[None]]) -> None:
        while not self._stop.is_set:
            try:
                await action()
                return
            except Overloaded as error:
                self._repeated.warning("waiting for the database", error=str(error))
                await self._stop.wait(1.0)

    # --- leases ---------------------------------------------------------------------------------------------------

    async def _fair_share(self) -> int:
        live = await self._store.live_writers(self._settings.name, ttl_s=self._settings.lease_ttl_s)
        return math.ceil(self._broker.partitions / max(live, 1))

    async def _heartbeat(self) -> None:
        if not self._in_session:
            return
        async with self._lease_lock:
            try:
                want = await self._fair_share()
                held = await self._renew()
                gained: list[Lease] = []
                if len(held) < want:
                    gained = await self._store.claim(self._settings.name, want=want, ttl_s=self._settings.lease_ttl_s)
            except Overloaded as error:
                self._repeated.warning("leases not renewed", error=str(error))
                return
            if gained or len(held) != len(self._leases) or len(held) > want:
                # The loop lets the batch under way finish, then starts a new session with what is held by then.
                self._leases = {lease.partition: lease for lease in (*held, *gained)}
                self._changed = True

    async def _renew(self) -> list[Lease]:
        """The leases still held; the others are forgotten."""
        stored = dict(self._stored)
        held = await self._store.renew(
            self._settings.name, list(self._leases.values()), ttl_s=self._settings.lease_ttl_s
        )
        behind = [lease.partition for lease in held if lease.next_offset < stored.get(lease.partition, 0)]
        if behind:
            # Of a promoted replica, or after a crash. The next session reads from where the database is; a partition that
            # nothing is sent to would wait for that until something is.
            metrics.TAKEN_BACK.inc(len(behind))
            log.warning("the database is behind what was stored, reading again", partitions=sorted(behind))
            self._stored = {}
            self._changed = True
        lost = self._leases.keys() - {lease.partition for lease in held}
        if lost:
            self._leases = {lease.partition: lease for lease in held}
            self._changed = True
            self._note_lost(lost)
        return held

    async def _notice_partitions(self) -> None:
        """Partitions may be added while writers run: whoever sees them first registers them.

        A setting that is wrong by now is told and stops nothing: what the broker still has must be stored all the sooner.
        """
        try:
            self._note_problems(await self._broker.look_again())
            if self._broker.partitions == self._registered:
                return
            await self._register()
        except Overloaded as error:
            self._repeated.warning("the broker was not asked for new partitions", error=str(error))
            return
        log.info("the topic has more partitions", now=self._broker.partitions)
        self._changed = True

    def _note_problems(self, problems: list[str]) -> None:
        metrics.BROKER_PROBLEMS.set(len(problems))
        if set(problems) == self._problems:
            return
        self._problems = set(problems)
        if problems:
            log.error("the broker is not safe to use any more, mend it: logs may be lost", problems=problems)
        else:
            log.info("the broker is safe to use again")

    async def _take_leases(self) -> list[Lease]:
        """Leases of this writer that are not halted, at their stored positions; it holds no more than its share."""
        async with self._lease_lock:
            want = await self._fair_share()
            held = await self._renew()
            if len(held) > want:
                held.sort(key=lambda lease: lease.partition)
                await self._store.release(self._settings.name, held[want:])
                held = held[:want]
            if len(held) < want:
                held += await self._store.claim(self._settings.name, want=want, ttl_s=self._settings.lease_ttl_s)
            self._leases = {lease.partition: lease for lease in held}
            self._changed = False
            metrics.HALTED.set(sum(lease.halted is not None for lease in held))
            # A partition that the broker did not have when it was asked last waits for the next session.
            return [lease for lease in held if lease.halted is None and lease.partition < self._broker.partitions]

    async def _release(self) -> bool:
        """Give the leases up; False when the database does not answer."""
        async with self._lease_lock:
            leases, self._leases = list(self._leases.values()), {}
            try:
                self._note_lost(await self._store.release(self._settings.name, leases))
            except Overloaded as error:
                self._repeated.warning("leases not released, they will run out", error=str(error))
                return False
        return True

    def _note_lost(self, partitions: Collection[int]) -> None:
        """Partitions that this writer believed to hold were another's: told once, whoever finds out first."""
        if partitions:
            metrics.FENCED.inc()
            log.warning("fenced: partitions had moved to another writer", partitions=sorted(partitions))

    async def _suspect(self, partition: int, error: LogfeedError) -> None:
        kind = type(error).__name__
        metrics.TROUBLE.labels(kind).inc()
        if self._suspects.observe(partition, kind, self._clock.monotonic_s()):
            await self._halt(partition, str(error))
            return
        log.warning(
            "trouble with a partition, looking again",
            partition=partition,
            error=str(error),
            times=self._suspects.times(partition),
            halted_after=_OBSERVATIONS,
            in_s=_SET_ASIDE_S,
        )

    async def _halt(self, partition: int, reason: str) -> None:
        log.error("partition halted: an operator must look at it", partition=partition, reason=reason)
        lease = self._leases.get(partition)
        if lease is not None:
            try:
                await self._store.halt(lease, reason)
            except Overloaded as error:
                log.warning("partition not marked as halted", partition=partition, error=str(error))

    # --- one session: fixed leases --------------------------------------------------------------------------------

    async def _session(self) -> None:
        reader = await self._broker.reader(group=WRITER_GROUP)
        try:
            # Asked before any lease is taken: a writer without a broker must not keep partitions from others.
            first = await reader.first_offsets(range(self._broker.partitions))
            leases = self._readable(await self._take_leases(), first.keys())
            self._in_session = True
            self._waiting.clear()
            self._stored = {lease.partition: lease.next_offset for lease in leases}
            metrics.LAG_RECORDS.clear()
            metrics.STORED_TO.clear()
            if leases:
                await reader.seek(self._positions.start(leases, first))
                log.info("reading", partitions=sorted(self._stored), offsets=self._stored)
            self._moved_s = self._clock.monotonic_s()
            self.ready = True
            if leases:
                await self._read_and_store(reader, {lease.partition: lease.epoch for lease in leases})
            else:
                await self._wait_for_leases(reader)
        finally:
            await self._group_offsets.cancel()
            await reader.close()

    def _readable(self, leases: Iterable[Lease], there: Container[int]) -> list[Lease]:
        """Those that are neither set aside nor without a leader; notes when to look at the rest again."""
        now_s = self._clock.monotonic_s()
        self._look_again_s = self._suspects.look_again_s([lease.partition for lease in leases], now_s)
        due = [lease for lease in leases if not self._suspects.is_set_aside(lease.partition, now_s)]
        self._away = {lease.partition for lease in due if lease.partition not in there}
        metrics.AWAY.set(len(self._away))
        if self._away:
            log.warning("partitions whose leader is away or silent wait for it", partitions=sorted(self._away))
        return [lease for lease in due if lease.partition not in self._away]

    async def _wait_for_leases(self, reader: Reader) -> None:
        """Nothing to do until a heartbeat gains a partition, a leader is back, or an operator resumes one."""
        deadline_s = self._clock.monotonic_s() + self._settings.lease_ttl_s
        while not (self._must_end() or self._clock.monotonic_s() > deadline_s):
            await self._stop.wait(_POLL_MS / 1000)
            if self._away and self._is_time_to_look():
                self._notice_leaders(await reader.end_offsets(range(self._broker.partitions)))

    def _must_end(self) -> bool:
        """True when the session is over. Raises what ended a task beside the loop."""
        if not self._stop.is_set:
            for task in self._beside:
                if task.done():
                    task.result()
        return self._stop.is_set or self._changed or self._clock.monotonic_s() >= self._look_again_s

    async def _read_and_store(self, reader: Reader, epochs: dict[int, int]) -> None:
        batch = _Batch()
        storing: asyncio.Task[None] | None = None
        trouble: BrokenSequence | None = None
        try:
            while trouble is None and not self._must_end():
                if storing is not None and storing.done():
                    await storing
                    storing = None
                if storing is None and self._is_due(batch):
                    storing = asyncio.create_task(self._store_batch(batch.frames, epochs))
                    batch = _Batch()
                if storing is not None and self._is_full(batch):
                    await asyncio.wait({storing}, timeout=_POLL_MS / 1000)
                    self._moved_s = self._clock.monotonic_s()
                    continue
                if not self._waiting:
                    self._waiting.extend(
                        await reader.poll(max_bytes=_POLL_BYTES, wait_ms=self._patience_ms(batch, storing))
                    )
                trouble = await self._gather(batch)
                await self._look_around(reader)
            # What stands before the trouble is stored, and so is what a clean stop finds in hand.
            if storing is not None:
                await storing
                storing = None
            if batch.frames:
                await self._store_batch(batch.frames, epochs)
            await self._group_offsets.finish(self._stored)
            if trouble is not None:
                raise trouble
        finally:
            if storing is not None:
                # Better a known end than an unknown one, but not for ever.
                await asyncio.wait({storing}, timeout=_DRAIN_S)
                storing.cancel()
                await asyncio.gather(storing, return_exceptions=True)

    async def _store_batch(self, frames: list[DecodedFrame], epochs: dict[int, int]) -> None:
        with UNTRACED if self._spans is None else self._spans.batch(frames):
            await self._storing.store(frames, epochs)

    async def _gather(self, batch: _Batch) -> BrokenSequence | None:
        """Decode waiting records into the batch until it is full; the trouble that a partition is in, if any."""
        served_s = self._clock.monotonic_s()
        while self._waiting and not self._is_full(batch):
            record = self._waiting.popleft()
            try:
                if not self._positions.accept(record):
                    continue
                frame = decode_frame(record) if self._spans is None else self._spans.decoded(record)
            except BrokenSequence as error:
                return error
            except UnknownRecordVersion as error:
                return NewerRecord(record.partition, f"offset {record.offset}: {error}")
            self._moved_s = self._clock.monotonic_s()
            batch.add(frame, record, self._moved_s)
            if self._moved_s - served_s > _UNSERVED_S:
                # Others of the event loop have their turn, seldom enough that small records do not pay for it.
                metrics.DECODE_SECONDS.inc(self._moved_s - served_s)
                await asyncio.sleep(0)
                served_s = self._clock.monotonic_s()
        metrics.DECODE_SECONDS.inc(max(self._moved_s - served_s, 0.0))
        return None

    def _is_full(self, batch: _Batch) -> bool:
        return (
            batch.rows >= self._settings.batch_rows_max
            or batch.bytes >= self._settings.batch_bytes_max
            or len(batch.frames) >= _FRAMES_MAX
        )

    def _is_due(self, batch: _Batch) -> bool:
        if not batch.frames:
            return False
        age_s = self._clock.monotonic_s() - batch.began_s
        return self._is_full(batch) or age_s * 1000 >= self._settings.linger_ms

    def _patience_ms(self, batch: _Batch, storing: asyncio.Task[None] | None) -> int:
        if batch.frames or storing is not None:
            return max(min(self._settings.linger_ms, _POLL_MS), 1)
        return _POLL_MS

    # --- beside the batches ---------------------------------------------------------------------------------------

    def _note_stored(self, plan: StorePlan) -> None:
        for move in plan.moves:
            self._stored[move.partition] = move.next_offset
            metrics.STORED_TO.labels(str(move.partition)).set(move.stored_to_us / 1e6)
            self._suspects.clear(move.partition)
            metrics.FRAMES_STORED.inc(move.next_offset - move.from_offset)
        metrics.ROWS_STORED.inc(len(plan.hot) + len(plan.late))
        metrics.BATCH_ROWS.observe(len(plan.hot) + len(plan.late))
        metrics.DUPLICATE_LOGS.inc(sum(row.count for row in plan.ledger if row.outcome is Outcome.DUPLICATE))
        for letter in plan.dead:
            metrics.DEAD_LETTERS.labels(letter.reason).inc()

    def _is_time_to_look(self) -> bool:
        now_s = self._clock.monotonic_s()
        is_time = (now_s - self._looked_s) * 1000 >= self._settings.caught_up_ms
        if is_time:
            self._looked_s = now_s
        return is_time

    async def _look_around(self, reader: Reader) -> None:
        """Mark idle partitions as read to the end, show lag, tell the broker how far is stored, notice a stuck consumer
        and leaders that are back."""
        if not self._is_time_to_look():
            return
        asked_us, asked_s = self._clock.now_us(), self._clock.monotonic_s()
        # All partitions are asked for: an answer lacks those without a leader, and waits for one while it would be empty.
        there = await reader.end_offsets(range(self._broker.partitions))
        self._notice_leaders(there)
        ends = {partition: end for partition, end in there.items() if partition in self._stored}
        behind = False
        for partition, end in ends.items():
            metrics.LAG_RECORDS.labels(str(partition)).set(max(end - self._stored[partition], 0))
            behind |= end > self._positions.next_offset(partition)
        if not behind:
            self._moved_s = asked_s
        elif asked_s - self._moved_s > self._settings.stuck_after_s:
            raise StuckConsumer(
                f"records wait in the broker and none arrived for {self._settings.stuck_after_s:.0f} s: {ends}"
            )
        await self._mark_caught_up(ends, asked_us)
        self._group_offsets.tell(self._stored)

    def _notice_leaders(self, there: Container[int]) -> None:
        """A new session takes up the partitions whose leader is back."""
        if any(partition in there for partition in self._away):
            self._changed = True
        metrics.AWAY.set(sum(partition not in there for partition in (*self._away, *self._stored)))

    async def _mark_caught_up(self, ends: Mapping[int, int], asked_us: int) -> None:
        done = [
            (self._leases[partition], end, asked_us)
            for partition, end in ends.items()
            if end == self._stored[partition] and partition in self._leases
        ]
        if done:
            await self._store.mark_caught_up(done)
        for lease, _, at_us in done:
            metrics.STORED_TO.labels(str(lease.partition)).set(at_us / 1e6)
            if self._positions.is_verified(lease.partition):
                self._suspects.clear(lease.partition)
