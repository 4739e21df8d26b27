"""Reads TABLE.md: groups of faults, their parts, and the tests that show each. `python -m tests.faults.table` prints the latter
as pytest takes them, for `make faults`."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

TESTS: Final = Path(__file__).resolve().parents[1]
TABLE: Final = Path(__file__).parent / "TABLE.md"
BROWSER: Final = "web/"
"""Tests of the page: `make test-browser` runs them."""

_GROUP: Final = re.compile(r"^## (\d+)\. (.+)$", re.MULTILINE)
_PART: Final = re.compile(r"\(([a-z])\)")
_ROW: Final = re.compile(r"^\| ([a-z]) \| (.+) \|$", re.MULTILINE)
_NODE: Final = re.compile(r"`([^`]+?\.(?:py|ts))::([^`]+)`")
MAY_SKIP: Final = "(skipped where "
"""What a row says behind a test that does not run everywhere."""


@dataclass(frozen=True, slots=True)
class Node:
    """A test."""

    path: str
    """Below `tests/`, or below the repository for the page's."""
    name: str
    may_skip: bool

    @property
    def file(self) -> Path:
        """Where it is."""
        return (TESTS.parent if self.path.startswith(BROWSER) else TESTS) / self.path

    def __str__(self) -> str:
        return f"{self.path}::{self.name}"


@dataclass(frozen=True, slots=True)
class Group:
    """One group of faults."""

    number: int
    title: str
    parts: tuple[str, ...]
    """Letters in its text, as they come."""
    rows: dict[str, tuple[Node, ...]] = field(default_factory=dict)
    """Part -> its tests."""


def read_table() -> list[Group]:
    """As they stand in the file."""
    text = TABLE.read_text()
    heads = list(_GROUP.finditer(text))
    ends = [head.start() for head in heads[1:]] + [len(text)]
    groups = []
    for head, end in zip(heads, ends, strict=True):
        described, _, table = text[head.end() : end].partition("| part |")
        rows = {row[1]: tuple(_nodes(row[2])) for row in _ROW.finditer(table)}
        groups.append(Group(int(head[1]), head[2], tuple(_PART.findall(described)), rows))
    return groups


def _nodes(cell: str) -> list[Node]:
    found = []
    for match in _NODE.finditer(cell):
        may_skip = cell[match.end() :].lstrip().startswith(MAY_SKIP)
        found.append(Node(match[1], match[2], may_skip))
    return found


def named_tests() -> list[Node]:
    """Each once, in the order of the table."""
    return list(dict.fromkeys(node for group in read_table() for row in group.rows.values() for node in row))


if __name__ == "__main__":
    for node in named_tests():
        if not node.path.startswith(BROWSER):
            print(f"tests/{node}")
