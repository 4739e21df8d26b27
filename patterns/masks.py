"""Wildcards, and cutting a message into tokens with its obvious variables masked by them.

Masking looks at one message alone and knows no state, so that equal messages give equal tokens in every process. Every
digit is read as 0 first: no mask depends on which digit it is, and messages that differ in digits only are one *shape*,
which callers use as the key of a cache. What a mask replaces always matches the wildcard's expression (a property test).

Bounded: only the first `CHARS_MAX` characters and of these only the first line with text in it are looked at, at most
`TOKENS_MAX` tokens of `TOKEN_BYTES_MAX` bytes, `TEXT_BYTES_MAX` together. What is left out shows as `<...>` at the end. A token
of more than `RAW_TOKEN_BYTES_MAX` is not looked into.
"""

from __future__ import annotations

import re
from typing import Final

CHARS_MAX: Final = 1_024
"""Of a message that are looked at."""
TOKENS_MAX: Final = 48
TOKEN_BYTES_MAX: Final = 100
"""Of a masked token; a longer one becomes `<*>`."""
RAW_TOKEN_BYTES_MAX: Final = 256
TEXT_BYTES_MAX: Final = 400
"""Of a template. Its expression then keeps the limits of search/regex.py, whatever is in it (a test)."""
_ROOM_BYTES: Final = TEXT_BYTES_MAX - 5
"""Without the `<...>` at the end."""
_KNOWN_TOKENS_MAX: Final = 20_000

ANY: Final = b"<*>"
REST: Final = b"<...>"
"""Stands only at the end, as a token of its own: whatever follows, line breaks included."""
STRING: Final = b"<str>"
"""The one wildcard within a token that may stand for white space."""

WILDCARDS: Final[dict[str, str]] = {
    "*": r"\S+",
    "num": r"-?[\d.,]+",
    "hex": r"[\w:]+",
    "uuid": r"[\w-]+",
    "ip": r"[\w.:]+",
    "time": r"[\w.:,+/-]+",
    "path": r"\S+",
    "url": r"\S+",
    "str": r'[^"]*',
    "...": ".*",
}
"""Name -> what it stands for, in the syntax of search/regex.py. Short rather than exact: an expression has limits."""
WILDCARD: Final = re.compile(rb"<(\*|\.\.\.|num|hex|uuid|ip|time|path|url|str)>")

_SAME_DIGITS: Final = bytes.maketrans(b"123456789", b"000000000")
_QUOTED: Final = re.compile(rb'"[^"]*"')
_REQUEST: Final = re.compile(rb'"[A-Z]+ \S+ HTTP/')
"""An access log's request is read, not masked as a quoted value."""
_MASKS: Final = re.compile(
    rb"""
      (?P<kept>"<str>")
    | (?P<any>\x00+)
    | (?P<url>(?<![A-Za-z0-9])[A-Za-z][A-Za-z0-9+.-]{1,10}://[^\s"'<>()\[\]{},;\x00]+)
    | (?P<path>(?<![A-Za-z0-9_.\-\\/:])(?:[A-Za-z]:)?(?:[/\\][^\s/\\"'<>()\[\]{},;:=?\x00]+){2,}[/\\]?(?:\?[^\s"'<>\x00]*)?)
    | (?P<uuid>(?<![A-Za-z0-9])[0A-Fa-f]{8}-[0A-Fa-f]{4}-[0A-Fa-f]{4}-[0A-Fa-f]{4}-[0A-Fa-f]{12}(?![A-Za-z0-9]))
    | (?P<time>
        (?<![A-Za-z0-9])0{4}[-/]00[-/]00(?:[T_]00:00(?::00(?:[.,]0+)?)?(?:Z|[+-]00:?00)?)?(?![A-Za-z0-9])
      | (?<![A-Za-z0-9:.])00?:00:00(?:[.,]0+)?Z?(?![A-Za-z0-9:])
      )
    | (?P<ip>
        (?<![A-Za-z0-9.])0{1,3}(?:\.0{1,3}){3}(?!0)
      | (?<![A-Za-z0-9:.])(?=[A-Fa-f:]*0)(?:[0A-Fa-f]{1,4}:){7}[0A-Fa-f]{1,4}(?![A-Za-z0-9])
      | (?<![A-Za-z0-9:.])(?=[A-Fa-f:]*0)(?:[0A-Fa-f]{1,4}(?::[0A-Fa-f]{1,4}){0,6})?
        ::(?:[0A-Fa-f]{1,4}(?::[0A-Fa-f]{1,4}){0,6})?(?![A-Za-z0-9:])
      )
    | (?P<hex>(?<![A-Za-z0-9])(?:
        0[xX][0A-Fa-f]+
      | (?:[0A-Fa-f]{2}:){5}[0A-Fa-f]{2}
      | (?=[A-Fa-f]*0)(?=0*[A-Fa-f])[0A-Fa-f]{8,}
      )(?![A-Za-z0-9]))
    | (?P<num>(?:(?<![A-Za-z0-9])-)?0+(?:[.,]0+)*)
    | (?P<quoted>(?<![A-Za-z0-9])'[^'\s\x00]+'(?![A-Za-z0-9]))
    """,
    re.VERBOSE,
)
_MASKED: Final = {name: f"<{name}>".encode() for name in ("url", "path", "uuid", "time", "ip", "hex", "num")} | {
    "any": ANY,
    "quoted": b"'<*>'",
    "kept": b'"<str>"',
}


