"""Which lines of a frame can be stored: one rule for who stores them (writer/decode.py) and for who shows them before that
(live/frames.py). Pure."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from schemas.ids import ID_MAX
from schemas.levels import SEVERITY_MAX
from schemas.record import Log, LogLine

FUTURE_US_MAX: Final = 11 * 3600 * 1_000_000
"""A timestamp so far past the append time cannot be ingest's; chunks are made for at least 12 hours ahead."""
RECEIVED_MS_APART_MAX: Final = 24 * 3600 * 1000
"""Ingest's clock and the broker's may differ by so much; a frame received at another time is not ingest's."""
LINES_MAX: Final = 200_000
"""Most lines of one frame; ingest takes far fewer in one request. Bounds what a frame of nothing but line ends weighs."""


def split_lines(ndjson: bytes) -> list[bytes]:
    """The lines, blank ones too; no more than one above LINES_MAX, however many line ends there are."""
    lines = ndjson.split(b"\n", LINES_MAX + 1)
    if not lines[-1]:
        lines.pop()
    return lines


def are_storable(lines: Sequence[Log | LogLine], latest_us: int) -> bool:
    """Whether `line_problem` finds nothing in any line: all at once, 0.2 µs a line."""
    if not lines:
        return True
    timestamps, ids = [line.timestamp for line in lines], [line.id for line in lines]
    levels = [line.level for line in lines]
    return (
        min(timestamps) >= 0
        and max(timestamps) <= latest_us
        and min(ids) > 0
        and max(ids) <= ID_MAX
        and min(levels) >= 1
        and max(levels) <= SEVERITY_MAX
    )


def line_problem(line: Log | LogLine, latest_us: int) -> tuple[str, str] | None:
    """(reason, detail) why a decoded line cannot be a row. latest_us: the append time with FUTURE_US_MAX."""
    if not 0 <= line.timestamp <= latest_us:
        return "timestamp", f"timestamp {line.timestamp} µs is outside 1970 … 11 hours past the append time"
    if not 0 < line.id <= ID_MAX:
        return "undecodable", f"id {line.id} is outside 1..2^63-1"
    if not 1 <= line.level <= SEVERITY_MAX:
        return "undecodable", f"level {line.level} is outside 1..{SEVERITY_MAX}"
    return None
