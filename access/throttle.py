"""How often somebody may try a password: pure. Time is an argument.

Failures are counted per account and per address (IPv6: per /64). The first five cost nothing; the next waits for five seconds
and each for twice as long as the one before, up to a minute for an account, so that nobody locks others out for long, and five
for an address. An attempt counts when it begins, so that many at once gain nothing; a success clears the account. Counts are of
one process, forgotten after an hour, and the oldest go first past ENTRIES_MAX.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from typing import Final

from access.errors import TooManyLogins
from runtime.addresses import network_of

ENTRIES_MAX: Final = 20_000
_FREE: Final = 5
_WAIT_FIRST_S: Final = 5.0
_ACCOUNT_WAIT_S_MAX: Final = 60.0
_ADDRESS_WAIT_S_MAX: Final = 300.0
_FORGOTTEN_S: Final = 3_600.0


class LoginThrottle:
    """Counts of failures."""

    def __init__(self) -> None:
        """Nobody has failed."""
        self._failures: OrderedDict[str, tuple[int, float]] = OrderedDict()
        """Who -> failures, and when the next attempt may begin (monotonic seconds)."""

    def begin(self, account: str, address: str, *, now_s: float) -> None:
        """Count an attempt as failed until `succeeded` says otherwise. Raises TooManyLogins; that attempt does not count."""
        keys = (
            ("account " + account[:200], _ACCOUNT_WAIT_S_MAX),
            ("address " + network_of(address), _ADDRESS_WAIT_S_MAX),
        )
        waits_s = max(self._failures.get(key, (0, 0.0))[1] - now_s for key, _ in keys)
        if waits_s > 0:
            raise TooManyLogins(
                f"too many failed attempts: wait {math.ceil(waits_s)} s", retry_after_s=math.ceil(waits_s)
            )
        for key, wait_s_max in keys:
            failures, until_s = self._failures.get(key, (0, 0.0))
            if until_s + _FORGOTTEN_S < now_s:
                failures = 0
            failures += 1
            wait_s = 0.0 if failures < _FREE else min(_WAIT_FIRST_S * 2.0 ** min(failures - _FREE, 16), wait_s_max)
            self._failures[key] = (failures, now_s + wait_s)
            self._failures.move_to_end(key)
        while len(self._failures) > ENTRIES_MAX:
            self._failures.popitem(last=False)

    def succeeded(self, account: str, address: str) -> None:
        """Clear the account, and take the attempt back from the address: others behind it may be guessing."""
        self._failures.pop("account " + account[:200], None)
        self._take_back("address " + network_of(address))

    def take_back(self, account: str, address: str) -> None:
        """The attempt was not judged: it says nothing of who made it."""
        self._take_back("account " + account[:200])
        self._take_back("address " + network_of(address))

    def _take_back(self, key: str) -> None:
        failures, until_s = self._failures.get(key, (0, 0.0))
        if failures <= 1:
            self._failures.pop(key, None)
        else:
            self._failures[key] = (failures - 1, 0.0 if failures - 1 < _FREE else until_s)
