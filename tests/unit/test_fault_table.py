"""tests/faults/TABLE.md is complete and true: each part of each group has tests, which are there and are run."""

from __future__ import annotations

import ast
import re
from functools import cache
from pathlib import Path

import pytest

from tests.faults.table import BROWSER, TABLE, TESTS, Group, Node, named_tests, read_table

GROUPS = read_table()
LETTERS = "abcdefghijklmnopqrstuvwxyz"
NOT_RUN = {"skip", "skipif", "xfail", "importorskip"}


def test_every_group_is_there_once_in_order() -> None:
    assert [group.number for group in GROUPS] == list(range(1, 32))


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: str(group.number))
def test_each_part_of_a_group_has_its_tests(group: Group) -> None:
    assert list(group.parts) == list(LETTERS[: len(group.parts)]), "parts are a, b, c … in the text"
    assert list(group.rows) == list(group.parts), "each part has a row, and each row a part"
    assert all(group.rows.values()), f"parts without a test: {[part for part, row in group.rows.items() if not row]}"


def test_tests_that_are_named_are_there_and_are_run() -> None:
    nodes = [node for node in named_tests() if not node.path.startswith(BROWSER)]
    assert [wrong for node in nodes for wrong in problems(node)] == []


def problems(node: Node) -> list[str]:
    """Why it shows nothing, for people."""
    tree = parsed(node.file)
    if node.name not in functions(tree):
        return [f"{node} is not there"]
    found = [f"{node} is not run"] if (marks(tree) | decorators(functions(tree)[node.name])) & NOT_RUN else []
    if reaches_skip(tree, node.name) != node.may_skip:
        found.append(f"{node}: the row must say whether there is where it is skipped")
    return found


def test_tests_of_the_page_that_are_named_are_there_and_are_run() -> None:
    for node in named_tests():
        if node.path.startswith(BROWSER):
            source = node.file.read_text()
            assert re.search(rf"^test\(\"{re.escape(node.name)}\"", source, re.MULTILINE), f"{node} is not there"
            assert not re.search(r"\b(?:test|describe)\.(?:skip|todo|only|runIf|skipIf)\b", source)


def test_every_file_of_fault_tests_is_named() -> None:
    told = TABLE.read_text() + (TABLE.parent / "README.md").read_text()
    files = [path.name for path in sorted((TESTS / "faults").glob("test_*.py"))]
    assert [name for name in files if f"faults/{name}" not in told] == []


def test_what_is_missing_or_skipped_is_seen() -> None:
    """The checks above can fail: they see a test that is missing, skipped, or skipped by what it asks for."""
    source = ast.parse(
        "import pytest\n@pytest.fixture\ndef asked():\n    pytest.skip('no')\n"
        "@pytest.fixture\ndef over(asked):\n    yield\n"
        "def test_one(over): ...\n@pytest.mark.skipif(True)\ndef test_two(): ...\ndef test_three(): ...\n"
    )
    found = functions(source)
    assert reaches_skip(source, "test_one")
    assert not reaches_skip(source, "test_three")
    assert decorators(found["test_two"]) & NOT_RUN
    assert "test_four" not in found


@cache
def parsed(path: Path) -> ast.Module:
    """A file's syntax tree."""
    return ast.parse(path.read_text())


Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.Module) -> dict[str, Function]:
    """Those of the module itself."""
    return {node.name: node for node in tree.body if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)}


def marks(tree: ast.Module) -> set[str]:
    """Names in the module's `pytestmark`."""
    values = [
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        and any(isinstance(target, ast.Name) and target.id == "pytestmark" for target in node.targets)
    ]
    return {each.attr for value in values for each in ast.walk(value) if isinstance(each, ast.Attribute)}


def decorators(function: Function) -> set[str]:
    """Names of what decorates it itself; marks of single parameters are about these alone."""
    found = set[str]()
    for decorator in function.decorator_list:
        called = decorator.func if isinstance(decorator, ast.Call) else decorator
        found |= {each.attr for each in ast.walk(called) if isinstance(each, ast.Attribute)}
    return found


def reaches_skip(tree: ast.Module, name: str) -> bool:
    """Whether this function, or one that it has as a parameter, calls `pytest.skip`."""
    found = functions(tree)
    waiting, seen = [name], set[str]()
    while waiting:
        function = found.get(waiting.pop())
        if function is None or function.name in seen:
            continue
        seen.add(function.name)
        waiting += [argument.arg for argument in function.args.args]
        calls = [each.func for each in ast.walk(ast.Module(function.body, [])) if isinstance(each, ast.Call)]
        if any(isinstance(called, ast.Attribute) and called.attr in NOT_RUN for called in calls):
            return True
    return False
