"""Takes figures out of messages by rules: a label, then a number, with a unit or without.

`latency: 0.02`, `latency=0.02s`, `Latency 20 ms` are one figure. Figures of a rule are all in its unit. Of several in one
message the first counts. Labels are texts and no expressions, so nothing that is configured can take long.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Final


class Unit(StrEnum):
    """Of a metric."""

    SECONDS = "s"
    MILLISECONDS = "ms"
    BYTES = "bytes"


class Side(StrEnum):
    """Whose log it is."""

    SERVER = "server"
    CLIENT = "client"


@dataclass(frozen=True, slots=True)
class Rule:
    """One metric."""

    name: str
    labels: tuple[str, ...]
    """Texts before the number, letters in either case, spaces of any number."""
    unit: Unit
    """Of its values, and of a number without one."""
    side: Side | None = None
    """In whose log it is looked for; None: in both."""


LATENCY: Final = "latency"
BUILT_IN: Final = (
    Rule(LATENCY, ("latency",), Unit.SECONDS),
    Rule("decode_time", ("avg decode time", "average decode time"), Unit.SECONDS, Side.CLIENT),
    Rule("encode_time", ("avg encode time", "average encode time"), Unit.SECONDS, Side.SERVER),
    Rule("encode_size", ("avg encode size", "average encode size"), Unit.BYTES, Side.SERVER),
)
_SECONDS: Final = {
    **dict.fromkeys(("s", "sec", "secs", "second", "seconds"), 1.0),
    **dict.fromkeys(("ms", "msec", "millisecond", "milliseconds"), 1e-3),
    **dict.fromkeys(("us", "µs", "μs", "microsecond", "microseconds"), 1e-6),
    **dict.fromkeys(("ns", "nanosecond", "nanoseconds"), 1e-9),
}
_BYTES: Final = {
    **dict.fromkeys(("b", "byte", "bytes"), 1.0),
    "kb": 1e3,
    "kib": 1024.0,
    "mb": 1e6,
    "mib": 1024.0**2,
}
_FACTORS: Final = {
    Unit.SECONDS: _SECONDS,
    Unit.MILLISECONDS: {name: of * 1e3 for name, of in _SECONDS.items()},
    Unit.BYTES: _BYTES,
}
VALUE_MAX: Final = 1e100
"""Greater ones are no figures: sums and squares of many must stay numbers, in the database too."""
_UNITS: Final = "|".join(sorted({*_SECONDS, *_BYTES}, key=lambda name: (-len(name), name)))
# What follows must not make it part of something else: no letter, no per cent, no further digits.
_VALUE: Final = (
    r"\s{0,8}[:=]?\s{0,8}([-+]?[0-9]{1,30}(?:\.[0-9]{1,30})?(?:[eE][-+]?[0-9]{1,3})?)"
    rf"(?:\s?({_UNITS})\b)?(?![.,]?[\w%])"
)


class Finder:
    """Finds the figures of one side's messages."""

    def __init__(self, rules: Sequence[Rule], side: Side) -> None:
        """rules: those of the other side are left out."""
        self._rules = [(rule, _expression(rule)) for rule in rules if rule.side in (None, side)]
        # One look tells most messages from those that have any.
        labels = {label.split()[-1].lower() for rule, _ in self._rules for label in rule.labels}
        self._words = tuple(sorted(labels))

    def find(self, message: str) -> list[tuple[str, float]]:
        """(metric, value in its unit) of each metric that the message has."""
        lower = message.lower()
        if not any(word in lower for word in self._words):
            return []
        found = []
        for rule, expression in self._rules:
            match = expression.search(message)
            value = None if match is None else _value(rule, match[1], match[2])
            if value is not None:
                found.append((rule.name, value))
        return found


def _expression(rule: Rule) -> re.Pattern[str]:
    labels = "|".join(r"\s{1,8}".join(map(re.escape, label.split())) for label in rule.labels)
    return re.compile(rf"(?<![A-Za-z0-9])(?:{labels}){_VALUE}", re.IGNORECASE)


def _value(rule: Rule, digits: str, unit: str | None) -> float | None:
    factor = 1.0 if unit is None else _FACTORS[rule.unit].get(unit.lower())
    if factor is None:
        return None
    value = float(digits) * factor
    return value if abs(value) <= VALUE_MAX else None
