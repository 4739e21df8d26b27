"""What every object store owes its users (store/objects/port.py), held against S3 (a real server) and a local directory."""

from __future__ import annotations

import asyncio
import hashlib
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from store.objects.factory import make_object_store
from store.objects.port import Fetched, ObjectDamaged, ObjectMissing, ObjectStore, ObjectStoreUnavailable
from store.objects.settings import ObjectSettings
from tests.s3_server import S3Server, s3_store

MIB = 1024 * 1024
LARGE = 17 * MIB + 12_345
"""Three parts on S3, and no multiple of any piece."""


@dataclass(frozen=True, slots=True)
class Site:
    """A store, and another for the same place."""

    kind: str
    store: ObjectStore
    other: ObjectStore
    files: Path

    def file(self, content: bytes, name: str = "source") -> Path:
        path = self.files / name
        path.write_bytes(content)
        return path

    async def put(self, key: str, content: bytes) -> None:
        await self.store.put(key, self.file(content))

    async def content(self, key: str) -> bytes:
        path = self.files / "read-back"
        await self.store.get(key, path)
        return path.read_bytes()

    async def keys(self, prefix: str = "") -> list[str]:
        return [stored.key async for stored in self.store.list(prefix)]


@pytest.fixture(params=["local", "s3"])
async def site(request: pytest.FixtureRequest, tmp_path: Path, aws_credentials: None) -> AsyncIterator[Site]:
    files = tmp_path / "files"
    files.mkdir()
    make: Callable[[], ObjectStore]
    if request.param == "local":
        settings = ObjectSettings(url=f"file://{tmp_path}/objects")

        def make() -> ObjectStore:
            return make_object_store(settings)
    else:
        server: S3Server = request.getfixturevalue("s3_server")
        bucket = server.make_bucket()

        def make() -> ObjectStore:
            return s3_store(bucket, server.endpoint)

    site = Site(request.param, make(), make(), files)
    yield site
    await site.store.close()
    await site.other.close()


@pytest.mark.parametrize("size", [0, 1, 70_000, LARGE])
async def test_what_was_put_is_got(site: Site, size: int) -> None:
    content = os.urandom(size)
    source = site.file(content)
    await site.store.put("segments/2026/a.parquet", source)
    target = site.files / "target"
    fetched = await site.other.get("segments/2026/a.parquet", target, bytes_expected=size)
    assert fetched == Fetched(size, hashlib.sha256(content).hexdigest())
    assert target.read_bytes() == content
    assert source.read_bytes() == content
    assert await site.other.size("segments/2026/a.parquet") == size


async def test_put_again_replaces(site: Site) -> None:
    await site.put("k", b"the first, which is longer")
    await site.put("k", b"the second")
    assert await site.content("k") == b"the second"
    assert await site.keys() == ["k"]


async def test_get_replaces_the_file_and_leaves_no_other(site: Site) -> None:
    await site.put("k", b"new")
    directory = site.files / "alone"
    directory.mkdir()
    (directory / "f").write_bytes(b"something older and longer")
    await site.store.get("k", directory / "f")
    assert (directory / "f").read_bytes() == b"new"
    assert [path.name for path in directory.iterdir()] == ["f"]


async def test_missing_object_is_named(site: Site) -> None:
    target = site.files / "target"
    with pytest.raises(ObjectMissing, match=r"no object never/put\.parquet") as raised:
        await site.store.get("never/put.parquet", target)
    assert raised.value.key == "never/put.parquet"
    assert await site.store.size("never/put.parquet") is None
    assert not target.exists()


async def test_object_of_another_size_is_damaged_and_not_written(site: Site) -> None:
    await site.put("k", b"x" * 10)
    target = site.files / "target"
    with pytest.raises(ObjectDamaged, match=r"expected 11 bytes, .* has 10"):
        await site.store.get("k", target, bytes_expected=11)
    assert not target.exists()


async def test_delete_is_idempotent(site: Site) -> None:
    await site.put("a/b", b"1")
    await site.put("a/c", b"2")
    await site.store.delete("a/b")
    await site.store.delete("a/b")
    await site.store.delete("never/there")
    assert await site.keys() == ["a/c"]
    assert await site.store.size("a/b") is None


