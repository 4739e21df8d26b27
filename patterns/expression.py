"""A template's text and the regular expression that finds its lines.

The text is what people see and may write: `Connection from <ip> closed after <num> ms`. Tokens are parted by white space,
`<*>` stands for one or more characters that are not white space, `<num>`, `<ip>` and the other names of masks.WILDCARDS
for what they say, roughly; `<...>` at the end for whatever follows. All else means itself, case included.

The expression is in the syntax of search/regex.py, anchored at both ends, and finds each line that the miner gave the
template (a property test). It may find a few more: lines of a template that is more special, or whose `<num>` is no number
but `1.2.3`. It holds no repetition within a repetition, so that no engine is slow with it.
"""

from __future__ import annotations

import re
from typing import Final

from patterns.masks import REST, STRING, TEXT_BYTES_MAX, TOKENS_MAX, WILDCARD, WILDCARDS
from schemas.errors import InvalidInput

_ID: Final = re.compile(r"[0-9a-f]{16}")
_WILDCARD: Final = re.compile(WILDCARD.pattern.decode())
_REST, _STRING = REST.decode(), STRING.decode()
_SYNTAX: Final = re.compile(r"[\\^$.|?*+()\[\]{}]")


class InvalidPattern(InvalidInput):
    """The text is not a pattern."""


def shown_id(template_id: int) -> str:
    """A template's id for people and JSON: 16 hexadecimal digits."""
    return f"{template_id:016x}"


def parse_id(text: str) -> int | None:
    """The id that a text of 16 hexadecimal digits shows; None for any other text."""
    return int(text, 16) if _ID.fullmatch(text) and text < "8" else None


def canonical(text: str) -> str:
    """The text as the miner would write it: one space between tokens, none at the ends. Raises InvalidPattern."""
    tokens = text.encode("utf-8", "replace").split()
    if len(tokens) > TOKENS_MAX + 1:
        raise InvalidPattern(f"a pattern has at most {TOKENS_MAX} words, this one has {len(tokens)}")
    joined = b" ".join(tokens)
    if len(joined) > TEXT_BYTES_MAX:
        raise InvalidPattern(f"a pattern has at most {TEXT_BYTES_MAX} bytes, this one has {len(joined)}")
    if any(REST in token for token in tokens[:-1]) or (tokens and tokens[-1] != REST and REST in tokens[-1]):
        raise InvalidPattern("<...> stands for the rest of a message, alone at the end of a pattern")
    if b"\0" in joined:
        raise InvalidPattern("U+0000 does not occur in messages")
    return joined.decode()


def expression_of(text: str) -> str:
    """The anchored regular expression, for `search.regex.parse_pattern`, of the lines of a template with this text.

    At most 1,000 characters and 1,000 steps. Raises InvalidPattern for a text that is longer than templates are.
    """
    tokens = _tokens(text)
    rest = tokens[-1:] == [_REST]
    words = r"\s+".join(map(_of_token, tokens[:-1] if rest else tokens))
    if rest:
        return rf"^\s*{words}\s.*$" if words else "^.*$"
    return rf"^\s*{words}\s*$"


def covers(general: str, special: str) -> bool:
    """Whether a template's text says all that another's says with the same or more general wildcards.

    For processes that saw different lines: what one counts under `Invalid user ann from <ip>` belongs to another's
    `Invalid user <*> from <ip>`. Raises InvalidPattern.
    """
    ours, theirs = _tokens(general), _tokens(special)
    return len(ours) == len(theirs) and all(map(_token_covers, ours, theirs))


def _token_covers(general: str, special: str) -> bool:
    if general == special:
        return True
    if _STRING in special or special == _REST:
        return False
    return re.fullmatch(".+".join(map(re.escape, general.split("<*>"))), special) is not None


def _tokens(text: str) -> list[str]:
    joined = canonical(text)
    return joined.split(" ") if joined else []


def _of_token(token: str) -> str:
    # Every other part is the name of a wildcard.
    parts = _WILDCARD.split(token)
    return "".join(WILDCARDS[part] if at % 2 else _SYNTAX.sub(r"\\\g<0>", part) for at, part in enumerate(parts))
