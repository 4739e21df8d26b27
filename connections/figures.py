"""What is kept of the lines of one side, beside the logs themselves: counts, series, kinds of errors. Pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field

from connections.metrics import Finder
from connections.series import Point, Series
from patterns.families import text_of
from patterns.masks import CHARS_MAX, Masker, shape_of

WARN, ERROR = 13, 17
OTHER_KINDS = ""
"""Name of the kinds of errors that have no room of their own."""


@dataclass(slots=True)
class Figures:
    """Of some lines that follow one another."""

    lines: int = 0
    errors: int = 0
    warnings: int = 0
    first_us: int | None = None
    last_us: int | None = None
    series: dict[str, Series] = field(default_factory=dict)
    error_kinds: Counter[str] = field(default_factory=Counter)


def figures_of(logs: Iterable[tuple[int, int, int, str]], finder: Finder, masker: Masker) -> Figures:
    """logs: (time in microseconds, number of its line, severity, message) of each."""
    figures = Figures()
    for time_us, number, level, message in logs:
        figures.lines += 1
        figures.first_us = time_us if figures.first_us is None else min(figures.first_us, time_us)
        figures.last_us = time_us if figures.last_us is None else max(figures.last_us, time_us)
        if level >= ERROR:
            figures.errors += 1
            figures.error_kinds[kind_of(message, masker)] += 1
        elif level >= WARN:
            figures.warnings += 1
        for metric, value in finder.find(message):
            figures.series.setdefault(metric, Series()).add(Point(time_us, value, number))
    return figures


def kind_of(message: str, masker: Masker) -> str:
    """What a message is like: its first line, with numbers, paths and the like masked, as patterns are written."""
    return text_of(masker.tokens(shape_of(message), cut=len(message) > CHARS_MAX)).replace("\0", "\ufffd")


def percent(part: int, whole: int) -> float:
    """Rounded to hundredths; 0 of nothing."""
    return round(100 * part / whole, 2) if whole else 0.0
