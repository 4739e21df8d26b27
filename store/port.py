"""The store as its users see it. One contract suite (tests/contract/test_store.py) holds every implementation to this.

Writing is one transaction per batch (`WriteStore.begin`): it stores rows, idempotency keys, ledger rows, dead letters and
moves the partitions' offsets, all or nothing (INV-2). The writer decides what goes in (writer/plan.py); the store
executes and checks.

Reading is one snapshot per page (`ReadStore.snapshot`): rows, offsets and `visible_through` of one moment (INV-6).

Times are integers: microseconds since the Unix epoch, UTC (`_us`). A position is (timestamp_us, id).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Final, Protocol

import msgspec

from schemas.errors import DatabaseUnavailable, LogfeedError
from schemas.record import Log
from schemas.scope import ServiceScope
from search.predicate import Predicate

Position = tuple[int, int]
"""(timestamp_us, id): the order of everything."""


# --- writing ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Lease:
    """The right to store one partition, as the store knows it when it was taken."""

    partition: int
    epoch: int
    next_offset: int
    last_frame_id: bytes | None
    """Frame id at offset next_offset - 1; None when nothing was stored yet."""
    halted: str | None
    """Why the partition must not be processed (an operator clears it), or None."""


@dataclass(frozen=True, slots=True)
class Border:
    """Where open storage begins. Rows older than `closed_before_us` go to the late generation."""

    closed_before_us: int
    late_generation: int


class EncodedRow(msgspec.Struct, frozen=True, gc=False):
    """One row ready to be copied (store/rows.py makes it)."""

    timestamp_us: int
    id: int
    copy_bytes: bytes
    """The row in PostgreSQL's binary COPY format, without file header."""


class Outcome(StrEnum):
    """What the ledger counts (INV-1): received = stored + filtered + rejected + duplicate + dead."""

    RECEIVED = "received"
    STORED = "stored"
    FILTERED = "filtered"
    REJECTED = "rejected"
    DUPLICATE = "duplicate"
    DEAD = "dead"


@dataclass(frozen=True, slots=True)
class LedgerRow:
    """So many logs of a service in a minute had an outcome."""

    minute_us: int
    service_name: str
    level: int
    """Severity of the band's first number for STORED; 0 for every other outcome."""
    outcome: Outcome
    reason: str
    """Rule of FILTERED, reason of REJECTED and DEAD; '' otherwise."""
    count: int


KEY_REUSED: Final = "key_reused"
MISMATCH: Final = "mismatch"
MISSING: Final = "missing"
NO_FRAME: Final = "no_frame"


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A line that could not be stored, kept aside with the reason."""

    partition: int
    offset: int
    line_index: int
    reason: str
    """Short fixed code: `undecodable`, `refused`, `key_reused`, `timestamp`; `mismatch` for the lines of a frame that
    contradicts its headers, `missing` for logs that such a frame counts and lacks, `no_frame` for a whole record."""
    detail: str
    service_name: str
    received_minute_us: int
    line: bytes
    """The line's bytes as they were in the frame; the record's value for `no_frame`, empty for `missing`."""
    log_id: int | None = None


@dataclass(frozen=True, slots=True)
class StoredKey:
    """An idempotency key whose frame is stored by this batch."""

    key_hash: bytes
    body_sha256: bytes
    partition: int | None = None
    """Where the frame lies in the broker, for who follows that; None where nobody knows."""
    offset: int | None = None


@dataclass(frozen=True, slots=True)
class OffsetMove:
    """Compare and set of one partition's position."""

    partition: int
    epoch: int
    from_offset: int
    next_offset: int
    last_frame_id: bytes
    stored_to_us: int
    """Append time of the last frame in the batch."""


