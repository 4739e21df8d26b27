"""From a log to a message, on both brokers and databases: told once, with the state saved beside the positions."""

from __future__ import annotations

import asyncio
import json
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from alerts.backtest import Backtest
from alerts.errors import StaleEpoch, StateMoved
from alerts.evaluate import Decision
from alerts.notify import NotifierState, Pace
from alerts.rules import FILE_OWNER, Rule, RuleDocument
from alerts.state import ALERTS, AlertState
from broker.factory import make_broker
from broker.settings import BrokerSettings
from db.leases import Lease
from schemas.record import Log
from schemas.scope import NO_SERVICES, ServiceScope
from search.match import compile_match
from tests.alert_site import AlertSite, alert_site, until
from tests.webhook_server import WebhookServer


@pytest.fixture(params=["embedded", pytest.param("full", marks=[pytest.mark.kafka, pytest.mark.timescale])])
def place(request: pytest.FixtureRequest) -> tuple[str, str, str]:
    """Kind and address of the broker, and the database."""
    if request.param == "full":
        return "kafka", request.getfixturevalue("kafka_bootstrap"), request.getfixturevalue("timescale_url")
    url = request.getfixturevalue("native_url")
    return "queue", url, url


@pytest.fixture
async def site(place: tuple[str, str, str], tmp_path: Path) -> AsyncIterator[AlertSite]:
    async with alert_site(*place, tmp_path) as site:
        yield site


@pytest.fixture
async def embedded(native_url: str, tmp_path: Path) -> AsyncIterator[AlertSite]:
    """What does not depend on the broker."""
    async with alert_site("queue", native_url, native_url, tmp_path) as site:
        yield site


def hook(site: AlertSite, server: WebhookServer) -> dict[str, Any]:
    """Settings of a channel."""
    return {"type": "webhook", "url": server.url, "secret_file": str(site.secret_file)}


async def told(server: WebhookServer, count: int) -> list[Any]:
    """The first messages, once so many came."""

    async def are_there() -> bool:
        return len(server.requests) >= count

    await until(are_there, f"{count} messages")
    return server.documents()


async def test_what_happens_is_told_as_firing_and_as_resolved(site: AlertSite) -> None:
    site.rules(
        {
            "name": "errors",
            "query": "service:pay* level>=error",
            "window": 4,
            "condition": {"count": {"at_least": 3}},
            "group_by": ["service"],
            "severity": "critical",
            "runbook": "https://wiki.example/pay",
        }
    )
    with WebhookServer() as server:
        async with site.evaluator(channels={"hook": hook(site, server)}):
            await site.evaluating()
            await site.send("pay", "pay", "shop", "shop", "shop", message="no \x1b[31mcolour\x1b[0m")
            await site.send("pay", "pay-b", level=17)
            await site.send("pay", level=9)
            firing, resolved = await told(server, 2)
    (alert,) = firing["alerts"]
    assert (firing["rule"], firing["firing"], firing["resolved"]) == ("errors", 1, 0)
    assert alert["labels"] == {"rule": "errors", "severity": "critical", "service": "pay"}
    assert (alert["value"], alert["runbook"]) == (3.0, "https://wiki.example/pay")
    assert {log["message"] for log in alert["logs"]} == {"it failed", "no \\x1b[31mcolour\\x1b[0m"}
    assert "https://logs.example/?query=service%3Apay" in alert["url"]
    assert (resolved["firing"], resolved["resolved"]) == (0, 1)
    assert resolved["alerts"][0]["id"] == alert["id"]
    assert [(each["state"], each["labels"]["service"]) for each in await site.alerts()] == [("resolved", "pay")]
    assert {state for _, _, state, _, _ in await site.outbox()} == {"sent"}


async def test_another_leader_goes_on_from_what_was_saved(site: AlertSite) -> None:
    site.rules({"name": "three", "condition": {"count": {"at_least": 3}}, "window": 120, "every": 2})
    with WebhookServer() as server:
        channels = {"hook": hook(site, server)}
        async with site.evaluator(channels=channels):
            await site.evaluating()
            await site.send("a")
            await site.send("a")
            await until(lambda: _counted(site, 2), "two were counted")
        assert not server.requests
        await site.send("a")  # while nobody leads
        async with site.evaluator("two", channels=channels):
            (document,) = await told(server, 1)
            assert document["alerts"][0]["value"] == 3.0
        async with site.evaluator("three", channels=channels):
            await site.evaluating()
            await site.send("a")
            await until(lambda: _counted(site, 4), "four were counted")
        assert len(server.requests) == 1, "what was decided is not decided again"


