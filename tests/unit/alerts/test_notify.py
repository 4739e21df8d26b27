"""From decisions to messages: grouping, repeats, silences, inhibition, the breaker; and nothing lost in any order of events."""

from __future__ import annotations

import itertools
from typing import Any

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from alerts.breaker import BreakerLimits
from alerts.evaluate import Decision, alert_id
from alerts.matching import Inhibition, Matcher, Silence, all_match, parse_matcher
from alerts.notify import ALERTS_SHOWN_MAX, Notification, Notifier, NotifierState, Pace
from alerts.rules import Rule, RuleDocument

S = 1_000_000
PACE = Pace(
    group_wait_s=10,
    group_interval_s=60,
    repeat_interval_s=600,
    breaker=BreakerLimits(1_000, window_s=60, cool_down_s=60),
)


def make_rule(name: str = "r", **fields: Any) -> Rule:
    base = {"name": name, "condition": {"count": {"at_least": 1}}, "group_by": ["service"], "channels": ["ops"]}
    return Rule(RuleDocument.model_validate(base | fields), "file")


def decision(one: Rule, service: str, state: Any, at_s: int, *, started_s: int | None = None) -> Decision:
    started_us = (at_s if started_s is None else started_s) * S
    return Decision(
        alert_id=alert_id(one.name, (service,), started_us),
        rule=one.name,
        group=(service,),
        state=state,
        at_us=at_s * S,
        started_us=started_us,
        value=1.0,
        count=1,
    )


class Site:
    def __init__(
        self, *, pace: Pace = PACE, inhibitions: tuple[Inhibition, ...] = (), channels: tuple[str, ...] = ()
    ) -> None:
        self.notifier = Notifier(NotifierState(), pace=pace, default_channels=channels, inhibitions=inhibitions)
        self.told: list[Notification] = []

    def fire(self, one: Rule, service: str, at_s: int) -> None:
        self.until(at_s)
        self.notifier.decide(decision(one, service, "firing", at_s), one, at_s * S)

    def resolve(self, one: Rule, service: str, at_s: int, *, started_s: int) -> None:
        self.until(at_s)
        self.notifier.decide(decision(one, service, "resolved", at_s, started_s=started_s), one, at_s * S)

    def until(self, at_s: int) -> None:
        """Every tick that falls due, each at its time."""
        while (due_us := self.notifier.due_us()) is not None and due_us <= at_s * S:
            self.told += self.notifier.tick(due_us)
        self.told += self.notifier.tick(at_s * S)

    def lines(self) -> list[str]:
        return [
            f"{each.at_us // S} {each.kind} {each.firing}/{each.resolved}" + (" repeat" if each.is_repeat else "")
            for each in self.told
        ]


def test_alerts_of_a_rule_wait_for_company_and_go_together() -> None:
    site, one = Site(), make_rule()
    for service, at_s in (("a", 0), ("b", 4), ("c", 9)):
        site.fire(one, service, at_s)
    site.until(10)
    assert site.lines() == ["10 alerts 3/0"]
    site.fire(one, "d", 12)
    site.until(69)
    assert len(site.told) == 1, "not before the interval is over"
    site.until(70)
    assert site.lines()[1:] == ["70 alerts 4/0"]
    assert [alert.labels["service"] for alert in site.told[1].alerts] == ["d", "a", "b", "c"], (
        "what is new stands first"
    )
    site.resolve(one, "a", 80, started_s=0)
    site.until(130)
    assert site.lines()[2:] == ["130 alerts 3/1"]


def test_what_goes_on_is_repeated_and_what_has_ended_is_not() -> None:
    site, one = Site(), make_rule()
    site.fire(one, "a", 0)
    site.until(1_300)
    assert site.lines() == ["10 alerts 1/0", "610 alerts 1/0 repeat", "1210 alerts 1/0 repeat"]
    site.resolve(one, "a", 1_301, started_s=0)
    site.until(10_000)
    assert site.lines()[3:] == ["1311 alerts 0/1"]
    assert not site.notifier.state.alerts
    assert not site.notifier.state.gatherings
    assert site.notifier.due_us() is None


def test_what_was_over_before_its_turn_is_told_as_resolved() -> None:
    site, one = Site(), make_rule()
    site.fire(one, "a", 0)
    site.resolve(one, "a", 5, started_s=0)
    site.until(100)
    assert site.lines() == ["10 alerts 0/1"]


def test_each_channel_is_told_by_itself_and_default_channels_hold_where_a_rule_names_none() -> None:
    site = Site(channels=("x", "y"))
    site.fire(make_rule(channels=[]), "a", 0)
    site.fire(make_rule("other", channels=["z"]), "a", 0)
    site.until(10)
    assert sorted(each.channel for each in site.told) == ["x", "y", "z"]
    assert len({each.notification_id for each in site.told}) == 3


