"""Whether a long run holds: trends of what was seen, and what they would come to. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

_MIB: Final = 1024 * 1024
WARM_SHARE: Final = 0.1
"""Of the looks, the first ones: caches fill."""
GROWTH_MIB_MAX: Final = 16.0
GROWTH_SHARE_MAX: Final = 0.05
LAG_FRAMES_MAX: Final = 400.0
"""What the lag may add in an hour: what the generator is allowed to be ahead by in `make bench`."""
SHORT_S: Final = 600.0
"""A shorter run says nothing of hours: slopes of seconds are noise, and are not held against it."""
NOT_JUDGED: Final = frozenset({"database", "broker"})
"""Whose buffers and heap fill up to what they were given."""


class Look(msgspec.Struct, frozen=True):
    """One moment."""

    at_s: float
    """Since the load began."""
    memory_mib: dict[str, float]
    """By process."""
    lag_frames: int
    """Requests that are accepted and not stored."""
    behind_s: float | None
    """How old the newest moment is that pages show everything of; None: no page was answered."""
    database_bytes: int
    files_bytes: int

    @property
    def stored_mib(self) -> float:
        """Of the database and files together."""
        return (self.database_bytes + self.files_bytes) / _MIB


class Trend(msgspec.Struct, frozen=True):
    """How something moved after the warm-up."""

    name: str
    first: float
    most: float
    last: float
    per_hour: float
    """By least squares."""


class Verdict(msgspec.Struct, frozen=True):
    """What a run says."""

    trends: list[Trend]
    problems: list[str]
    is_short: bool

    @property
    def holds(self) -> bool:
        """Nothing is wrong."""
        return not self.problems


def slope(points: Sequence[tuple[float, float]]) -> float:
    """Growth of y by x, by least squares; 0 of fewer than two x."""
    if len({x for x, _ in points}) < 2:
        return 0.0
    x_mean = sum(x for x, _ in points) / len(points)
    y_mean = sum(y for _, y in points) / len(points)
    return sum((x - x_mean) * (y - y_mean) for x, y in points) / sum((x - x_mean) ** 2 for x, _ in points)


def judge(looks: Sequence[Look], *, accepted: int, booked: int, refused: int) -> Verdict:
    """The verdict. looks: one at least. accepted, booked: logs; refused: answers of 429 and 503 to the load."""
    warm = list(looks[int(len(looks) * WARM_SHARE) :])
    roles = sorted({role for look in warm for role in look.memory_mib})
    memory = [
        _trend(f"MiB of {role}", [(look.at_s, look.memory_mib[role]) for look in warm if role in look.memory_mib])
        for role in roles
    ]
    lag = _trend("requests not stored", [(look.at_s, float(look.lag_frames)) for look in warm])
    others = [
        _trend("s that pages are behind", [(look.at_s, look.behind_s) for look in warm if look.behind_s is not None]),
        _trend("MiB stored", [(look.at_s, look.stored_mib) for look in warm]),
    ]
    is_short = looks[-1].at_s < SHORT_S
    problems = list(_losses(accepted, booked, refused, looks))
    if not is_short:
        if lag.per_hour > LAG_FRAMES_MAX:
            problems.append(f"what is not stored grows by {lag.per_hour:,.0f} requests an hour")
        for role, trend in zip(roles, memory, strict=True):
            if role not in NOT_JUDGED and trend.per_hour > GROWTH_MIB_MAX + GROWTH_SHARE_MAX * trend.first:
                problems.append(f"memory of {role} grows by {trend.per_hour:,.0f} MiB an hour")
    return Verdict([*memory, lag, *others], problems, is_short)


def _losses(accepted: int, booked: int, refused: int, looks: Sequence[Look]) -> Iterator[str]:
    if accepted != booked:
        yield f"{accepted} logs were accepted, the ledger booked {booked} as stored"
    if refused:
        yield f"{refused} requests were refused for a time"
    unanswered = sum(look.behind_s is None for look in looks)
    if unanswered:
        yield f"{unanswered} of {len(looks)} pages were not answered"


def _trend(name: str, points: Sequence[tuple[float, float]]) -> Trend:
    if not points:
        return Trend(name, 0.0, 0.0, 0.0, 0.0)
    values = [value for _, value in points]
    return Trend(name, values[0], max(values), values[-1], slope(points) * 3_600)
