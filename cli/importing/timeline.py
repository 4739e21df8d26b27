"""What time a log gets, and whether the server takes logs of that time. Pure: all times are arguments.

keep: the time the line names. shift: that time plus one number for the whole file, so that its newest line is now. now: the
moment of the import, one microsecond a line, so that the order of the lines stays.
A line without a time has the time of the line before it; before the first time, the moment of the import.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Final, NamedTuple

from schemas.errors import LogfeedError
from schemas.record import FUTURE_MS_MAX

DAY_US: Final = 86_400_000_000
RETENTION_DAYS_DEFAULT: Final = 400
_EPOCH: Final = datetime(1970, 1, 1)
_TIME_US_MIN: Final = -62_135_596_800_000_000
_TIME_US_MAX: Final = 253_402_300_799_999_999


class TimeMode(StrEnum):
    """What happens to the times of old lines."""

    KEEP = "keep"
    SHIFT = "shift"
    NOW = "now"


class PastRetention(LogfeedError):
    """The file has lines older than the server keeps."""


class Times(NamedTuple):
    """Rule for the times of one run over a file. now_us: the moment of the import. shift_us: 0 unless the mode is shift."""

    mode: TimeMode
    now_us: int
    shift_us: int

    def place(self, own_us: int | None, *, last_us: int | None, line: int) -> int:
        """The log's time. own_us: what the line says. last_us: the last time a line before it said. line: its number."""
        if self.mode is TimeMode.NOW:
            return self.now_us + line
        said = last_us if own_us is None else own_us
        return self.now_us if said is None else min(max(said + self.shift_us, _TIME_US_MIN), _TIME_US_MAX)


class Found(NamedTuple):
    """A line that names a time: which one, microseconds since the Unix epoch (before any shift)."""

    line: int
    time_us: int


class Span(NamedTuple):
    """The oldest and the newest line found."""

    oldest: Found
    newest: Found

    def widen(self, other: Found) -> Span:
        """With one more line."""
        return Span(
            other if other.time_us < self.oldest.time_us else self.oldest,
            other if other.time_us > self.newest.time_us else self.newest,
        )


def refuse_past_retention(name: str, oldest: Found, times: Times, *, retention_days: int) -> None:
    """Raises PastRetention when the server would refuse the oldest line; says what lifts that."""
    oldest_us = oldest.time_us + times.shift_us
    if times.mode is TimeMode.NOW or oldest_us >= times.now_us - retention_days * DAY_US:
        return
    days_needed = (times.now_us - oldest_us) // DAY_US + 2
    which = f"line {oldest.line}" if oldest.line else "a line"
    others = "import with --time now" if times.mode is TimeMode.SHIFT else "import with --time shift or --time now"
    raise PastRetention(
        f"{name}: {which} is of {show_time(oldest_us)}, past the server's retention of {retention_days} days"
        f" (nothing before {show_time(times.now_us - retention_days * DAY_US)} is taken). Nothing was sent.\n"
        f"Either raise ingest.retention_days on the server (LOGFEED_INGEST__RETENTION_DAYS={days_needed}) and repeat with"
        f" --retention-days {days_needed}, or {others}."
    )


def warn_of_future(name: str, newest: Found, times: Times) -> str | None:
    """A warning when the newest line lies further ahead than the server takes: most often another time zone."""
    ahead_us = newest.time_us + times.shift_us - times.now_us
    if times.mode is TimeMode.NOW or ahead_us <= FUTURE_MS_MAX * 1000:
        return None
    return (
        f"{name}: a line is of {show_time(newest.time_us + times.shift_us)}, {ahead_us // 60_000_000} minutes ahead of now; the"
        f" server refuses what is more than {FUTURE_MS_MAX // 60_000} minutes ahead. Are its times of another zone (--tz)?"
    )


def show_time(time_us: int) -> str:
    """ISO 8601 with a Z; the bounds of the calendar for what lies outside it."""
    return moment(min(max(time_us, _TIME_US_MIN), _TIME_US_MAX)).isoformat() + "Z"


def moment(time_us: int) -> datetime:
    """The UTC time as a datetime without a zone (orjson writes it with a Z when told)."""
    return _EPOCH + timedelta(microseconds=time_us)
