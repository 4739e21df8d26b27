"""Durations as people write them: `30s`, `5m`, `1h30m`, `7d`. Pure."""

from __future__ import annotations

import re
from typing import Annotated, Any, Final

from pydantic import BeforeValidator, Field

_WHOLE: Final = re.compile(r"(?:\d{1,7}[smhdw]){1,5}", re.ASCII)
_PART: Final = re.compile(r"(\d+)([smhdw])")
_SECONDS: Final = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}


def parse_duration(value: Any) -> int:  # whatever YAML or JSON holds there
    """Whole seconds of `30s`, `5m`, `1h30m`, or of a number of seconds, also as text, as environments have it. Raises
    ValueError."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    if isinstance(value, str) and value.isascii() and value.isdigit() and len(value) <= 9:
        return int(value)
    if isinstance(value, str) and _WHOLE.fullmatch(value):
        return sum(int(number) * _SECONDS[unit] for number, unit in _PART.findall(value))
    raise ValueError("expected a duration such as 30s, 5m or 1h30m")


def duration_text(seconds: int) -> str:
    """The shortest text that `parse_duration` reads as this."""
    parts = []
    for unit in ("d", "h", "m", "s"):
        number, seconds = divmod(seconds, _SECONDS[unit])
        if number:
            parts.append(f"{number}{unit}")
    return "".join(parts) or "0s"


Duration = Annotated[int, BeforeValidator(parse_duration, json_schema_input_type=str | int), Field(examples=["5m"])]
"""Seconds, written as text or as a number."""
