"""Alerts on patterns that are there for the first time, by real evaluators over a real broker and database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

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


async def test_a_new_pattern_is_told_once_whoever_evaluates(site: AlertSite) -> None:
    rule: dict[str, Any] = {
        "name": "novel",
        "query": "service:pay*",
        "window": 2,
        "condition": {"new_pattern": {"learn": 0}},
    }
    site.rules(rule)
    with WebhookServer() as server:
        channels = {"hook": {"type": "webhook", "url": server.url, "secret_file": str(site.secret_file)}}

        def told() -> list[tuple[str, str]]:
            """(service, pattern) of what was told as firing."""
            alerts = [alert for document in server.documents() for alert in document["alerts"]]
            return [
                (alert["labels"]["service"], alert["labels"]["pattern"])
                for alert in alerts
                if alert["state"] == "firing"
            ]

        async def all_over() -> bool:
            alerts = await site.alerts()
            return bool(alerts) and all(alert["state"] == "resolved" for alert in alerts)

        async with site.evaluator(channels=channels):
            await site.evaluating()
            for number in range(3):
                await site.send("pay", message=f"card {number} declined")
            await site.send("shop", message="of no interest here")
            await until(lambda: _has(told, ("pay", "card <num> declined")), "it is told")
            await until(all_over, "it is over")
        async with site.evaluator("two", channels=channels):
            await site.evaluating()
            await site.send("pay", message="card 77 declined")
            await site.send("pay", "pay-b", message="gateway answers nonsense")
            await until(lambda: _has(told, ("pay-b", "gateway answers nonsense")), "it is told by the next one")
            await until(lambda: _has(told, ("pay", "gateway answers nonsense")), "and for each service")
            await until(all_over, "all is over")
        assert sorted(told()) == [
            ("pay", "card <num> declined"),
            ("pay", "gateway answers nonsense"),
            ("pay-b", "gateway answers nonsense"),
        ]
        assert len(await site.alerts()) == 3


async def _has(told: Any, wanted: tuple[str, str]) -> bool:  # a function
    return wanted in told()