@dataclass(slots=True)
class StorePlan:
    """All that one batch changes. `hot` and `late` were split by the border read in the same transaction."""

    hot: list[EncodedRow] = field(default_factory=list)
    late: list[EncodedRow] = field(default_factory=list)
    keys: list[StoredKey] = field(default_factory=list)
    ledger: list[LedgerRow] = field(default_factory=list)
    dead: list[DeadLetter] = field(default_factory=list)
    moves: list[OffsetMove] = field(default_factory=list)

    def add(self, other: StorePlan) -> None:
        """Put another plan's contents behind this one's."""
        for name in ("hot", "late", "keys", "ledger", "dead", "moves"):
            getattr(self, name).extend(getattr(other, name))


class StoreConflict(LogfeedError):
    """The batch was rolled back because the store's state is not what the plan expected; nothing changed."""


class KeyAlreadyStored(StoreConflict):
    """A key of the batch is stored already (LF001): plan again without its frames."""


class Fenced(StoreConflict):
    """A partition's epoch or offset is not the plan's (LF002): another writer owns it, or an earlier commit succeeded."""


class BorderMoved(StoreConflict):
    """Chunks were closed meanwhile (LF003): plan again with the new border."""


class CountMismatch(StoreConflict):
    """Copied rows and booked rows differ (LF004): a defect; the batch was rolled back."""


class RowsRefused(StoreConflict):
    """The database cannot store the rows as data (never a connection error): look for the poison line."""


class ChunkMissing(StoreConflict):
    """No chunk takes a row's timestamp: ensure the chunks and try again."""


class NameTaken(LogfeedError):
    """Another writer runs under this name: give each writer its own."""


class WriteTransaction(Protocol):
    """One batch. Leaving the context without a successful `commit` rolls back."""

    @property
    def border(self) -> Border:
        """The border as read at the start of this transaction."""

    async def known_keys(self, key_hashes: Sequence[bytes]) -> dict[bytes, bytes]:
        """key hash -> body sha256 of those that are stored (72 h at least)."""

    async def commit(self, plan: StorePlan) -> None:
        """Copy the rows, then keys, ledger, dead letters, border check, offsets, COMMIT. One call per transaction.

        Raises KeyAlreadyStored, Fenced, BorderMoved, CountMismatch, RowsRefused, ChunkMissing (all: rolled back) or
        DatabaseUnavailable (outcome unknown: read the lease's next_offset).
        """


class WriteStore(Protocol):
    """The writers' side."""

    async def register_partitions(self, topic: str, count: int) -> None:
        """Make the rows of partitions 0..count-1 at offset 0, where they are missing. Idempotent."""

    async def live_writers(self, owner: str, *, ttl_s: float) -> int:
        """Note that `owner` lives (for ttl_s) and return how many writers live, it included.

        Raises NameTaken, and changes nothing, when this object has noted the name and another one has noted it since. Who
        died before this object's first call does no harm: a restart under the same name just goes on.
        """

    async def depart(self, owner: str) -> None:
        """`owner` lives no more: the others need not wait until its time is over (clean stop, leases released before).
        Leaves alone what another process noted under the name. Idempotent. Raises DatabaseUnavailable."""

    async def claim(self, owner: str, *, want: int, ttl_s: float) -> list[Lease]:
        """Take leases up to `want` in all: first those that the owner's name still holds from before, then free or expired.

        epoch + 1 for each taken; terminates the database backend of the owner replaced. Returns the new leases only.
        """

    async def renew(self, owner: str, leases: Sequence[Lease], *, ttl_s: float) -> list[Lease]:
        """Extend; returns the leases still held, with current next_offset and last_frame_id. Others are lost."""

    async def release(self, owner: str, leases: Sequence[Lease]) -> list[int]:
        """Give up at once (clean stop, excess, any doubt); returns the partitions that had been lost to others before."""

    async def halt(self, lease: Lease, reason: str) -> None:
        """Mark the partition: nobody processes it until `logfeed db resume` clears it."""

    async def mark_caught_up(self, moves: Sequence[tuple[Lease, int, int]]) -> None:
        """(lease, next_offset, T): nothing was unread at time T (µs). Sets stored_to = max(stored_to, T) where epoch and
        next_offset still match. A T ahead of the store's clock counts as that clock's time."""

    async def recent_lines(self) -> tuple[int, int]:
        """(lines, of them dead) of what was committed in the last minutes (three at least), by every writer; dead letters
        of reused keys left out. Raises DatabaseUnavailable."""

    def begin(self) -> AbstractAsyncContextManager[WriteTransaction]:
        """Start a batch's transaction. Raises DatabaseUnavailable."""

    async def refusal(self, rows: Sequence[EncodedRow]) -> str | None:
        """Would the database refuse these rows as data? The error's text or None. Stores nothing."""


