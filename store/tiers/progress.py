"""How far a step has come, for whoever watches."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeAlias

Progress: TypeAlias = Callable[[str, str, int, int], None]
"""(step, what it works on, done, of how many): rows, bytes or files, by step."""


def unwatched(step: str, what: str, done: int, total: int) -> None:
    """Nobody watches."""
