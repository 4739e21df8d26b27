"""A backtest decides as the evaluator does, however its logs are cut into pages, and tells as often as a leader would have."""

from __future__ import annotations

from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.backtest import Backtest
from alerts.breaker import BreakerLimits
from alerts.evaluate import Decision, Evaluator, new_state
from alerts.notify import Notification, Pace
from alerts.rules import Rule, RuleDocument
from schemas.record import Log

S = 1_000_000
START_US = 1_767_225_600 * S


def rule(**fields: Any) -> Rule:
    base = {"name": "r", "window": 60, "every": 10, "condition": {"count": {"at_least": 2}}}
    return Rule(RuleDocument.model_validate(base | fields), "file")


def log(at_s: int, service: str = "a", number: int = 0) -> Log:
    return Log(number, START_US + at_s * S, 17, service, "m", None, {})


@settings(max_examples=100, deadline=None)
@given(
    st.lists(st.tuples(st.integers(0, 3_000), st.sampled_from("ab")), max_size=40),
    st.sampled_from([{"count": {"at_least": 2}}, {"silence": {}}, {"error_ratio": {"at_least": 0.5}}]),
    st.booleans(),
    st.sampled_from([0, 30]),
    st.integers(1, 7),
)
def test_decides_as_the_evaluator_however_logs_are_cut_into_pages(
    drawn: list[tuple[int, str]], condition: dict[str, Any], grouped: bool, for_: int, page: int
) -> None:
    one = rule(condition=condition, group_by=["service"] if grouped else [], **{"for": for_})
    logs = [log(at_s, service, number) for number, (at_s, service) in enumerate(sorted(drawn))]
    end_us = START_US + 4_000 * S
    lateness_us = one.document.lateness * S
    evaluator = Evaluator(one, new_state(one, START_US + lateness_us))
    for each in reversed(logs):
        evaluator.add(each)
    expected = list(evaluator.advance(end_us + lateness_us))
    tried = Backtest(one, pace=Pace(), start_us=START_US)
    found: list[Decision | Notification] = []
    for first in range(0, len(logs), page):
        found += tried.take(logs[first : first + page])
    found += tried.advance(end_us)
    assert [each for each in found if isinstance(each, Decision)] == expected
    assert tried.tally.logs == len(logs)
    assert (tried.tally.firing, tried.tally.resolved) == (
        sum(each.state == "firing" for each in expected),
        sum(each.state == "resolved" for each in expected),
    )


def test_counts_messages_after_grouping_repeats_and_the_breaker() -> None:
    pace = Pace(group_wait_s=10, group_interval_s=60, repeat_interval_s=600, breaker=BreakerLimits(3, 600, 600))
    tried = Backtest(rule(condition={"count": {"at_least": 1}}, group_by=["service"]), pace=pace, start_us=START_US)
    together = [log(1, service) for service in "abc"]
    assert len([each for each in tried.take(together) if isinstance(each, Notification)]) == 0
    told = [each for each in tried.advance(START_US + 300 * S) if isinstance(each, Notification)]
    assert [(each.firing, each.resolved) for each in told] == [(3, 0), (0, 3)], "one message each, for all three"
    storm = [log(at_s, f"s{at_s}", at_s) for at_s in range(1_000, 2_000, 5)]
    list(tried.take(storm))
    list(tried.advance(START_US + 20_000 * S))
    tally = tried.tally
    assert tally.firing == tally.resolved == 203
    assert tally.notifications["breaker_opened"] >= 1
    assert tally.notifications["summary"] >= 1
    assert tally.notifications.total() < 20
    assert tally.held == 0, "summed up by then"


def test_a_long_quiet_range_is_passed_over_at_once() -> None:
    tried = Backtest(rule(every=1, window=60), pace=Pace(), start_us=START_US)
    assert list(tried.take([log(0), log(400 * 86_400)])) == []
    assert list(tried.advance(START_US + 800 * 86_400 * S)) == []
