"""Patterns as people meet them: logs over HTTP, a real process that counts, answers over HTTP. Both profiles."""

from __future__ import annotations

import asyncio
import json
import random
import shutil
import signal
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from typer.testing import CliRunner, Result

from access.accounts import Accounts
from cli.main import app
from db.database import Database
from infra.fleet import EMBEDDED, FULL, Fleet, Role, until
from tests.fleets import Fleets

pytestmark = pytest.mark.timeout(300)  # the first test of a profile starts its servers
Json = dict[str, Any]

KINDS: dict[str, Callable[[int], str]] = {
    "payment <num> took <num> ms": lambda n: f"payment {n} took {n * 7} ms",
    "cannot reach <ip> retry <num>": lambda n: f"cannot reach 10.0.{n % 250}.7 retry {n}",
    "cache is warm": lambda n: "cache is warm",
    "user <uuid> logged in from <path>": lambda n: f"user {n:08x}-0000-4000-8000-000000000000 logged in from /a/{n}",
}
LEVELS = ("INFO", "WARN", "ERROR")


@dataclass
class Site:
    """A running fleet with access control on."""

    fleet: Fleet
    miner: Role
    admin: str
    ingest: str

    async def key(self, *grants: str) -> str:
        """A new key, known to the process that answers."""
        key = await _key(self.fleet, *grants)

        async def is_known() -> bool:
            return (await self.get("/api/v1/patterns", key)).status_code != 401

        await until(is_known, what="the key is known")
        return key

    async def get(self, path: str, key: str | None = None, **parameters: Any) -> httpx.Response:
        """One question."""
        headers = {"Authorization": f"Bearer {key or self.admin}"}
        async with httpx.AsyncClient(trust_env=False, headers=headers, timeout=60) as client:
            return await client.get(f"{self.fleet.url('serve')}{path}", params=parameters)

    async def send(self, logs: Sequence[Json]) -> None:
        """One request."""
        headers = {"Authorization": f"Bearer {self.ingest}"}
        async with httpx.AsyncClient(trust_env=False, headers=headers, timeout=60) as client:
            answer = await client.post(f"{self.fleet.url('serve')}/api/v1/logs/batch", json=list(logs))
            assert answer.status_code == 201, answer.text

    async def patterns(self, service: str, key: str | None = None, **parameters: Any) -> list[Json]:
        """Of one service."""
        answer = await self.get("/api/v1/patterns", key, service_name=service, limit=500, **parameters)
        assert answer.status_code == 200, answer.text
        found: list[Json] = answer.json()["patterns"]
        return found

    async def counts(self, services: Sequence[str]) -> Counter[tuple[str, str, str]]:
        """(service, level, template) -> lines of the last two hours."""
        found: Counter[tuple[str, str, str]] = Counter()
        for service in services:
            for pattern in await self.patterns(service, start_time="-2h", end_time=_time(timedelta(minutes=5))):
                for level, lines in pattern["levels"].items():
                    found[service, level, pattern["template"]] += lines
        return found

    async def until_counted(self, expected: Counter[tuple[str, str, str]]) -> None:
        """Wait until so many lines are counted; then they are these."""
        services = sorted({service for service, _, _ in expected})

        async def are_counted() -> bool:
            return (await self.counts(services)).total() >= expected.total()

        await until(are_counted, what=f"{expected.total()} lines are counted", timeout_s=45)
        assert await self.counts(services) == expected


def _time(ago: timedelta) -> str:
    """From now on, positive is later."""
    return (datetime.now(UTC) + ago).isoformat()


async def _key(fleet: Fleet, *grants: str) -> str:
    database = Database(fleet.database_url, application_name="patterns test", connections_max=2)
    await database.open()
    try:
        return (await Accounts(database).create_key("test", grants, created_by="tests")).text
    finally:
        await database.close()


@pytest.fixture(scope="module", params=[EMBEDDED, pytest.param(FULL, marks=[pytest.mark.kafka, pytest.mark.timescale])])
def site(request: pytest.FixtureRequest, fleets: Fleets) -> Iterator[Site]:
    if request.param == FULL:
        request.getfixturevalue("kafka_bootstrap")
        request.getfixturevalue("timescale_server")
    directory = Path(tempfile.mkdtemp(prefix="logfeed-patterns-"))
    directory.chmod(0o711)
    fleet = fleets.make(
        request.param,
        access="true",
        extra={"LOGFEED_PATTERNS__SAVE_S": "0.3", "LOGFEED_TIERS__DIRECTORY": str(directory / "segments")},
    )
    try:
        admin = asyncio.run(_key(fleet, "admin:*"))
        ingest = asyncio.run(_key(fleet, "write:*"))
        fleet.role("serve")
        fleet.role("write")
        miner = fleet.role("mine")
        asyncio.run(fleet.ready("serve"))
        failed = request.session.testsfailed
        yield Site(fleet, miner, admin, ingest)
        if request.session.testsfailed > failed:
            print(fleet.failures())
    finally:
        fleets.end(fleet)
        shutil.rmtree(directory, ignore_errors=True)


