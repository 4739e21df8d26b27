"""A rule tried on the past, as `logfeed alerts test` tries it (alerts/backtest.py), for whoever has no terminal.

It sees what who asks may both set alerts on and read: a live rule shows what comes, this shows what was (INV-5). Bounded
where a command is not: at most LOGS_MAX logs and BUDGET_S seconds, DECISIONS_MAX decisions in the answer, AT_ONCE trials in a
process and one of a subject; an answer says how far it came. Logs come a page at a time, and are counted in a thread, a hundred
looks at a time, so that other requests wait for neither.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from typing import Any, Final, Protocol

from access.errors import Forbidden
from access.principal import Principal
from alerts.backtest import Backtest
from alerts.evaluate import Decision
from alerts.notify import Pace
from alerts.rules import Rule, RuleDocument
from runtime.clock import Clock
from schemas.errors import Overloaded, TooManyQuestions
from schemas.record import Log
from schemas.times import time_text
from search.predicate import Predicate, all_of, within

LOGS_MAX: Final = 500_000
BUDGET_S: Final = 20.0
DECISIONS_MAX: Final = 1_000
AT_ONCE: Final = 2
_LOOKS: Final = 100
_S: Final = 1_000_000


class PastLogs(Protocol):
    """Stored logs in order of time, that the principal may read, in pieces: each with the time before which no further log
    matches. The last piece's time is end_us. Raises Overloaded."""

    def __call__(
        self, predicate: Predicate, principal: Principal, *, start_us: int, end_us: int
    ) -> AsyncGenerator[tuple[Sequence[Log], int], None]:
        """Times in [start_us, end_us)."""


@dataclass(slots=True)
class _Run:
    """One trial: what it found, and how far it is."""

    backtest: Backtest
    every_us: int
    at_us: int
    """Everything before was looked at."""
    clock: Clock
    ends_s: float
    """On the monotonic clock."""
    decisions: list[Decision] = field(default_factory=list)
    left_out: int = 0

    @property
    def is_over(self) -> bool:
        return self.clock.monotonic_s() >= self.ends_s or self.backtest.tally.logs >= LOGS_MAX

    def take(self, logs: Sequence[Log], until_us: int) -> bool:
        """False: the bounds ended it before all of it was taken."""
        for log in logs:
            if not self._advance(log.timestamp):
                return False
            self._note(self.backtest.take((log,)))
        return self._advance(until_us)

    def _advance(self, until_us: int) -> bool:
        while self.at_us < until_us:
            if self.is_over:
                return False
            self.at_us = min(until_us, self.at_us + _LOOKS * self.every_us)
            self._note(self.backtest.advance(self.at_us))
        return not self.is_over

    def _note(self, events: Any) -> None:  # decisions and messages, as the backtest gives them
        for event in events:
            if not isinstance(event, Decision):
                continue
            if len(self.decisions) < DECISIONS_MAX:
                self.decisions.append(event)
            else:
                self.left_out += 1


class Trials:
    """The trials of one process."""

    def __init__(self, past: PastLogs, pace: Pace, clock: Clock) -> None:
        """pace: how often would be told."""
        self._past = past
        self._pace = pace
        self._clock = clock
        self._running: set[str] = set()

    async def run(self, principal: Principal, document: RuleDocument, *, start_us: int, end_us: int) -> dict[str, Any]:
        """Trial (schemas/alerts.py). Raises Forbidden, TooManyQuestions, Overloaded."""
        if principal.may_read.is_empty:
            raise Forbidden("you may not read the logs of any service: a rule is tried on logs that you may read")
        if principal.subject in self._running:
            raise TooManyQuestions("a rule of yours is being tried already: wait for that answer")
        if len(self._running) >= AT_ONCE:
            raise Overloaded("other rules are being tried: try again shortly", retry_after_s=5)
        self._running.add(principal.subject)
        try:
            return await self._run(principal, document, start_us, end_us)
        finally:
            self._running.discard(principal.subject)

    async def _run(self, principal: Principal, document: RuleDocument, start_us: int, end_us: int) -> dict[str, Any]:
        backtest = Backtest(Rule(document, principal.subject), pace=self._pace, start_us=start_us)
        ends_s = self._clock.monotonic_s() + BUDGET_S
        run = _Run(backtest, document.every_s * _S, start_us, self._clock, ends_s)
        predicate = all_of(document.predicate, within(principal.may_alert))
        is_complete = True
        async with aclosing(self._past(predicate, principal, start_us=start_us, end_us=end_us)) as pieces:
            async for logs, until_us in pieces:
                is_complete = await asyncio.to_thread(run.take, logs, until_us)
                if not is_complete:
                    break
        tally = backtest.tally
        return {
            "start_time": time_text(start_us),
            "end_time": time_text(end_us),
            "tried_through": time_text(run.at_us),
            "is_complete": is_complete or run.at_us >= end_us,
            "logs": tally.logs,
            "fired": tally.firing,
            "resolved": tally.resolved,
            "messages": tally.notifications.total(),
            "breaker_opened": tally.notifications["breaker_opened"],
            "overflowed": tally.overflowed,
            "decisions": [_decision_json(each, document) for each in run.decisions],
            "decisions_left_out": run.left_out,
        }


def _decision_json(decision: Decision, document: RuleDocument) -> dict[str, Any]:
    return {
        "state": decision.state,
        "at": time_text(decision.at_us),
        "started_at": time_text(decision.started_us),
        "labels": dict(zip(document.group_labels, decision.group, strict=False)),
        "value": decision.value,
        "logs_in_window": decision.count,
    }