def test_a_silence_keeps_alerts_quiet_and_what_fires_on_is_told_when_it_ends() -> None:
    site, one = Site(), make_rule()
    site.notifier.silences = (Silence("s", (Matcher("service", "=~", "a|b"),), 0, 300 * S, "ann", "known"),)
    for service in "abc":
        site.fire(one, service, 0)
    site.resolve(one, "b", 100, started_s=0)
    site.until(299)
    assert [(each.firing, [alert.labels["service"] for alert in each.alerts]) for each in site.told] == [(1, ["c"])]
    site.until(400)
    assert site.lines()[1:] == ["350 alerts 2/0"]
    assert site.told[1].alerts[0].labels["service"] == "a"


def test_the_end_of_what_was_told_is_told_in_spite_of_a_silence() -> None:
    site, one = Site(), make_rule()
    site.fire(one, "a", 0)
    site.until(20)
    site.notifier.silences = (Silence("s", (Matcher("rule", "=", "r"),), 20 * S, 999 * S, "ann", "known"),)
    site.resolve(one, "a", 30, started_s=0)
    site.until(500)
    assert site.lines() == ["10 alerts 1/0", "70 alerts 0/1"]


def test_a_graver_alert_of_the_same_service_inhibits_and_itself_is_told() -> None:
    inhibition = Inhibition(
        (Matcher("severity", "=", "critical"),), (Matcher("severity", "=", "warning"),), ("service",)
    )
    site = Site(inhibitions=(inhibition,))
    grave, light = make_rule("grave", severity="critical"), make_rule("light")
    site.fire(grave, "a", 0)
    site.fire(light, "a", 1)
    site.fire(light, "b", 1)
    site.until(60)
    told = {(each.rule, alert.labels["service"]) for each in site.told for alert in each.alerts}
    assert told == {("grave", "a"), ("light", "b")}
    site.resolve(grave, "a", 100, started_s=0)
    site.until(200)
    assert ("light", "a") in {(each.rule, alert.labels["service"]) for each in site.told for alert in each.alerts}


def test_alerts_that_match_both_sides_do_not_keep_each_other_quiet() -> None:
    both = Inhibition((Matcher("team", "=", "x"),), (Matcher("team", "=", "x"),))
    site = Site(inhibitions=(both,))
    one = make_rule(labels={"team": "x"})
    site.fire(one, "a", 0)
    site.fire(one, "b", 0)
    site.until(10)
    assert site.lines() == ["10 alerts 2/0"]


def test_a_storm_is_capped_by_the_breaker_with_one_summary() -> None:
    pace = Pace(group_wait_s=0, group_interval_s=1, breaker=BreakerLimits(3, window_s=100, cool_down_s=100))
    site, one = Site(pace=pace), make_rule()
    for second in range(0, 80, 2):
        site.fire(one, f"s{second}", second)
    site.until(90)
    kinds = [each.kind for each in site.told]
    assert kinds == ["alerts"] * 3 + ["breaker_opened"]
    site.until(106)
    (summary,) = site.told[4:]
    assert (summary.kind, summary.firing) == ("summary", 40)
    assert summary.held is not None
    assert (summary.held.notifications, summary.held.alerts) == (37, 37)
    assert len(summary.alerts) == ALERTS_SHOWN_MAX
    site.until(220)
    assert site.notifier.state.breakers["r ops"].state == "closed"


def test_a_reset_by_hand_tells_what_was_held_back() -> None:
    pace = Pace(group_wait_s=0, group_interval_s=1, breaker=BreakerLimits(1, window_s=1_000, cool_down_s=1_000))
    site, one = Site(pace=pace), make_rule()
    for second in (0, 2, 4, 6):
        site.fire(one, f"s{second}", second)
    site.until(8)
    (summary,) = site.notifier.reset("r", "ops", 9 * S)
    assert summary.held is not None
    assert summary.held.notifications == 3
    assert site.notifier.reset("r", "ops", 9 * S) == []
    assert site.notifier.reset("unknown", "ops", 9 * S) == []


@pytest.mark.parametrize(
    ("text", "labels", "expected"),
    [
        ("a=b", {"a": "b"}, True),
        ("a=b", {}, False),
        ("a!=b", {}, True),
        ("a=~b.*", {"a": "bcd"}, True),
        ("a=~b.*", {"a": "xbcd"}, False),
        ("a!~b.*", {"a": "xbcd"}, True),
        ("user.id = 7", {"user.id": "7"}, True),
        ('a=""', {}, True),
    ],
)
def test_matchers(text: str, labels: dict[str, str], expected: bool) -> None:
    assert all_match((parse_matcher(text),), labels) is expected