async def test_many_are_deleted_at_once(site: Site) -> None:
    for key in ("a/1", "a/2", "b/1", "c"):
        await site.put(key, b"x")
    await site.store.delete_many(["a/1", "b/1", "not/there", "c"])
    await site.store.delete_many([])
    assert await site.keys() == ["a/2"]


async def test_more_than_one_request_can_delete(site: Site) -> None:
    await site.put("last", b"x")
    await site.store.delete_many([*(f"not/{number}" for number in range(2500)), "last"])
    assert await site.keys() == []


async def test_list_is_in_order_of_key_and_by_whole_segments(site: Site) -> None:
    keys = ["a", "b-x/1", "b/1", "b/1-2", "b/1.x/9", "b/2", "b0/1", "c=1/d_e", "z"]
    for number, key in enumerate(reversed(keys)):
        await site.put(key, b"x" * number)
    assert await site.keys() == sorted(keys)
    assert await site.keys("b") == ["b/1", "b/1-2", "b/1.x/9", "b/2"]
    assert await site.keys("b/1.x") == ["b/1.x/9"]
    assert await site.keys("a") == []
    assert await site.keys("nothing/here") == []
    assert {stored.key: stored.bytes async for stored in site.store.list("b0")} == {"b0/1": keys[::-1].index("b0/1")}


async def test_list_goes_on_over_more_than_one_step(site: Site) -> None:
    source = site.file(b"x")
    keys = [f"many/{number:05}" for number in range(2100)]
    places = asyncio.Semaphore(8)

    async def put(key: str) -> None:
        async with places:
            await site.store.put(key, source)

    await asyncio.gather(*(put(key) for key in keys))
    assert await site.keys("many") == keys
    assert [key async for key, _ in _first(site.store, 3)] == keys[:3]


async def _first(store: ObjectStore, count: int) -> AsyncIterator[tuple[str, int]]:
    async for stored in store.list():
        yield stored
        count -= 1
        if not count:
            return


@pytest.mark.parametrize(
    "key", ["", "/", "a/", "/a", "a//b", "..", "a/../b", ".x", "a b", "a\\b", "ä", "a\n", "x" * 600]
)
async def test_what_is_no_key_is_refused_everywhere(site: Site, key: str) -> None:
    source, target = site.file(b"x"), site.files / "target"
    calls: list[Callable[[], Awaitable[object]]] = [
        lambda: site.store.put(key, source),
        lambda: site.store.get(key, target),
        lambda: site.store.size(key),
        lambda: site.store.delete(key),
        lambda: site.store.delete_many(["fine", key]),
    ]
    for call in calls:
        with pytest.raises(ValueError, match="is no key"):
            await call()
    if key:
        with pytest.raises(ValueError, match="is no key"):
            await site.keys(key)


async def test_file_that_is_not_there_cannot_be_put(site: Site) -> None:
    with pytest.raises(FileNotFoundError):
        await site.store.put("k", site.files / "none")
    assert await site.keys() == []


async def test_readers_see_one_version_whole_while_it_is_put_again(site: Site) -> None:
    versions = [bytes([digit]) * (3 * MIB) for digit in b"ab"]
    sources = [site.file(content, f"source{number}") for number, content in enumerate(versions)]
    await site.store.put("k", sources[0])
    seen = set()

    async def put() -> None:
        for number in range(8):
            await site.store.put("k", sources[number % 2])

    async def get() -> None:
        for _ in range(8):
            fetched = await site.other.get("k", site.files / "target")
            seen.add(fetched.sha256)

    await asyncio.gather(put(), get())
    assert seen <= {hashlib.sha256(content).hexdigest() for content in versions}


async def test_check_asks_without_writing(site: Site) -> None:
    await site.store.check()
    assert await site.keys() == []


async def test_closed_store_says_so(site: Site) -> None:
    await site.store.close()
    await site.store.close()
    with pytest.raises(ObjectStoreUnavailable, match="closed"):
        await site.store.size("k")
