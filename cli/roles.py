"""The composition of each role: the only place where adapters meet services."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator, Sequence
from contextlib import AsyncExitStack

import structlog
import uvicorn
from fastapi import APIRouter

from broker.factory import make_broker
from broker.port import Broker
from broker.queue import QueueBroker
from cli.http_app import HttpService, build_app
from cli.listening import listening_socket
from cli.settings import HttpSettings, Settings
from cli.unread import UnreadRecords
from db.database import Database
from db.leases import Lease
from ingest.main import IngestService
from query.main import QueryService
from runtime.clock import SystemClock
from runtime.http import http_protocol_class
from runtime.stopping import Stop, listen_for_signals
from schemas.errors import Overloaded
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


def http_services(
    settings: Settings, broker: Broker, database: Database, unread: UnreadRecords, *, ingest: bool, query: bool
) -> list[HttpService]:
    """The services of an HTTP role, not started."""
    clock = SystemClock()
    services: list[HttpService] = []
    if ingest:
        instance = f"{socket.gethostname()}:{settings.http.port}"
        services.append(
            IngestService(settings.ingest, broker=broker, database=database, instance=instance, clock=clock)
        )
    if query:
        services.append(
            QueryService(
                settings.query,
                database=database,
                layout=settings.layout,
                unread=unread,
                topic=settings.broker.topic,
                clock=clock,
            )
        )
    return services


async def run_http(settings: Settings, *, ingest: bool, query: bool) -> None:
    """Serve HTTP with one or both services until SIGTERM or Ctrl-C."""
    stop = Stop()
    listen_for_signals(stop)
    role = "serve" if ingest and query else "ingest" if ingest else "query"
    async with AsyncExitStack() as stack:
        database = _database(settings, role)
        await database.open()
        stack.push_async_callback(database.close)
        broker = make_broker(settings.broker, database)
        stack.push_async_callback(broker.close)
        unread = UnreadRecords(settings.broker, database)
        stack.push_async_callback(unread.close)
        services = http_services(settings, broker, database, unread, ingest=ingest, query=query)
        if ingest:
            await _open(broker, stop)
            await _until_registered(broker, database, settings, stop)
        for service in services:
            await _until_started(service, stop)
            stack.push_async_callback(service.stop)
        if not stop.is_set:
            await _serve(settings.http, services, stop)


async def _until_registered(broker: Broker, database: Database, settings: Settings, stop: Stop) -> None:
    """Partitions that ingest publishes to count for `visible_through` from then on, also before a writer has seen them."""
    store = PostgresWriteStore(database, topic=settings.broker.topic, layout=settings.layout)
    while not stop.is_set:
        try:
            await store.register_partitions(settings.broker.topic, broker.partitions)
            return
        except Overloaded as error:
            log.warning("waiting to register partitions", error=str(error))
            await stop.wait(1.0)


async def _until_started(service: HttpService, stop: Stop) -> None:
    """A new process does not start without its database: it waits, and says so."""
    while not stop.is_set:
        try:
            await service.start()
            return
        except Overloaded as error:
            log.warning("waiting to start", error=str(error))
            await stop.wait(1.0)


async def _serve(http: HttpSettings, services: Sequence[HttpService], stop: Stop) -> None:
    config = uvicorn.Config(
        build_app(services),
        http=http_protocol_class(http),
        ws="none",
        loop="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="warning",
        timeout_graceful_shutdown=15,
        server_header=False,
    )
    with listening_socket(http.host, http.port) as listener:
        log.info("listening", host=http.host, port=listener.getsockname()[1])
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        stopping = asyncio.create_task(stop.wait())
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        stopping.cancel()
        await serving


class _Server(uvicorn.Server):
    """uvicorn without its own signal handlers: `runtime.stopping` has them."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Nothing to capture."""
        yield


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
    """The consumer, with the sealer and the health listener beside it; when one ends, so do the others."""
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
    parts = [asyncio.create_task(consumer.run()), asyncio.create_task(sealer.run())]
    if writer.health_port:
        http = settings.http.model_copy(update={"host": writer.health_host, "port": writer.health_port})
        parts.append(asyncio.create_task(_serve(http, [_WriterHealth(consumer)], stop)))
    try:
        await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
    finally:
        stop.set()
        results = await asyncio.gather(*parts, return_exceptions=True)
        await store.close()
    for result in results:
        if isinstance(result, BaseException):
            raise result


class _WriterHealth:
    """A writer as a service of an HTTP application: health and metrics, nothing to ask."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self.router = APIRouter()

    async def start(self) -> None:
        """Nothing to start."""

    async def stop(self) -> None:
        """Nothing to stop."""

    def ready(self) -> list[str]:
        """See HttpService."""
        return [] if self._consumer.ready else ["the writer waits for the broker or the database"]


async def _open(broker: Broker, stop: Stop) -> None:
    """Wait for the broker as long as it takes; wrong settings end the start."""
    while not stop.is_set:
        try:
            await broker.open()
            return
        except Overloaded as error:
            log.warning("waiting for the broker", error=str(error))
            await stop.wait(1.0)
