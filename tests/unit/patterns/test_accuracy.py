"""How right the miner's groups are on real lines of six systems, with one configuration for all."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench.patterns import accuracy_of
from patterns.accuracy import grouping_accuracy


def test_a_group_counts_only_when_it_is_exactly_the_true_one() -> None:
    assert grouping_accuracy("aabb", "xxyy") == 1.0
    assert grouping_accuracy("aabb", "xxyz") == 0.5
    assert grouping_accuracy("aabb", "xxxx") == 0.0
    assert grouping_accuracy("aabc", "xxyy") == 0.5


@pytest.mark.parametrize("truth, found", [("", ""), ("ab", "a")])
def test_groups_of_nothing_or_of_other_lines_are_refused(truth: str, found: str) -> None:
    with pytest.raises(ValueError, match="one or more lines"):
        grouping_accuracy(truth, found)


def test_groups_of_real_lines_are_right(shared_data: Path) -> None:
    accuracies = {path.name.split("_")[0]: accuracy_of(path) for path in shared_data.glob("*_structured.csv")}
    assert len(accuracies) == 6
    assert min(accuracies.values()) >= 0.85, accuracies
    assert sum(accuracies.values()) / len(accuracies) >= 0.95, accuracies
