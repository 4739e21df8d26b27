"""Runs filters in order. The first that does not let a log pass decides; later ones see what earlier ones changed.

kept + dropped + (all, when the request is refused) = input. A refusal gives back every token the request had taken, so
that it leaves nothing behind.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from ingest.filters.verdicts import PASS, Drop, Filter, Occasion, Pass, Refuse, Verdict
from schemas.record import Log


@dataclass(slots=True)
class Judged:
    """What became of the logs of one request."""

    kept: list[Log] = field(default_factory=list)
    dropped: list[tuple[Log, str]] = field(default_factory=list)
    """(log, name of the filter)"""
    refusal: Refuse | None = None
    """Set: nothing is kept and nothing counts as dropped."""

    @property
    def dropped_by(self) -> Counter[str]:
        """Drops by the filter's name."""
        return Counter(name for _, name in self.dropped)


class Chain:
    """An ordered list of filters with different names."""

    def __init__(self, filters: Sequence[Filter] = ()) -> None:
        """filters: in the order in which they are asked."""
        self._filters = tuple(filters)

    @property
    def names(self) -> list[str]:
        """Names of the filters, in order."""
        return [rule.name for rule in self._filters]

    def judge(self, log: Log, occasion: Occasion) -> Verdict:
        """The verdict on one log; `Pass.log` is set when any filter changed it."""
        changed: Log | None = None
        for rule in self._filters:
            verdict = rule.judge(log, occasion)
            if verdict is PASS:
                continue
            if not isinstance(verdict, Pass):
                return verdict
            if verdict.log is not None:
                log = changed = verdict.log
        return PASS if changed is None else Pass(changed)

    def judge_all(self, logs: Iterable[tuple[int, Log]], occasion: Occasion) -> Judged:
        """Judge the logs of one request, given with their index in it. Stops at the first refusal."""
        judged = Judged()
        if not self._filters:
            judged.kept = [log for _, log in logs]
            return judged
        for index, log in logs:
            occasion.index = index
            match self.judge(log, occasion):
                case Pass(log=changed):
                    judged.kept.append(log if changed is None else changed)
                case Drop(filter=name):
                    judged.dropped.append((log, name))
                case Refuse() as refusal:
                    for bucket, tokens in occasion.taken.items():
                        bucket.tokens += tokens
                    occasion.taken.clear()
                    return Judged(refusal=refusal)
        return judged
