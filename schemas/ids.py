"""The layout of an id, for everyone who must read the time out of one.

63 bits: 41 bits milliseconds since 2024-01-01 UTC, 10 bits worker, 12 bits sequence (after Twitter's Snowflake).
Ids order by time of reception; they are decimal strings in JSON, because they pass 2^53.
"""

from __future__ import annotations

from typing import Final

EPOCH_MS: Final = 1_704_067_200_000
WORKER_BITS: Final = 10
SEQUENCE_BITS: Final = 12
TIME_SHIFT: Final = WORKER_BITS + SEQUENCE_BITS
WORKERS: Final = 1 << WORKER_BITS
SEQUENCES: Final = 1 << SEQUENCE_BITS
ID_MAX: Final = (1 << 63) - 1


def received_ms(log_id: int) -> int:
    """Unix milliseconds at which the log with this id was received."""
    return (log_id >> TIME_SHIFT) + EPOCH_MS


def first_id_at(unix_ms: int) -> int:
    """The least id that a log received at this time can have (0 before the epoch)."""
    return max(0, unix_ms - EPOCH_MS) << TIME_SHIFT
