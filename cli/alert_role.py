"""The composition of the role `alert`."""

from __future__ import annotations

from alerts.channels.factory import Channels
from alerts.owners import scope_of
from alerts.role import AlertRole
from cli.access import access_control
from cli.role_process import RoleProcess, run_role
from cli.settings import Settings
from live.follow import Follower
from live.keys import stored_keys_of
from runtime.clock import SystemClock


async def run_alerts(settings: Settings) -> None:
    """Evaluate rules and send until SIGTERM or Ctrl-C."""
    alerts = settings.alerts
    await run_role(
        settings,
        "alert",
        _evaluate,
        called="alerting",
        health_host=alerts.health_host,
        health_port=alerts.health_port,
    )


async def _evaluate(process: RoleProcess) -> None:
    settings, database, clock = process.settings, process.database, SystemClock()
    broker = process.broker()
    access = access_control(settings, database)
    if access is not None:
        process.stack.push_async_callback(access.close)
    if not await process.begins([*([] if access is None else [access.open]), broker.open]):
        return
    channels = Channels(settings.alerts, settings.broker, clock)
    process.stack.push_async_callback(channels.close)
    role = AlertRole(
        settings.alerts,
        topic=settings.broker.topic,
        database=database,
        broker=broker,
        follower=Follower(broker, settings.live, group="logfeed-alerts", stored_keys=stored_keys_of(database)),
        channels=channels,
        scope_of=scope_of(None if access is None else access.directory, clock),
        public_url=settings.http.public_url,
        clock=clock,
        stop=process.stop,
    )
    process.health.working = role
    await role.run()
