"""Settings of mining."""

from __future__ import annotations

import socket
from typing import Self

from pydantic import Field, model_validator

from runtime.settings import Section


class MiningSettings(Section):
    """Which patterns logs have, and how many lines each."""

    name: str = Field(default_factory=socket.gethostname, min_length=1, max_length=200)
    """Stable name of this process: a restart under it takes the lead at once. Default: the host's name."""

    save_s: float = Field(default=5.0, gt=0, le=60)
    """Seconds between two saves of counts, with the positions they belong to. Default 5 s: so old are counts at most. More
    often costs the database more."""

    minutes_days: int = Field(default=2, ge=1, le=400)
    """Days for which counts are kept by the minute. Default 2; older ones are there by the hour."""

    retention_days: int = Field(default=30, ge=1, le=4_000)
    """Days for which counts are kept by the hour, and patterns that nothing is counted under any more. Default 30."""

    rows_max: int = Field(default=10_000_000, ge=10_000)
    """Rows of counts by the minute, and as many by the hour; past it the oldest go early. Default 10 million: some 1.5 GB each,
    a day and more of 5,000 patterns in every minute."""

    templates_max: int = Field(default=50_000, ge=1_000, le=1_000_000)
    """Patterns that are kept in the database; past it those not seen for longest go, and their lines are counted without one.
    Default 50,000. The miner itself knows 10,000."""

    stall_s: float = Field(default=60.0, gt=0)
    """Seconds after which counts count as complete without a partition that has no leader."""

    health_host: str = "127.0.0.1"
    """Address of the port below."""

    health_port: int = Field(default=0, ge=0, le=65535)
    """TCP port for /livez, /readyz and /metrics; 0: none."""

    @model_validator(mode="after")
    def _hours_outlive_minutes(self) -> Self:
        if self.minutes_days > self.retention_days:
            raise ValueError(
                f"minutes_days ({self.minutes_days}) must be at most retention_days ({self.retention_days})"
            )
        return self
