"""The template miner: how right its groups are on real lines, and what a line costs beside a plain loop of `re.sub`.

Accuracy needs the real lines beside the repository; without them only the cost is measured. In this process, without
servers.
"""

from __future__ import annotations

import csv
import re
import time
from collections.abc import Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Final

import orjson

from bench.figures import ProfileFigures
from bench.lines import REAL_LINES, moulds, single_lines
from bench.options import Options
from bench.progress import progress
from bench.quantiles import median
from patterns.accuracy import grouping_accuracy
from patterns.counts import latest
from patterns.miner import Miner

Line = tuple[str, str]
"""Service and message."""

_REPETITIONS: Final = 5
_PLAIN: Final = tuple(
    re.compile(text)
    for text in (
        r"[0-9a-f]{8}-[0-9a-f-]{27}",
        r"\d+\.\d+\.\d+\.\d+(?::\d+)?",
        r"0x[0-9a-fA-F]+",
        r"(?:/[\w.-]+)+",
        r"-?\d+(?:\.\d+)?",
    )
)
"""What a line costs without a miner: its variables replaced, nothing grouped."""


async def measure(options: Options, figures: ProfileFigures) -> None:
    """patterns_accuracy.<system> and _accuracy_mean; patterns_lines_per_cpu_s; patterns_speed_of_plain_re_sub."""
    accuracies = {
        path.name.split("_")[0].lower(): accuracy_of(path) for path in sorted(REAL_LINES.glob("*_structured.csv"))
    }
    if accuracies:
        figures.put_each("patterns_accuracy", accuracies)
        figures.put("patterns_accuracy_mean", sum(accuracies.values()) / len(accuracies))
    else:
        progress(f"no accuracy: {REAL_LINES} has no lines with their templates")
    every = _lines()
    miner = Miner()
    _mine(
        miner, list(islice(every, options.pattern_lines))
    )  # what it knows after minutes is asked, not what learning costs
    mined, plain = [], []
    for _ in range(_REPETITIONS):
        lines = list(islice(every, options.pattern_lines))
        mined.append(_mine(miner, lines))
        plain.append(_replace(lines))
    figures.put("patterns_lines_per_cpu_s", options.pattern_lines / median(mined))
    figures.put("patterns_speed_of_plain_re_sub", median(plain) / median(mined))


def accuracy_of(path: Path) -> float:
    """Grouping accuracy, 0..1, of one pass over a file of lines with their true templates (columns Content, EventId)."""
    with path.open(newline="", encoding="utf-8", errors="replace") as file:
        rows = [(row["Content"], row["EventId"]) for row in csv.DictReader(file)]
    miner = Miner()
    ids = [miner.template_of("s", message).id for message, _ in rows]
    into = miner.changes().into()
    return grouping_accuracy([truth for _, truth in rows], [latest("s", found, into) for found in ids])


def _lines() -> Iterator[Line]:
    for line in single_lines(moulds(50, seed=11)):
        log = orjson.loads(line)
        yield log["service_name"], log["message"]


def _mine(miner: Miner, lines: Sequence[Line]) -> float:
    """CPU seconds."""
    began = time.process_time()
    for service, message in lines:
        miner.template_of(service, message)
    return time.process_time() - began


def _replace(lines: Sequence[Line]) -> float:
    """CPU seconds."""
    began = time.process_time()
    for _, message in lines:
        for plain in _PLAIN:
            message = plain.sub("<*>", message)
    return time.process_time() - began
