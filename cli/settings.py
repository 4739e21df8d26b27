"""All settings, composed from the parts' sections, and where they come from."""

from __future__ import annotations

import ipaddress
import os
import re
from collections.abc import Mapping
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from pydantic import Field, SecretStr, field_validator, model_validator

from access.oidc.addresses import checked_origin
from access.settings import AccessSettings
from agent.settings import AgentSettings
from alerts.settings import AlertSettings
from broker.settings import BrokerSettings
from connections.settings import ConnectionSettings as TextSettings
from db.embedded import recorded_url
from db.migrations import Layout
from db.replication import hosts_of
from ingest.settings import IngestSettings
from live.settings import LiveSettings
from mining.settings import MiningSettings
from query.experiments.settings import ExperimentSettings
from query.hosts.settings import HostSettings
from query.settings import QuerySettings
from query.tail.settings import TailSettings
from query.topics.settings import TopicReadSettings
from routes.settings import RouteSettings, RoutingSettings, check_routes
from runtime.addresses import is_loopback
from runtime.http import HttpSettings as ConnectionSettings
from runtime.log_settings import LogSettings
from runtime.origins import origin_of
from runtime.settings import Section, load
from runtime.tracing_settings import TracingSettings
from schemas.errors import ConfigurationError
from store.lake.settings import LakeSettings
from store.objects.settings import ObjectSettings
from store.segments.settings import SegmentSettings
from store.settings import StoreSettings
from store.tiers.settings import RetentionSettings, TierSettings
from writer.settings import WriterSettings

if TYPE_CHECKING:
    from store.tiers.retention import RetentionPolicy

CONFIG_VARIABLE: Final = "LOGFEED_CONFIG"

_EVERYBODY: Final = "*"
"""Of proxies."""
_DATABASE_URL: Final = re.compile(r"postgres(ql)?://\S+")


class Profile(StrEnum):
    """Which real parts are used."""

    EMBEDDED = "embedded"
    FULL = "full"


class HttpSettings(ConnectionSettings):
    """Where the HTTP application listens, and limits of its connections."""

    host: str = "127.0.0.1"
    """Address to listen on. Anything but loopback opens the service to the network."""

    port: int = Field(default=8080, ge=0, le=65535)
    """TCP port; 0 takes a free one."""

    trusted_proxies: tuple[str, ...] = ()
    """Addresses or networks (CIDR) of proxies whose X-Forwarded-For says where a request comes from. Nobody else's counts: keys
    may be bound to networks, and logins are throttled by address. Name no network that clients are in, and `*` only where
    nobody but the proxy reaches this port and it drops what clients say: each may then say that they are anywhere."""

    public_url: str | None = None
    """Where browsers find this installation: https://logs.example.org, without a path. http only on this machine. Login
    providers send browsers back to it (access.oidc)."""

    tls_cert: Path | None = None
    """PEM file: the server's certificate, then those that lead to the authority. With tls_key: HTTPS only. A renewed one is
    taken within seconds, without a restart. Empty: no TLS."""

    tls_key: Path | None = None
    """PEM file: the private key of tls_cert, without a password."""

    hsts_s: int = Field(default=31_536_000, ge=0, le=63_072_000)
    """Seconds for which browsers that came by TLS come back by TLS only, to any port of the host; 0 asks for nothing. Default:
    a year."""

    allowed_origins: tuple[str, ...] = ()
    """Origins of pages (https://logs.example) that may log in, and open WebSockets, beside those that this server serves. For
    a proxy that sends another Host header than the browser's."""

    @field_validator("trusted_proxies")
    @classmethod
    def _are_addresses(cls, proxies: tuple[str, ...]) -> tuple[str, ...]:
        for each in proxies:
            if each != _EVERYBODY:
                ipaddress.ip_network(each)
        return proxies

    @property
    def believes_everybody(self) -> bool:
        """Whether whoever connects may say that a request comes from anywhere."""
        return any(each == _EVERYBODY or ipaddress.ip_network(each).prefixlen == 0 for each in self.trusted_proxies)

    @field_validator("public_url")
    @classmethod
    def _is_origin(cls, url: str | None) -> str | None:
        return None if url is None else checked_origin(url)

    @model_validator(mode="after")
    def _tls_is_whole(self) -> HttpSettings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key need each other: set both, or neither")
        return self

    @field_validator("allowed_origins")
    @classmethod
    def _are_origins(cls, origins: tuple[str, ...]) -> tuple[str, ...]:
        for origin in origins:
            origin_of(origin)
        return origins

    @property
    def has_tls(self) -> bool:
        """Whether this server speaks TLS itself."""
        return self.tls_cert is not None


