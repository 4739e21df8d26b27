"""Settings of the agent: the section `agent` of a settings file, LOGFEED_AGENT__… in the environment.

The agent reads its own section and `log`, and nothing else: the other roles' settings would bring their code along, which is
more than all of the agent. `logfeed config` knows them all.
"""

from __future__ import annotations

import os
import socket
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, Literal
from urllib.parse import urlsplit
from zoneinfo import ZoneInfo

from pydantic import ConfigDict, Field, ValidationInfo, field_validator, model_validator

from agent.globs import compile_globs
from agent.roots import Root
from formats.lines import Format, compile_expression
from runtime.addresses import is_loopback
from runtime.log_settings import LogSettings
from runtime.settings import Section, load
from schemas.errors import ConfigurationError, InvalidInput
from schemas.record import SERVICE_NAME_CHARS_MAX, is_service_name

CONFIG_VARIABLE: Final = "LOGFEED_CONFIG"
_MiB: Final = 1024 * 1024
_NAME_CHARS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-")
_HOST_CHARS_MAX: Final = 100
_METADATA_CHARS_MAX: Final = 4_096


def _checked_service(service: str) -> str:
    if not is_service_name(service):
        raise ValueError(f"expected 1..{SERVICE_NAME_CHARS_MAX} ASCII letters, digits and . _ - /")
    return service


def _checked_zone(zone: str) -> str:
    try:
        ZoneInfo(zone)
    except (KeyError, ValueError, OSError) as error:
        raise ValueError("there is no such time zone; expected a name such as UTC or Europe/Berlin") from error
    return zone


class RootSettings(Section):
    """A folder whose files may be read, as logs of one service."""

    path: Path
    """The folder."""

    service: str
    """service_name of its lines; who may read that service may read its files. 1..100 letters, digits and . _ - /"""

    include: tuple[str, ...] = ("**/*.log", "**/*.log.*", "**/*.log-*")
    """Which files below the folder, as patterns of their paths: `*` within a name, `**/` any folders."""

    exclude: tuple[str, ...] = ()
    """Which of these not."""

    ship: bool = True
    """Whether their lines are sent to the server. Without it they are only read when somebody asks."""

    begin: Literal["beginning", "end"] = "beginning"
    """Where files begin that are there when the agent first sees this root: all their lines, or only what is written
    from then on."""

    format: Format = Format.AUTO
    """What their lines are: plain, json, pipe; auto: as the first lines of each file look. See docs/importing.md."""

    zone: str = "UTC"
    """Time zone of times that name none, such as Europe/Berlin."""

    join: Literal["auto", "none"] = "auto"
    """Which lines are one log: auto joins stack traces and indented lines; none makes each line a log."""

    join_start: str | None = None
    """Instead: a line that this expression (RE2) matches begins a log, every other line goes on with it."""

    join_continuation: str | None = None
    """Instead: a line that this expression (RE2) matches goes on with the log before it."""

    join_timeout_s: float = Field(default=2.0, gt=0, le=60)
    """Seconds for which a log whose next line may go on with it waits for that line."""

    metadata: dict[str, str] = Field(default={})
    """Metadata of each log besides `host` and `file`; a line's own field of that name wins."""

    @field_validator("service")
    @classmethod
    def _is_service(cls, service: str) -> str:
        return _checked_service(service)

    @field_validator("path")
    @classmethod
    def _is_absolute(cls, path: Path) -> Path:
        if not path.is_absolute():
            raise ValueError("expected an absolute path")
        return path

    @field_validator("include", "exclude")
    @classmethod
    def _are_patterns(cls, patterns: tuple[str, ...]) -> tuple[str, ...]:
        compile_globs(patterns)
        return patterns

    @field_validator("zone")
    @classmethod
    def _is_zone(cls, zone: str) -> str:
        return _checked_zone(zone)

    @field_validator("join_start", "join_continuation")
    @classmethod
    def _is_expression(cls, pattern: str | None, info: ValidationInfo) -> str | None:
        if pattern is not None:
            try:
                compile_expression(pattern, info.field_name or "")
            except InvalidInput as error:
                raise ValueError(str(error)) from error
        return pattern

    @field_validator("metadata")
    @classmethod
    def _is_small(cls, metadata: dict[str, str]) -> dict[str, str]:
        if sum(len(key) + len(value) for key, value in metadata.items()) > _METADATA_CHARS_MAX:
            raise ValueError(f"expected at most {_METADATA_CHARS_MAX} characters in all: each log carries them")
        return metadata

    @model_validator(mode="after")
    def _joins_one_way(self) -> RootSettings:
        if self.join_start is not None and self.join_continuation is not None:
            raise ValueError("join_start and join_continuation exclude each other")
        return self


