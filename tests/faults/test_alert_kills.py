"""Evaluators as real processes, killed at the worst moments: no decision is lost or made twice, and what was not known to be
sent goes once more with the same id."""

from __future__ import annotations

import asyncio
import json
import signal
from collections import Counter
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from infra.fleet import Fleet, Role, until
from tests.commands import logfeed
from tests.faults.conftest import MakeFleet
from tests.faults.proxy import DatabaseProxy, Moment, Trap
from tests.webhook_server import WebhookServer

pytestmark = [pytest.mark.timeout(300), pytest.mark.slow]
APPLICATION = b"logfeed alert"
RULE = {
    "name": "each",
    "query": "level>=error",
    "window": 240,
    "every": 1,
    "lateness": 2,
    "condition": {"count": {"at_least": 1}},
    "group_by": ["service"],
    "channels": ["hook"],
}


class Alerting:
    """Ingest, query and what evaluates, and a receiver of webhooks."""

    def __init__(self, fleet: Fleet, directory: Path, server: WebhookServer) -> None:
        self.fleet = fleet
        self.server = server
        self.rules_file = directory / "rules.yaml"
        self.rules_file.write_text(yaml.safe_dump({"rules": [RULE]}))
        (directory / "secret").write_text("word")
        hook = {"type": "webhook", "url": server.url, "secret_file": str(directory / "secret")}
        self.environment = {
            "LOGFEED_ALERTS__RULES": str(self.rules_file),
            "LOGFEED_ALERTS__CHANNELS": json.dumps({"hook": hook}),
            "LOGFEED_ALERTS__ALLOWED_NETWORKS": '["127.0.0.0/8"]',
            "LOGFEED_ALERTS__GROUP_WAIT": "0",
            "LOGFEED_ALERTS__GROUP_INTERVAL": "1",
            "LOGFEED_ALERTS__SAVE_S": "0.2",
            "LOGFEED_ALERTS__BREAKER_NOTIFICATIONS_MAX": "1000",
        }

    async def start(self, **more: str) -> Role:
        self.fleet.role("serve")
        evaluator = self.fleet.role("alert", **self.environment, **more)
        await self.fleet.ready("serve")
        await self.evaluating()
        return evaluator

    async def ask(self, path: str) -> Any:
        async with httpx.AsyncClient(trust_env=False, base_url=self.fleet.url("serve")) as client:
            answer = await client.get(path, timeout=20)
            assert answer.status_code == 200, answer.text
            return answer.json()

    async def evaluating(self) -> None:
        async def is_so() -> bool:
            status = (await self.ask("/api/v1/alerts"))["status"]
            return status["leader"] is not None and status["watermark"] is not None

        await until(is_so, what="rules are evaluated")

    async def send(self, *services: str) -> None:
        logs = [{"service_name": service, "level": "error", "message": f"{service} failed"} for service in services]
        async with httpx.AsyncClient(trust_env=False, base_url=self.fleet.url("serve")) as client:
            answer = await client.post("/api/v1/logs/batch", json=logs, timeout=30)
            assert answer.status_code == 201, answer.text

    def told(self) -> set[str]:
        """Services that were told as firing."""
        return {alert["labels"]["service"] for document in self.server.documents() for alert in document["alerts"]}

    async def until_told(self, *services: str) -> None:
        async def are_told() -> bool:
            return set(services) <= self.told()

        await until(are_told, what=f"{services} are told", timeout_s=90)

    async def check(self, services: list[str], *, kills: int) -> None:
        """One alert for each, the same in every message; each message as often as promised."""

        async def all_sent() -> bool:
            found = (await self.ask("/api/v1/alerts/notifications?limit=500"))["notifications"]
            return all(each["state"] == "sent" for each in found)

        await until(all_sent, what="everything was sent")
        alerts = (await self.ask("/api/v1/alerts?limit=500"))["alerts"]
        assert Counter(alert["labels"]["service"] for alert in alerts) == Counter(services), "each decided once"
        ids = {alert["labels"]["service"]: alert["id"] for alert in alerts}
        documents = self.server.documents()
        for document in documents:
            for alert in document["alerts"]:
                assert ids[alert["labels"]["service"]] == alert["id"]
        copies = Counter(document["id"] for document in documents)
        stored = {each["id"] for each in (await self.ask("/api/v1/alerts/notifications?limit=500"))["notifications"]}
        assert set(copies) == stored, "what was sent is what was decided"
        assert copies.total() - len(copies) <= kills, "once more for each kill at worst"


