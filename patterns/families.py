"""Families: lines of a service that have the same number of tokens and most tokens in common, and their templates.

A family knows, for each position, the few tokens seen there. A family's template is one choice of these; so
`session opened for user <*>` and `session closed for user <*>` stay two templates of one family. A position becomes a
wildcard when it has had more than `VALUES_MAX` different tokens, or two of which one is masked (what holds a number or an
address is a variable), or when the family has too many templates. Positions only ever become more general, so that no
template's successors lead back to it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Final, TypeAlias

from patterns.masks import ANY, has_wildcard, is_rigid

VALUES_MAX: Final = 5
"""Different words at a position that are still told apart (docs/performance.md has what 1 to 12 give)."""
SIMILARITY_MIN: Final = 0.6
"""Part of a line's tokens that a family must know for the line to join it; masks that it knows count neither way."""
FAMILY_TEMPLATES_MAX: Final = 32
_BEFORE: Final = b"=:/([{,;\"'#@|"
_AFTER: Final = b")]},;:=\"'/.@|"

Tokens: TypeAlias = tuple[bytes, ...]


def text_of(tokens: Tokens) -> str:
    """A template's canonical text: its tokens with a space between."""
    return b" ".join(tokens).decode("utf-8", "replace")


def id_of(text: str) -> int:
    """The id of a canonical text, 1..2**63-1, which a bigint holds: BLAKE2b of eight bytes without the sign."""
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "big") & 0x7FFF_FFFF_FFFF_FFFF or 1


@dataclass(frozen=True, slots=True)
class Wild:
    """A position that is variable: `<*>` between what all tokens seen there have in common (`user=<*>`)."""

    prefix: bytes = b""
    suffix: bytes = b""

    @property
    def token(self) -> bytes:
        """As it stands in templates."""
        return self.prefix + ANY + self.suffix

    def accepts(self, token: bytes) -> bool:
        """Whether this stands for the token."""
        return (
            len(token) > len(self.prefix) + len(self.suffix)
            and token.startswith(self.prefix)
            and token.endswith(self.suffix)
            and not is_rigid(token)
        )


Position: TypeAlias = tuple[bytes, ...] | Wild
"""The tokens seen, in their order, or a wildcard."""


def rigid_of(tokens: Tokens) -> tuple[tuple[int, bytes], ...]:
    """The tokens that nothing else may take the place of, with where they stand."""
    return tuple((index, token) for index, token in enumerate(tokens) if is_rigid(token))


@dataclass(slots=True, eq=False)
class Template:
    """A kind of line of a service. id: hash of the text. live: false once it was evicted or merged into another."""

    service: str
    tokens: Tokens
    text: str
    id: int
    family: Family
    used: int = 0
    """Number of the line that had it last."""
    live: bool = True


@dataclass(slots=True, eq=False)
class Family:
    """See the module. All lines of a family have the same number of tokens, and the same rigid ones."""

    positions: list[Position]
    bucket: tuple[int, bytes]
    rigid: tuple[tuple[int, bytes], ...]
    templates: dict[Tokens, Template] = field(default_factory=dict)

    def likeness(self, tokens: Tokens, rigid: tuple[tuple[int, bytes], ...], strange_max: float) -> float:
        """How well a line goes here: 2 when it is one of the family's already, else 0..1; -1 when it must not join, or has
        more than `strange_max` tokens that the family does not know. rigid: of the line."""
        if rigid != self.rigid:
            return -1.0
        known = compared = strange = 0
        for position, token in zip(self.positions, tokens, strict=True):
            if isinstance(position, Wild):
                compared += 1
                if position.accepts(token):
                    continue
            elif token in position:
                if not has_wildcard(token):
                    known += 1
                    compared += 1
                continue
            else:
                compared += 1
            strange += 1
            if strange > strange_max:
                return -1.0
        return 2.0 if not strange else known / compared

    def take(self, tokens: Tokens) -> bool:
        """Let the line in. True when a position became a wildcard, so that templates have to be merged."""
        widened = False
        for index, token in enumerate(tokens):
            position = self.positions[index]
            if isinstance(position, Wild):
                if not position.accepts(token):
                    self.positions[index] = Wild()
                    widened = True
            elif token not in position:
                values = (*position, token)
                if len(values) > VALUES_MAX or any(map(has_wildcard, values)):
                    self.positions[index] = _common(values)
                    widened = True
                else:
                    self.positions[index] = values
        return widened

    def widen(self) -> bool:
        """Make the position with the most tokens a wildcard; False when all have one."""
        choices = {at: p for at, p in enumerate(self.positions) if not isinstance(p, Wild) and len(p) > 1}
        if not choices:
            return False
        index = max(choices, key=lambda at: len(choices[at]))
        self.positions[index] = _common(choices[index])
        return True

    def view(self, tokens: Tokens) -> Tokens:
        """The tokens of a line, or of an older template, with the family's wildcards."""
        return tuple(
            position.token if isinstance(position, Wild) else token
            for position, token in zip(self.positions, tokens, strict=True)
        )


def _common(tokens: Tokens) -> Wild:
    """The wildcard for these tokens. What stays of them before and after it ends and begins at punctuation, never within
    a wildcard's name or a character."""
    prefix = _common_start(tokens)
    prefix = prefix[: 1 + max(prefix.rfind(mark) for mark in _BEFORE)]
    ending = _common_start([token[::-1] for token in tokens])[::-1]
    starts = [at for mark in _AFTER if (at := ending.find(mark)) >= 0]
    suffix = ending[min(starts) :] if starts else b""
    if min(map(len, tokens)) <= len(prefix) + len(suffix):
        return Wild()
    return Wild(prefix, suffix)


def _common_start(tokens: Sequence[bytes]) -> bytes:
    least, greatest = min(tokens), max(tokens)
    return least[: next((at for at, (a, b) in enumerate(zip(least, greatest, strict=False)) if a != b), len(least))]
