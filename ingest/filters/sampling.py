"""Keeps a share of the logs.

The share of a log is that of its service, else that of its level, else the general one. Without an Idempotency-Key
chance decides; with one a hash of key, name and index does, so that a retry keeps the same logs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import blake2b

from ingest.filters.verdicts import PASS, AnyLog, Drop, Gist, Occasion, Verdict
from schemas.levels import level_name


class Sampling:
    """Keeps each log with a probability."""

    reads_metadata = False

    def __init__(
        self,
        name: str,
        *,
        rate: float,
        by_level: Mapping[str, float],
        by_service: Mapping[str, float],
        random: Callable[[], float],
    ) -> None:
        """Rates are 0..1, 1 keeps everything. by_level: band's name -> rate. random: uniform in [0, 1)."""
        self.name = name
        self._rate = rate
        self._by_level = dict(by_level)
        self._by_service = dict(by_service)
        self._random = random
        self._salt = name.encode()
        self._drop = Drop(name)

    def judge(self, log: AnyLog, occasion: Occasion) -> Verdict:
        """Keep the log's share."""
        rate = self._by_service.get(log.service_name)
        if rate is None:
            rate = self._by_level.get(level_name(log.level), self._rate)
        if rate >= 1.0:
            return PASS
        chance = self._random() if occasion.key is None else self._hashed(occasion.key, occasion.index)
        return PASS if chance < rate else self._drop

    def passes_all(self, gist: Gist, occasion: Occasion) -> bool:
        """Chance decides of each log."""
        return False

    def _hashed(self, key: bytes, index: int) -> float:
        digest = blake2b(b"%d:%b" % (index, self._salt), key=key, digest_size=8).digest()
        return int.from_bytes(digest, "big") / 2**64
