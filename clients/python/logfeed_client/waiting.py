"""How long to wait before asking a server again: pure.

What the server asks for (`Retry-After`, RFC 9110: seconds or a date) is waited out in full; without it pauses double. Both are
stretched by chance, so that clients which were refused together do not come back together.
"""

from __future__ import annotations

from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Final

PAUSE_S_MIN: Final = 0.25
PAUSE_S_MAX: Final = 30.0
ASKED_S_MAX: Final = 600.0
"""More than this a server is not believed: it would be a mistake, or somebody else's page."""
_DIGITS_MAX: Final = 9


def pause_s(attempt: int, asked_s: float | None, chance: float) -> float:
    """Seconds before the next attempt. attempt: from 0. asked_s: what the server asked for. chance: 0..1."""
    if asked_s is not None:
        return asked_s + chance * max(0.1, asked_s / 10)
    return float(min(PAUSE_S_MAX, PAUSE_S_MIN * 2.0 ** min(attempt, 16))) * (0.5 + chance / 2)


def retry_after_s(header: str | None, now_s: float) -> float | None:
    """Seconds that a `Retry-After` asks for, 0..ASKED_S_MAX; None when it asks for none. now_s: since 1970."""
    if header is None:
        return None
    text = header.strip()
    if text.isascii() and text.isdecimal() and len(text) <= _DIGITS_MAX:
        return min(float(text), ASKED_S_MAX)
    try:
        until = parsedate_to_datetime(text)
        until = until if until.tzinfo else until.replace(tzinfo=UTC)
        return min(max(0.0, (until - datetime.fromtimestamp(now_s, UTC)).total_seconds()), ASKED_S_MAX)
    except (ValueError, TypeError, IndexError, OverflowError):
        return None
