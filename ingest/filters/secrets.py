"""Patterns of secrets: where one begins and ends in a text, and what takes its place.

Every pattern is RE2: linear in the text, whatever somebody logs. A mask names the kind and nothing else, not even the
length. Card numbers follow ISO/IEC 7812 (issuer prefixes, lengths, Luhn), so that most other long numbers stay.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final

import re2

PATTERN_MEMORY_BYTES: Final = 16 << 20
"""What one compiled pattern, or the set of all, may take at most; reached only by patterns made to reach it."""

_CARDS: Final = (
    (re.compile(r"4"), (13, 16, 19)),
    (re.compile(r"5[1-5]|2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)"), (16,)),
    (re.compile(r"3[47]"), (15,)),
    (re.compile(r"3(?:0[0-5]|[68])"), (14,)),
    (re.compile(r"6(?:011|4[4-9]|5)"), (16, 19)),
    (re.compile(r"35(?:2[89]|[3-8])"), (16,)),
)
"""Visa, Mastercard, American Express, Diners Club, Discover, JCB: prefix, lengths."""

_SECRET_NAME: Final = (
    r"(?:[A-Za-z0-9]+[_-])*(?:password|passwd|passphrase|pwd|secret|api[_-]?key|apikey|secret[_-]?key|private[_-]?key"
    r"|access[_-]?key|auth[_-]?token|access[_-]?token|refresh[_-]?token|client[_-]?secret)"
)
_ASSIGNED: Final = rf"\b{_SECRET_NAME}\\?[\"']?\s*[:=]\s*"
"""`password=`, `"api_key": `, also inside JSON that is itself quoted."""


@dataclass(frozen=True, slots=True)
class SecretRule:
    """One kind of secret. `pattern` finds candidates; `replace` gives the text with each secret masked."""

    name: str
    pattern: str
    replace: Callable[[str], str]


def options() -> Any:  # re2 has no types
    """Options of every pattern: quiet and bounded."""
    chosen = re2.Options()
    chosen.log_errors = False
    chosen.max_mem = PATTERN_MEMORY_BYTES
    return chosen


def custom_rule(name: str, pattern: str) -> SecretRule:
    """A rule of one's own: each match becomes `[masked:NAME]`. Raises ValueError when RE2 does not take the pattern."""
    return _plain(name, pattern)


def _plain(name: str, pattern: str, replacement: str | None = None) -> SecretRule:
    try:
        compiled = re2.compile(pattern, options())
    except re2.error as error:
        text = error.args[0] if error.args else error
        reason = text.decode(errors="replace") if isinstance(text, bytes) else str(text)
        raise ValueError(f"pattern {pattern!r} is not supported (RE2): {reason}") from error
    if compiled.search("") is not None:
        raise ValueError(f"pattern {pattern!r} matches the empty text: it would match everywhere")
    mask = f"[masked:{name}]" if replacement is None else replacement

    def replace(text: str) -> str:
        masked: str = compiled.sub(mask, text)
        return masked

    return SecretRule(name, pattern, replace)


def _card_rule() -> SecretRule:
    pattern = r"\d(?:[ -]?\d){12,}"
    compiled = re2.compile(pattern, options())

    def replace(text: str) -> str:
        masked: str = compiled.sub(lambda found: _mask_cards(found.group()), text)
        return masked

    return SecretRule("card", pattern, replace)


def _mask_cards(run: str) -> str:
    """run: digits with single separators between some of them. A card begins and ends at a separator or at an end."""
    places = [place for place, char in enumerate(run) if char.isdigit()]
    digits = "".join(run[place] for place in places)
    begins = [n for n, place in enumerate(places) if n == 0 or not run[place - 1].isdigit()]
    ends = {n for n, place in enumerate(places, 1) if n == len(places) or not run[place + 1].isdigit()}
    out, copied_to, free_from = [], 0, 0
    for begin in begins:
        if begin < free_from:
            continue
        length = _card_length(digits, begin, ends)
        if length:
            out.append(run[copied_to : places[begin]] + "[masked:card]")
            free_from = begin + length
            copied_to = places[free_from - 1] + 1
    return "".join(out) + run[copied_to:]


def _card_length(digits: str, begin: int, ends: set[int]) -> int:
    for prefix, lengths in _CARDS:
        if prefix.match(digits, begin):
            for length in reversed(lengths):
                if begin + length in ends and _luhn(digits[begin : begin + length]):
                    return length
    return 0


def _luhn(digits: str) -> bool:
    """ISO/IEC 7812-1, annex B."""
    total = 0
    for place, char in enumerate(reversed(digits)):
        value = ord(char) - 48
        if place % 2:
            value = value * 2 - 9 if value > 4 else value * 2
        total += value
    return total % 10 == 0


BUILT_IN: Final[dict[str, SecretRule]] = {
    rule.name: rule
    for rule in (
        _plain(
            "private_key",
            r"-----BEGIN [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----[^-]*(?:-----END [A-Z0-9 ]*PRIVATE KEY(?: BLOCK)?-----)?",
        ),
        _plain("aws_key", r"\b(?:AKIA|ASIA)[A-Z0-9]{16}\b"),
        _plain("github_token", r"\b(?:gh[pousr]_[A-Za-z0-9]{36,255}|github_pat_[A-Za-z0-9_]{22,255})\b"),
        _plain(
            "bearer",
            r"(?i)(\bbearer\s+|\bauthorization[\"']?\s*[:=]\s*[\"']?basic\s+)[A-Za-z0-9._~+/-]{8,}=*",
            r"\1[masked:bearer]",
        ),
        _plain(
            "password",
            rf"(?i)({_ASSIGNED}\\?\")[^\"\\]+|({_ASSIGNED}')[^']+|({_ASSIGNED})(?:\[masked:password\]|[^\s\"'\\,;&]+)",
            r"\1\2\3[masked:password]",
        ),
        _card_rule(),
        _plain("email", r"[A-Za-z0-9._%+-]+@(?:[A-Za-z0-9-]+\.)+[A-Za-z]{2,24}\b"),
    )
}
"""Every kind known, in the order in which they are masked."""

_secret_key = re2.compile(r"(?i)" + _SECRET_NAME, options())


def is_secret_key(key: str) -> bool:
    """True for a metadata key whose value is a secret whatever it looks like (`password`, `db_password`, `api-key`)."""
    return _secret_key.fullmatch(key) is not None
