"""Settings of following the broker."""

from __future__ import annotations

from pydantic import Field

from runtime.settings import Section

MiB = 1024 * 1024


class LiveSettings(Section):
    """How the broker is followed by what shows logs before they are stored: tails, alerts, routes."""

    poll_bytes_max: int = Field(default=4 * MiB, ge=1024, le=64 * MiB)
    """Compressed bytes that one read of the broker asks for. Default 4 MiB: some 100,000 logs."""

    queue_bytes_max: int = Field(default=16 * MiB, ge=64 * 1024)
    """Bytes of logs, as text, that wait for one subscriber; one that is further behind reads them again by itself later.
    Default 16 MiB: two seconds of 30,000 logs/s."""

    recent_bytes_max: int = Field(default=8 * MiB, ge=0)
    """Bytes of logs, as text, that are kept after they were handed out: who is no further behind need not read them again.
    Default 8 MiB: a second of 30,000 logs/s, an hour of few."""

    catch_ups_max: int = Field(default=8, ge=1, le=100)
    """Subscribers that read older offsets at the same time, each with a reader of its own; others wait. Default 8: each may
    hold one read and what it decodes to."""

    keys_max: int = Field(default=100_000, ge=1_000)
    """Idempotency keys that are remembered, to tell repeated requests. Default 100,000: 20 MB."""

    keys_s: float = Field(default=900.0, gt=0)
    """Seconds for which a key is remembered. Default 15 minutes. Older ones are asked of the database, where it is there."""

    keys_wait_s: float = Field(default=10.0, ge=0, le=300)
    """Seconds for which requests with a key that only the database may know wait while it does not answer, once each time that
    it goes away. After that they are shown, repeats too, until it answers. Default 10 s: a restart of the database."""

    look_again_s: float = Field(default=10.0, gt=0)
    """Seconds between two looks for new partitions and for leaders that are back. Default 10 s."""
