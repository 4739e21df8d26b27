"""What a filter says of a log, and what it may know beside the log.

A filter is a function of the log and the occasion. Expected outcomes are values; a filter never raises for one.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Final, Protocol

import msgspec

from schemas.record import Log


class Pass(msgspec.Struct, frozen=True):
    """The log goes on, as `log` where the filter changed it, else unchanged."""

    log: Log | None = None


class Drop(msgspec.Struct, frozen=True):
    """The log ends here, counted under the filter's name."""

    filter: str


class Refuse(msgspec.Struct, frozen=True):
    """The whole request is refused; it may succeed after `retry_after_s` seconds."""

    filter: str
    retry_after_s: int


Verdict = Pass | Drop | Refuse
PASS: Final = Pass()
"""Goes on unchanged: one object, so that the common case allocates nothing."""


@dataclass(slots=True, eq=False)
class TokenBucket:
    """Tokens of one service; below zero while a request that was let in as a whole is being paid off."""

    tokens: float
    filled_at_s: float


@dataclass(slots=True)
class Occasion:
    """The request a log came with. `index` moves along with the logs.

    key: hash of the Idempotency-Key; the chain is then a pure function of the body, but for refusing it as a whole.
    admitted: a retry of a request that was let in before: limits do not count it again.
    """

    now_s: float
    """Monotonic seconds."""
    key: bytes | None = None
    admitted: bool = False
    index: int = 0
    taken: dict[TokenBucket, int] = field(default_factory=dict)
    """Tokens this request took, given back when it is refused."""


class Filter(Protocol):
    """One rule."""

    @property
    def name(self) -> str:
        """Name under which drops are counted."""

    def judge(self, log: Log, occasion: Occasion) -> Verdict:
        """What becomes of the log. Must not change it in place, nor raise, nor wait."""
