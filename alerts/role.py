"""One leader at a time: reads the broker, decides, saves, sends.

Whoever holds the lease `alerts` reads on from the saved positions with the saved state. Every step ends in one transaction:
positions, what was counted, alerts, messages (`state.py`). Only messages of a transaction that was committed are sent. After
any doubt, a refused or unknown save above all, nothing in memory counts: the session ends and begins again from the database.

Concurrency: one event loop. One task leads (live/leading.py): it alone touches engine and state. While it leads, delivery has
one task a channel. While the database is away nothing is decided, and nothing is lost while the broker keeps it.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import structlog

from alerts import metrics
from alerts.channels.factory import Channels
from alerts.delivery import Delivery
from alerts.engine import Engine, Outcome
from alerts.matching import Inhibition, parse_matcher
from alerts.messages import encode, message_of
from alerts.notify import Notification, Notifier
from alerts.outbox import Outbox
from alerts.owners import ScopeOf
from alerts.pacing import pace_of
from alerts.rule_files import read_rules
from alerts.rule_store import RuleStore
from alerts.rules import Rule
from alerts.settings import AlertSettings
from alerts.state import AlertState, Wanted
from broker.port import Broker
from db.database import Database
from db.leases import Lease
from live.events import Gap
from live.follow import Follower
from live.leading import LEASE_TTL_S, Leading
from live.reading import Reading
from runtime.clock import Clock
from runtime.sparing import SparingLog
from runtime.stopping import Stop
from schemas.errors import ConfigurationError, Overloaded
from schemas.scope import ServiceScope

log = structlog.get_logger(__name__)

GROUP: Final = "logfeed-alerts"
_STEP_S: Final = 0.25
_REFRESH_S: Final = 1.0
_LOOK_S: Final = 0.5
_FILES_S: Final = 5.0
_PURGE_S: Final = 3_600.0
_LOOKS_MAX: Final = 100_000
"""Groups looked at in one step: a tenth of a second. After a night without the database there are thousands of ticks of each
rule to go through, and the lease has to be renewed meanwhile."""


class AlertRole:
    """Leads while it holds the lease."""

    def __init__(
        self,
        settings: AlertSettings,
        *,
        topic: str,
        database: Database,
        broker: Broker,
        follower: Follower,
        channels: Channels,
        scope_of: ScopeOf,
        public_url: str | None,
        clock: Clock,
        stop: Stop,
    ) -> None:
        """database, broker: opened and closed by the caller. follower: run here. channels: closed by the caller. public_url:
        where people find the page, for links."""
        self._settings = settings
        self._topic = topic
        self._database = database
        self._broker = broker
        self._follower = follower
        self._channels = channels
        self._scope_of = scope_of
        self._public_url = public_url
        self._clock = clock
        self._stop = stop
        self._lease = Lease(database, "alerts", settings.name, ttl_s=LEASE_TTL_S)
        self._leading = Leading(
            self._lease,
            follower,
            stop,
            what="alerting",
            session=self._lead,
            leads=metrics.LEADS,
            failures=metrics.FAILURES,
        )

    @property
    def problem(self) -> str | None:
        """What keeps rules from being evaluated here, for people; None also while another process leads."""
        return self._leading.problem

    async def run(self) -> None:
        """Until the stop; returns soon after it, though the database or the broker hangs."""
        await self._leading.run()

    async def _lead(self) -> None:
        """Until the lease is lost, or the stop. Raises Overloaded after any doubt."""
        epoch = self._lease.epoch
        reader = await self._broker.reader(group=GROUP)
        try:
            async with asyncio.timeout(self._settings.stall_s + 60) as limit:
                session = await _Session.begin(self, reader)
                limit.reschedule(None)
            delivery = asyncio.create_task(session.delivery.run(self._stop), name="alerts delivery")
            try:
                async with self._follower.subscribe(session.reading.positions) as events:
                    try:
                        while self._leading.may_lead(epoch):
                            if delivery.done():
                                delivery.result()
                            await session.read(aiter(events))
                            self._leading.problem = None
                    finally:
                        await session.reading.end()
                await session.finish()
            finally:
                delivery.cancel()
                await asyncio.gather(delivery, return_exceptions=True)
        except TimeoutError as error:
            raise Overloaded("the broker or the database did not answer in time") from error
        finally:
            await reader.close()


class _Session:
    """What one leader holds from its beginning to its end."""

    def __init__(self, role: AlertRole, state: AlertState, engine: Engine, reading: Reading) -> None:
        self._settings = role._settings
        self._clock = role._clock
        self._scope_of = role._scope_of
        self._public_url = role._public_url
        self._state = state
        self._engine = engine
        self.reading = reading
        self._store = RuleStore(role._database)
        self._files = _Files(role._settings.rules)
        self.delivery = Delivery(role._settings, Outbox(role._database), role._channels)
        self._wanted: Wanted | None = None
        self._scopes: dict[str, ServiceScope] = {}
        self._stepped_s = self._refreshed_s = self._looked_s = self._filed_s = self._purged_s = -math.inf
        self._saved_s = self._clock.monotonic_s()
        self._is_ahead = False
        """More was read than was saved."""
        self._repeated = SparingLog(log)

    @classmethod
    async def begin(cls, role: AlertRole, reader: Any) -> _Session:  # a Reader
        """Read what was saved, and what people want."""
        state = AlertState(role._database, role._lease, role._topic)
        saved = await state.load()
        settings = role._settings
        notifier = Notifier(
            saved.notifier,
            pace=pace_of(settings),
            default_channels=settings.default_channels,
            inhibitions=inhibitions_of(settings),
        )
        reading = Reading(
            role._broker,
            reader,
            role._clock,
            positions=saved.positions,
            read_us=saved.read_us,
            stall_s=settings.stall_s,
            on_gap=_tell_gap,
        )
        await reading.begin()
        session = cls(role, state, Engine(notifier), reading)
        await session._sync_files()
        outcome = await session._refresh(saved.rules)
        await session._save(outcome, [])
        log.info("evaluating", rules=len(session._engine.evaluators), positions=reading.positions)
        return session

    async def read(self, events: Any) -> None:  # an iterator of a Subscription
        """Take the next record, if one comes soon; step when it is time."""
        logs = await self.reading.next(events, wait_s=_STEP_S)
        if logs is not None:
            self._is_ahead = True
            if logs:
                metrics.LOGS.inc(len(logs))
                self._engine.take(logs)
        if self._clock.monotonic_s() - self._stepped_s >= _STEP_S:
            self._stepped_s = self._clock.monotonic_s()
            await self._step()

    async def finish(self) -> None:
        """Save what was read, so that nobody reads it again."""
        if self._is_ahead:
            await self._save(Outcome(), [])

    async def _step(self) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._looked_s >= _LOOK_S:
            self._looked_s = now_s
            await self.reading.look()
        outcome = Outcome()
        resets: list[int] = []
        if now_s - self._filed_s >= _FILES_S:
            self._filed_s = now_s
            await self._sync_files()
        if now_s - self._refreshed_s >= _REFRESH_S:
            self._refreshed_s = now_s
            outcome = await self._refresh({})
            for number, rule, channel in await self._state.resets():
                resets.append(number)
                outcome.notifications += self._engine.notifier.reset(rule, channel, self._clock.now_us())
        watermark_us = self.reading.watermark_us
        if watermark_us:
            later = self._engine.advance(watermark_us, self._clock.now_us(), looks_max=_LOOKS_MAX)
            outcome.alerts |= later.alerts
            outcome.notifications += later.notifications
            outcome.decisions += later.decisions
            metrics.BEHIND.set(max(0.0, (self._clock.now_us() - watermark_us) / 1e6))
        is_due = now_s - self._saved_s >= self._settings.save_s
        if not outcome.is_empty or resets or self._engine.forgotten or is_due:
            await self._save(outcome, resets)
        if now_s - self._purged_s >= _PURGE_S:
            self._purged_s = now_s
            await self._state.purge()

    async def _save(self, outcome: Outcome, resets: Sequence[int]) -> None:
        engine = self._engine
        notifications = [(each, self._body(each)) for each in outcome.notifications]
        await self._state.save(
            positions=self.reading.positions,
            read_us=self.reading.read_us,
            rules=engine.dirty(),
            forgotten=engine.forgotten,
            notifier=engine.notifier.state if engine.notifier.is_dirty else None,
            alerts=outcome.alerts,
            notifications=notifications,
            figures=self._figures(),
            resets=resets,
        )
        engine.saved()
        self._saved_s, self._is_ahead = self._clock.monotonic_s(), False
        for decision in outcome.decisions:
            metrics.DECISIONS.labels(decision.state).inc()
            log.info("alert " + decision.state, rule=decision.rule, alert_id=decision.alert_id, value=decision.value)
        if notifications:
            self.delivery.wake()
        self._measure()

    def _body(self, notification: Notification) -> bytes:
        evaluator = self._engine.evaluators.get(notification.rule)
        document = None if evaluator is None else evaluator.rule.document
        return encode(message_of(notification, document, public_url=self._public_url))

    async def _sync_files(self) -> None:
        documents = self._files.changed()
        if documents is not None:
            for problem in await self._store.sync_files(documents):
                log.error("a rule of the files is not in force", problem=problem)

    async def _refresh(self, saved: dict[str, Any]) -> Outcome:  # states by rule
        """Learn what people want, and what owners may see, where it has changed."""
        version = await self._state.wanted_version()
        wanted = self._wanted
        if wanted is None or version != wanted.version:
            wanted = await self._state.wanted()
        scopes = {owner: self._scope_of(owner) for owner in {rule.owner for rule in wanted.rules}}
        if wanted is self._wanted and scopes == self._scopes:
            return Outcome()
        self._wanted, self._scopes = wanted, scopes
        self._engine.notifier.silences = wanted.silences
        outcome = self._engine.set_rules(
            [(rule, scopes[rule.owner]) for rule in wanted.rules],
            saved,
            read_us=self.reading.watermark_us or self._clock.now_us(),
            now_us=self._clock.now_us(),
        )
        for rule in wanted.rules:
            await self._state.note_problem(rule.name, self._problem_of(rule, scopes[rule.owner]))
        return outcome

    def _problem_of(self, rule: Rule, scope: ServiceScope) -> str | None:
        if scope.is_empty:
            return "its owner may not set alerts on the logs of any service any more"
        unknown = [name for name in rule.document.channels if name not in self._settings.channels]
        return f"there is no channel {', '.join(unknown)}" if unknown else None

    def _figures(self) -> dict[str, Any]:
        return {
            "watermark_us": self.reading.watermark_us,
            "gaps": self.reading.gaps,
            "rules": {
                name: {
                    "late": each.state.late,
                    "overflowed": each.state.overflowed,
                    "groups": len(each.state.groups),
                    "firing": sum(group.started_us is not None for group in each.state.groups.values()),
                }
                for name, each in self._engine.evaluators.items()
            },
        }

    def _measure(self) -> None:
        state = self._engine.notifier.state
        metrics.RULES.set(len(self._engine.evaluators))
        metrics.FIRING.set(sum(alert.state == "firing" for alert in state.alerts.values()))
        metrics.BREAKERS_OPEN.set(sum(breaker.state != "closed" for breaker in state.breakers.values()))
        metrics.LATE.clear()
        for name, evaluator in self._engine.evaluators.items():
            if evaluator.state.late:
                metrics.LATE.labels(name).set(evaluator.state.late)


def _tell_gap(gap: Gap) -> None:
    metrics.GAPS.inc()
    log.warning("records were gone before rules saw them", partition=gap.partition, reason=str(gap.reason))


class _Files:
    """The rules of files, read when they have changed. What cannot be read leaves the rules as they are, and is told."""

    def __init__(self, path: Path | None) -> None:
        self._path = path
        self._seen: object = None
        self._repeated = SparingLog(log)

    def changed(self) -> list[Any] | None:
        """Rule documents; None where nothing has changed, or nothing can be read."""
        if self._path is None:
            if self._seen is None:
                self._seen = ()
                return []
            return None
        seen = self._stamp(self._path)
        if seen == self._seen:
            return None
        try:
            documents = read_rules(self._path)
        except ConfigurationError as error:
            self._repeated.warning("rules of files are not valid, those before stay in force", error=str(error))
            return None
        self._seen = seen
        return documents

    @staticmethod
    def _stamp(path: Path) -> object:
        try:
            files = sorted(path.iterdir()) if path.is_dir() else [path]
            return tuple((str(file), stat.st_mtime_ns, stat.st_size) for file in files for stat in (file.stat(),))
        except OSError as error:
            return str(error)


def inhibitions_of(settings: AlertSettings) -> tuple[Inhibition, ...]:
    """As the notifier takes them."""
    return tuple(
        Inhibition(tuple(map(parse_matcher, each.source)), tuple(map(parse_matcher, each.target)), each.equal)
        for each in settings.inhibitions
    )
