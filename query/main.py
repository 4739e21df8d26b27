"""Query as one service: the only place that puts its parts together.

It keeps nothing in memory that must be saved: start and stop in any order, with the database there or away. Until the database
answers, every question gets 503 and `ready` says why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

from fastapi import APIRouter
from starlette.requests import HTTPConnection

from access.accounts import Accounts
from access.audit import AuditLog
from access.oidc.login import OidcLogin
from access.principal import Authenticate, Current, Principal, anyone, unchanging
from access.sessions import Sessions
from access.user_sessions import UserSessions
from broker.port import Broker
from broker.topics import Topics
from connections.settings import ConnectionSettings
from db.database import Database
from db.migrations import Layout
from live.keys import stored_keys_of
from live.settings import LiveSettings
from query.accounts.api import make_accounts_router
from query.accounts.service import AccountAnswers
from query.answers import Answers, Unread
from query.api import make_router
from query.auth_api import make_auth_router
from query.connections.api import make_connections_router
from query.connections.service import Connections
from query.experiments.api import make_experiments_router
from query.experiments.service import Experiments
from query.experiments.settings import ExperimentSettings
from query.export.api import make_export_router
from query.export.service import Exports
from query.hosts.agents import Agents
from query.hosts.api import make_hosts_router
from query.hosts.service import Hosts
from query.hosts.settings import HostSettings
from query.loki.api import make_loki_router
from query.loki.service import LokiAnswers
from query.loki.tail import make_loki_tail_router
from query.oidc_api import make_oidc_router
from query.overview import Overview
from query.patterns import PatternAnswers, PatternTexts
from query.personal.api import make_personal_router
from query.settings import QuerySettings
from query.status import StatusAnswers, StatusSource, make_status_router
from query.tail.api import make_tail_router
from query.tail.service import Tails
from query.tail.settings import TailSettings
from query.topics.api import make_topics_router
from query.topics.service import TopicReads
from query.topics.settings import TopicReadSettings
from runtime.clock import Clock, SystemClock
from runtime.origins import Origins
from runtime.stopping import Stop, every
from schemas.topics import LOGS_TOPIC, TopicInfo
from store.connections.reading import ConnectionReader
from store.experiments import ExperimentStore
from store.hosts import HostStore
from store.patterns.reading import PatternReader
from store.personal.kept import PersonalStore
from store.postgres_read import SNAPSHOT_S_MAX, PostgresReadStore
from store.replicas.replica import ReplicaSource
from store.replicas.store import OPEN_S_MAX, ReplicatedReadStore
from store.tiers.access import SegmentAccess
from store.tiers.retention import RetentionPolicy

_LOOK_S = 2.0
_LOOK_TIMEOUT_S = 5.0
_SEARCHES_MAX = 2
"""Of one question, each with a budget: a log's neighbours on both sides, or a story and whether more of it is withheld."""
_BESIDE_S = 10.0
"""Of a question, for what has no budget: the server ends each such statement in this time. A server that hangs ends none, and
the place that its question holds must come back all the same."""


@dataclass(frozen=True, slots=True)
class TailSource:
    """What tails need besides. The caller opens the broker, then starts `QueryService.tails`."""

    settings: TailSettings
    live: LiveSettings
    broker: Broker
    stop: Stop
    """Ends all tails: the server cannot stop before they have ended."""


@dataclass(frozen=True, slots=True)
class TopicSource:
    """What reading derived topics needs besides."""

    settings: TopicReadSettings
    topics: Topics
    """Closed by the service."""
    named: Sequence[TopicInfo]
    """By the settings; others are topics of services."""
    stop: Stop
    """Ends what waits."""


@dataclass(frozen=True, slots=True)
class ExperimentSource:
    """What experiments need besides."""

    settings: ExperimentSettings
    retention_days: int
    """After which an experiment that does not change goes."""
    stop: Stop
    """Ends streams of changes: the server cannot stop before they have ended."""


@dataclass(frozen=True, slots=True)
class HostSource:
    """What reading files of hosts needs besides."""

    settings: HostSettings
    stop: Stop
    """Ends reads: the server cannot stop before they have ended."""


