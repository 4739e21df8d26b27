"""GET /api/v1/status: how the installation stands, and who is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest

from schemas.status import StatusAnswer
from tests.access_site import Site, running


@pytest.fixture
async def site(native_url: str) -> AsyncIterator[Site]:
    async with running(native_url, audit=False) as site:
        yield site


async def status(site: Site) -> dict[str, Any]:
    answer = await site.ask((await site.key("admin:*")).text, "GET", "/api/v1/status")
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    StatusAnswer.model_validate(found)
    return found


async def test_tells_how_far_writers_are_behind_the_broker(site: Site) -> None:
    sender = (await site.key("write:shop")).text
    before = await status(site)
    assert {each["lag_records"] for each in before["partitions"]} == {0}
    for _ in range(3):
        sent = await site.ask(sender, "POST", "/api/v1/logs", json={"service_name": "shop", "message": "m"})
        assert sent.status_code == 201
    after = await status(site)
    assert sum(each["lag_records"] for each in after["partitions"]) == 3, "nobody stores here"
    for each in after["partitions"]:
        assert each["end_offset"] == each["stored_offset"] + each["lag_records"]
        assert (each["writer"], each["halted"]) == (None, None)
    await site.database.execute(
        "UPDATE consumer_offsets SET owner = 'w1', lease_until = 'infinity', halted = 'offsets are gone' WHERE partition = 0"
    )
    first = (await status(site))["partitions"][0]
    assert (first["writer"], first["halted"]) == ("w1", "offsets are gone")


async def test_tells_why_lines_died_and_where_rows_are(site: Site) -> None:
    await site.put([{"service_name": "shop"}] * 2)
    for reason, service in (("too long", "shop"), ("too long", "shop"), ("no frame", "")):
        await site.database.execute(
            'INSERT INTO dead_letters (topic, partition, "offset", line_index, service_name, received_minute, reason,'
            " detail, line) VALUES ('logs', 0, 1, 0, %s, now(), %s, 'secret detail', 'secret line')",
            (service, reason),
        )
    found = await status(site)
    counted = [(each["reason"], each["service_name"], each["count"]) for each in found["dead_letters"]]
    assert counted == [("too long", "shop", 2), ("no frame", "", 1)]
    assert "secret" not in str(found)
    hot = next(each for each in found["tiers"] if each["tier"] == "hot")
    assert hot["bytes"] > 0
    assert found["due"]["segments_to_cool"] == 0


async def test_is_for_who_administers_all_services(site: Site) -> None:
    for grants in (("read:*", "alert:*"), ("admin:pay/*",)):
        answer = await site.ask((await site.key(*grants)).text, "GET", "/api/v1/status")
        assert answer.status_code == 403
        assert "admin" in answer.json()["detail"]
    unknown = await site.ask((await site.key("admin:*")).text, "GET", "/api/v1/status?levle=1")
    assert unknown.status_code == 422
