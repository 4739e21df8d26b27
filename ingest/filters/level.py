"""Drops logs below a level."""

from __future__ import annotations

from ingest.filters.verdicts import PASS, Drop, Occasion, Verdict
from schemas.record import Log


class Level:
    """Minimum level."""

    def __init__(self, name: str, *, minimum: int) -> None:
        """minimum: least severity number (1..24) that passes."""
        self.name = name
        self._minimum = minimum
        self._drop = Drop(name)

    def judge(self, log: Log, occasion: Occasion) -> Verdict:
        """Drop what is less severe than the minimum."""
        return PASS if log.level >= self._minimum else self._drop
