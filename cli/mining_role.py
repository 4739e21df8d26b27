"""The composition of the role `mine`."""

from __future__ import annotations

from cli.role_process import RoleProcess, run_role
from cli.settings import Settings
from live.follow import Follower
from live.keys import stored_keys_of
from mining.role import GROUP, MiningRole
from runtime.clock import SystemClock


async def run_mining(settings: Settings) -> None:
    """Count patterns until SIGTERM or Ctrl-C."""
    patterns = settings.patterns
    await run_role(
        settings,
        "mine",
        _mine,
        called="counting patterns",
        health_host=patterns.health_host,
        health_port=patterns.health_port,
    )


async def _mine(process: RoleProcess) -> None:
    settings, database = process.settings, process.database
    broker = process.broker()
    if not await process.begins([broker.open]):
        return
    role = MiningRole(
        settings.patterns,
        topic=settings.broker.topic,
        database=database,
        broker=broker,
        follower=Follower(broker, settings.live, group=GROUP, stored_keys=stored_keys_of(database)),
        clock=SystemClock(),
        stop=process.stop,
    )
    process.health.working = role
    await role.run()
