"""How alerts, silences and patterns are shown in a terminal: text of others commands nothing and makes no lines."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cli.alerts import What, entry_lines
from cli.patterns import _print

HOSTILE = "x\x9b2J\x1b[31m\u202e\nfiring   critical 2026-01-31T12:00:00Z  forged"
TIME = "2026-01-31T12:00:00.000000Z"
ENTRIES: dict[What, dict[str, Any]] = {
    What.ALERTS: {
        "state": "firing",
        "severity": "info",
        "started_at": TIME,
        "ended_at": None,
        "rule": "r",
        "labels": {"user": HOSTILE},
        "value": 1.0,
        "logs": [{"timestamp": TIME, "level": "INFO", "service_name": "a", "message": HOSTILE}],
    },
    What.SILENCES: {
        "id": "1",
        "state": "active",
        "matchers": [{"label": "a", "op": "=", "value": HOSTILE}],
        "starts_at": TIME,
        "ends_at": TIME,
        "author": HOSTILE,
        "comment": HOSTILE,
    },
    What.NOTIFICATIONS: {
        "created_at": HOSTILE,
        "state": "dead",
        "attempts": 2,
        "channel": "c",
        "problem": HOSTILE,
        "message": {"title": HOSTILE},
    },
}


def assert_harmless(line: str) -> None:
    assert not set(line) & set("\x9b\x1b\u202e\n")
    assert not line.startswith("firing   critical")


@pytest.mark.parametrize("what", list(ENTRIES))
def test_labels_and_comments_make_no_lines_and_command_nothing(what: What) -> None:
    lines = entry_lines(what, ENTRIES[what], as_json=False)
    assert len(lines) == (2 if what is What.ALERTS else 1)
    for line in lines:
        assert_harmless(line)


@pytest.mark.parametrize("what", list(ENTRIES))
def test_json_means_the_same_and_commands_nothing(what: What) -> None:
    (line,) = entry_lines(what, ENTRIES[what], as_json=True)
    assert_harmless(line)
    assert json.loads(line) == ENTRIES[what]


def test_patterns_as_json_command_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    _print({"patterns": [{"template": HOSTILE}]}, as_json=True, is_gone=False)
    line = capsys.readouterr().out.removesuffix("\n")
    assert_harmless(line)
    assert json.loads(line) == {"template": HOSTILE}
