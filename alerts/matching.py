"""Matchers of labels, for silences and inhibition. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping
from functools import lru_cache
from typing import Annotated, Final, Literal, TypeAlias, cast

import msgspec
import re2

from alerts.texts import check_text

Operator: TypeAlias = Literal["=", "!=", "=~", "!~"]
MATCHERS_MAX: Final = 20
PATTERN_CHARS_MAX: Final = 500
PATTERN_BYTES_MAX: Final = 256 * 1024
"""Of one compiled pattern, with what it remembers of texts."""
PATTERNS_MAX: Final = 500
"""Of all silences in force or to come: all of them stay compiled, 128 MiB at worst."""
_TEXT: Final = re.compile(r"([a-zA-Z_][a-zA-Z0-9_.]*)\s*(=~|!~|!=|=)\s*(.*)", re.DOTALL)


class Matcher(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """label op value. A label that is missing has the value ''. =~ and !~ compare the whole value with an RE2 pattern."""

    label: Annotated[str, msgspec.Meta(min_length=1, max_length=100)]
    op: Operator
    value: Annotated[str, msgspec.Meta(max_length=PATTERN_CHARS_MAX)]

    def __post_init__(self) -> None:
        check_text(self.label)
        check_text(self.value)
        if self.is_pattern:
            _compiled(self.value)

    @property
    def is_pattern(self) -> bool:
        """Whether its value is an RE2 pattern."""
        return self.op in ("=~", "!~")

    def matches(self, labels: Mapping[str, str]) -> bool:
        """Whether labels are so."""
        found = labels.get(self.label, "")
        if self.op in ("=", "!="):
            return (found == self.value) == (self.op == "=")
        return (_compiled(self.value).fullmatch(found) is not None) == (self.op == "=~")

    @property
    def text(self) -> str:
        """As `parse_matcher` reads it."""
        return f"{self.label}{self.op}{self.value}"


def parse_matcher(text: str) -> Matcher:
    """`severity=critical`, `service=~pay/.*`. Raises ValueError."""
    match = _TEXT.fullmatch(text.strip())
    if match is None:
        raise ValueError(f"expected label=value (or != =~ !~), got {text[:100]!r}")
    label, op, value = match.groups()
    if len(label) > 100 or len(value) > PATTERN_CHARS_MAX:
        raise ValueError(f"a label has at most 100 characters, a value {PATTERN_CHARS_MAX}")
    return Matcher(label, cast(Operator, op), value.strip('"'))


def all_match(matchers: tuple[Matcher, ...], labels: Mapping[str, str]) -> bool:
    """Whether each does; none of no matchers. Patterns are asked last: those of others' silences, of other rules, never."""
    return bool(matchers) and all(
        matcher.matches(labels)
        for is_pattern in (False, True)
        for matcher in matchers
        if matcher.is_pattern == is_pattern
    )


@lru_cache(maxsize=2 * PATTERNS_MAX)
def _compiled(pattern: str) -> re.Pattern[str]:
    options = re2.Options()
    options.log_errors = False
    options.max_mem = PATTERN_BYTES_MAX
    try:
        compiled: re.Pattern[str] = re2.compile(pattern, options)
    except re2.error as error:
        raise ValueError(f"{pattern[:100]!r} is no regular expression that RE2 takes: {error}") from error
    return compiled


class Silence(msgspec.Struct, frozen=True):
    """Alerts that match are not told while it lasts."""

    silence_id: str
    matchers: tuple[Matcher, ...]
    starts_us: int
    ends_us: int
    author: str
    comment: str

    def holds(self, labels: Mapping[str, str], now_us: int) -> bool:
        """Whether it keeps an alert with these labels quiet now."""
        return self.starts_us <= now_us < self.ends_us and all_match(self.matchers, labels)


class Inhibition(msgspec.Struct, frozen=True):
    """While an alert that matches `source` fires, those that match `target` and have the same values of `equal` are not
    told."""

    source: tuple[Matcher, ...]
    target: tuple[Matcher, ...]
    equal: tuple[str, ...] = ()
