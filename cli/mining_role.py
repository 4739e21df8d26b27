"""The composition of the role `mine` (see cli/roles.py)."""

from __future__ import annotations

from contextlib import AsyncExitStack

from broker.factory import make_broker
from broker.port import Broker
from cli.beginning import Beginning, check_migrated, side_by_side
from cli.roles import RoleHealth, role_database, serve_http
from cli.settings import Settings
from db.database import Database
from live.follow import Follower
from live.keys import stored_keys_of
from mining.role import GROUP, MiningRole
from runtime.clock import SystemClock
from runtime.stopping import Stop, listen_for_signals


async def run_mining(settings: Settings) -> None:
    """Count patterns until SIGTERM or Ctrl-C."""
    stop = Stop()
    listen_for_signals(stop)
    async with AsyncExitStack() as stack:
        database = role_database(settings, "mine")
        await database.open()
        stack.push_async_callback(database.close)
        broker = make_broker(settings.broker, database)
        stack.push_async_callback(broker.close)
        health = _MiningHealth(Beginning("counting patterns", stop))
        parts = [_mine(settings, database, broker, health, stop)]
        if settings.patterns.health_port:
            place = {
                "host": settings.patterns.health_host,
                "port": settings.patterns.health_port,
                "tls_cert": None,
                "tls_key": None,  # probes ask without
            }
            parts.append(serve_http(settings.http.model_copy(update=place), [health], stop))
        await side_by_side(stop, *parts)


async def _mine(settings: Settings, database: Database, broker: Broker, health: _MiningHealth, stop: Stop) -> None:
    if not await health.beginning.take([lambda: check_migrated(settings), broker.open]):
        return
    health.role = MiningRole(
        settings.patterns,
        topic=settings.broker.topic,
        database=database,
        broker=broker,
        follower=Follower(broker, settings.live, group=GROUP, stored_keys=stored_keys_of(database)),
        clock=SystemClock(),
        stop=stop,
    )
    await health.role.run()


class _MiningHealth(RoleHealth):
    """Ready while patterns are counted, here or by another process."""

    def __init__(self, beginning: Beginning) -> None:
        super().__init__(beginning)
        self.role: MiningRole | None = None

    def ready(self) -> list[str]:
        """See HttpService."""
        problem = self.role.problem if self.role is not None else None
        return super().ready() or ([problem] if problem is not None else [])