async def _counted(site: AlertSite, count: int) -> bool:
    saved = await AlertState(site.database, Lease(site.database, ALERTS, "looker", ttl_s=1), site.topic.name).load()
    groups = [group for state in saved.rules.values() for group in state.groups.values()]
    return sum(bucket.count for group in groups for bucket in group.buckets.values()) >= count


async def test_one_leads_and_one_stands_by_until_it_is_needed(site: AlertSite) -> None:
    site.rules({"name": "any", "condition": {"count": {"at_least": 1}}, "group_by": ["service"]})
    with WebhookServer() as server:
        channels = {"hook": hook(site, server)}
        async with site.evaluator("second", channels=channels):
            async with site.evaluator("first", channels=channels):
                await site.evaluating()
                await site.send("a")
                await told(server, 1)
            await site.send("b")
            documents = await told(server, 2)
        firing = [
            alert["labels"]["service"] for each in documents for alert in each["alerts"] if alert["state"] == "firing"
        ]
        assert "b" in firing
        ids = {alert["id"] for each in documents for alert in each["alerts"]}
        assert len(ids) == 2, "one alert for each, whoever decided it"


async def test_a_save_of_who_does_not_lead_any_more_is_refused_whole(embedded: AlertSite) -> None:
    async def save(state: AlertState) -> None:
        await state.save(
            positions={0: 5},
            read_us={0: 6},
            rules={},
            forgotten=set(),
            notifier=NotifierState(),
            alerts={},
            notifications=[],
            figures={},
        )

    lease = Lease(embedded.database, ALERTS, "first", ttl_s=60)
    assert await lease.acquire()
    first = AlertState(embedded.database, lease, "t")
    assert (await first.load()).version == 0
    await save(first)
    behind = AlertState(embedded.database, lease, "t")
    await behind.load()
    await save(first)
    with pytest.raises(StateMoved):
        await save(behind)
    other = Lease(embedded.database, ALERTS, "second", ttl_s=60)
    await other.take_over()
    with pytest.raises(StaleEpoch):
        await save(first)
    second = AlertState(embedded.database, other, "t")
    saved = await second.load()
    assert (saved.version, saved.positions, saved.read_us) == (2, {0: 5}, {0: 6})
    await save(second)


async def test_a_channel_that_hangs_holds_up_no_other_and_is_tried_again(embedded: AlertSite) -> None:
    embedded.rules(
        {
            "name": "any",
            "condition": {"count": {"at_least": 1}},
            "window": 120,
            "every": 2,
            "channels": ["slow", "hook"],
        }
    )
    with WebhookServer() as slow, WebhookServer() as server:
        slow.hangs.set()
        channels = {"hook": hook(embedded, server), "slow": hook(embedded, slow)}
        async with embedded.evaluator(channels=channels, send_s=0.3):
            await embedded.evaluating()
            await embedded.send("a")
            await told(server, 1)
            await told(slow, 2)
            slow.hangs.clear()

            async def all_sent() -> bool:
                return {state for _, _, state, _, _ in await embedded.outbox()} == {"sent"}

            await until(all_sent, "both were sent")
        assert len({document["id"] for document in slow.documents()}) == 1, "each attempt has the same id"
        assert len({each.body for each in slow.requests}) == 1


async def test_what_cannot_be_sent_is_dead_with_its_reason(embedded: AlertSite) -> None:
    embedded.rules(
        {
            "name": "any",
            "condition": {"count": {"at_least": 1}},
            "window": 120,
            "every": 2,
            "channels": ["bad", "inside", "gone"],
        }
    )
    with WebhookServer(status=500) as bad:
        channels = {
            "bad": hook(embedded, bad),
            "inside": {"type": "webhook", "url": "http://169.254.169.254/", "secret_file": str(embedded.secret_file)},
        }
        async with embedded.evaluator(channels=channels, attempts_max=3, backoff_max=1):
            await embedded.evaluating(in_spite_of_problems=True)
            await embedded.send("a")

            async def all_dead() -> bool:
                states = [state for _, _, state, _, _ in await embedded.outbox()]
                return states == ["dead"] * 3

            await until(all_dead, "all are dead")
    found = {channel: (attempts, problem) for _, channel, _, attempts, problem in await embedded.outbox()}
    assert found == {
        "bad": (3, "answered 500 (3 attempts)"),
        "inside": (
            1,
            "169.254.169.254 is not a public address: alerts.allowed_networks names those that may be reached all the same",
        ),
        "gone": (0, "there is no such channel"),
    }


