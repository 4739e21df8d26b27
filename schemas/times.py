"""Times as answers and files write them. Apart from the models of answers, which commands that write files do without."""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Final

_EPOCH: Final = datetime(1970, 1, 1)
"""In UTC; without a zone, so that none is written."""


def time_text(us: int) -> str:
    """Microseconds since the Unix epoch as `2026-11-22T12:34:56.123456Z`."""
    # strftime takes ten times as long: it was a third of a page.
    return (_EPOCH + timedelta(microseconds=us)).isoformat(timespec="microseconds") + "Z"
