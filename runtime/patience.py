"""How long to wait before a request is sent again. Pure."""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

_PAUSE_FIRST_S: Final = 0.25
_PAUSE_MAX_S: Final = 15.0
_RETRY_AFTER_DIGITS_MAX: Final = 9
"""Digits of seconds: a server that asks for more than decades says nothing of use."""


def pause_before(attempt: int, asked_s: float | None, chance: float) -> float:
    """Seconds before the next attempt. attempt: from 0. asked_s: what the server asked for. chance: 0..1, spreads clients."""
    grown_s = min(_PAUSE_MAX_S, _PAUSE_FIRST_S * 2.0 ** min(attempt, 16)) * (0.5 + chance / 2)
    return grown_s if asked_s is None else asked_s + chance * 0.1


def retry_after_s(header: str | None, now_us: int) -> float | None:
    """Seconds that a Retry-After header asks for (a number or a date, RFC 9110); None when it asks for none."""
    if header is None:
        return None
    seconds = header.strip()
    if seconds.isascii() and seconds.isdigit() and len(seconds) <= _RETRY_AFTER_DIGITS_MAX:
        return float(seconds)
    try:
        until = parsedate_to_datetime(header)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
    until = until if until.tzinfo else until.replace(tzinfo=UTC)
    return max(0.0, (until - datetime.fromtimestamp(now_us / 1e6, UTC)).total_seconds())