async def test_killed_between_decision_and_send_sends_once_more_with_the_same_id(
    make_fleet: MakeFleet, profile: str, tmp_path: Path
) -> None:
    fleet = await asyncio.to_thread(make_fleet, profile)
    evaluators: list[Role] = []

    def kill_first(number: int) -> None:
        if number == 1:
            evaluators[0].signal(signal.SIGKILL)

    with WebhookServer(on_request=kill_first) as server:
        alerting = Alerting(fleet, tmp_path, server)
        evaluators.append(await alerting.start())
        fleet.role("write")
        await alerting.send("shop", "shop")
        await alerting.until_told("shop")
        process = evaluators[0].process
        assert process is not None
        assert await asyncio.to_thread(process.wait, 30) == -signal.SIGKILL
        evaluators[0].start()

        async def twice() -> bool:
            return len(server.requests) == 2

        await until(twice, what="it is sent once more")
        assert len({each.body for each in server.requests}) == 1, "the same message"
        await alerting.check(["shop"], kills=1)
        await alerting.send("pay")
        await alerting.until_told("pay")
        await alerting.check(["shop", "pay"], kills=1)
        await _check_backtest(alerting)


async def _check_backtest(alerting: Alerting) -> None:
    """The command, over what was stored meanwhile, decides the same."""
    live = {
        alert["labels"]["service"]: alert["started_at"] for alert in (await alerting.ask("/api/v1/alerts"))["alerts"]
    }

    async def stored() -> bool:
        page = await alerting.ask("/api/v1/logs?level=error&limit=10")
        return len(page["logs"]) == 3

    await until(stored, what="the logs are stored")
    command = ("alerts", "test", str(alerting.rules_file), "--since", "-1h", "--json")
    done = await asyncio.to_thread(logfeed, *command, "--url", alerting.fleet.url("serve"))
    assert done.returncode == 0, done.stderr
    *decisions, summary = map(json.loads, done.stdout.splitlines())
    assert {each["group"][0]: each["at"] for each in decisions if each["state"] == "firing"} == live
    assert (summary["logs"], summary["fired"]) == (3, 2)


@pytest.mark.parametrize("moment", [Moment.BEFORE_COMMIT, Moment.COMMIT_ANSWERED])
async def test_killed_at_any_commit_decides_and_tells_everything_once(
    make_fleet: MakeFleet, profile: str, tmp_path: Path, moment: Moment
) -> None:
    fleet = await asyncio.to_thread(make_fleet, profile)
    async with DatabaseProxy(fleet.database_url, application=APPLICATION) as proxy:
        with WebhookServer() as server:
            alerting = Alerting(fleet, tmp_path, server)
            evaluator = await alerting.start(LOGFEED_DATABASE__URL=proxy.url)
            services, kills = [], 0
            for number in range(4):
                services.append(f"s{number}")
                trap = Trap(moment, lambda: evaluator.signal(signal.SIGKILL), cut=True, skip=4 * number)
                proxy.trap = trap
                await alerting.send(services[-1])
                await asyncio.wait_for(trap.fired.wait(), 60)
                kills += 1
                assert evaluator.process is not None
                await asyncio.to_thread(evaluator.process.wait, 30)
                evaluator.start()
            proxy.trap = None
            await alerting.until_told(*services)
            await alerting.check(services, kills=kills)


async def test_connection_cut_at_a_commit_leaves_no_doubt(make_fleet: MakeFleet, tmp_path: Path) -> None:
    """A save whose outcome nobody told is settled by reading what was saved."""
    fleet = await asyncio.to_thread(make_fleet, "embedded")
    async with DatabaseProxy(fleet.database_url, application=APPLICATION) as proxy:
        with WebhookServer() as server:
            alerting = Alerting(fleet, tmp_path, server)
            evaluator = await alerting.start(LOGFEED_DATABASE__URL=proxy.url)
            services = []
            for number, moment in enumerate([Moment.BEFORE_COMMIT, Moment.COMMIT_ANSWERED] * 3):
                services.append(f"s{number}")
                proxy.trap = trap = Trap(moment, lambda: None, cut=True, skip=number)
                await alerting.send(services[-1])
                await asyncio.wait_for(trap.fired.wait(), 60)
            proxy.trap = None
            await alerting.until_told(*services)
            await alerting.check(services, kills=len(services))
            assert evaluator.alive


async def test_stopped_evaluator_is_followed_by_another_and_changes_nothing_when_it_goes_on(
    make_fleet: MakeFleet, tmp_path: Path
) -> None:
    fleet = await asyncio.to_thread(make_fleet, "embedded")
    with WebhookServer() as server:
        alerting = Alerting(fleet, tmp_path, server)
        first = await alerting.start()
        await alerting.send("a")
        await alerting.until_told("a")
        first.signal(signal.SIGSTOP)
        fleet.role("alert", label="second", **alerting.environment)
        await alerting.send("b")
        await alerting.until_told("b")
        first.signal(signal.SIGCONT)
        await alerting.send("c")
        await alerting.until_told("c")
        await alerting.check(["a", "b", "c"], kills=1)
        assert first.alive
        assert first.stop() == 0
