"""What readers leave out because it is past its age, although its table or file is still there.

Counted by whole hours: what is hidden changes with the hour, and so does the revision of snapshots, by which answers are kept.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, Self

from schemas.record import Log
from search.match import compile_match
from search.predicate import Predicate, negate
from store.tiers.retention import RetentionPolicy

_HOUR_US: Final = 3_600_000_000


@dataclass(frozen=True, slots=True)
class Hiding:
    """Of one hour."""

    hour_us: int
    cutoff_us: int
    """No row with this timestamp or a later one is hidden."""
    gone_before_us: int
    """Every older row is."""
    shown: Predicate
    """True of the rows that are not."""
    _is_shown: Callable[[Log], bool]

    @classmethod
    def at(cls, policy: RetentionPolicy, now_us: int) -> Self:
        """now_us: by any clock within the hour."""
        hour_us = now_us - now_us % _HOUR_US
        shown = negate(policy.hidden(hour_us))
        return cls(hour_us, policy.cutoff_us(hour_us), hour_us - policy.longest_us, shown, compile_match(shown))

    def lasts(self, now_us: int) -> bool:
        """Whether it is still that hour."""
        return self.hour_us <= now_us < self.hour_us + _HOUR_US

    def shows(self, log: Log) -> bool:
        """Whether the log may be shown."""
        return log.timestamp >= self.cutoff_us or self._is_shown(log)
