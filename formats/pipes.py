"""Lines in columns: `time | LEVEL | message`, with or without spaces, with any number of columns after them.

The time is the first or the second column, the level beside it; all that follows is the message, as written.
"""

from __future__ import annotations

from formats.entry import Entry, read_level
from formats.times import TimeReader


def parse_pipes(text: str, times: TimeReader) -> Entry | None:
    """What the line says; None when it is not in columns that begin with a time."""
    columns = text.split("|", 2)
    if len(columns) < 2:
        return None
    first, second = columns[0].strip(), columns[1].strip()
    rest = columns[2].strip() if len(columns) == 3 else ""
    time_us = times.any(first)
    if time_us is None:
        time_us, first, second = times.any(second), second, first
        if time_us is None or len(columns) < 3 or read_level(second) is None:
            return None
    severity = read_level(second)
    if severity is not None and len(columns) == 3:
        return Entry(message=rest, time_us=time_us, severity=severity)
    return Entry(message=f"{second} | {rest}" if rest else second, time_us=time_us)
