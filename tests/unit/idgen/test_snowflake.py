"""Ids: unique and increasing under any clock, or refused."""

from __future__ import annotations

import itertools
import time

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, invariant, precondition, rule

from idgen.snowflake import ClockMovedBack, IdsExhausted, IdsUnavailable, LeaseEnded, Snowflake, ids_from
from schemas.errors import ConfigurationError
from schemas.ids import EPOCH_MS, SEQUENCES, WORKERS, received_ms

NOW_MS = EPOCH_MS + 90_000_000_000
HOUR_MS = 3_600_000


def make(*, worker: int = 7, last_ms: int = 0, reserved_until_ms: int = NOW_MS + HOUR_MS) -> Snowflake:
    return Snowflake(worker=worker, last_ms=last_ms, reserved_until_ms=reserved_until_ms)


def test_id_carries_time_worker_and_sequence() -> None:
    first, second = make(worker=1023).take(2, NOW_MS)
    assert received_ms(first) == NOW_MS
    assert (first >> 12) % WORKERS == 1023
    assert second == first + 1
    assert first % SEQUENCES == 0


def test_ten_thousand_ids_spill_into_following_milliseconds_without_spinning() -> None:
    ids = make().take(10_000, NOW_MS)
    assert len(set(ids)) == 10_000
    assert ids == sorted(ids)
    assert {received_ms(each) for each in ids} == {NOW_MS, NOW_MS + 1, NOW_MS + 2}


def test_ten_thousand_ids_take_well_under_a_millisecond_each_thousand() -> None:
    ids = make()
    started = time.perf_counter()
    for n in range(50):
        ids.take(10_000, NOW_MS + n * 10)
    assert time.perf_counter() - started < 1.0


def test_ids_of_a_request_follow_from_the_first() -> None:
    ids = make(worker=513)
    ids.take(4_000, NOW_MS)
    taken = ids.take(9_999, NOW_MS)
    assert ids_from(taken[0], len(taken)) == taken


@pytest.mark.parametrize("step_ms", [1, 5, 5_000, 10_000])
def test_small_step_back_rides_on_the_logical_clock(step_ms: int) -> None:
    ids = make()
    before = ids.take(3, NOW_MS)
    after = ids.take(3, NOW_MS - step_ms)
    assert after[0] > before[-1]


@pytest.mark.parametrize("step_ms", [10_001, HOUR_MS])
def test_large_step_back_is_refused_and_changes_nothing(step_ms: int) -> None:
    ids = make()
    before = ids.take(3, NOW_MS)
    with pytest.raises(ClockMovedBack) as refused:
        ids.take(3, NOW_MS - step_ms)
    assert refused.value.retry_after_s >= 1
    assert refused.value.retriable
    assert ids.take(1, NOW_MS)[0] == before[-1] + 1


def test_restart_with_the_clock_an_hour_back_is_refused() -> None:
    ids = make(last_ms=NOW_MS)
    with pytest.raises(ClockMovedBack):
        ids.take(1, NOW_MS - HOUR_MS)


def test_restart_in_the_same_millisecond_gives_later_ids() -> None:
    first = make()
    used = first.take(5, NOW_MS)
    second = make(last_ms=first.last_ms)
    assert received_ms(second.take(1, NOW_MS)[0]) > received_ms(used[-1])


def test_clock_a_year_ahead_is_refused_by_the_lease() -> None:
    ids = make()
    with pytest.raises(LeaseEnded):
        ids.take(1, NOW_MS + 365 * 24 * HOUR_MS)
    assert received_ms(ids.take(1, NOW_MS)[0]) == NOW_MS


def test_clock_can_be_checked_without_taking_an_id() -> None:
    ids = make(reserved_until_ms=NOW_MS + 1_000)
    first = ids.take(1, NOW_MS)[0]
    ids.check_clock(NOW_MS - 10_000)
    ids.check_clock(NOW_MS + 1_000)
    with pytest.raises(ClockMovedBack):
        ids.check_clock(NOW_MS - 10_001)
    with pytest.raises(LeaseEnded):
        ids.check_clock(NOW_MS + 1_001)
    assert ids.take(1, NOW_MS)[0] == first + 1


def test_no_id_passes_the_reserved_millisecond() -> None:
    ids = make(reserved_until_ms=NOW_MS)
    assert len(ids.take(SEQUENCES, NOW_MS)) == SEQUENCES
    with pytest.raises(LeaseEnded):
        ids.take(1, NOW_MS)
    ids.extend(NOW_MS + 1)
    assert received_ms(ids.take(1, NOW_MS)[0]) == NOW_MS + 1


