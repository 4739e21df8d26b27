"""Drops logs by a predicate of the query language, the one that pages, alerts and routes use."""

from __future__ import annotations

from collections.abc import Callable

from ingest.filters.verdicts import PASS, Drop, Occasion, Verdict
from schemas.record import Log


class Where:
    """Drops what matches, or what does not."""

    def __init__(self, name: str, *, matches: Callable[[Log], bool], drop_matching: bool) -> None:
        """matches: the compiled predicate. drop_matching False: keep only what matches."""
        self.name = name
        self._matches = matches
        self._drop_matching = drop_matching
        self._drop = Drop(name)

    def judge(self, log: Log, occasion: Occasion) -> Verdict:
        """Ask the predicate."""
        return self._drop if self._matches(log) is self._drop_matching else PASS
