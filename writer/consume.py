"""The writer's loop: lease partitions, read frames, store batches.

Concurrency: one loop task reads, decodes and decides; while the database stores one batch, the next is gathered and
decoded. Beside it one task renews leases and notices gains and losses, and one asks for new partitions. They share
`_leases` under `_lease_lock`; the loop alone touches positions and batches. Nothing of a batch survives a failure: after
any doubt the loop releases its leases, takes them again and reads from the offsets the store holds.

Bounded: two batches of `batch_bytes_max` (one being stored, one being gathered), one poll of `_POLL_BYTES`, and the frame
that makes a batch full. Records are decoded one at a time, with the event loop served between them.
"""

from __future__ import annotations

import asyncio
import math
from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from broker.port import Broker, Delivered, Reader
from runtime.clock import Clock
from runtime.stopping import Stop, every
from schemas.errors import LogfeedError, OffsetOutOfRange, Overloaded
from schemas.frames import UnknownRecordVersion
from schemas.topics import WRITER_GROUP
from store.port import (
    BorderMoved,
    ChunkMissing,
    Fenced,
    KeyAlreadyStored,
    Lease,
    Outcome,
    RowsRefused,
    StorePlan,
    Upkeep,
    WriteStore,
)
from writer import metrics
from writer.bisect import refused_rows
from writer.decode import DecodedFrame, decode_frame
from writer.plan import check_dead_ratio, plan_batch
from writer.positions import BrokenSequence, Positions
from writer.settings import WriterSettings

log = structlog.get_logger(__name__)

