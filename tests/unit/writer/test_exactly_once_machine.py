"""The writer's core against a model: any order of publishing, storing, crashing, losing answers, taking over, closing.

The broker is a list per partition, the store is the memory store, which passes the contract suite of the real ones. Each
writer works as `writer/consume.py` does: lease, `Positions`, `plan_batch`, commit; after any doubt it forgets everything
and takes its leases again.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass, field

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from broker.port import Delivered
from runtime.clock import ManualClock
from schemas.record import Log
from store.memory import MemoryDatabase, MemoryStore
from store.port import BorderMoved, Fenced, KeyAlreadyStored, Lease, Outcome
from tests.unit.writer.builders import NOON_MS, frame, log
from writer.decode import DecodedFrame, decode_frame
from writer.plan import plan_batch
from writer.positions import Positions

PARTITIONS = 2
LEASE_S = 10.0
WRITERS = ("a", "b")


@dataclass
class Writer:
    """One writer process."""

    store: MemoryStore
    leases: dict[int, Lease] = field(default_factory=dict)
    positions: Positions = field(default_factory=Positions)
    cursor: dict[int, int] = field(default_factory=dict)
    """partition -> offset of the next record its reader returns"""

    def forget(self) -> None:
        """As after a crash or any doubt."""
        self.leases, self.cursor, self.positions = {}, {}, Positions()


class ExactlyOnce(RuleBasedStateMachine):
    """See the module."""

    def __init__(self) -> None:
        super().__init__()
        self.clock = ManualClock(NOON_MS * 1000)
        self.database = MemoryDatabase(clock=self.clock)
        self.log: list[list[Delivered]] = [[] for _ in range(PARTITIONS)]
        self.keys: set[str] = set()
        self.expected: list[list[set[int]]] = [[] for _ in range(PARTITIONS)]
        """What storing each record adds: ids of its rows, or nothing for a copy."""
        self.sizes: list[list[int]] = [[] for _ in range(PARTITIONS)]
        self.numbers = 0
        self.writers = {name: Writer(self._new_store()) for name in WRITERS}
        asyncio.run(self.writers["a"].store.register_partitions("logs.v1", PARTITIONS))
        asyncio.run(self.writers["a"].store.ensure_chunks(now_us=self.clock.now_us()))
        self.take_leases("a", PARTITIONS)

    def _new_store(self) -> MemoryStore:
        return MemoryStore(self.database)

    # --- producers ---

    @rule(partition=st.integers(0, PARTITIONS - 1), count=st.integers(0, 3), late=st.booleans())
    def publish(self, partition: int, count: int, late: bool) -> None:
        """A request without a key."""
        logs = self._logs(count, late=late)
        self._append(partition, logs, key=None, body="")
        self.expected[partition].append({one.id for one in logs})

    @rule(key=st.sampled_from(["k1", "k2"]), body=st.sampled_from(["x", "x", "y"]), count=st.integers(1, 3))
    def publish_keyed(self, key: str, body: str, count: int) -> None:
        """A keyed request always comes to its partition; the first one with a key wins, whatever its body."""
        partition = PARTITIONS - 1
        logs = self._logs(count, late=False)
        self._append(partition, logs, key=key, body=body)
        is_first = key not in self.keys
        self.keys.add(key)
        self.expected[partition].append({one.id for one in logs} if is_first else set())

    def _logs(self, count: int, *, late: bool) -> list[Log]:
        self.numbers += count
        timestamp_us = NOON_MS * 1000 - (40_000_000_000 if late else 0)
        return [log(self.numbers - index, timestamp_us=timestamp_us) for index in range(count)]

    def _append(self, partition: int, logs: list[Log], *, key: str | None, body: str) -> None:
        offset = len(self.log[partition])
        self.sizes[partition].append(len(logs))
        frame_id = 1000 * (partition + 1) + offset
        self.log[partition].append(
            frame(logs, partition=partition, offset=offset, frame_id=frame_id, key=key, body=body)
        )

    # --- writers ---

    @rule(name=st.sampled_from(WRITERS), want=st.integers(1, PARTITIONS))
    def take_leases(self, name: str, want: int) -> None:
        """A new session: whatever was in memory is gone."""
        writer = self.writers[name]
        held = asyncio.run(writer.store.renew(name, list(writer.leases.values()), ttl_s=LEASE_S))
        gained = asyncio.run(writer.store.claim(name, want=want, ttl_s=LEASE_S))
        writer.forget()
        writer.leases = {lease.partition: lease for lease in (*held, *gained)}
        writer.cursor = writer.positions.start(writer.leases.values(), dict.fromkeys(range(PARTITIONS), 0))

    @rule(
        name=st.sampled_from(WRITERS), count=st.integers(1, 8), end=st.sampled_from(["stored", "no answer", "killed"])
    )
    def store_batch(self, name: str, count: int, end: str) -> None:
        """Read some records of each partition held and store them, or die before or after the commit."""
        writer = self.writers[name]
        frames = []
        for partition in sorted(writer.leases):
            for record in self.log[partition][writer.cursor[partition] :][:count]:
                writer.cursor[partition] += 1
                if writer.positions.accept(record):
                    frames.append(decode_frame(record))
        if not frames:
            return
        epochs = {partition: lease.epoch for partition, lease in writer.leases.items()}
        if end == "killed":
            self._restart(name)
            return
        try:
            asyncio.run(self._commit(writer.store, frames, epochs))
        except Fenced:
            writer.forget()
            return
        if end == "no answer":
            writer.forget()

    def _restart(self, name: str) -> None:
        self.writers[name] = Writer(self._new_store())

    async def _commit(self, store: MemoryStore, frames: list[DecodedFrame], epochs: dict[int, int]) -> None:
        keys = [one.key_hash for one in frames if one.key_hash is not None]
        for _ in range(5):
            try:
                async with store.begin() as transaction:
                    known = await transaction.known_keys(keys)
                    plan = plan_batch(frames, epochs=epochs, known=known, border=transaction.border)
                    await transaction.commit(plan)
                return
            except (KeyAlreadyStored, BorderMoved):
                continue
        raise AssertionError("the plan never agrees with the store")

    @rule(seconds=st.sampled_from([1.0, 11.0, 4 * 3600.0]))
    def time_passes(self, seconds: float) -> None:
        """Leases run out, chunks become due."""
        self.clock.advance(seconds)

    @rule()
    def close_chunks(self) -> None:
        """The border moves where everything visible has passed it."""
        store = self.writers["a"].store
        asyncio.run(store.ensure_chunks(now_us=self.clock.now_us()))
        asyncio.run(store.close_due(now_us=self.clock.now_us()))

    # --- what must hold ---

    @invariant()
    def each_record_below_the_offset_is_stored_exactly_once(self) -> None:
        """INV-2, at every moment."""
        expected: set[int] = set()
        for partition in range(PARTITIONS):
            for ids in self.expected[partition][: self.database.partitions[partition].next_offset]:
                expected |= ids
        found = Counter(row.id for row in self.database.rows())
        assert set(found) == expected
        assert all(times == 1 for times in found.values())

    @invariant()
    def ledger_adds_up(self) -> None:
        """INV-1, per minute and service."""
        balance: Counter[tuple[int, str]] = Counter()
        stored = received = 0
        for (minute_us, service, _, outcome, _), count in self.database.ledger.items():
            balance[minute_us, service] += count if outcome == Outcome.RECEIVED else -count
            stored += count if outcome == Outcome.STORED else 0
            received += count if outcome == Outcome.RECEIVED else 0
        assert set(balance.values()) <= {0}
        assert stored == len(self.database.rows())
        assert received == sum(
            sum(self.sizes[partition][: self.database.partitions[partition].next_offset])
            for partition in range(PARTITIONS)
        )


ExactlyOnce.TestCase.settings = settings(max_examples=60, stateful_step_count=50, deadline=None)
TestExactlyOnce = ExactlyOnce.TestCase
