"""What of the page gets into a wheel, where npm is and where it is not."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest
from hatchling.builders.wheel import WheelBuilder

from tests.unit.test_project import ROOT

NPM = """#!/bin/sh
echo "$@" >> calls
[ "$1" = run ] || exit 0
[ -e broken ] && { echo "no such module" >&2; exit 1; }
mkdir -p dist && echo page > dist/index.html
"""
"""Writes down how it was called, and builds as the page's own does; reads no registry."""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Sources of a page and of what builds wheels; nothing on the path but `npm`."""
    (tmp_path / "web").mkdir()
    (tmp_path / "web" / "package.json").write_text("{}")
    (tmp_path / "infra").mkdir()
    hook = "infra/page_in_wheel.py"
    (tmp_path / hook).write_text((ROOT / hook).read_text())
    programs = tmp_path / "programs"
    programs.mkdir()
    (programs / "npm").write_text(NPM)
    (programs / "npm").chmod(0o755)
    monkeypatch.setenv("PATH", os.pathsep.join((str(programs), "/usr/bin", "/bin")))
    return tmp_path


def included(project: Path, version: str = "standard") -> dict[str, str]:
    """Path in the sources -> path in the wheel."""
    hooks = {"custom": {"path": "infra/page_in_wheel.py"}}
    config = {"project": {"name": "x", "version": "1"}, "tool": {"hatch": {"build": {"hooks": hooks}}}}
    builder = WheelBuilder(str(project), config=config)
    data: dict[str, Any] = {"force_include": {}}  # Any: hatchling's
    for hook in builder.get_build_hooks(str(project)).values():
        hook.initialize(version, data)
    return dict(data["force_include"])


def test_a_wheel_has_the_page_that_was_built_for_it(project: Path) -> None:
    assert included(project) == {"web/dist": "cli/page_files"}
    assert (project / "web" / "calls").read_text().splitlines() == ["ci --ignore-scripts", "run build"]


def test_without_npm_a_page_that_is_there_is_taken_and_none_is_no_error(
    project: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(project / "web"))
    assert included(project) == {}
    (project / "web" / "dist").mkdir()
    (project / "web" / "dist" / "index.html").write_text("page")
    assert included(project) == {"web/dist": "cli/page_files"}


def test_a_page_that_cannot_be_built_is_told_and_the_wheel_is_built(
    project: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (project / "web" / "broken").touch()
    assert included(project) == {}
    assert "npm run failed\nno such module" in capsys.readouterr().err


def test_an_installation_from_a_checkout_builds_nothing(project: Path) -> None:
    assert included(project, "editable") == {}
    assert not (project / "web" / "calls").exists()