def test_borrowing_is_bounded() -> None:
    ids = make()
    ids.take(900 * SEQUENCES, NOW_MS)
    with pytest.raises(IdsExhausted):
        ids.take(200 * SEQUENCES, NOW_MS)
    assert ids.take(10, NOW_MS)


def test_wrong_worker_and_count_are_refused() -> None:
    with pytest.raises(ConfigurationError, match=r"0\.\.1023"):
        make(worker=1024)
    with pytest.raises(ValueError, match="at least 1"):
        make().take(0, NOW_MS)


class Leases(RuleBasedStateMachine):
    """Processes that take, lose and hand over worker numbers, each with a clock that goes where it likes.

    The table is modelled as db/worker_ids.py has it: a number is free when its lease ran out and its reserved
    milliseconds lie before the database's and the taker's clock.
    """

    processes: Bundle[int] = Bundle("processes")

    def __init__(self) -> None:
        super().__init__()
        self.database_ms = NOW_MS
        self.leases: dict[int, tuple[int, int]] = {}
        """worker -> (lease until, reserved until)"""
        self.generators: list[Snowflake | None] = []
        self.clocks: list[int] = []
        self.lease_ends: list[int] = []
        self.seen: set[int] = set()
        self.last: list[int] = []

    def _lease(self, process: int) -> None:
        local = self.clocks[process]
        for worker in range(4):
            lease_until, reserved = self.leases.get(worker, (0, 0))
            if lease_until < self.database_ms and reserved < min(self.database_ms, local):
                until = self.database_ms + HOUR_MS
                self.leases[worker] = (until, until)
                self.generators[process] = Snowflake(worker=worker, last_ms=reserved, reserved_until_ms=until)
                self.lease_ends[process] = until
                self.last[process] = 0
                return
        self.generators[process] = None

    @rule(target=processes, skew_ms=st.integers(-300_000, 300_000))
    def start(self, skew_ms: int) -> int:
        self.generators.append(None)
        self.clocks.append(self.database_ms + skew_ms)
        self.lease_ends.append(0)
        self.last.append(0)
        self._lease(len(self.generators) - 1)
        return len(self.generators) - 1

    @rule(
        process=processes,
        step_ms=st.one_of(
            st.sampled_from([-HOUR_MS, -5_000, -5, 0, 1, 1000, 365 * 24 * HOUR_MS, -365 * 24 * HOUR_MS]),
            st.integers(-20_000, 20_000),
        ),
    )
    def step_clock(self, process: int, step_ms: int) -> None:
        self.clocks[process] += step_ms

    @rule(ms=st.sampled_from([1, 1000, 60_000, HOUR_MS, 2 * HOUR_MS]))
    def pass_time(self, ms: int) -> None:
        self.database_ms += ms
        self.clocks = [clock + ms for clock in self.clocks]

    @rule(process=processes, count=st.integers(1, 12_000))
    def take(self, process: int, count: int) -> None:
        generator = self.generators[process]
        if generator is None or self.database_ms >= self.lease_ends[process]:
            return  # the monotonic deadline of the lease has passed
        try:
            ids = generator.take(count, self.clocks[process])
        except IdsUnavailable:
            return
        assert len(ids) == count
        assert ids[0] > self.last[process]
        assert all(a < b for a, b in itertools.pairwise(ids))
        assert self.seen.isdisjoint(ids)
        assert received_ms(ids[-1]) <= generator.reserved_until_ms
        self.seen.update(ids)
        self.last[process] = ids[-1]

    @rule(process=processes)
    def renew(self, process: int) -> None:
        generator = self.generators[process]
        if generator is None or self.database_ms >= self.lease_ends[process]:
            return
        until = self.database_ms + HOUR_MS
        self.leases[generator.worker] = (until, max(self.leases[generator.worker][1], until))
        generator.extend(until)
        self.lease_ends[process] = until

    @rule(process=processes, clean=st.booleans())
    def restart(self, process: int, clean: bool) -> None:
        generator = self.generators[process]
        if generator is not None and clean and self.database_ms < self.lease_ends[process]:
            self.leases[generator.worker] = (self.database_ms - 1, generator.last_ms)
        self._lease(process)

    @precondition(lambda self: bool(self.generators))
    @invariant()
    def holders_differ(self) -> None:
        live = [
            generator.worker
            for generator, until in zip(self.generators, self.lease_ends, strict=True)
            if generator is not None and self.database_ms < until
        ]
        assert len(live) == len(set(live))


Leases.TestCase.settings = settings(
    max_examples=60, stateful_step_count=30, deadline=None, suppress_health_check=[HealthCheck.too_slow]
)
test_two_generators_never_share_an_id = Leases.TestCase
