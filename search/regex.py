"""Regular expressions: our own parser for a written subset that every engine evaluates the same way.

The syntax (docs/query-language.md has the user's page):

    literals          any character; after a backslash any ASCII punctuation, and \\t \\n \\r \\f \\v \\xHH \\uHHHH
    .                 any one character, line breaks included
    [abc] [^a-z\\d]   classes with ranges, negation and the shorthands below
    \\d \\w \\s          ASCII digits; ASCII letters, digits and _; space, \\t \\n \\v \\f \\r. \\D \\W \\S: all others
    ^ $               start and end of the whole message, never of a line
    \\b \\B             between a \\w and a non-\\w character or end of the message; not there
    (x) (?:x) x|y     groups, alternatives
    * + ? {m} {m,} {m,n}   repetition, bounds up to 255; a ? after them (lazy) changes nothing here
    (?i)              only at the very start: letters match as in letters.py

A pattern either matches somewhere in a message or not: no captures, no backreferences, no look-around. So the tree holds
only what decides that, and letter case is expanded into it. `regex_dialects.py` writes it out for RE2 and PostgreSQL.

Limits, so that no engine's own limit is ever reached and compiling stays cheap: 1,000 characters, 50 groups deep, and
1,000 steps after repetition is expanded (a character, class or anchor is one, `x{3}` three times x; classes of eight
ranges and more count one more for every eight). And ten word edges after expansion, \\B counting as two: PostgreSQL's
effort doubles with each that can follow another (measured: 10 edges 2 ms, 16 edges 0.2 s, 20 "too complex").
"""

from __future__ import annotations

import re
import string
from collections.abc import Iterable
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, TypeAlias

from schemas.errors import InvalidInput
from search.letters import VARIANTS

PATTERN_CHARS_MAX: Final = 1_000
DEPTH_MAX: Final = 50
STEPS_MAX: Final = 1_000
WORD_EDGES_MAX: Final = 10
REPEAT_MAX: Final = 255
LAST_CHAR: Final = 0x10FFFF

Ranges: TypeAlias = tuple[tuple[int, int], ...]
"""Code points as ascending, disjoint, non-touching (first, last) pairs, both inclusive, within 1..LAST_CHAR."""


class RegexError(InvalidInput):
    """The regular expression is not in the supported syntax."""

    def __init__(self, problem: str, column: int) -> None:
        """problem: without the place. column: 1-based, in characters of the pattern."""
        super().__init__(f"column {column}: {problem}")
        self.problem, self.column = problem, column


@dataclass(frozen=True, slots=True)
class Chars:
    """One character out of a set; the set is never empty."""

    ranges: Ranges


class Place(Enum):
    """A condition on a position."""

    START = "start of the message"
    END = "end of the message"
    WORD_EDGE = "word edge"
    NOT_WORD_EDGE = "no word edge"


@dataclass(frozen=True, slots=True)
class Sequence:
    """One after the other; no items: the empty text."""

    items: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Choice:
    """Any of two or more."""

    branches: tuple[Node, ...]


@dataclass(frozen=True, slots=True)
class Repeat:
    """The item `least` to `most` times in a row; most None: without limit."""

    item: Node
    least: int
    most: int | None


Node: TypeAlias = Chars | Place | Sequence | Choice | Repeat


@dataclass(frozen=True, slots=True)
class Pattern:
    """A parsed regular expression. Equal trees are equal patterns, however they were written."""

    root: Node
    source: str = field(default="", compare=False)


def parse_pattern(text: str, *, ignore_case: bool = False) -> Pattern:
    """Parse a regular expression. Raises RegexError that names the column and what was expected."""
    if len(text) > PATTERN_CHARS_MAX:
        problem = f"a regular expression has at most {PATTERN_CHARS_MAX:,} characters, this one has {len(text):,}"
        raise RegexError(problem, PATTERN_CHARS_MAX + 1)
    for index, char in enumerate(text):
        if char == "\0" or "\ud800" <= char <= "\udfff":
            raise RegexError(f"U+{ord(char):04X} does not occur in messages", index + 1)
    parser = _Parser(text, ignore_case)
    root = parser.whole()
    steps = _steps(root)
    if steps > STEPS_MAX:
        problem = (
            f"with its repetitions written out the expression has {steps:,} steps, at most {STEPS_MAX:,} are allowed"
        )
        raise RegexError(f"{problem}; use smaller bounds", 1)
    if (edges := _word_edges(root)) > WORD_EDGES_MAX:
        problem = f"with its repetitions written out the expression has {edges:,} word edges (\\B counts as two)"
        raise RegexError(f"{problem}, at most {WORD_EDGES_MAX} are allowed; write \\b(?:x|y)\\b for \\bx\\b|\\by\\b", 1)
    return Pattern(root, text)


def literal_pattern(text: str) -> Pattern:
    """The pattern for exactly this text, letters matching as in letters.py."""
    return Pattern(Sequence(tuple(Chars(_either_case(((ord(char), ord(char)),))) for char in text)), text)


