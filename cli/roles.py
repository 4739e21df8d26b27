"""The composition of each role: the only place where adapters meet services."""

from __future__ import annotations

import asyncio
import socket
from contextlib import AsyncExitStack

import structlog
import uvicorn

from broker.factory import make_broker
from broker.port import Broker
from broker.queue import QueueBroker
from cli.http_app import HttpService, build_app
from cli.settings import Settings
from db.database import Database
from db.leases import Lease
from ingest.main import IngestService
from query.main import QueryService
from runtime.clock import SystemClock
from runtime.http import http_protocol_class
from runtime.stopping import Stop, listen_for_signals
from schemas.errors import Overloaded
from store.postgres_read import PostgresReadStore
from store.postgres_write import PostgresWriteStore
from store.upkeep import PostgresUpkeep
from writer.consume import Consumer
from writer.sealer import SEALER, Sealer
from writer.settings import WriterSettings

log = structlog.get_logger(__name__)

_DAY_US = 86_400_000_000


def _database(settings: Settings, role: str) -> Database:
    return Database(
        settings.database_url(),
        application_name=f"logfeed {role}",
        connections_max=settings.database.connections_max,
    )


async def run_http(settings: Settings, *, ingest: bool, query: bool) -> None:
    """Serve HTTP with one or both services until SIGTERM or Ctrl-C."""
    role = "serve" if ingest and query else "ingest" if ingest else "query"
    database = _database(settings, role)
    await database.open()
    broker = make_broker(settings.broker, database)
    clock = SystemClock()
    services: list[HttpService] = []
    if ingest:
        instance = f"{socket.gethostname()}:{settings.http.port}"
        services.append(
            IngestService(settings.ingest, broker=broker, database=database, instance=instance, clock=clock)
        )
    if query:
        store = PostgresReadStore(database, topic=settings.broker.topic, layout=settings.layout)
        services.append(QueryService(settings=settings.query, store=store, broker=broker, clock=clock))
    server = uvicorn.Server(
        uvicorn.Config(
            build_app(services),
            host=settings.http.host,
            port=settings.http.port,
            http=http_protocol_class(settings.ingest.http),
            ws="none",
            loop="none",
            access_log=False,
            log_level="warning",
            timeout_graceful_shutdown=15,
            server_header=False,
        )
    )
    try:
        await server.serve()
    finally:
        await broker.close()
        await database.close()


async def run_writer(settings: Settings) -> None:
    """Store until SIGTERM or Ctrl-C. Raises what ends a writer for good (stuck consumer, too many dead letters)."""
    stop = Stop()
    listen_for_signals(stop)
    async with AsyncExitStack() as stack:
        database = _database(settings, "write")
        await database.open()
        stack.push_async_callback(database.close)
        broker = make_broker(settings.broker, database)
        stack.push_async_callback(broker.close)
        await _open(broker, stop)
        if stop.is_set:
            return
        await run_writer_parts(settings.writer, settings, broker, database, stop)


async def run_writer_parts(
    writer: WriterSettings, settings: Settings, broker: Broker, database: Database, stop: Stop
) -> None:
    """The consumer and the sealer beside it; when one ends, so does the other."""
    clock = SystemClock()
    store = PostgresWriteStore(database, topic=settings.broker.topic, layout=settings.layout)
    upkeep = PostgresUpkeep(database, topic=settings.broker.topic, layout=settings.layout, settings=settings.store)
    consumer = Consumer(settings=writer, broker=broker, store=store, upkeep=upkeep, clock=clock, stop=stop)
    sealer = Sealer(
        lease=Lease(database, SEALER, writer.name, ttl_s=30.0),
        upkeep=upkeep,
        broker_upkeep=broker.upkeep if isinstance(broker, QueueBroker) else None,
        retention_us=settings.store.retention_days * _DAY_US,
        clock=clock,
        stop=stop,
    )
    sealing = asyncio.create_task(sealer.run())
    try:
        await consumer.run()
    finally:
        stop.set()
        await sealing
        await store.close()


async def _open(broker: Broker, stop: Stop) -> None:
    """Wait for the broker as long as it takes; wrong settings end the start."""
    while not stop.is_set:
        try:
            await broker.open()
            return
        except Overloaded as error:
            log.warning("waiting for the broker", error=str(error))
            await stop.wait(1.0)
