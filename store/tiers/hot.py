"""How long rows stay in their table, by service. Pure."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from store.tiers.settings import TierSettings

_DAY_US: Final = 86_400_000_000


class HotWindows:
    """The hot windows in force."""

    def __init__(self, settings: TierSettings) -> None:
        """hot_days and hot_days_by_service of it."""
        self._default_us = settings.hot_days * _DAY_US
        self._by_pattern = {pattern: days * _DAY_US for pattern, days in settings.hot_days_by_service.items()}

    def longest_us(self, services: Iterable[str]) -> int:
        """How long after its end a table with rows of these services stays; that of all others when there are none."""
        return max(map(self._of, services), default=self._default_us)

    def _of(self, service: str) -> int:
        for pattern, window_us in self._by_pattern.items():
            is_prefix = pattern.endswith("*")
            if service.startswith(pattern[:-1]) if is_prefix else service == pattern:
                return window_us
        return self._default_us
