"""A stream's labels: their text as protobuf carries it, and what they say of each of its logs. Pure.

    {app="shop", level="error", env="prod"}  ->  service shop, level ERROR, metadata {"env": "prod"}

What becomes a field leaves the metadata; what cannot become one stays there.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from typing import Final, cast

import msgspec

from ingest.quick import NO_METADATA
from ingest.wire.members import template_of, written
from schemas.levels import parse_level
from schemas.loki import CORRELATION_LABELS, LEVEL_NAMES, SERVICE_LABELS
from schemas.record import CORRELATION_ID_CHARS_MAX, METADATA_BYTES_MAX, SERVICE_NAME_CHARS_MAX

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
_REPLACEMENT: Final = 0xFFFD
"""For a NUL, which no text may hold that is stored."""
_STRANGE: Final = re.compile(r"[^A-Za-z0-9._/-]")
_SHORT_CHARS: Final = 20
"""Longer texts are no names of levels, and are not remembered."""
_KNOWN_MAX: Final = 1_000
_KNOWN_CHARS_MAX: Final = 1_000
_HEAD_CHARS: Final = 256
"""Of a line, where its level is looked for."""
_LEVEL_IN_LINE: Final = re.compile(
    r"""(?:\A|[\s,{;])["']?(?:log\.?)?(?:level|lvl|severity(?:_?text)?)["']?\s*[=:]\s*["']?([A-Za-z]{1,13})(?![A-Za-z0-9_])""",
    re.IGNORECASE,
)


_encode: Final = msgspec.json.Encoder().encode


class InvalidLabels(ValueError):
    """The text is not `{name="value", …}`."""


class Stream(msgspec.Struct, gc=False):
    """What a stream's labels say of its logs."""

    service: str | None
    level: int | None
    """Severity number."""
    correlation_id: str | None
    raw: msgspec.Raw
    """The other labels, as JSON."""
    begin: bytes
    """The same, to be followed by further members."""
    shared_bytes: int
    """What each log takes of it."""


Said = tuple[int | None, str | None, bytes]
"""What structured metadata of a log say: level, correlation id, the others as members of a JSON object."""
NOTHING_SAID: Final[Said] = (None, None, b"")


class Shape(msgspec.Struct, gc=False):
    """What the names of structured metadata, or of labels, say of them."""

    telling: tuple[str, ...]
    """Those that may say a level, then those that may name a story, in the order in which they count."""
    level_at: int | None
    story_at: int | None
    """Places of those, where there is one of each at most; else None."""
    template: bytes | None
    """Of the other names (ingest.wire.members); None: look at each."""


_known_shapes: Final[dict[tuple[str, ...], Shape]] = {}


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


def stream_of(labels: Mapping[str, str | None]) -> Stream:
    """What the labels say. One without a value is none. Raises InvalidLabels where they take too much."""
    given = {name: value for name, value in labels.items() if value}
    level, story, rest = _told(given, _shape(tuple(given)).telling)
    service = None
    for name in SERVICE_LABELS:
        if value := rest.get(name):
            service = service_name(value)
            if service == value:
                del rest[name]
            break
    text = members_of(rest)
    if len(text) > METADATA_BYTES_MAX:
        raise InvalidLabels(f"labels may take {METADATA_BYTES_MAX} bytes of JSON, these take {len(text)}")
    raw = msgspec.Raw(b"{%b}" % text) if text else NO_METADATA
    begin = b"{%b," % text if text else b"{"
    shared_bytes = len(text) + len(story or "") + len(service or "")
    return Stream(service, level, story, raw, begin, shared_bytes)


def stream_of_text(text: bytes) -> Stream:
    """What labels in UTF-8 say, see `parse_labels`. Those of a program are the same in each of its requests: remembered where
    they are short (4 MiB). Raises InvalidLabels, UnicodeDecodeError."""
    return _known_stream(text) if len(text) <= _KNOWN_CHARS_MAX else stream_of(parse_labels(text.decode()))


@lru_cache(maxsize=1_000)
def _known_stream(text: bytes) -> Stream:
    return stream_of(parse_labels(text.decode()))


def members_of(texts: Mapping[str, str]) -> bytes:
    """As members of a JSON object, without its braces."""
    return _encode(texts)[1:-1]


def said_of(own: Mapping[str, str | None] | None) -> Said:
    """What structured metadata of a log say. What has no value is none."""
    if not own:
        return NOTHING_SAID
    given = dict(own) if all(own.values()) else {name: value for name, value in own.items() if value}
    names = tuple(given)
    shape = _known_shapes.get(names) or _shape(names)
    level, story, rest = _told(cast(dict[str, str], given), shape.telling)
    return level, story, members_of(rest)


def said_in(names: Sequence[str], values: Sequence[str], counts: Sequence[int]) -> list[Said]:
    """As `said_of`, of many logs, whose names and values, none of them empty, are in a row; counts: how many are of each."""
    texts = written(values)
    said: list[Said] = []
    add, known = said.append, _known_shapes.get
    end = 0
    for count in counts:
        begin, end = end, end + count
        own = tuple(names[begin:end])
        shape = known(own) or _shape(own)
        template = shape.template
        level = story = None
        if template is not None and shape.story_at is not None:
            story = values[begin + shape.story_at]
            if len(story) > CORRELATION_ID_CHARS_MAX:
                template = None
        if template is not None and shape.level_at is not None:
            level = level_of(values[begin + shape.level_at])
            if level is None:
                template = None
        if template is None:
            level, story, rest = _told(dict(zip(own, values[begin:end], strict=True)), shape.telling)
            add((level, story, members_of(rest)))
        else:
            add((level, story, template % tuple(texts[begin:end])))
    return said


def _told(pairs: dict[str, str], telling: Sequence[str]) -> tuple[int | None, str | None, dict[str, str]]:
    """Level, correlation id, and the others. A level that is none, and a correlation id that is too long, stay what they are.
    Takes the dictionary for its own."""
    level = correlation_id = None
    for name in telling:
        if name not in CORRELATION_LABELS:
            if level is None and (level := level_of(pairs[name])) is not None:
                del pairs[name]
        elif correlation_id is None and len(pairs[name]) <= CORRELATION_ID_CHARS_MAX:
            correlation_id = pairs.pop(name)
    return level, correlation_id, pairs


def _shape(names: tuple[str, ...]) -> Shape:
    """Remembered, since logs of one program have the same names."""
    levels = [name for name in names if len(name) <= _SHORT_CHARS and name.lower() in LEVEL_NAMES]
    stories = [name for name in CORRELATION_LABELS if name in names]
    telling = tuple(dict.fromkeys((*levels, *stories)))
    others = [name for name in names if name not in telling]
    template = None
    if len(levels) <= 1 and len(stories) <= 1 and len(set(names)) == len(names):
        # What tells is taken by a place without width, so that the texts of all fill the template.
        template = b"".join(
            b"%.0b" if name in telling else template_of((name,)) + (b"" if name == others[-1] else b",")
            for name in names
        )
    shape = Shape(
        telling,
        names.index(levels[0]) if levels and template is not None else None,
        names.index(stories[0]) if stories and template is not None else None,
        template,
    )
    if sum(map(len, names)) <= _KNOWN_CHARS_MAX:
        if len(_known_shapes) >= _KNOWN_MAX:
            _known_shapes.clear()
        _known_shapes[names] = shape
    return shape


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
            number = int(digits, base) or _REPLACEMENT
            if number > 0x10FFFF or 0xD800 <= number <= 0xDFFF:
                raise InvalidLabels(f"{found[0]!r} in labels is no character")
            return chr(number)
    plain = _ESCAPED.get(found[5])
    if plain is None:
        raise InvalidLabels(f"{found[0]!r} in labels is no escape that there is")
    return plain
