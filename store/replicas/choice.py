"""How fresh replicas are, and which of them may answer. Pure.

The primary is asked once a look how far its WAL reaches; whatever a replica has replayed to such a place, it shows everything
that was there when the primary was asked. So no clock of a server counts, and a quiet primary makes no replica old.

A replica that has replayed more than the primary has written followed another primary: one that failed before it had sent
all of it to the one that is primary now. It is left out until it has replayed something else.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from db.replication import PrimaryPosition, ReplicaPosition

SAMPLES_MAX: Final = 512
"""Looks at the primary that are remembered: more than replicas may be behind."""
AWAY_AFTER: Final = 2
"""Looks in a row that a primary does not answer before it counts as away."""


@dataclass(frozen=True, slots=True)
class Verdict:
    """What is known of a replica."""

    problem: str | None
    """Why it is left out, for people; None: it may answer."""
    behind_s: float | None = None
    """Everything that the primary had so many seconds ago is there; None: not known."""
    replayed: int = -1
    open: int = 0
    """Snapshots on it now."""


class Freshness:
    """Judges replicas by what the primary and they say of the WAL."""

    def __init__(self, *, lag_s_max: float) -> None:
        """lag_s_max: seconds that a replica that answers may be behind."""
        self._lag_s_max = lag_s_max
        self._samples: deque[tuple[float, int]] = deque(maxlen=SAMPLES_MAX)
        """(when the primary was asked, how far its WAL reached by then at least), oldest first."""
        self._primary: PrimaryPosition | None = None
        self._unanswered = AWAY_AFTER
        """Looks in a row."""
        self._strangers: dict[int, int] = {}
        """Replica -> how far it had replayed what the primary has not written."""

    @property
    def is_away(self) -> bool:
        """Whether the primary does not answer."""
        return self._unanswered >= AWAY_AFTER

    def note_primary(self, position: PrimaryPosition | None, at_s: float) -> None:
        """at_s: before it was asked, monotonic. None: it did not answer."""
        if position is None:
            self._unanswered += 1
            return
        self._unanswered = 0
        known = self._primary
        if known is not None and (position.started != known.started or position.written < known.written):
            self._samples.clear()  # another server, and another history from some place on
        self._primary = position
        self._samples.append((at_s, position.written))

    def judge(self, replica: int, position: ReplicaPosition, now_s: float) -> Verdict:
        """position: asked before the primary was, in the same look; replica: its number."""
        replayed = position.replayed
        if not position.is_replica or replayed is None:
            return Verdict("it is no replica (any more)")
        primary = self._primary
        if primary is None:
            return Verdict("the primary was not seen yet")
        if position.cluster != primary.cluster:
            return Verdict("it is a replica of another database")
        if not self._unanswered and replayed > primary.written:
            self._strangers[replica] = replayed
        if self._strangers.get(replica) == replayed:
            return Verdict("it has followed another primary, which was ahead of this one: make it anew (pg_rewind)")
        self._strangers.pop(replica, None)
        behind_s = self._behind_s(replayed, now_s)
        known_s = None if math.isinf(behind_s) else behind_s
        # While the primary is away nothing is newer anywhere. What is shown says itself how far it reaches.
        if not self.is_away and behind_s > self._lag_s_max:
            told = "more" if known_s is None else f"{behind_s:.0f} s"
            return Verdict(f"it is {told} behind, at most {self._lag_s_max:g} s are allowed", known_s, replayed)
        return Verdict(None, known_s, replayed)

    def _behind_s(self, replayed: int, now_s: float) -> float:
        for number, (asked_s, written) in enumerate(reversed(self._samples)):
            if replayed >= written:
                return 0.0 if number == 0 else now_s - asked_s
        return math.inf


def in_turn(verdicts: Sequence[Verdict], *, is_away: bool) -> list[int]:
    """Numbers of the replicas that may answer, the best first: the one with the fewest snapshots open; while the primary is
    away the one that has replayed the most, since nobody can do better."""
    fit = [number for number, verdict in enumerate(verdicts) if verdict.problem is None]
    if is_away:
        return sorted(fit, key=lambda number: (-verdicts[number].replayed, verdicts[number].open))
    return sorted(fit, key=lambda number: verdicts[number].open)
