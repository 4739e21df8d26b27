"""The composition of each role: the only place where adapters meet services. How roles begin: cli/beginning.py."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import structlog
import uvicorn
from fastapi import APIRouter

from access.audit import AuditLog
from access.authenticator import AccessControl
from access.principal import Authenticate, anyone
from alerts.api import make_alert_api
from alerts.owners import scope_of
from broker.factory import make_broker, make_topics
from broker.port import Broker
from broker.queue import QueueBroker
from cli.audit import AuditTrail
from cli.beginning import Beginning, Step, check_migrated, side_by_side
from cli.http_app import HttpService, RunningService, build_app
from cli.listening import listening_socket
from cli.settings import HttpSettings, Settings
from cli.unread import UnreadRecords
from db.database import Database
from db.leases import Lease
from ingest.main import IngestService
from query.main import QueryService, TailSource, TopicSource
from routes.settings import derived_topics
from runtime.addresses import is_loopback
from runtime.certificate import Certificate
from runtime.clock import SystemClock
from runtime.http import fit_open_files, http_protocol_class
from runtime.origins import Origins
from runtime.stopping import Stop, listen_for_signals
from runtime.tls import over_tls
from runtime.websocket import MESSAGE_BYTES_MAX, PING_S, websocket_protocol_class
from schemas.errors import ConfigurationError
from store.objects.factory import make_object_store
from store.postgres_write import PostgresWriteStore
from store.tiers.access import SegmentAccess
from store.upkeep import PostgresUpkeep
from writer.consume import Consumer
from writer.sealer import SEALER, Sealer

log = structlog.get_logger(__name__)

_DAY_US = 86_400_000_000


def role_database(settings: Settings, role: str) -> Database:
    """The pool of a role, not opened."""
    return Database(
        settings.database_url(),
        application_name=f"logfeed {role}",
        connections_max=settings.database.connections_max,
    )


def http_services(
    settings: Settings,
    broker: Broker,
    database: Database,
    unread: UnreadRecords,
    access: AccessControl | None,
    audit: AuditLog | None,
    *,
    ingest: bool,
    query: bool,
    stop: Stop | None = None,
) -> dict[str, RunningService]:
    """The services of an HTTP role by their names, not started. access: None lets everyone in. audit: None
    writes nothing down. stop: of the role, which ends tails; `start_tails` begins them."""
    clock = SystemClock()
    # One for all services: nobody is let in by one of them alone.
    authenticate: Authenticate = anyone if access is None else access.authenticate
    services: dict[str, RunningService] = {}
    if ingest:
        instance = _instance(settings)
        services["ingest"] = IngestService(
            settings.ingest,
            broker=broker,
            database=database,
            instance=instance,
            authenticate=authenticate,
            clock=clock,
        )
    if query:
        services["query"] = QueryService(
            settings.query,
            database=database,
            layout=settings.layout,
            unread=unread,
            topic=settings.broker.topic,
            authenticate=authenticate,
            audit=audit,
            sessions=None if access is None else access.sessions,
            oidc=None if access is None else access.oidc,
            clock=clock,
            segments=segment_access(settings),
            retention=settings.retention_policy(),
            tail=TailSource(settings.tail, settings.live, broker, stop or Stop()),
            topics=TopicSource(
                settings.topics,
                make_topics(settings.broker, database),
                derived_topics(settings.routes, settings.routing),
                stop or Stop(),
            ),
            origins=Origins(settings.http.allowed_origins),
            pattern_minutes_days=settings.patterns.minutes_days,
        )
        services["alerts"] = make_alert_api(
            database,
            scope_of(None if access is None else access.directory, clock),
            authenticate,
            topic=settings.broker.topic,
        )
    return services


async def start_tails(services: Mapping[str, RunningService]) -> None:
    """Begin to follow the broker, which is open, where there is a query service."""
    query = services.get("query")
    if isinstance(query, QueryService) and query.tails is not None:
        await query.tails.start()


def _instance(settings: Settings) -> str:
    return f"{socket.gethostname()}:{settings.http.port}"


def access_control(settings: Settings, database: Database) -> AccessControl | None:
    """What decides who may what, not opened; None, loudly, where that is switched off. Raises ConfigurationError."""
    if settings.access.enabled:
        return AccessControl(settings.access, database, SystemClock(), public_url=settings.http.public_url)
    log.warning("ACCESS CONTROL IS OFF: everyone on this machine may read and write every log", host=settings.http.host)
    return None


def segment_access(settings: Settings) -> SegmentAccess | None:
    """How files of rows are read on this host, not opened; None where nobody said in which directory they are: the service says
    so once there are any. Raises ConfigurationError when object storage cannot be what the settings say."""
    try:
        directory = settings.segment_directory()
    except ConfigurationError:
        return None
    objects = make_object_store(settings.objects) if settings.objects.url is not None else None
    return SegmentAccess(directory, settings.segments, objects=objects, object_settings=settings.object_settings())


async def run_http(settings: Settings, *, ingest: bool, query: bool) -> None:
    """Serve HTTP with one or both services until SIGTERM or Ctrl-C. Each begins when what it needs is there."""
    _warn_of_strangers(settings.http)
    stop = Stop()
    listen_for_signals(stop)
    role = "serve" if ingest and query else "ingest" if ingest else "query"
    async with AsyncExitStack() as stack:
        database = role_database(settings, role)
        await database.open()
        stack.push_async_callback(database.close)
        broker = make_broker(settings.broker, database)
        stack.push_async_callback(broker.close)
        unread = UnreadRecords(settings.broker, database)
        stack.push_async_callback(unread.close)
        store = write_store(settings, database)
        access = access_control(settings, database)
        if access is not None:
            stack.push_async_callback(access.close)

        async def register() -> None:
            # What ingest publishes to counts for `visible_through` from then on, also before a writer has seen it.
            await store.register_partitions(settings.broker.topic, broker.partitions)

        opening = asyncio.Lock()
        is_open = False

        async def open_broker() -> None:
            nonlocal is_open
            async with opening:
                if not is_open:
                    await broker.open()
                is_open = True

        needs: dict[str, list[Step]] = {"ingest": [open_broker, register], "query": [], "alerts": []}
        opens: list[Step] = [] if access is None else [access.open]
        parts: list[Coroutine[Any, Any, None]] = []
        beginnings: list[HttpService] = []
        trail = None
        if access is not None and query and settings.access.audit:
            trail = AuditTrail(settings, broker, database, instance=_instance(settings))
            stack.push_async_callback(trail.stop)
            # Beside the services: questions are answered while their entries wait for the broker.
            first: list[Step] = [lambda: check_migrated(settings), open_broker, register, trail.start]
            parts.append(_begin(Beginning("the audit log", stop), first, stop))
        audit = None if trail is None else trail.log
        services = http_services(
            settings, broker, database, unread, access, audit, ingest=ingest, query=query, stop=stop
        )
        for name, service in services.items():
            stack.push_async_callback(service.stop)
            beginning = _BeginningService(service, Beginning(name, stop))
            beginnings.append(beginning)
            steps: list[Step] = [lambda: check_migrated(settings), *opens, *needs[name], service.start]
            parts.append(_begin(beginning.beginning, steps, stop))
        if query:
            # Beside the service: questions are answered while tails wait for the broker.
            tail_steps: list[Step] = [lambda: check_migrated(settings), open_broker, lambda: start_tails(services)]
            parts.append(_begin(Beginning("tails", stop), tail_steps, stop))
        await side_by_side(stop, serve_http(settings.http, beginnings, stop), *parts)


def _warn_of_strangers(http: HttpSettings) -> None:
    if not (is_loopback(http.host) or http.has_tls or http.trusted_proxies):
        log.warning(
            "KEYS, PASSWORDS AND LOGS CROSS THE NETWORK READABLE FOR ALL: this address is no loopback, and nothing speaks TLS."
            " Set http.tls_cert and http.tls_key, or name the proxy that does in http.trusted_proxies",
            host=http.host,
        )


async def _begin(beginning: Beginning, steps: Sequence[Step], stop: Stop) -> None:
    """Take the steps, then wait for the stop."""
    if await beginning.take(steps):
        await stop.wait()


class _BeginningService:
    """A service that is not ready before it has begun."""

    def __init__(self, service: RunningService, beginning: Beginning) -> None:
        self.router = service.router
        self.beginning = beginning
        self._service = service

    def ready(self) -> list[str]:
        """See HttpService."""
        return self._service.ready() if self.beginning.problem is None else [self.beginning.problem]


async def serve_http(http: HttpSettings, services: Sequence[HttpService], stop: Stop) -> None:
    """Answer for these services until the stop. Raises ConfigurationError when its certificate cannot be used."""
    http = http.model_copy(update={"connections_max": fit_open_files(http.connections_max)})
    certificate = None
    protocol: Any = http_protocol_class(
        http, trusted_proxies=http.trusted_proxies
    )  # a class, or what makes one: uvicorn calls it
    if http.tls_cert is not None and http.tls_key is not None:
        certificate = Certificate(http.tls_cert, http.tls_key)
        protocol = over_tls(protocol, certificate.shown)
    config = uvicorn.Config(
        build_app(services, origins=Origins(http.allowed_origins), hsts_s=http.hsts_s),
        http=protocol,
        # Over TLS too: it takes over the connection, with its transport, of the protocol above.
        ws=websocket_protocol_class(http),
        ws_max_size=MESSAGE_BYTES_MAX,
        ws_ping_interval=PING_S,
        ws_ping_timeout=PING_S,
        # Compressing each client's frames anew would cost more than all else.
        ws_per_message_deflate=False,
        loop="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        log_level="warning",
        timeout_graceful_shutdown=15,
        server_header=False,
        # Without trusted proxies nobody's word about where they come from counts.
        proxy_headers=bool(http.trusted_proxies),
        forwarded_allow_ips=list(http.trusted_proxies),
    )
    with listening_socket(http.host, http.port) as listener:
        log.info("listening", host=http.host, port=listener.getsockname()[1], tls=certificate is not None)
        server = _Server(config)
        serving = asyncio.create_task(server.serve(sockets=[listener]))
        stopping = asyncio.create_task(stop.wait())
        looking = None if certificate is None else asyncio.create_task(certificate.watch(stop))
        await asyncio.wait({serving, stopping}, return_when=asyncio.FIRST_COMPLETED)
        server.should_exit = True
        stopping.cancel()
        if looking is not None:
            looking.cancel()
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
        database = role_database(settings, "write")
        await database.open()
        stack.push_async_callback(database.close)
        broker = make_broker(settings.broker, database)
        stack.push_async_callback(broker.close)
        health = _WriterHealth(Beginning("the writer", stop))
        parts = [_write(settings, broker, database, health, stop)]
        if settings.writer.health_port:
            place = {
                "host": settings.writer.health_host,
                "port": settings.writer.health_port,
                "tls_cert": None,
                "tls_key": None,  # probes ask without
            }
            parts.append(serve_http(settings.http.model_copy(update=place), [health], stop))
        await side_by_side(stop, *parts)


async def _write(settings: Settings, broker: Broker, database: Database, health: _WriterHealth, stop: Stop) -> None:
    """The consumer with the sealer beside it, once what they need is there; when one ends, so does the other."""
    if not await health.beginning.take([lambda: check_migrated(settings), broker.open]):
        return
    writer = settings.writer
    clock = SystemClock()
    store = write_store(settings, database)
    upkeep = PostgresUpkeep(database, topic=settings.broker.topic, layout=settings.layout, settings=settings.store)
    consumer = Consumer(settings=writer, broker=broker, store=store, upkeep=upkeep, clock=clock, stop=stop)
    sealer = Sealer(
        lease=Lease(database, SEALER, writer.name, ttl_s=30.0),
        upkeep=upkeep,
        broker_upkeep=broker.upkeep if isinstance(broker, QueueBroker) else None,
        # A table goes when no class keeps any of its rows.
        retention_us=settings.retention.longest_days(settings.store.retention_days) * _DAY_US,
        clock=clock,
        stop=stop,
    )
    health.consumer = consumer
    try:
        await side_by_side(stop, consumer.run(), sealer.run())
    finally:
        await store.close()


def write_store(settings: Settings, database: Database) -> PostgresWriteStore:
    """The writers' store."""
    return PostgresWriteStore(
        database,
        topic=settings.broker.topic,
        layout=settings.layout,
        # The queue lives in the same database: what it has forgotten nobody can read again.
        waits_for_disk=settings.broker.kind == "queue",
    )


class RoleHealth:
    """A role without an API as a service of an HTTP application: health and metrics, nothing to ask."""

    def __init__(self, beginning: Beginning) -> None:
        self.beginning = beginning
        self.router = APIRouter()

    def ready(self) -> list[str]:
        """See HttpService."""
        return [] if self.beginning.problem is None else [self.beginning.problem]


class _WriterHealth(RoleHealth):
    """A writer's: ready while it stores."""

    def __init__(self, beginning: Beginning) -> None:
        super().__init__(beginning)
        self.consumer: Consumer | None = None

    def ready(self) -> list[str]:
        """See HttpService."""
        if waiting := super().ready():
            return waiting
        is_ready = self.consumer is not None and self.consumer.ready
        return [] if is_ready else ["the writer waits for the broker or the database"]
