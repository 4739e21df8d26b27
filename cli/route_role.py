"""The composition of the role `route`."""

from __future__ import annotations

from broker.factory import make_topics
from cli.role_process import RoleProcess, run_role
from cli.settings import Settings
from live.follow import Follower
from live.keys import stored_keys_of
from routes.role import GROUP, RouteRole
from runtime.clock import SystemClock


async def run_routes(settings: Settings) -> None:
    """Fill derived topics until SIGTERM or Ctrl-C."""
    routing = settings.routing
    await run_role(
        settings,
        "route",
        _route,
        called="routing",
        health_host=routing.health_host,
        health_port=routing.health_port,
    )


async def _route(process: RoleProcess) -> None:
    settings, database = process.settings, process.database
    broker = process.broker()
    if not await process.begins([broker.open]):
        return
    topics = make_topics(settings.broker, database)
    process.stack.push_async_callback(topics.close)
    role = RouteRole(
        settings.routes,
        settings.routing,
        database=database,
        broker=broker,
        follower=Follower(broker, settings.live, group=GROUP, stored_keys=stored_keys_of(database)),
        topics=topics,
        clock=SystemClock(),
        stop=process.stop,
    )
    process.health.working = role
    await role.run()