class SyslogSettings(Section):
    """Receiving syslog (RFC 5424 and 3164)."""

    host: str = "127.0.0.1"
    """Address to listen on. Syslog knows no credentials: whoever reaches it writes logs."""

    tcp_port: int | None = Field(default=None, ge=0, le=65535)
    """TCP port, octet counting and newlines; 0 takes a free one, empty: none."""

    udp_port: int | None = Field(default=None, ge=0, le=65535)
    """UDP port; 0 takes a free one, empty: none. Datagrams that the system has no room for are lost unseen."""

    service: str | None = None
    """service_name of all messages; empty: the name of the program that each message tells, else `syslog`."""

    zone: str = "UTC"
    """Time zone of times that name none (RFC 3164)."""

    spool_bytes_max: int = Field(default=256 * _MiB, ge=2 * _MiB)
    """Bytes on disk that wait for the server. Past it TCP senders wait, and datagrams are dropped and counted."""

    queue_bytes_max: int = Field(default=4 * _MiB, ge=256 * 1024)
    """Bytes in memory that wait for the disk."""

    connections_max: int = Field(default=200, ge=1, le=10_000)
    """TCP connections at once."""

    message_bytes_max: int = Field(default=64 * 1024, ge=1024, le=256 * 1024)
    """Bytes of a message; of a longer one the rest is left out, and it says so."""

    @field_validator("service")
    @classmethod
    def _is_service(cls, service: str | None) -> str | None:
        return service if service is None else _checked_service(service)

    @field_validator("zone")
    @classmethod
    def _is_zone(cls, zone: str) -> str:
        return _checked_zone(zone)


