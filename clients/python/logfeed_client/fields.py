"""Values of a program as JSON that Logfeed takes: pure, bounded, and it raises nothing.

What JSON has not is written as text; what is too deep, too long or refers to itself is cut, and `_truncated` says so. Fields
are kept as fragments (`"a":1,"b":"x"`), so that those of a program, a request and a log are joined without being written
anew; of keys that come again the last one wins, in Logfeed's store.

Measured (bench/client.py): 0.2 µs a field of text or number, some µs for one that json has to look into.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import date, datetime, time
from functools import lru_cache
from itertools import islice
from json.encoder import encode_basestring
from typing import Final, TypeVar

FIELDS_BYTES_MAX: Final = 48 * 1024
"""Of the fields of one log. Logfeed takes 64 KiB of metadata."""
SHARED_BYTES_MAX: Final = 6 * 1024
"""Of the fields of a program, and of those bound to a request."""
TEXT_CHARS_MAX: Final = 8 * 1024
"""Of one text within a value that had to be cut."""
_DEPTH_MAX: Final = 10
"""Logfeed takes 16."""
_ITEMS_MAX: Final = 200
_KEY_CHARS_MAX: Final = 200
_CUT: Final = '"_truncated":true'
Item = TypeVar("Item")


quote: Final[Callable[[str], str]] = encode_basestring
"""A text as JSON, characters beyond ASCII as they are; written in C."""
quoted_once = lru_cache(maxsize=4096)(quote)
"""For texts that come again: names of loggers and files."""
_keys: Final[dict[str, str]] = {}
"""Names that came before, as JSON with the colon behind: the first _KEYS_MAX of a process."""
_KEYS_MAX: Final = 4_096
_INT_MAX: Final = 2**63
_TAIL_MAX: Final = 16
"""Each is put before those behind it: all their text is copied for each."""


def fragment(
    fields: Iterable[tuple[str, object]], *, bytes_max: int = FIELDS_BYTES_MAX, leave_out: Collection[str] = ()
) -> str:
    """`"a":1,"b":"x"`, at most so many bytes of UTF-8. fields: names and values; may be iterated again."""
    pieces: list[str] = []
    for name, value in fields:
        if name in leave_out:
            continue
        key = _keys.get(name) or _key(name)
        # The commonest without a call of Python's: this is in the way of each log.
        if type(value) is str:
            pieces.append(key + quote(value))
        elif type(value) is int and -_INT_MAX < value < _INT_MAX:
            pieces.append(key + repr(value))
        else:
            pieces.append(key + _value(value))
    found = ",".join(pieces)
    # Only a long text is measured: a character has four bytes at most.
    if len(found) * 4 <= bytes_max or _size(found) <= bytes_max:
        return found
    return _cut([pair for pair in fields if pair[0] not in leave_out], bytes_max)


def plain_tail(fields: dict[str, object], count: int, leave_out: Collection[str]) -> str | None:
    """The last fields of a dictionary as a fragment with a comma before each, in their order. None where one is neither text
    nor whole number, or they are many or long: `fragment` knows what to do then, at twice the price."""
    found = ""
    if count > _TAIL_MAX:
        return None
    for name, value in islice(reversed(fields.items()), count):
        if name in leave_out:
            continue
        key = _keys.get(name) or _key(name)
        if type(value) is str:
            found = f",{key}{quote(value)}{found}"
        elif type(value) is int and -_INT_MAX < value < _INT_MAX:
            found = f",{key}{value}{found}"
        else:
            return None
    return found if len(found) * 4 <= FIELDS_BYTES_MAX else None


def joined(*fragments: str) -> str:
    """Fragments as one."""
    return ",".join(filter(None, fragments))


def _key(name: object) -> str:
    """With the colon behind."""
    if type(name) is not str or len(name) > _KEY_CHARS_MAX:
        return f"{quote(_text(name)[:_KEY_CHARS_MAX])}:"
    if len(_keys) < _KEYS_MAX:
        return _keys.setdefault(name, f"{quote(name)}:")
    return f"{quote(name)}:"


def _value(value: object) -> str:
    """Anything as JSON."""
    try:
        if isinstance(value, str):
            return quote(value)
        # The commonest by themselves: an encoder is made anew for each value, 1.5 µs.
        if type(value) is int or (type(value) is float and value - value == 0.0):
            return repr(value)
        if value is None:
            return "null"
        if isinstance(value, bool):
            return "true" if value else "false"
        text = _encoder.encode(value)
    except Exception:  # whatever the program's own objects raise
        return _encoder.encode(_plain(value, 0))
    brackets = text.count("{") + text.count("[")
    return text if brackets <= _DEPTH_MAX else _encoder.encode(_plain(value, 0))


def _cut(fields: Iterable[tuple[str, object]], bytes_max: int) -> str:
    """The first fields that have room, their texts cut."""
    pieces: list[str] = []
    left = bytes_max - len(_CUT)
    for name, value in fields:
        piece = _key(name) + _encoder.encode(_plain(value, 0))
        left -= _size(piece) + 1
        if left < 0:
            break
        pieces.append(piece)
    return joined(*pieces, _CUT)


def _size(text: str) -> int:
    return len(text) if text.isascii() else len(text.encode("utf-8", "replace"))


def _plain(value: object, depth: int) -> object:
    """A copy of what JSON has, bounded in depth, items and texts."""
    if isinstance(value, str):
        return str(value)[:TEXT_CHARS_MAX]
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, int):
        return value if value.bit_length() <= 128 else _text(value)[:TEXT_CHARS_MAX]
    if isinstance(value, float):
        return value if value - value == 0.0 else str(value)
    if depth < _DEPTH_MAX:
        try:
            if isinstance(value, Mapping):
                items = _first(value.items())
                return {_text(key)[:_KEY_CHARS_MAX]: _plain(each, depth + 1) for key, each in items}
            if isinstance(value, list | tuple | set | frozenset):
                return [_plain(each, depth + 1) for each in _first(value)]
        except Exception:  # a container of the program's own that cannot be walked
            return _text(value)
    return _text(value)


def _first(values: Iterable[Item]) -> list[Item]:
    return [each for each, _ in zip(values, range(_ITEMS_MAX), strict=False)]


def _text(value: object) -> str:
    """For people."""
    try:
        if isinstance(value, datetime | date | time):
            return value.isoformat()
        return str(value)[:TEXT_CHARS_MAX]
    except Exception:  # whatever the program's own objects raise
        return f"(a {type(value).__name__} that cannot be written)"


def _default(value: object) -> object:
    """What json asks for objects it does not know."""
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, set | frozenset):
        return list(value)
    return _text(value)


_encoder: Final = json.JSONEncoder(
    ensure_ascii=False, allow_nan=False, check_circular=True, separators=(",", ":"), default=_default
)
