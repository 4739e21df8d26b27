"""Following the broker, on both: each record once and in order, from any offset, through everything that goes wrong."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from datetime import timedelta
from typing import Any

import pytest

from broker.port import Record
from live.events import Batch, GapReason
from live.keys import KeyPlace, stored_keys_of
from schemas.errors import BrokerUnavailable, DatabaseUnavailable
from store.chunks import attach_partition
from tests.fleets import OwnBroker
from tests.live_site import DEADLINE_S, Seen, Topic, eventually, frame_of, logs_of, seeing


@pytest.fixture(params=["queue", pytest.param("kafka", marks=pytest.mark.kafka)])
def place(request: pytest.FixtureRequest) -> tuple[str, str]:
    fixture = {"queue": "native_url", "kafka": "kafka_bootstrap"}[request.param]
    return request.param, request.getfixturevalue(fixture)


@pytest.fixture
async def topic(place: tuple[str, str]) -> AsyncIterator[Topic]:
    async with AsyncExitStack() as stack:
        topic = Topic(*place, stack)
        await topic.open()
        yield topic


async def test_from_now_on_gives_what_comes_and_nothing_before(topic: Topic) -> None:
    await topic.send(3)
    async with topic.follower() as follower, seeing(follower) as seen:
        ids = await topic.send(2) + await topic.send(1)
        await seen.until(ids)
        assert sorted(seen.ids) == ids
        seen.check_order()


async def test_older_offsets_meet_the_live_end_without_gap_or_repeat(topic: Topic) -> None:
    before = [number for _ in range(30) for number in await topic.send(2)]
    async with topic.follower(poll_bytes_max=1024) as follower, AsyncExitStack() as stack:
        live = await stack.enter_async_context(seeing(follower))
        sending = asyncio.create_task(_send_many(topic, 200))
        late = [await stack.enter_async_context(seeing(follower, {})) for _ in range(5)]
        after = await sending
        for seen in late:
            await seen.until(before + after)
            assert sorted(seen.ids) == before + after
            seen.check_order()
        await live.until(after)
        assert sorted(live.ids) == after
        live.check_order()


@pytest.mark.parametrize("recent_bytes_max", [0, 4_000, 8 * 1024 * 1024])
async def test_a_subscription_resumes_exactly_where_it_stood(topic: Topic, recent_bytes_max: int) -> None:
    seen_ids: list[int] = []
    async with topic.follower(recent_bytes_max=recent_bytes_max) as follower:
        sending = asyncio.create_task(_send_many(topic, 150))
        positions: dict[int, int] = {}
        for wanted in (20, 60, 90):
            async with seeing(follower, positions) as seen:
                await seen.until(range(wanted - len(seen_ids)))
            seen_ids += seen.ids
            positions = seen.positions
        sent = await sending
        async with seeing(follower, positions) as seen:
            await seen.until(sent[len(seen_ids) :])
            assert sorted(seen_ids + seen.ids) == sent


async def test_one_that_does_not_keep_up_loses_nothing_and_holds_nobody_up(topic: Topic) -> None:
    async with topic.follower(queue_bytes_max=64 * 1024, recent_bytes_max=0) as follower, seeing(follower) as quick:
        async with follower.subscribe() as slow:
            seen = Seen()
            events = aiter(slow)
            beginning = asyncio.ensure_future(anext(events))
            await eventually(lambda: bool(slow.positions), lambda: "the live end is known")
            first = await topic.send(1)
            seen.events.append(await beginning)
            sent = [number for _ in range(40) for number in await topic.send(100)]
            await quick.until(first + sent)
            async with asyncio.timeout(DEADLINE_S):
                while len(seen.ids) < len(first + sent):
                    seen.events.append(await anext(events))
            assert sorted(seen.ids) == first + sent
            seen.check_order()


async def test_repeated_requests_are_given_once_and_reused_keys_not_at_all(topic: Topic) -> None:
    async with topic.follower() as follower, seeing(follower) as seen:
        logs = logs_of(1_000, 3)
        for _ in range(3):
            await topic.publish(frame_of(logs, key="k", body="one"), key="k")
        await topic.publish(frame_of(logs_of(2_000, 2), key="k", body="another"), key="k")
        end = await topic.send(1, key="k2")
        await seen.until([*range(4)])
        async with seeing(follower, {}) as again:
            await again.until([*range(4)])
            assert sorted(again.ids) == sorted(seen.ids) == sorted([1_000, 1_001, 1_002, *end])


async def test_a_key_that_was_stored_before_is_known_from_the_database(topic: Topic) -> None:
    first = frame_of(logs_of(1_000, 1), key="k", body="one")
    partition, offset = await topic.publish(first, key="k")

    async def stored(_: object) -> dict[bytes, KeyPlace]:
        return {dict(first.headers)["key"]: KeyPlace(partition, offset)}

    repeat = await topic.publish(frame_of(logs_of(1_000, 1), key="k", body="one"), key="k")
    assert repeat == (partition, offset + 1)
    end = await topic.send(1, key="k")
    new = await topic.send(1)
    async with topic.follower(stored_keys=stored) as follower, AsyncExitStack() as stack:
        from_the_start = await stack.enter_async_context(seeing(follower, {}))
        from_the_repeat = await stack.enter_async_context(seeing(follower, {partition: offset + 1}))
        await from_the_start.until([1_000, *new])
        await from_the_repeat.until(new)
        assert sorted(from_the_start.ids) == sorted([1_000, *new])
        assert from_the_repeat.ids == new
        assert end[0] not in from_the_start.ids


async def test_a_key_waits_for_a_database_that_is_restarted(topic: Topic) -> None:
    partition, offset = await topic.publish(frame_of(logs_of(1_000, 1), key="k", body="one"), key="k")
    repeat = frame_of(logs_of(1_000, 1), key="k", body="one")
    questions = 0

    async def restarting(_: object) -> dict[bytes, KeyPlace]:
        nonlocal questions
        questions += 1
        if questions < 4:
            raise DatabaseUnavailable
        return {dict(repeat.headers)["key"]: KeyPlace(partition, offset)}

    async with topic.follower(stored_keys=restarting) as follower, seeing(follower) as seen:
        await topic.publish(repeat, key="k")
        end = await topic.send(1, key="k")
        await seen.until(await topic.send(1))
        assert questions >= 4
        assert 1_000 not in seen.ids
        assert end[0] not in seen.ids


async def test_without_the_database_frames_come_all_the_same(topic: Topic) -> None:
    async def away(_: object) -> dict[bytes, KeyPlace]:
        raise DatabaseUnavailable

    async with topic.follower(stored_keys=away, keys_wait_s=0.5) as follower, seeing(follower) as seen:
        ids = await topic.send(1, key="a") + await topic.send(1, key="b")
        await seen.until(ids)
        assert sorted(seen.ids) == ids


async def test_what_is_no_frame_is_passed_over_and_a_newer_record_is_a_gap(topic: Topic) -> None:
    async with topic.follower() as follower, seeing(follower) as seen:
        good = logs_of(1_000, 1)
        headers = frame_of(good).headers
        await topic.publish(Record(b"no frame", []))
        await topic.publish(Record(b"no zstd", headers))
        await topic.publish(Record(b"", headers))
        await topic.publish(Record(b"", [(name, b"99" if name == "v" else value) for name, value in headers]))
        ids = await topic.send(1)
        await seen.until(ids)
        assert seen.ids == ids
        assert [gap.reason for gap in seen.gaps] == [GapReason.NEWER]
        seen.check_order()


async def test_expired_offsets_are_a_gap(topic: Topic) -> None:
    for _ in range(4):
        await topic.send(1)
    await topic.forget_everything()
    async with topic.follower() as follower, seeing(follower, {0: 0, 1: 0}) as seen:
        ids = await topic.send(1) + await topic.send(1)
        await seen.until(ids)
        assert sorted(seen.ids) == ids
        assert {(gap.partition, gap.offset, gap.next_offset, gap.reason) for gap in seen.gaps} == {
            (0, 0, 2, GapReason.EXPIRED),
            (1, 0, 2, GapReason.EXPIRED),
        }
        seen.check_order()


async def test_offsets_that_the_topic_does_not_have_are_a_gap_and_not_a_silent_wait(topic: Topic) -> None:
    ids = await topic.send(1) + await topic.send(1)
    async with topic.follower() as follower, seeing(follower, {0: 70, 1: 0}) as seen:
        await seen.until(ids)
        assert sorted(seen.ids) == ids
        assert [(gap.partition, gap.offset, gap.next_offset) for gap in seen.gaps] == [(0, 70, 0)]
        assert seen.gaps[0].reason is GapReason.REMADE


async def test_new_partitions_are_noticed_with_all_that_is_in_them(topic: Topic) -> None:
    async with topic.follower() as follower, seeing(follower) as seen:
        await topic.grow(4)
        other = await topic.new_broker()
        producer = await other.producer()
        try:
            sent: list[int] = []
            async with asyncio.timeout(DEADLINE_S):
                while len({event.partition for event in seen.events if isinstance(event, Batch)}) < 4:
                    logs = logs_of(1_000 + len(sent), 1)
                    await producer.publish(frame_of(logs), partition_key=None)
                    sent += [log.id for log in logs]
            await seen.until(sent)
            assert sorted(seen.ids) == sent
            seen.check_order()
        finally:
            await producer.close()


async def test_who_begins_again_after_a_rest_gets_what_came_meanwhile(topic: Topic) -> None:
    async with topic.follower() as follower:
        async with seeing(follower) as seen:
            await seen.until(await topic.send(1))
            positions = seen.positions
        await eventually(lambda: not follower.positions, lambda: "nothing is read while nobody listens")
        meanwhile = await topic.send(3)
        async with seeing(follower, positions) as seen:
            after = await topic.send(1)
            await seen.until(meanwhile + after)
            assert sorted(seen.ids) == meanwhile + after


async def test_a_broker_that_was_killed_and_came_back_is_followed_on(own_broker: OwnBroker) -> None:
    async with AsyncExitStack() as stack:
        topic = Topic(own_broker.kind, own_broker.address, stack)
        await topic.open()
        follower = await stack.enter_async_context(topic.follower())
        seen = await stack.enter_async_context(seeing(follower))
        ids = await topic.send(2)
        await seen.until(ids)
        await asyncio.to_thread(own_broker.kill)
        behind = await stack.enter_async_context(seeing(follower, {}))
        with pytest.raises(BrokerUnavailable):
            async with asyncio.timeout(DEADLINE_S):
                await topic.send(1)
        await asyncio.to_thread(own_broker.bring_back)
        ids += await _sent(topic)
        for one in (seen, behind):
            await one.until(ids)
            # What was refused may have been taken all the same.
            assert set(one.ids) >= set(ids)
            assert len(one.ids) == len(set(one.ids))
            one.check_order()


async def test_what_the_writer_stored_is_told_from_its_copies(native_url: str) -> None:
    async with AsyncExitStack() as stack:
        topic = Topic("queue", native_url, stack)
        await topic.open()
        database = await topic.database()
        key_hash = dict(frame_of(logs_of(1, 1), key="k", body="b").headers)["key"]
        async with database.transaction() as connection:
            cursor = await connection.execute("SELECT (clock_timestamp() AT TIME ZONE 'UTC')::date")
            row: Any = await cursor.fetchone()
            (today,) = row
            until = today + timedelta(days=1)
            await attach_partition(connection, "stored_keys", "stored_keys_now", today.isoformat(), until.isoformat())
            for columns, values in (
                ("", (today, key_hash, b"x", 1, 7)),
                ("(stored_day, key_hash, body_sha256)", (today, b"of an older program", b"x")),
            ):
                marks = ", ".join(["%s"] * len(values))
                await connection.execute(f"INSERT INTO stored_keys {columns} VALUES ({marks})".encode(), values)
        stored = stored_keys_of(database)
        assert await stored([key_hash, b"of an older program", b"unknown"]) == {key_hash: KeyPlace(1, 7)}


async def test_a_sink_that_fails_takes_nothing_from_the_others(topic: Topic) -> None:
    def fails(event: object) -> None:
        raise RuntimeError("a defect")

    async with topic.follower() as follower:
        follower.attach(fails)
        async with seeing(follower) as seen:
            ids = await topic.send(1) + await topic.send(1)
            await seen.until(ids)
            assert sorted(seen.ids) == ids


async def _send_many(topic: Topic, requests: int) -> list[int]:
    ids: list[int] = []
    for _ in range(requests):
        ids += await topic.send(1)
    return ids


async def _sent(topic: Topic) -> list[int]:
    """Sent once the broker takes records again."""
    async with asyncio.timeout(2 * DEADLINE_S):
        while True:
            try:
                return await topic.send(1)
            except BrokerUnavailable:
                await asyncio.sleep(0.1)
