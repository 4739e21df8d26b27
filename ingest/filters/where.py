"""Drops logs by a predicate of the query language, the one that pages, alerts and routes use."""

from __future__ import annotations

from collections.abc import Callable

from ingest.filters.verdicts import PASS, AnyLog, Drop, Gist, Occasion, Verdict


class Where:
    """Drops what matches, or what does not."""

    def __init__(
        self, name: str, *, matches: Callable[[AnyLog], bool], drop_matching: bool, reads_metadata: bool
    ) -> None:
        """matches: the compiled predicate. drop_matching False: keep only what matches."""
        self.name = name
        self._matches = matches
        self._drop_matching = drop_matching
        self._drop = Drop(name)
        self.reads_metadata = reads_metadata

    def judge(self, log: AnyLog, occasion: Occasion) -> Verdict:
        """Ask the predicate."""
        return self._drop if self._matches(log) is self._drop_matching else PASS

    def passes_all(self, gist: Gist, occasion: Occasion) -> bool:
        """Never known of a whole request."""
        return False
