"""How much a sender holds, and how long it waits. Checked together when a sender is made."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

LINE_BYTES_MAX: Final = 4 * 1024 * 1024
"""No line is longer: messages and fields are cut before."""
_BATCH_LOGS_MAX: Final = 10_000
_BATCH_BYTES_MAX: Final = 8 * 1024 * 1024


@dataclass(frozen=True, slots=True, kw_only=True)
class SenderLimits:
    """Of one process. Raises ValueError for what cannot be."""

    queue_logs: int = 50_000
    """Logs that wait in memory; further ones are dropped, and counted."""
    queue_bytes: int = 32 * 1024 * 1024
    """The same in bytes of JSON, with 64 for each log."""
    batch_logs: int = 1_000
    """Of one request."""
    batch_bytes: int = 1024 * 1024
    """Of one request, before compression. A longer log is a batch by itself."""
    linger_s: float = 0.5
    """How long the first log of a batch waits for others: the age at which a log is sent, or spooled."""
    spool_bytes: int = 256 * 1024 * 1024
    """Of the spool of one process; further logs stay in memory."""
    close_s: float = 3.0
    """How long the end of the program may take: for logs that were not sent yet."""

    def __post_init__(self) -> None:
        _check(1 <= self.batch_logs <= _BATCH_LOGS_MAX, f"batch_logs must be 1..{_BATCH_LOGS_MAX}", self.batch_logs)
        _check(
            1 <= self.batch_bytes <= _BATCH_BYTES_MAX, f"batch_bytes must be 1..{_BATCH_BYTES_MAX}", self.batch_bytes
        )
        _check(self.queue_logs >= self.batch_logs, "queue_logs must hold a batch", self.queue_logs)
        _check(self.queue_bytes >= self.batch_bytes, "queue_bytes must hold a batch", self.queue_bytes)
        least = max(self.batch_bytes, 2 * LINE_BYTES_MAX)
        _check(self.spool_bytes >= least, f"spool_bytes must be {least} or more", self.spool_bytes)
        _check(0 <= self.linger_s <= 3_600, "linger_s must be 0..3600", self.linger_s)
        _check(0 <= self.close_s <= 3_600, "close_s must be 0..3600", self.close_s)


def _check(is_right: bool, text: str, got: float) -> None:
    if not is_right:
        raise ValueError(f"{text}, got {got}")
