"""Patterns of secrets: where one begins and ends in a text, and what takes its place.

Every pattern is RE2: linear in the text, whatever somebody logs. A mask names the kind and nothing else, not even the
length. Card numbers follow ISO/IEC 7812 (issuer prefixes, lengths, Luhn), so that most other long numbers stay.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any, Final

import re2

PATTERN_MEMORY_BYTES: Final = 16 << 20
"""What one compiled pattern, or the set of all, may take at most; reached only by patterns made to reach it."""

_CARD_DIGITS_MIN: Final = 13
_CARD_RUN: Final = re.compile(r"(?<!\d\.)(?<!\d)\d{3,}(?:[ -]\d{3,})*+")
"""Digits as people write cards: groups of three at least, no decimals of a number. Possessive: linear."""
_GROUP: Final = re.compile(r"\d+")
_CARDS: Final[dict[int, tuple[tuple[re.Pattern[bytes], tuple[int, ...]], ...]]] = {
    ord("2"): ((re.compile(rb"2(?:22[1-9]|2[3-9]\d|[3-6]\d\d|7[01]\d|720)"), (16,)),),
    ord("3"): (
        (re.compile(rb"3[47]"), (15,)),
        (re.compile(rb"3(?:0[0-5]|[68])"), (14,)),
        (re.compile(rb"35(?:2[89]|[3-8])"), (16,)),
    ),
    ord("4"): ((re.compile(rb"4"), (19, 16, 13)),),
    ord("5"): ((re.compile(rb"5[1-5]"), (16,)),),
    ord("6"): ((re.compile(rb"6(?:011|4[4-9]|5)"), (19, 16)),),
}
"""First digit -> prefix, lengths: Mastercard (2, 5), American Express, Diners Club, JCB, Visa, Discover."""
_DOUBLED: Final = bytes((n - 48) * 2 - (9 if n > 52 else 0) if 48 <= n <= 57 else 0 for n in range(256))
"""Digit character -> its Luhn value where it is doubled."""

_SECRET_NAME: Final = (
    r"(?:[A-Za-z0-9]+[_-])*(?:password|passwd|passphrase|pwd|secret|api[_-]?key|apikey|secret[_-]?key|private[_-]?key"
    r"|access[_-]?key|auth[_-]?token|access[_-]?token|refresh[_-]?token|client[_-]?secret)"
)
_SECRET_KEY_CHARS_MAX: Final = 100
"""No longer key is taken for the name of a secret."""
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
    return SecretRule(
        "card", r"\d(?:[ -]?\d){12,}", lambda text: _CARD_RUN.sub(lambda run: _mask_cards(run.group()), text)
    )


def _mask_cards(run: str) -> str:
    """run: groups of digits with single separators. A card begins where a group begins and ends where one ends."""
    if len(run) < _CARD_DIGITS_MIN:
        return run
    groups = [found.span() for found in _GROUP.finditer(run)]
    digits = run.replace(" ", "").replace("-", "").encode()
    ends: dict[int, int] = {}
    """Digits up to the end of a group -> place of that end in the run."""
    begins: list[tuple[int, int]] = []
    """(digits before a group, its place in the run)"""
    count = 0
    for start, end in groups:
        begins.append((count, start))
        count += end - start
        ends[count] = end
    out: list[str] = []
    copied_to, free_from = 0, 0
    for begin, place in begins:
        length = 0 if begin < free_from else _card_length(digits, begin, ends)
        if length:
            out.append(run[copied_to:place] + "[masked:card]")
            free_from = begin + length
            copied_to = ends[free_from]
    return "".join(out) + run[copied_to:]


def _card_length(digits: bytes, begin: int, ends: dict[int, int]) -> int:
    for prefix, lengths in _CARDS.get(digits[begin], ()):
        if prefix.match(digits, begin):
            for length in lengths:
                if begin + length in ends and _luhn(digits[begin : begin + length]):
                    return length
    return 0


def _luhn(digits: bytes) -> bool:
    """ISO/IEC 7812-1, annex B."""
    single, doubled = digits[::-2], digits[-2::-2].translate(_DOUBLED)
    return (sum(single) - 48 * len(single) + sum(doubled)) % 10 == 0


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


@lru_cache(maxsize=4096)
def _names_secret(key: str) -> bool:
    return _secret_key.fullmatch(key) is not None


def is_secret_key(key: str) -> bool:
    """True for a metadata key whose value is a secret whatever it looks like (`password`, `db_password`, `api-key`)."""
    return len(key) <= _SECRET_KEY_CHARS_MAX and _names_secret(key)
