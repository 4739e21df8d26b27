"""Plain text lines, by the table in patterns.py.

The pattern that fits most of the file's first lines is tried first; a line it does not fit is tried with all others. What no
pattern fits is a message without a time. Costs about 3 µs for a line of the first pattern, 20 µs for a line of none.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import lru_cache
from typing import Final

from formats.entry import Entry, read_level
from formats.patterns import PATTERNS
from formats.times import TimeReader
from schemas.levels import LEVELS

SYSLOG_SEVERITIES: Final = tuple(
    LEVELS[name] for name in ("FATAL", "FATAL", "FATAL", "ERROR", "WARN", "INFO", "INFO", "DEBUG")
)
"""RFC 5424, table 2: emergency, alert, critical, error, warning, notice, informational, debug."""

_NOTHING: Final = frozenset((None, "", "-", "- - - - -"))
"""Values of groups that say nothing."""
_LEADING_LEVEL = re.compile(r"[\[(<]?([A-Za-z]{3,9})[\])>]?: ")
_LEVEL_WORD = re.compile(
    r"(?:^|[\s\[(<=|])(TRACE|DEBUG|INFO|NOTICE|WARN|WARNING|ERROR|SEVERE|FATAL|CRITICAL)(?=$|[\s\])>|:,])"
)
_LEVEL_WORD_WITHIN: Final = 100
"""A level stands near the start; an ERROR further on is part of the sentence."""

_CONTINUATION = re.compile(
    r"\s"
    r"|Caused by: |Suppressed: |Traceback \(most recent call last\)|During handling of the above|The above exception was"
    r"|(?:[A-Za-z_][\w$]*\.)*[A-Za-z_][\w$]*(?:Error|Exception|Warning|Interrupt|Exit|Throwable)(?:: |:?$)"
    r"|goroutine \d+ \["
)


class PlainParser:
    """Reads plain lines, the file's own pattern first."""

    def __init__(self, first: str | None) -> None:
        """first: name of the pattern to try first (see `usual_pattern`)."""
        self._patterns = sorted(PATTERNS, key=lambda pattern: pattern.name != first)

    def parse(self, text: str, times: TimeReader) -> Entry:
        """What the line says. Never fails: an unknown line is a message."""
        for pattern in self._patterns:
            if (match := pattern.expression.match(text)) is None:
                continue
            if pattern.is_usual:  # most lines: half the price of what follows
                time, level, message = match.group("time", "level", "message")
                if (time_us := pattern.read_time(times, time)) is not None:
                    severity = _severity(level)
                    return Entry(message or "", time_us, _level_in(message or "") if severity is None else severity)
            elif (time_us := pattern.read_time(times, match["time"])) is not None:
                return _entry(match, time_us)
        return Entry(message=text, severity=_level_in(text))

    def time_of(self, text: str, times: TimeReader) -> int | None:
        """The line's time alone."""
        for pattern in self._patterns:
            match = pattern.expression.match(text)
            if match is not None and (time_us := pattern.read_time(times, match["time"])) is not None:
                return time_us
        return None


def usual_pattern(lines: Iterable[str], times: TimeReader) -> str | None:
    """Name of the pattern that fits most of the lines first; None when none fits any."""
    fits: dict[str, int] = {}
    for text in lines:
        for pattern in PATTERNS:
            match = pattern.expression.match(text)
            if match and pattern.read_time(times, match["time"]) is not None:
                fits[pattern.name] = fits.get(pattern.name, 0) + 1
                break
    return max(fits, key=lambda name: fits[name]) if fits else None


def is_continuation(text: str) -> bool:
    """Whether a line reads like the next line of a stack trace or of a wrapped message (its own time decides first)."""
    return _CONTINUATION.match(text) is not None


@lru_cache(maxsize=1_000)
def _severity(level: str | None) -> int | None:
    return read_level(level.rstrip("12345")) if level else None


def _entry(match: re.Match[str], time_us: int) -> Entry:
    fields = match.groupdict()
    del fields["time"]
    message = fields.pop("message") or ""
    level, priority = fields.pop("level", None), fields.pop("pri", None)
    severity = _severity(level)
    if severity is None and priority is not None:
        severity = SYSLOG_SEVERITIES[int(priority) & 7]
    if severity is None and (status := fields.get("status")) is not None:
        severity = LEVELS["ERROR"] if status >= "500" else LEVELS["WARN"] if status >= "400" else LEVELS["INFO"]
    if severity is None:
        severity = _level_in(message)
    correlation_id = fields.pop("request_id", None)
    metadata = {name: value for name, value in fields.items() if value not in _NOTHING} if fields else {}
    return Entry(message, time_us, severity, correlation_id, None, metadata)


def _level_in(message: str) -> int | None:
    if (leading := _LEADING_LEVEL.match(message)) and (severity := read_level(leading[1])) is not None:
        return severity
    word = _LEVEL_WORD.search(message, 0, _LEVEL_WORD_WITHIN)
    return read_level(word[1]) if word else None
