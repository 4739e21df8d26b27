"""The agent section: it measures a real agent in a process of its own."""

from __future__ import annotations

import pytest

from bench import agent
from bench.figures import Figures
from bench.options import Options
from infra.fleet import FULL


@pytest.mark.long
async def test_an_agent_is_measured() -> None:
    figures = Figures()
    await agent.measure(Options(agent_mib=1), figures.of(FULL))
    names = ("agent_mib_per_s", "agent_json_mib_per_s", "agent_memory_mib", "agent_first_line_ms")
    assert set(figures.numbers) == set(names)
    assert all(figures.numbers[name] > 0 for name in names)
