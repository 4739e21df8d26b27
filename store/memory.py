"""The store in memory, for unit tests: the same promises as PostgreSQL, held by the same contract suites.

One `MemoryDatabase` is what all processes share; a `MemoryStore` is one process's view of it (it remembers which leases it
was given, so `MemoryStore(database)` again is a restart). A commit changes everything in one step without awaiting, which
makes it atomic on one event loop; a snapshot is a copy. Nothing is durable and nothing is bounded: not for production.
"""

from __future__ import annotations

import secrets
import struct
from bisect import bisect_left
from collections import Counter
from collections.abc import AsyncIterator, Iterable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final

import msgspec

from runtime.clock import Clock, SystemClock
from schemas.levels import level_name
from schemas.record import Log
from schemas.scope import ServiceScope
from search.match import compile_match
from store.port import (
    KEY_REUSED,
    SERVICES_MAX,
    Border,
    BorderMoved,
    ChunkMissing,
    Count,
    CountMismatch,
    CountResult,
    DeadLetter,
    EncodedRow,
    Fenced,
    KeyAlreadyStored,
    Lease,
    LedgerRow,
    NameTaken,
    OffsetMove,
    OpenIndex,
    Order,
    Outcome,
    Position,
    RowsRefused,
    Scan,
    ScanResult,
    ServiceSummary,
    Snapshot,
    StorePlan,
    WriteTransaction,
)
from store.scan_windows import BEYOND, LEAST, successor

CHUNK_US: Final = 6 * 3_600 * 1_000_000
CLOSING_DELAY_US: Final = 15 * 60 * 1_000_000
HALTED_CLOSING_US: Final = 6 * 3_600 * 1_000_000
LATE_AGE_US: Final = 86_400 * 1_000_000
KEY_LIFE_US: Final = 72 * 3_600 * 1_000_000
PAGE_BYTES_MAX: Final = 8 * 1024 * 1024

_POSTGRES_EPOCH_US: Final = 946_684_800_000_000
_VISIBLE_SLACK_US: Final = 1_000_000
_CHUNKS_AHEAD: Final = 2


def decode_row(copy_bytes: bytes) -> Log:
    """The log in a row of PostgreSQL's binary COPY format (store/rows.py). Raises ValueError for anything else."""
    fields: list[bytes | None] = []
    try:
        (count,) = struct.unpack_from("!h", copy_bytes)
        at = 2
        for _ in range(count):
            (length,) = struct.unpack_from("!i", copy_bytes, at)
            at += 4
            fields.append(None if length < 0 else copy_bytes[at : at + length])
            at += max(length, 0)
        timestamp, log_id, level, service, correlation, message, metadata = fields
        if at != len(copy_bytes) or None in (timestamp, log_id, level, service, message, metadata):
            raise ValueError("the row has bytes left over, or a column is missing")
        assert timestamp is not None
        assert log_id is not None
        assert level is not None
        assert service is not None
        assert message is not None
        assert metadata is not None
        return Log(
            id=struct.unpack("!q", log_id)[0],
            timestamp=struct.unpack("!q", timestamp)[0] + _POSTGRES_EPOCH_US,
            level=struct.unpack("!h", level)[0],
            service_name=service.decode(),
            message=message.decode(),
            correlation_id=None if correlation is None else correlation.decode(),
            metadata=msgspec.json.decode(metadata[1:]),
        )
    except (struct.error, msgspec.MsgspecError, AssertionError) as error:
        raise ValueError(f"the row cannot be read: {error}") from error


@dataclass(slots=True)
class _Partition:
    owner: str | None = None
    epoch: int = 0
    lease_until_s: float = float("-inf")
    next_offset: int = 0
    last_frame_id: bytes | None = None
    stored_to_us: int = 0
    halted: str | None = None


@dataclass(slots=True)
class _Late:
    opened_us: int
    rows: list[Log] = field(default_factory=list)


