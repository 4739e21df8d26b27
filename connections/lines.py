"""Reads the text of one side of a connection: lines `time | LEVEL | message`, cut into logs.

A line with a time and a level begins a log. What has none belongs to the log before it (a stack trace), joined by line ends;
where there is none before it, at the begin of what is read or after JOINED_BYTES_MAX, it begins a log of its own. So no line
is lost, and where a log ends depends on nothing but the text from a log's begin on: whoever reads on from there finds the same
logs. Blank lines are no logs; within a log they stay. Bytes that are no UTF-8 become U+FFFD.

Bounded: a line of more than LINE_BYTES_MAX is several pieces, each a log of its own.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Final

from schemas.levels import LEVELS, parse_level

LINE_BYTES_MAX: Final = 64 * 1024
"""A quarter of what a log's message may have: one byte that is no UTF-8 becomes three."""
JOINED_BYTES_MAX: Final = 64 * 1024
# White space is bounded: where it may be on both sides of what may be missing, its square would be looked at.
_HEAD: Final = re.compile(
    r"[ \t]{0,16}(\d{4})[-/](\d\d)[-/](\d\d)[ T](\d\d):(\d\d):(\d\d)(?:[.,](\d{1,9}))?[ \t]{0,16}(Z|[+-]\d\d:?\d\d)?"
    r"[ \t]{0,16}\|[ \t]{0,16}([A-Za-z]{1,13})[ \t]{0,16}\|[ \t]?",
    re.ASCII,
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_LEVEL: Final = LEVELS["INFO"]
_BOM: Final = b"\xef\xbb\xbf"

ReadLine = Callable[[int], bytes]
"""At most so many bytes of the text, up to a line's end and with it; empty at the text's end (`io.BufferedIOBase.readline`)."""


@dataclass(frozen=True, slots=True)
class Line:
    """One log of a text."""

    number: int
    """Of its first line in the text, from 1."""
    time_us: int | None
    """As its line says; None where it says none. Microseconds since the Unix epoch, UTC without a zone."""
    level: int
    """Severity number; INFO where the line says none."""
    message: str
    end: int
    """Bytes of the text up to its end."""
    lines: int
    """Ends of lines up to its end."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a log may begin."""

    offset: int = 0
    """Bytes of the text before it."""
    lines: int = 0
    """Ends of lines before it."""
    is_within: bool = False
    """The line that the text before it ends with has no end yet: what follows is the rest of it."""


def read_lines(read_line: ReadLine, place: Place) -> Iterator[Line]:
    """The logs of a text from `place` to its end, in order. read_line: stands at `place`."""
    joined: _Joined | None = None
    for raw in _pieces(read_line, place):
        head = None if raw.is_rest else _head(raw.text)
        if head is None and joined is not None and joined.takes(raw):
            joined.add(raw)
            continue
        if joined is not None:
            yield joined.line()
            joined = None
        if head is not None:
            time_us, level, begins = head
            message = raw.text[begins:]
            joined = _Joined(raw, time_us, level, message if message.strip() else raw.text)  # no log is empty
        elif raw.text.strip():
            joined = _Joined(raw, None, _LEVEL, raw.text)
    if joined is not None:
        yield joined.line()


@dataclass(frozen=True, slots=True)
class _Raw:
    """A line, or a piece of one."""

    text: str
    """Without its end."""
    is_rest: bool
    """Its line began before."""
    number: int
    end: int
    lines: int
    size: int


class _Joined:
    """A log that more lines may belong to."""

    def __init__(self, raw: _Raw, time_us: int | None, level: int, message: str) -> None:
        self._number, self._time_us, self._level = raw.number, time_us, level
        self._parts = [message]
        self._blank = 0
        self._size = raw.size
        self._end, self._lines = raw.end, raw.lines

    def takes(self, raw: _Raw) -> bool:
        return self._size + raw.size <= JOINED_BYTES_MAX

    def add(self, raw: _Raw) -> None:
        self._size += raw.size
        if raw.text.strip():
            self._parts += [""] * self._blank
            self._blank = 0
            if raw.is_rest:
                self._parts[-1] += raw.text
            else:
                self._parts.append(raw.text)
        elif not raw.is_rest:
            self._blank += 1
        self._end, self._lines = raw.end, raw.lines

    def line(self) -> Line:
        return Line(self._number, self._time_us, self._level, "\n".join(self._parts), self._end, self._lines)


def _pieces(read_line: ReadLine, place: Place) -> Iterator[_Raw]:
    offset, lines, is_rest, kept = place.offset, place.lines, place.is_within, b""
    while True:
        read = read_line(LINE_BYTES_MAX - len(kept))
        raw = kept + read
        if not raw:
            return
        ends = raw.endswith(b"\n")
        # A character is not cut in two, unless the text ends within it.
        kept = b"" if ends or not read else raw[_whole(raw) :]
        raw = raw[: len(raw) - len(kept)]
        begins = _BOM if offset == 0 and raw.startswith(_BOM) else b""
        size = len(raw)
        offset += size
        number = lines + 1
        lines += ends
        text = raw[len(begins) :].decode("utf-8", "replace")
        yield _Raw(text.rstrip("\r\n") if ends else text, is_rest, number, offset, lines, size)
        is_rest = not ends


def _whole(raw: bytes) -> int:
    """How many bytes are whole characters, of a text that goes on."""
    for back in range(1, min(4, len(raw)) + 1):
        byte = raw[-back]
        if byte < 0x80:
            return len(raw)
        if byte >= 0xC0:
            needs = 2 if byte < 0xE0 else 3 if byte < 0xF0 else 4
            return len(raw) if back >= needs else len(raw) - back
    return len(raw)


def _head(text: str) -> tuple[int, int, int] | None:
    """(time in microseconds, severity, where the message begins) of a line that begins a log."""
    match = _HEAD.match(text)
    if match is None:
        return None
    try:
        level = parse_level(match[9])
        year, month, day, hour, minute, second = (int(match[group]) for group in range(1, 7))
        moment = datetime(year, month, day, hour, minute, second, tzinfo=UTC) - _ahead(match[8])
    except (ValueError, OverflowError):  # the latter: its zone takes it out of the years that there are
        return None
    time_us = (moment - _EPOCH) // _MICROSECOND + int((match[7] or "0").ljust(6, "0")[:6])
    return time_us, level, match.end()


def _ahead(zone: str | None) -> timedelta:
    """By how much the zone's clocks are ahead of UTC."""
    if zone in (None, "Z"):
        return timedelta()
    digits = zone[1:].replace(":", "")
    ahead = timedelta(hours=int(digits[:2]), minutes=int(digits[2:]))
    return ahead if zone[0] == "+" else -ahead
