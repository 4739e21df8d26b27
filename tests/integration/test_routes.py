"""Routers over a real broker: what each topic gets, and what becomes of it when routers end, fail and change."""

from __future__ import annotations

import asyncio
import json
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest

from broker.factory import make_topics
from broker.port import Delivered
from broker.settings import BrokerSettings
from broker.topic_names import service_topic
from broker.topics import Topics
from db.database import Database
from db.leases import Lease
from live.follow import Follower
from live.settings import LiveSettings
from routes.role import RouteRole
from routes.settings import RouteSettings, RoutingSettings
from routes.state import ROUTES, RouteState, StaleEpoch
from runtime.clock import SystemClock
from runtime.stopping import Stop
from schemas.pages import LogModel
from schemas.record import Log
from schemas.topics import source_of
from tests.live_site import DEADLINE_S, Topic, eventually, frame_of

pytestmark = pytest.mark.timeout(120)


@dataclass
class Site:
    """A topic of logs, a database for leases and positions, and derived topics of the same broker."""

    topic: Topic
    database: Database
    topics: Topics
    broker: BrokerSettings
    next_id: int = 1

    @property
    def name(self) -> str:
        """Of a derived topic of this test alone."""
        return f"derived-{self.topic.name}"

    def routes(self, **queries: str) -> dict[str, RouteSettings]:
        """Route and topic names are the same, but for this test's own part."""
        return {name: RouteSettings(query=query, topic=f"{self.name}-{name}") for name, query in queries.items()}

    @asynccontextmanager
    async def router(
        self, routes: dict[str, RouteSettings], *, name: str = "one", **settings: Any
    ) -> AsyncIterator[RouteRole]:
        """One that runs. settings: of routing."""
        chosen = RoutingSettings.model_validate({"name": name, "errors": False, **settings})
        broker = await self.topic.new_broker()
        topics = make_topics(self.broker, self.database)
        stop = Stop()
        role = RouteRole(
            routes,
            chosen,
            database=self.database,
            broker=broker,
            follower=Follower(broker, LiveSettings(look_again_s=0.5), group="routes test"),
            topics=topics,
            clock=SystemClock(),
            stop=stop,
        )
        running = asyncio.create_task(role.run())
        try:
            yield role
        finally:
            stop.set()
            await running
            await topics.close()

    async def send(self, *logs: tuple[str, int, str], **metadata: Any) -> list[int]:
        """One request with (service, severity, message) each; the ids."""
        now_us = SystemClock().now_us()
        made = [
            Log(self.next_id + place, now_us, level, service, message, None, dict(metadata))
            for place, (service, level, message) in enumerate(logs)
        ]
        self.next_id += len(made)
        await self.topic.publish(frame_of(made))
        return [log.id for log in made]

    async def read(self, topic: str) -> list[Delivered]:
        """All there is in a topic now."""
        extents = (await self.topics.extents([topic])).get(topic, {})
        count = sum(extent.next - extent.first for extent in extents.values())
        if not count:
            return []
        reader = await self.topics.reader(topic)
        try:
            await reader.seek({partition: extent.first for partition, extent in extents.items()})
            found: list[Delivered] = []
            async with asyncio.timeout(DEADLINE_S):
                while len(found) < count:
                    found += await reader.poll(max_bytes=1 << 20, wait_ms=500)
            return found
        finally:
            await reader.close()

    async def until(self, topic: str, ids: Sequence[int], *, there: bool = False) -> list[Delivered]:
        """Wait until the topic has all of these; what it has then. Nothing else may be there. there: the topic must be, too."""
        loop = asyncio.get_running_loop()
        ends_s = loop.time() + DEADLINE_S
        found = await self.read(topic)
        while not {ids_of(record) for record in found} >= set(ids) or (
            there and not await self.topics.extents([topic])
        ):
            assert loop.time() < ends_s, f"{len(found)} of {len(ids)} records are in {topic}"
            await asyncio.sleep(0.1)
            found = await self.read(topic)
        assert {ids_of(record) for record in found} == set(ids)
        return found


def ids_of(record: Delivered) -> int:
    return int(json.loads(record.value)["id"])


@pytest.fixture(params=["queue", pytest.param("kafka", marks=pytest.mark.kafka)])
def place(request: pytest.FixtureRequest, native_url: str) -> tuple[str, str, str]:
    address = native_url if request.param == "queue" else request.getfixturevalue("kafka_bootstrap")
    return request.param, address, native_url


@pytest.fixture
async def site(place: tuple[str, str, str]) -> AsyncIterator[Site]:
    kind, address, url = place
    async with AsyncExitStack() as stack:
        topic = Topic(kind, address, stack)
        await topic.open()
        database = Database(url, application_name="routes test", connections_max=10, wait_s=2.0)
        await database.open()
        stack.push_async_callback(database.close)
        where = {"bootstrap": address} if kind == "kafka" else {}
        broker = BrokerSettings.model_validate({"kind": kind, "request_timeout_ms": 10_000, **where})
        topics = make_topics(broker, database)
        stack.push_async_callback(topics.close)
        yield Site(topic, database, topics, broker)


