"""Which bytes of a file are one log: a line, or a line and those that go on with it. Pure, for one piece of a file at a time.

A piece begins where a log begins (or in the middle of a line whose beginning was taken: `is_skipping`). What is taken of
it ends where a log is known to end; the rest is looked at again when there is more. A log whose next line may go on with
it is known to end when the next line does not, or when the caller has waited for long enough (`is_final`).

Bounds: a line keeps LINE_BYTES_MAX, the rest is skipped and the log says so; joined text stays within MESSAGE_BYTES_MAX, what
comes after is a log of its own. A piece of PIECE_BYTES_MIN bytes or more always gives something.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from schemas.record import MESSAGE_BYTES_MAX

LINE_BYTES_MAX: Final = 256 * 1024
PIECE_BYTES_MIN: Final = 3 * LINE_BYTES_MAX


class Text(NamedTuple):
    """One log's text, without the last line end. is_cut: bytes were left out."""

    text: str
    is_cut: bool


class Split(NamedTuple):
    """texts: whole logs. taken: bytes of the piece that are done with. is_skipping: they end within a line whose rest is to be
    left out."""

    texts: list[Text]
    taken: int
    is_skipping: bool


@dataclass(frozen=True, slots=True)
class JoinRules:
    """goes_on: (first line of a log, next line) -> whether that belongs to it; None: each line is a log."""

    goes_on: Callable[[str, str], bool] | None = None


def start_rule(pattern: re.Pattern[str]) -> JoinRules:
    """A line that matches begins a log."""
    return JoinRules(lambda _first, line: pattern.search(line) is None)


def continuation_rule(pattern: re.Pattern[str]) -> JoinRules:
    """A line that matches goes on with the log before it."""
    return JoinRules(lambda _first, line: pattern.search(line) is not None)


def split(
    piece: bytes,
    rules: JoinRules,
    *,
    is_skipping: bool = False,
    is_final: bool = False,
    takes_unfinished: bool = False,
    logs_max: int = 10_000,
) -> Split:
    """Cut logs out of a piece.

    is_skipping: the piece begins within a line that is left out. is_final: the last log waits no longer for what may go
    on with it. takes_unfinished: a last line without its end is one. logs_max: of one call.
    """
    begin = 0
    if is_skipping:
        begin = piece.find(b"\n") + 1
        if begin == 0:
            return Split([], len(piece), True)
    raws = piece[begin:].split(b"\n", 2 * logs_max)
    rest = raws.pop()
    """After the last line end that was looked at."""
    is_all = b"\n" not in rest
    joiner = _Joiner(rules, begin, logs_max)
    for raw in raws:
        if joiner.is_full:
            return joiner.done(False)
        joiner.add(raw, len(raw) + 1)
    if not is_all and joiner.taken == begin:
        joiner.end()
    if joiner.is_full or not is_all:
        return joiner.done(False)
    if rest and len(rest) > LINE_BYTES_MAX:
        # Its end is far: what is kept of it is known, so it is taken now.
        joiner.add(rest, len(rest))
        joiner.end()
        return joiner.done(joiner.taken == len(piece))
    if rest and takes_unfinished:
        joiner.add(rest, len(rest))
    if is_final or rules.goes_on is None or (joiner.taken == begin and len(piece) >= PIECE_BYTES_MIN):
        joiner.end()
    return joiner.done(False)


class _Joiner:
    """Logs so far, and one that may still get lines."""

    __slots__ = ("_cut", "_goes_on", "_lines", "_logs_max", "_open_bytes", "_size", "taken", "texts")

    def __init__(self, rules: JoinRules, begin: int, logs_max: int) -> None:
        self._goes_on, self._logs_max = rules.goes_on, logs_max
        self.texts: list[Text] = []
        self.taken = begin
        """Bytes up to the end of the last whole log."""
        self._lines: list[str] = []
        self._open_bytes = 0
        """Bytes of the piece after `taken` that were looked at."""
        self._size, self._cut = 0, False

    @property
    def is_full(self) -> bool:
        return len(self.texts) >= self._logs_max

    def add(self, raw: bytes, size: int) -> None:
        """The next line. size: with its end."""
        is_cut = len(raw) > LINE_BYTES_MAX
        if is_cut:
            raw = raw[:LINE_BYTES_MAX]
        try:
            text = raw.decode()
        except UnicodeDecodeError:
            text = raw.decode("utf-8", "replace")
        if text.endswith("\r"):
            text = text[:-1]
        if not text or text.isspace():
            # Blank lines are no logs; they belong to the one before, or to nothing.
            if self._lines:
                self._open_bytes += size
            else:
                self.taken += size
            return
        if self._lines:
            length = len(raw) + 1
            if (
                self._goes_on is not None
                and self._size + length <= MESSAGE_BYTES_MAX
                and self._goes_on(self._lines[0], text)
            ):
                self._lines.append(text)
                self._size += length
                self._cut = self._cut or is_cut
                self._open_bytes += size
                return
            self.end()
            if self.is_full:
                return
        if self._goes_on is None:
            self.texts.append(Text(text, is_cut))
            self.taken += size
            return
        self._lines = [text]
        self._size, self._cut, self._open_bytes = len(raw), is_cut, size

    def end(self) -> None:
        """The open log is whole."""
        if self._lines:
            text = self._lines[0] if len(self._lines) == 1 else "\n".join(self._lines)
            self.texts.append(Text(text, self._cut))
            self.taken += self._open_bytes
            self._lines, self._open_bytes, self._cut = [], 0, False

    def done(self, is_skipping: bool) -> Split:
        return Split(self.texts, self.taken, is_skipping)
