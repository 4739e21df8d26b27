"""A rule's decisions, against a model that counts every window anew; and that order of arrival and savings change nothing."""

from __future__ import annotations

import random
from collections import defaultdict
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from alerts.engine import Engine
from alerts.evaluate import OTHER, Decision, Evaluator, RuleState, new_state
from alerts.notify import Notifier, NotifierState, Pace
from alerts.rules import Rule, RuleDocument
from schemas.record import Log
from schemas.scope import ALL_SERVICES

S = 1_000_000
EVERY = 10


def rule(**fields: Any) -> Rule:
    base = {"name": "r", "window": 30, "every": EVERY, "lateness": 0, "condition": {"count": {"at_least": 3}}}
    return Rule(RuleDocument.model_validate(base | fields), "file")


def log(
    at_s: float, metadata: dict[str, Any] | None = None, *, service: str = "a", level: int = 9, number: int = 0
) -> Log:
    return Log(number, int(at_s * S), level, service, f"line {number}", None, metadata or {})


def told(decisions: list[Decision]) -> list[tuple[str, int, str]]:
    return [(each.state, each.at_us // S, "/".join(each.group)) for each in decisions]


def run(one: Rule, logs: list[Log], until_s: int, *, start_s: int = 0) -> list[Decision]:
    evaluator = Evaluator(one, new_state(one, start_s * S))
    for each in logs:
        evaluator.add(each)
    return list(evaluator.advance(until_s * S))


def test_fires_at_the_first_look_that_sees_enough_and_ends_when_they_left_the_window() -> None:
    decisions = run(rule(), [log(1), log(2), log(12), log(13)], 100)
    assert told(decisions) == [("firing", 20, ""), ("resolved", 40, "")]
    assert decisions[0].value == 4
    assert decisions[0].alert_id == decisions[1].alert_id
    assert [sample.message for sample in decisions[0].samples] == ["line 0"] * 3
    assert [sample.timestamp for sample in decisions[0].samples] == [13 * S, 12 * S, 2 * S]


def test_for_waits_until_it_has_held_so_long() -> None:
    logs = [log(second) for second in range(60)]
    assert told(run(rule(**{"for": 20}), logs, 100)) == [("firing", 30, ""), ("resolved", 90, "")]
    assert told(run(rule(**{"for": 60}), logs, 70)) == [("firing", 70, "")]
    assert told(run(rule(**{"for": 90}), logs, 200)) == []


def test_rate_share_and_distinct_values() -> None:
    rate = rule(condition={"rate": {"at_least": 1, "per": 10}})
    assert told(run(rate, [log(1), log(2), log(3)], 20)) == [("firing", 10, "")]
    share = rule(condition={"error_ratio": {"at_least": 0.5, "min_logs": 4}})
    logs = [log(1, level=17), log(2, level=21), log(3), log(11)]
    (first, _) = run(share, logs, 50)
    assert (first.at_us, first.value, first.count) == (20 * S, 0.5, 4)
    assert run(share, logs[:3], 50) == [], "too few logs to say so"
    distinct = rule(condition={"distinct": {"field": "user.id", "at_least": 2}})
    assert (
        run(distinct, [log(1, {"user": {"id": 7}}), log(12, {"user.id": 7}), log(13), log(14, {"user": None})], 50)
        == []
    )
    (first, last) = run(distinct, [log(1, {"user": {"id": 7}}), log(12, {"user.id": "8"})], 50)
    assert (first.at_us, first.value, last.at_us) == (20 * S, 2.0, 40 * S)


def test_silence_of_one_service_and_of_each_that_was_heard_of() -> None:
    alone = rule(condition={"silence": {}})
    assert told(run(alone, [], 60)) == [("firing", 30, "")], "never heard of: silent after a whole window"
    assert told(run(alone, [log(5), log(71)], 120)) == [("firing", 40, ""), ("resolved", 80, ""), ("firing", 110, "")]
    each = rule(condition={"silence": {"forget": 60}}, group_by=["service"])
    assert run(each, [], 500) == [], "nobody knows whom to wait for"
    logs = [log(second, service="a") for second in range(0, 100, 5)] + [log(3, service="b")]
    found = run(each, logs, 200)
    assert told(found) == [
        *(("firing", 40, "b"), ("resolved", 70, "b")),
        *(("firing", 130, "a"), ("resolved", 160, "a")),
    ]
    assert found[1].reason == "silent for so long that it is forgotten"


def test_groups_are_watched_each_by_itself_and_past_the_limit_together() -> None:
    one = rule(group_by=["service", "host"], groups_max=2)
    logs = [log(second, {"host": host}, service=service) for service, host in ("ab", "cd") for second in (1, 2, 3)]
    assert told(run(one, logs, 10)) == [("firing", 10, "a/b"), ("firing", 10, "c/d")]
    more = [log(4, {"host": None}, service=f"s{number}") for number in range(5)]
    found = run(one, logs + more, 10)
    assert ("firing", 10, f"{OTHER}/{OTHER}") in told(found)
    evaluator = Evaluator(one, new_state(one, 0))
    for each in logs + more:
        evaluator.add(each)
    assert (len(evaluator.state.groups), evaluator.state.overflowed) == (3, 5)
    list(evaluator.advance(1000 * S))
    assert not evaluator.state.groups, "groups that say nothing any more make room"


def test_late_logs_are_counted_and_change_nothing() -> None:
    one = rule(lateness=5)
    evaluator = Evaluator(one, new_state(one, 100 * S))
    start_s = evaluator.state.start_us // S
    assert start_s == 90
    evaluator.add(log(80))
    assert evaluator.state.late == 0, "before the rule began"
    assert list(evaluator.advance(114 * S)) == []
    assert evaluator.state.tick_us == 100 * S
    for second in (101, 102, 103):
        evaluator.add(log(second))
    evaluator.add(log(99))
    assert evaluator.state.late == 1
    assert told(list(evaluator.advance(115 * S))) == [("firing", 110, "")]


def test_text_of_logs_is_cut_and_harmless_in_samples() -> None:
    bad = Log(1, S, 17, "a", "\x1b[31mred\u202e" + "x" * 5_000, None, {})
    (decision,) = run(rule(condition={"count": {"at_least": 1}}), [bad], 10)
    (sample,) = decision.samples
    assert sample.message.startswith("\\x1b[31mred\\u202ex")
    assert len(sample.message) == 500


def test_end_resolves_what_fires() -> None:
    one = rule()
    evaluator = Evaluator(one, new_state(one, 0))
    for second in (1, 2, 3):
        evaluator.add(log(second))
    assert told(list(evaluator.advance(10 * S))) == [("firing", 10, "")]
    (ended,) = evaluator.end("gone")
    assert (ended.state, ended.reason) == ("resolved", "gone")
    assert not evaluator.state.groups


# --- against a model --------------------------------------------------------------------------------------------------

Logs = list[tuple[int, str, int, int]]
LOGS = st.lists(
    st.tuples(st.integers(0, 199), st.sampled_from("abc"), st.sampled_from([9, 17]), st.integers(0, 4)), max_size=60
)
CONDITIONS = st.sampled_from(
    [
        {"count": {"at_least": 3}},
        {"rate": {"at_least": 0.2}},
        {"error_ratio": {"at_least": 0.6, "min_logs": 2}},
        {"distinct": {"field": "user", "at_least": 3}},
        {"silence": {"forget": 86_400}},
    ]
)


def model(one: Rule, logs: list[Log], until_s: int) -> Iterator[tuple[str, int, str]]:
    """Every window counted from all logs."""
    document = one.document
    window, grouped = document.window * S, bool(document.group_by)
    groups: dict[str, list[Log]] = defaultdict(list)
    for each in logs:
        groups[each.service_name if grouped else ""].append(each)
    if document.condition.silence and not grouped:
        groups[""] += []
    found = []
    for name, own in groups.items():
        pending: int | None = None
        fires = False
        for tick in range(EVERY * S, until_s * S + 1, EVERY * S):
            inside = [each for each in own if tick - window <= each.timestamp < tick]
            known = any(each.timestamp < tick for each in own) or not grouped
            condition = document.condition
            if condition.count:
                holds = len(inside) >= condition.count.at_least
            elif condition.rate:
                holds = len(inside) / document.window >= condition.rate.at_least
            elif condition.error_ratio:
                errors = sum(each.level >= 17 for each in inside)
                holds = len(
                    inside
                ) >= condition.error_ratio.min_logs and errors >= condition.error_ratio.at_least * len(inside)
            elif condition.distinct:
                holds = len({each.metadata["user"] for each in inside}) >= condition.distinct.at_least
            else:
                holds = not inside and tick >= window and known
            pending = (tick if pending is None else pending) if holds else None
            should = pending is not None and (fires or tick - pending >= document.for_ * S)
            if should != fires:
                found.append((tick, name, "firing" if should else "resolved"))
            fires = should
    for tick, name, state in sorted(found):
        yield state, tick // S, name


@settings(max_examples=150, deadline=None)
@given(LOGS, CONDITIONS, st.sampled_from([0, 10, 30]), st.booleans(), st.integers(0, 2**32))
def test_decides_as_a_model_that_counts_every_window_anew(
    drawn: Logs, condition: dict[str, Any], for_: int, grouped: bool, seed: int
) -> None:
    one = rule(condition=condition, group_by=["service"] if grouped else [], **{"for": for_})
    logs = [
        log(at, {"user": user}, service=service, level=level, number=number)
        for number, (at, service, level, user) in enumerate(drawn)
    ]
    expected = list(model(one, logs, 300))
    assert told(run(one, logs, 300)) == expected

    # Out of order within the lateness, told in pieces, and saved and read again between any two.
    late = rule(condition=condition, group_by=["service"] if grouped else [], lateness=20, **{"for": for_})
    chance = random.Random(seed)
    arrivals = sorted(logs, key=lambda each: each.timestamp + chance.randrange(20 * S))
    state = new_state(late, 0)
    state.start_us = state.tick_us = 0
    found: list[Decision] = []
    for each in arrivals:
        evaluator = Evaluator(late, msgspec.msgpack.decode(msgspec.msgpack.encode(state), type=RuleState))
        state = evaluator.state
        evaluator.add(each)
        found += evaluator.advance(each.timestamp)
    found += Evaluator(late, state).advance(320 * S)
    assert told(found) == expected
    assert state.late == 0


@pytest.mark.parametrize("silent", [True, False])
def test_a_long_quiet_time_costs_little(silent: bool) -> None:
    one = rule(condition={"silence": {}} if silent else {"count": {"at_least": 1}})
    decisions = run(one, [], 1_000_000)
    assert len(decisions) == silent


def test_who_is_far_behind_decides_the_same_in_bounded_steps() -> None:
    """A night without the database: every tick of it is due at once."""
    one = rule(group_by=["service"], condition={"silence": {}})
    night_us = 8 * 3_600 * S
    logs = [log(hour * 3_600 + number, service=f"s{number}") for hour in range(8) for number in range(5)]

    def begun() -> Evaluator:
        evaluator = Evaluator(one, new_state(one, 0))
        for each in logs:
            evaluator.add(each)
        return evaluator

    at_once, bounded = begun(), begun()
    expected, steps = list(at_once.advance(night_us)), 0
    found: list[Decision] = []
    assert len(expected) > 5
    while bounded.state.tick_us < night_us:
        before_us = bounded.state.tick_us
        found += bounded.advance(night_us, looks_max=50)
        ticks = (bounded.state.tick_us - before_us) // (EVERY * S)
        assert 0 < ticks <= 50 or not bounded.state.groups
        steps += 1
    assert steps > 20
    assert found == expected
    assert bounded.saved() == at_once.saved()


def test_rules_share_what_may_be_looked_at_in_one_step() -> None:
    engine = Engine(Notifier(NotifierState(), pace=Pace(), default_channels=()))
    rules = [(rule(name=f"r{number}", condition={"silence": {}}), ALL_SERVICES) for number in range(4)]
    engine.set_rules(rules, {}, read_us=0, now_us=0)
    engine.advance(3_600 * S, 0, looks_max=40)
    assert {each.state.tick_us for each in engine.evaluators.values()} == {10 * EVERY * S}
    engine.advance(3_600 * S, 0)
    assert {each.state.tick_us for each in engine.evaluators.values()} == {3_600 * S}
