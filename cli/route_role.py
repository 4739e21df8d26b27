"""The composition of the role `route` (see cli/roles.py)."""

from __future__ import annotations

from contextlib import AsyncExitStack

from broker.factory import make_broker, make_topics
from broker.port import Broker
from cli.beginning import Beginning, check_migrated, side_by_side
from cli.roles import RoleHealth, role_database, serve_http
from cli.settings import Settings
from db.database import Database
from live.follow import Follower
from live.keys import stored_keys_of
from routes.role import GROUP, RouteRole
from runtime.clock import SystemClock
from runtime.stopping import Stop, listen_for_signals


async def run_routes(settings: Settings) -> None:
    """Fill derived topics until SIGTERM or Ctrl-C."""
    stop = Stop()
    listen_for_signals(stop)
    async with AsyncExitStack() as stack:
        database = role_database(settings, "route")
        await database.open()
        stack.push_async_callback(database.close)
        broker = make_broker(settings.broker, database)
        stack.push_async_callback(broker.close)
        health = _RouteHealth(Beginning("routing", stop))
        parts = [_route(settings, database, broker, health, stop)]
        routing = settings.routing
        if routing.health_port:
            place = {
                "host": routing.health_host,
                "port": routing.health_port,
                "tls_cert": None,
                "tls_key": None,  # probes ask without
            }
            parts.append(serve_http(settings.http.model_copy(update=place), [health], stop))
        await side_by_side(stop, *parts)


async def _route(settings: Settings, database: Database, broker: Broker, health: _RouteHealth, stop: Stop) -> None:
    if not await health.beginning.take([lambda: check_migrated(settings), broker.open]):
        return
    topics = make_topics(settings.broker, database)
    try:
        health.role = RouteRole(
            settings.routes,
            settings.routing,
            database=database,
            broker=broker,
            follower=Follower(broker, settings.live, group=GROUP, stored_keys=stored_keys_of(database)),
            topics=topics,
            clock=SystemClock(),
            stop=stop,
        )
        await health.role.run()
    finally:
        await topics.close()


class _RouteHealth(RoleHealth):
    """Ready while derived topics are filled, here or by another process."""

    def __init__(self, beginning: Beginning) -> None:
        super().__init__(beginning)
        self.role: RouteRole | None = None

    def ready(self) -> list[str]:
        """See HttpService."""
        problem = self.role.problem if self.role is not None else None
        return super().ready() or ([problem] if problem is not None else [])