@pytest.mark.parametrize("wrong", ["", "a", "=b", "a==~(", "a=~(", "a=~(?=b)", "a b=c"])
def test_what_is_no_matcher_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError, match=r"expected label=value|is no regular expression"):
        parse_matcher(wrong) if wrong != "a==~(" else parse_matcher("a=~)")


def test_no_matchers_match_nothing() -> None:
    assert not all_match((), {"a": "b"})


SERVICES = st.sampled_from("abcd")


class AnyOrder(RuleBasedStateMachine):
    """Alerts come and go, silences too, the state is saved and read again between any two steps."""

    def __init__(self) -> None:
        super().__init__()
        self.rule = make_rule()
        self.site = Site()
        self.now_s = 0
        self.firing: dict[str, int] = {}
        self.services: dict[str, str] = {}
        self.decided: dict[str, str] = {}
        """alert id -> last state."""
        self.is_silenced: set[str] = set()
        """Ids that were firing or ended while a silence was there."""

    def _reopen(self) -> None:
        state = msgspec.msgpack.decode(msgspec.msgpack.encode(self.site.notifier.state), type=NotifierState)
        silences = self.site.notifier.silences
        self.site.notifier = Notifier(state, pace=PACE, default_channels=())
        self.site.notifier.silences = silences

    @rule(service=SERVICES)
    def fire(self, service: str) -> None:
        if service not in self.firing:
            self.site.fire(self.rule, service, self.now_s)
            self.firing[service] = self.now_s
            one = alert_id("r", (service,), self.now_s * S)
            self.decided[one], self.services[one] = "firing", service
            self._reopen()

    @precondition(lambda self: bool(self.firing))
    @rule(data=st.data())
    def resolve(self, data: st.DataObject) -> None:
        service = data.draw(st.sampled_from(sorted(self.firing)))
        started_s = self.firing.pop(service)
        self.site.resolve(self.rule, service, self.now_s, started_s=started_s)
        self.decided[alert_id("r", (service,), started_s * S)] = "resolved"
        self._reopen()

    @rule(seconds=st.integers(1, 700))
    def wait(self, seconds: int) -> None:
        self.now_s += seconds
        self.site.until(self.now_s)
        self._reopen()

    @rule(service=SERVICES, seconds=st.integers(1, 300))
    def silence(self, service: str, seconds: int) -> None:
        matcher = (Matcher("service", "=", service),)
        one = Silence("s", matcher, self.now_s * S, (self.now_s + seconds) * S, "ann", "")
        self.site.notifier.silences = (*self.site.notifier.silences, one)
        self.is_silenced.add(service)

    @invariant()
    def nobody_is_told_more_often_than_promised(self) -> None:
        times = [each.at_us // S for each in self.site.told]
        assert all(later - earlier >= PACE.group_interval_s for earlier, later in itertools.pairwise(times))

    @invariant()
    def each_alert_is_told_in_order_and_its_end_once(self) -> None:
        seen: dict[str, list[str]] = {}
        for notification in self.site.told:
            for alert in notification.alerts:
                seen.setdefault(alert.alert_id, []).append(alert.state)
        for states in seen.values():
            assert states.count("resolved") <= 1
            assert "resolved" not in states[:-1]

    def teardown(self) -> None:
        """In the end everything that was not silenced was told, and so was the end of all that was told."""
        self.wait(2_000)
        last: dict[str, str] = {}
        for notification in self.site.told:
            for alert in notification.alerts:
                last[alert.alert_id] = alert.state
        for one, state in self.decided.items():
            if one in last:
                assert last[one] == state
            else:
                assert self.services[one] in self.is_silenced
                assert state == "resolved", "what fires on is told when silences are over"


TestAnyOrder = AnyOrder.TestCase
TestAnyOrder.settings = settings(max_examples=60, stateful_step_count=25, deadline=None)


def test_patterns_of_a_silence_are_not_asked_of_other_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    matchers = (parse_matcher("service=~a.*"), parse_matcher("rule=mine"))
    asked: list[str] = []
    matches = Matcher.matches

    def noted(self: Matcher, labels: dict[str, str]) -> bool:
        asked.append(self.label)
        return matches(self, labels)

    monkeypatch.setattr(Matcher, "matches", noted)
    assert not all_match(matchers, {"rule": "other", "service": "ab"})
    assert asked == ["rule"]
    assert all_match(matchers, {"rule": "mine", "service": "ab"})
