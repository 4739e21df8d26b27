"""Combines filters as conditions: AND, OR, NOT.

A child's condition holds for a log when the child would drop it. `all_of` drops when every child would, `any_of` when at
least one would, `none_of` when no child would. Children are asked in order and only until the answer is known. A child
never changes a log here, and limits (which count what they are asked) are no children: the configuration refuses them.
"""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum

from ingest.filters.verdicts import PASS, AnyLog, Drop, Filter, Gist, Occasion, Verdict


class Mode(StrEnum):
    """How the children's conditions are combined."""

    ALL_OF = "all_of"
    ANY_OF = "any_of"
    NONE_OF = "none_of"


class Composite:
    """Drops when the combined condition holds. Drops are counted under its own name."""

    def __init__(self, name: str, *, mode: Mode, children: Sequence[Filter]) -> None:
        """children: at least one."""
        self.name = name
        self._mode = mode
        self._children = tuple(children)
        self._drop = Drop(name)
        self.reads_metadata = any(child.reads_metadata for child in self._children)

    def judge(self, log: AnyLog, occasion: Occasion) -> Verdict:
        """Ask the children."""
        would_drop = (isinstance(child.judge(log, occasion), Drop) for child in self._children)
        match self._mode:
            case Mode.ALL_OF:
                holds = all(would_drop)
            case Mode.ANY_OF:
                holds = any(would_drop)
            case Mode.NONE_OF:
                holds = not any(would_drop)
        return self._drop if holds else PASS

    def passes_all(self, gist: Gist, occasion: Occasion) -> bool:
        """Whether the children's answers about the whole request are enough."""
        passes = (child.passes_all(gist, occasion) for child in self._children)
        match self._mode:
            case Mode.ALL_OF:
                return any(passes)
            case Mode.ANY_OF:
                return all(passes)
            case Mode.NONE_OF:
                return False
