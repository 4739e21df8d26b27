"""Counts the logs of an experiment by agent and level: pure."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final

from schemas.levels import LEVELS, level_name
from schemas.record import Log
from schemas.times import time_text

AGENTS_MAX: Final = 1_000
"""Most agents of an answer."""
AGENT_FIELD: Final = "agent_id"
EXPERIMENT_FIELD: Final = "experiment_id"


@dataclass(slots=True)
class _Agent:
    levels: Counter[int] = field(default_factory=Counter)
    last_us: int = -(1 << 63)


def tally(logs: Iterable[Log]) -> dict[str, Any]:
    """`agents`, `logs` and `by_level` of schemas.experiments.ExperimentDetails. Logs without an agent count for the experiment
    alone, as do those of agents past AGENTS_MAX."""
    agents: dict[str, _Agent] = {}
    levels: Counter[int] = Counter()
    for log in logs:
        levels[log.level] += 1
        name = agent_of(log)
        if name is None or (name not in agents and len(agents) >= AGENTS_MAX):
            continue
        agent = agents.setdefault(name, _Agent())
        agent.levels[log.level] += 1
        agent.last_us = max(agent.last_us, log.timestamp)
    return {
        "agents": [
            {
                "agent_id": name,
                "logs": agent.levels.total(),
                "by_level": _by_level(agent.levels),
                "last_at": time_text(agent.last_us),
            }
            for name, agent in sorted(agents.items())
        ],
        "logs": levels.total(),
        "by_level": _by_level(levels),
    }


def agent_of(log: Log) -> str | None:
    """The agent that a log is of; text and whole numbers name one."""
    value = log.metadata.get(AGENT_FIELD)
    if isinstance(value, str):
        return value or None
    return str(value) if isinstance(value, int) and not isinstance(value, bool) else None


def _by_level(levels: Counter[int]) -> dict[str, int]:
    named: Counter[str] = Counter()
    for severity, count in levels.items():
        named[level_name(severity)] += count
    return {name: named[name] for name in LEVELS if name in named}