@pytest.mark.slow
async def test_a_storm_is_capped_by_the_breaker_with_one_summary(embedded: AlertSite) -> None:
    embedded.rules(
        {"name": "storm", "condition": {"count": {"at_least": 1}}, "window": 120, "every": 2, "group_by": ["service"]}
    )
    with WebhookServer() as server:
        limits: dict[str, Any] = {"breaker_notifications_max": 2, "breaker_window": 8, "breaker_cool_down": 8}
        async with embedded.evaluator(channels={"hook": hook(embedded, server)}, **limits):
            await embedded.evaluating()

            async def opened() -> bool:
                await embedded.send(f"s{embedded.next_id}")
                return any(document["kind"] == "breaker_opened" for document in server.documents())

            await until(opened, "the breaker opens")
            (breaker,) = await embedded.store.breakers()
            assert (breaker.rule, breaker.channel, breaker.state) == ("storm", "hook", "open")
            for _ in range(3):
                await embedded.send(f"s{embedded.next_id}")

            async def summed_up() -> bool:
                return any(document["kind"] == "summary" for document in server.documents())

            await until(summed_up, "a summary")
    kinds = [document["kind"] for document in server.documents()]
    assert kinds[:4] == ["alerts", "alerts", "breaker_opened", "summary"]
    assert server.documents()[3]["held"]["notifications"] >= 1


async def test_a_breaker_is_reset_by_hand(embedded: AlertSite) -> None:
    embedded.rules(
        {"name": "storm", "condition": {"count": {"at_least": 1}}, "window": 120, "every": 2, "group_by": ["service"]}
    )
    with WebhookServer() as server:
        limits: dict[str, Any] = {"breaker_notifications_max": 1, "breaker_window": 3_600, "breaker_cool_down": 3_600}
        async with embedded.evaluator(channels={"hook": hook(embedded, server)}, **limits):
            await embedded.evaluating()
            await embedded.send("a")
            await told(server, 1)
            await embedded.send("b")
            await told(server, 2)
            await embedded.store.ask_reset("storm", "hook", by="tests")
            documents = await told(server, 3)
            assert [document["kind"] for document in documents] == ["alerts", "breaker_opened", "summary"]
            assert [breaker.state for breaker in await embedded.store.breakers()] == ["closed"]
            assert not await embedded.database.fetch_all("SELECT FROM alert_resets")


async def test_rules_of_files_follow_the_file_and_mistakes_leave_them_as_they_are(embedded: AlertSite) -> None:
    embedded.rules({"name": "one", "condition": {"count": {"at_least": 1}}, "window": 120, "every": 2})
    with WebhookServer() as server:
        async with embedded.evaluator(channels={"hook": hook(embedded, server)}):
            await embedded.evaluating()
            await embedded.send("a")
            await told(server, 1)
            embedded.rules_file.write_text("rules: [{name: one}]")
            await embedded.send("b")
            assert [rule.document.name for rule in await embedded.store.rules()] == ["one"]
            embedded.rules({"name": "two", "condition": {"count": {"at_least": 1}}, "window": 120, "every": 2})

            async def followed() -> bool:
                return [rule.document.name for rule in await embedded.store.rules()] == ["two"]

            await until(followed, "the file is read again")
            documents = await told(server, 2)
            assert documents[1]["resolved"] == 1
            assert (
                documents[1]["alerts"][0]["reason"] == "the rule was removed, or its owner may not set alerts any more"
            )


async def test_a_rule_sees_what_its_owner_may_see_at_that_moment(embedded: AlertSite) -> None:
    document = RuleDocument.model_validate(
        {
            "name": "mine",
            "condition": {"count": {"at_least": 1}},
            "window": 120,
            "every": 2,
            "lateness": 1,
            "group_by": ["service"],
        }
    )
    await embedded.store.create(document, owner="user:7", by="ann")
    scope = [ServiceScope(names=frozenset({"shop"}))]
    async with embedded.evaluator(scopes=lambda owner: scope[0] if owner == "user:7" else NO_SERVICES):
        await embedded.evaluating()

        async def services() -> list[str]:
            return [alert["labels"]["service"] for alert in await embedded.alerts()]

        async def seen(expected: list[str]) -> bool:
            return await services() == expected

        await embedded.send("shop", "secret")
        await until(lambda: seen(["shop"]), "shop is seen")
        scope[0] = ServiceScope(names=frozenset({"shop", "pay"}))
        await until(lambda: _has_seen_pay(embedded), "a wider right counts")
        scope[0] = NO_SERVICES

        async def suspended() -> bool:
            (rule,) = await embedded.store.rules()
            return rule.problem is not None and all(alert["state"] == "resolved" for alert in await embedded.alerts())

        await until(suspended, "without a right nothing is evaluated")
        assert "secret" not in await services()


