"""Patterns that are new: told once, after a time of learning, in whatever order logs come, as a backtest tells them."""

from __future__ import annotations

import random
from typing import Any

import msgspec
import pytest

from alerts import novelty
from alerts.backtest import Backtest
from alerts.evaluate import OTHER, Decision, Evaluator, RuleState, new_state
from alerts.notify import Pace
from alerts.novelty import Novelty
from alerts.rules import NEW_PATTERN_RULES_MAX, Rule, RuleDocument, check_together
from schemas.record import Log

S = 1_000_000


def rule(learn: int = 0, **fields: Any) -> Rule:
    base = {"name": "r", "window": 30, "every": 10, "lateness": 0, "condition": {"new_pattern": {"learn": learn}}}
    return Rule(RuleDocument.model_validate(base | fields), "file")


def log(at_s: float, message: str, service: str = "a", number: int = 0) -> Log:
    return Log(number, int(at_s * S), 9, service, message, None, {})


def told(decisions: list[Decision]) -> list[tuple[str, int, tuple[str, ...]]]:
    return [(each.state, each.at_us // S, each.group) for each in decisions]


def run(one: Rule, logs: list[Log], until_s: int) -> list[Decision]:
    evaluator = Evaluator(one, new_state(one, 0))
    for each in logs:
        evaluator.add(each)
    return list(evaluator.advance(until_s * S))


def test_a_pattern_is_told_at_its_first_log_and_never_again() -> None:
    logs = [log(second, f"job {second} done") for second in range(5, 300, 5)]
    assert told(run(rule(), logs, 400)) == [
        ("firing", 10, ("a", "job <num> done")),
        ("resolved", 40, ("a", "job <num> done")),
    ]


def test_each_service_and_each_pattern_is_told_by_itself() -> None:
    logs = [log(1, "disk full"), log(2, "disk full", "b"), log(3, "disk empty now"), log(15, "disk full")]
    firing = [each for each in told(run(rule(), logs, 20)) if each[0] == "firing"]
    assert firing == [
        ("firing", 10, ("a", "disk empty now")),
        ("firing", 10, ("a", "disk full")),
        ("firing", 10, ("b", "disk full")),
    ]


def test_what_is_there_while_it_learns_is_not_told_later() -> None:
    logs = [log(5, "usual words here"), log(95, "rare but early line"), log(130, "usual words here")]
    logs += [log(135, "rare but early line"), log(140, "never seen before today")]
    assert [each[2][1] for each in told(run(rule(100), logs, 300)) if each[0] == "firing"] == [
        "never seen before today"
    ]


def test_a_pattern_that_several_become_is_not_new() -> None:
    names = ["ada", "ben", "cleo", "dan", "eve", "fay", "gus"]
    logs = [log(1 + 40 * n, f"session of user {name} was opened") for n, name in enumerate(names)]
    patterns = [each[2][1] for each in told(run(rule(), logs, 400)) if each[0] == "firing"]
    assert patterns == [f"session of user {name} was opened" for name in names[:5]]


def test_the_first_of_all_logs_counts_however_they_came() -> None:
    logs = [log(second, f"job {second} done", number=second) for second in (3, 12, 25, 33)]
    expected = told(run(rule(), logs, 100))
    for seed in range(10):
        random.Random(seed).shuffle(logs)
        assert told(run(rule(), logs, 100)) == expected


@pytest.mark.parametrize("cut", range(7))
def test_saved_and_gone_on_from_nothing_is_told_twice(cut: int) -> None:
    lines = [
        "one line here",
        "two lines there now",
        "one line here",
        "user 7 came",
        "user 8 came",
        "two lines there now",
    ]
    logs = [log(5 + 10 * at, line) for at, line in enumerate(lines)]
    one = rule()
    evaluator = Evaluator(one, new_state(one, 0))
    found: list[Decision] = []
    for at, each in enumerate(logs):
        if at == cut:
            packed = msgspec.msgpack.encode(evaluator.saved())
            evaluator = Evaluator(one, msgspec.msgpack.decode(packed, type=RuleState))
        evaluator.add(each)
        found += evaluator.advance(each.timestamp)
    found += evaluator.advance(200 * S)
    assert told(found) == told(run(one, logs, 200))
    assert sum(each.state == "firing" for each in found) == 3


def test_more_at_once_than_groups_are_watched_together() -> None:
    one = rule(groups_max=2)
    texts = ["alpha beta gamma", "delta epsilon", "zeta", "eta theta iota kappa"]
    groups = {each[2] for each in told(run(one, [log(1, text) for text in texts], 20))}
    assert groups == {("a", texts[0]), ("a", texts[1]), (OTHER, OTHER)}


def test_a_backtest_tells_what_was_told_live() -> None:
    pace = Pace(group_wait_s=0, group_interval_s=1, repeat_interval_s=3600)
    logs = [log(5 * n, f"kind {'abcdefgh'[n % 3]} of line number {n} " + "x " * (n % 4), number=n) for n in range(100)]
    one = rule(50)
    tried = Backtest(one, pace=pace, start_us=0)
    decided = [each for each in [*tried.take(logs), *tried.advance(600 * S)] if isinstance(each, Decision)]
    assert told(decided) == told(run(one, logs, 600))
    assert tried.tally.firing == tried.tally.resolved == sum(each.state == "firing" for each in decided) > 0


def test_what_is_known_is_bounded_and_outlives_the_miner(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(novelty, "KNOWN_MAX", 30)
    known = Novelty()
    for n in range(100):
        known.look("a", f"{'abcdefghij'[n % 10] * (1 + n // 10)} {'w ' * n}")
    snapshot, ids = known.saved()
    assert sum(map(len, ids.values())) == 30
    assert not known.has_learnt
    again = Novelty(b"no snapshot at all", ids)
    assert again.look("a", f"{'j' * 10} {'w ' * 99}") == (known.look("a", f"{'j' * 10} {'w ' * 99}")[0], False)
    assert again.look("a", "something else")[1]
    assert Novelty(snapshot, ids).look("a", "something else")[1]


def test_rules_of_other_kinds_are_what_they_were() -> None:
    """A fingerprint that changes with an upgrade would end what fires."""
    one = Rule(RuleDocument.model_validate({"name": "r", "condition": {"count": {"at_least": 3}}}), "file")
    assert one.fingerprint == "ea266e5ed97ea44adda2f2b320581e6e"


def test_mistakes_are_named() -> None:
    mistakes: tuple[tuple[dict[str, Any], str], ...] = (
        ({"group_by": ["pattern"]}, "leave it out"),
        ({"labels": {"service": "x"}}, "both a label"),
        ({"condition": {"new_pattern": {"learn": -1}}}, "expected a duration"),
    )
    for fields, said in mistakes:
        with pytest.raises(ValueError, match=said):
            rule(**fields)
    documents = [rule(name=f"r{n}").document for n in range(NEW_PATTERN_RULES_MAX + 1)]
    check_together(documents[:-1])
    with pytest.raises(ValueError, match="new_pattern"):
        check_together(documents)