class MemoryDatabase:
    """What every process of a test shares. Tests may look into it."""

    def __init__(self, *, clock: Clock | None = None) -> None:
        """clock: of the database; open storage begins with its current chunk."""
        self.clock = clock or SystemClock()
        now_us = self.clock.now_us()
        self.partitions: dict[int, _Partition] = {}
        self.writers: dict[str, tuple[float, str]] = {}
        """name -> (lives until, token of its process)"""
        self.chunks: dict[int, list[Log]] = {}
        """start of the chunk -> its rows"""
        self.late: dict[int, _Late] = {1: _Late(now_us)}
        self.border = Border(now_us - now_us % CHUNK_US, 1)
        self.finished_before_us = self.border.closed_before_us
        self.keys: dict[bytes, tuple[bytes, int]] = {}
        """key hash -> (body sha256, time stored)"""
        self.ledger: Counter[tuple[int, str, int, str, str]] = Counter()
        self.dead: list[DeadLetter] = []
        self.secret = secrets.token_bytes(32)

    def visible_through_us(self) -> int:
        """min(stored_to) of all partitions, halted ones included, less 1 s for clocks."""
        stored = min((partition.stored_to_us for partition in self.partitions.values()), default=0)
        return max(0, stored - _VISIBLE_SLACK_US)

    def rows(self) -> list[Log]:
        """Every row, in (timestamp, id) order."""
        tables = [*self.chunks.values(), *(late.rows for late in self.late.values())]
        return sorted((log for rows in tables for log in rows), key=_position)


