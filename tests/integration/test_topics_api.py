"""Records of derived topics over HTTP: who sees which, going on, waiting, limits; and the client that subscribes."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator
from typing import Any

import msgspec
import pytest
from logfeed_client import AsyncClient, Client, Gap, GapError, Subscriber, SubscriptionError

from access.grants import principal_of
from access.principal import ANYONE, Principal
from broker.factory import make_topics
from broker.settings import BrokerSettings
from broker.topic_names import ERRORS_TOPIC, service_topic
from broker.topics import Topics
from live.events import Batch
from query.topics.service import TopicReads
from query.topics.settings import TopicReadSettings
from routes.settings import RoutingSettings
from routes.table import RouteTable
from runtime.stopping import Stop
from schemas.derived import TopicGap, TopicList, TopicRecords
from schemas.record import Log
from schemas.scope import AUDIT_SERVICE
from schemas.topics import TopicInfo, TopicKind
from tests.access_site import Site, running, soon
from tests.app_server import serving
from tests.commands import logfeed
from tests.integration.test_audit import published

PATH = f"/api/v1/topics/{ERRORS_TOPIC}/records"
SERVICES = ("shop", "pay/a", "pay/b", "other/secret")


class Filler:
    """Puts logs into derived topics as the router does."""

    def __init__(self, topics: Topics) -> None:
        self.topics = topics
        self._table = RouteTable({}, RoutingSettings(services=("*",)))
        self._next_id = 1

    async def put(self, *services: str) -> list[str]:
        """An error of each; the ids."""
        logs = [
            Log(self._next_id + place, 1_800_000_000_000_000, 17, service, f"said by {service}", None, {})
            for place, service in enumerate(services)
        ]
        self._next_id += len(logs)
        records = [record for each in self._table.records(Batch(0, 7, 8, 0, logs)) for record in each]
        await self.topics.ensure({record.topic for record in records} | {ERRORS_TOPIC})
        await self.topics.publish(records)
        return [str(log.id) for log in logs]

    async def forget(self, site: Site) -> None:
        """All that is there goes."""
        hasty = make_topics(BrokerSettings(derived_retention_h=1e-9), site.database)
        for _ in range(8):
            await hasty.upkeep()


@pytest.fixture
async def site(native_url: str) -> AsyncIterator[Site]:
    async with running(native_url) as site:
        yield site


@pytest.fixture
async def filler(site: Site) -> Filler:
    return Filler(make_topics(BrokerSettings(), site.database))


async def read(site: Site, token: str, path: str = PATH, **parameters: Any) -> dict[str, Any]:
    answer = await site.ask(token, "GET", path, params=parameters)
    assert answer.status_code == 200, answer.text
    document: dict[str, Any] = answer.json()
    TopicRecords.model_validate(document)
    return document


def ids(document: dict[str, Any]) -> list[str]:
    return [record["log"]["id"] for record in document["records"]]


async def test_each_sees_the_records_of_its_own_services(site: Site, filler: Filler) -> None:
    sent = dict(zip(SERVICES, await filler.put(*SERVICES), strict=True))
    for grants, services in (
        (["tail:shop"], {"shop"}),
        (["tail:pay/*"], {"pay/a", "pay/b"}),
        (["tail:*"], set(SERVICES)),
        (["admin:other/*"], {"other/secret"}),
        (["tail:nothing"], set[str]()),
    ):
        token = (await site.key(*grants)).text
        document = await read(site, token)
        assert set(ids(document)) == {sent[service] for service in services}
        assert document["next"] == "0:4", "what may not be seen is passed over, and is not waited for again"
        listed = await site.ask(token, "GET", "/api/v1/topics")
        TopicList.model_validate(listed.json())
        names = {topic["name"] for topic in listed.json()["topics"]}
        assert names == {ERRORS_TOPIC, *map(service_topic, services)}
        for service in SERVICES:
            answer = await site.ask(token, "GET", f"/api/v1/topics/{service_topic(service)}/records")
            assert answer.status_code == (200 if service in services else 404)
            if service in services:
                assert ids(answer.json()) == [sent[service]]
    for grants in (["read:*"], ["write:*"], ["alert:*", "export:*"]):
        token = (await site.key(*grants)).text
        assert (await site.ask(token, "GET", PATH)).status_code == 403
        assert (await site.ask(token, "GET", "/api/v1/topics")).status_code == 403


async def test_a_log_of_the_audit_service_is_for_nobody_with_a_star(site: Site, filler: Filler) -> None:
    # The router writes none; were there one, nobody would see it.
    name = service_topic(AUDIT_SERVICE)
    await filler.topics.ensure([name])
    assert (await site.ask((await site.key("tail:*")).text, "GET", f"/api/v1/topics/{name}/records")).status_code == 404


async def test_a_walk_shows_each_record_once_in_order(site: Site, filler: Filler) -> None:
    token = (await site.key("tail:*")).text
    sent = [log_id for _ in range(7) for log_id in await filler.put(*SERVICES)]
    seen: list[str] = []
    after = ""
    while True:
        page = await read(site, token, after=after, limit=5)
        if not page["records"]:
            break
        assert len(page["records"]) <= 5
        seen += ids(page)
        after = page["next"]
    assert seen == sent
    sent = await filler.put("shop")
    assert ids(await read(site, token, after=after)) == sent


async def test_who_waits_is_answered_when_something_comes(site: Site, filler: Filler) -> None:
    token = (await site.key("tail:shop")).text
    await filler.put("shop")
    waiting = asyncio.create_task(read(site, token, after="now", wait=30))
    after = asyncio.create_task(read(site, token, after="0:1", wait=30))
    (_, seen) = await filler.put("pay/a", "shop")
    assert ids(await after) == [seen]
    while not waiting.done():
        await filler.put("shop")  # `now` may have been after the first ones
        await asyncio.wait({waiting}, timeout=0.2)
    assert ids(await waiting)


async def test_one_question_is_asked_for_all_who_wait(filler: Filler, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each looks after its right many times meanwhile, and asks the broker at its beginning only."""
    await filler.put("shop")
    named = [TopicInfo(ERRORS_TOPIC, TopicKind.ERRORS, "")]
    settings = TopicReadSettings(check_s=0.02)
    reads, asked, looks, before = TopicReads(settings, filler.topics, named, stop=Stop()), 0, 0, TopicReads._extents

    async def extents(reads: TopicReads, name: str) -> Any:
        nonlocal asked
        asked += 1
        return await before(reads, name)

    async def recheck() -> Principal:
        nonlocal looks
        looks += 1
        return ANYONE

    async def wait() -> None:
        found = await reads.records(ERRORS_TOPIC, ANYONE, recheck, after="0:1", limit=10, wait_s=0.5)
        assert (found.shown, found.positions) == ([], {0: 1})

    monkeypatch.setattr(TopicReads, "_extents", extents)
    await asyncio.gather(*(wait() for _ in range(5)))
    await reads.stop()
    assert asked == 5 < looks