class DatabaseSettings(Section):
    """Where PostgreSQL is."""

    url: SecretStr | None = None
    """postgresql://user:password@host:port/database. Empty in the embedded profile: `logfeed up` starts its own server."""

    connections_max: int = Field(default=10, ge=2, le=200)
    """Most connections of one process."""

    replicas: tuple[SecretStr, ...] = Field(default=(), max_length=16)
    """Streaming replicas of database.url, postgresql://… each, that answer questions of query and serve: pages, logs by id,
    correlation ids, counts, exports. Everything else, and whatever no replica can answer, is the primary's. See
    docs/replication.md."""

    replica_lag_s_max: float = Field(default=10.0, ge=1, le=300)
    """Seconds that a replica may be behind the primary and still answer. Default 10: replicas that stream are milliseconds
    behind, and one that hangs is left out soon. Pages say themselves how far they reach (visible_through)."""

    @field_validator("url")
    @classmethod
    def _is_address(cls, url: SecretStr | None) -> SecretStr | None:
        if url is not None and not _DATABASE_URL.fullmatch(url.get_secret_value()):
            raise ValueError("expected postgresql://user:password@host:port/database")
        return url

    @field_validator("replicas")
    @classmethod
    def _are_addresses(cls, replicas: tuple[SecretStr, ...]) -> tuple[SecretStr, ...]:
        for number, url in enumerate(replicas, start=1):
            if not _DATABASE_URL.fullmatch(url.get_secret_value()):
                raise ValueError(f"number {number}: expected postgresql://user:password@host:port/database")
            hosts_of(url.get_secret_value())
        return replicas


