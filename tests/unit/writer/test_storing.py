"""Batches against the store in memory: floods of poison, and partitions whose batch never agrees."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager

import pytest
import zstandard

from runtime.clock import ManualClock
from schemas.record import Log
from store.memory import MemoryDatabase, MemoryStore
from store.port import Border, BorderMoved, EncodedRow, StorePlan, WriteTransaction
from tests.unit.writer.builders import NOON_MS, delivered, frame, header, log
from writer.decode import DecodedFrame, decode_frame
from writer.plan import TooManyDeadLetters
from writer.positions import BrokenSequence
from writer.settings import WriterSettings
from writer.storing import ATTEMPTS_MAX, Storing

PARTITIONS = 3


class Fussy(MemoryStore):
    """Refuses to agree with plans that move a partition, for some time."""

    def __init__(self, database: MemoryDatabase) -> None:
        super().__init__(database)
        self.refuses: dict[int, int] = {}
        """partition -> how many more of its commits are refused"""
        self.commits = 0
        self.questions = 0

    @asynccontextmanager
    async def begin(self) -> AsyncIterator[WriteTransaction]:
        async with super().begin() as transaction:
            yield _FussyTransaction(transaction, self)

    async def refusal(self, rows: Sequence[EncodedRow]) -> str | None:
        self.questions += 1
        return await super().refusal(rows)


class _FussyTransaction:
    def __init__(self, transaction: WriteTransaction, store: Fussy) -> None:
        self._transaction = transaction
        self._store = store

    @property
    def border(self) -> Border:
        return self._transaction.border

    async def known_keys(self, key_hashes: Sequence[bytes]) -> dict[bytes, bytes]:
        return await self._transaction.known_keys(key_hashes)

    async def commit(self, plan: StorePlan) -> None:
        self._store.commits += 1
        for move in plan.moves:
            if self._store.refuses.get(move.partition, 0) > 0:
                self._store.refuses[move.partition] -= 1
                raise BorderMoved
        await self._transaction.commit(plan)


class Bench:
    """One writer's `Storing`, its partitions leased, and frames that follow one another."""

    def __init__(self) -> None:
        self.clock = ManualClock(NOON_MS * 1000)
        self.store = Fussy(MemoryDatabase(clock=self.clock))
        self.plans: list[StorePlan] = []
        self.storing = self.new_storing()
        self.epochs: dict[int, int] = {}
        self.offsets = dict.fromkeys(range(PARTITIONS), 0)

    async def prepare(self) -> None:
        await self.store.register_partitions("logs.v1", PARTITIONS)
        await self.store.ensure_chunks(now_us=self.clock.now_us())
        leases = await self.store.claim("w", want=PARTITIONS, ttl_s=3600)
        self.epochs = {lease.partition: lease.epoch for lease in leases}

    def new_storing(self) -> Storing:
        return Storing(
            settings=WriterSettings(name="w"),
            store=self.store,
            upkeep=self.store,
            clock=self.clock,
            on_stored=self.plans.append,
        )

    def good(self, count: int, *, partition: int = 0) -> DecodedFrame:
        return decode_frame(frame(_logs(count), partition=partition, offset=self._next(partition)))

    def poison(self, count: int, *, partition: int = 0) -> DecodedFrame:
        """Lines that are no logs."""
        value = zstandard.compress(b"\n".join([b"[]"] * count))
        return decode_frame(delivered(header(_logs(count)), value, partition=partition, offset=self._next(partition)))

    def refused(self, count: int, *, bad: int) -> DecodedFrame:
        """Logs, some of which the database refuses."""
        logs = _logs(count)
        for one in logs[:bad]:
            one.metadata["nul"] = "\0"
        return decode_frame(frame(logs, offset=self._next(0)))

    async def put(self, *frames: DecodedFrame) -> None:
        await self.storing.store(list(frames), self.epochs)

    @property
    def dead(self) -> int:
        return sum(count for key, count in self.store.database.ledger.items() if key[3] == "dead")

    def _next(self, partition: int) -> int:
        self.offsets[partition] += 1
        return self.offsets[partition] - 1


def _logs(count: int) -> list[Log]:
    return [log(number) for number in range(1, count + 1)]


@pytest.fixture
async def bench() -> Bench:
    made = Bench()
    await made.prepare()
    return made


async def flood(bench: Bench, lines: int, *, seconds_apart: float = 0.1) -> None:
    while True:
        bench.clock.advance(seconds_apart)
        await bench.put(bench.poison(lines))


async def test_flood_of_poison_in_small_frames_stops_the_writer_soon(bench: Bench) -> None:
    with pytest.raises(TooManyDeadLetters, match="105 of 105 lines"):
        await flood(bench, 5)
    assert bench.dead == 100
    assert bench.store.database.partitions[0].next_offset == 20


async def test_writer_that_is_started_again_during_a_flood_puts_nothing_more_aside(bench: Bench) -> None:
    with pytest.raises(TooManyDeadLetters):
        await flood(bench, 5)
    bench.offsets[0] = bench.store.database.partitions[0].next_offset
    bench.storing = bench.new_storing()
    await bench.storing.remember()
    with pytest.raises(TooManyDeadLetters):
        await flood(bench, 5)
    assert bench.dead == 100


async def test_good_traffic_goes_on_after_a_flood(bench: Bench) -> None:
    with pytest.raises(TooManyDeadLetters):
        await flood(bench, 5)
    bench.offsets[0] = bench.store.database.partitions[0].next_offset
    bench.storing = bench.new_storing()
    await bench.storing.remember()
    await bench.put(bench.good(1_000))
    await bench.put(bench.poison(5))
    assert bench.dead == 105


async def test_only_what_was_committed_counts(bench: Bench) -> None:
    bench.store.refuses[0] = 15
    await bench.put(bench.poison(90))
    assert bench.store.commits == 16
    await bench.put(bench.poison(10))
    with pytest.raises(TooManyDeadLetters, match="101 of 101 lines"):
        await bench.put(bench.poison(1))


async def test_looking_for_refused_rows_gives_up_at_what_is_left_in_the_window(bench: Bench) -> None:
    await bench.put(bench.poison(96))
    await bench.put(bench.refused(20, bad=4))
    assert bench.dead == 100
    bench.store.questions = 0
    with pytest.raises(TooManyDeadLetters, match="partition 0 offset 2"):
        await bench.put(bench.refused(500, bad=400))
    assert bench.dead == 100
    assert bench.store.questions < 15


async def test_partition_that_never_agrees_is_alone_in_its_trouble(bench: Bench) -> None:
    bench.store.refuses[0] = bench.store.refuses[1] = 10**6
    with pytest.raises(BrokenSequence, match=f"{ATTEMPTS_MAX} times") as found:
        await bench.put(*(bench.good(3, partition=partition) for partition in range(PARTITIONS)))
    assert found.value.partition == 0
    stored = {number: one.next_offset for number, one in bench.store.database.partitions.items()}
    assert stored == {0: 0, 1: 0, 2: 1}
    assert [move.partition for plan in bench.plans for move in plan.moves] == [2]
