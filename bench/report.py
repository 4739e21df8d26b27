"""Writes what was measured: latest.json, latest.md (also printed) and latest.svg, in bench/results by default."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

import msgspec
import orjson

from bench.figures import Figures
from bench.goals import GOALS, Goal
from bench.options import Options

RESULTS: Final = Path(__file__).parent / "results"
_DIGITS: Final = 4
"""Significant ones: more would be noise."""


def rounded(value: float) -> float:
    """To four significant digits; whole numbers stay whole."""
    return float(f"{value:.{_DIGITS}g}") if abs(value) < 10 ** (_DIGITS - 1) else float(round(value))


def as_json(figures: Figures, machine: Mapping[str, str | float], options: Options) -> bytes:
    """The report for programs: flat figures, the machine, the options, errors, each question's time as asked, series."""
    return orjson.dumps(
        {
            "figures": {name: rounded(value) for name, value in sorted(figures.numbers.items())},
            "machine": machine,
            "options": msgspec.to_builtins(options),
            "errors": figures.errors,
            "latencies_ms": {
                name: [rounded(value) for value in values] for name, values in sorted(figures.latencies_ms.items())
            },
            "series": {
                name: [(round(when, 2), rounded(value)) for when, value in points]
                for name, points in sorted(figures.series.items())
            },
        },
        option=orjson.OPT_INDENT_2,
    )


def as_markdown(figures: Figures, machine: Mapping[str, str | float]) -> str:
    """The report for people: goals, every figure, what failed."""
    return "\n".join(_markdown(figures, machine)) + "\n"


def write(
    directory: Path, figures: Figures, machine: Mapping[str, str | float], options: Options, plot: str | None
) -> str:
    """Write the files into the directory; returns the Markdown. plot: an SVG picture, if there is one."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "latest.json").write_bytes(as_json(figures, machine, options))
    text = as_markdown(figures, machine)
    (directory / "latest.md").write_text(text)
    picture = directory / "latest.svg"
    picture.unlink(missing_ok=True)
    if plot is not None:
        picture.write_text(plot)
    return text


def _markdown(figures: Figures, machine: Mapping[str, str | float]) -> Iterator[str]:
    yield "; ".join(f"{name.replace('_', ' ')}: {value}" for name, value in machine.items())
    yield ""
    yield "| goal | figure | measured | met |"
    yield "|---|---|---:|---|"
    for goal in GOALS:
        yield f"| {goal.text} | {_name(goal)} | {_measured(goal, figures.numbers)} | {_met(goal, figures.numbers)} |"
    yield ""
    yield "| figure | measured |"
    yield "|---|---:|"
    for name in sorted(figures.numbers):
        yield f"| {name} | {shown(figures.numbers[name])} |"
    for section, error in figures.errors.items():
        yield ""
        yield f"**{section} failed:** {error.splitlines()[0]}"


def _name(goal: Goal) -> str:
    return goal.figure if goal.than is None else f"{goal.figure} / {goal.than}"


def _measured(goal: Goal, numbers: Mapping[str, float]) -> str:
    value = numbers.get(goal.figure)
    if value is None:
        return "–"
    if goal.than is None:
        return shown(value)
    unit = numbers.get(goal.than)
    return "–" if not unit else shown(value / unit)


def _met(goal: Goal, numbers: Mapping[str, float]) -> str:
    return {True: "yes", False: "**no**", None: "not measured"}[goal.is_met(numbers)]


def shown(value: float) -> str:
    """A figure with thousands separated."""
    value = rounded(value)
    return f"{value:,.0f}" if value == int(value) else f"{value:,}"
