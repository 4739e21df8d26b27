"""Questions as paths and parameters: pure. What they mean is the server's to say (docs/asking.md of Logfeed)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from typing import Final, TypedDict
from urllib.parse import quote

BASE: Final = "/api/v1"
PAGE_LOGS_MAX: Final = 1_000
Parameters = list[tuple[str, str]]
Names = str | Sequence[str]
"""One, or several: any of them."""
Time = datetime | timedelta | str
"""A moment (naive: local time, as everywhere in Python), so long before now, or a text as the API takes it: `-15m`, ISO
8601."""


class Filters(TypedDict, total=False):
    """What narrows an answer; all together."""

    query: str
    """In the query language: `timeout level:error user.id:42`."""
    service_name: Names
    """A name, or a prefix with `*` at its end."""
    level: Names
    min_level: str
    start_time: Time
    """Inclusive."""
    end_time: Time
    """Exclusive."""
    correlation_id: str
    q: str
    """The message contains this text, in either case."""
    regex: str
    metadata: Mapping[str, str | int | float | bool]
    """Fields that equal these; dots go deeper."""


_KNOWN: Final = frozenset(Filters.__annotations__)


def parameters_of(filters: Filters) -> Parameters:
    """Pairs as the API takes them. Raises TypeError for a filter that there is not."""
    unknown = filters.keys() - _KNOWN
    if unknown:
        raise TypeError(f"there is no filter {min(unknown)!r}: expected one of {', '.join(sorted(_KNOWN))}")
    found: Parameters = []
    for name, value in filters.items():
        match value:
            case None:
                continue
            case Mapping():
                found += [(f"metadata.{key}", _word(each)) for key, each in value.items()]
            case datetime() | timedelta():
                found.append((name, time_text(value)))
            case str():
                found.append((name, value))
            case Sequence():
                found += [(name, str(each)) for each in value]
            case _:
                raise TypeError(f"{name}: expected a text, got {type(value).__name__}")
    return found


def time_text(value: Time) -> str:
    """As the API takes times."""
    if isinstance(value, str):
        return value
    if isinstance(value, timedelta):
        value = datetime.now(UTC) - value
    return value.astimezone(UTC).isoformat()


def log_path(log_id: str | int) -> str:
    """Of one log."""
    return f"{BASE}/logs/{quote(str(log_id), safe='')}"


def correlation_path(correlation_id: str) -> str:
    """Of the logs with this correlation id."""
    return f"{BASE}/correlations/{quote(correlation_id, safe='')}/logs"


def _word(value: str | int | float | bool) -> str:
    """As `metadata.KEY=` takes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    return str(value)
