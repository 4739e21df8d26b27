"""Rates as people write and read them: 5000/s, 5MB/s, 300/min; none for no limit."""

from __future__ import annotations

import math
import re
from typing import Final

from schemas.errors import InvalidInput

_RATE: Final = re.compile(r"(\d{1,12}(?:\.\d{1,6})?)\s*([kKMG]i?)?(B)?/(s|min|h)")
_SECONDS: Final = re.compile(r"(\d{1,6}(?:\.\d{1,3})?)\s*(s|min)")
_FACTORS: Final = {"": 1, "k": 10**3, "M": 10**6, "G": 10**9, "ki": 2**10, "Mi": 2**20, "Gi": 2**30}
_PERIODS_S: Final = {"s": 1, "min": 60, "h": 3600}
_NONE: Final = "none"


def logs_rate(text: str) -> float:
    """Logs per second; infinite for `none`. Raises InvalidInput."""
    return _rate(text, option="--rate", is_bytes=False, example="5000/s, 300/min")


def bytes_rate(text: str) -> float:
    """Bytes per second; infinite for `none`. Raises InvalidInput."""
    return _rate(text, option="--rate-bytes", is_bytes=True, example="5MB/s, 512KiB/s")


def burst_seconds(text: str) -> float:
    """Raises InvalidInput."""
    match = _SECONDS.fullmatch(text.strip())
    seconds = 0.0 if match is None else float(match[1]) * _PERIODS_S[match[2]]
    if not 0 < seconds <= 3600:
        raise InvalidInput(f"--burst: expected seconds' worth up to an hour, such as 10s, got {text[:60]!r}")
    return seconds


def rate_text(per_s: float, *, is_bytes: bool) -> str:
    """As it can be typed again."""
    if math.isinf(per_s):
        return _NONE
    unit = "B" if is_bytes else ""
    for prefix, factor in (("G", 10**9), ("M", 10**6), ("k", 10**3)):
        if is_bytes and per_s >= factor and per_s % factor == 0:
            return f"{per_s / factor:g}{prefix}B/s"
    return f"{per_s:.12g}{unit}/s"


def _rate(text: str, *, option: str, is_bytes: bool, example: str) -> float:
    if text.strip() == _NONE:
        return math.inf
    match = _RATE.fullmatch(text.strip())
    per_s = 0.0
    if match is not None and (is_bytes or not match[3]):
        per_s = float(match[1]) * _FACTORS[(match[2] or "").replace("K", "k")] / _PERIODS_S[match[4]]
    if per_s <= 0:
        raise InvalidInput(f"{option}: expected a rate such as {example}, or {_NONE}, got {text[:60]!r}")
    return per_s
