"""A stream's labels: their text as protobuf carries it, and what they say of each of its logs. Pure.

    {app="shop", level="error", env="prod"}  ->  service shop, level ERROR, metadata {"env": "prod"}

What becomes a field leaves the metadata; what cannot become one stays there.
"""

from __future__ import annotations

import re
from functools import lru_cache
from typing import Final, cast

import msgspec

from schemas.levels import parse_level
from schemas.loki import CORRELATION_LABELS, LEVEL_NAMES, SERVICE_LABELS
from schemas.record import CORRELATION_ID_CHARS_MAX, SERVICE_NAME_CHARS_MAX

_PAIR: Final = re.compile(
    r"""\s*([A-Za-z_:][A-Za-z0-9_:./-]*)\s*=\s*(?:"([^"\\]*+(?:\\.[^"\\]*+)*+)"|`([^`]*+)`)\s*(,|\Z)""", re.DOTALL
)
_ESCAPE: Final = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.))", re.DOTALL)
_ESCAPED: Final = {
    "n": "\n",
    "t": "\t",
    "r": "\r",
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "v": "\v",
    "\\": "\\",
    '"': '"',
    "'": "'",
}
_STRANGE: Final = re.compile(r"[^A-Za-z0-9._/-]")
_SHORT_CHARS: Final = 20
"""Longer texts are no names of levels, and are not remembered."""
_KNOWN_MAX: Final = 1_000
_KNOWN_CHARS_MAX: Final = 1_000
_known_names: Final[dict[tuple[str, ...], tuple[str, ...]]] = {}
_HEAD_CHARS: Final = 256
"""Of a line, where its level is looked for."""
_LEVEL_IN_LINE: Final = re.compile(
    r"""(?:\A|[\s,{;])["']?(?:log\.?)?(?:level|lvl|severity(?:_?text)?)["']?\s*[=:]\s*["']?([A-Za-z]{1,13})(?![A-Za-z0-9_])""",
    re.IGNORECASE,
)


class InvalidLabels(ValueError):
    """The text is not `{name="value", …}`."""


class Stream(msgspec.Struct, gc=False):
    """What a stream's labels say of its logs."""

    service: str | None
    level: int | None
    """Severity number."""
    correlation_id: str | None
    metadata: dict[str, str]
    """The other labels. Not to be changed."""
    raw: msgspec.Raw
    """The same as JSON."""
    shared_bytes: int
    """What each log takes of it."""


class Own(msgspec.Struct, gc=False):
    """What a log's structured metadata say besides."""

    level: int | None
    correlation_id: str | None
    metadata: dict[str, str]


def parse_labels(text: str) -> dict[str, str]:
    """The labels of `{name="value", …}`. Raises InvalidLabels with a message for people."""
    inner = text.strip()
    if not (inner.startswith("{") and inner.endswith("}")):
        raise InvalidLabels(f'expected labels such as {{app="shop"}}, got {text[:100]!r}')
    inner = inner[1:-1].strip()
    labels: dict[str, str] = {}
    at = 0
    while at < len(inner):
        found = _PAIR.match(inner, at)
        if found is None:
            raise InvalidLabels(f'expected name="value" in labels, got {inner[at : at + 60]!r}')
        name, quoted, raw, _ = found.groups()
        labels[name] = raw if quoted is None else _unquoted(quoted)
        at = found.end()
    return labels


def stream_of(labels: dict[str, str | None] | dict[str, str]) -> Stream:
    """What the labels say. One without a value is none. Takes the dictionary for its own."""
    own = own_of(labels)
    rest = own.metadata
    service = None
    for name in SERVICE_LABELS:
        if value := rest.get(name):
            service = service_name(value)
            if service == value:
                del rest[name]
            break
    raw = msgspec.Raw(msgspec.json.encode(rest))
    shared_bytes = len(raw) - len("{}") + len(own.correlation_id or "") + len(service or "")
    return Stream(service, own.level, own.correlation_id, rest, raw, shared_bytes)


def own_of(pairs: dict[str, str | None] | dict[str, str]) -> Own:
    """What structured metadata say. A level that is none, and a correlation id that is too long, stay what they are. Takes the
    dictionary for its own."""
    metadata = cast(dict[str, str], pairs)
    if "" in pairs.values() or None in pairs.values():
        metadata = {name: value for name, value in pairs.items() if value}
    level = correlation_id = None
    for name in _telling(tuple(metadata)):
        if name not in CORRELATION_LABELS:
            if level is None and (level := level_of(metadata[name])) is not None:
                del metadata[name]
        elif correlation_id is None and len(metadata[name]) <= CORRELATION_ID_CHARS_MAX:
            correlation_id = metadata.pop(name)
    return Own(level, correlation_id, metadata)


def _telling(names: tuple[str, ...]) -> tuple[str, ...]:
    """Those that may say a level, then those that may name a story, in the order in which they count. Remembered, since logs of
    one program have the same names."""
    known = _known_names.get(names)
    if known is None:
        if len(_known_names) >= _KNOWN_MAX:
            _known_names.clear()
        levels = [name for name in names if len(name) <= _SHORT_CHARS and name.lower() in LEVEL_NAMES]
        known = (*levels, *(name for name in CORRELATION_LABELS if name in names))
        if sum(map(len, names)) <= _KNOWN_CHARS_MAX:
            _known_names[names] = known
    return known


def service_name(label: str) -> str:
    """The label as a name of a service: what those cannot have becomes `_`, what is too long is cut."""
    return _STRANGE.sub("_", label[:SERVICE_NAME_CHARS_MAX])


def level_of_line(line: str) -> int | None:
    """The level that a line of JSON or logfmt says in its first 256 characters. 0.2 µs where it says none."""
    head = line[:_HEAD_CHARS]
    if not ("evel" in head or "lvl" in head or "everity" in head or "EVE" in head or "LVL" in head):
        return None
    found = _LEVEL_IN_LINE.search(head)
    return None if found is None else level_of(found[1])


def level_of(text: str) -> int | None:
    """The severity number that a level's name or alias means; None: it is no level."""
    return _level(text) if len(text) <= _SHORT_CHARS else None


@lru_cache(maxsize=512)
def _level(text: str) -> int | None:
    try:
        return parse_level(text)
    except ValueError:
        return None


def _unquoted(text: str) -> str:
    """The text of a string literal of Go. Raises InvalidLabels."""
    return _ESCAPE.sub(_character, text) if "\\" in text else text


def _character(found: re.Match[str]) -> str:
    for digits, base in ((found[1], 16), (found[2], 16), (found[3], 16), (found[4], 8)):
        if digits is not None:
            number = int(digits, base)
            if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
                raise InvalidLabels(f"{found[0]!r} in labels is no character")
            return chr(number)
    plain = _ESCAPED.get(found[5])
    if plain is None:
        raise InvalidLabels(f"{found[0]!r} in labels is no escape that there is")
    return plain
