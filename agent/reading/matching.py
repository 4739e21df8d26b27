"""Which lines are meant: keywords that all must be in a line, and a regular expression, on bytes of UTF-8.

Line by line, the first keyword is looked for in a whole block at once, so that text without it costs what finding bytes costs.

Across lines, a keyword or expression may begin in one line and end in a later one, and white space in a keyword is any white
space, line ends included. The lines that one match touches are a group, at most GROUP_LINES_MAX; the group is meant when
each of the other conditions is somewhere within it, and then all of its lines are. To see matches over the seam of two
blocks, the lines at the seam wait for the next block.

Pure. RE2, so that no expression can be slow.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, NamedTuple

import re2

from agent.errors import QuestionInvalid
from agent.reading.blocks import LINE_BYTES_MAX, Block

KEYWORDS_MAX: Final = 20
PATTERN_CHARS_MAX: Final = 1_000
GROUP_LINES_MAX: Final = 16
_WINDOW_LINES: Final = 4 * GROUP_LINES_MAX


class Line(NamedTuple):
    """offset: bytes before it in the text. raw: without its end. is_cut: its rest is missing."""

    offset: int
    raw: bytes
    is_cut: bool


@dataclass(frozen=True, slots=True)
class Conditions:
    """What is asked for. across_lines: see the module."""

    keywords: Sequence[str] = ()
    regex: str | None = None
    is_case_sensitive: bool = False
    across_lines: bool = False


class LineMatcher:
    """Finds meant lines in blocks; without conditions all are."""

    def __init__(self, conditions: Conditions) -> None:
        """Raises QuestionInvalid."""
        _check(conditions)
        self._keywords = [_compiled(re2.escape(word), conditions, "keyword") for word in conditions.keywords]
        self._regex = None if conditions.regex is None else _compiled(conditions.regex, conditions, "regex")
        self._all = [*self._keywords, *([] if self._regex is None else [self._regex])]

    def find(self, block: Block) -> list[Line]:
        """The meant lines of a block, in its order."""
        if self._keywords:
            return list(self._around_keyword(block))
        lines = lines_of(block)
        return lines if self._regex is None else [line for line in lines if self._regex.search(line.raw)]

    def _around_keyword(self, block: Block) -> Iterator[Line]:
        text, place = block.text, 0
        while (found := self._keywords[0].search(text, place)) is not None:
            begins = text.rfind(b"\n", 0, found.start()) + 1
            ends = text.find(b"\n", found.end())
            ends = len(text) if ends < 0 else ends
            line = _line(block, begins, ends)
            if all(condition.search(line.raw) for condition in self._all):
                yield line
            place = ends + 1
            if place >= len(text):
                return


class GroupMatcher:
    """Finds meant lines across line ends, in blocks that follow one another, in either direction; takes one walk."""

    def __init__(self, conditions: Conditions, *, is_backward: bool) -> None:
        """is_backward: each block lies before the last one. Raises QuestionInvalid."""
        _check(conditions)
        patterns = [
            _compiled(r"\s+".join(map(re2.escape, word.split())) or r"\s+", conditions, "keyword")
            for word in conditions.keywords
        ]
        if conditions.regex is not None:
            patterns.append(_compiled(conditions.regex, conditions, "regex"))
        self._conditions = patterns
        self._is_backward = is_backward
        self._seam: list[_Held] = []
        """Lines that wait, in the file's order."""

    def find(self, block: Block) -> list[Line]:
        """The meant lines that no later block can add to, in the file's order."""
        own = [_Held(line) for line in lines_of(block)]
        held = own + self._seam if self._is_backward else self._seam + own
        self._mark(held)
        if self._is_backward:
            self._seam, ready = held[:GROUP_LINES_MAX], held[GROUP_LINES_MAX:]
        else:
            ready, self._seam = held[:-GROUP_LINES_MAX], held[-GROUP_LINES_MAX:]
        return _taken(ready)

    def rest(self) -> list[Line]:
        """The meant lines among those that wait; they go on waiting, for what more they may be part of."""
        return _taken(self._seam)

    def _mark(self, held: list[_Held]) -> None:
        if not self._conditions:
            for each in held:
                each.is_meant = True
            return
        starts: list[int] = []
        size = 0
        for each in held:
            starts.append(size)
            size += len(each.line.raw) + 1
        text = b"\n".join(each.line.raw for each in held)
        for number, condition in enumerate(self._conditions):
            others = self._conditions[:number] + self._conditions[number + 1 :]
            for first, last in _groups(condition, text, starts):
                group = text[starts[first] : starts[last] + len(held[last].line.raw)]
                if last - first < GROUP_LINES_MAX and all(other.search(group) for other in others):
                    for each in held[first : last + 1]:
                        each.is_meant = True


