"""Evaluators in this process over a real broker and database, and what came of them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from alerts.channels.factory import Channels
from alerts.owners import ScopeOf, scope_of
from alerts.role import AlertRole
from alerts.rule_store import RuleStore
from alerts.settings import AlertSettings
from broker.settings import BrokerSettings
from db.database import Database
from live.follow import Follower
from live.settings import LiveSettings
from runtime.clock import SystemClock
from runtime.stopping import Stop
from schemas.record import Log
from tests.live_site import Topic, frame_of

DEADLINE_S = 60.0


async def until(condition: Callable[[], Awaitable[Any]], what: str, timeout_s: float = DEADLINE_S) -> Any:
    """What the condition says, once it is true; with a deadline."""
    loop = asyncio.get_running_loop()
    ends_s = loop.time() + timeout_s
    while not (found := await condition()):
        assert loop.time() < ends_s, f"not within {timeout_s:.0f} s: {what}"
        await asyncio.sleep(0.05)
    return found


@dataclass
class AlertSite:
    """One topic and one database."""

    topic: Topic
    database: Database
    directory: Path
    stack: AsyncExitStack
    settings: dict[str, Any] = field(default_factory=dict)
    """Of every evaluator."""
    next_id: int = 1

    def __post_init__(self) -> None:
        self.store = RuleStore(self.database)
        self.rules_file = self.directory / "rules.yaml"
        self.secret_file = self.directory / "secret"
        self.secret_file.write_text("word")

    def rules(self, *rules: dict[str, Any]) -> None:
        """The rules of the file are these."""
        base = {"window": 10, "every": 1, "lateness": 1, "channels": ["hook"]}
        self.rules_file.write_text(yaml.safe_dump({"rules": [base | rule for rule in rules]}))

    @asynccontextmanager
    async def evaluator(
        self,
        name: str = "one",
        *,
        scopes: ScopeOf | None = None,
        broker: BrokerSettings | None = None,
        **settings: Any,
    ) -> AsyncIterator[AlertRole]:
        """One that runs. broker: of channels that are topics. settings: of alerting."""
        quick = {
            "rules": self.rules_file if self.rules_file.exists() else None,
            "allowed_networks": ["127.0.0.0/8"],
            "group_wait": 0,
            "group_interval": 1,
            "save_s": 0.2,
            "name": name,
        }
        chosen = AlertSettings.model_validate(quick | self.settings | settings)
        clock = SystemClock()
        channels = Channels(chosen, broker or BrokerSettings(), clock)
        followed = await self.topic.new_broker()
        stop = Stop()
        role = AlertRole(
            chosen,
            topic=self.topic.name,
            database=self.database,
            broker=followed,
            follower=Follower(followed, LiveSettings(), group="alert test"),
            channels=channels,
            scope_of=scopes or scope_of(None, clock),
            public_url="https://logs.example",
            clock=clock,
            stop=stop,
        )
        running = asyncio.create_task(role.run())
        try:
            yield role
        finally:
            stop.set()
            await running
            await channels.close()

    async def evaluating(self, *, in_spite_of_problems: bool = False) -> None:
        """Wait until somebody evaluates the rules that there are."""

        async def is_so() -> bool:
            _, saved_at, figures = await self.store.status(self.topic.name)
            names = {rule.document.name for rule in await self.store.rules()}
            assert in_spite_of_problems or not any(rule.problem for rule in await self.store.rules())
            return saved_at is not None and bool(names) and names <= set(figures.get("rules", {}))

        await until(is_so, "the rules are evaluated")

    async def send(self, *services: str, level: int = 17, message: str = "it failed", **metadata: Any) -> list[Log]:
        """One request with a log of now for each service."""
        now_us = SystemClock().now_us()
        logs = []
        for service in services:
            logs.append(Log(self.next_id, now_us, level, service, message, None, dict(metadata)))
            self.next_id += 1
        await self.topic.publish(frame_of(logs))
        return logs

    async def alerts(self) -> list[dict[str, Any]]:
        """As they are stored, by start."""
        rows = await self.database.fetch_all("SELECT alert FROM alerts ORDER BY started_at, alert_id")
        return [row[0] for row in rows]

    async def outbox(self) -> list[tuple[str, str, str, int, str | None]]:
        """(id, channel, state, attempts, problem), oldest first."""
        rows = await self.database.fetch_all(
            "SELECT notification_id, channel, state, attempts, problem FROM alert_outbox ORDER BY created_at, notification_id"
        )
        return [(name, channel, state, attempts, problem) for name, channel, state, attempts, problem in rows]


@asynccontextmanager
async def alert_site(kind: str, address: str, database_url: str, directory: Path) -> AsyncIterator[AlertSite]:
    """kind: queue or kafka. address: of the broker."""
    async with AsyncExitStack() as stack:
        topic = Topic(kind, address, stack)
        await topic.open()
        database = Database(database_url, application_name="alert test", connections_max=10, wait_s=5.0)
        await database.open()
        stack.push_async_callback(database.close)
        yield AlertSite(topic, database, directory, stack)