class MemoryStore:
    """WriteStore, ReadStore and Upkeep over one MemoryDatabase."""

    def __init__(
        self,
        database: MemoryDatabase | None = None,
        *,
        page_bytes_max: int = PAGE_BYTES_MAX,
        rows_per_scan: int | None = None,
    ) -> None:
        """rows_per_scan (1 at least): a scan looks at so many rows and says that its budget ended; None: it never ends."""
        self.database = database or MemoryDatabase()
        self._page_bytes_max = page_bytes_max
        self._rows_per_scan = rows_per_scan
        self._held: dict[int, int] = {}
        self._token = secrets.token_hex(8)
        self._noted: set[str] = set()

    # --- writing ---------------------------------------------------------------------------------------------------

    async def register_partitions(self, topic: str, count: int) -> None:
        """See WriteStore. There is one topic."""
        for partition in range(count):
            self.database.partitions.setdefault(partition, _Partition())

    async def live_writers(self, owner: str, *, ttl_s: float) -> int:
        """See WriteStore."""
        now_s, writers = self.database.clock.monotonic_s(), self.database.writers
        if owner in self._noted and writers.get(owner, (0.0, self._token))[1] != self._token:
            raise NameTaken(f"another writer runs under the name {owner!r}: give each writer its own --name")
        self._noted.add(owner)
        writers[owner] = now_s + ttl_s, self._token
        return sum(name == owner or until_s > now_s for name, (until_s, _) in writers.items())

    async def depart(self, owner: str) -> None:
        """See WriteStore."""
        if self.database.writers.get(owner, (0.0, ""))[1] == self._token:
            del self.database.writers[owner]
        self._noted.discard(owner)

    async def claim(self, owner: str, *, want: int, ttl_s: float) -> list[Lease]:
        """See WriteStore. From before: under the owner's name, with an epoch that this object was not given."""
        now_s = self.database.clock.monotonic_s()
        known = {n: p for n, p in self.database.partitions.items() if self._held.get(n) == p.epoch}
        free = sorted(
            (partition.owner != owner, number)
            for number, partition in self.database.partitions.items()
            if number not in known and (partition.owner == owner or partition.lease_until_s < now_s)
        )
        taken = []
        for _, number in free[: max(0, want - len(known))]:
            partition = self.database.partitions[number]
            partition.owner, partition.lease_until_s = owner, now_s + ttl_s
            partition.epoch += 1
            self._held[number] = partition.epoch
            taken.append(_lease(number, partition))
        return taken

    async def renew(self, owner: str, leases: Sequence[Lease], *, ttl_s: float) -> list[Lease]:
        """See WriteStore."""
        held = []
        for lease in leases:
            partition = self.database.partitions[lease.partition]
            if partition.owner == owner and partition.epoch == lease.epoch:
                partition.lease_until_s = self.database.clock.monotonic_s() + ttl_s
                held.append(_lease(lease.partition, partition))
            elif self._held.get(lease.partition) == lease.epoch:
                del self._held[lease.partition]
        return held

    async def release(self, owner: str, leases: Sequence[Lease]) -> list[int]:
        """See WriteStore."""
        lost = []
        for lease in leases:
            partition = self.database.partitions[lease.partition]
            if partition.owner == owner and partition.epoch == lease.epoch:
                partition.owner, partition.lease_until_s = None, float("-inf")
            else:
                lost.append(lease.partition)
            if self._held.get(lease.partition) == lease.epoch:
                del self._held[lease.partition]
        return sorted(lost)

    async def halt(self, lease: Lease, reason: str) -> None:
        """See WriteStore. The first reason stays; a lease that was lost halts nothing."""
        partition = self.database.partitions[lease.partition]
        if partition.epoch == lease.epoch and partition.halted is None:
            partition.halted = reason

    async def mark_caught_up(self, moves: Sequence[tuple[Lease, int, int]]) -> None:
        """See WriteStore."""
        for lease, next_offset, at_us in moves:
            partition = self.database.partitions[lease.partition]
            if (partition.epoch, partition.next_offset) == (lease.epoch, next_offset):
                at_us = min(at_us, self.database.clock.now_us())
                partition.stored_to_us = max(partition.stored_to_us, at_us)

    async def recent_lines(self) -> tuple[int, int]:
        """See WriteStore. Nothing here is long ago."""
        sums = {Outcome.STORED: 0, Outcome.DEAD: 0}
        for (_, _, _, outcome, reason), count in self.database.ledger.items():
            if outcome in sums and (outcome, reason) != (Outcome.DEAD, KEY_REUSED):
                sums[Outcome(outcome)] += count
        return sum(sums.values()), sums[Outcome.DEAD]

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[WriteTransaction]:
        """See WriteStore."""
        yield _MemoryTransaction(self.database)

    async def refusal(self, rows: Sequence[EncodedRow]) -> str | None:
        """See WriteStore."""
        try:
            _decode(rows)
        except RowsRefused as refused:
            return str(refused)
        return None

    # --- reading ---------------------------------------------------------------------------------------------------

    @asynccontextmanager
    async def snapshot(
        self, *, at_least: Mapping[int, int] | None = None, is_again: bool = False
    ) -> AsyncIterator[Snapshot]:
        """See ReadStore."""
        del at_least, is_again
        yield _MemorySnapshot(
            self.database.rows(),
            {number: partition.next_offset for number, partition in self.database.partitions.items()},
            self.database.visible_through_us(),
            self.database,
            page_bytes_max=self._page_bytes_max,
            rows_per_scan=self._rows_per_scan,
        )

    async def services(self, *, allowed: ServiceScope) -> list[ServiceSummary]:
        """See ReadStore."""
        found: dict[str, ServiceSummary] = {}
        for (minute_us, name, level, outcome, _), count in sorted(self.database.ledger.items()):
            if outcome != Outcome.STORED or not allowed.permits(name):
                continue
            counts = found[name].counts_by_level if name in found else {}
            band = level_name(level)
            counts[band] = counts.get(band, 0) + count
            found[name] = ServiceSummary(name, minute_us, counts)
        return [found[name] for name in sorted(found)[:SERVICES_MAX]]

    async def ledger(
        self,
        *,
        start_us: int,
        end_us: int,
        allowed: ServiceScope,
        service_names: Iterable[str] = (),
        rows_max: int,
        budget_ms: int,
    ) -> list[LedgerRow]:
        """See ReadStore."""
        wanted = set(service_names)
        rows = [
            LedgerRow(minute_us, name, level, Outcome(outcome), reason, count)
            for (minute_us, name, level, outcome, reason), count in sorted(self.database.ledger.items())
            if count and start_us <= minute_us < end_us and allowed.permits(name) and (not wanted or name in wanted)
        ]
        return rows[:rows_max]

    async def cursor_secret(self) -> bytes:
        """See ReadStore."""
        return self.database.secret

    # --- upkeep: the caller's time is taken as it is, so that a test can be years ahead -----------------------------

    async def clock_us(self) -> int:
        """See Upkeep."""
        return self.database.clock.now_us()

    async def ensure_chunks(self, *, now_us: int) -> None:
        """See Upkeep."""
        first_us = min(now_us - now_us % CHUNK_US, self.database.border.closed_before_us)
        for start_us in range(first_us, now_us + _CHUNKS_AHEAD * CHUNK_US + 1, CHUNK_US):
            if start_us >= self.database.border.closed_before_us:
                self.database.chunks.setdefault(start_us, [])

    async def summarise(self) -> None:
        """See Upkeep. There is nothing to summarise."""

    async def index_open(self, by: OpenIndex) -> int:
        """See Upkeep. There is nothing to index."""
        return 0

    async def sum_open(self) -> int:
        """See Upkeep. There is nothing to sum."""
        return 0

    async def close_due(self, *, now_us: int) -> int:
        """See Upkeep."""
        database, border = self.database, self.database.border
        running = [p.stored_to_us for p in database.partitions.values() if p.halted is None]
        through_us = database.visible_through_us()
        before_us, closed = border.closed_before_us, 0
        for start_us in sorted(start for start in database.chunks if start >= before_us):
            end_us = start_us + CHUNK_US
            passed = through_us >= end_us + CLOSING_DELAY_US
            others_passed = min(running, default=now_us) >= end_us + CLOSING_DELAY_US
            if not passed and not (now_us >= end_us + HALTED_CLOSING_US and others_passed):
                break
            before_us, closed = end_us, closed + 1
        generation, late = border.late_generation, database.late[border.late_generation]
        if late.rows and now_us >= late.opened_us + LATE_AGE_US:
            generation, closed = generation + 1, closed + 1
            database.late[generation] = _Late(now_us)
        database.border = Border(before_us, generation)
        return closed

    async def finish_closed(self) -> int:
        """See Upkeep. Counting and indexing change nothing here."""
        database = self.database
        unfinished = [
            start
            for start in database.chunks
            if database.finished_before_us <= start < database.border.closed_before_us
        ]
        database.finished_before_us = database.border.closed_before_us
        return len(unfinished)

    async def drop_expired(self, *, now_us: int, retention_us: int) -> int:
        """See Upkeep."""
        database = self.database
        chunks = [
            start
            for start in database.chunks
            if start + CHUNK_US <= min(now_us - retention_us, database.border.closed_before_us)
        ]
        for start in chunks:
            del database.chunks[start]
        generations = [
            generation
            for generation, late in database.late.items()
            if generation < database.border.late_generation
            and max((log.timestamp for log in late.rows), default=0) < now_us - retention_us
        ]
        for generation in generations:
            del database.late[generation]
        through_us = database.visible_through_us()
        for key_hash, (_, stored_us) in list(database.keys.items()):
            if through_us >= stored_us + KEY_LIFE_US:
                del database.keys[key_hash]
        return len(chunks) + len(generations)

    async def roll_up_ledger(self, *, now_us: int) -> None:
        """See Upkeep. Rows are summed as they are appended."""