async def _has_seen_pay(site: AlertSite) -> bool:
    await site.send("pay", "secret")
    return any(alert["labels"]["service"] == "pay" for alert in await site.alerts())


@pytest.mark.slow
async def test_live_and_backtested_decisions_are_the_same(site: AlertSite) -> None:
    documents: list[dict[str, Any]] = [
        {"name": "count", "condition": {"count": {"at_least": 3}}, "window": 2, "group_by": ["service"]},
        {
            "name": "share",
            "query": "service:b",
            "condition": {"error_ratio": {"at_least": 0.5, "min_logs": 2}},
            "window": 3,
        },
        {"name": "silence", "condition": {"silence": {}}, "window": 2, "group_by": ["service"]},
        {"name": "users", "condition": {"distinct": {"field": "user", "at_least": 2}}, "window": 2, "for": 1},
    ]
    site.rules(*[document | {"channels": [], "lateness": 2} for document in documents])
    sent: list[Log] = []
    async with site.evaluator():
        await site.evaluating()
        states = await _states(site)
        for step in range(30):
            services = ["a"] * (step % 3) + ["b"] * (step // 10)
            if services:
                sent += await site.send(*services, level=17 if step % 4 else 9, user=step % 5)
            await asyncio.sleep(0.2)  # logs of different times: what is tested is what comes of them
        end_us = max(log.timestamp for log in sent) + 10_000_000

        async def is_past() -> bool:
            _, _, figures = await site.store.status(site.topic.name)
            return bool(figures["watermark_us"] > end_us)

        await until(is_past, "everything was looked at")
        _, _, figures = await site.store.status(site.topic.name)
        assert all(each["late"] == 0 for each in figures["rules"].values())
        live = {
            (each["rule"], each["alert_id"], each["started_us"], each["ended_us"], each["value"])
            for each in await site.alerts()
        }
    found: dict[str, list[Any]] = {}
    for stored in await site.store.rules():
        rule = Rule(stored.document, FILE_OWNER)
        matches = compile_match(rule.document.predicate)
        backtest = Backtest(rule, pace=Pace(), start_us=states[rule.name])
        logs = sorted((log for log in sent if matches(log)), key=lambda log: (log.timestamp, log.id))
        for event in [*backtest.take(logs), *backtest.advance(end_us + 2_000_000)]:
            if isinstance(event, Decision):
                ended_us = event.at_us if event.state == "resolved" else None
                found[event.alert_id] = [event.rule, event.alert_id, event.started_us, ended_us, event.value]
    assert {tuple(each) for each in found.values() if each[2] < end_us - 2_000_000} == {
        each for each in live if each[2] < end_us - 2_000_000
    }
    assert {each[0] for each in live} >= {"count", "share", "silence"}


async def _states(site: AlertSite) -> dict[str, int]:
    """Rule -> tick at which it began."""
    saved = await AlertState(site.database, Lease(site.database, ALERTS, "looker", ttl_s=1), site.topic.name).load()
    return {name: state.start_us for name, state in saved.rules.items()}


@pytest.mark.kafka
async def test_a_topic_gets_one_record_for_each_message(kafka_bootstrap: str, native_url: str, tmp_path: Path) -> None:
    async with alert_site("kafka", kafka_bootstrap, native_url, tmp_path) as site:
        site.rules(
            {"name": "any", "condition": {"count": {"at_least": 1}}, "window": 120, "every": 2, "channels": ["log"]}
        )
        name = f"alerts-{uuid.uuid4().hex}"
        broker = BrokerSettings.model_validate({"kind": "kafka", "bootstrap": kafka_bootstrap})
        async with site.evaluator(channels={"log": {"type": "topic", "topic": name}}, broker=broker):
            await site.evaluating()
            await site.send("a")

            async def is_sent() -> bool:
                return [state for _, _, state, _, _ in await site.outbox()] == ["sent"]

            await until(is_sent, "it is sent")
        reading = make_broker(broker.model_copy(update={"topic": name}), None)
        await reading.open()
        reader = await reading.reader(group="test")
        await reader.seek({0: 0})
        (record,) = await reader.poll(max_bytes=1_000_000, wait_ms=10_000)
        await reader.close()
        await reading.close()
        ((notification_id, *_),) = await site.outbox()
        assert dict(record.headers)["notification"] == notification_id.encode()
        assert json.loads(record.value)["alerts"][0]["labels"] == {"rule": "any", "severity": "warning"}
