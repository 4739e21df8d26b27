"""Logs in, patterns and counts out. Pure: no clock, no await.

Bounded by whoever drains it when `is_full`: a frame of 20,000 patterns more never fills what it holds, so that every line is
counted under its pattern. What is held belongs together: counts, what became of patterns, and the snapshot of the miner after
them.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from patterns.counts import OTHER, Counted, PatternCounts, latest
from patterns.miner import Limits, Miner
from schemas.record import Log
from schemas.scope import RESERVED_SERVICES

ROWS_MAX: Final = 50_000
_FULL: Final = 30_000
"""A request of 10,000 logs, as many as ingest takes, fits into the rest."""
_CHANGES_MAX: Final = 200_000
_CHANGES_FULL: Final = 50_000


class Tally:
    """The miner, and what it found since it was drained. One task."""

    def __init__(self, snapshot: bytes | None = None, limits: Limits | None = None) -> None:
        """snapshot: of the miner to go on with; None begins anew. Raises InvalidSnapshot."""
        if snapshot is None:
            self.miner = Miner(limits, changes_max=_CHANGES_MAX)
        else:
            self.miner = Miner.restore(snapshot, limits, changes_max=_CHANGES_MAX)
        self._is_new = snapshot is None
        self._counts = PatternCounts(ROWS_MAX)
        self._texts: dict[int, str] = {}

    def take(self, logs: Iterable[Log]) -> int:
        """Count logs, but for our own services' (the audit log). Returns how many were counted."""
        template_of, add, texts = self.miner.template_of, self._counts.add, self._texts
        taken = 0
        for log in logs:
            if log.service_name in RESERVED_SERVICES:
                continue
            template = template_of(log.service_name, log.message)
            add(log.timestamp, log.service_name, log.level, template.id, log.id)
            texts[template.id] = template.text
            taken += 1
        return taken

    @property
    def is_full(self) -> bool:
        """Whether it must be drained before more is taken."""
        return len(self._counts) >= _FULL or len(self._texts) >= _CHANGES_FULL

    def drain(self, *, with_snapshot: bool = False) -> Counted:
        """All that came since the last drain. with_snapshot: of the miner, also where it has learnt nothing."""
        changes = self.miner.changes()
        texts, self._texts = self._texts, {}
        texts |= {change.id: change.text for change in changes.created}
        texts[OTHER] = ""
        merged = changes.into()
        revived = {(change.service, change.id) for change in changes.created}
        if merged:
            # Made and merged, or merged and made again: the miner knows which. So it does the texts of what was there before.
            live = {(template.service, template.id): template.text for template in self.miner.templates()}
            texts |= {into: live[service, into] for (service, _), into in merged.items() if (service, into) in live}
            merged = {step: into for step, into in merged.items() if step not in live and into in texts}
            revived -= merged.keys()
        steps = {step: latest(step[0], step[1], merged) for step in merged}
        rows = self._counts.drain(steps)
        is_learnt = self._is_new or with_snapshot or bool(changes.created or changes.merged or changes.lost)
        self._is_new = False
        return Counted(
            rows=rows,
            texts=texts,
            merged=steps,
            revived=sorted(revived),
            snapshot=self.miner.snapshot() if is_learnt else None,
        )
