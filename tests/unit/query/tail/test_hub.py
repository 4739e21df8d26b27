"""Each client is given what is its own, once, wherever it joins."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping

from hypothesis import given
from hypothesis import strategies as st

from live.events import Batch, Event, Gap, GapReason, Place
from query.tail.hub import Client, Hub
from query.tail.settings import TailSettings
from schemas.record import Log
from search.predicate import EVERYTHING, Predicate, ServiceIn


class Follows:
    """The live end, moved by hand: what the hub asks of `Follower`."""

    def __init__(self) -> None:
        self.positions: dict[int, int] = {0: 0, 1: 0}
        self.sinks: list[Callable[[Event], None]] = []

    def attach(self, sink: Callable[[Event], None]) -> None:
        self.sinks.append(sink)

    def detach(self, sink: Callable[[Event], None]) -> None:
        self.sinks.remove(sink)

    def give(self, event: Event) -> None:
        self.positions[event.partition] = event.next_offset
        for sink in list(self.sinks):
            sink(event)


def of(predicate: Predicate, start_us: int = 0) -> Client:
    return Client(predicate, start_us)


def service(name: str) -> Predicate:
    return ServiceIn(frozenset({name}))


def log(number: int, name: str = "shop", timestamp_us: int = 1) -> Log:
    return Log(number, timestamp_us, 9, name, "m", None, {})


def batch(offset: int, *logs: Log, partition: int = 0) -> Batch:
    return Batch(partition, offset, offset + 1, 0, list(logs))


def ids(client: Client) -> list[int]:
    return [int(json.loads(body)["id"]) for body in client.queue.take().bodies]


def joined(hub: Hub, client: Client, positions: Mapping[int, int]) -> Client:
    hub.enter(client)
    client.place = Place(dict(positions))
    hub.join(client)
    return client


def made(**settings: int) -> tuple[Follows, Hub]:
    follows = Follows()
    return follows, Hub(follows, TailSettings(**settings))  # type: ignore[arg-type]


def test_clients_are_given_what_they_ask_for_and_no_more_once_they_left() -> None:
    follows, hub = made()
    everyone, shop, late = of(EVERYTHING), of(service("shop")), of(service("shop"), start_us=5)
    for client in (everyone, shop, late):
        joined(hub, client, follows.positions)
    follows.give(batch(0, log(1), log(2, "mail"), log(3, timestamp_us=5)))
    assert (ids(everyone), ids(shop), ids(late)) == ([1, 2, 3], [1, 3], [3])
    hub.leave(everyone)
    follows.give(batch(1, log(4)))
    assert (ids(everyone), ids(shop)) == ([], [4])
    hub.leave(shop)
    hub.leave(late)
    assert follows.sinks == []
    assert hub._groups == {}


def test_a_client_that_has_not_joined_is_given_nothing() -> None:
    follows, hub = made()
    reads, other = of(service("shop")), of(service("shop"))
    hub.enter(reads)
    joined(hub, other, follows.positions)
    follows.give(batch(0, log(1)))
    assert (ids(reads), ids(other)) == ([], [1])
    hub.offer_all(reads, batch(0, log(1), log(2, "mail")))
    assert ids(reads) == [1]


@given(stands=st.integers(0, 5))
def test_who_has_read_beyond_the_live_end_is_not_given_it_again(stands: int) -> None:
    follows, hub = made()
    follows.positions = {0: 0, 1: 3}
    client = joined(hub, of(EVERYTHING), {0: stands, 1: 3})
    for offset in range(6):
        follows.give(batch(offset, log(offset + 1)))
        assert hub.positions(client) == {0: max(stands, offset + 1), 1: 3}
    assert ids(client) == [offset + 1 for offset in range(stands, 6)]


def test_who_lacks_something_is_lost_and_reads_by_itself_from_there() -> None:
    follows, hub = made()
    follows.positions = {0: 2}  # of partition 1 nobody knows: its leader was away
    client = joined(hub, of(EVERYTHING), {0: 2, 1: 4})
    follows.give(batch(2, log(1)))
    follows.give(batch(9, log(2), partition=1))
    assert client.lost.is_set()
    assert not client.is_joined
    assert client.place.positions == {0: 3, 1: 4}
    follows.give(batch(3, log(3)))
    assert ids(client) == [1]
    assert follows.sinks == []


def test_gaps_are_told_to_all_who_joined() -> None:
    follows, hub = made()
    client, ahead = joined(hub, of(service("shop")), {0: 0, 1: 0}), joined(hub, of(service("mail")), {0: 7, 1: 0})
    gap = Gap(0, 0, 5, GapReason.EXPIRED)
    follows.give(gap)
    assert client.queue.take().gaps == [gap]
    assert ahead.queue.is_empty


def test_a_slow_client_loses_the_oldest_and_others_nothing() -> None:
    follows, hub = made(client_bytes_max=64 * 1024)
    slow, quick = (joined(hub, of(EVERYTHING), follows.positions) for _ in range(2))
    taken: list[int] = []
    for offset in range(1_000):
        follows.give(batch(offset, log(offset + 1)))
        taken += ids(quick)
    assert taken == [*range(1, 1_001)]
    waited = slow.queue.take()
    assert waited.skipped > 0
    assert waited.skipped + len(waited.bodies) == 1_000
    assert json.loads(waited.bodies[-1])["id"] == "1000"


def test_many_clients_share_what_may_wait_for_all() -> None:
    follows, hub = made(client_bytes_max=1 << 20, queued_bytes_max=1 << 20)
    clients = [joined(hub, of(EVERYTHING), follows.positions) for _ in range(10)]
    for offset in range(2_000):
        follows.give(batch(offset, log(offset + 1)))
    assert sum(client.queue.size_bytes for client in clients) <= 1 << 20
