"""The composition of the role `tier`, and of the commands that do its work once."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from typing import Final

import structlog

from cli.database import opened_database
from cli.role_process import RoleProcess, run_role
from cli.settings import Settings
from db.database import Database
from db.leases import Lease
from runtime.clock import SystemClock
from runtime.stopping import Stop
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
    tiers = settings.tiers
    await run_role(
        settings, "tier", _move, called="tiering", health_host=tiers.health_host, health_port=tiers.health_port
    )


async def _move(process: RoleProcess) -> None:
    settings, database, stop = process.settings, process.database, process.stop
    store = object_store(settings)
    if store is not None:
        process.stack.push_async_callback(store.close)
    lease = Lease(database, TIER, settings.tiers.name, ttl_s=LEASE_TTL_S)
    tiering = make_tiering(settings, database, lease, store, stop)
    retention = settings.retention_policy()
    if await process.begins([lambda: write_down(database, retention)]):
        role = TierRole(database, lease, tiering, round_s=settings.tiers.round_s, clock=SystemClock(), stop=stop)
        process.health.working = role
        await role.run()


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
