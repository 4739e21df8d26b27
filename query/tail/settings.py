"""Settings of tails."""

from __future__ import annotations

from pydantic import Field, model_validator

from runtime.settings import Section

KiB = 1024
MiB = 1024 * KiB


class TailSettings(Section):
    """Logs as they come, over WebSocket and server-sent events."""

    tails_max: int = Field(default=2_000, ge=1, le=100_000)
    """Tails of one process; more get 503. Default 2,000: with 50 logs/s each some two cores."""

    subject_tails_max: int = Field(default=20, ge=1)
    """Tails of one key or user in one process; more get 429. Default 20."""

    client_bytes_max: int = Field(default=MiB, ge=64 * KiB, le=64 * MiB)
    """Bytes of logs that wait for one client; past it the oldest are skipped, and it is told how many. Default 1 MiB."""

    queued_bytes_max: int = Field(default=256 * MiB, ge=MiB)
    """Bytes that wait for all clients together: with many of them each may have less than `client_bytes_max`.
    Default 256 MiB."""

    frame_every_ms: int = Field(default=250, ge=10, le=2_000)
    """Milliseconds between two frames to one client. Default 250: four a second, with all that came meanwhile."""

    heartbeat_s: float = Field(default=15.0, gt=0, le=600)
    """Seconds without a log after which an empty frame shows that the tail lives. Default 15 s: below
    most proxies' timeouts."""

    check_s: float = Field(default=2.0, gt=0, le=60)
    """Seconds between two looks whether who tails still may. Default 2 s, as fast as changes act elsewhere."""

    ticket_s: float = Field(default=30.0, gt=0, le=300)
    """Seconds for which a ticket opens a WebSocket, once. Default 30 s."""

    @model_validator(mode="after")
    def _limits_fit(self) -> TailSettings:
        if self.queued_bytes_max < self.client_bytes_max:
            raise ValueError("queued_bytes_max must be at least client_bytes_max: one client could never have it")
        return self
