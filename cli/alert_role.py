"""The composition of the role `alert` (see cli/roles.py)."""

from __future__ import annotations

from contextlib import AsyncExitStack

from access.authenticator import AccessControl
from alerts.channels.factory import Channels
from alerts.owners import scope_of
from alerts.role import AlertRole
from broker.factory import make_broker
from broker.port import Broker
from cli.beginning import Beginning, check_migrated, side_by_side
from cli.roles import RoleHealth, access_control, role_database, serve_http
from cli.settings import Settings
from db.database import Database
from live.follow import Follower
from live.keys import stored_keys_of
from runtime.clock import SystemClock
from runtime.stopping import Stop, listen_for_signals


async def run_alerts(settings: Settings) -> None:
    """Evaluate rules and send until SIGTERM or Ctrl-C."""
    stop = Stop()
    listen_for_signals(stop)
    async with AsyncExitStack() as stack:
        database = role_database(settings, "alert")
        await database.open()
        stack.push_async_callback(database.close)
        broker = make_broker(settings.broker, database)
        stack.push_async_callback(broker.close)
        access = access_control(settings, database)
        if access is not None:
            stack.push_async_callback(access.close)
        health = _AlertHealth(Beginning("alerting", stop))
        parts = [_evaluate(settings, database, broker, access, health, stop)]
        if settings.alerts.health_port:
            place = {
                "host": settings.alerts.health_host,
                "port": settings.alerts.health_port,
                "tls_cert": None,
                "tls_key": None,  # probes ask without
            }
            parts.append(serve_http(settings.http.model_copy(update=place), [health], stop))
        await side_by_side(stop, *parts)


async def _evaluate(
    settings: Settings,
    database: Database,
    broker: Broker,
    access: AccessControl | None,
    health: _AlertHealth,
    stop: Stop,
) -> None:
    steps = [lambda: check_migrated(settings), *([] if access is None else [access.open]), broker.open]
    if not await health.beginning.take(steps):
        return
    channels = Channels(settings.alerts, settings.broker, SystemClock())
    try:
        health.role = AlertRole(
            settings.alerts,
            topic=settings.broker.topic,
            database=database,
            broker=broker,
            follower=Follower(broker, settings.live, group="logfeed-alerts", stored_keys=stored_keys_of(database)),
            channels=channels,
            scope_of=scope_of(None if access is None else access.directory, SystemClock()),
            public_url=settings.http.public_url,
            clock=SystemClock(),
            stop=stop,
        )
        await health.role.run()
    finally:
        await channels.close()


class _AlertHealth(RoleHealth):
    """Ready while rules are evaluated, here or by another process."""

    def __init__(self, beginning: Beginning) -> None:
        super().__init__(beginning)
        self.role: AlertRole | None = None

    def ready(self) -> list[str]:
        """See HttpService."""
        problem = self.role.problem if self.role is not None else None
        return super().ready() or ([problem] if problem is not None else [])
