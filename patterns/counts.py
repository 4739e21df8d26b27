"""Counts of lines by minute, service, level and pattern, with a few ids of logs to show.

Exact as to sums: each line that was added is in exactly one row of one drain. Bounded: `rows_max` rows at a time. Lines beyond
that are counted without their pattern (`OTHER`) by minute, service and level, in a tenth as many rows more; and beyond these
too in one row without a service. One owner, no locks, no clock: whoever stores the rows drains them, every minute as a rule,
and may get several rows of one key over time, which are to be added up.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec

OTHER: Final = 0
"""Pattern id of lines whose pattern was not kept; no template has it."""
SAMPLES_MAX: Final = 3
_MINUTE_US: Final = 60_000_000


class CountRow(msgspec.Struct, frozen=True):
    """Lines of one key.

    minute: of their timestamps, minutes since the Unix epoch. level: severity number 1..24. samples: ids of up to three of the
    logs, the first that came and the last two. Service "" with level 0 and minute 0: lines of any service, level and minute.
    """

    minute: int
    service: str
    level: int
    pattern_id: int
    lines: int
    samples: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Counted:
    """What a stretch of logs comes to: rows, and what became of patterns meanwhile. Belongs together."""

    rows: Sequence[CountRow] = ()
    """One for each key, under the ids that patterns have at the end."""
    texts: Mapping[int, str] = field(default_factory=dict)
    """Id -> template, of all ids in `rows` and all that `merged` leads to."""
    merged: Mapping[tuple[str, int], int] = field(default_factory=dict)
    """(service, id) -> the id it is read as from now on; no chains."""
    revived: Sequence[tuple[str, int]] = ()
    """(service, id) of templates that lines have (again)."""
    snapshot: bytes | None = None
    """Of the miner at the end; None: it has learnt nothing."""


class _Count:
    """The samples are the first log's id and those of the last two."""

    __slots__ = ("before", "first", "last", "lines")

    def __init__(self, log_id: int) -> None:
        self.lines, self.first, self.before, self.last = 1, log_id, -1, -1

    def add(self, log_id: int) -> None:
        self.lines += 1
        self.before, self.last = self.last, log_id

    def samples(self) -> tuple[int, ...]:
        return tuple(dict.fromkeys(log_id for log_id in (self.first, self.before, self.last) if log_id >= 0))


_Key = tuple[int, str, int, int]
_NO_KEY: Final[_Key] = (0, "", 0, OTHER)


class PatternCounts:
    """Adds lines up until they are drained. See the module."""

    def __init__(self, rows_max: int = 50_000) -> None:
        """rows_max: at least 1; a row takes about 300 bytes."""
        if rows_max < 1:
            raise ValueError(f"rows_max must be at least 1, got {rows_max}")
        self._rows_max = rows_max
        self._others_max = max(1, rows_max // 10)
        self._counts: dict[_Key, _Count] = {}
        self._others: dict[_Key, _Count] = {}
        self._rest: _Count | None = None

    def __len__(self) -> int:
        return len(self._counts) + len(self._others) + (self._rest is not None)

    def add(self, timestamp_us: int, service: str, level: int, pattern_id: int, log_id: int) -> None:
        """Count one line. timestamp_us: microseconds since the Unix epoch. level: 1..24. log_id: not negative."""
        minute = timestamp_us // _MINUTE_US
        key = (minute, service, level, pattern_id)
        count = self._counts.get(key)
        if count is not None:
            count.add(log_id)
        elif len(self._counts) < self._rows_max:
            self._counts[key] = _Count(log_id)
        else:
            self._add_other((minute, service, level, OTHER), log_id)

    def drain(self, into: Mapping[tuple[str, int], int] | None = None) -> list[CountRow]:
        """All that was counted since the last drain, oldest minute first.

        into: (service, id of a pattern that was merged) -> the id it was merged into, chains included: rows come under the
        last of them.
        """
        into = into or {}
        held = [*self._counts.items(), *self._others.items()]
        if self._rest is not None:
            held.append((_NO_KEY, self._rest))
        self._counts, self._others, self._rest = {}, {}, None
        rows: dict[_Key, CountRow] = {}
        for (minute, service, level, pattern_id), count in held:
            key = (minute, service, level, latest(service, pattern_id, into))
            row = rows.get(key)
            lines, samples = count.lines, count.samples()
            if row is not None:
                lines, samples = lines + row.lines, _sampled(row.samples + samples)
            rows[key] = CountRow(*key, lines, samples)
        return [rows[key] for key in sorted(rows)]

    def _add_other(self, key: _Key, log_id: int) -> None:
        count = self._others.get(key)
        if count is not None:
            count.add(log_id)
        elif len(self._others) < self._others_max:
            self._others[key] = _Count(log_id)
        elif self._rest is not None:
            self._rest.add(log_id)
        else:
            self._rest = _Count(log_id)


def _sampled(ids: tuple[int, ...]) -> tuple[int, ...]:
    """The least and the two greatest: ids grow with time."""
    known = sorted(set(ids))
    return tuple(known if len(known) <= SAMPLES_MAX else [known[0], *known[1 - SAMPLES_MAX :]])


def latest(service: str, pattern_id: int, into: Mapping[tuple[str, int], int]) -> int:
    """The id that a pattern of a service was merged into last, or its own. into: as for `drain`."""
    for _ in range(len(into)):  # a chain; one that leads back ends, too
        if (later := into.get((service, pattern_id))) is None:
            break
        pattern_id = later
    return pattern_id
