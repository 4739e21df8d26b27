"""What is found, and how it is told."""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum

import msgspec

from cli.terminal import harmless


class State(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARN = "warn"
    """It works, and somebody should look."""
    FAIL = "fail"
    """It does not work, or loses logs sooner or later."""


class Finding(msgspec.Struct, frozen=True):
    """One line."""

    state: State
    what: str
    """Subject: database, broker, clock, …"""
    text: str
    """What is so."""
    do: str = ""
    """What to do about it; empty where nothing is to be done."""


def ok(what: str, text: str) -> Finding:
    """Nothing to do."""
    return Finding(State.OK, what, text)


def warn(what: str, text: str, do: str) -> Finding:
    """See State.WARN."""
    return Finding(State.WARN, what, text, do)


def fail(what: str, text: str, do: str) -> Finding:
    """See State.FAIL."""
    return Finding(State.FAIL, what, text, do)


def as_text(finding: Finding) -> str:
    """A line, and below it what to do. Whatever texts of others it holds, it takes these lines."""
    line = f"{finding.state:<5} {finding.what:<10} {_line(finding.text)}"
    return line + (f"\n{'':16} -> {_line(finding.do)}" if finding.do else "")


def as_json(findings: Iterable[Finding]) -> str:
    """One document: whether any fails, and all of them."""
    found = list(findings)
    return msgspec.json.encode({"ok": is_well(found), "findings": found}).decode()


def is_well(findings: Iterable[Finding]) -> bool:
    """Whether none fails."""
    return all(finding.state is not State.FAIL for finding in findings)


def _line(text: str) -> str:
    return harmless(" ".join(text.split()))
