"""The times that logs write, read into microseconds since the Unix epoch, UTC.

A time without a zone is in the zone the user named (UTC when none). A time without a year belongs to the nearest past: the
latest year in which it does not lie after the moment of the import, give or take the ten minutes that clocks may differ.
Every method returns None for a text that is no such time, and never raises. Pure: the moment is an argument, so that a
resumed import reads the same times.
"""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta, tzinfo
from typing import Final

from schemas.record import FUTURE_MS_MAX

ISO: Final = r"\d{4}-\d\d-\d\d[T ]\d\d:\d\d(?::\d\d(?:[.,]\d{1,9})?)?(?: ?(?:Z|UTC|GMT|[+-]\d\d:?\d\d))?"
"""Date and time as in ISO 8601 and RFC 3339, with the comma, the space and the missing zone that programs write."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_MONTHS: Final = {
    name: number
    for number, name in enumerate(
        ["Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec"], start=1
    )
}
_YEARS_BACK_MAX: Final = 8
"""29 February lies at most eight years back (1896 to 1904)."""

_ISO = re.compile(ISO)
_DIGITS = re.compile(r"-?\d{1,19}(?:\.\d{1,9})?")
_HTTPD = re.compile(r"[A-Z][a-z]{2} [A-Z][a-z]{2} +\d{1,2} \d\d:\d\d:\d\d(?:\.\d{1,9})? \d{4}")
_ACCESS = re.compile(r"\d\d/[A-Z][a-z]{2}/\d{4}:\d\d:\d\d:\d\d [+-]\d{4}")
_SYSLOG = re.compile(r"[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d(?:\.\d{1,9})?")
_SLASHES = re.compile(r"\d{4}/\d\d/\d\d \d\d:\d\d:\d\d(?:[.,]\d{1,9})?")


class TimeReader:
    """Reads times as of one moment, in one zone."""

    def __init__(self, *, zone: tzinfo, now_us: int) -> None:
        """zone: of times that name none. now_us: the moment of the import, microseconds since the Unix epoch."""
        self._zone = zone
        latest = _EPOCH + timedelta(microseconds=now_us + FUTURE_MS_MAX * 1000)
        self._latest_local = latest.astimezone(zone).replace(tzinfo=None)

    def iso(self, text: str) -> int | None:
        """`2015-10-18 18:01:47,978`, `2024-05-01T12:00:00.123Z`, `2024-05-01 12:00:00 UTC`."""
        try:
            moment = datetime.fromisoformat(text)
        except ValueError:
            spelt = _with_zone_joined(text)
            return None if spelt == text else self.iso(spelt)
        try:  # as _micros does, for the one call in every line
            return ((moment if moment.tzinfo else moment.replace(tzinfo=self._zone)) - _EPOCH) // _MICROSECOND
        except OverflowError:
            return None

    def httpd(self, text: str) -> int | None:
        """`Sun Dec 04 04:47:44 2005`, `Fri Sep 09 10:42:29.902022 2011`."""
        parts = text.split()
        if len(parts) != 5:
            return None
        return self._calendar(parts[4], _MONTHS.get(parts[1]), parts[2], parts[3])

    def access(self, text: str) -> int | None:
        """`10/Oct/2000:13:55:36 -0700` (NCSA access logs)."""
        month = _MONTHS.get(text[3:6])
        return self.iso(f"{text[7:11]}-{month or 0:02}-{text[:2]}T{text[12:20]}{text[21:]}")

    def compact(self, text: str) -> int | None:
        """`081109 203615`: year, month, day, hour, minute, second in two digits each, 2000..2099."""
        return self.iso(f"20{text[:2]}-{text[2:4]}-{text[4:6]}T{text[7:9]}:{text[9:11]}:{text[11:13]}")

    def slashes(self, text: str) -> int | None:
        """`2023/01/02 03:04:05`."""
        return self.iso(text.replace("/", "-"))

    def syslog(self, text: str) -> int | None:
        """`Dec 10 06:55:46`, without a year."""
        return self._nearest_past(_MONTHS.get(text[:3]), text[4:6], text[7:])

    def klog(self, text: str) -> int | None:
        """`0102 15:04:05.000000`, without a year."""
        return self._nearest_past(int(text[:2]), text[2:4], text[5:])

    def epoch(self, number: float) -> int | None:
        """Seconds, milliseconds, microseconds or nanoseconds since the Unix epoch, told apart by their size."""
        size = abs(number)
        if size < 1e11:
            micros = round(number * 1_000_000)
        elif size < 1e14:
            micros = round(number * 1000)
        elif size < 1e17:
            micros = int(number)
        else:
            micros = int(number) // 1000
        return micros if abs(micros) < 1 << 57 else None

    def any(self, text: str) -> int | None:
        """A text that is a time in one of the forms above and nothing else."""
        text = text.strip().strip("[]")
        if _ISO.fullmatch(text):
            return self.iso(text)
        if _DIGITS.fullmatch(text):
            return self.epoch(float(text) if "." in text else int(text)) if len(text) >= 9 else None
        if _SLASHES.fullmatch(text):
            return self.slashes(text)
        if _SYSLOG.fullmatch(text):
            return self.syslog(text)
        if _HTTPD.fullmatch(text):
            return self.httpd(text)
        return self.access(text) if _ACCESS.fullmatch(text) else None

    def _calendar(self, year: str, month: int | None, day: str, clock: str) -> int | None:
        return None if month is None else self.iso(f"{year}-{month:02}-{int(day):02}T{clock}")

    def _nearest_past(self, month: int | None, day: str, clock: str) -> int | None:
        if month is None:
            return None
        latest = self._latest_local
        hour, minute, second = int(clock[:2]), int(clock[3:5]), int(clock[6:8])
        microsecond = int(clock[9:15].ljust(6, "0")) if len(clock) > 9 else 0
        for year in range(latest.year, latest.year - 1 - _YEARS_BACK_MAX, -1):
            try:
                moment = datetime(year, month, int(day), hour, minute, second, microsecond)
            except ValueError:
                continue
            if moment <= latest:
                return self._micros(moment)
        return None

    def _micros(self, moment: datetime) -> int:
        if moment.tzinfo is None:
            moment = moment.replace(tzinfo=self._zone)
        return (moment - _EPOCH) // _MICROSECOND


def _with_zone_joined(text: str) -> str:
    """` UTC`, ` GMT` and ` +0200` as ISO 8601 has them."""
    if text.endswith((" UTC", " GMT")):
        return text[:-4] + "Z"
    return text.replace(" +", "+").replace(" -", "-") if text[-6:-5] == " " or text[-7:-6] == " " else text
