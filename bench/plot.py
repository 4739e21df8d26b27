"""The report's picture, as SVG: what was accepted, stored, waiting and held in memory over time; how long pages took.

Written by hand in 150 lines: a plotting library would bring 60 MB of packages and a lock file of its own into every clean
clone, for four kinds of lines and one of bars.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from bench.figures import Figures, Points
from bench.quantiles import percentile

_WIDTH: Final = 560
_HEIGHT: Final = 240
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 15, 34, 46
_GAP: Final = 20
_COLUMNS: Final = 2
_COLOURS: Final = ("#1f6feb", "#d1242f", "#1a7f37", "#9a6700", "#8250df", "#57606a", "#bf3989")
_TICKS: Final = 4
_FONT: Final = "font-family='sans-serif' font-size='11'"


@dataclass(frozen=True, slots=True)
class Lines:
    """A panel of lines over seconds."""

    title: str
    lines: Mapping[str, Points]


@dataclass(frozen=True, slots=True)
class Bars:
    """A panel of p50 and p99 by name, on a logarithmic scale, in milliseconds."""

    title: str
    latencies_ms: Mapping[str, Sequence[float]]


def picture(figures: Figures) -> str | None:
    """The whole picture; None when there is nothing to draw."""
    panels = list(_panels(figures))
    if not panels:
        return None
    rows = -(-len(panels) // _COLUMNS)
    width, height = _COLUMNS * (_WIDTH + _GAP) + _GAP, rows * (_HEIGHT + _GAP) + _GAP
    parts = [
        f"<svg xmlns='http://www.w3.org/2000/svg' width='{width}' height='{height}' viewBox='0 0 {width} {height}'>",
        f"<rect width='{width}' height='{height}' fill='white'/>",
    ]
    for number, panel in enumerate(panels):
        x = _GAP + number % _COLUMNS * (_WIDTH + _GAP)
        y = _GAP + number // _COLUMNS * (_HEIGHT + _GAP)
        parts.append(f"<g transform='translate({x},{y})' {_FONT}>")
        parts += _draw_lines(panel) if isinstance(panel, Lines) else _draw_bars(panel)
        parts.append("</g>")
    return "\n".join([*parts, "</svg>\n"])


def _panels(figures: Figures) -> Iterator[Lines | Bars]:
    for prefix, profile in (("", "full profile"), ("embedded_", "embedded profile")):
        series = {
            name.removeprefix(prefix): points
            for name, points in figures.series.items()
            if name.startswith("embedded_") == bool(prefix) and points
        }
        flow = {name: series[f"{name}_per_s"] for name in ("accepted", "stored") if f"{name}_per_s" in series}
        if flow:
            yield Lines(f"Logs a second, {profile}", flow)
        if "lag_frames" in series:
            yield Lines(f"Accepted and not stored, requests, {profile}", {"lag": series["lag_frames"]})
        if "behind_s" in series:
            yield Lines(f"Pages see everything up to so many seconds ago, {profile}", {"behind": series["behind_s"]})
        if "stored_mib" in series:
            yield Lines(f"Stored, MiB, {profile}", {"database and files": series["stored_mib"]})
        memory = {name.partition(".")[2]: each for name, each in series.items() if name.startswith("memory_mib.")}
        if memory:
            yield Lines(f"Memory, MiB, {profile}", memory)
        for name, when in (("page", "quiet"), ("page_busy", "while logs come in")):
            bars = {
                key.partition(".")[2]: each
                for key, each in figures.latencies_ms.items()
                if key.startswith(f"{prefix}{name}.") and each
            }
            if bars:
                yield Bars(f"Pages, ms, p50 and p99, {when}, {profile}", bars)


def _draw_lines(panel: Lines) -> Iterator[str]:
    everything = [point for points in panel.lines.values() for point in points]
    x_max = max(when for when, _ in everything) or 1.0
    y_max = _round_up(max(value for _, value in everything) or 1.0)
    width, height = _WIDTH - _LEFT - _RIGHT, _HEIGHT - _TOP - _BOTTOM
    yield from _frame(panel.title)
    for tick in range(_TICKS + 1):
        share = tick / _TICKS
        y = _TOP + height * (1 - share)
        yield f"<line x1='{_LEFT}' x2='{_LEFT + width}' y1='{y:.1f}' y2='{y:.1f}' stroke='#d0d7de'/>"
        yield _text(_LEFT - 6, y + 4, f"{y_max * share:,.0f}", anchor="end")
        yield _text(_LEFT + width * share, _TOP + height + 16, f"{x_max * share:.3g} s", anchor=_anchor(tick, _TICKS))
    for number, (name, points) in enumerate(panel.lines.items()):
        colour = _COLOURS[number % len(_COLOURS)]
        path = " ".join(
            f"{_LEFT + width * max(when, 0) / x_max:.1f},{_TOP + height * (1 - value / y_max):.1f}"
            for when, value in points
        )
        yield f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='1.5'/>"
        x = _LEFT + number * (width / max(len(panel.lines), 5))
        yield f"<rect x='{x:.1f}' y='{_HEIGHT - 18}' width='10' height='10' fill='{colour}'/>"
        yield _text(x + 14, _HEIGHT - 9, name)


def _draw_bars(panel: Bars) -> Iterator[str]:
    names = list(panel.latencies_ms)
    pairs = [(percentile(panel.latencies_ms[name], 0.5), percentile(panel.latencies_ms[name], 0.99)) for name in names]
    least = 10.0 ** math.floor(math.log10(max(min(p50 for p50, _ in pairs), 0.1)))
    most = 10.0 ** math.ceil(math.log10(max(max(p99 for _, p99 in pairs), least * 10)))
    left = 150
    width, height = _WIDTH - left - _RIGHT, _HEIGHT - _TOP - _BOTTOM + 10
    decades = round(math.log10(most / least))
    yield from _frame(panel.title)
    for decade in range(decades + 1):
        x = left + width * decade / decades
        yield f"<line x1='{x:.1f}' x2='{x:.1f}' y1='{_TOP}' y2='{_TOP + height}' stroke='#d0d7de'/>"
        yield _text(x, _TOP + height + 16, f"{least * 10**decade:g} ms", anchor=_anchor(decade, decades))
    step = height / len(names)
    for number, (name, (p50, p99)) in enumerate(zip(names, pairs, strict=True)):
        y = _TOP + number * step
        for value, share, colour in ((p99, 0.7, "#b6d4fe"), (p50, 0.35, _COLOURS[0])):
            long = width * math.log10(max(value, least) / least) / decades
            top = y + step * (1 - share) / 2
            yield f"<rect x='{left}' y='{top:.1f}' width='{long:.1f}' height='{step * share:.1f}' fill='{colour}'/>"
        yield _text(left - 6, y + step / 2 + 4, name.replace("_", " "), anchor="end")


def _frame(title: str) -> Iterator[str]:
    yield f"<rect width='{_WIDTH}' height='{_HEIGHT}' fill='none' stroke='#d0d7de'/>"
    yield f"<text x='12' y='20' font-size='13' font-weight='bold' fill='#1f2328'>{escape(title)}</text>"


def _text(x: float, y: float, text: str, *, anchor: str = "start") -> str:
    return f"<text x='{x:.1f}' y='{y:.1f}' text-anchor='{anchor}' fill='#57606a'>{escape(text)}</text>"


def _anchor(tick: int, last: int) -> str:
    return "end" if tick == last else "middle"


def _round_up(value: float) -> float:
    """To the next of 1, 2, 4, 8 or 10 times a power of ten: ticks at quarters are round."""
    power = 10.0 ** math.floor(math.log10(value))
    return next(step * power for step in (1, 2, 4, 8, 10) if step * power >= value)