def made(rng: random.Random, services: Sequence[str], count: int) -> tuple[list[Json], Counter[tuple[str, str, str]]]:
    """Logs, and what they come to."""
    logs, expected = [], Counter[tuple[str, str, str]]()
    for _ in range(count):
        service, level, template = rng.choice(services), rng.choice(LEVELS), rng.choice(sorted(KINDS))
        message = KINDS[template](rng.randrange(1_000, 100_000))
        logs.append({"service_name": service, "level": level, "message": message})
        expected[service, level, template] += 1
    return logs, expected


async def test_counts_are_exactly_what_was_sent(site: Site) -> None:
    logs, expected = made(random.Random(1), ("exact/a", "exact/b"), 3_000)
    for at in range(0, len(logs), 200):
        await site.send(logs[at : at + 200])
    await site.until_counted(expected)
    answer = (await site.get("/api/v1/patterns", service_name="exact/*")).json()
    assert answer["count"] == 3_000
    assert answer["other"] == 0
    assert {pattern["template"] for pattern in answer["patterns"]} == set(KINDS)
    for pattern in answer["patterns"]:
        assert pattern["services"] in (["exact/a", "exact/b"], ["exact/b", "exact/a"])
        assert pattern["count"] == sum(pattern["levels"].values())
        assert pattern["errors"] == pattern["levels"]["ERROR"]
        assert pattern["change"] is None
        assert 1 <= len(pattern["samples"]) <= 3
    order = [pattern["count"] for pattern in answer["patterns"]]
    assert order == sorted(order, reverse=True)
    errors = (await site.get("/api/v1/patterns", service_name="exact/a", min_level="error")).json()["patterns"]
    assert {pattern["template"]: pattern["count"] for pattern in errors} == {
        template: lines
        for (service, level, template), lines in expected.items()
        if (service, level) == ("exact/a", "ERROR")
    }


async def test_a_sample_is_a_log_of_the_pattern_and_a_series_adds_up(site: Site) -> None:
    await site.send([{"service_name": "one", "message": f"job {n} done", "level": "WARN"} for n in range(7)])
    await site.until_counted(Counter({("one", "WARN", "job <num> done"): 7}))
    (pattern,) = await site.patterns("one")

    async def is_stored() -> bool:
        return (await site.get(f"/api/v1/logs/{pattern['samples'][0]}")).status_code == 200

    await until(is_stored, what="the sample is stored")
    assert (await site.get(f"/api/v1/logs/{pattern['samples'][0]}")).json()["log"]["service_name"] == "one"
    for span in ("-1h", "-2d"):
        answer = (await site.get(f"/api/v1/patterns/{pattern['id']}", start_time=span)).json()
        assert answer["pattern"]["template"] == "job <num> done"
        assert sum(point["count"] for point in answer["series"]) == 7
        assert len(answer["series"]) <= 500
        times = [point["time"] for point in answer["series"]]
        assert times == sorted(times)
        assert times[0] == answer["start"]
    missing = await site.get("/api/v1/patterns/00000000000000aa")
    assert missing.status_code == 404
    assert (await site.get("/api/v1/patterns/xyz")).status_code == 422


async def test_killed_while_logs_flow_each_counts_once(site: Site) -> None:
    services = ("killed/a", "killed/b")
    rng = random.Random(2)
    expected: Counter[tuple[str, str, str]] = Counter()

    async def flow() -> None:
        for _ in range(30):
            logs, part = made(rng, services, 100)
            await site.send(logs)
            expected.update(part)

    flowing = asyncio.create_task(flow())
    for share in (500, 1_500):

        async def has_counted(share: int = share) -> bool:
            return (await site.counts(services)).total() >= share

        await until(has_counted, what=f"{share} lines are counted", timeout_s=90)
        site.miner.restart_killed()  # here: it would end with a thread of its own
    await flowing
    await site.until_counted(expected)
    site.miner.restart_killed()
    logs, part = made(rng, services, 50)
    await site.send(logs)
    await site.until_counted(expected + part)