class Settings(Section):
    """Everything that can be set."""

    profile: Profile = Profile.EMBEDDED
    """embedded: queue and rows in PostgreSQL; full: Kafka and TimescaleDB."""

    data_dir: Path = Path("logfeed-data")
    """Directory of the embedded PostgreSQL and of what must survive a restart. Of the full profile only the cache of objects is
    there, unless objects.cache_dir says otherwise."""

    http: HttpSettings = HttpSettings()
    """HTTP application."""

    access: AccessSettings = AccessSettings()
    """Who may what."""

    database: DatabaseSettings = DatabaseSettings()
    """PostgreSQL."""

    broker: BrokerSettings = BrokerSettings()
    """Kafka or the queue."""

    ingest: IngestSettings = IngestSettings()
    """Ingestion."""

    writer: WriterSettings = WriterSettings()
    """Writer."""

    store: StoreSettings = StoreSettings()
    """Hot store."""

    retention: RetentionSettings = RetentionSettings()
    """Which logs are kept longer, or not as long, as the others."""

    tiers: TierSettings = TierSettings()
    """When rows move from tables to files, and files to object storage."""

    segments: SegmentSettings = SegmentSettings()
    """The files: how they are written and read."""

    objects: ObjectSettings = ObjectSettings()
    """Object storage and its local cache."""

    lake: LakeSettings = LakeSettings()
    """The files as a table for other engines."""

    query: QuerySettings = QuerySettings()
    """Query service."""

    live: LiveSettings = LiveSettings()
    """Following the broker, for what shows logs as they come."""

    tail: TailSettings = TailSettings()
    """Logs as they come, over WebSocket and server-sent events."""

    alerts: AlertSettings = AlertSettings()
    """Alerting."""

    patterns: MiningSettings = MiningSettings()
    """Counting the patterns of logs."""

    routes: dict[str, RouteSettings] = Field(default={})
    """Derived topics besides logs.errors, by name: which logs, and into which topic. See docs/topics.md."""

    routing: RoutingSettings = RoutingSettings()
    """The role that fills derived topics."""

    topics: TopicReadSettings = TopicReadSettings()
    """Derived topics over HTTP."""

    experiments: ExperimentSettings = ExperimentSettings()
    """Experiments and their changes."""

    connections: TextSettings = TextSettings()
    """Connections and their logs."""

    hosts: HostSettings = HostSettings()
    """Hosts whose files are read through this server."""
    agent: AgentSettings = AgentSettings()
    """The agent on a host (docs/agent.md)."""

    log: LogSettings = LogSettings()
    """Logfeed's own logs."""

    tracing: TracingSettings = TracingSettings()
    """Traces of requests and batches."""

    @model_validator(mode="after")
    def _limits_fit(self) -> Settings:
        if self.ingest.retention_days > self.store.retention_days:
            raise ValueError(
                f"ingest.retention_days ({self.ingest.retention_days}) must be at most store.retention_days"
                f" ({self.store.retention_days}): logs would be accepted and dropped at once"
            )
        if self.query.scans_max > self.database.connections_max - 2:
            raise ValueError(
                f"query.scans_max ({self.query.scans_max}) must be at most database.connections_max - 2"
                f" ({self.database.connections_max - 2}): questions would wait for connections that others need"
            )
        return self

    @model_validator(mode="after")
    def _routes_fit(self) -> Settings:
        check_routes(self.routes, logs_topic=self.broker.topic)
        return self

    @model_validator(mode="after")
    def _is_open_on_loopback_only(self) -> Settings:
        if not self.access.enabled and not is_loopback(self.http.host):
            raise ValueError(
                f"access.enabled is false, so http.host must be loopback, got {self.http.host!r}: whoever reaches it could read"
                " and write everything. Leave access control on, and make keys with `logfeed keys create`"
            )
        return self

    @property
    def layout(self) -> Layout:
        """How the hot store divides rows by time in this profile."""
        return Layout.TIMESCALE if self.profile is Profile.FULL else Layout.NATIVE

    def segment_directory(self) -> Path:
        """Where files of rows lie. Raises ConfigurationError when nobody said so."""
        if self.tiers.directory is not None:
            return self.tiers.directory
        if self.profile is Profile.EMBEDDED:
            return self.data_dir / "segments"
        raise ConfigurationError(
            "no directory for files of rows: set tiers.directory (LOGFEED_TIERS__DIRECTORY=/path, which every role that reads"
            " or moves rows must see)"
        )

    def object_settings(self) -> ObjectSettings:
        """Object storage, its cache below data_dir unless it was put elsewhere."""
        if "cache_dir" in self.objects.model_fields_set:
            return self.objects
        return self.objects.model_copy(update={"cache_dir": self.data_dir / "object-cache"})

    def retention_policy(self) -> RetentionPolicy:
        """How long each log is kept."""
        from store.tiers.retention import RetentionPolicy  # with what computes on columns: most commands do without

        return RetentionPolicy.of(self.retention, default_days=self.store.retention_days)

    def database_url(self) -> str:
        """The database's URL: as set, else of the server that `up` runs over data_dir. Raises ConfigurationError."""
        if self.database.url is not None:
            return self.database.url.get_secret_value()
        recorded = recorded_url(self.data_dir) if self.profile is Profile.EMBEDDED else None
        if recorded is None:
            raise ConfigurationError(
                "no database: set database.url (LOGFEED_DATABASE__URL=postgresql://…), or name the directory of a running"
                f" `logfeed up` (LOGFEED_DATA_DIR; {self.data_dir} has none)"
            )
        return recorded


def load_settings(config: Path | None, flags: Mapping[str, Any] | None = None) -> Settings:
    """Settings in force. config: YAML file; else the file that LOGFEED_CONFIG names; else none.

    The broker's kind follows the profile unless it is set. Raises ConfigurationError.
    """
    named = os.environ.get(CONFIG_VARIABLE)
    file = config or (Path(named) if named else None)
    settings = load(Settings, file=file, flags=flags)
    if "kind" not in settings.broker.model_fields_set:
        kind = "kafka" if settings.profile is Profile.FULL else "queue"
        broker = settings.broker.model_copy(update={"kind": kind})
        settings = settings.model_copy(update={"broker": broker})
    return settings
