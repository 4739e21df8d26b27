"""Settings of the writer."""

from __future__ import annotations

import socket
from typing import Self

from pydantic import Field, model_validator

from runtime.settings import Section


def _host_name() -> str:
    return socket.gethostname() or "writer"


class WriterSettings(Section):
    """One writer process."""

    name: str = Field(default_factory=_host_name, min_length=1, max_length=200)
    """Stable name of this instance; default: the host's name. A restart under the same name takes its leases at once, so two
    running writers must not share one."""

    batch_rows_max: int = Field(default=20_000, ge=1, le=1_000_000)
    """Most rows in one transaction. 5,000 is nearly as cheap a row; more saves commits under load."""

    batch_bytes_max: int = Field(default=16 * 1024 * 1024, ge=1024 * 1024, le=1024 * 1024 * 1024)
    """Most bytes of decoded lines in one batch (one larger frame is still taken). Two batches are held at once."""

    linger_ms: int = Field(default=60, ge=0, le=10_000)
    """Milliseconds a batch waits for more frames while the database is idle: trades freshness for fewer commits. At 100,000
    logs/s 60 instead of 20 saves the chain a tenth of its CPU time; 120 saves little more."""

    lease_ttl_s: float = Field(default=10.0, ge=1.0, le=300.0)
    """How long a partition stays with a writer that says nothing. Renewed every third of it."""

    caught_up_ms: int = Field(default=250, ge=50, le=10_000)
    """How often idle partitions are marked as read to the end, which moves `visible_through` on."""

    stuck_after_s: float = Field(default=60.0, ge=1.0)
    """The process ends itself when the broker has records for it and none arrived for so long (a hung consumer)."""

    dead_ratio_max: float = Field(default=0.1, ge=0.0, le=1.0)
    """Largest share of lines that may become dead letters in the window below; above it the writer stops and diverts
    nothing more. 1 accepts everything."""

    dead_lines_min: int = Field(default=100, ge=0)
    """So many dead letters in the window are accepted whatever their share: one bad request must not stop a quiet service.
    Below dead_window_lines."""

    dead_window_s: float = Field(default=600.0, ge=1.0, le=86_400.0)
    """Seconds that a stored line counts for the two limits above."""

    dead_window_lines: int = Field(default=10_000, ge=1, le=10_000_000)
    """Lines that count for them at most, the last ones stored: a flood of bad lines after much good traffic is stopped
    after dead_ratio_max of these. More forgives longer runs of bad lines."""

    partitions_check_s: float = Field(default=30.0, ge=0.1, le=3600.0)
    """How often the broker is asked whether the topic has more partitions by now."""

    health_host: str = "127.0.0.1"
    """Address of the listener below."""

    health_port: int = Field(default=0, ge=0, le=65535)
    """TCP port for /livez, /readyz and /metrics of this writer; 0: none."""

    @model_validator(mode="after")
    def _window_can_be_exceeded(self) -> Self:
        if self.dead_lines_min >= self.dead_window_lines:
            raise ValueError(
                f"dead_lines_min must be below dead_window_lines, got {self.dead_lines_min} and {self.dead_window_lines}:"
                " no flood of bad lines would ever stop the writer"
            )
        return self