_ATTEMPTS_MAX = 20
_POLL_MS = 100
_POLL_BYTES = 4 * 1024 * 1024
"""Compressed bytes of one poll. What they decode to is bounded by the batch: the rest waits undecoded."""
_FRAMES_MAX = 5_000
"""Most frames in one batch: small ones cost by the piece."""
_PARTITIONS_S = 30.0
"""How often the broker is asked whether it has more partitions by now."""
_GROUP_COMMIT_S = 1.0
_GROUP_COMMIT_IDLE_S = 60.0
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
        self, *, settings: WriterSettings, broker: Broker, store: WriteStore, upkeep: Upkeep, clock: Clock, stop: Stop
    ) -> None:
        """Takes opened adapters; closes only the reader it makes."""
        self._settings = settings
        self._broker = broker
        self._store = store
        self._upkeep = upkeep
        self._clock = clock
        self._stop = stop
        self._positions = Positions()
        self._leases: dict[int, Lease] = {}
        self._lease_lock = asyncio.Lock()
        self._stored: dict[int, int] = {}
        """partition -> next offset known to be stored, of the leases held."""
        self._changed = False
        self._in_session = False
        self._waiting: deque[Delivered] = deque()
        self._beside: list[asyncio.Task[None]] = []
        self._committed: dict[int, int] = {}
        self._committed_s = -math.inf
        self._caught_up_s = -math.inf
        self._moved_s = clock.monotonic_s()
        self.ready = False

    async def run(self) -> None:
        """Store until the stop. Connection trouble is retried for ever; a stuck consumer, too many dead letters and another
        writer of the same name end it."""
        await self._until_available(self._register)
        self._beside = [
            asyncio.create_task(every(self._settings.lease_ttl_s / 3, self._heartbeat, self._stop)),
            asyncio.create_task(every(_PARTITIONS_S, self._notice_partitions, self._stop)),
        ]
        try:
            backoff_s = 0.1
            while not self._stop.is_set:
                try:
                    await self._session()
                    backoff_s = 0.1
                    continue
                except Fenced as error:
                    metrics.FENCED.inc()
                    log.warning("fenced: the partition moved or an earlier commit had succeeded", error=str(error))
                except (OffsetOutOfRange, BrokenSequence) as error:
                    await self._halt(error.partition, str(error))
                except Overloaded as error:
                    self.ready = False
                    # Others may take the partitions while this writer can do nothing with them.
                    self._in_session = False
                    await self._release()
                    log.warning("waiting for the broker or the database", error=str(error), retry_in_s=backoff_s)
                    await self._stop.wait(backoff_s)
                    backoff_s = min(backoff_s * 2, _BACKOFF_S_MAX)
                await self._release()
        finally:
            self.ready = False
            for task in self._beside:
                task.cancel()
            await asyncio.gather(*self._beside, return_exceptions=True)
            await self._release()
            await self._depart()

    async def _register(self) -> None:
        await self._store.register_partitions(self._broker.topic, self._broker.partitions)

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
                log.warning("waiting for the database", error=str(error))
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
                held = await self._store.renew(
                    self._settings.name, list(self._leases.values()), ttl_s=self._settings.lease_ttl_s
                )
                gained: list[Lease] = []
                if len(held) < want:
                    gained = await self._store.claim(self._settings.name, want=want, ttl_s=self._settings.lease_ttl_s)
            except Overloaded as error:
                log.warning("leases not renewed", error=str(error))
                return
            if gained or len(held) != len(self._leases) or len(held) > want:
                # The loop lets the batch under way finish, then starts a new session with what is held by then.
                self._leases = {lease.partition: lease for lease in (*held, *gained)}
                self._changed = True

    async def _notice_partitions(self) -> None:
        """Partitions may be added while writers run: whoever sees them first registers them."""
        before = self._broker.partitions
        try:
            await self._broker.open()
            if self._broker.partitions == before:
                return
            await self._register()
        except Overloaded as error:
            log.warning("the broker was not asked for new partitions", error=str(error))
            return
        log.info("the topic has more partitions", before=before, now=self._broker.partitions)
        self._changed = True

    async def _take_leases(self) -> list[Lease]:
        """All leases of this writer, at their stored positions, no more than its share."""
        async with self._lease_lock:
            want = await self._fair_share()
            held = await self._store.renew(
                self._settings.name, list(self._leases.values()), ttl_s=self._settings.lease_ttl_s
            )
            if len(held) > want:
                held.sort(key=lambda lease: lease.partition)
                await self._store.release(self._settings.name, held[want:])
                held = held[:want]
            if len(held) < want:
                held += await self._store.claim(self._settings.name, want=want, ttl_s=self._settings.lease_ttl_s)
            self._leases = {lease.partition: lease for lease in held}
            self._changed = False
            # A partition that the broker did not have when it was asked last waits for the next session.
            usable = [lease for lease in held if lease.halted is None and lease.partition < self._broker.partitions]
            metrics.HALTED.set(len(held) - len(usable))
            return usable

    async def _release(self) -> None:
        async with self._lease_lock:
            leases, self._leases = list(self._leases.values()), {}
            if not leases:
                return
            try:
                await self._store.release(self._settings.name, leases)
            except Overloaded as error:
                log.warning("leases not released, they will run out", error=str(error))

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
            leases = await self._take_leases()
            self._in_session = True
            self._waiting.clear()
            self._stored = {lease.partition: lease.next_offset for lease in leases}
            metrics.LAG_RECORDS.clear()
            if leases:
                await reader.seek(self._positions.start(leases, first))
                log.info("reading", partitions=sorted(self._stored), offsets=self._stored)
            self._moved_s = self._clock.monotonic_s()
            self.ready = True
            if leases:
                await self._read_and_store(reader, {lease.partition: lease.epoch for lease in leases})
            else:
                await self._wait_for_leases()
        finally:
            await reader.close()

    async def _wait_for_leases(self) -> None:
        """Nothing to do until a heartbeat gains a partition, or an operator resumes one."""
        deadline_s = self._clock.monotonic_s() + self._settings.lease_ttl_s
        while not (self._must_end() or self._clock.monotonic_s() > deadline_s):
            await self._stop.wait(_POLL_MS / 1000)

    def _must_end(self) -> bool:
        """True when the session is over. Raises what ended a task beside the loop."""
        if not self._stop.is_set:
            for task in self._beside:
                if task.done():
                    task.result()
        return self._stop.is_set or self._changed

    async def _read_and_store(self, reader: Reader, epochs: dict[int, int]) -> None:
        batch = _Batch()
        storing: asyncio.Task[StorePlan] | None = None
        trouble: BrokenSequence | None = None
        try:
            while trouble is None and not self._must_end():
                if storing is not None and storing.done():
                    self._note_stored(await storing)
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
                self._note_stored(await storing)
                storing = None
            if batch.frames:
                self._note_stored(await self._store_batch(batch.frames, epochs))
            await self._commit_group(force=True)
            if trouble is not None:
                raise trouble
        finally:
            if storing is not None:
                # Better a known end than an unknown one, but not for ever.
                await asyncio.wait({storing}, timeout=_DRAIN_S)
                storing.cancel()
                await asyncio.gather(storing, return_exceptions=True)

    async def _gather(self, batch: _Batch) -> BrokenSequence | None:
        """Decode waiting records into the batch until it is full; the trouble that a partition is in, if any."""
        while self._waiting and not self._is_full(batch):
            record = self._waiting.popleft()
            try:
                if not self._positions.accept(record):
                    continue
                frame = decode_frame(record)
            except BrokenSequence as error:
                return error
            except UnknownRecordVersion as error:
                return BrokenSequence(record.partition, f"offset {record.offset}: {error}")
            self._moved_s = self._clock.monotonic_s()
            batch.add(frame, record, self._moved_s)
            await asyncio.sleep(0)
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

    def _patience_ms(self, batch: _Batch, storing: asyncio.Task[StorePlan] | None) -> int:
        if batch.frames or storing is not None:
            return max(min(self._settings.linger_ms, _POLL_MS), 1)
        return _POLL_MS

    # --- storing --------------------------------------------------------------------------------------------------

    async def _store_batch(self, frames: list[DecodedFrame], epochs: dict[int, int]) -> StorePlan:
        """Plan and commit until the store agrees.

        Raises Fenced, DatabaseUnavailable, TooManyDeadLetters; BrokenSequence for a partition whose frames the store never
        accepts (its neighbours in the batch are stored first).
        """
        for _ in range(_ATTEMPTS_MAX):
            try:
                with metrics.BATCH_SECONDS.time():
                    return await self._try_store(frames, epochs)
            except (KeyAlreadyStored, BorderMoved) as error:
                metrics.RETRIED.labels(type(error).__name__).inc()
            except ChunkMissing as error:
                metrics.RETRIED.labels("ChunkMissing").inc()
                log.warning("a chunk is missing, making it", error=str(error))
                await self._upkeep.ensure_chunks(now_us=self._clock.now_us())
            except RowsRefused as error:
                metrics.RETRIED.labels("RowsRefused").inc()
                log.warning("the database refuses a row, looking for it", error=str(error))
                lines = sum(len(frame.rows) for frame in frames)
                give_up_after = max(self._settings.dead_lines_min, int(self._settings.dead_ratio_max * lines))
                frames = await refused_rows(frames, self._store.refusal, give_up_after=give_up_after)
        partitions = sorted({frame.partition for frame in frames})
        if len(partitions) == 1:
            raise BrokenSequence(
                partitions[0],
                f"{len(frames)} frames from offset {frames[0].offset} on were planned {_ATTEMPTS_MAX} times and never"
                " agreed with the store",
            )
        stored = StorePlan()
        for partition in partitions:
            part = await self._store_batch([frame for frame in frames if frame.partition == partition], epochs)
            stored.add(part)
        return stored

    async def _try_store(self, frames: list[DecodedFrame], epochs: dict[int, int]) -> StorePlan:
        keys = [frame.key_hash for frame in frames if frame.key_hash is not None]
        async with self._store.begin() as transaction:
            known = await transaction.known_keys(keys) if keys else {}
            plan = plan_batch(frames, epochs=epochs, known=known, border=transaction.border)
            check_dead_ratio(plan, ratio_max=self._settings.dead_ratio_max, lines_min=self._settings.dead_lines_min)
            await transaction.commit(plan)
        return plan

    def _note_stored(self, plan: StorePlan) -> None:
        for move in plan.moves:
            self._stored[move.partition] = move.next_offset
            metrics.FRAMES_STORED.inc(move.next_offset - move.from_offset)
        metrics.ROWS_STORED.inc(len(plan.hot) + len(plan.late))
        metrics.DUPLICATE_LOGS.inc(sum(row.count for row in plan.ledger if row.outcome is Outcome.DUPLICATE))
        for letter in plan.dead:
            metrics.DEAD_LETTERS.labels(letter.reason).inc()

    # --- beside the batches ---------------------------------------------------------------------------------------

    async def _look_around(self, reader: Reader) -> None:
        """Mark idle partitions as read to the end, show lag, commit the group's offsets, notice a stuck consumer."""
        now_s = self._clock.monotonic_s()
        if (now_s - self._caught_up_s) * 1000 >= self._settings.caught_up_ms:
            self._caught_up_s = now_s
            asked_us = self._clock.now_us()
            ends = await reader.end_offsets(self._stored)
            behind = False
            for partition, end in ends.items():
                metrics.LAG_RECORDS.labels(str(partition)).set(max(end - self._stored[partition], 0))
                behind |= end > self._positions.next_offset(partition)
            if not behind:
                self._moved_s = now_s
            elif now_s - self._moved_s > self._settings.stuck_after_s:
                raise StuckConsumer(
                    f"records wait in the broker and none arrived for {self._settings.stuck_after_s:.0f} s: {ends}"
                )
            done = [
                (self._leases[partition], end, asked_us)
                for partition, end in ends.items()
                if end == self._stored[partition] and partition in self._leases
            ]
            if done:
                await self._store.mark_caught_up(done)
            await self._commit_group()

    async def _commit_group(self, *, force: bool = False) -> None:
        """For displays and the retention guard only: trouble with it stops nothing."""
        now_s = self._clock.monotonic_s()
        pause_s = _GROUP_COMMIT_S if self._stored != self._committed else _GROUP_COMMIT_IDLE_S
        if self._stored and (force or now_s - self._committed_s >= pause_s):
            self._committed_s = now_s
            try:
                await self._broker.commit_group(WRITER_GROUP, dict(self._stored))
            except Overloaded as error:
                metrics.GROUP_COMMITS_FAILED.inc()
                log.warning("the broker was not told how far is stored", error=str(error))
                return
            self._committed = dict(self._stored)
