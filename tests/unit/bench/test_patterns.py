"""The patterns section: it measures without servers, with real lines or without them."""

from __future__ import annotations

from pathlib import Path

import pytest

from bench import patterns
from bench.figures import Figures
from bench.options import Options
from infra.fleet import FULL

LINES = """LineId,Content,EventId
1,user 1 left,E1
2,user 2 left,E1
3,disk 3 is full,E2
4,disk sda is full,E3
"""


async def measured() -> dict[str, float]:
    figures = Figures()
    await patterns.measure(Options(pattern_lines=300), figures.of(FULL))
    return figures.numbers


async def test_accuracy_of_each_system_and_what_a_line_costs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "Two_2k_structured.csv").write_text(LINES)
    (tmp_path / "One_2k_structured.csv").write_text(LINES.replace("E3", "E2"))
    monkeypatch.setattr(patterns, "REAL_LINES", tmp_path)
    numbers = await measured()
    assert numbers["patterns_accuracy.two"] == 0.5
    assert numbers["patterns_accuracy.one"] == 1.0
    assert numbers["patterns_accuracy_mean"] == 0.75
    assert numbers["patterns_lines_per_cpu_s"] > 0
    assert numbers["patterns_speed_of_plain_re_sub"] > 0


async def test_without_real_lines_only_the_cost_is_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(patterns, "REAL_LINES", tmp_path)
    assert set(await measured()) == {"patterns_lines_per_cpu_s", "patterns_speed_of_plain_re_sub"}
