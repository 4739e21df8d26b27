"""From decisions to notifications: grouping, repeats, silences, inhibition, the breaker. Pure; times are arguments.

Alerts of one rule go together, to each channel by itself. A rule that begins to fire waits `group_wait_s` for company; later
changes are told `group_interval_s` after the last word at the earliest; what goes on firing is repeated every
`repeat_interval_s`. What is silenced or inhibited when it would be told is not; if it fires still when that is over, it is
then. The end of an alert that was told is told whatever is silenced: somebody waits for it. One that was over before its turn
came is told as resolved, so that no decision is lost without a silence.

Bounded by the alerts that fire, which rules bound; a notification shows ALERTS_SHOWN_MAX of them and counts the rest.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Final, Literal

import msgspec

from alerts.breaker import Breaker, BreakerLimits, Held
from alerts.evaluate import Decision, Sample
from alerts.matching import Inhibition, Silence, all_match
from alerts.reach import EVERYTHING_TEXT
from alerts.rules import LABEL_CHARS_MAX, Rule

ALERTS_SHOWN_MAX: Final = 20
_S: Final = 1_000_000
AlertState = Literal["firing", "resolved"]


class Pace(msgspec.Struct, frozen=True):
    """How often is told."""

    group_wait_s: int = 10
    group_interval_s: int = 300
    repeat_interval_s: int = 14_400
    breaker: BreakerLimits = BreakerLimits()


class Alert(msgspec.Struct):
    """One alert as it is told and shown."""

    alert_id: str
    rule: str
    labels: dict[str, str]
    severity: str
    state: AlertState
    started_us: int
    ended_us: int | None
    value: float
    count: int
    summary: str
    runbook: str | None
    samples: list[Sample] = msgspec.field(default_factory=list)
    services: list[str] = msgspec.field(default_factory=lambda: [EVERYTHING_TEXT])
    """Whose logs it may tell of, as `reach.texts` spells them: it is shown to who may set alerts on all of these."""
    reason: str = ""
    is_told: dict[str, AlertState] = msgspec.field(default_factory=dict)
    """Channel -> state that was told there last."""
    channels: list[str] = msgspec.field(default_factory=list)

    @property
    def group(self) -> str:
        """Its labels that tell it from others of its rule, for people."""
        own = [f"{name}={value}" for name, value in self.labels.items() if name not in ("rule", "severity")]
        return " ".join(own) or self.rule


class Gathering(msgspec.Struct):
    """Of one rule and channel: when something is due."""

    flush_us: int | None = None
    """When to look next; None while nothing changes and nothing fires."""
    flushed_us: int | None = None
    """When something was told last."""
    repeated_us: int = 0
    """When all that fires was told last."""
    serial: int = 0


class NotifierState(msgspec.Struct):
    """Saved whole."""

    alerts: dict[str, Alert] = msgspec.field(default_factory=dict)
    """By id: those that fire, and those whose end is not told everywhere yet."""
    gatherings: dict[str, Gathering] = msgspec.field(default_factory=dict)
    """By rule and channel (`place_of`)."""
    breakers: dict[str, Breaker] = msgspec.field(default_factory=dict)


class Notification(msgspec.Struct):
    """One message to one channel."""

    notification_id: str
    """Stable: hash of rule, channel and number."""
    kind: Literal["alerts", "breaker_opened", "summary"]
    rule: str
    channel: str
    severity: str
    at_us: int
    firing: int
    resolved: int
    alerts: list[Alert] = msgspec.field(default_factory=list)
    """The first ALERTS_SHOWN_MAX, those that changed before those that go on."""
    held: Held | None = None
    """Of a summary: what was held back."""
    is_repeat: bool = False
    services: list[str] = msgspec.field(default_factory=lambda: [EVERYTHING_TEXT])
    """Those of the alerts that it is about."""


class Notifier:
    """All rules and channels of one installation."""

    def __init__(
        self,
        state: NotifierState,
        *,
        pace: Pace,
        default_channels: Collection[str],
        inhibitions: Collection[Inhibition] = (),
    ) -> None:
        """state: changed in place. default_channels: of rules that name none."""
        self.state = state
        self._pace = pace
        self._default_channels = tuple(default_channels)
        self._inhibitions = tuple(inhibitions)
        self.silences: tuple[Silence, ...] = ()
        """In force or to come; the caller keeps them fresh."""
        self.is_dirty = True
        """Whether the state differs from what was saved last; the caller sets it back."""

    def decide(
        self, decision: Decision, rule: Rule, now_us: int, *, services: Sequence[str] = (EVERYTHING_TEXT,)
    ) -> Alert:
        """Take a decision of an evaluator; what it means for people later is said by `tick`. services: see Alert."""
        self.is_dirty = True
        document = rule.document
        alert = self.state.alerts.get(decision.alert_id)
        if alert is None:
            labels = {
                name: value[:LABEL_CHARS_MAX] for name, value in zip(document.group_labels, decision.group, strict=True)
            }
            alert = Alert(
                alert_id=decision.alert_id,
                rule=decision.rule,
                labels={"rule": decision.rule, "severity": document.severity, **document.labels, **labels},
                severity=document.severity,
                state="firing",
                started_us=decision.started_us,
                ended_us=None,
                value=decision.value,
                count=decision.count,
                summary=document.summary,
                runbook=document.runbook,
                services=list(services),
                channels=list(dict.fromkeys(document.channels or self._default_channels)),
            )
            self.state.alerts[decision.alert_id] = alert
        alert.state = decision.state
        alert.ended_us = decision.at_us if decision.state == "resolved" else None
        alert.value, alert.count, alert.reason = decision.value, decision.count, decision.reason
        alert.samples = list(decision.samples) or alert.samples
        self._schedule(alert, now_us)
        return alert

    def end(self, alert: Alert, reason: str, now_us: int) -> None:
        """Nothing will say any more that the alert is over: it is."""
        self.is_dirty = True
        alert.state, alert.ended_us, alert.reason = "resolved", now_us, reason
        self._schedule(alert, now_us)

    def _schedule(self, alert: Alert, now_us: int) -> None:
        for channel in alert.channels:
            gathering = self.state.gatherings.setdefault(place_of(alert.rule, channel), Gathering())
            earliest_us = now_us + self._pace.group_wait_s * _S
            if gathering.flushed_us is not None:
                earliest_us = max(earliest_us, gathering.flushed_us + self._pace.group_interval_s * _S)
            # What waits for a repeat is brought forward; what waits for company is not put off.
            gathering.flush_us = earliest_us if gathering.flush_us is None else min(gathering.flush_us, earliest_us)
        if not alert.channels and alert.state == "resolved":
            del self.state.alerts[alert.alert_id]

    def due_us(self) -> int | None:
        """When `tick` has something to do next, at the latest."""
        due = [each.flush_us for each in self.state.gatherings.values() if each.flush_us is not None]
        due += [us for each in self.state.breakers.values() if (us := each.due_us(self._pace.breaker)) is not None]
        return min(due, default=None)

    def tick(self, now_us: int) -> list[Notification]:
        """What is to be sent now."""
        found: list[Notification] = []
        for place, breaker in self.state.breakers.items():
            state = breaker.state
            if (held := breaker.look(self._pace.breaker, now_us)) is not None:
                found.append(self._summary(place, held, now_us))
            self.is_dirty |= breaker.state != state
        due = [
            place
            for place, gathering in self.state.gatherings.items()
            if gathering.flush_us is not None and gathering.flush_us <= now_us
        ]
        if not due:
            self._forget(now_us)
            return found
        self.is_dirty = True
        by_place = self._by_place()
        quiet = self._quiet(now_us)
        for place in due:
            found += self._flush(place, by_place.get(place, []), quiet, now_us)
        self._forget(now_us)
        return found

    def reset(self, rule: str, channel: str, now_us: int) -> list[Notification]:
        """Close a breaker by hand: what it held back is told."""
        place = place_of(rule, channel)
        breaker = self.state.breakers.get(place)
        if breaker is None:
            return []
        self.is_dirty = True
        held = breaker.reset(now_us)
        return [] if held is None else [self._summary(place, held, now_us)]

    def _by_place(self) -> dict[str, list[Alert]]:
        found: dict[str, list[Alert]] = {}
        for alert in self.state.alerts.values():
            for channel in alert.channels:
                found.setdefault(place_of(alert.rule, channel), []).append(alert)
        return found

    def _flush(
        self, place: str, alerts: list[Alert], quiet: Callable[[Alert], bool], now_us: int
    ) -> list[Notification]:
        gathering = self.state.gatherings[place]
        rule, channel = parts_of(place)
        loud = [
            alert
            for alert in alerts
            if (alert.state == "resolved" and alert.is_told.get(channel) == "firing") or not quiet(alert)
        ]
        firing = [alert for alert in loud if alert.state == "firing"]
        changed = [alert for alert in loud if alert.is_told.get(channel) != alert.state]
        going_on = [alert for alert in firing if alert.is_told.get(channel) == "firing"]
        is_repeat = bool(going_on) and now_us >= gathering.repeated_us + self._pace.repeat_interval_s * _S
        for alert in alerts:
            if alert.state == "resolved":
                alert.channels.remove(channel)
                if not alert.channels:
                    del self.state.alerts[alert.alert_id]
        # Looked at again also when nothing was said: silences end, inhibitions too, and repeats fall due.
        still = any(alert.state == "firing" for alert in alerts)
        gathering.flush_us = now_us + self._pace.group_interval_s * _S if still else None
        if not changed and not is_repeat:
            return []
        for alert in changed:
            alert.is_told[channel] = alert.state
        # Whatever is told, all that fires is shown with it.
        gathering.flushed_us = gathering.repeated_us = now_us
        shown = [*changed, *going_on]
        breaker = self.state.breakers.setdefault(place, Breaker(since_us=now_us))
        services = _services(shown)
        match breaker.take([alert.group for alert in changed or going_on], self._pace.breaker, now_us, services):
            case "held":
                return []
            case "opened":
                return [self._notification("breaker_opened", rule, channel, shown, now_us)]
        return [self._notification("alerts", rule, channel, shown, now_us, is_repeat=not changed)]

    def _notification(
        self,
        kind: Literal["alerts", "breaker_opened", "summary"],
        rule: str,
        channel: str,
        alerts: list[Alert],
        now_us: int,
        *,
        held: Held | None = None,
        is_repeat: bool = False,
    ) -> Notification:
        gathering = self.state.gatherings.setdefault(place_of(rule, channel), Gathering())
        gathering.serial += 1
        name = msgspec.json.encode([rule, channel, gathering.serial, kind, now_us])
        firing = sum(alert.state == "firing" for alert in alerts)
        services = {*_services(alerts), *(held.services if held is not None else ())}
        return Notification(
            notification_id=hashlib.sha256(name).hexdigest()[:32],
            kind=kind,
            rule=rule,
            channel=channel,
            severity=max((alert.severity for alert in alerts), key=_SEVERITIES.index, default="warning"),
            at_us=now_us,
            firing=firing,
            resolved=len(alerts) - firing,
            alerts=[_copy(alert) for alert in alerts[:ALERTS_SHOWN_MAX]],
            held=held,
            is_repeat=is_repeat,
            services=sorted(services),
        )

    def _summary(self, place: str, held: Held, now_us: int) -> Notification:
        rule, channel = parts_of(place)
        firing = [
            alert
            for alert in self.state.alerts.values()
            if alert.rule == rule and channel in alert.channels and alert.state == "firing"
        ]
        return self._notification("summary", rule, channel, firing, now_us, held=held)

    def _quiet(self, now_us: int) -> Callable[[Alert], bool]:
        """Tells whether an alert is silenced or inhibited now."""
        sources = [
            (
                inhibition,
                {
                    _values(inhibition, alert.labels)
                    for alert in self.state.alerts.values()
                    if alert.state == "firing" and all_match(inhibition.source, alert.labels)
                },
            )
            for inhibition in self._inhibitions
        ]

        def is_quiet(alert: Alert) -> bool:
            if any(silence.holds(alert.labels, now_us) for silence in self.silences):
                return True
            for inhibition, values in sources:
                equal = _values(inhibition, alert.labels)
                # An alert that matches both sides is not inhibited: two such would keep each other quiet.
                is_target = all_match(inhibition.target, alert.labels) and not all_match(
                    inhibition.source, alert.labels
                )
                if is_target and equal in values:
                    return True
            return False

        return is_quiet

    def quiet_now(self, now_us: int) -> set[str]:
        """Ids of the alerts that are silenced or inhibited."""
        quiet = self._quiet(now_us)
        return {alert.alert_id for alert in self.state.alerts.values() if quiet(alert)}

    def _forget(self, now_us: int) -> None:
        """What has nothing to say any more."""
        long_us = max(self._pace.group_interval_s, self._pace.breaker.window_s) * _S
        for place, gathering in list(self.state.gatherings.items()):
            breaker = self.state.breakers.get(place)
            is_over = gathering.flush_us is None and now_us - (gathering.flushed_us or 0) > long_us
            if is_over and (breaker is None or breaker.state == "closed"):
                self.is_dirty = True
                del self.state.gatherings[place]
                self.state.breakers.pop(place, None)


_SEVERITIES: Final = ("info", "warning", "critical")


def place_of(rule: str, channel: str) -> str:
    """Key of a rule and a channel: neither has a space in it."""
    return f"{rule} {channel}"


def parts_of(place: str) -> tuple[str, str]:
    """Rule and channel."""
    rule, _, channel = place.partition(" ")
    return rule, channel


def _values(inhibition: Inhibition, labels: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(labels.get(name, "") for name in inhibition.equal)


def _services(alerts: Iterable[Alert]) -> set[str]:
    return {text for alert in alerts for text in alert.services}


def _copy(alert: Alert) -> Alert:
    """As it is now: the alert goes on changing."""
    return msgspec.structs.replace(
        alert, labels=dict(alert.labels), samples=list(alert.samples), is_told={}, channels=[]
    )