def shape_of(message: str) -> bytes:
    """The part of the message that is looked at, in UTF-8, every ASCII digit as 0."""
    return message[:CHARS_MAX].encode("utf-8", "replace").translate(_SAME_DIGITS)


def has_wildcard(token: bytes) -> bool:
    """Whether part of the token, or all of it, is variable."""
    return b"<" in token and WILDCARD.search(token) is not None


def is_rigid(token: bytes) -> bool:
    """Whether the token may stand for white space, so that no `<*>` may take its place."""
    return STRING in token or token == REST


class Masker:
    """Cuts shapes into masked tokens. Keeps what it did for single tokens, 5 MB at most; not for use by two threads."""

    def __init__(self) -> None:
        self._known: dict[bytes, bytes] = {}

    def tokens(self, shape: bytes, *, cut: bool = False) -> tuple[bytes, ...]:
        """The masked tokens of a shape, none for white space. cut: the message is longer than the shape.

        2 µs for ten tokens that were seen before (bench section `patterns`).
        """
        rest = cut
        if b"\n" in shape:
            shape, line_break, more = shape.lstrip().partition(b"\n")
            rest = rest or (more != b"" and not more.isspace())
            cut = cut and not line_break
        if b"<" in shape:
            shape = WILDCARD.sub(b"\0", shape)  # what looks like a wildcard becomes one
        if b'"' in shape:
            shape = _QUOTED.sub(_mask_quoted, shape)
        words = shape.split()
        if cut and words:
            words.pop()  # its end was not seen
        known = self._known
        try:
            tokens = [known[word] for word in words]
        except KeyError:
            tokens = [known.get(word) or self._mask(word) for word in words[: TOKENS_MAX + 1]]
        if rest or len(words) > TOKENS_MAX or sum(map(len, tokens)) + 3 * len(tokens) > _ROOM_BYTES or b"" in tokens:
            return _shortened(tokens, rest)
        return tuple(tokens)

    def _mask(self, word: bytes) -> bytes:
        """The masked token; empty for one that is too long and may stand for white space, which nothing else may take."""
        masked = word if len(word) > RAW_TOKEN_BYTES_MAX else _MASKS.sub(_replacement, word)
        if len(masked) > TOKEN_BYTES_MAX:
            masked = b"" if is_rigid(masked) else ANY
        if masked and len(word) <= TOKEN_BYTES_MAX:
            if len(self._known) >= _KNOWN_TOKENS_MAX:
                self._known.clear()
            self._known[word] = masked
        return masked


def _shortened(tokens: list[bytes], rest: bool) -> tuple[bytes, ...]:
    """As many tokens as have room, then `<...>` when there are more, or lines after them."""
    room = _ROOM_BYTES
    for index, token in enumerate(tokens):
        room -= len(token) + 3  # a wildcard that takes a token's place is up to 2 longer, and the space
        if room < 0 or index == TOKENS_MAX or not token:
            return (*tokens[:index], REST)
    return (*tokens, REST) if rest else tuple(tokens)


def _mask_quoted(found: re.Match[bytes]) -> bytes:
    is_key = found.string[found.end() : found.end() + 1] == b":"
    return found[0] if is_key or len(found[0]) == 2 or _REQUEST.match(found[0]) else b'"<str>"'


def _replacement(found: re.Match[bytes]) -> bytes:
    return _MASKED[found.lastgroup or ""]
