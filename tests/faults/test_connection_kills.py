"""INV-2 for texts of connections: ingest killed in the middle of one, again and again, and each line is stored once."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx

from db.database import Database
from infra.fleet import until
from tests.faults.conftest import MakeFleet

LINES = 24_000
PATH = "/api/v1/connections/c"
DETAILS = {"username": "ada", "ip": "10.1.2.3", "version": "1", "last_updated": "2026-07-30T22:40:00Z"}


def text_of(count: int) -> bytes:
    begins = datetime.now(UTC) - timedelta(minutes=10)
    lines = (
        f"{begins + timedelta(milliseconds=number):%Y-%m-%d %H:%M:%S.%f} | INFO | line {number}\n"
        for number in range(count)
    )
    return "".join(lines).encode()


async def test_ingest_killed_in_the_middle_of_a_text_stores_each_line_once(make_fleet: MakeFleet, profile: str) -> None:
    fleet = await asyncio.to_thread(make_fleet, profile)
    ingest = fleet.role("ingest")
    fleet.role("query")
    fleet.role("write")
    await fleet.ready("ingest", "query")
    text = text_of(LINES)
    database = Database(fleet.database_url, application_name="connection kills")
    await database.open()
    try:
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            assert (await client.put(f"{fleet.url('ingest')}{PATH}", json=DETAILS)).status_code == 201
            in_the_middle = 0
            for kill in range(1, 4):
                sending = asyncio.create_task(_send(client, fleet.url("ingest"), text))

                async def has_come_far(kill: int = kill, sending: asyncio.Task[Any] = sending) -> bool:
                    stored = await _stored(database)
                    return stored > kill * len(text) // 5 or sending.done()

                await until(has_come_far, what="some of the text is stored")
                await asyncio.to_thread(ingest.restart_killed)
                with contextlib.suppress(httpx.TransportError):
                    await sending
                in_the_middle += 0 < await _stored(database) < len(text)
                await fleet.ready("ingest")
            assert in_the_middle, "it was killed while lines were missing"
            answer = await _send(client, fleet.url("ingest"), text)
            assert answer.status_code in (200, 201), answer.text
            assert answer.json()["lines"] == LINES
            assert (await _send(client, fleet.url("ingest"), text)).json()["added"] == 0

            async def are_there() -> bool:
                return len(await _shown(client, fleet.url("query"))) >= LINES

            await until(are_there, what="every line is there", timeout_s=90)
            numbers = Counter(log["metadata"]["line"] for log in await _shown(client, fleet.url("query")))
            assert set(numbers) == set(range(1, LINES + 1))
            assert set(numbers.values()) == {1}, "each line once"
            totals = (await client.get(f"{fleet.url('query')}/api/v1/ledger", params={"start_time": "-1h"})).json()[
                "totals"
            ]
            assert totals["balanced"]
    finally:
        await database.close()


async def _send(client: httpx.AsyncClient, url: str, text: bytes) -> httpx.Response:
    headers = {"Content-Type": "text/plain"}
    while True:
        answer = await client.put(f"{url}{PATH}/logs/server", content=text, headers=headers)
        if answer.status_code != 503:
            return answer
        await asyncio.sleep(0.2)


async def _stored(database: Database) -> int:
    row = await database.fetch_one("SELECT stored_bytes FROM connection_sides WHERE connection_id = 'c'")
    return 0 if row is None else int(row[0])


async def _shown(client: httpx.AsyncClient, url: str) -> list[dict[str, Any]]:
    """All of its lines, page by page."""
    logs: list[dict[str, Any]] = []
    parameters = {"limit": "1000"}
    while True:
        answer = await client.get(f"{url}{PATH}/logs", params=parameters)
        assert answer.status_code == 200, answer.text
        page = answer.json()
        logs += page["logs"]
        if page["next_cursor"] is None:
            return logs
        parameters["cursor"] = page["next_cursor"]
