"""`logfeed alerts` as people type it, against a server with an evaluator."""

from __future__ import annotations

import asyncio
import json
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import pytest

from infra.fleet import EMBEDDED, Fleet, until
from tests import commands
from tests.fleets import Fleets

RULES = """\
rules:
  - name: errors
    query: level>=error
    window: 8m
    every: 2s
    lateness: 1s
    condition: {count: {at_least: 2}}
    group_by: [service]
    channels: [log]
"""


def logfeed(*arguments: str, url: str | None = None) -> subprocess.CompletedProcess[str]:
    return commands.logfeed("alerts", *arguments, **({"LOGFEED_URL": url} if url else {}))


@pytest.fixture(scope="module")
def fleet(tmp_path_factory: pytest.TempPathFactory, embedded_server: str, fleets: Fleets) -> Iterator[Fleet]:
    """serve, write and alert; the rule fires. embedded_server: where there is none, these are skipped too."""
    directory = tmp_path_factory.mktemp("alert-commands")
    directory.chmod(0o711)
    (directory / "rules.yaml").write_text(RULES)
    settings = {
        "LOGFEED_ALERTS__RULES": str(directory / "rules.yaml"),
        "LOGFEED_ALERTS__CHANNELS": '{"log": {"type": "topic"}}',
        "LOGFEED_ALERTS__GROUP_WAIT": "0",
    }
    fleet = fleets.make(EMBEDDED, extra=settings)
    try:
        for role in ("serve", "write", "alert"):
            fleet.role(role)
        asyncio.run(_fire(fleet))
        yield fleet
    finally:
        fleets.end(fleet)


async def _fire(fleet: Fleet) -> None:
    await fleet.ready("serve")
    async with httpx.AsyncClient(trust_env=False, base_url=fleet.url("serve"), timeout=30) as client:

        async def ask(path: str) -> Any:
            return (await client.get(f"/api/v1/alerts{path}")).json()

        async def evaluates() -> bool:
            return bool((await ask(""))["status"]["watermark"])

        await until(evaluates, what="rules are evaluated")
        logs = [{"service_name": "shop", "level": "error", "message": "it \x1b[31mfailed"}] * 2
        assert (await client.post("/api/v1/logs/batch", json=logs)).status_code == 201

        async def is_sent() -> bool:
            return [each["state"] for each in (await ask("/notifications"))["notifications"]] == ["sent"]

        await until(is_sent, what="it is told")

        async def is_stored() -> bool:
            return len((await client.get("/api/v1/logs?level=error")).json()["logs"]) == 2

        await until(is_stored, what="the logs are stored")


def test_what_fires_is_listed_with_its_logs_shown_and_not_obeyed(fleet: Fleet) -> None:
    shown = logfeed("list", url=fleet.url("serve"))
    assert shown.returncode == 0, shown.stderr
    assert shown.stdout.startswith("firing   warning  20")
    assert "errors  service=shop  value 2" in shown.stdout
    assert "\x1b" not in shown.stdout
    assert "it \\x1b[31mfailed" in shown.stdout
    (alert,) = map(json.loads, logfeed("list", "--json", "--firing", url=fleet.url("serve")).stdout.splitlines())
    assert (alert["state"], alert["labels"]["service"]) == ("firing", "shop")
    (message,) = map(json.loads, logfeed("list", "notifications", "--json", url=fleet.url("serve")).stdout.splitlines())
    assert message["message"]["alerts"][0]["id"] == alert["id"], (
        "where there is no Kafka, the API serves what went to the topic"
    )
    assert "errors  warning  of file  1 groups  1 firing" in logfeed("list", "rules", url=fleet.url("serve")).stdout
    assert "errors  log  closed since 20" in logfeed("list", "breakers", url=fleet.url("serve")).stdout


def test_a_silence_is_made_listed_and_ended(fleet: Fleet) -> None:
    url = fleet.url("serve")
    assert logfeed("list", "silences", url=url).returncode == 1
    made = logfeed("silence", "rule=errors", "service=~sh.*", "--for", "2h", "--comment", "known", url=url)
    assert made.returncode == 0, made.stderr
    name = made.stdout.strip()
    listed = logfeed("list", "silences", url=url).stdout
    assert listed.startswith(f"{name}  active ")
    assert "rule=errors service=~sh.*  anyone: known" in listed
    assert logfeed("silence", "--end", name, url=url).returncode == 0
    assert logfeed("list", "silences", url=url).stdout.startswith(f"{name}  ended ")
    assert logfeed("silence", "--end", "gone", url=url).returncode == 1
    for wrong in (["silence", "rule=errors"], ["silence", "nonsense", "--comment", "x"], ["silence", "--comment", "x"]):
        assert logfeed(*wrong, url=url).returncode != 0


def test_a_breaker_is_reset(fleet: Fleet) -> None:
    url = fleet.url("serve")
    assert logfeed("reset", "errors", "log", url=url).stdout == "asked the evaluator\n"
    gone = logfeed("reset", "errors", "gone", url=url)
    assert gone.returncode == 1
    assert "nothing of rule errors went to a channel gone" in gone.stderr


def test_a_backtest_says_when_a_rule_would_have_fired_and_how_often_it_would_have_been_told(
    fleet: Fleet, tmp_path: Path
) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(RULES + RULES.partition("\n")[2].replace("errors", "other").replace("at_least: 2", "at_least: 3"))
    done = logfeed("test", str(file), "--since", "-1h", url=fleet.url("serve"))
    assert done.returncode == 0, done.stderr
    lines = done.stdout.splitlines()
    assert "firing    errors  shop  value 2" in lines[0]
    assert lines[-2].startswith("errors: 2 logs, fired 1 times")
    assert lines[-1].startswith("other: 2 logs, fired 0 times, resolved 0; 0 messages")
    only = logfeed("test", str(file), "--since", "-1h", "--rule", "other", "--json", url=fleet.url("serve"))
    assert json.loads(only.stdout) == {
        "rule": "other",
        "logs": 2,
        "fired": 0,
        "resolved": 0,
        "messages": 0,
        "breaker_opened": 0,
        "overflowed": 0,
    }
    assert logfeed("test", str(file), "--rule", "gone", url=fleet.url("serve")).returncode != 0
    assert logfeed("test", str(file), "--since", "later", url=fleet.url("serve")).returncode != 0


def test_rules_are_checked_without_a_server(tmp_path: Path) -> None:
    file = tmp_path / "rules.yaml"
    file.write_text(RULES)
    good = logfeed("check", str(file))
    assert (good.returncode, good.stdout) == (0, "errors: at least 2 logs in 8m\n")
    file.write_text(RULES.replace("condition", "conditon"))
    bad = logfeed("check", str(file))
    assert bad.returncode == 2
    assert f"{file}:7:5: conditon: there is no such field: did you mean condition?" in bad.stderr
    assert logfeed("check", str(tmp_path / "gone.yaml")).returncode == 2


def test_a_server_that_is_not_there_is_told_so() -> None:
    done = logfeed("list", url="http://127.0.0.1:9")
    assert done.returncode == 1
    assert "is the server running?" in done.stderr
