"""From the text of a log to what it says, in the format of its file.

The format of a file is found once, from its first lines, and kept in the state file: the same bytes mean the same logs on
every resume. A line that does not fit its file's format is read as plain text, so no line is lost for its form.
Pure: no file, no clock.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from datetime import tzinfo
from enum import StrEnum
from typing import Final

import re2

from formats.entry import Entry
from formats.json_lines import parse_json
from formats.pipes import parse_pipes
from formats.plain import PlainParser, is_continuation, usual_pattern
from formats.times import TimeReader
from schemas.errors import InvalidInput
from schemas.record import CORRELATION_ID_CHARS_MAX

_CORRELATION: Final = re.compile(
    r"\b(req-[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12})\b"
    r"|\b(?:trace|correlation|request|x-request)[_-]?id[\"']? ?[=:] ?[\"']?(?!(?:null|none)\b)"
    r"([A-Za-z0-9][A-Za-z0-9._:-]{3,127})",
    re.IGNORECASE,
)

_HINT: Final = re.compile(r"req-|id[\"' =:]")
"""A line that matches _CORRELATION holds this, in lower case: where it begins, or at most _BEFORE_HINT characters later."""
_BEFORE_HINT: Final = len("correlation_")


_ID: Final = re.compile(r"(?!(?i:null|none)\b)[A-Za-z0-9][A-Za-z0-9._:-]{3,127}")
"""What _CORRELATION's second group matches."""

BEGINS: Final = frozenset('0123456789[{<"')
"""A line that begins with one of these goes on with no other."""


class Format(StrEnum):
    """What the lines of a file are."""

    AUTO = "auto"
    PLAIN = "plain"
    JSON = "json"
    PIPE = "pipe"


class LineParser:
    """Reads the logs of one file."""

    def __init__(
        self, format: Format, *, pattern: str | None, zone: tzinfo, now_us: int, correlation_pattern: str | None
    ) -> None:
        """format, pattern: as `detect` found them. zone, now_us: see TimeReader. correlation_pattern: RE2 syntax; its first
        group, or all of it, is the correlation id of lines that name none; None: the built-in pattern.

        Raises InvalidInput when the pattern is none.
        """
        self.format = format
        self._zone = zone
        self._times = TimeReader(zone=zone, now_us=now_us)
        self._plain = PlainParser(pattern)
        self._structured = {Format.JSON: parse_json, Format.PIPE: parse_pipes}.get(format)
        self._correlation = compile_correlation(correlation_pattern) if correlation_pattern else _CORRELATION
        self._has_own_pattern = correlation_pattern is not None
        self._id_name: str | None = None
        """What stood before the last id that had a name, such as ` trace_id=`: lines of one program have the same."""

    def at(self, now_us: int) -> None:
        """Read times as of another moment from now on."""
        self._times = TimeReader(zone=self._zone, now_us=now_us)

    def parse(self, text: str) -> Entry:
        """What the log says. Never fails: text of no known form is a message without a time."""
        entry = None if self._structured is None else self._structured(text, self._times)
        if entry is None:
            entry = self._plain.parse(text, self._times)
        if entry.correlation_id is None and not entry.is_complete:
            entry.correlation_id = self._id_after_name(text) or self._id_in(text)
        return entry

    def time_of(self, text: str) -> int | None:
        """The time `parse` would find; half its price for plain text."""
        return self._plain.time_of(text, self._times) if self.format is Format.PLAIN else self.parse(text).time_us

    def continues(self, previous: str, text: str) -> bool:
        """Whether a line belongs to the log before it: it reads like a continuation and has no time of its own."""
        if (
            text[:1] in BEGINS
            or not is_continuation(text)
            or (self.format is Format.JSON and previous.lstrip()[:1] == "{")
        ):
            return False
        return self.time_of(text) is None

    def _id_after_name(self, text: str) -> str | None:
        """The id behind the last one's name, where nothing before that may name another: a third of the price of a search."""
        if (name := self._id_name) is None or (place := text.find(name)) < 0:
            return None
        before = text[:place].lower()
        if "id" in before or "req-" in before:
            return None
        found = _ID.match(text, place + len(name))
        return None if found is None else found[0]

    def _id_in(self, text: str) -> str | None:
        place = self._may_name_id_at(text)
        found = self._correlation.search(text, place) if place >= 0 else None
        if found is None:
            return None
        if self._has_own_pattern:
            return _first_group(found)
        if found[2] is not None and found.start():
            # With the letter before it, which is none that a word may go on with.
            self._id_name = text[found.start() - 1 : found.start(2)]
        return found[found.lastindex or 0]

    def _may_name_id_at(self, text: str) -> int:
        """From where on to look; -1: it names none. Cheap: the built-in pattern costs ten times as much, and most of a
        line is none."""
        if self._has_own_pattern:
            return 0
        lower = text.lower()
        if "req-" not in lower and "id" not in lower:
            return -1
        found = _HINT.search(lower)
        if found is None:
            return -1
        # A few letters have more of them in lower case.
        return max(0, found.start() - _BEFORE_HINT) if len(lower) == len(text) else 0


_options = re2.Options()
_options.log_errors = False
"""RE2 would write the whole pattern to standard error; our error says what is wrong."""


def compile_expression(pattern: str, called: str) -> re.Pattern[str]:
    """A user's pattern, by RE2: none can make reading slow. called: in the reason. Raises InvalidInput."""
    try:
        compiled: re.Pattern[str] = re2.compile(pattern, _options)
    except (re2.error, UnicodeEncodeError) as error:
        raise InvalidInput(f"{called} is no regular expression in RE2's syntax: {error}") from error
    return compiled


def compile_correlation(pattern: str) -> re.Pattern[str]:
    """Of the option `--correlation-pattern`. Raises InvalidInput with RE2's reason."""
    return compile_expression(pattern, "--correlation-pattern")


def detect(format: Format, lines: Sequence[str], *, zone: tzinfo, now_us: int) -> tuple[Format, str | None]:
    """(format, name of the usual plain pattern) of a file, by its first lines. A format the user named stays.

    lines: without blank ones. JSON and columns must fit half of them; else the file is plain text.
    """
    times = TimeReader(zone=zone, now_us=now_us)
    if format is Format.AUTO:
        half = max(1, (len(lines) + 1) // 2)
        if sum(line.lstrip()[:1] == "{" and parse_json(line, times) is not None for line in lines) >= half:
            format = Format.JSON
        elif sum(parse_pipes(line, times) is not None for line in lines) >= half:
            format = Format.PIPE
        else:
            format = Format.PLAIN
    return format, usual_pattern(lines, times)


def _first_group(found: re.Match[str]) -> str | None:
    text = next(filter(None, found.groups()), None) or found[0]
    return text if 0 < len(text) <= CORRELATION_ID_CHARS_MAX else None
