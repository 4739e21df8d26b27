"""The circuit breaker, under any order of notifications and time."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from alerts.breaker import GROUPS_TOLD_MAX, Breaker, BreakerLimits, Held

S = 1_000_000
LIMITS = BreakerLimits(notifications_max=3, window_s=60, cool_down_s=90)


def take(breaker: Breaker, at_s: int, *groups: str) -> str:
    return breaker.take(list(groups) or ["g"], LIMITS, at_s * S)


def test_a_storm_is_told_once_and_then_summed_up() -> None:
    breaker = Breaker()
    assert [take(breaker, second, f"g{second}") for second in range(8)] == ["pass"] * 3 + ["opened"] + ["held"] * 4
    assert breaker.look(LIMITS, 92 * S) is None
    held = breaker.look(LIMITS, 93 * S)
    assert held == Held(5, 5, 3 * S, 7 * S, [f"g{number}" for number in range(3, 8)], 0)
    assert str(breaker.state) == "half_open"
    assert take(breaker, 95) == "pass"
    assert breaker.look(LIMITS, 93 * S + 60 * S) is None
    assert str(breaker.state) == "closed"
    assert breaker.passed_us == []


def test_a_storm_that_goes_on_gets_one_summary_a_cool_down() -> None:
    breaker, told = Breaker(), []
    for second in range(1_000):
        if breaker.look(LIMITS, second * S) is not None:
            told.append("summary")
        told.append(take(breaker, second))
    said = [each for each in told if each != "held"]
    assert said[:4] == ["pass"] * 3 + ["opened"]
    assert said.count("opened") == 1
    assert said[4:] == ["summary", "pass"] * (len(said[4:]) // 2)
    assert said.count("summary") == 10


def test_groups_that_are_told_are_bounded() -> None:
    held = Held()
    for number in range(100):
        held.add([f"g{number}", "g0"], number)
    assert (len(held.groups), held.groups_more, held.alerts) == (GROUPS_TOLD_MAX, 80, 200)


def test_a_reset_closes_it_and_tells_what_was_held() -> None:
    breaker = Breaker()
    for second in range(6):
        take(breaker, second)
    held = breaker.reset(7 * S)
    assert held is not None
    assert held.notifications == 3
    assert take(breaker, 8) == "pass"
    assert Breaker().reset(0) is None


class AnyOrder(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.breaker = Breaker()
        self.now_s = 0
        self.said_s: list[int] = []
        self.taken = self.passed = self.summed = 0

    @rule(seconds=st.integers(1, 200))
    def wait(self, seconds: int) -> None:
        self.now_s += seconds
        held = self.breaker.look(LIMITS, self.now_s * S)
        if held is not None:
            assert held.notifications > 0
            self.summed += held.notifications
            self.said_s.append(self.now_s)

    @rule(count=st.integers(1, 8))
    def notify(self, count: int) -> None:
        for _ in range(count):
            self.taken += 1
            before = self.breaker.state
            said = take(self.breaker, self.now_s)
            if said == "pass":
                self.passed += 1
                self.said_s.append(self.now_s)
            elif said == "opened":
                assert before == "closed"
                self.said_s.append(self.now_s)

    @invariant()
    def nothing_is_lost(self) -> None:
        assert self.taken == self.passed + self.summed + self.breaker.held.notifications

    @invariant()
    def never_more_than_promised(self) -> None:
        for end_s in self.said_s:
            recent = [said for said in self.said_s if end_s - LIMITS.window_s < said <= end_s]
            assert len(recent) <= LIMITS.notifications_max + 1

    def teardown(self) -> None:
        """Left alone, it closes and has told everything."""
        for _ in range(3):
            self.wait(LIMITS.cool_down_s)
        assert self.breaker.state == "closed"
        assert self.breaker.held.notifications == 0
        self.nothing_is_lost()


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=30, deadline=None)
