"""Decides what of a text is sent next, and as which logs: pure but for reading the text.

A chunk depends on nothing but the text, where it begins, and what is written down before it is sent; so whoever sends it again
sends the same bytes.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson

from connections.figures import Figures, figures_of
from connections.lines import Line, Place, ReadLine, read_lines
from connections.metrics import Finder, Side
from ingest.errors import FieldError, InvalidFields
from patterns.masks import Masker
from schemas.record import FUTURE_MS_MAX
from schemas.times import time_text

LINES_MAX: Final = 2_000
"""Of a chunk; a request of logs at most."""
TEXT_BYTES_MAX: Final = 1024 * 1024
"""Of a chunk, but for its last line: as JSON it is six times as much at the very most, with the rest of each log below a
request's 8 MiB."""
_DAY_US: Final = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Chunk:
    """Logs that follow one another in a text."""

    lines: list[Line]
    end: int
    """Bytes of the text up to its end."""


@dataclass(frozen=True, slots=True)
class Window:
    """Which times logs may have."""

    oldest_us: int
    newest_us: int

    @classmethod
    def at(cls, now_us: int, retention_days: int) -> Window:
        """As ingest has it at this time."""
        return cls(now_us - retention_days * _DAY_US, now_us + FUTURE_MS_MAX * 1000)

    def has(self, time_us: int) -> bool:
        """Whether a log may be of this time."""
        return self.oldest_us <= time_us <= self.newest_us


@dataclass(frozen=True, slots=True)
class Timed:
    """A line with the time of its log."""

    line: Line
    time_us: int
    said_us: int | None
    """What the line says, where that is not its log's time."""


def next_chunk(read_line: ReadLine, place: Place, *, end: int, is_known: bool) -> Chunk:
    """The chunk at `place` of a text that ends at `end`. is_known: that is where the chunk ends."""
    lines: list[Line] = []
    for line in read_lines(read_line, place):
        lines.append(line)
        is_full = len(lines) >= LINES_MAX or line.end - place.offset >= TEXT_BYTES_MAX
        if is_full and not is_known:
            return Chunk(lines, line.end)
    return Chunk(lines, end)


def check_first(lines: Sequence[Line], shift_us: int, window: Window, *, retention_days: int) -> None:
    """Of the first chunk of a text. Raises InvalidFields when its first time cannot be stored."""
    first = next((line for line in lines if line.time_us is not None), None)
    if first is None or first.time_us is None or window.has(first.time_us + shift_us):
        return
    said = time_text(first.time_us)
    if first.time_us + shift_us > window.newest_us:
        problem = f"line {first.number} is of {said}, which is ahead of this server's clock by more than ten minutes"
    else:
        problem = (
            f"line {first.number} is of {said}, older than the {retention_days} days that logs are kept: send the text with"
            " ?time=shift (`logfeed import-connections --time shift`), which moves all its times so that `last_updated` is now,"
            " or raise ingest.retention_days"
        )
    raise InvalidFields([FieldError("body", problem)])


def timed(
    lines: Iterable[Line], *, carried_us: int | None, begins_us: int, shift_us: int, window: Window
) -> tuple[list[Timed], int | None]:
    """(lines with their times, the time that is carried on). A line without a time, or with one that cannot be stored, has
    that of the line before it; at a text's begin that of the first line which has one, else begins_us."""
    lines = list(lines)
    if carried_us is None:
        times = (line.time_us + shift_us for line in lines if line.time_us is not None)
        first_us = next(filter(window.has, times), None)
        current = begins_us if first_us is None else first_us
        current = min(max(current, window.oldest_us), window.newest_us)
    else:
        current = carried_us
    found = []
    for line in lines:
        said_us = None
        if line.time_us is not None:
            if window.has(line.time_us + shift_us):
                current = carried_us = line.time_us + shift_us
            if current != line.time_us:
                said_us = line.time_us
        found.append(Timed(line, current, said_us))
    return found, carried_us


def body_of(logs: Iterable[Timed], *, connection_id: str, side: Side, service_name: str) -> bytes:
    """NDJSON as ingest takes it."""
    return b"".join(
        orjson.dumps(_log(log, connection_id, side, service_name), option=orjson.OPT_APPEND_NEWLINE) for log in logs
    )


def _log(log: Timed, connection_id: str, side: Side, service_name: str) -> dict[str, Any]:
    metadata: dict[str, Any] = {"connection_id": connection_id, "side": side, "line": log.line.number}
    if log.said_us is not None:
        metadata["time"] = time_text(log.said_us)
    return {
        "service_name": service_name,
        "timestamp": time_text(log.time_us),
        "level": log.line.level,
        "message": log.line.message,
        "correlation_id": connection_id,
        "metadata": metadata,
    }


def figures(logs: Iterable[Timed], finder: Finder, masker: Masker) -> Figures:
    """See connections.figures."""
    lines = ((log.time_us, log.line.number, log.line.level, log.line.message) for log in logs)
    return figures_of(lines, finder, masker)