async def test_who_may_no_more_is_refused_while_it_waits(site: Site, filler: Filler) -> None:
    key = await site.key("tail:*")
    await filler.put("shop")
    waiting = asyncio.create_task(site.ask(key.text, "GET", PATH, params={"after": "now", "wait": 30}))
    await soon(_is_reading(site), "it waits")
    await site.accounts.revoke_key(key.prefix)
    assert (await asyncio.wait_for(waiting, 10)).status_code == 401


def _is_reading(site: Site) -> Any:  # a condition
    async def is_so() -> bool:
        answer = await site.ask(None, "GET", "/metrics")
        return "logfeed_topic_reads 1.0" in answer.text

    return is_so


async def test_a_right_that_ends_while_records_are_read_counts(site: Site, filler: Filler) -> None:
    await filler.put(*SERVICES)
    info = TopicInfo(ERRORS_TOPIC, TopicKind.ERRORS, "errors")
    reads = TopicReads(TopicReadSettings(), make_topics(BrokerSettings(), site.database), [info], stop=Stop())
    before, after = (principal_of("key:x", "x", [grant]) for grant in ("tail:*", "tail:shop"))

    async def as_of_now() -> Principal:
        return after

    found = await reads.records(ERRORS_TOPIC, before, as_of_now, after="", limit=100, wait_s=0)
    await reads.stop()
    assert [record["key"] for record in found.shown] == ["shop"]


async def test_expired_places_are_gone_and_say_where_to_go_on(site: Site, filler: Filler) -> None:
    token = (await site.key("tail:*")).text
    await filler.put(*SERVICES)
    await filler.forget(site)
    for after, reason in (("0:0", "expired"), ("0:3", "expired"), ("0:5", "remade"), ("1:0", "remade")):
        answer = await site.ask(token, "GET", PATH, params={"after": after})
        assert answer.status_code == 410, after
        gap = TopicGap.model_validate(answer.json())
        assert (gap.type, gap.reason, gap.next) == ("urn:logfeed:problem:gap", reason, "0:4")
    sent = await filler.put("shop")
    assert ids(await read(site, token, after="0:4")) == sent
    assert ids(await read(site, token)) == sent


