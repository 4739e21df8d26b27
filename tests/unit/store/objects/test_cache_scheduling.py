"""Who waits for whom in the cache of objects: with a store that gives when told."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from infra.fleet import until
from store.objects.cache import ObjectCache, ObjectTooLarge
from store.objects.port import ObjectMissing, ObjectStoreUnavailable
from store.objects.settings import ObjectSettings
from tests.unit.store.objects.gated_store import GatedStore


class Bench:
    """A cache over a gated store."""

    def __init__(self, directory: Path) -> None:
        self.store = GatedStore()
        self.directory = directory
        self.caches: list[ObjectCache] = []

    async def cache(self, **settings: object) -> ObjectCache:
        chosen = {"cache_dir": self.directory, "cache_bytes_max": 100, **settings}
        cache = ObjectCache(self.store, ObjectSettings.model_validate(chosen))
        await cache.open()
        self.caches.append(cache)
        return cache

    async def begun(self, key: str, times: int = 1) -> None:
        await until(lambda: is_true(self.store.begun[key] >= times), what=f"the download of {key} begins")

    def names(self) -> set[str]:
        return {path.name for path in self.directory.iterdir()} - {".lock"}


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path / "cache")
    yield bench
    for cache in bench.caches:
        await cache.close()


async def read(cache: ObjectCache, key: str, content: bytes) -> bytes:
    async with cache.file(key, bytes=len(content), sha256=hashlib.sha256(content).hexdigest()) as path:
        return path.read_bytes()


async def is_true(condition: bool) -> bool:
    return condition


async def hold(cache: ObjectCache, key: str, content: bytes, until: asyncio.Event, got: asyncio.Event) -> None:
    async with cache.file(key, bytes=len(content), sha256=hashlib.sha256(content).hexdigest()):
        got.set()
        await until.wait()


class Holder:
    """A task that keeps a file in use until told."""

    def __init__(self, cache: ObjectCache, key: str, content: bytes) -> None:
        self._leave = asyncio.Event()
        self.got = asyncio.Event()
        self.task = asyncio.create_task(hold(cache, key, content, self._leave, self.got))

    async def leave(self) -> None:
        self._leave.set()
        await self.task


async def test_one_download_however_many_ask(bench: Bench) -> None:
    cache = await bench.cache()
    bench.store.add("k", b"content", held=True)
    asking = [asyncio.create_task(read(cache, "k", b"content")) for _ in range(20)]
    await bench.begun("k")
    bench.store.held["k"].set()
    assert await asyncio.gather(*asking) == [b"content"] * 20
    assert bench.store.begun["k"] == 1
    assert cache.pinned_bytes == 0


async def test_cancelled_waiter_does_not_end_the_download_of_others(bench: Bench) -> None:
    cache = await bench.cache()
    bench.store.add("k", b"content", held=True)
    first, second = (asyncio.create_task(read(cache, "k", b"content")) for _ in range(2))
    await bench.begun("k")
    first.cancel()
    with pytest.raises(asyncio.CancelledError):
        await first
    bench.store.held["k"].set()
    assert await second == b"content"
    assert bench.store.begun["k"] == 1
    assert not bench.store.cancelled


async def test_download_that_has_begun_goes_on_without_waiters(bench: Bench) -> None:
    cache = await bench.cache()
    bench.store.add("k", b"content", held=True)
    asking = asyncio.create_task(read(cache, "k", b"content"))
    await bench.begun("k")
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    again = asyncio.create_task(read(cache, "k", b"content"))
    bench.store.held["k"].set()
    assert await again == b"content"
    assert bench.store.begun["k"] == 1
    assert cache.pinned_bytes == 0


async def test_failure_without_waiters_is_forgotten(bench: Bench) -> None:
    cache = await bench.cache()
    bench.store.add("k", b"content", held=True)
    bench.store.errors["k"] = ObjectStoreUnavailable("away")
    asking = asyncio.create_task(read(cache, "k", b"content"))
    await bench.begun("k")
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    bench.store.held["k"].set()
    await until(lambda: is_true(cache.bytes == 0), what="the failed copy is forgotten")
    del bench.store.errors["k"]
    assert await read(cache, "k", b"content") == b"content"
    assert len(bench.names()) == 1


async def test_download_that_nobody_waits_for_does_not_begin(bench: Bench) -> None:
    cache = await bench.cache(transfers_max=1)
    bench.store.add("first", b"1", held=True)
    bench.store.add("second", b"2")
    first = asyncio.create_task(read(cache, "first", b"1"))
    await bench.begun("first")
    second = asyncio.create_task(read(cache, "second", b"2"))
    await asyncio.sleep(0)
    second.cancel()
    with pytest.raises(asyncio.CancelledError):
        await second
    bench.store.held["first"].set()
    await first
    assert bench.store.begun["second"] == 0
    assert await read(cache, "second", b"2") == b"2"
    assert cache.bytes == 2


async def test_failure_reaches_all_waiters_and_the_next_tries_again(bench: Bench) -> None:
    cache = await bench.cache()
    bench.store.held["k"] = asyncio.Event()
    asking = [asyncio.create_task(read(cache, "k", b"content")) for _ in range(3)]
    await bench.begun("k")
    bench.store.held["k"].set()
    for outcome in await asyncio.gather(*asking, return_exceptions=True):
        assert isinstance(outcome, ObjectMissing)
    assert (cache.bytes, cache.pinned_bytes, bench.names()) == (0, 0, set())
    bench.store.add("k", b"content")
    assert await read(cache, "k", b"content") == b"content"


async def test_no_more_downloads_at_once_than_set(bench: Bench) -> None:
    cache = await bench.cache(transfers_max=2)
    contents = {f"k{number}": b"%d" % number for number in range(8)}
    for key, content in contents.items():
        bench.store.add(key, content, held=True)
    asking = [asyncio.create_task(read(cache, key, content)) for key, content in contents.items()]
    for number in range(8):
        await bench.begun(f"k{min(number + 1, 7)}")
        bench.store.held[f"k{number}"].set()
    await asyncio.gather(*asking)
    assert bench.store.most_running == 2


async def test_room_comes_when_a_file_is_left(bench: Bench) -> None:
    cache = await bench.cache()
    bench.store.add("large", b"a" * 80)
    bench.store.add("other", b"b" * 60)
    holder = Holder(cache, "large", b"a" * 80)
    await holder.got.wait()
    asking = asyncio.create_task(read(cache, "other", b"b" * 60))
    await asyncio.sleep(0)
    assert bench.store.begun["other"] == 0
    await holder.leave()
    assert await asking == b"b" * 60
    assert cache.bytes == 60
    assert len(bench.names()) == 1


async def test_who_waits_for_room_longer_is_served_first(bench: Bench) -> None:
    cache = await bench.cache()
    for key, size in (("held", 50), ("large", 90), ("small", 20)):
        bench.store.add(key, key[:1].encode() * size)
    holder = Holder(cache, "held", b"h" * 50)
    await holder.got.wait()
    order: list[str] = []

    async def ask(key: str, content: bytes) -> None:
        await read(cache, key, content)
        order.append(key)

    async with asyncio.TaskGroup() as group:
        group.create_task(ask("large", b"l" * 90))
        await asyncio.sleep(0)
        group.create_task(ask("small", b"s" * 20))
        await asyncio.sleep(0)
        await holder.leave()
    assert order == ["large", "small"]


async def test_no_room_in_time_is_unavailable_and_says_why(bench: Bench) -> None:
    cache = await bench.cache(cache_wait_s=0.05)
    bench.store.add("large", b"a" * 80)
    holder = Holder(cache, "large", b"a" * 80)
    await holder.got.wait()
    with pytest.raises(ObjectStoreUnavailable, match=r"no room for object other .* 80 of 100 bytes .*cache_bytes_max"):
        await read(cache, "other", b"b" * 60)
    assert await read(cache, "large", b"a" * 80) == b"a" * 80
    await holder.leave()
    bench.store.add("other", b"b" * 60)
    assert await read(cache, "other", b"b" * 60) == b"b" * 60


async def test_object_larger_than_the_cache_is_refused_at_once(bench: Bench) -> None:
    cache = await bench.cache()
    with pytest.raises(ObjectTooLarge, match=r"has 101 bytes, the cache holds 100: raise objects\.cache_bytes_max"):
        await read(cache, "k", b"x" * 101)
    assert not bench.store.begun


async def test_file_in_use_stays_while_others_come_and_go(bench: Bench) -> None:
    cache = await bench.cache()
    bench.store.add("kept", b"k" * 40)
    holder = Holder(cache, "kept", b"k" * 40)
    await holder.got.wait()
    for number in range(10):
        bench.store.add(f"n{number}", bytes([number]) * 30)
        await read(cache, f"n{number}", bytes([number]) * 30)
        assert cache.bytes <= 100
    assert await read(cache, "kept", b"k" * 40) == b"k" * 40
    await holder.leave()
    assert bench.store.begun["kept"] == 1


async def test_file_that_went_is_fetched_again_only_after_its_old_copy_is_deleted(bench: Bench) -> None:
    cache = await bench.cache()
    for key in ("a", "b"):
        bench.store.add(key, key.encode() * 60)
    await read(cache, "a", b"a" * 60)
    # `b` pushes `a` out while `a` is asked for again.
    outcome = await asyncio.gather(
        read(cache, "b", b"b" * 60), read(cache, "a", b"a" * 60), read(cache, "a", b"a" * 60)
    )
    assert list(outcome) == [b"b" * 60, b"a" * 60, b"a" * 60]
    assert cache.bytes <= 100
    assert await read(cache, "a", b"a" * 60) == b"a" * 60


async def test_closing_ends_downloads_and_their_waiters(bench: Bench) -> None:
    cache = await bench.cache()
    bench.store.add("k", b"content", held=True)
    asking = asyncio.create_task(read(cache, "k", b"content"))
    await bench.begun("k")
    await cache.close()
    with pytest.raises(ObjectStoreUnavailable, match="closed"):
        await asking
    with pytest.raises(ObjectStoreUnavailable, match="closed"):
        await read(cache, "k", b"content")
    assert bench.names() == set()
