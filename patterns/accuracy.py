"""Grouping accuracy: how a miner's templates are measured against those that people gave the lines.

Source: Zhu et al., "Tools and Benchmarks for Automated Log Parsing", ICSE-SEIP 2019 (the figure that the Drain paper and
logparser report, too).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Hashable, Sequence


def grouping_accuracy(truth: Sequence[Hashable], found: Sequence[Hashable]) -> float:
    """The share of lines, 0..1, whose found group is exactly the set of lines of their true group.

    truth, found: the group of each line, in the same order. Raises ValueError when they differ in length or are empty.
    """
    if len(truth) != len(found) or not truth:
        raise ValueError(f"expected two groups for each of one or more lines, got {len(truth)} and {len(found)}")
    true_lines, found_lines = _lines(truth), _lines(found)
    right = sum(len(lines) for lines in found_lines.values() if true_lines[truth[lines[0]]] == lines)
    return right / len(truth)


def _lines(groups: Sequence[Hashable]) -> dict[Hashable, list[int]]:
    lines: dict[Hashable, list[int]] = defaultdict(list)
    for index, group in enumerate(groups):
        lines[group].append(index)
    return lines