# --- reading ------------------------------------------------------------------------------------------------------


class Order(StrEnum):
    """Direction of a scan in (timestamp, id)."""

    NEWEST_FIRST = "desc"
    OLDEST_FIRST = "asc"


@dataclass(frozen=True, slots=True)
class Scan:
    """A question for rows. `after` is exclusive, in the scan's direction; bounds: start inclusive, end exclusive."""

    predicate: Predicate
    order: Order
    limit: int
    after: Position | None = None
    start_us: int | None = None
    end_us: int | None = None
    last: Position | None = None
    """Inclusive far end for NEWEST_FIRST's upper bound: nothing beyond this position is returned (the frozen first page)."""
    budget_ms: int = 2_000
    beyond_ms: int = 0
    """Of the budget, at most so much is spent to learn whether a row matches beyond a full result."""
    is_again: bool = False
    """It is asked again, after SnapshotLost: what is still missing ends the result, if there is anything before it."""


@dataclass(frozen=True, slots=True)
class ScanResult:
    """Rows in order, up to the limit or the store's bytes; such a result is full.

    Not finished: a row matches beyond these, or the budget (beyond_ms for a full result) ended before that was known; go on
    after `scanned_to`.
    """

    logs: list[Log]
    finished: bool
    """True: no further row matches beyond these."""
    scanned_to: Position | None
    """Everything up to here (in the scan's direction) was looked at; None when finished."""


@dataclass(frozen=True, slots=True)
class Count:
    """A question for numbers of rows, by time and level: start_us inclusive, end_us exclusive."""

    predicate: Predicate
    start_us: int
    end_us: int
    width_us: int
    """Of a bucket. Buckets begin at multiples of it from `origin_us` on, both ways."""
    origin_us: int
    budget_ms: int = 2_000
    is_again: bool = False
    """It is asked again, after SnapshotLost: what is still missing ends the count."""


@dataclass(frozen=True, slots=True)
class CountResult:
    """How many rows match. Counted from the newest on."""

    rows: dict[tuple[int, int], int]
    """(start of the bucket in µs, severity number) -> rows. Buckets without rows are left out."""
    counted_from_us: int | None
    """All rows from this time on are counted, and none before it: the budget ended. None: all are."""


class SnapshotLost(DatabaseUnavailable):
    """What this snapshot knows of was dropped while it was read: take a new one and ask again."""


class Snapshot(Protocol):
    """One moment of the store."""

    @property
    def offsets(self) -> dict[int, int]:
        """Partition -> next offset stored."""

    @property
    def visible_through_us(self) -> int:
        """Everything acknowledged before this time is in this snapshot."""

    @property
    def closed_before_us(self) -> int:
        """Rows older than this change no more, but for what comes late."""

    @property
    def revision(self) -> int:
        """Another one when rows have come or gone in a way that neither offsets nor `late_since` tell: tables that were
        closed, dropped or erased, dead letters that were stored after all, a crash that took back what was stored last."""

    @property
    def place(self) -> str:
        """Where this moment is kept: `revision` and `mark` are compared with those of the same place alone."""

    @property
    def is_current(self) -> bool:
        """False where another place may keep a later moment (a replica's primary): what is not found here may be there."""

    @property
    def mark(self) -> int:
        """What a later snapshot's `late_since` is asked with."""

    async def late_since(self, mark: int) -> bool:
        """Whether rows older than the border may have come since the snapshot with this mark. With the same revision, and
        when this is false, what lies before `closed_before_us` is what it was then."""

    async def newest(self) -> Position | None:
        """The greatest position of all rows; None when there is none."""

    async def scan(self, scan: Scan, *, allowed: ServiceScope) -> ScanResult:
        """Rows that match, in order, each once, over every table that may hold some."""

    async def count(self, count: Count, *, allowed: ServiceScope) -> CountResult:
        """How many rows match, each counted once, over every table that may hold some; those that scans would show."""

    async def by_id(self, log_id: int, *, allowed: ServiceScope) -> Log | None:
        """The log, or None when absent or not allowed."""