class _MemoryTransaction:
    """Implements `store.port.WriteTransaction`."""

    def __init__(self, database: MemoryDatabase) -> None:
        self._database = database
        self._border = database.border

    @property
    def border(self) -> Border:
        """See WriteTransaction."""
        return self._border

    async def known_keys(self, key_hashes: Sequence[bytes]) -> dict[bytes, bytes]:
        """See WriteTransaction."""
        stored = self._database.keys
        return {key_hash: stored[key_hash][0] for key_hash in key_hashes if key_hash in stored}

    async def commit(self, plan: StorePlan) -> None:
        """See WriteTransaction. Checks in the order in which the database does, then changes all in one step."""
        database = self._database
        hot, late = _decode(plan.hot), _decode(plan.late)
        if any(log.timestamp - log.timestamp % CHUNK_US not in database.chunks for log in hot):
            raise ChunkMissing
        hashes = [key.key_hash for key in plan.keys]
        if len(set(hashes)) < len(hashes) or any(key_hash in database.keys for key_hash in hashes):
            raise KeyAlreadyStored
        if sum(row.count for row in plan.ledger if row.outcome is Outcome.STORED) != len(hot) + len(late):
            raise CountMismatch
        is_older = any(log.timestamp < database.border.closed_before_us for log in hot)
        if is_older or (late and self._border.late_generation != database.border.late_generation):
            raise BorderMoved
        if not all(map(self._may_move, plan.moves)):
            raise Fenced
        for log in hot:
            database.chunks[log.timestamp - log.timestamp % CHUNK_US].append(log)
        database.late[database.border.late_generation].rows += late
        now_us = database.clock.now_us()
        database.keys |= {key.key_hash: (key.body_sha256, now_us) for key in plan.keys}
        for row in plan.ledger:
            database.ledger[(row.minute_us, row.service_name, row.level, row.outcome.value, row.reason)] += row.count
        database.dead += plan.dead
        for move in plan.moves:
            partition = database.partitions[move.partition]
            partition.next_offset, partition.last_frame_id = move.next_offset, move.last_frame_id
            partition.stored_to_us = max(partition.stored_to_us, move.stored_to_us)

    def _may_move(self, move: OffsetMove) -> bool:
        partition = self._database.partitions.get(move.partition)
        if partition is None or partition.halted is not None:
            return False
        return (partition.epoch, partition.next_offset) == (move.epoch, move.from_offset)


