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
from typing import Final, NamedTuple, TypeAlias

from schemas.record import MESSAGE_BYTES_MAX

LINE_BYTES_MAX: Final = 256 * 1024
PIECE_BYTES_MIN: Final = 3 * LINE_BYTES_MAX


Text: TypeAlias = tuple[str, bool]
"""One log's text, without the last line end, and whether bytes of it were left out."""


class Split(NamedTuple):
    """texts: whole logs. taken: bytes of the piece that are done with. is_skipping: they end within a line whose rest is to be
    left out."""

    texts: list[Text]
    taken: int
    is_skipping: bool


@dataclass(frozen=True, slots=True)
class JoinRules:
    """goes_on: (first line of a log, next line) -> whether that belongs to it; None: each line is a log. begins: letters with
    which no line goes on, so that it need not be asked."""

    goes_on: Callable[[str, str], bool] | None = None
    begins: frozenset[str] = frozenset()


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
    if not is_skipping and not takes_unfinished and len(piece) <= LINE_BYTES_MAX:
        whole = _each_line_a_log(piece, rules, is_final=is_final, logs_max=logs_max)
        if whole is not None:
            return whole
    begin = 0
    if is_skipping:
        begin = piece.find(b"\n") + 1
        if begin == 0:
            return Split([], len(piece), True)
    raws = piece[begin:].split(b"\n", 2 * logs_max)
    rest = raws.pop()
    """After the last line end that was looked at."""
    is_whole = b"\n" not in rest
    is_long = is_whole and len(rest) > LINE_BYTES_MAX
    joiner = _Joiner(rules.goes_on, begin, logs_max)
    if not joiner.add(raws):
        return joiner.done(False)
    # Of a long line what is kept is known, though its end is far.
    takes_rest = is_long or (rest and is_whole and takes_unfinished)
    if takes_rest and not joiner.add([rest], line_end_bytes=0):
        return joiner.done(False)
    if (
        is_long
        or (is_final and is_whole)
        or (joiner.taken == begin and (not is_whole or len(piece) >= PIECE_BYTES_MIN))
    ):
        joiner.end()
    return joiner.done(is_long and joiner.taken == len(piece))


def _each_line_a_log(piece: bytes, rules: JoinRules, *, is_final: bool, logs_max: int) -> Split | None:
    """What `split` gives for a piece whose lines all begin a log, at a quarter of its price; None for any other piece."""
    if b"\r" in piece:
        return None
    *raws, _rest = piece.split(b"\n", logs_max + 1)
    if not raws:
        return None
    try:
        lines = piece[: sum(map(len, raws)) + len(raws) - 1].decode().split("\n")
    except UnicodeDecodeError:
        return None
    firsts = {line[:1] for line in lines}
    if "" in firsts or (any(map(str.isspace, firsts)) if rules.goes_on is None else not firsts <= rules.begins):
        return None
    is_last_over = rules.goes_on is None or is_final  # else the last one may go on
    count = logs_max if len(lines) > logs_max else len(lines) - (not is_last_over)
    if count == 0:
        return None
    return Split([(line, False) for line in lines[:count]], sum(map(len, raws[:count])) + count, False)


class _Joiner:
    """Logs so far, and one that may still get lines."""

    __slots__ = ("_cut", "_goes_on", "_lines", "_logs_max", "_open_bytes", "_size", "taken", "texts")

    def __init__(self, goes_on: Callable[[str, str], bool] | None, begin: int, logs_max: int) -> None:
        self._goes_on, self._logs_max = goes_on, logs_max
        self.texts: list[Text] = []
        self.taken = begin
        """Bytes up to the end of the last whole log."""
        self._lines: list[str] = []
        self._open_bytes = 0
        """Bytes of the piece after `taken` that were looked at."""
        self._size, self._cut = 0, False

    def add(self, raws: list[bytes], *, line_end_bytes: int = 1) -> bool:
        """The next lines; False when there are as many logs as there may be before all of them are taken. 1 µs a line."""
        goes_on, texts, logs_max = self._goes_on, self.texts, self._logs_max
        for raw in raws:
            size = len(raw) + line_end_bytes
            is_cut = len(raw) > LINE_BYTES_MAX
            if is_cut:
                raw = raw[:LINE_BYTES_MAX]
            try:
                text = raw.decode()
            except UnicodeDecodeError:
                text = raw.decode("utf-8", "replace")
            if text[-1:] == "\r":
                text = text[:-1]
            if not text or text.isspace():
                # Blank lines are no logs; they belong to the one before, or to nothing.
                if self._lines:
                    self._open_bytes += size
                else:
                    self.taken += size
                continue
            if goes_on is None:
                if len(texts) >= logs_max:
                    return False
                texts.append((text, is_cut))
                self.taken += size
                continue
            if self._lines:
                length = len(raw) + 1
                if self._size + length <= MESSAGE_BYTES_MAX and goes_on(self._lines[0], text):
                    self._lines.append(text)
                    self._size += length
                    self._cut = self._cut or is_cut
                    self._open_bytes += size
                    continue
                self.end()
            if len(texts) >= logs_max:
                return False
            self._lines = [text]
            self._size, self._cut, self._open_bytes = len(raw), is_cut, size
        return True

    def end(self) -> None:
        """The open log is whole."""
        lines = self._lines
        if lines:
            self.texts.append((lines[0] if len(lines) == 1 else "\n".join(lines), self._cut))
            self.taken += self._open_bytes
            self._lines, self._open_bytes = [], 0

    def done(self, is_skipping: bool) -> Split:
        return Split(self.texts, self.taken, is_skipping)
