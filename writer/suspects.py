"""Partitions in trouble that may pass by itself: when to look at them again, when an operator must act. Pure.

A leader that has just lost its office, or a moment of failover, can show a log that ends too early or holds other frames.
So a partition is halted only when the same kind of trouble was seen `observations` times in a row, each time in a session of
its own; between them it is set aside for a while and the writer's other partitions go on. Progress clears the suspicion.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(slots=True)
class _Suspicion:
    kind: str
    times: int
    look_again_s: float


class Suspects:
    """What was observed of each partition. Times are of any monotonic clock, the same for every call."""

    def __init__(self, *, observations: int, pause_s: float) -> None:
        """observations: after so many in a row the trouble is certain; pause_s: between two of them."""
        self._observations = observations
        self._pause_s = pause_s
        self._suspicions: dict[int, _Suspicion] = {}

    def observe(self, partition: int, kind: str, now_s: float) -> bool:
        """Note trouble. True: it is certain by now, and forgotten here. False: the partition is set aside for a while."""
        before = self._suspicions.pop(partition, None)
        times = before.times + 1 if before is not None and before.kind == kind else 1
        if times >= self._observations:
            return True
        self._suspicions[partition] = _Suspicion(kind, times, now_s + self._pause_s)
        return False

    def clear(self, partition: int) -> None:
        """The partition was stored from, or read to its end: whatever it was is over."""
        self._suspicions.pop(partition, None)

    def times(self, partition: int) -> int:
        """How often in a row trouble was seen."""
        suspicion = self._suspicions.get(partition)
        return suspicion.times if suspicion is not None else 0

    def is_set_aside(self, partition: int, now_s: float) -> bool:
        """True while the partition is not to be looked at."""
        suspicion = self._suspicions.get(partition)
        return suspicion is not None and now_s < suspicion.look_again_s

    def look_again_s(self, partitions: Iterable[int], now_s: float) -> float:
        """When the first of these that is set aside is due again; infinity when none is."""
        return min(
            (self._suspicions[each].look_again_s for each in partitions if self.is_set_aside(each, now_s)),
            default=math.inf,
        )
