"""What a line says, before the import decides on its time and service."""

from __future__ import annotations

from typing import Any

import msgspec

from schemas.levels import LEVELS, parse_level

LEVEL_DEFAULT = LEVELS["INFO"]

_OTHER_LEVELS = {
    "log": LEVELS["INFO"],
    "statement": LEVELS["INFO"],
    "detail": LEVELS["INFO"],
    "hint": LEVELS["INFO"],
    "success": LEVELS["INFO"],
    "audit": LEVELS["INFO"],
    "i": LEVELS["INFO"],
    "w": LEVELS["WARN"],
    "e": LEVELS["ERROR"],
    "f": LEVELS["FATAL"],
}
"""Words and letters that stand where a level stands in some programs' lines (PostgreSQL, loguru, klog)."""


class Entry(msgspec.Struct):
    """One line, understood.

    time_us: microseconds since the Unix epoch, None when the line has no time. severity: 1..24, None when the line names no
    level. service_name: None when the line names none. metadata: JSON types only. is_complete: what is not here is not in
    the line either.
    """

    message: str
    time_us: int | None = None
    severity: int | None = None
    correlation_id: str | None = None
    service_name: str | None = None
    metadata: dict[str, Any] = {}  # any JSON value: the producer's own; msgspec copies the default for each entry
    is_complete: bool = False


_known: dict[str, int | None] = {}
_KNOWN_MAX = 1_000


def read_level(text: str) -> int | None:
    """The severity (1..24) a word means, None when it is no level. Remembers up to 1,000 words: lines repeat few."""
    if text in _known:
        return _known[text]
    severity: int | None
    try:
        severity = parse_level(text)
    except ValueError:
        severity = _OTHER_LEVELS.get(text.strip().lower())
    if len(_known) < _KNOWN_MAX:
        _known[text] = severity
    return severity
