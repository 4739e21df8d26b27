"""What the processes of roles without an API have in common: a database, a beginning, health, an end.

The edge of HTTP is imported only where somebody asks for health: it is half of what such a process would start with.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Protocol

from broker.factory import make_broker
from broker.port import Broker
from cli.beginning import Beginning, Step, check_migrated, side_by_side
from cli.settings import Settings
from db.database import Database
from runtime.stopping import Stop, listen_for_signals

if TYPE_CHECKING:
    from fastapi import APIRouter


class Working(Protocol):
    """What a role does, once it has begun."""

    @property
    def problem(self) -> str | None:
        """What keeps it from that now, for people."""


class RoleHealth:
    """A service of an HTTP application: health and metrics, nothing to ask."""

    def __init__(self, beginning: Beginning) -> None:
        self.beginning = beginning
        self.working: Working | None = None

    @cached_property
    def router(self) -> APIRouter:
        """See HttpService."""
        from fastapi import APIRouter

        return APIRouter()

    def ready(self) -> list[str]:
        """See HttpService."""
        problem = self.beginning.problem
        if problem is None and self.working is not None:
            problem = self.working.problem
        return [] if problem is None else [problem]


@dataclass
class RoleProcess:
    """What a role is made of, open until the process ends."""

    settings: Settings
    database: Database
    health: RoleHealth
    stop: Stop
    stack: AsyncExitStack
    """Closes what is pushed, at the end, the last first."""

    def broker(self) -> Broker:
        """A broker, not opened."""
        broker = make_broker(self.settings.broker, self.database)
        self.stack.push_async_callback(broker.close)
        return broker

    async def begins(self, steps: Iterable[Step] = ()) -> bool:
        """Take the first steps; the tables that the program needs are looked for before. False: the stop came first."""
        return await self.health.beginning.take([lambda: check_migrated(self.settings), *steps])


def role_database(settings: Settings, role: str) -> Database:
    """The pool of a role, not opened."""
    return Database(
        settings.database_url(),
        application_name=f"logfeed {role}",
        connections_max=settings.database.connections_max,
    )


async def run_role(
    settings: Settings,
    role: str,
    work: Callable[[RoleProcess], Awaitable[None]],
    *,
    called: str,
    health_host: str,
    health_port: int | None,
) -> None:
    """Work until SIGTERM or Ctrl-C, or until the work ends; raises what ends it. called: what people call the work.

    health_port: of /readyz and /metrics; None or 0: nobody asks.
    """
    stop = Stop()
    listen_for_signals(stop)
    async with AsyncExitStack() as stack:
        database = role_database(settings, role)
        await database.open()
        stack.push_async_callback(database.close)
        health = RoleHealth(Beginning(called, stop))
        process = RoleProcess(settings, database, health, stop, stack)
        parts = [_until_done(work, process)]
        if health_port:
            parts.append(_tell(settings, health, health_host, health_port, stop))
        await side_by_side(stop, *parts)


async def _until_done(work: Callable[[RoleProcess], Awaitable[None]], process: RoleProcess) -> None:
    await work(process)


async def _tell(settings: Settings, health: RoleHealth, host: str, port: int, stop: Stop) -> None:
    from cli.serving import serve_http

    place = {"host": host, "port": port, "tls_cert": None, "tls_key": None}  # probes ask without
    await serve_http(settings.http.model_copy(update=place), [health], stop)