@dataclass(slots=True)
class _Held:
    line: Line
    is_meant: bool = False
    is_told: bool = False


def lines_of(block: Block) -> list[Line]:
    """All lines of a block."""
    if not block.text:
        return []
    raws = block.text.split(b"\n")
    if not raws[-1]:
        raws.pop()
    found: list[Line] = []
    offset = block.start
    for raw in raws:
        found.append(_shown(offset, raw))
        offset += len(raw) + 1
    if block.is_cut:
        found[-1] = found[-1]._replace(is_cut=True)
    return found


def _groups(condition: re.Pattern[bytes], text: bytes, starts: list[int]) -> Iterator[tuple[int, int]]:
    """(first, last line) of each match. One that ends in a later line leaves the lines between to others, so that what is
    found in a line does not depend on the lines before it; some lines at a time, so that this stays cheap."""
    first = 0
    while first < len(starts):
        end_line = min(first + _WINDOW_LINES, len(starts))
        is_last = end_line == len(starts)
        end, beyond = (len(text), end_line) if is_last else (starts[end_line], end_line - GROUP_LINES_MAX)
        place, line = starts[first], first
        while place <= end and (found := condition.search(text, place, end)) is not None:
            line = _line_at(starts, found.start(), line)
            if line >= beyond:
                break
            last = _line_at(starts, max(found.start(), found.end() - 1), line)
            yield line, last
            place = max(found.end(), found.start() + 1) if last == line else starts[line + 1]
        first = beyond


def _line_at(starts: list[int], place: int, line: int) -> int:
    while line + 1 < len(starts) and starts[line + 1] <= place:
        line += 1
    return line


def _taken(held: list[_Held]) -> list[Line]:
    found = []
    for each in held:
        if each.is_meant and not each.is_told:
            each.is_told = True
            found.append(each.line)
    return found


def _line(block: Block, begins: int, ends: int) -> Line:
    line = _shown(block.start + begins, block.text[begins:ends])
    return line._replace(is_cut=True) if block.is_cut and ends == len(block.text) else line


def _shown(offset: int, raw: bytes) -> Line:
    is_cut = len(raw) > LINE_BYTES_MAX
    raw = raw[:LINE_BYTES_MAX] if is_cut else raw
    return Line(offset, raw[:-1] if raw.endswith(b"\r") else raw, is_cut)


def _check(conditions: Conditions) -> None:
    if len(conditions.keywords) > KEYWORDS_MAX:
        raise QuestionInvalid("keyword", f"at most {KEYWORDS_MAX} of them, got {len(conditions.keywords)}")
    for word in conditions.keywords:
        if not 0 < len(word) <= PATTERN_CHARS_MAX:
            raise QuestionInvalid("keyword", f"expected 1..{PATTERN_CHARS_MAX} characters, got {len(word)}")
        if "\n" in word and not conditions.across_lines:
            raise QuestionInvalid("keyword", "a line holds no line end: ask with across_lines=true")
    if conditions.regex is not None and not 0 < len(conditions.regex) <= PATTERN_CHARS_MAX:
        raise QuestionInvalid("regex", f"expected 1..{PATTERN_CHARS_MAX} characters, got {len(conditions.regex)}")


def _compiled(pattern: str, conditions: Conditions, parameter: str) -> re.Pattern[bytes]:
    options = re2.Options()
    options.log_errors = False  # it would write the whole pattern to standard error
    options.case_sensitive = conditions.is_case_sensitive
    options.max_mem = 8 * 1024 * 1024
    if conditions.across_lines:
        pattern = f"(?m:{pattern})"
    try:
        compiled: re.Pattern[bytes] = re2.compile(pattern.encode(), options)
    except (re2.error, UnicodeEncodeError) as error:
        raise QuestionInvalid(parameter, f"no regular expression in RE2's syntax: {error}") from error
    return compiled
