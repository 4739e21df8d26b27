"""The composition of the role `tier`, and of the commands that do its work once (see cli/roles.py)."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final

import structlog

from cli.beginning import Beginning, check_migrated, side_by_side
from cli.database import opened_database
from cli.roles import RoleHealth, role_database, serve_http
from cli.settings import Settings
from db.database import Database
from db.leases import Lease
from runtime.clock import SystemClock
from runtime.stopping import Stop, listen_for_signals
from schemas.errors import LogfeedError, Overloaded
from store.objects.factory import make_object_store
from store.objects.port import ObjectStore
from store.tiers.catalogue import TIER
from store.tiers.progress import Progress, unwatched
from store.tiers.role import LEASE_TTL_S, TierRole
from store.tiers.shown_by_sql import write_down
from store.tiers.tiering import SETTLE_DAYS, Tiering

log = structlog.get_logger(__name__)

_RENEW_S: Final = 5.0


class AnotherLeads(LogfeedError):
    """Another process moves rows now."""


def object_store(settings: Settings) -> ObjectStore | None:
    """The object storage, where there is one. Asks nobody."""
    return None if settings.objects.url is None else make_object_store(settings.objects)


async def run_tier(settings: Settings) -> None:
    """Move rows until SIGTERM or Ctrl-C. Raises ConfigurationError where nobody said where files are to lie."""
    settings.segment_directory()
    stop = Stop()
    listen_for_signals(stop)
    async with AsyncExitStack() as stack:
        database = role_database(settings, "tier")
        await database.open()
        stack.push_async_callback(database.close)
        store = object_store(settings)
        if store is not None:
            stack.push_async_callback(store.close)
        health = _TierHealth(Beginning("tiering", stop))
        parts = [_move(settings, database, store, health, stop)]
        if settings.tiers.health_port:
            place = {
                "host": settings.tiers.health_host,
                "port": settings.tiers.health_port,
                "tls_cert": None,
                "tls_key": None,  # probes ask without
            }
            parts.append(serve_http(settings.http.model_copy(update=place), [health], stop))
        await side_by_side(stop, *parts)


async def _move(
    settings: Settings, database: Database, store: ObjectStore | None, health: _TierHealth, stop: Stop
) -> None:
    lease = Lease(database, TIER, settings.tiers.name, ttl_s=LEASE_TTL_S)
    tiering = make_tiering(settings, database, lease, store, stop)
    retention = settings.retention_policy()
    if await health.beginning.take([lambda: check_migrated(settings), lambda: write_down(database, retention)]):
        role = TierRole(database, lease, tiering, round_s=settings.tiers.round_s, clock=SystemClock(), stop=stop)
        health.role = role
        await role.run()


class _TierHealth(RoleHealth):
    """Ready while the directory is what it should be."""

    def __init__(self, beginning: Beginning) -> None:
        super().__init__(beginning)
        self.role: TierRole | None = None

    def ready(self) -> list[str]:
        """See HttpService."""
        problem = self.role.problem if self.role is not None else None
        return super().ready() or ([problem] if problem is not None else [])


def make_tiering(
    settings: Settings,
    database: Database,
    lease: Lease,
    store: ObjectStore | None,
    stop: Stop,
    *,
    share: float | None = None,
    settle_days: int = SETTLE_DAYS,
    progress: Progress = unwatched,
) -> Tiering:
    """All steps. share: of the time that may be worked, that of the settings when left out."""
    return Tiering(
        database,
        lease,
        settings.segment_directory(),
        topic=settings.broker.topic,
        tiers=settings.tiers,
        segments=settings.segments,
        policy=settings.retention_policy(),
        store=store,
        stop=stop,
        share=share,
        settle_days=settle_days,
        progress=progress,
    )


@asynccontextmanager
async def leading(
    settings: Settings, *, take_over: bool, progress: Progress
) -> AsyncIterator[tuple[Database, Tiering]]:
    """Lead for the length of the block. take_over: from the running role, if there is one, which leads again afterwards.

    Raises AnotherLeads, WrongPlace, DatabaseUnavailable, ConfigurationError.
    """
    async with AsyncExitStack() as stack:
        database = await stack.enter_async_context(opened_database(settings, "tier"))
        store = object_store(settings)
        if store is not None:
            stack.push_async_callback(store.close)
        owner = f"{socket.gethostname()} (a command, process {os.getpid()})"
        lease = Lease(database, TIER, owner, ttl_s=LEASE_TTL_S)
        if take_over:
            await lease.take_over()
        elif not await lease.acquire():
            row = await database.fetch_one("SELECT owner FROM leases WHERE name = %s", (TIER,))
            raise AnotherLeads(
                f"{row[0] if row else 'another process'} moves rows now: take over with --now, or let it do it"
            )
        stack.push_async_callback(_released, lease)
        renewing = asyncio.create_task(_renew(lease))
        stack.callback(renewing.cancel)
        tiering = make_tiering(settings, database, lease, store, Stop(), share=1.0, settle_days=0, progress=progress)
        await tiering.prepare()
        yield database, tiering


async def _renew(lease: Lease) -> None:
    while True:
        await asyncio.sleep(_RENEW_S)
        with suppress(
            Overloaded
        ):  # what is left of the lease is longer than one failure; a lost one is told by its fence
            await lease.renew()


async def _released(lease: Lease) -> None:
    with suppress(Overloaded):
        await lease.release()
