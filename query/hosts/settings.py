"""Settings of hosts."""

from __future__ import annotations

import ipaddress
from pathlib import Path

from pydantic import Field, field_validator, model_validator

from runtime.settings import Section


class HostSettings(Section):
    """Hosts whose files are read through this server."""

    networks: tuple[str, ...] = (
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "127.0.0.0/8",
        "fc00::/7",
        "::1/128",
    )
    """Where agents may be (CIDR): the server connects to no other address, whatever a key registers or a name means. Default:
    private networks and loopback. Link-local addresses and those of clouds' metadata services are never asked."""

    ca_file: Path | None = None
    """PEM file of the authorities that agents' certificates are believed by; empty: those of the system. For https."""

    kept_max: int = Field(default=10_000, ge=1, le=100_000)
    """Hosts that are kept; a new one past it is refused (409)."""

    connect_s: float = Field(default=5.0, gt=0, le=60)
    """Seconds for a connection to an agent, and as many again for the head of its answer; then 504."""

    read_s_max: int = Field(default=60, ge=1, le=3_600)
    """Most seconds of one read of a file that is not followed."""

    follow_s_max: int = Field(default=3_600, ge=1, le=86_400)
    """Most seconds for which a file is followed; who goes on follows it again."""

    answer_bytes_max: int = Field(default=256 * 1024 * 1024, ge=1024 * 1024)
    """Bytes of an agent's answer that are passed on; then the answer ends with the status `limit`. Nothing of it is
    gathered here."""

    streams_max: int = Field(default=50, ge=1, le=10_000)
    """Questions to agents at the same time of one process, a read for as long as it lasts; more get 503."""

    subject_streams_max: int = Field(default=10, ge=1)
    """The same of one key or user; more get 429."""

    check_s: float = Field(default=2.0, gt=0, le=60)
    """Seconds between two looks whether who reads still may. Default 2 s, as fast as changes act elsewhere."""

    @field_validator("networks")
    @classmethod
    def _are_networks(cls, networks: tuple[str, ...]) -> tuple[str, ...]:
        return tuple(str(ipaddress.ip_network(text)) for text in networks)

    @model_validator(mode="after")
    def _limits_fit(self) -> HostSettings:
        if self.streams_max < self.subject_streams_max:
            raise ValueError("streams_max must be at least subject_streams_max: one subject could never have it")
        return self
