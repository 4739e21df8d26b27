"""The circuit breaker of one rule and channel: a storm is told once, then summed up. Pure; times are arguments.

closed     notifications pass; the one after `notifications_max` within `window_s` opens it
open       nothing passes; what would have is counted. After `cool_down_s`: half-open, with one summary of what was held back
half-open  one probe may pass; a second one within `window_s` opens it again, without another word but a later summary.
           `window_s` without that closes it

So whatever happens, a rule sends a channel at most notifications_max + 1 messages in `window_s`, and in a storm that goes on
one summary, and one probe, per cool_down_s.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, Literal

import msgspec

GROUPS_TOLD_MAX: Final = 20
_S: Final = 1_000_000
BreakerState = Literal["closed", "open", "half_open"]


class BreakerLimits(msgspec.Struct, frozen=True):
    """When it opens, and for how long."""

    notifications_max: int = 10
    window_s: int = 600
    cool_down_s: int = 900


class Held(msgspec.Struct):
    """What was held back since the last word."""

    notifications: int = 0
    alerts: int = 0
    first_us: int | None = None
    last_us: int | None = None
    groups: list[str] = msgspec.field(default_factory=list)
    """Of the alerts, each once, GROUPS_TOLD_MAX at most."""
    groups_more: int = 0
    """Alerts of groups that are not named."""
    services: set[str] = msgspec.field(default_factory=set)
    """Whose logs the groups may tell of."""

    def add(self, groups: list[str], now_us: int, services: Collection[str] = ()) -> None:
        """Count a notification of alerts of these groups."""
        self.services.update(services)
        self.notifications += 1
        self.alerts += len(groups)
        self.first_us = now_us if self.first_us is None else self.first_us
        self.last_us = now_us
        for group in groups:
            if group in self.groups:
                continue
            if len(self.groups) < GROUPS_TOLD_MAX:
                self.groups.append(group)
            else:
                self.groups_more += 1


class Breaker(msgspec.Struct):
    """State and history; saved whole."""

    state: BreakerState = "closed"
    since_us: int = 0
    """When it came into this state."""
    passed_us: list[int] = msgspec.field(default_factory=list)
    """When notifications passed lately."""
    held: Held = msgspec.field(default_factory=Held)
    opened: int = 0
    """How often it opened."""

    def take(
        self, groups: list[str], limits: BreakerLimits, now_us: int, services: Collection[str] = ()
    ) -> Literal["pass", "opened", "held"]:
        """A notification wants to go. `opened`: it is held back, and it must be told, this once, that others will be too.
        services: whose logs the groups may tell of."""
        since_us = now_us - limits.window_s * _S
        if self.state == "closed":
            self.passed_us = [passed for passed in self.passed_us if passed > since_us]
            if len(self.passed_us) < limits.notifications_max:
                self.passed_us.append(now_us)
                return "pass"
            self._turn("open", now_us)
            self.opened += 1
            self.held.add(groups, now_us, services)
            return "opened"
        if self.state == "half_open":
            if not self.passed_us:
                self.passed_us.append(now_us)
                return "pass"
            self._turn("open", now_us)
            self.opened += 1
        self.held.add(groups, now_us, services)
        return "held"

    def due_us(self, limits: BreakerLimits) -> int | None:
        """When `look` has something to do next, at the latest; None: never."""
        if self.state == "open":
            return self.since_us + limits.cool_down_s * _S
        if self.state == "half_open":
            return self.since_us + limits.window_s * _S
        return None

    def look(self, limits: BreakerLimits, now_us: int) -> Held | None:
        """Time has passed. A Held is to be told now, as one summary."""
        due_us = self.due_us(limits)
        if due_us is None or now_us < due_us:
            return None
        if self.state == "half_open":
            self._turn("closed", now_us)
            return None
        held, self.held = self.held, Held()
        self._turn("half_open", now_us)
        return held if held.notifications else None

    def reset(self, now_us: int) -> Held | None:
        """Close it by hand. A Held is to be told."""
        held, self.held = self.held, Held()
        self._turn("closed", now_us)
        return held if held.notifications else None

    @property
    def is_idle(self) -> bool:
        """Whether it is as if it were new."""
        return self.state == "closed" and not self.passed_us and not self.opened

    def _turn(self, state: BreakerState, now_us: int) -> None:
        self.state, self.since_us, self.passed_us = state, now_us, []
