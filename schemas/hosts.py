"""What is said and answered of hosts, as the API's document describes it. See docs/hosts.md."""

from __future__ import annotations

import re
from enum import StrEnum
from typing import Annotated, Final

from pydantic import BaseModel, ConfigDict, Field, StrictStr

from schemas.record import SERVICE_NAME_PATTERN

HOST_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,99}$"
HEARTBEAT_S: Final = 10
"""Seconds from one heartbeat of an agent to the next."""
AWAY_S: Final = 30
"""Seconds without a heartbeat after which a host is away."""
TOKEN_PATTERN: Final = r"^[A-Za-z0-9_-]{43}$"
ADDRESS_CHARS_MAX: Final = 300
VERSION_CHARS_MAX: Final = 50
SERVICES_MAX: Final = 1_000
FILES_MAX: Final = 1_000
"""Of one answer."""

_HOST: Final = re.compile(HOST_PATTERN)


def is_host_name(text: str) -> bool:
    """Whether it may be a host's name: 1..100 ASCII letters, digits and . _ -, a letter or digit first."""
    return _HOST.fullmatch(text) is not None


class HostHeartbeat(BaseModel):
    """What an agent says of itself at its start, and every ten seconds."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    address: StrictStr = Field(min_length=1, max_length=ADDRESS_CHARS_MAX, examples=["http://127.0.0.1:8085"])
    """Where the server reaches the agent: http or https, host and port, no path. It must lie in `hosts.networks`."""
    token: StrictStr = Field(pattern=TOKEN_PATTERN, examples=["A" * 43], repr=False)
    """What the server is to show the agent: 256 random bits, made anew at each start."""
    version: StrictStr = Field(min_length=1, max_length=VERSION_CHARS_MAX, pattern=r"^[!-~]*$", examples=["0.1.0"])
    """Of the agent."""
    services: list[Annotated[StrictStr, Field(pattern=f"^(?:{SERVICE_NAME_PATTERN.pattern})$")]] = Field(
        max_length=SERVICES_MAX, examples=[["nginx"]]
    )
    """Whose files it has, for lists."""


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class HostRegistered(_Answer):
    """It is heard."""

    host: str = Field(examples=["web-1"])
    heartbeat_s: int = Field(examples=[HEARTBEAT_S])
    """Seconds after which the next heartbeat is expected."""
    server_time: str = Field(examples=["2026-11-22T12:34:56.123456Z"])
    """Of the database: a host whose clock is wrong can tell."""


class HostStatus(StrEnum):
    """Whether a host is heard of."""

    UP = "up"
    AWAY = "away"


class HostModel(_Answer):
    """One host."""

    host: str = Field(examples=["web-1"])
    status: HostStatus
    """`away` after 30 s without a heartbeat: its files cannot be read."""
    last_seen: str = Field(examples=["2026-11-22T12:34:56.123456Z"])
    version: str = Field(examples=["0.1.0"])
    """Of its agent."""
    services: list[str] = Field(examples=[["nginx"]])
    """Whose files it has, of those that you may read."""


class HostList(_Answer):
    """Hosts, by name."""

    hosts: list[HostModel]
    next_cursor: str | None
    """Goes on; null when nothing follows."""


class HostFile(_Answer):
    """One file."""

    name: str = Field(examples=["nginx/access.log"])
    """As it is asked for."""
    service_name: str = Field(examples=["nginx"])
    bytes: int = Field(examples=[123_456])
    """As it lies there, compressed or not."""
    modified_at: str = Field(examples=["2026-11-22T12:34:56.123456Z"])
    compressed: str | None = Field(examples=[None])
    """`gzip`, `zstd`, or null."""
    rotated: bool
    """Nothing is written to it any more."""


class HostFileList(_Answer):
    """Files of a host that you may read."""

    files: list[HostFile]
    next_cursor: str | None
    """Goes on; null when nothing follows."""
    errors: list[str]
    """What the agent could not list."""


class HostLine(_Answer):
    """One record of a file that is read: a line, or, as the last one, `{"end": …}`."""

    line: str = Field(examples=["GET / 200"])
    offset: int = Field(examples=[4711])
    """Bytes before it, in the file (of a compressed one: of what it holds)."""
