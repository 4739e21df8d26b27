"""Loki's parameters: pure. Those that there are not are passed over, as its clients expect."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from query.loki.logql import parse_duration_s
from search.params import ParameterError, parse_time
from search.predicate import TIMESTAMP_MAX_US, TIMESTAMP_MIN_US
from store.port import Order

Items = Sequence[tuple[str, str]]
LIMIT_DEFAULT: Final = 100
LIMIT_MAX: Final = 5_000
POINTS_MAX: Final = 11_000
"""Of one series, as in Loki."""
_HOUR_US: Final = 3_600_000_000
_FLOAT: Final = re.compile(r"-?[0-9]{1,15}\.[0-9]{0,15}")
_INTEGER: Final = re.compile(r"-?[0-9]{1,20}")


@dataclass(frozen=True, slots=True)
class Span:
    """start_us inclusive, end_us exclusive."""

    start_us: int
    end_us: int


def one(items: Items, *names: str) -> str | None:
    """The first value of any of these; None: there is none, or it is empty."""
    return next((value for name, value in items if name in names and value), None)


def all_of(items: Items, *names: str) -> list[str]:
    """Every value of these."""
    return [value for name, value in items if name in names and value]


def query_of(items: Items) -> str:
    """Raises ParameterError where there is none."""
    text = one(items, "query")
    if text is None:
        raise ParameterError("query", 'is missing: {service_name="shop"} asks for logs of a service')
    return text


def span(items: Items, now_us: int) -> Span:
    """Of `start`, `end`, `since`: the hour before now where they are not given. Raises ParameterError."""
    end = one(items, "end")
    end_us = now_us if end is None else time_us(end, "end")
    since = one(items, "since")
    since_us = _HOUR_US if since is None else duration_us(since, "since")
    start = one(items, "start")
    start_us = min(end_us, now_us) - since_us if start is None else time_us(start, "start")
    if start_us > end_us:
        raise ParameterError("end", "must not be before start")
    return Span(max(start_us, TIMESTAMP_MIN_US), max(end_us, start_us, TIMESTAMP_MIN_US))


def time_us(text: str, parameter: str) -> int:
    """Microseconds since 1970 of nanoseconds, of seconds (ten digits at most, or with a point), or of RFC 3339. Nanoseconds are
    rounded up: logs stand at whole microseconds, so what is not before the one is not before the other. (logcli asks for the
    next page up to its last line's time and one nanosecond.) Raises ParameterError."""
    if _FLOAT.fullmatch(text):
        us = round(float(text) * 1e6)
    elif _INTEGER.fullmatch(text):
        us = int(text) * 1_000_000 if len(text) <= 10 else -(-int(text) // 1_000)
    else:
        if text == "now" or text.startswith("-"):
            raise ParameterError(
                parameter, f"expected nanoseconds or seconds since 1970 or RFC 3339, got {text[:60]!r}"
            )
        return parse_time(text, 0, parameter=parameter)
    if not TIMESTAMP_MIN_US <= us <= TIMESTAMP_MAX_US:
        raise ParameterError(parameter, f"{text[:60]!r} is not in the years 1..9999")
    return us


def duration_us(text: str, parameter: str) -> int:
    """Of `5m`, or of seconds as a number. Raises ParameterError."""
    if _FLOAT.fullmatch(text) or _INTEGER.fullmatch(text):
        seconds: float | None = float(text)
    else:
        seconds = parse_duration_s(text)
    if seconds is None or not math.isfinite(seconds) or not 1e-6 <= seconds <= 4e10:
        raise ParameterError(parameter, f"expected a duration such as 5m or seconds above 0, got {text[:60]!r}")
    return round(seconds * 1e6)


def step_us(items: Items, asked: Span) -> int:
    """Of `step`; where it is not given, so that there are 250 points. Raises ParameterError."""
    text = one(items, "step")
    length_us = asked.end_us - asked.start_us
    step = max(1, length_us // 250_000_000) * 1_000_000 if text is None else duration_us(text, "step")
    if length_us // step > POINTS_MAX:
        raise ParameterError(
            "step", f"exceeded maximum resolution of {POINTS_MAX:,} points per timeseries: use a larger step"
        )
    return step


def limit(items: Items, *, default: int = LIMIT_DEFAULT, most: int = LIMIT_MAX, name: str = "limit") -> int:
    """Raises ParameterError."""
    text = one(items, name)
    if text is None:
        return default
    if not text.isascii() or not text.isdecimal() or len(text) > 10 or int(text) == 0:
        raise ParameterError(name, f"expected 1..{most}, got {text[:40]!r}")
    if int(text) > most:
        raise ParameterError(
            name, f"max entries limit per query exceeded, {name} > max_entries_limit_per_query ({text} > {most})"
        )
    return int(text)


def order(items: Items) -> Order:
    """Of `direction`: backward by default. Raises ParameterError."""
    text = (one(items, "direction") or "backward").lower()
    if text not in ("backward", "forward"):
        raise ParameterError("direction", f"expected backward or forward, got {text[:40]!r}")
    return Order.NEWEST_FIRST if text == "backward" else Order.OLDEST_FIRST


def documented(*names: str) -> list[dict[str, Any]]:
    """As OpenAPI writes them."""
    return [
        {
            "name": name,
            "in": "query",
            "required": name == "query",
            "schema": {"type": "string"},
            "description": _DESCRIPTIONS[name],
        }
        for name in names
    ]


_DESCRIPTIONS: Final = {
    "query": "LogQL, the part of it that docs/grafana.md lists.",
    "selector": 'A selector, such as `{service_name="shop"}`; without it: of all that may be read.',
    "match[]": "A selector; several: series of any of them. `match` is the same.",
    "start": "Inclusive: nanoseconds or seconds since 1970, or RFC 3339. Default: an hour before the end.",
    "end": "Exclusive, as `start`. Default: now.",
    "since": "How long before the end to begin, where there is no `start`.",
    "time": "When: as `start`. Default: now.",
    "step": "Between two points: a duration, or seconds. Default: 250 points.",
    "limit": f"Most logs, 1..{LIMIT_MAX}. Default {LIMIT_DEFAULT}.",
    "line_limit": "Most logs that are looked at.",
    "direction": "`backward` (the default): the newest first; or `forward`.",
    "delay_for": "Passed over: what comes is shown at once.",
}
