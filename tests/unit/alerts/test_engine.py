"""Rules, rights and the notifier together: what a right that is narrowed leaves behind."""

from __future__ import annotations

from typing import Any

import pytest

from alerts.engine import Engine
from alerts.evaluate import RuleState
from alerts.notify import Notifier, NotifierState, Pace
from alerts.rules import Rule, RuleDocument
from schemas.record import Log
from schemas.scope import AUDIT_SERVICE, NO_SERVICES, ServiceScope

S = 1_000_000
PACE = Pace(group_wait_s=0, group_interval_s=1, repeat_interval_s=1)
PAY, SHOP = frozenset({"pay"}), frozenset({"shop"})


def rule(**fields: Any) -> Rule:
    base = {"name": "r", "window": 60, "every": 10, "lateness": 0, "channels": ["ops"]}
    return Rule(RuleDocument.model_validate(base | {"condition": {"count": {"at_least": 1}}} | fields), "user:7")


def engine() -> Engine:
    return Engine(Notifier(NotifierState(), pace=PACE, default_channels=()))


def log(at_s: float, service: str) -> Log:
    return Log(int(at_s * 10), int(at_s * S), 9, service, f"said by {service}", None, {})


def fired(one: Rule, scope: ServiceScope) -> Engine:
    """An engine whose rule fires by logs of pay and shop, which was told."""
    made = engine()
    made.set_rules([(one, scope)], {}, read_us=0, now_us=0)
    made.take([log(1, "pay"), log(2, "shop")])
    told = made.advance(10 * S, 10 * S).notifications
    assert told, "it fires"
    return made


@pytest.mark.parametrize("fields", [{}, {"group_by": ["service"]}, {"condition": {"new_pattern": {"learn": 0}}}])
def test_what_an_owner_may_see_no_more_is_neither_counted_nor_repeated(fields: dict[str, Any]) -> None:
    one = rule(**fields)
    made = fired(one, ServiceScope(names=PAY | SHOP))
    outcome = made.set_rules([(one, ServiceScope(names=SHOP))], {}, read_us=10 * S, now_us=10 * S)
    told = [
        *outcome.notifications,
        *made.advance(20 * S, 20 * S).notifications,
        *made.advance(30 * S, 30 * S).notifications,
    ]
    assert told, "the end is told"
    for alert in (alert for notification in told for alert in notification.alerts):
        assert alert.state == "resolved"
        assert "pay" not in {sample.service_name for sample in alert.samples}
    assert all("pay" not in {each.service_name for each in alert.samples} for alert in outcome.alerts.values())
    assert not made.evaluators["r"].state.groups
    assert not made.evaluators["r"].state.known


def test_a_right_that_changed_while_nobody_led_counts_all_the_same() -> None:
    one = rule()
    before = fired(one, ServiceScope(names=PAY | SHOP))
    saved: dict[str, RuleState] = {"r": before.evaluators["r"].saved()}
    after = Engine(before.notifier)
    outcome = after.set_rules([(one, ServiceScope(names=SHOP))], saved, read_us=10 * S, now_us=10 * S)
    assert [alert.state for alert in outcome.alerts.values()] == ["resolved"]
    assert {each.service_name for alert in outcome.alerts.values() for each in alert.samples} == {"shop"}


def test_a_right_that_is_gone_leaves_no_line() -> None:
    one = rule()
    made = fired(one, ServiceScope(names=PAY))
    outcome = made.set_rules([(one, NO_SERVICES)], {}, read_us=10 * S, now_us=10 * S)
    assert [(alert.state, alert.samples) for alert in outcome.alerts.values()] == [("resolved", [])]


@pytest.mark.parametrize(
    ("query", "scope"),
    [
        ("", ServiceScope(names=PAY | SHOP)),
        ("service:pay", ServiceScope(names=PAY | frozenset({"mail"}))),
        ("service:shop", ServiceScope(everything=True, excluded=frozenset({AUDIT_SERVICE}))),
    ],
)
def test_a_right_that_means_the_same_to_a_rule_leaves_it_as_it_is(query: str, scope: ServiceScope) -> None:
    one = rule(query=query)
    made = fired(one, ServiceScope(names=PAY | SHOP))
    groups = made.evaluators["r"].state.groups
    outcome = made.set_rules([(one, scope)], {}, read_us=10 * S, now_us=10 * S)
    assert outcome.is_empty
    assert made.evaluators["r"].state.groups is groups
    assert groups