async def test_each_topic_gets_its_logs_and_no_other_as_the_api_writes_them(site: Site) -> None:
    routes = site.routes(payments='service:pay/* "declined"', amounts="metadata.amount>10", everything="")
    before = await site.send(("pay/api", 9, "card declined"), ("shop", 9, "card declined"))
    async with site.router(routes):
        after = await site.send(("pay/web", 17, "Declined again"), ("pay/web", 9, "fine"), amount=12.5)
        await site.until(routes["amounts"].topic, after)
        await site.until(routes["everything"].topic, before + after)
        found = await site.until(routes["payments"].topic, [before[0], after[0]])
    first, second = sorted(found, key=ids_of)
    for record, log_id, index in ((first, before[0], 0), (second, after[0], 0)):
        headers = dict(record.headers)
        assert headers["v"] == b"1"
        assert headers["id"] == b"%d" % log_id
        source = source_of(record.headers)
        assert source is not None
        assert source.index == index
        log = LogModel.model_validate_json(record.value)
        assert log.id == str(log_id)
    shown = json.loads(second.value)
    assert (shown["level"], shown["severity"], shown["metadata"]) == ("ERROR", 17, {"amount": 12.5})
    assert first.partition == second.partition or site.topic.kind == "kafka"


async def test_services_get_topics_of_their_own_as_they_come_up_to_a_bound(site: Site) -> None:
    unique = site.topic.name.removeprefix("live-")[:8]
    services = [f"{unique}/{letter}" for letter in "abcd"]
    there = len([name for name in await site.topics.names() if name.startswith("logs.service.")])
    async with site.router({}, services=[f"{unique}/*"], service_topics_max=there + 3) as role:
        ids = {service: await site.send((service, 9, "m"), (f"x{service}", 9, "m")) for service in services[:3]}
        for service, (wanted, _) in ids.items():
            await site.until(service_topic(service), [wanted])
        await site.send((services[3], 9, "one too many"))
        (last, _) = await site.send((services[0], 9, "and on it goes"), ("audit", 9, "m"))
        await site.until(service_topic(services[0]), [ids[services[0]][0], last])
        assert not await site.topics.extents([service_topic(services[3])])
        assert role.problem is None


async def test_the_audit_log_goes_into_no_topic(site: Site) -> None:
    routes = site.routes(everything="")
    async with site.router(routes, services=["*"]):
        await site.send(("logfeed/audit", 17, "ann looked at pages"))
        (seen,) = await site.send(("shop", 9, "m"))
        await site.until(routes["everything"].topic, [seen])
        assert not await site.topics.extents([service_topic("logfeed/audit")])


async def test_one_leads_and_another_goes_on_where_it_ended(site: Site) -> None:
    routes = site.routes(errors="level>=error")
    topic = routes["errors"].topic
    ids: list[int] = []
    for number in range(3):
        async with site.router(routes, name=f"router {number}"), site.router(routes, name=f"other {number}"):
            for _ in range(20):
                bad, _good = await site.send(("shop", 17, "bad"), ("shop", 9, "good"))
                ids.append(bad)
            await site.until(topic, ids)
        ids += await site.send(("shop", 21, "while nobody leads"))
    async with site.router(routes, name="last"):
        found = await site.until(topic, ids)
    # Each ended in order, so nothing came twice.
    assert Counter(map(ids_of, found)) == Counter(ids)


async def test_a_router_that_lost_its_office_saves_nothing(site: Site) -> None:
    leases = [Lease(site.database, ROUTES, name, ttl_s=30) for name in ("one", "two")]
    states = [RouteState(site.database, lease, site.topic.name) for lease in leases]
    assert await leases[0].acquire()
    assert await states[0].load() is None
    await states[0].save({0: 5})
    await leases[1].take_over()
    assert await states[1].load() == {0: 5}
    await states[1].save({0: 9, 1: 3})
    with pytest.raises(StaleEpoch):
        await states[0].save({0: 7})
    await leases[1].release()
    assert await leases[0].acquire()
    with pytest.raises(StaleEpoch):  # it leads again, and does not know what the other one has done
        await states[0].save({0: 7})
    assert await states[0].load() == {0: 9, 1: 3}
    await states[0].save({0: 11})
    assert await states[0].load() == {0: 11}


async def test_begins_with_what_comes_where_it_is_told_to(site: Site) -> None:
    routes = site.routes(everything="")
    await site.send(("shop", 9, "before"))
    async with site.router(routes, begin="now"):
        await site.until(routes["everything"].topic, [], there=True)
        ids = await site.send(("shop", 9, "after"))
        await site.until(routes["everything"].topic, ids)


async def test_pieces_smaller_than_a_request_bring_each_log_once(site: Site) -> None:
    routes = site.routes(one="", other='"message 1"')
    async with site.router(routes, piece_bytes_max=64 * 1024):
        ids = await site.send(*[("shop", 9, f"message {number} " + "x" * 500) for number in range(1_000)])
        found = await site.until(routes["one"].topic, ids)
        assert len(found) == len(ids)
        assert [source.index for record in found if (source := source_of(record.headers))] == list(range(1_000))
        await site.until(routes["other"].topic, [ids[n] for n in range(1_000) if str(n).startswith("1")])


async def test_a_missing_topic_is_told_and_waited_for(site: Site) -> None:
    routes = site.routes(errors="level>=error")
    site.broker = site.broker.model_copy(update={"create_topic": False})
    ids = await site.send(("shop", 17, "bad"))
    async with site.router(routes) as role:
        await eventually(lambda: routes["errors"].topic in (role.problem or ""), lambda: f"told: {role.problem}")
        await site.topics.ensure([routes["errors"].topic])
        await site.until(routes["errors"].topic, ids)
        assert role.problem is None
