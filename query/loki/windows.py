"""From counts in buckets to a measure over a range at each step: pure.

The value at t is of the logs with t - range <= timestamp < t. (Loki has t - range < timestamp <= t. A log on the border is in
the next window here, so that windows are buckets, which sums by the minute can answer.)
"""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass
from math import gcd
from typing import Final

from query.loki.parameters import POINTS_MAX, Span
from search.params import ParameterError
from search.predicate import TIMESTAMP_MAX_US, TIMESTAMP_MIN_US

BUCKETS_MAX: Final = 20_000
SAMPLES_MAX: Final = 200_000
"""Points of all series that are looked at."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Points first_us, first_us + step_us, … up to last_us, each of the range before it."""

    first_us: int
    last_us: int
    step_us: int
    range_us: int
    offset_us: int = 0
    """So much earlier are the logs."""

    @property
    def points(self) -> int:
        """How many there are."""
        return (self.last_us - self.first_us) // self.step_us + 1

    @property
    def start_us(self) -> int:
        """Of all logs that count, inclusive."""
        return self.first_us - self.range_us - self.offset_us

    @property
    def end_us(self) -> int:
        """Exclusive."""
        return self.last_us - self.offset_us

    @property
    def width_us(self) -> int:
        """Of buckets of which every window is made, from start_us on."""
        if self.first_us == self.last_us:
            return self.range_us
        return gcd(self.step_us, self.range_us)

    def points_of(self, buckets: dict[int, float], *, counted_from_us: int | None) -> list[tuple[int, float]]:
        """(time, sum) of each point with a log in its window. buckets: begin -> sum. counted_from_us: no bucket before it is
        known, so no point that needs one is given."""
        begins = sorted(buckets)
        sums = [0.0]
        for begin in begins:
            sums.append(sums[-1] + buckets[begin])
        found: list[tuple[int, float]] = []
        for at_us in range(self.first_us, self.last_us + 1, self.step_us):
            to_us = at_us - self.offset_us
            from_us = to_us - self.range_us
            if counted_from_us is not None and from_us < counted_from_us:
                continue
            low, high = bisect_left(begins, from_us), bisect_left(begins, to_us)
            if high > low:
                found.append((at_us, sums[high] - sums[low]))
        return found


def windows_of(asked: Span, step_us: int, range_us: int, offset_us: int) -> Windows:
    """Of a range query: on multiples of the step, the last one at the end or after it, as Loki's frontend has it. Raises
    ParameterError."""
    first_us = asked.start_us - asked.start_us % step_us
    last_us = asked.end_us + -asked.end_us % step_us
    return _checked(Windows(first_us, max(first_us, last_us), step_us, range_us, offset_us))


def window_at(at_us: int, range_us: int, offset_us: int) -> Windows:
    """Of an instant query. Raises ParameterError."""
    return _checked(Windows(at_us, at_us, range_us, range_us, offset_us))


def _checked(windows: Windows) -> Windows:
    if windows.points > POINTS_MAX + 2:
        raise ParameterError(
            "step", f"exceeded maximum resolution of {POINTS_MAX:,} points per timeseries: use a larger step"
        )
    if (windows.end_us - windows.start_us) // windows.width_us > BUCKETS_MAX:
        raise ParameterError("step", "too many windows: use a step that divides the range in brackets, or a larger one")
    if not TIMESTAMP_MIN_US <= windows.start_us <= windows.end_us <= TIMESTAMP_MAX_US:
        raise ParameterError("query", "the range in brackets reaches beyond the years 1..9999")
    return windows


def check_samples(windows: Windows, series: int) -> None:
    """Raises ParameterError where that many points are more than one answer works on."""
    if windows.points * series > SAMPLES_MAX:
        raise ParameterError(
            "step",
            f"{series} series of {windows.points} points are too many: use a larger step, or sum by fewer labels",
        )