@pytest.mark.parametrize(
    "parameters",
    [
        {"after": "x"},
        {"after": "0:1,0:2"},
        {"after": "0:-1"},
        {"after": "0:1;"},
        {"after": "٣:1"},
        {"limit": "0"},
        {"limit": "1001"},
        {"wait": "-1"},
        {"wait": "31"},
        {"wait": "nan"},
        {"wait": "1e1"},
        {"form": "0"},
    ],
)
async def test_what_is_not_valid_is_named(site: Site, filler: Filler, parameters: dict[str, str]) -> None:
    await filler.put("shop")
    answer = await site.ask((await site.key("tail:*")).text, "GET", PATH, params=parameters)
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["field"] == next(iter(parameters))


async def test_one_subject_has_so_many_places(site: Site, filler: Filler) -> None:
    await filler.put("shop")
    key, other = await site.key("tail:*"), await site.key("tail:*")
    waiting = [
        asyncio.create_task(site.ask(key.text, "GET", PATH, params={"after": "now", "wait": 30})) for _ in range(21)
    ]
    done, pending = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
    assert [task.result().status_code for task in done] == [429] * len(done)
    assert (await site.ask(other.text, "GET", PATH)).status_code == 200, "another has room"
    while pending:
        await filler.put("shop")
        _, pending = await asyncio.wait(pending, timeout=0.3)
    assert (await site.ask(key.text, "GET", PATH)).status_code == 200, "places come back"


async def test_what_was_shown_is_written_down(site: Site, filler: Filler) -> None:
    key = await site.key("tail:shop")
    await filler.put("shop", "pay/a", "shop")
    await read(site, key.text, after="0:0")
    await read(site, key.text, after="0:3")  # shows nothing
    await site.ask(key.text, "GET", "/api/v1/topics")
    found: list[dict[str, Any]] = []

    async def are_there() -> bool:
        found[:] = [msgspec.json.decode(line.metadata) for line in await published(site)]
        return len(found) >= 2

    await soon(are_there, "they are published", 20)
    assert [(entry["path"], entry["question"], entry["rows"]) for entry in found] == [
        (PATH, "after=0%3A0", 2),
        ("/api/v1/topics", "", 0),
    ]


# --- the client -------------------------------------------------------------------------------------------------------


async def taken(subscriber: Subscriber, count: int) -> list[str]:
    """So many ids, read in a thread."""

    def take() -> list[str]:
        found = []
        for record in subscriber:
            found.append(record.id)
            if len(found) == count:
                break
        return found

    return await asyncio.wait_for(asyncio.to_thread(take), 60)


async def test_the_client_goes_on_behind_what_it_handed_out(site: Site, filler: Filler) -> None:
    token = (await site.key("tail:*")).text
    async with serving(site.app) as port:
        url = f"http://127.0.0.1:{port}"
        sent = [log_id for _ in range(5) for log_id in await filler.put(*SERVICES)]
        after = ""
        seen: list[str] = []
        for count in (3, 1, 9, 7):
            with Subscriber(url, ERRORS_TOPIC, api_key=token, after=after, limit=6, wait_s=1) as subscriber:
                seen += await taken(subscriber, count)
                after = subscriber.after
        assert seen == sent
        with Subscriber(url, ERRORS_TOPIC, api_key=token, after=after) as subscriber:
            waiting = asyncio.create_task(taken(subscriber, 2))
            sent = await filler.put("shop", "pay/a")
            assert await waiting == sent


async def test_the_client_leaves_repeats_out(site: Site, filler: Filler) -> None:
    token = (await site.key("tail:*")).text
    first = await filler.put("shop", "pay/a")
    filler._next_id = 1  # the router was killed before it saved
    assert await filler.put("shop", "pay/a", "pay/b") == [*first, "3"]
    async with serving(site.app) as port:
        with Subscriber(f"http://127.0.0.1:{port}", ERRORS_TOPIC, api_key=token, limit=2) as subscriber:
            assert await taken(subscriber, 3) == ["1", "2", "3"]
        assert len((await read(site, token))["records"]) == 5


async def test_the_client_is_told_of_gaps(site: Site, filler: Filler) -> None:
    token = (await site.key("tail:*")).text
    await filler.put("shop")
    await filler.forget(site)
    sent = await filler.put("shop")
    async with serving(site.app) as port:
        url = f"http://127.0.0.1:{port}"
        with Subscriber(url, ERRORS_TOPIC, api_key=token, after="0:0") as subscriber:
            with pytest.raises(GapError) as raised:
                await taken(subscriber, 1)
        gap = raised.value.gap
        assert (gap.reason, gap.after, gap.next) == ("expired", "0:0", "0:1")
        gaps: list[Gap] = []
        with Subscriber(url, ERRORS_TOPIC, api_key=token, after="0:0", on_gap=gaps.append) as subscriber:
            assert await taken(subscriber, 1) == sent
        assert gaps == [gap]