SERVICES_MAX = 10_000
"""Most services in one answer."""


@dataclass(frozen=True, slots=True)
class ServiceSummary:
    """One service as the ledger knows it."""

    service_name: str
    last_seen_us: int
    counts_by_level: dict[str, int]
    """Logs ever stored, those past retention included."""


class ReadStore(Protocol):
    """The readers' side."""

    def snapshot(
        self, *, at_least: Mapping[int, int] | None = None, is_again: bool = False
    ) -> AbstractAsyncContextManager[Snapshot]:
        """A consistent view, open for a bounded time (60 s at most). Raises DatabaseUnavailable, from within too when that time
        is over, also where the store does not answer any more.

        at_least: partition -> offset that the moment has to have reached where there is one that has, of several places that
        keep the same; the caller compares. is_again: it is asked again, after SnapshotLost."""

    async def services(self, *, allowed: ServiceScope) -> list[ServiceSummary]:
        """Every service that ever had a log stored, by name; the first SERVICES_MAX."""

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
        """Sums per (minute, service, level, outcome, reason) with start <= minute < end, ordered by these; the first rows_max.
        Raises DatabaseUnavailable, also when they are not there in budget_ms."""

    async def cursor_secret(self) -> bytes:
        """32 random bytes, the same for every process of this store: signs cursors."""


# --- upkeep -------------------------------------------------------------------------------------------------------


class OpenIndex(StrEnum):
    """What the rows of chunks that are not finished can be indexed by."""

    CORRELATION = "correlation"
    METADATA = "metadata"


class Upkeep(Protocol):
    """What keeps the store in shape. Run by whoever holds the `sealer` lease; every call is safe to repeat and to kill.

    `now_us` is the caller's clock. Where it is ahead of the store's own clock, that one counts: a step forward of one
    host closes, drops and sums nothing.
    """

    async def clock_us(self) -> int:
        """The time by the store's own clock."""

    async def ensure_chunks(self, *, now_us: int) -> None:
        """Chunks for now and two ahead exist; so does tomorrow's table of keys. After a long pause the oldest missing ones
        come first, a bounded number a call."""

    async def summarise(self) -> None:
        """Summarise the BRIN indexes of open tables."""

    async def index_open(self, by: OpenIndex) -> int:
        """Index what has gathered in chunks that are not finished, when there is enough of it and writers keep up; returns
        how many rows. May take minutes; the caller decides how often."""

    async def sum_open(self) -> int:
        """Sum what has come into chunks that are not finished since the last call, for counts; returns how many numbers are
        new: one for each minute, service and level."""

    async def close_due(self, *, now_us: int) -> int:
        """Move the border past chunks that are due, end late generations that are full or old; returns how many closed."""

    async def finish_closed(self) -> int:
        """Count and index tables that were closed and are not finished; returns how many."""

    async def drop_expired(self, *, now_us: int, retention_us: int) -> int:
        """Drop tables past retention, and expired keys, reservations and minutes of the ledger; returns how many tables."""

    async def roll_up_ledger(self, *, now_us: int) -> None:
        """Sum ledger rows older than a few minutes into one row each."""
