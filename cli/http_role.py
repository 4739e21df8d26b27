"""The composition of the roles `ingest`, `query` and `serve`, which is both."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Coroutine, Mapping, Sequence
from contextlib import AsyncExitStack
from typing import Any

import structlog

from access.audit import AuditLog
from access.authenticator import AccessControl
from access.principal import Authenticate, anyone, unchanging
from alerts.api import make_alert_api
from alerts.owners import scope_of
from alerts.pacing import pace_of
from alerts.trial import Trials
from broker.factory import make_broker, make_topics
from broker.port import Broker
from cli.access import access_control
from cli.audit import AuditTrail
from cli.beginning import Beginning, Step, check_migrated, side_by_side
from cli.http_app import HttpService, RunningService
from cli.page import WebPage, page_directory
from cli.role_process import role_database
from cli.serving import serve_http
from cli.settings import HttpSettings, Settings
from cli.tracing import make_traces
from cli.unread import UnreadRecords
from cli.write_store import write_store
from db.database import Database
from db.replication import hosts_of
from ingest.main import ConnectionSource, IngestService
from query.main import ExperimentSource, HostSource, QueryService, TailSource, TopicSource
from query.status import StatusSource
from routes.settings import derived_topics
from runtime.addresses import is_loopback
from runtime.clock import SystemClock
from runtime.origins import Origins
from runtime.stopping import Stop, listen_for_signals
from schemas.errors import ConfigurationError
from store.objects.factory import make_object_store
from store.replicas.replica import ReplicaSource
from store.tiers.access import SegmentAccess

log = structlog.get_logger(__name__)

REPLICA_WAIT_S = 1.0
"""Seconds that a question waits for a connection to a replica before another server is asked."""


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
            connections=ConnectionSource(settings.connections, settings.store.retention_days),
        )
    if query:
        services["query"] = answering = QueryService(
            settings.query,
            database=database,
            layout=settings.layout,
            unread=unread,
            topic=settings.broker.topic,
            authenticate=authenticate,
            audit=audit,
            sessions=None if access is None else access.sessions,
            current=unchanging if access is None else access.current,
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
            experiments=ExperimentSource(settings.experiments, settings.store.retention_days, stop or Stop()),
            connections=settings.connections,
            hosts=HostSource(settings.hosts, stop or Stop()),
            status=StatusSource(
                settings.tiers, settings.retention_policy(), settings.objects.url is not None, unread.ends
            ),
            origins=Origins(settings.http.allowed_origins),
            pattern_minutes_days=settings.patterns.minutes_days,
            replicas=replica_sources(settings),
            replica_lag_s_max=settings.database.replica_lag_s_max,
        )
        services["alerts"] = make_alert_api(
            database,
            scope_of(None if access is None else access.directory, clock),
            authenticate,
            Trials(answering.oldest_first, pace_of(settings.alerts), clock),
            place=answering.place,
            audit=audit,
            topic=settings.broker.topic,
            clock=clock,
        )
    return services


async def start_tails(services: Mapping[str, RunningService]) -> None:
    """Begin to follow the broker, which is open, where there is a query service."""
    query = services.get("query")
    if isinstance(query, QueryService) and query.tails is not None:
        await query.tails.start()


def replica_sources(settings: Settings) -> list[ReplicaSource]:
    """Where questions may be answered besides the primary, not opened."""
    sources = []
    for number, url in enumerate(settings.database.replicas, start=1):
        address = url.get_secret_value()
        # One for each question, for a second window of a search, and for the look.
        database = Database(
            address,
            application_name=f"logfeed query replica {number}",
            connections_max=settings.query.scans_max + 2,
            wait_s=REPLICA_WAIT_S,
        )
        sources.append(ReplicaSource(hosts_of(address), database))
    return sources


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
        traces = make_traces(settings.tracing, role, _instance(settings))
        if traces is not None:
            stack.push_async_callback(traces.close)
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
            beginnings.append(WebPage(page_directory()))
            # Beside the service: questions are answered while tails wait for the broker.
            tail_steps: list[Step] = [lambda: check_migrated(settings), open_broker, lambda: start_tails(services)]
            parts.append(_begin(Beginning("tails", stop), tail_steps, stop))
        await side_by_side(stop, serve_http(settings.http, beginnings, stop, traces=traces), *parts)


def _instance(settings: Settings) -> str:
    return f"{socket.gethostname()}:{settings.http.port}"


def _warn_of_strangers(http: HttpSettings) -> None:
    if not (is_loopback(http.host) or http.has_tls or http.trusted_proxies):
        log.warning(
            "KEYS, PASSWORDS AND LOGS CROSS THE NETWORK READABLE FOR ALL: this address is no loopback, and nothing speaks TLS."
            " Set http.tls_cert and http.tls_key, or name the proxy that does in http.trusted_proxies",
            host=http.host,
        )
    if http.believes_everybody:
        log.warning(
            "WHOEVER CONNECTS SAYS WHERE THEY COME FROM: keys that are bound to networks, and waits of logging in, hold only"
            " where nobody but the proxy reaches this port and it drops X-Forwarded-For of clients. Name the proxy in"
            " http.trusted_proxies",
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
