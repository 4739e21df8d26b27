"""Which bytes of a file are one log: a line, or a line and those that continue it (stack traces, wrapped messages).

A record covers its lines, the blank lines after them (and those before the first record), so records leave no byte out.
Bounds: a line keeps its first MiB, the rest is skipped; joined text stays under 256 KiB, what comes after is a log of its own.
Holds one record and one line at a time.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, Protocol

from schemas.record import MESSAGE_BYTES_MAX

LINE_BYTES_MAX: Final = 1024 * 1024


class LineSource(Protocol):
    """Bytes in order. `readline(limit)`: at most `limit` bytes, up to and with the next newline; b"" at the end."""

    def readline(self, limit: int, /) -> bytes:
        """See the class."""


class Record(NamedTuple):
    """One log's place and text.

    start, end: byte offsets, end exclusive. line: number of its first line, from 1. last_line: number of the last line before
    `end`. text: without line ends; lines joined by newlines. cut: True when bytes were left out of the text.
    """

    start: int
    end: int
    line: int
    last_line: int
    text: str
    cut: bool


class _Line(NamedTuple):
    size: int
    text: str
    cut: bool


def read_records(
    source: LineSource, *, start: int, end: int, lines_before: int, continues: Callable[[str, str], bool] | None
) -> Iterator[Record]:
    """The records in bytes start..end-1; the source stands at start.

    lines_before: lines of the file before start. continues: (first line, next line) -> whether they are one log; None: never.
    Bytes that are no UTF-8 become U+FFFD. Nothing but blank lines make one record without text.
    """
    offset, number = start, lines_before
    record: _Open | None = None
    for line in _read_lines(source, end - start):
        begins, offset, number = offset, offset + line.size, number + 1
        if not line.text.strip():
            if record:
                record.reach(offset, number)
        elif record and continues and continues(record.texts[0], line.text) and record.take(line):
            record.reach(offset, number)
        else:
            if record:
                yield record.close()
            record = _Open(start if record is None else begins, number, line)
            record.reach(offset, number)
    if record:
        yield record.close()
    elif offset > start:
        yield Record(start, offset, number, number, "", cut=False)


class _Open:
    """A record that may still get lines. Keeps its lines apart: joining them one by one would be quadratic."""

    def __init__(self, start: int, line: int, first: _Line) -> None:
        self.start, self.line = start, line
        self.texts, self.cut = [first.text], first.cut
        self.size = 0  # of the texts in UTF-8; 0: not counted yet
        self.end, self.last_line = start, line

    def take(self, line: _Line) -> bool:
        """Add a line, unless the text would pass its bound."""
        size = (self.size or len(self.texts[0].encode())) + 1 + len(line.text.encode())
        if size > MESSAGE_BYTES_MAX:
            return False
        self.texts.append(line.text)
        self.size, self.cut = size, self.cut or line.cut
        return True

    def reach(self, end: int, last_line: int) -> None:
        """Cover the bytes and lines up to here."""
        self.end, self.last_line = end, last_line

    def close(self) -> Record:
        text = self.texts[0] if len(self.texts) == 1 else "\n".join(self.texts)
        return Record(self.start, self.end, self.line, self.last_line, text, self.cut)


def decode(raw: bytes) -> str:
    """A line's text: UTF-8 with U+FFFD for what is none, without line end and byte order mark."""
    return raw.decode("utf-8", "replace").rstrip("\r\n").removeprefix("\ufeff")


def _read_lines(source: LineSource, remaining: int) -> Iterator[_Line]:
    while remaining > 0 and (raw := source.readline(min(LINE_BYTES_MAX, remaining))):
        size = len(raw)
        remaining -= size
        if size == LINE_BYTES_MAX and not raw.endswith(b"\n"):
            skipped = _skip_line(source, remaining)
            remaining -= skipped
            yield _Line(size + skipped, decode(raw), cut=skipped > 0)
        else:
            yield _Line(size, decode(raw), cut=False)


def _skip_line(source: LineSource, remaining: int) -> int:
    skipped = 0
    while skipped < remaining and (piece := source.readline(min(LINE_BYTES_MAX, remaining - skipped))):
        skipped += len(piece)
        if piece.endswith(b"\n"):
            break
    return skipped