class QueryService:
    """Composed by the caller from an opened database; `router` is mounted into a FastAPI application."""

    def __init__(
        self,
        settings: QuerySettings,
        *,
        database: Database,
        layout: Layout,
        unread: Unread,
        topic: str = LOGS_TOPIC,
        authenticate: Authenticate = anyone,
        current: Current = unchanging,
        sessions: Sessions | None = None,
        oidc: OidcLogin | None = None,
        audit: AuditLog | None = None,
        clock: Clock | None = None,
        segments: SegmentAccess | None = None,
        retention: RetentionPolicy | None = None,
        tail: TailSource | None = None,
        topics: TopicSource | None = None,
        experiments: ExperimentSource | None = None,
        connections: ConnectionSettings | None = None,
        hosts: HostSource | None = None,
        status: StatusSource | None = None,
        origins: Origins | None = None,
        pattern_minutes_days: int = 1,
        replicas: Sequence[ReplicaSource] = (),
        replica_lag_s_max: float = 10.0,
    ) -> None:
        """database: opened and closed by the caller, with settings.scans_max connections at least.

        unread: partition -> records that are accepted and not stored yet; may raise Overloaded. current: what somebody may now
        who was let in by `authenticate` before. sessions: closed by the caller; None where nobody logs in. oidc: closed by the
        caller; None where no login provider is asked. audit: run by the caller; None writes nothing down. segments: opened and
        closed here; None where no directory of files is known. retention: None shows whatever is there. tail: what tails are
        made of; None has none. topics: derived topics; None shows none. experiments, connections, hosts: None knows none.
        status: None tells none. origins: whose pages may open WebSockets; None: the server's own alone. pattern_minutes_days:
        for which counts of patterns are there by the minute. replicas: of the database, opened and closed here, with
        settings.scans_max + 2 connections each; they answer where they are replica_lag_s_max behind at most.
        """
        self.settings = settings
        self.authenticate = authenticate
        clock = clock or SystemClock()
        self._segments = segments

        def store_on(place: Database, is_replica: bool) -> PostgresReadStore:
            return PostgresReadStore(
                place,
                topic,
                layout,
                page_bytes_max=settings.page_bytes_max,
                snapshot_s_max=_SEARCHES_MAX * settings.scan_budget_ms / 1000 + _BESIDE_S,
                clock=clock,
                segments=segments,
                retention=retention,
                open_s_max=OPEN_S_MAX if is_replica else SNAPSHOT_S_MAX,
                primary=database if is_replica else None,
            )

        self._store = store = ReplicatedReadStore(database, replicas, store_on, lag_s_max=replica_lag_s_max)
        self._answers = Answers(settings, store, clock=clock, unread=unread)
        self.oldest_first, self.place = self._answers.oldest_first, self._answers.place
        patterns = PatternReader(database, topic)
        texts = PatternTexts(patterns, self._answers.place)
        pattern_answers = PatternAnswers(patterns, self._answers.place, minutes_days=pattern_minutes_days, clock=clock)
        self._stop = Stop()
        self._looking: asyncio.Task[None] | None = None
        self._is_there = False
        self._has_readers = False
        overview = Overview(self._answers, clock, budget_ms=settings.scan_budget_ms)
        self.router: APIRouter = make_router(
            self._answers,
            overview,
            pattern_answers,
            texts,
            settings,
            clock,
            self._authenticated,
            audit,
        )
        # Ended with all else that lasts: the server cannot stop before.
        stop = tail.stop if tail is not None else self._stop
        exports = Exports(settings, self._answers, current=current, clock=clock, audit=audit, stop=stop)
        export_router = make_export_router(exports, texts, clock, self._authenticated)
        personal_router = make_personal_router(
            PersonalStore(database), settings, self._authenticated, self._answers.place
        )
        self.router.routes.extend([*export_router.routes, *personal_router.routes])
        loki = LokiAnswers(self._answers, clock, budget_ms=settings.scan_budget_ms)
        self.router.routes.extend(make_loki_router(loki, clock, self._authenticated, audit).routes)
        if sessions is not None:
            # Side by side, not one inside the other: whoever mounts them sees each route.
            self.router.routes.extend(make_auth_router(sessions, sessions.settings, self._authenticated).routes)
            self.router.routes.extend(make_oidc_router(oidc, sessions.settings).routes)
            administered = AccountAnswers(
                Accounts(database),
                UserSessions(database),
                sessions,
                place=self._answers.place,
                secret=store.cursor_secret,
                clock=clock,
            )
            self.router.routes.extend(make_accounts_router(administered, self._authenticated, audit).routes)
        self.tails: Tails | None = None
        if tail is not None:
            self.tails = Tails(
                tail.settings,
                tail.live,
                broker=tail.broker,
                stored_keys=stored_keys_of(database),
                seal=self._answers.tail_seal,
                pattern_texts=texts,
                audit=audit,
                clock=clock,
                stop=tail.stop,
            )
            tail_router = make_tail_router(self.tails, self._authenticated, origins=origins or Origins())
            self.router.routes.extend(tail_router.routes)
            loki_tail_router = make_loki_tail_router(
                self.tails, self._answers, loki, self._authenticated, origins=origins or Origins()
            )
            self.router.routes.extend(loki_tail_router.routes)
        self._topic_reads: TopicReads | None = None
        if topics is not None:
            self._topic_reads = TopicReads(topics.settings, topics.topics, topics.named, stop=topics.stop)
            topics_router = make_topics_router(self._topic_reads, self._authenticated, audit)
            self.router.routes.extend(topics_router.routes)
        if status is not None:
            told = StatusAnswers(database, topic, status, self._answers.place, store.states)
            self.router.routes.extend(make_status_router(told, self._authenticated, audit).routes)
        self._experiments: Experiments | None = None
        if experiments is not None:
            kept = ExperimentStore(
                database, kept_max=experiments.settings.kept_max, retention_days=experiments.retention_days
            )
            self._experiments = Experiments(
                experiments.settings,
                kept,
                self._answers,
                secret=store.cursor_secret,
                clock=clock,
                stop=experiments.stop,
            )
            experiments_router = make_experiments_router(self._experiments, self._authenticated, audit)
            self.router.routes.extend(experiments_router.routes)
        if connections is not None:
            shown = Connections(
                connections, ConnectionReader(database), self._answers, secret=store.cursor_secret, clock=clock
            )
            self.router.routes.extend(make_connections_router(shown, self._authenticated, audit).routes)
        self._agents: Agents | None = None
        if hosts is not None:
            self._agents = Agents(hosts.settings)
            asked = Hosts(
                hosts.settings,
                HostStore(database, kept_max=hosts.settings.kept_max),
                self._agents,
                place=self._answers.place,
                secret=store.cursor_secret,
                current=current,
                clock=clock,
                audit=audit,
                stop=hosts.stop,
            )
            self.router.routes.extend(make_hosts_router(asked, self._authenticated, audit).routes)

    async def start(self) -> None:
        """Begin to look after the database and the files. Succeeds while they are away."""
        if self._segments is not None:
            await self._segments.open()
        await self._store.open()
        if self._experiments is not None:
            await self._experiments.start()
        await self._look()
        self._looking = asyncio.create_task(every(_LOOK_S, self._look, self._stop), name="query looks")

    async def stop(self) -> None:
        """End what `start` began; questions under way end by themselves. Safe to call twice."""
        self._stop.set()
        if self.tails is not None:
            await self.tails.stop()
        if self._topic_reads is not None:
            await self._topic_reads.stop()
        if self._experiments is not None:
            await self._experiments.stop()
        if self._agents is not None:
            await self._agents.close()
        if self._looking is not None:
            await self._looking
            self._looking = None
        await self._store.close()
        if self._segments is not None:
            await self._segments.close()

    def ready(self) -> list[str]:
        """What keeps this service from answering, for people; empty when it is ready."""
        if self._stop.is_set:
            return ["query is stopping"]
        if not self._is_there:
            return ["the database does not answer questions"]
        problem = self._store.problem()
        return [] if problem is None else [problem]

    async def _authenticated(self, connection: HTTPConnection) -> Principal:
        return await self.authenticate(connection)

    async def _look(self) -> None:
        self._is_there = await self._answers.is_ready(timeout_s=_LOOK_TIMEOUT_S)
        if self._is_there:
            await self._store.look_at_files()
        if self._segments is not None and self._store.has_segments and not self._has_readers:
            self._has_readers = True
            await self._segments.start_readers()
