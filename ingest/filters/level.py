"""Drops logs below a level."""

from __future__ import annotations

from ingest.filters.verdicts import PASS, AnyLog, Drop, Gist, Occasion, Verdict


class Level:
    """Minimum level."""

    reads_metadata = False

    def __init__(self, name: str, *, minimum: int) -> None:
        """minimum: least severity number (1..24) that passes."""
        self.name = name
        self._minimum = minimum
        self._drop = Drop(name)

    def judge(self, log: AnyLog, occasion: Occasion) -> Verdict:
        """Drop what is less severe than the minimum."""
        return PASS if log.level >= self._minimum else self._drop

    def passes_all(self, gist: Gist, occasion: Occasion) -> bool:
        """Whether the least severe log passes."""
        return gist.least_level >= self._minimum