async def test_nobody_sees_patterns_of_a_service_that_is_not_theirs(site: Site) -> None:
    await site.send(
        [{"service_name": "mine", "message": "shared words of both"}] * 2
        + [{"service_name": "theirs", "message": "shared words of both"}] * 3
        + [{"service_name": "theirs", "message": "secret of theirs alone"}]
    )
    await site.until_counted(
        Counter(
            {
                ("mine", "INFO", "shared words of both"): 2,
                ("theirs", "INFO", "shared words of both"): 3,
                ("theirs", "INFO", "secret of theirs alone"): 1,
            }
        )
    )
    ids = {pattern["template"]: pattern["id"] for pattern in await site.patterns("theirs")}
    key = await site.key("read:mine", "tail:mine")
    answer = (await site.get("/api/v1/patterns", key, limit=500)).json()
    (pattern,) = answer["patterns"]
    assert (pattern["count"], pattern["services"], answer["count"]) == (2, ["mine"], 2)
    everything = (await site.get("/api/v1/patterns", limit=500)).json()["patterns"]
    (all_of_it,) = [each for each in everything if each["id"] == pattern["id"]]
    assert (all_of_it["count"], all_of_it["services"]) == (5, ["theirs", "mine"])
    theirs = {sample for each in await site.patterns("theirs") for sample in each["samples"]}
    assert not theirs & set(pattern["samples"])
    assert await site.patterns("theirs", key) == []
    secret, shared = ids["secret of theirs alone"], ids["shared words of both"]
    assert (await site.get(f"/api/v1/patterns/{secret}", key)).status_code == 404
    series = (await site.get(f"/api/v1/patterns/{shared}", key)).json()["series"]
    assert sum(point["count"] for point in series) == 2
    for path in ("/api/v1/logs", "/api/v1/tail"):
        refused = await site.get(path, key, query=f"pattern:{secret}")
        assert refused.status_code == 422, "as if there were none"
        assert "secret" not in refused.text.replace(secret, "")
    assert (await site.get("/api/v1/logs", key, query=f"pattern:{shared}")).status_code == 200
    nobody = await site.key("write:mine")
    for path in ("/api/v1/patterns", f"/api/v1/patterns/{shared}"):
        assert (await site.get(path, nobody)).status_code == 403


async def test_what_is_new_and_what_is_gone(site: Site) -> None:
    before = _time(timedelta(minutes=-90))
    await site.send(
        [{"service_name": "changing", "message": "old pump stopped", "timestamp": before}] * 4
        + [{"service_name": "changing", "message": "steady noise of rotors", "timestamp": before}] * 2
        + [{"service_name": "changing", "message": "steady noise of rotors"}] * 6
        + [{"service_name": "changing", "message": "disk burns"}] * 3
    )
    await site.until_counted(
        Counter(
            {
                ("changing", "INFO", "old pump stopped"): 4,
                ("changing", "INFO", "steady noise of rotors"): 8,
                ("changing", "INFO", "disk burns"): 3,
            }
        )
    )
    (new,) = await site.patterns("changing", sort="new")
    assert (new["template"], new["count"], new["count_before"], new["change"]) == ("disk burns", 3, 0, None)
    (gone,) = await site.patterns("changing", sort="gone")
    assert (gone["template"], gone["count"], gone["count_before"], gone["change"]) == ("old pump stopped", 0, 4, -1)
    assert gone["levels"] == {"INFO": 4}
    by_count = await site.patterns("changing")
    assert [(each["template"], each["count"], each["change"]) for each in by_count] == [
        ("steady noise of rotors", 6, 2.0),
        ("disk burns", 3, None),
    ]
    assert await site.patterns("changing", sort="errors") == []


async def test_a_pattern_that_became_part_of_another_is_counted_with_it(site: Site) -> None:
    names = ["ada", "ben", "cleo", "dan", "eve", "fay", "gus"]
    expected: Counter[tuple[str, str, str]] = Counter()
    for name in names[:3]:
        await site.send([{"service_name": "merging", "message": f"session of user {name} was opened"}])
        expected["merging", "INFO", f"session of user {name} was opened"] += 1
    await site.until_counted(expected)
    ids = [pattern["id"] for pattern in await site.patterns("merging")]
    for name in names[3:]:
        await site.send([{"service_name": "merging", "message": f"session of user {name} was opened"}])
    await site.until_counted(Counter({("merging", "INFO", "session of user <*> was opened"): 7}))
    (pattern,) = await site.patterns("merging")
    assert pattern["id"] not in ids
    for each in ids:
        assert (await site.get(f"/api/v1/patterns/{each}")).json()["pattern"] == pattern