async def test_the_client_waits_out_what_passes_and_raises_what_does_not(site: Site, filler: Filler) -> None:
    token = (await site.key("tail:*")).text
    sent = await filler.put("shop")
    async with serving(site.app) as port:
        url = f"http://127.0.0.1:{port}"
        for topic, key, status in ((ERRORS_TOPIC, "lf_wrong", 401), ("logs.nothing", token, 404)):
            with Subscriber(url, topic, api_key=key) as subscriber:
                with pytest.raises(SubscriptionError) as raised:
                    await taken(subscriber, 1)
                assert raised.value.status == status
    # Nobody listens there now; then somebody does.
    subscriber = Subscriber(f"http://127.0.0.1:{port}", ERRORS_TOPIC, api_key=token)
    waiting = asyncio.create_task(taken(subscriber, 1))
    async with serving(site.app, port=port):
        assert await waiting == sent
        subscriber.close()


async def test_the_clients_subscribe_with_their_address_and_key(site: Site, filler: Filler) -> None:
    token = (await site.key("tail:*")).text
    sent = await filler.put(*SERVICES)
    async with serving(site.app) as port:
        url = f"http://127.0.0.1:{port}"
        async with AsyncClient(url, api_key=token) as client:
            seen: list[str] = []
            after = ""
            for count in (3, 4):
                async with client.subscriber(ERRORS_TOPIC, after=after, limit=2, wait_s=1) as records:
                    async for record in records:
                        seen.append(record.id)
                        if len(seen) == count:
                            break
                    after = records.after
            assert seen == sent
        with Client(url, api_key=token) as waiting:
            assert await taken(waiting.subscriber(ERRORS_TOPIC), 4) == sent


async def test_closing_ends_the_iteration(site: Site, filler: Filler) -> None:
    token = (await site.key("tail:*")).text
    await filler.put("shop")
    async with serving(site.app) as port:
        subscriber = Subscriber(f"http://127.0.0.1:{port}", ERRORS_TOPIC, api_key=token, wait_s=1)
        began = threading.Event()

        def iterate() -> int:
            count = 0
            for _ in subscriber:
                count += 1
                began.set()
            return count

        iterating = asyncio.create_task(asyncio.to_thread(iterate))
        await asyncio.to_thread(began.wait, 30)
        subscriber.close()
        assert await asyncio.wait_for(iterating, 30) == 1


# --- the commands -----------------------------------------------------------------------------------------------------


async def command(*arguments: str) -> tuple[int, str, str]:
    """`logfeed topics …`: exit code, output, what was told beside it."""
    done = await asyncio.to_thread(logfeed, "topics", *arguments)
    return done.returncode, done.stdout, done.stderr


async def test_the_commands_list_topics_and_read_them_from_a_place_on(site: Site, filler: Filler) -> None:
    token = (await site.key("tail:shop")).text
    first = await filler.put("shop", "pay/a")
    filler._next_id = 1
    assert await filler.put("shop", "pay/a", "shop") == [*first, "3"]
    async with serving(site.app) as port:
        where = ("--url", f"http://127.0.0.1:{port}", "--api-key", token)
        code, listed, _ = await command("list", *where)
        assert code == 0
        assert [line.split()[:3] for line in listed.splitlines()] == [
            [ERRORS_TOPIC, "errors", "5"],
            [service_topic("shop"), "service", "3"],
        ]
        code, shown, told = await command("read", ERRORS_TOPIC, "--json", *where)
        assert code == 0
        assert [json.loads(line)["id"] for line in shown.splitlines()] == ["1", "3"], "a repeat is shown once"
        assert told.strip() == "go on with --after 0:5"
        await filler.put("shop")
        code, shown, _ = await command("read", ERRORS_TOPIC, "--after", "0:5", *where)
        assert code == 0
        assert "said by shop" in shown
        assert len(shown.splitlines()) == 1
        await filler.forget(site)
        code, shown, told = await command("read", ERRORS_TOPIC, "--after", "0:1", *where)
        assert (code, shown) == (0, "")
        assert "are past their retention" in told
        code, _, told = await command("read", service_topic("pay/a"), *where)
        assert code == 1
        assert "There is no such topic" in told
