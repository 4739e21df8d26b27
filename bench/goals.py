"""What the figures ought to be. Beside the figures in the report; a missed goal is said, it never fails a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound of one figure."""

    figure: str
    text: str
    """For people."""
    at_least: float | None = None
    at_most: float | None = None
    than: str | None = None
    """The bound is so many times this figure."""

    def is_met(self, numbers: Mapping[str, float]) -> bool | None:
        """None when a figure it needs was not measured."""
        value = numbers.get(self.figure)
        unit = 1.0 if self.than is None else numbers.get(self.than)
        if value is None or unit is None:
            return None
        return (self.at_least is None or value >= self.at_least * unit) and (
            self.at_most is None or value <= self.at_most * unit
        )


_SECOND_MS: Final = 1_000.0
_LOOK_UP_MS: Final = 200.0

GOALS: Final = (
    Goal("stored_per_s", "100,000 logs/s stored while they come in", at_least=100_000),
    Goal("accepted_alone_per_s", "100,000 logs/s accepted while writers are stopped", at_least=100_000),
    Goal("stored_ratio", "half of the floor, with everything on", at_least=0.5),
    Goal("stored_per_s", "twice the usual way of storing rows", at_least=2.0, than="naive_rows_per_s"),
    Goal("embedded_stored_per_s", "10,000 logs/s stored without anything installed", at_least=10_000),
    Goal("embedded_stored_ratio", "half of the floor in the embedded profile", at_least=0.5),
    Goal("single_posts_per_s", "1,000 single POSTs a second, durable each", at_least=1_000),
    Goal("freshness_p99_ms", "visible within a second of its POST at 10,000 logs/s", at_most=_SECOND_MS),
    *(
        Goal(f"page_p99_ms.{kind}", f"page, {what}: below a second", at_most=_SECOND_MS)
        for kind, what in (
            ("newest", "no filter"),
            ("service", "one of 45 services"),
            ("errors", "ERROR and above"),
            ("metadata", "metadata equality, 1 of 10,000"),
            ("common_word", "a common word"),
            ("deep", "1,000 pages deep"),
        )
    ),
    *(
        Goal(f"page_p99_ms.{kind}", f"{what}: below 0.2 s", at_most=_LOOK_UP_MS)
        for kind, what in (
            ("id_present", "look-up by id"),
            ("id_absent", "look-up by id that does not exist"),
            ("correlation_present", "correlation id without a time"),
            ("correlation_absent", "correlation id that does not exist"),
        )
    ),
    Goal("page_busy_p99_ms.newest", "newest page while logs come in: below a second", at_most=_SECOND_MS),
)
"""In the order of the report."""