async def test_the_lines_of_a_pattern_by_its_id(site: Site) -> None:
    await site.send(
        [{"service_name": "asked", "message": f"door {n} opened"} for n in range(5)]
        + [{"service_name": "asked", "message": "door was painted"}]
    )
    await site.until_counted(
        Counter({("asked", "INFO", "door <num> opened"): 5, ("asked", "INFO", "door was painted"): 1})
    )
    pattern = next(each for each in await site.patterns("asked") if each["count"] == 5)
    query = f"pattern:{pattern['id']} service:asked"

    async def are_stored() -> bool:
        return len((await site.get("/api/v1/logs", query="service:asked")).json()["logs"]) == 6

    await until(are_stored, what="the logs are stored")
    page = (await site.get("/api/v1/logs", query=query, limit=3)).json()
    rest = (await site.get("/api/v1/logs", query=query, limit=3, cursor=page["next_cursor"])).json()
    assert {log["message"] for log in page["logs"] + rest["logs"]} == {f"door {n} opened" for n in range(5)}
    told = await _tail(site, query, lambda: site.send([{"service_name": "asked", "message": "door 77 opened"}]))
    assert [log["message"] for log in told] == ["door 77 opened"]
    unknown = await site.get("/api/v1/logs", query="service:asked pattern:00000000000000aa")
    assert unknown.status_code == 422
    (error,) = unknown.json()["errors"]
    assert (error["field"], error["column"]) == ("query", 23)
    assert "no pattern with the id 00000000000000aa is known" in error["message"]


async def _tail(site: Site, query: str, send: Callable[[], Coroutine[Any, Any, None]]) -> list[Json]:
    """The logs of the first frame that has any, of what is sent once the tail has begun."""
    headers = {"Authorization": f"Bearer {site.admin}"}
    url = f"{site.fleet.url('serve')}/api/v1/tail"
    async with (
        httpx.AsyncClient(trust_env=False, headers=headers, timeout=60) as client,
        client.stream("GET", url, params={"query": query}) as answer,
    ):
        assert answer.status_code == 200, await answer.aread()
        sending = asyncio.create_task(send())
        async for line in answer.aiter_lines():
            if line.startswith("data: ") and (logs := json.loads(line[6:]).get("logs")):
                await sending
                found: list[Json] = logs
                return found
    raise AssertionError("the tail ended")


async def test_the_command_shows_them(site: Site) -> None:
    await site.send([{"service_name": "shown", "level": "ERROR", "message": f"fuse {n} blown"} for n in range(9)])
    await site.until_counted(Counter({("shown", "ERROR", "fuse <num> blown"): 9}))
    (pattern,) = await site.patterns("shown")
    environment = {"LOGFEED_API_KEY": site.admin, "LOGFEED_URL": site.fleet.url("serve"), "COLUMNS": "200"}

    async def run(*arguments: str) -> Result:
        # A thread: the command has an event loop of its own.
        return await asyncio.to_thread(lambda: CliRunner().invoke(app, ["patterns", *arguments], env=environment))

    table = await run("-s", "shown", "--new")
    assert table.exit_code == 0, table.output
    assert table.stdout.split() == [pattern["id"], "9", "new", "ERROR", "shown", "fuse", "<num>", "blown"]
    assert "9 lines" in table.stderr
    one = await run(pattern["id"], "--since", "-2h")
    assert "fuse <num> blown" in one.stdout.splitlines()[0]
    as_json = await run("-s", "shown", "--errors", "--json")
    assert json.loads(as_json.stdout)["id"] == pattern["id"]
    assert (await run("-s", "nothing-here")).exit_code == 1
    assert "different questions" in str((await run("--new", "--gone")).exception)


async def test_looks_are_written_down(site: Site) -> None:
    marker = f"audit-{time.time_ns()}"
    await site.get("/api/v1/patterns", service_name=marker)
    auditor = await site.key("admin:logfeed/audit")

    async def is_written() -> bool:
        found = await site.get("/api/v1/logs", auditor, query=f"metadata.question:service_name={marker}")
        return len(found.json()["logs"]) == 1

    await until(is_written, what="the look is in the audit log")
    audit = (await site.get("/api/v1/patterns", auditor)).json()
    assert audit["patterns"] == [], "our own lines are no pattern of anybody's"


async def test_stops_in_an_orderly_way_and_another_one_goes_on(site: Site) -> None:
    expected = Counter({("handed", "INFO", "over <num> now"): 5})
    await site.send([{"service_name": "handed", "message": f"over {n} now"} for n in range(5)])
    await site.until_counted(expected)
    second = site.fleet.role("mine", label="mine-two")
    assert await asyncio.to_thread(site.miner.stop) == 0
    await site.send([{"service_name": "handed", "message": f"over {n} now"} for n in range(5)])
    await site.until_counted(expected + expected)
    site.miner.start()
    second.signal(signal.SIGTERM)
    assert await asyncio.to_thread(second.process.wait, 30) == 0  # type: ignore[union-attr]  # it was started