class AgentSettings(Section):
    """The agent on a host."""

    name: str = Field(default_factory=lambda: socket.gethostname().partition(".")[0])
    """Name of this host, for the server. 1..100 ASCII letters, digits and . _ -, a letter or digit first."""

    url: str = "http://127.0.0.1:8080"
    """The Logfeed server that logs and heartbeats go to."""

    ingest_url: str | None = None
    """Where logs go, when ingest has an address of its own; empty: url."""

    api_key_file: Path | None = None
    """File that holds the API key (`logfeed keys create --write SERVICE --host NAME`), read again when the server refuses it.
    Empty: LOGFEED_API_KEY."""

    ca_file: Path | None = None
    """PEM file of the authorities that an https server is believed by; empty: the usual ones."""

    host: str = "127.0.0.1"
    """Address that the agent's own API listens on. Anything but loopback opens it to the network, where the token is all that
    stands before the files: set tls_cert."""

    port: int = Field(default=8085, ge=0, le=65535)
    """TCP port of the agent's own API; 0 takes a free one."""

    address: str | None = None
    """Where the server reaches the agent's API, such as http://10.0.0.5:8085; empty: made of host and port."""

    health_host: str = "127.0.0.1"
    """Address of the listener below."""

    health_port: int = Field(default=0, ge=0, le=65535)
    """TCP port for /livez, /readyz and /metrics without a token, for probes and Prometheus; 0: none. To this machine the
    agent's own API answers them."""

    tls_cert: Path | None = None
    """PEM file: certificate of the agent's API; with tls_key. Taken anew when it changes."""

    tls_key: Path | None = None
    """PEM file: private key of tls_cert, without a password."""

    state_dir: Path = Path("/var/lib/logfeed-agent")
    """Where the agent remembers what it sent, and keeps syslog messages until they are sent. Not shared by two agents."""

    roots: dict[str, RootSettings] = Field(default={})
    """Folders by name. Nothing outside of them is ever read."""

    syslog: SyslogSettings = SyslogSettings()
    """Receiving syslog."""

    register_host: bool = True
    """Whether the server is told of this host, so that its files can be read there."""

    readers_max: int = Field(default=16, ge=1, le=1_000)
    """Files that are read for somebody at once, those that are followed included; more get 503."""

    reader_threads: int = Field(default=4, ge=1, le=64)
    """Threads that read for them."""

    read_s_max: int = Field(default=60, ge=1, le=3_600)
    """Most seconds of an answer that follows nothing."""

    follow_s_max: int = Field(default=3_600, ge=1, le=86_400)
    """Most seconds for which a file is followed; who goes on asks again."""

    connections_max: int = Field(default=100, ge=1, le=10_000)
    """Connections of the agent's API at once."""

    files_max: int = Field(default=1_000, ge=1, le=10_000)
    """Files whose lines are sent; each is open for as long. Further ones are left out, and said."""

    scan_s: float = Field(default=1.0, gt=0, le=60)
    """Seconds between two looks for new files."""

    batch_bytes_max: int = Field(default=_MiB // 2, ge=256 * 1024, le=3 * _MiB)
    """Bytes of lines in one request."""

    unfinished_line_s: float = Field(default=30.0, gt=0, le=3_600)
    """Seconds for which a last line without its end waits for it; what comes later is a log of its own."""

    @field_validator("name")
    @classmethod
    def _is_name(cls, name: str) -> str:
        if not 1 <= len(name) <= _HOST_CHARS_MAX or not set(name) <= _NAME_CHARS or not name[0].isalnum():
            raise ValueError("expected 1..100 ASCII letters, digits and . _ -, a letter or digit first")
        return name

    @field_validator("url", "ingest_url", "address")
    @classmethod
    def _is_url(cls, url: str | None) -> str | None:
        if url is None:
            return None
        parts = urlsplit(url)
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.query or parts.fragment:
            raise ValueError("expected an address such as http://127.0.0.1:8080")
        return url.rstrip("/")

    @field_validator("roots")
    @classmethod
    def _have_names(cls, roots: dict[str, RootSettings]) -> dict[str, RootSettings]:
        for name in roots:
            if not 1 <= len(name) <= _HOST_CHARS_MAX or not set(name) <= _NAME_CHARS or name.startswith("."):
                raise ValueError(f"a root's name is 1..100 letters, digits and . _ -, got {name!r}")
        return roots

    @model_validator(mode="after")
    def _fits(self) -> AgentSettings:
        if (self.tls_cert is None) != (self.tls_key is None):
            raise ValueError("tls_cert and tls_key need each other: set both, or neither")
        if self.register_host and self.address is None and self.host in ("0.0.0.0", "::"):
            raise ValueError(f"address is needed: the server cannot reach the agent at {self.host}")
        return self

    @property
    def ships(self) -> bool:
        """Whether anything is sent."""
        return self.receives_syslog or any(root.ship for root in self.roots.values())

    @property
    def receives_syslog(self) -> bool:
        """Whether syslog is received."""
        return self.syslog.tcp_port is not None or self.syslog.udp_port is not None

    def shown_address(self, port: int) -> str:
        """Where the server reaches the agent's API, which listens on this port."""
        if self.address is not None:
            return self.address
        host = f"[{self.host}]" if ":" in self.host else self.host
        return f"{'http' if self.tls_cert is None else 'https'}://{host}:{port}"

    @property
    def is_open_in_clear(self) -> bool:
        """Whether the API's lines cross the network readable for all."""
        return self.tls_cert is None and not is_loopback(self.host)

    def reading_roots(self) -> tuple[Root, ...]:
        """The folders, for readers."""
        return tuple(
            Root(name, root.path, root.service, root.include, root.exclude) for name, root in self.roots.items()
        )

    def check_folders(self) -> list[str]:
        """What is wrong with folders now, one sentence each; they may come later."""
        return [
            f"agent.roots.{name}.path: there is no folder {root.path}"
            for name, root in self.roots.items()
            if not root.path.is_dir()
        ]


class AgentConfiguration(Section):
    """What the agent reads of a settings file and of the environment."""

    model_config = ConfigDict(frozen=True, extra="ignore", use_attribute_docstrings=True)

    agent: AgentSettings = AgentSettings()
    """The agent on a host."""

    log: LogSettings = LogSettings()
    """Logfeed's own logs."""


def load_agent(
    config: Path | None, flags: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None
) -> AgentConfiguration:
    """Settings in force. config: YAML file; else the one that LOGFEED_CONFIG names; else none. Raises ConfigurationError."""
    variables = os.environ if environment is None else environment
    named = variables.get(CONFIG_VARIABLE)
    file = config or (Path(named) if named else None)
    return load(AgentConfiguration, file=file, flags=flags, environment=variables)


def read_api_key(settings: AgentSettings, environment: Mapping[str, str]) -> str | None:
    """The key in force. Raises ConfigurationError when its file cannot be read."""
    if settings.api_key_file is None:
        return environment.get("LOGFEED_API_KEY", "").strip() or None
    try:
        key = settings.api_key_file.read_text(encoding="ascii").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigurationError(f"agent.api_key_file: {settings.api_key_file} cannot be read: {error}") from error
    if not key:
        raise ConfigurationError(f"agent.api_key_file: {settings.api_key_file} is empty")
    return key
