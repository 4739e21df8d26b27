"""Keeps repeated log lines apart: what goes on is said once a minute, what changes at once. Pure.

Whoever logs within a loop that tries again, or once per request, asks here first; how many lines were left out is told
with the next one. Bounded: of more kinds of lines than `KINDS_MAX` the one said longest ago is forgotten.
"""

from __future__ import annotations

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Final

EVERY_S: Final = 60.0
KINDS_MAX: Final = 100


@dataclass(slots=True)
class _Said:
    at_s: float
    left_out: int = 0


class Sparing:
    """Which lines are due. Times are of any monotonic clock, the same for every call."""

    def __init__(self, *, every_s: float = EVERY_S) -> None:
        """every_s: between two lines that say the same."""
        self._every_s = every_s
        self._said: dict[Hashable, _Said] = {}

    def due(self, what: Hashable, now_s: float) -> int | None:
        """None: leave the line out. Else write it, and with it how many were left out since the last one.

        what: all that makes one line different from another, as its text.
        """
        said = self._said.get(what)
        if said is not None and now_s - said.at_s < self._every_s:
            said.left_out += 1
            return None
        self._said.pop(what, None)
        self._said[what] = _Said(now_s)
        if len(self._said) > KINDS_MAX:
            del self._said[next(iter(self._said))]
        return 0 if said is None else said.left_out

    def forget(self) -> None:
        """It went well: the next trouble is new."""
        self._said.clear()
