"""Which patterns of messages are new to their service. Pure; saved with its rule's state.

A rule has a miner of its own, fed with the rule's logs only, so that a backtest over the same logs decides the same. A pattern
is new when a line makes it. One that several known ones become part of says nothing new and is known at once.

Bounded: the miner knows TEMPLATES_MAX patterns; which ones there were is remembered of KNOWN_MAX, so that a pattern that the
miner let go and meets again is not told twice. Past these the oldest are forgotten.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from patterns.miner import InvalidSnapshot, Limits, Miner

TEMPLATES_MAX: Final = 2_000
SERVICE_TEMPLATES_MAX: Final = 1_000
KNOWN_MAX: Final = 50_000


class Novelty:
    """Of one rule. Feed it each log once."""

    def __init__(self, snapshot: bytes = b"", known: Mapping[str, list[int]] | None = None) -> None:
        """As `saved` gave them. A snapshot that cannot be read is as good as none: what is known is not told again."""
        limits = Limits(templates=TEMPLATES_MAX, service_templates=SERVICE_TEMPLATES_MAX)
        try:
            self._miner = Miner.restore(snapshot, limits) if snapshot else Miner(limits)
        except InvalidSnapshot:
            self._miner = Miner(limits)
        self._known: dict[tuple[str, int], None] = {
            (service, each): None for service, ids in (known or {}).items() for each in ids
        }
        self.has_learnt = False
        """Since `saved` was asked."""

    def look(self, service: str, message: str) -> tuple[str, bool]:
        """The text of the line's pattern, and whether its service has it for the first time."""
        template = self._miner.template_of(service, message)
        if (service, template.id) in self._known:
            return template.text, False
        changes = self._miner.changes()
        general = {(change.service, change.into_id) for change in changes.merged}
        is_new = (service, template.id) not in general and any(
            change.service == service and change.id == template.id for change in changes.created
        )
        for key in (*general, (service, template.id)):
            self._known[key] = None
        while len(self._known) > KNOWN_MAX:
            del self._known[next(iter(self._known))]
        self.has_learnt = True
        return template.text, is_new

    def saved(self) -> tuple[bytes, dict[str, list[int]]]:
        """A snapshot of the miner, and service -> ids of patterns that are known."""
        self.has_learnt = False
        known: dict[str, list[int]] = {}
        for service, template_id in self._known:
            known.setdefault(service, []).append(template_id)
        return self._miner.snapshot(), known
