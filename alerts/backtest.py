"""When a rule would have fired: the same evaluator and notifier, over stored logs in order of time. Pure; holds no logs.

Simulated time is that of the logs: a tick is looked at `lateness` after it, as it would have been live at the earliest. So
decisions are those of a live evaluator that began at the same tick and found no log late; messages are told as by a leader
that was always there, without silences and inhibition, which other alerts decide.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final

from alerts.evaluate import Decision, Evaluator, new_state
from alerts.notify import Notification, Notifier, NotifierState, Pace
from alerts.rules import Rule
from schemas.record import Log

CHANNEL: Final = "backtest"
"""Where messages would have gone, for a rule that names no channel."""
_S: Final = 1_000_000


@dataclass(slots=True)
class Tally:
    """What came of it."""

    logs: int = 0
    firing: int = 0
    resolved: int = 0
    notifications: Counter[str] = field(default_factory=Counter)
    """Kind -> messages to one channel."""
    held: int = 0
    """Messages that a breaker held back."""
    overflowed: int = 0
    """Logs of groups beyond the limit."""


class Backtest:
    """Of one rule, to one channel."""

    def __init__(self, rule: Rule, *, pace: Pace, start_us: int) -> None:
        """start_us: the rule begins at the last tick before."""
        document = rule.document
        self._lateness_us = document.lateness * _S
        self._every_us = document.every_s * _S
        self._is_silence = document.condition.silence is not None
        self._rule = Rule(document.model_copy(update={"channels": (CHANNEL,)}), rule.owner)
        self._evaluator = Evaluator(self._rule, new_state(self._rule, start_us + self._lateness_us))
        self._notifier = Notifier(NotifierState(), pace=pace, default_channels=())
        self.tally = Tally()

    def take(self, logs: Iterable[Log]) -> Iterator[Decision | Notification]:
        """Logs that the rule's query matches, in order of timestamp. What came of the time up to each."""
        for log in logs:
            yield from self.advance(log.timestamp)
            self._evaluator.add(log)
            self.tally.logs += 1

    def advance(self, until_us: int) -> Iterator[Decision | Notification]:
        """There is no log before until_us that was not taken. What came of the time up to then."""
        state = self._evaluator.state
        while state.tick_us + self._every_us <= until_us:
            # Without a group every tick is like the last: go on to the end, and to what falls due on the way.
            is_quiet = not state.groups and not self._is_silence
            tick_us = until_us // self._every_us * self._every_us if is_quiet else state.tick_us + self._every_us
            now_us = tick_us + self._lateness_us
            yield from self._told(now_us)
            for decision in self._evaluator.advance(now_us):
                self._notifier.decide(decision, self._rule, now_us)
                if decision.state == "firing":
                    self.tally.firing += 1
                else:
                    self.tally.resolved += 1
                yield decision
            yield from self._told(now_us)
        self.tally.overflowed = state.overflowed
        self.tally.held = sum(each.held.notifications for each in self._notifier.state.breakers.values())

    def _told(self, now_us: int) -> Iterator[Notification]:
        """What falls due up to now, each at its time."""
        while (due_us := self._notifier.due_us()) is not None and due_us <= now_us:
            for notification in self._notifier.tick(due_us):
                self.tally.notifications[notification.kind] += 1
                yield notification
