"""Experiments over HTTP: made, changed, listed, counted, their logs, their changes as they come; and who sees which."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any
from urllib.parse import urlencode

import httpx
import pytest

from db.database import Database
from query.experiments.changes import Change, begun, changed
from query.experiments.settings import ExperimentSettings
from schemas.experiments import ExperimentDetails, ExperimentEvent, ExperimentList, ExperimentStatus
from schemas.pages import LogPage
from schemas.scope import AUDIT_SERVICE, ServiceScope
from store.experiments import Experiment, ExperimentStore, TooManyExperiments
from tests.access_site import Site, running, soon
from tests.app_server import serving
from tests.integration.test_audit import published

Json = dict[str, Any]
PATH = "/api/v1/experiments"
RUNNING = ExperimentStatus.RUNNING


@pytest.fixture
async def site(native_url: str) -> AsyncIterator[Site]:
    async with running(native_url) as site:
        yield site


async def put(site: Site, token: str, experiment_id: str, status: int = 200, /, **fields: Any) -> Json:
    answer = await site.ask(token, "PUT", f"{PATH}/{experiment_id}", json={"status": "running", **fields})
    assert answer.status_code == status, answer.text
    document: Json = answer.json()
    return document


async def get(site: Site, token: str, path: str = "", **parameters: Any) -> Json:
    answer = await site.ask(token, "GET", PATH + path, params=parameters)
    assert answer.status_code == 200, answer.text
    document: Json = answer.json()
    return document


async def listed(site: Site, token: str, **parameters: Any) -> list[str]:
    document = await get(site, token, **parameters)
    ExperimentList.model_validate(document)
    return [experiment["id"] for experiment in document["experiments"]]


async def test_an_experiment_from_its_begin_to_its_end(site: Site) -> None:
    token = (await site.key("write:train", "read:train")).text
    made = await put(site, token, "exp-1", 201, status="queued", name="first", metadata={"seed": 7})
    assert made["service_name"] == "train", "the only one that the key may write"
    await put(site, token, "exp-1")
    again = await put(site, token, "exp-1", name="first")
    started = await get(site, token, "/exp-1")
    ExperimentDetails.model_validate(started)
    assert started["updated_at"] == again["updated_at"], "the same again changes nothing"
    assert (started["name"], started["metadata"], started["ended_at"]) == ("first", {"seed": 7}, None)
    assert started["created_at"] < started["started_at"]
    await put(site, token, "exp-1", status="completed", ended_at="2999-01-01T00:00:00Z")
    ended = await get(site, token, "/exp-1")
    assert (ended["status"], ended["ended_at"]) == ("completed", "2999-01-01T00:00:00.000000Z")
    assert ended["started_at"] == started["started_at"]


async def test_lists_page_by_page_by_status_and_text(site: Site) -> None:
    token = (await site.key("write:*", "read:*")).text
    names = [f"exp-{number}" for number in range(7)]
    for number, name in enumerate(names):
        status = "errored" if number % 2 else "running"
        await put(site, token, name, 201, service_name="train", status=status, name=f"Ünder {number}% of_all")
    assert await listed(site, token) == names[::-1]
    seen: list[str] = []
    parameters: Json = {"limit": 3}
    while True:
        page = await get(site, token, **parameters)
        seen += [experiment["id"] for experiment in page["experiments"]]
        if page["next_cursor"] is None:
            break
        parameters["cursor"] = page["next_cursor"]
    assert seen == names[::-1]
    assert await listed(site, token, status="errored") == ["exp-5", "exp-3", "exp-1"]
    assert len(await listed(site, token, status=["errored", "running"])) == 7
    assert await listed(site, token, q="XP-4") == ["exp-4"]
    assert await listed(site, token, q="ünder 5%") == ["exp-5"]
    assert await listed(site, token, q="5% of_") == ["exp-5"]
    assert await listed(site, token, q="5%_of") == []
    other = (await site.key("read:*")).text
    for cursor, asker in ((parameters["cursor"], other), (parameters["cursor"][:-4], token)):
        answer = await site.ask(asker, "GET", PATH, params={"limit": 3, "cursor": cursor})
        assert answer.status_code == 400
    answer = await site.ask(token, "GET", PATH, params={"status": "errored", "cursor": parameters["cursor"]})
    assert answer.status_code == 400, "of another question"


async def test_each_sees_and_changes_those_of_its_own_services(site: Site) -> None:
    admin = (await site.key("admin:*", "write:*")).text
    for name in ("train", "pay/a", "pay/b"):
        await put(site, admin, f"of-{name.replace('/', '.')}", 201, service_name=name)
    reader = (await site.key("read:pay/*", "write:pay/a")).text
    writer = (await site.key("write:pay/*")).text
    assert await listed(site, reader) == ["of-pay.b", "of-pay.a"]
    for path in ("/of-train", "/of-train/logs", "/of-nothing", "/of-nothing/logs"):
        answer = await site.ask(reader, "GET", PATH + path)
        assert answer.status_code == 404, path
        assert "train, or" not in answer.text.replace("of-train, or", "")
    await put(site, reader, "of-pay.a", status="paused")
    await put(site, reader, "of-pay.b", 403)
    await put(site, reader, "of-train", 403)
    await put(site, reader, "new", 403, service_name="pay/b")
    await put(site, reader, "of-pay.a", 409, service_name="pay/b")
    await put(site, writer, "new", 422)
    assert (await put(site, writer, "new", 201, service_name="pay/c")).keys() == {
        "id",
        "service_name",
        "status",
        "updated_at",
    }
    for path in ("", "/new", "/new/logs", "/events"):
        assert (await site.ask(writer, "GET", PATH + path)).status_code == 403
    audited = (await site.key("write:*")).text
    await put(site, audited, "mine", 403, service_name=AUDIT_SERVICE)
    await put(site, (await site.key("read:*")).text, "mine", 403, service_name="train")


async def test_what_cannot_be_is_refused_and_named(site: Site) -> None:
    token = (await site.key("write:train", "read:train")).text
    for body, field in (
        ({"status": "running", "x": 1}, "x"),
        ({"status": "runing"}, "status"),
        ({}, "status"),
        ({"status": "running", "name": 7}, "name"),
        ({"status": "running", "metadata": []}, "metadata"),
        ({"status": "completed", "started_at": "2026-01-02", "ended_at": "2026-01-01"}, "ended_at"),
    ):
        answer = await site.ask(token, "PUT", f"{PATH}/e", json=body)
        assert answer.status_code == 422, answer.text
        assert answer.json()["errors"][0]["field"] == field
    for content, kind in ((b"{", "application/json"), (b"{}", "text/plain"), (b"[" * 65_537, "application/json")):
        answer = await site.ask(token, "PUT", f"{PATH}/e", content=content, headers={"Content-Type": kind})
        assert answer.status_code == 422, answer.text
    await put(site, token, "events", 405)
    await put(site, token, "a%20b", 422)
    assert await listed(site, token) == []


async def test_its_logs_are_found_counted_and_followed(site: Site) -> None:
    token = (await site.key("write:*", "read:*", "tail:*")).text
    rows = [
        {"service_name": name, "message": f"m{number}", "metadata": {"experiment_id": "e", "agent_id": agent}}
        for number, (name, agent) in enumerate([("train", "a"), ("train", "b,c"), ("eval", 'd"\\'), ("train", 7)])
    ]
    await site.put([*rows, {"service_name": "train", "metadata": {"experiment_id": "other", "agent_id": "a"}}])
    await put(site, token, "e", 201, service_name="train")
    page = await get(site, token, "/e/logs", limit=3)
    LogPage.model_validate(page)
    assert [log["message"] for log in page["logs"]] == ["m3", "m2", "m1"]
    rest = await get(site, token, "/e/logs", limit=3, cursor=page["next_cursor"])
    assert ([log["message"] for log in rest["logs"]], rest["next_cursor"]) == (["m0"], None)
    for agents, found in ((["a"], ["m0"]), (["7", "b,c"], ["m3", "m1"]), (['d"\\'], ["m2"])):
        page = await get(site, token, "/e/logs", agent_id=agents)
        assert [log["message"] for log in page["logs"]] == found
    assert (await get(site, token, "/e/logs", level="ERROR"))["logs"] == []
    assert (await get(site, token, "/e/logs", end_time="-1h"))["logs"] == []
    details = await get(site, token, "/e")
    ExperimentDetails.model_validate(details)
    assert [agent["agent_id"] for agent in details["agents"]] == ["7", "a", "b,c", 'd"\\']
    assert (details["logs"], details["by_level"], details["is_estimated"]) == (4, {"INFO": 4}, False)
    # Those of services that the asker may not read are no part of any figure.
    narrow = (await site.key("read:train", "tail:train")).text
    assert (await get(site, narrow, "/e"))["logs"] == 3
    assert len((await get(site, narrow, "/e/logs"))["logs"]) == 3
    # The tail goes on where the page ends.
    page = await get(site, narrow, "/e/logs", agent_id=["a", "b"], level="INFO")
    story = {"metadata.experiment_id": "e", "level": "INFO"}
    query = 'metadata.agent_id:"a" OR metadata.agent_id:"b"'
    question = urlencode({**story, "query": query, "from": page["tail"]})
    sent = [
        {"service_name": name, "message": f"{name} {agent}", "metadata": {"experiment_id": "e", "agent_id": agent}}
        for name in ("train", "eval")
        for agent in ("a", "b", "c")
    ]
    async with events_of(site, narrow, f"/api/v1/tail?{question}") as events:
        answer = await site.ask(token, "POST", "/api/v1/logs/batch", json=sent)
        assert answer.status_code == 201, answer.text
        shown: list[str] = []
        while len(shown) < 2:
            kind, content = await anext(events)
            assert kind == "logs"
            shown += [log["message"] for log in content["logs"]]
    assert sorted(shown) == ["train a", "train b"]


@asynccontextmanager
async def events_of(
    site: Site, token: str, path: str = f"{PATH}/events", **headers: str
) -> AsyncIterator[AsyncIterator[tuple[str, Json]]]:
    """(type, content) of server-sent events, over a real connection, begun."""
    credentials = {"Authorization": f"Bearer {token}"}
    async with serving(site.app) as port, httpx.AsyncClient(trust_env=False, timeout=30, headers=credentials) as client:
        async with client.stream("GET", f"http://127.0.0.1:{port}{path}", headers=headers) as response:
            assert response.status_code == 200, await response.aread()
            yield _events(response)


async def _events(response: httpx.Response) -> AsyncIterator[tuple[str, Json]]:
    kind, last_id = "", ""
    async for line in response.aiter_lines():
        name, _, value = line.partition(": ")
        if name == "event":
            kind = value
        elif name == "id":
            last_id = value
        elif name == "data":
            yield kind, {**json.loads(value), "_id": last_id}


async def test_changes_are_told_to_whoever_may_see_them(site: Site) -> None:
    admin = (await site.key("write:*", "read:*")).text
    reader = (await site.key("read:train")).text
    await put(site, admin, "before", 201, service_name="train")
    async with asyncio.timeout(60), events_of(site, reader) as events:
        await put(site, admin, "theirs", 201, service_name="eval")
        await put(site, admin, "mine", 201, service_name="train", metadata={"big": 2**70})
        kind, first = await anext(events)
        ExperimentEvent.model_validate({"experiment": first["experiment"]})
        assert (kind, first["experiment"]["id"], first["experiment"]["status"]) == ("experiment", "mine", "running")
        assert first["experiment"]["metadata"] == {"big": 2**70}
        assert first["experiment"] == (await get(site, reader))["experiments"][0]
        # What another process of the same database changes comes too.
        await _elsewhere(site, "mine", Change(ExperimentStatus.COMPLETED))
        _, second = await anext(events)
        assert second["experiment"]["status"] == "completed"
    await put(site, admin, "before", status="paused")
    async with asyncio.timeout(60), events_of(site, reader, **{"Last-Event-ID": first["_id"]}) as events:
        shown = [(await anext(events))[1]["experiment"]["id"] for _ in range(2)]
        assert shown == ["mine", "before"], "what changed since that event"
    answer = await site.ask(admin, "GET", f"{PATH}/events", headers={"Last-Event-ID": first["_id"]})
    assert answer.status_code == 400, "of another user"


async def _elsewhere(site: Site, experiment_id: str, change: Change) -> None:
    store = ExperimentStore(site.database, kept_max=10, retention_days=400)

    def decide(stored: Experiment | None) -> Experiment:
        assert stored is not None
        return changed(stored, change, now_us=stored.updated_us + 1)

    await store.put(experiment_id, decide)


async def test_a_stream_ends_with_its_credentials_and_is_written_down(site: Site) -> None:
    key = await site.key("read:train")
    async with asyncio.timeout(60), events_of(site, key.text) as events:
        await site.accounts.revoke_key(key.prefix)
        await site.access.directory.refresh()
        kind, content = await anext(events)
        assert (kind, content["end"]) == ("end", "credentials")
        assert [each async for each in events] == []
    looks: list[Json] = []

    async def are_written() -> bool:
        looks[:] = [json.loads(bytes(line.metadata)) for line in await published(site)]
        return len(looks) >= 2

    await soon(are_written, "both entries are published")
    assert [(look["path"], look["phase"]) for look in looks] == [(f"{PATH}/events", "begin"), (f"{PATH}/events", "end")]


async def test_streams_of_one_key_are_bounded(site: Site) -> None:
    token = (await site.key("read:train")).text
    most = ExperimentSettings().subject_watchers_max
    credentials = {"Authorization": f"Bearer {token}"}
    async with serving(site.app) as port, httpx.AsyncClient(trust_env=False, headers=credentials) as client:
        url = f"http://127.0.0.1:{port}{PATH}/events"
        requests = [client.build_request("GET", url) for _ in range(most + 1)]
        answers = [await client.send(request, stream=True) for request in requests]
        assert [answer.status_code for answer in answers] == [200] * most + [429]
        assert "retry-after" in answers[-1].headers
        await answers[0].aclose()

        async def is_opened() -> bool:
            answer = await client.send(client.build_request("GET", url), stream=True)
            return answer.status_code == 200

        await soon(is_opened, "there is room again", 30)


# --- the database, of both profiles -------------------------------------------------------------------------------


@pytest.fixture(params=["native", "timescale"])
def database_url(request: pytest.FixtureRequest) -> str:
    url: str = request.getfixturevalue(f"{request.param}_url")
    return url


@pytest.fixture
async def database(database_url: str) -> AsyncIterator[Database]:
    database = Database(database_url, application_name="experiments test")
    await database.open()
    yield database
    await database.close()


ALL = ServiceScope(everything=True)


async def test_changes_at_once_are_numbered_without_a_gap_and_none_is_lost(database: Database) -> None:
    store = ExperimentStore(database, kept_max=100, retention_days=400)

    async def change(number: int) -> None:
        name = f"n{number}".encode()

        def decide(stored: Experiment | None) -> Experiment:
            said = Change(RUNNING, name=name.decode())
            if stored is None:
                return begun(f"e{number % 4}", said, "train", now_us=1_800_000_000_000_000)
            return changed(stored, said, now_us=stored.updated_us + 1)

        await store.put(f"e{number % 4}", decide)

    await asyncio.gather(*(change(number) for number in range(24)))
    found = await store.changed_since(0, limit=100)
    assert [each.experiment_id for each in sorted(found, key=lambda each: each.experiment_id)] == [
        "e0",
        "e1",
        "e2",
        "e3",
    ]
    assert sum(each.updated_us - each.created_us for each in found) == 24 - 4, "each change saw the one before"
    assert found[-1].change == await store.version()
    assert await store.changed_since(found[-2].change, limit=100) == [found[-1]]
    listed = await store.find(allowed=ALL, statuses=(), text="", before=None, limit=3)
    before = (listed[-1].created_us, listed[-1].experiment_id)
    rest = await store.find(allowed=ALL, statuses=(), text="", before=before, limit=3)
    assert [each.experiment_id for each in (*listed, *rest)] == ["e3", "e2", "e1", "e0"], "of one moment: by id"


async def test_experiments_are_bounded_and_go_with_their_logs(database: Database) -> None:
    store = ExperimentStore(database, kept_max=2, retention_days=1)
    now_us = 1_800_000_000_000_000

    async def make(name: str, at_us: int) -> None:
        await store.put(name, lambda stored: begun(name, Change(RUNNING), "train", now_us=at_us))

    await make("old", now_us)
    await make("older", now_us - 1)
    with pytest.raises(TooManyExperiments):
        await make("new", now_us + 1)
    assert await store.one("new", allowed=ALL) is None
    await make("new", now_us + 86_400_000_000)
    assert await store.one("old", allowed=ALL) is not None
    assert await store.one("older", allowed=ALL) is None
