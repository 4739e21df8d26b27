"""Writes a parsed regular expression out for RE2 (Python, DuckDB) and for PostgreSQL.

Nothing is left to an engine's defaults: every class is written as code points, anchors are those of the whole text, and
all but ASCII letters, digits and the space are written as numbers, so that no character can turn into syntax.
PostgreSQL's operands must have the "C" collation: \\y then knows ASCII words only, as \\b does in RE2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final

from search.letters import VARIANTS, fold
from search.regex import LAST_CHAR, Chars, Choice, Node, Pattern, Place, Ranges, Repeat, Sequence, complement


@dataclass(frozen=True, slots=True)
class _Dialect:
    char: Callable[[int], str]
    any_char: str
    places: dict[Place, str]
    classes: dict[Ranges, str] = field(default_factory=dict)
    """Classes that are written in a special way."""


_RE2: Final = _Dialect(
    char=lambda point: f"\\x{{{point:X}}}",
    any_char="(?s:.)",
    places={Place.START: "\\A", Place.END: "\\z", Place.WORD_EDGE: "\\b", Place.NOT_WORD_EDGE: "\\B"},
)
_RE2_CHOICE: Final = replace(
    _RE2,
    # RE2 turns [Kk] into a case-insensitive k, and where alternatives are merged that k also takes the Kelvin sign (and s
    # the long s). A third member, NUL, which is in no message, keeps the class a class.
    classes={tuple((ord(c), ord(c)) for c in pair): f"[\\x{{0}}{pair}]" for pair in ("Kk", "Ss")},
)
_POSTGRES: Final = _Dialect(
    char=lambda point: f"\\u{point:04X}" if point <= 0xFFFF else f"\\U{point:08X}",
    any_char=".",
    places={Place.START: "\\A", Place.END: "\\Z", Place.WORD_EDGE: "\\y", Place.NOT_WORD_EDGE: "\\Y"},
)


def to_re2(pattern: Pattern) -> str:
    """The pattern in RE2's syntax, for a search without options."""
    written = _write(pattern.root, _RE2_CHOICE if _has(pattern.root, Choice) else _RE2)
    # RE2 looks at bytes: its \B also holds inside a character of several bytes, where an empty match could begin. Walking
    # there character by character from the start leaves only real positions.
    return f"\\A(?s:.)*(?:{written})" if _has(pattern.root, Place.NOT_WORD_EDGE) else written


def to_postgres(pattern: Pattern) -> str:
    """The pattern as a PostgreSQL advanced regular expression, for `text COLLATE "C" ~ pattern`."""
    return _write(pattern.root, _POSTGRES)


def required_text(pattern: Pattern) -> str:
    """Lower-case ASCII text that every matching message has in it, in some case; the longest such run, or empty.

    Looking for it first spares PostgreSQL most of the work: 0.7 µs a row against 1.8 for the expression (measured on
    1,000,000 real messages).
    """
    runs, current = [""], ""
    for item in pattern.root.items if isinstance(pattern.root, Sequence) else (pattern.root,):
        letter = _ascii_letter(item)
        current += letter
        if not letter:
            current = ""
        runs.append(current)
    return max(runs, key=len)


def _ascii_letter(node: Node) -> str:
    """The folded character when the node is one ASCII character, in one case or in both; else empty."""
    if not isinstance(node, Chars):
        return ""
    first, last = node.ranges[0]
    if first != last or first > 0x7F:
        return ""
    if len(node.ranges) == 1:
        return fold(chr(first))
    points = tuple(low for low, high in node.ranges if low == high)
    return fold(chr(first)) if len(points) == len(node.ranges) and points == VARIANTS.get(first) else ""


def _has(node: Node, wanted: type[Choice] | Place) -> bool:
    if node is wanted or (isinstance(wanted, type) and isinstance(node, wanted)):
        return True
    match node:
        case Sequence(parts) | Choice(parts):
            return any(_has(part, wanted) for part in parts)
        case Repeat(item, _, _):
            return _has(item, wanted)
    return False


def _write(node: Node, dialect: _Dialect) -> str:
    match node:
        case Chars(ranges):
            return _write_chars(ranges, dialect)
        case Place():
            return dialect.places[node]
        case Sequence(items):
            return "".join(_write_item(item, dialect) for item in items) or "(?:)"
        case Choice(branches):
            return "|".join(_write(branch, dialect) for branch in branches)
        case Repeat(item, least, most):
            written = _write(item, dialect)
            atom = written if isinstance(item, Chars) else f"(?:{written})"
            return atom + _write_bounds(least, most)


def _write_item(node: Node, dialect: _Dialect) -> str:
    written = _write(node, dialect)
    return f"(?:{written})" if isinstance(node, Choice) else written


def _write_bounds(least: int, most: int | None) -> str:
    match least, most:
        case 0, None:
            return "*"
        case 1, None:
            return "+"
        case 0, 1:
            return "?"
        case _, None:
            return f"{{{least},}}"
    return f"{{{least}}}" if least == most else f"{{{least},{most}}}"


def _write_chars(ranges: Ranges, dialect: _Dialect) -> str:
    if ranges in dialect.classes:
        return dialect.classes[ranges]
    if ranges == ((1, LAST_CHAR),):
        return dialect.any_char
    if len(ranges) == 1 and ranges[0][0] == ranges[0][1]:
        return _write_char(ranges[0][0], dialect)
    negated = ranges[-1][1] == LAST_CHAR
    shown = complement(ranges) if negated else ranges
    parts = (
        _write_char(first, dialect) if first == last else f"{_write_char(first, dialect)}-{_write_char(last, dialect)}"
        for first, last in shown
    )
    return f"[{'^' if negated else ''}{''.join(parts)}]"


def _write_char(point: int, dialect: _Dialect) -> str:
    char = chr(point)
    return char if char.isascii() and (char.isalnum() or char == " ") else dialect.char(point)
