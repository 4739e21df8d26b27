"""What was measured so far: flat figures, series for the plot, errors of sections that failed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from bench.quantiles import percentile
from infra.fleet import EMBEDDED

Points = list[tuple[float, float]]


@dataclass(slots=True)
class Figures:
    """The figures of one run of the benchmark."""

    numbers: dict[str, float] = field(default_factory=dict)
    """Flat name -> value. Names end in their unit; those of the embedded profile begin with `embedded_`."""
    series: dict[str, Points] = field(default_factory=dict)
    """Name -> (seconds since the load began, value)."""
    latencies_ms: dict[str, list[float]] = field(default_factory=dict)
    """Kind of page -> each question's time."""
    errors: dict[str, str] = field(default_factory=dict)
    """Section -> what went wrong."""

    def of(self, profile: str) -> ProfileFigures:
        """Where a profile's sections put theirs."""
        return ProfileFigures(self, "embedded_" if profile == EMBEDDED else "")


@dataclass(frozen=True, slots=True)
class ProfileFigures:
    """Figures under a profile's prefix."""

    all: Figures
    prefix: str

    def put(self, name: str, value: float) -> None:
        """One figure."""
        self.all.numbers[self.prefix + name] = value

    def put_each(self, name: str, values: Mapping[str, float]) -> None:
        """Figures `name.key`."""
        for key, value in values.items():
            self.put(f"{name}.{key}", value)

    def put_ratio(self, name: str, value: float, *, of: str = "floor_rows_per_s") -> None:
        """`name`: the value as a part of the same run's floor, or of another figure; left out where that is missing."""
        floor = self.all.numbers.get(f"{self.prefix}{of}")
        if floor:
            self.put(name, value / floor)

    def put_latencies(self, name: str, kind: str, latencies_ms: list[float]) -> None:
        """p50 and p99 of one kind of page: `<name>_p50_ms.<kind>`."""
        self.put(f"{name}_p50_ms.{kind}", percentile(latencies_ms, 0.5))
        self.put(f"{name}_p99_ms.{kind}", percentile(latencies_ms, 0.99))
        self.all.latencies_ms[f"{self.prefix}{name}.{kind}"] = latencies_ms

    def put_series(self, name: str, points: Points) -> None:
        """A line of the plot."""
        self.all.series[self.prefix + name] = points