class _MemorySnapshot:
    """Implements `store.port.Snapshot` on a copy."""

    def __init__(
        self,
        rows: list[Log],
        offsets: dict[int, int],
        visible_through_us: int,
        database: MemoryDatabase,
        *,
        page_bytes_max: int,
        rows_per_scan: int | None,
    ) -> None:
        self._rows = rows
        self._offsets = offsets
        self._visible_through_us = visible_through_us
        self._border = database.border
        self._chunks = sorted(database.chunks)
        self._late_rows = sum(len(late.rows) for late in database.late.values())
        self._page_bytes_max = page_bytes_max
        self._rows_per_scan = rows_per_scan

    @property
    def offsets(self) -> dict[int, int]:
        """See Snapshot."""
        return dict(self._offsets)

    @property
    def visible_through_us(self) -> int:
        """See Snapshot."""
        return self._visible_through_us

    @property
    def closed_before_us(self) -> int:
        """See Snapshot."""
        return self._border.closed_before_us

    @property
    def revision(self) -> int:
        """See Snapshot."""
        return hash((self._border, *self._chunks))

    @property
    def place(self) -> str:
        """See Snapshot."""
        return ""

    @property
    def is_current(self) -> bool:
        """See Snapshot."""
        return True

    @property
    def mark(self) -> int:
        """See Snapshot."""
        return self._late_rows

    async def late_since(self, mark: int) -> bool:
        """See Snapshot."""
        return self._late_rows != mark

    async def newest(self) -> Position | None:
        """See Snapshot."""
        return _position(self._rows[-1]) if self._rows else None

    async def scan(self, scan: Scan, *, allowed: ServiceScope) -> ScanResult:
        """See Snapshot."""
        if allowed.is_empty or scan.limit < 1:
            return ScanResult([], True, None)
        low, high = LEAST, BEYOND
        if scan.start_us is not None:
            low = max(low, (scan.start_us, 0))
        if scan.end_us is not None:
            high = min(high, (scan.end_us, 0))
        if scan.last is not None:
            high = min(high, successor(scan.last))
        if scan.after is not None and scan.order is Order.NEWEST_FIRST:
            high = min(high, scan.after)
        elif scan.after is not None:
            low = max(low, successor(scan.after))
        first, end = (bisect_left(self._rows, position, key=_position) for position in (low, high))
        rows = self._rows[first:end]
        if scan.order is Order.NEWEST_FIRST:
            rows.reverse()
        matches = compile_match(scan.predicate)
        found: list[Log] = []
        size = 0
        for looked_at, log in enumerate(rows):
            if looked_at == self._rows_per_scan:
                return ScanResult(found, False, _position(rows[looked_at - 1]))
            if not allowed.permits(log.service_name) or not matches(log):
                continue
            if len(found) == scan.limit or size >= self._page_bytes_max:
                return ScanResult(found, False, _position(found[-1]))
            found.append(log)
            size += len(log.message.encode()) + len(msgspec.json.encode(log.metadata))
        return ScanResult(found, True, None)

    async def count(self, count: Count, *, allowed: ServiceScope) -> CountResult:
        """See Snapshot. A budget of rows ends it as it ends a scan."""
        matches = compile_match(count.predicate)
        rows: Counter[tuple[int, int]] = Counter()
        within = [log for log in reversed(self._rows) if count.start_us <= log.timestamp < count.end_us]
        for looked_at, log in enumerate(within):
            is_over = self._rows_per_scan is not None and looked_at >= self._rows_per_scan
            if is_over and log.timestamp < within[looked_at - 1].timestamp:  # of one moment all rows are counted
                return CountResult(dict(rows), within[looked_at - 1].timestamp)
            if allowed.permits(log.service_name) and matches(log):
                since_us = (log.timestamp - count.origin_us) % count.width_us
                rows[log.timestamp - since_us, log.level] += 1
        return CountResult(dict(rows), None)

    async def by_id(self, log_id: int, *, allowed: ServiceScope) -> Log | None:
        """See Snapshot."""
        found = next((log for log in self._rows if log.id == log_id), None)
        return found if found is not None and allowed.permits(found.service_name) else None


def _decode(rows: Sequence[EncodedRow]) -> list[Log]:
    """The logs in rows. Raises RowsRefused for what PostgreSQL refuses: no UTF-8, NUL, unreadable JSON."""
    logs = []
    for row in rows:
        try:
            log = decode_row(row.copy_bytes)
        except ValueError as error:
            raise RowsRefused(f"the database cannot store the row: {error}") from error
        texts = (log.service_name, log.message, log.correlation_id or "", msgspec.json.encode(log.metadata).decode())
        if any("\0" in text or "\\u0000" in text for text in texts):
            raise RowsRefused("the database cannot store a NUL in a text")
        logs.append(log)
    return logs


def _lease(number: int, partition: _Partition) -> Lease:
    return Lease(number, partition.epoch, partition.next_offset, partition.last_frame_id, partition.halted)


def _position(log: Log) -> Position:
    return log.timestamp, log.id