def merge(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Any (first, last) pairs as ascending, disjoint, non-touching ones."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = (merged[-1][0], max(last, merged[-1][1]))
        else:
            merged.append((first, last))
    return tuple(merged)


def complement(ranges: Ranges) -> Ranges:
    """All other code points."""
    gaps, expected = [], 1
    for first, last in ranges:
        if first > expected:
            gaps.append((expected, first - 1))
        expected = last + 1
    if expected <= LAST_CHAR:
        gaps.append((expected, LAST_CHAR))
    return tuple(gaps)


def _either_case(ranges: Ranges) -> Ranges:
    """The ranges and every character that has the same lower case as one in them."""
    if all(first == last for first, last in ranges):
        points = [first for first, _ in ranges]
    else:
        points = [point for point in VARIANTS if any(first <= point <= last for first, last in ranges)]
    return merge((*ranges, *((variant, variant) for point in points for variant in VARIANTS.get(point, ()))))


def _steps(node: Node) -> int:
    match node:
        case Chars(ranges):
            return 1 + min(len(ranges), len(complement(ranges))) // 8
        case Place():
            return 1
        case Sequence(items):
            return sum(map(_steps, items)) or 1
        case Choice(branches):
            return sum(map(_steps, branches)) + 1
        case Repeat(item, least, most):
            return _steps(item) * _copies(least, most)


def _word_edges(node: Node) -> int:
    match node:
        case Place.WORD_EDGE:
            return 1
        case Place.NOT_WORD_EDGE:
            return 2
        case Sequence(parts) | Choice(parts):
            return sum(map(_word_edges, parts))
        case Repeat(item, least, most):
            return _word_edges(item) * _copies(least, most)
    return 0


def _copies(least: int, most: int | None) -> int:
    """How often a repeated item stands in a compiled expression."""
    return max(least, 1) + 1 if most is None else most


_EVERY: Final[Ranges] = ((1, LAST_CHAR),)
_DIGIT: Final[Ranges] = ((0x30, 0x39),)
_WORD: Final[Ranges] = ((0x30, 0x39), (0x41, 0x5A), (0x5F, 0x5F), (0x61, 0x7A))
_SPACE: Final[Ranges] = ((0x09, 0x0D), (0x20, 0x20))
_SHORTHAND: Final[dict[str, Ranges]] = {
    "d": _DIGIT,
    "w": _WORD,
    "s": _SPACE,
    "D": complement(_DIGIT),
    "W": complement(_WORD),
    "S": complement(_SPACE),
}
_PLACE: Final[dict[str, Place]] = {"b": Place.WORD_EDGE, "B": Place.NOT_WORD_EDGE}
_CONTROL: Final[dict[str, int]] = {"t": 9, "n": 10, "v": 11, "f": 12, "r": 13}
_HEX_DIGITS: Final[dict[str, int]] = {"x": 2, "u": 4}
_BOUNDS: Final = re.compile(r"\{([0-9]*)(,?)([0-9]*)\}")
_EMPTY: Final = Sequence(())


class _Parser:
    """Recursive descent over one text; `at` is the 0-based index of the next character."""

    def __init__(self, text: str, ignore_case: bool) -> None:
        self.text, self.ignore_case, self.at, self.depth = text, ignore_case, 0, 0

    def whole(self) -> Node:
        if self.text.startswith("(?i)"):
            self.at, self.ignore_case = 4, True
        node = self.choice()
        if self.at < len(self.text):
            raise self.error("this ) closes nothing; write \\) for the character")
        return node

    def choice(self) -> Node:
        branches = [self.sequence()]
        while self.peek() == "|":
            self.at += 1
            branches.append(self.sequence())
        return branches[0] if len(branches) == 1 else Choice(tuple(branches))

    def sequence(self) -> Node:
        items: list[Node] = []
        while self.peek() not in ("", "|", ")"):
            item = self.repeated(self.item())
            items.extend(item.items if isinstance(item, Sequence) else (item,))
        return items[0] if len(items) == 1 else Sequence(tuple(items))

    def item(self) -> Node:
        start, char = self.at, self.peek()
        self.at += 1
        match char:
            case "(":
                return self.group(start)
            case "[":
                return self.char_class(start)
            case ".":
                return Chars(_EVERY)
            case "^":
                return Place.START
            case "$":
                return Place.END
            case "\\":
                if self.peek() in _PLACE:
                    self.at += 1
                    return _PLACE[self.text[self.at - 1]]
                return self.chars(self.escape(start))
            case "*" | "+" | "?":
                raise self.error(f"nothing to repeat before {char}; write \\{char} for the character", start)
            case "{" if self.bounds_at(start):
                raise self.error("nothing to repeat before {; write \\{ for the character", start)
        return self.chars(((ord(char), ord(char)),))

    def group(self, start: int) -> Node:
        if self.peek() == "?":
            if not self.text.startswith("?:", self.at):
                raise self.error(
                    "after (? only : is supported, and (?i) at the very start: no look-around, named groups or other flags",
                    start,
                )
            self.at += 2
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise self.error(f"at most {DEPTH_MAX} groups inside one another", start)
        node = self.choice()
        if self.peek() != ")":
            raise self.error("expected ) to close this group", start)
        self.at += 1
        self.depth -= 1
        return node

    def repeated(self, item: Node) -> Node:
        start = self.at
        least, most = 1, 1
        match self.peek():
            case "*":
                self.at, least, most = start + 1, 0, -1
            case "+":
                self.at, least, most = start + 1, 1, -1
            case "?":
                self.at, least, most = start + 1, 0, 1
            case "{":
                if (bounds := self.bounds_at(start)) is not None:
                    least, most = bounds
                    self.at = self.text.index("}", start) + 1
        if self.at == start:
            return item
        if isinstance(item, Place):
            raise self.error("^, $, \\b and \\B match no character and cannot be repeated", start)
        if self.peek() == "?":
            self.at += 1
        elif self.peek() == "+":
            raise self.error("possessive repetition is not supported; leave out this +")
        if self.peek() in ("*", "+", "?") or (self.peek() == "{" and self.bounds_at(self.at)):
            raise self.error("this is repeated already; put it in a group to repeat it again")
        if most == 0:
            return _EMPTY
        return item if (least, most) == (1, 1) else Repeat(item, least, None if most < 0 else most)

    def bounds_at(self, start: int) -> tuple[int, int] | None:
        """(least, most or -1) when a repetition is written here; None when { is a plain character."""
        match = _BOUNDS.match(self.text, start)
        if match is None or match[1] + match[3] == "" or (match[2] == "" and match[1] == ""):
            return None
        if match[1] == "":
            raise self.error(f"write {{0,{match[3]}}} for at most {match[3]} times", start)
        # The length is looked at first: Python refuses to convert thousands of digits.
        if len(match[1]) > 4 or len(match[3]) > 4 or max(int(match[1]), int(match[3] or 0)) > REPEAT_MAX:
            raise self.error(f"a repetition is at most {REPEAT_MAX} times", start)
        least = int(match[1])
        most = least if match[2] == "" else int(match[3]) if match[3] else -1
        if 0 <= most < least:
            raise self.error(f"the bounds {{{least},{most}}} are in the wrong order", start)
        return least, most

    def char_class(self, start: int) -> Chars:
        negated = self.peek() == "^"
        self.at += negated
        ranges: list[tuple[int, int]] = []
        first_at = self.at
        while self.peek() != "]" or self.at == first_at:
            if self.peek() == "":
                raise self.error("expected ] to close this class", start)
            low = self.class_item()
            dash = self.at
            if self.peek() == "-" and self.text[dash + 1 : dash + 2] not in ("", "]"):
                self.at += 1
                high = self.class_item()
                if not (_is_one(low) and _is_one(high)):
                    raise self.error(
                        "a range needs one character on each side of the -; write \\- for the character", dash
                    )
                if low[0][0] > high[0][0]:
                    raise self.error("the range is in the wrong order", dash)
                ranges.append((low[0][0], high[0][0]))
            else:
                ranges.extend(low)
        self.at += 1
        chosen = merge(ranges)
        if self.ignore_case:
            chosen = _either_case(chosen)
        if negated:
            chosen = complement(chosen)
        if not chosen:
            raise self.error("this class matches no character at all", start)
        return Chars(chosen)

    def class_item(self) -> Ranges:
        start, char = self.at, self.peek()
        self.at += 1
        if char == "\\":
            if self.peek() in _PLACE:
                raise self.error(f"\\{self.peek()} is not a character: it cannot be in a class", start)
            return self.escape(start)
        if char == "[" and self.peek() in (":", ".", "="):
            raise self.error("named classes such as [:alpha:] are not supported; write \\[ for the character", start)
        return ((ord(char), ord(char)),)

    def escape(self, start: int) -> Ranges:
        """What a backslash at `start` and the characters from `at` on mean."""
        char = self.peek()
        self.at += 1
        if char in _SHORTHAND:
            return _SHORTHAND[char]
        if char in _CONTROL:
            return ((_CONTROL[char], _CONTROL[char]),)
        if char in _HEX_DIGITS:
            count = _HEX_DIGITS[char]
            digits = self.text[self.at : self.at + count]
            if len(digits) < count or not all(digit in string.hexdigits for digit in digits):
                raise self.error(f"expected {count} hexadecimal digits after \\{char}", start)
            point = int(digits, 16)
            if point == 0 or 0xD800 <= point <= 0xDFFF:
                raise self.error(f"U+{point:04X} does not occur in messages", start)
            self.at += count
            return ((point, point),)
        if char in string.punctuation and char:
            return ((ord(char), ord(char)),)
        if char == "":
            raise self.error("expected a character after the last \\", start)
        raise self.error(
            f"\\{char} is not supported; \\ goes before punctuation and d D w W s S b B t n r f v x u", start
        )

    def chars(self, ranges: Ranges) -> Chars:
        return Chars(_either_case(ranges) if self.ignore_case else ranges)

    def peek(self) -> str:
        return self.text[self.at : self.at + 1]

    def error(self, problem: str, index: int | None = None) -> RegexError:
        return RegexError(problem, (self.at if index is None else index) + 1)


def _is_one(ranges: Ranges) -> bool:
    return len(ranges) == 1 and ranges[0][0] == ranges[0][1]
