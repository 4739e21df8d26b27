"""Percentiles, medians and rates of what was measured. Pure."""

from __future__ import annotations

import math
from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """The value below which this share (0..1) of the values lies, by the nearest rank; nan without values."""
    if not values:
        return float("nan")
    ranked = sorted(values)
    rank = math.ceil(share * len(ranked) - 1e-9)
    return ranked[max(rank, 1) - 1]


def median(values: Sequence[float]) -> float:
    """The middle value, the mean of the two in the middle of an even number; nan without values."""
    if not values:
        return float("nan")
    ranked = sorted(values)
    middle = len(ranked) // 2
    return ranked[middle] if len(ranked) % 2 else (ranked[middle - 1] + ranked[middle]) / 2


def at(points: Sequence[tuple[float, float]], when: float) -> float:
    """The value of a series of (time, value), times rising, at a time: linear in between, its ends' values outside.

    Raises ValueError without points.
    """
    if not points:
        raise ValueError("a series without points has no value")
    before = points[0]
    for point in points:
        if point[0] >= when:
            if point[0] == before[0]:
                return point[1]
            share = (when - before[0]) / (point[0] - before[0])
            return before[1] + share * (point[1] - before[1]) if share > 0 else before[1]
        before = point
    return before[1]


def rate(points: Sequence[tuple[float, float]], start: float, end: float) -> float:
    """Growth a second of a cumulative series between two times."""
    return (at(points, end) - at(points, start)) / (end - start)
