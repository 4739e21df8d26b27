"""Token buckets and a bounded table of them: pure. Time is an argument.

A bucket fills at its rate up to its burst. Where a whole is taken, one token is enough to take all of it, below zero where need
be, and the next waits until that is paid off: so what is larger than the burst can pass at all, and the average holds.

The table never forgets what a bucket owes, however many names are made up: only one that is full again, which holds no
information, makes room. While none is, newcomers get none of their own, and whoever asked has them share one. One event loop,
no locks.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass
from typing import Final

RETRY_AFTER_S_MAX: Final = 3600
_LOOKS: Final = 4
"""Buckets that are looked at for one newcomer. Those found in use go behind the others, so that one that owes much and is never
used again keeps no other from making room."""


@dataclass(frozen=True, slots=True)
class Rate:
    """How much may come."""

    per_s: float
    """Tokens per second, more than 0."""
    burst: float
    """Tokens of a full bucket, at least 1."""


@dataclass(slots=True, eq=False)
class TokenBucket:
    """Tokens at a moment; below zero while a whole that was let in is being paid off."""

    rate: Rate
    tokens: float
    filled_at_s: float

    @classmethod
    def full(cls, rate: Rate, now_s: float) -> TokenBucket:
        """Nothing was taken yet. now_s: monotonic seconds."""
        return cls(rate, rate.burst, now_s)

    def refill(self, now_s: float) -> None:
        """Bring it to this moment."""
        elapsed_s = now_s - self.filled_at_s
        if elapsed_s > 0.0:
            self.tokens = min(self.rate.burst, self.tokens + elapsed_s * self.rate.per_s)
            self.filled_at_s = now_s

    def seconds_until_token(self) -> int:
        """Whole seconds after which one is there, for Retry-After: 1..RETRY_AFTER_S_MAX."""
        return max(1, min(RETRY_AFTER_S_MAX, math.ceil((1.0 - self.tokens) / self.rate.per_s)))


class BucketTable:
    """Buckets by name, at most `buckets_max` of about 300 bytes each."""

    def __init__(self, buckets_max: int) -> None:
        """buckets_max: at least 1."""
        self._buckets_max = buckets_max
        self._buckets: OrderedDict[str, TokenBucket] = OrderedDict()

    def __len__(self) -> int:
        """Number of buckets."""
        return len(self._buckets)

    def find(self, name: str) -> TokenBucket | None:
        """The bucket, as it was when it was last refilled."""
        bucket = self._buckets.get(name)
        if bucket is not None:
            self._buckets.move_to_end(name)
        return bucket

    def add(self, name: str, rate: Rate, now_s: float) -> TokenBucket | None:
        """A full bucket for a name that has none; None when there is no room for it."""
        if len(self._buckets) >= self._buckets_max and not self._make_room(now_s):
            return None
        bucket = self._buckets[name] = TokenBucket.full(rate, now_s)
        return bucket

    def _make_room(self, now_s: float) -> bool:
        for _ in range(min(_LOOKS, len(self._buckets))):
            name, oldest = next(iter(self._buckets.items()))
            oldest.refill(now_s)
            if oldest.tokens >= oldest.rate.burst:
                del self._buckets[name]
                return True
            self._buckets.move_to_end(name)
        return False
