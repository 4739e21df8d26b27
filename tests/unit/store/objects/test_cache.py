"""What the cache keeps on disk, over a real store in a directory."""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path

import pytest

from runtime.telemetry import REGISTRY
from schemas.errors import ConfigurationError
from store.disk_room import DiskFull, free_bytes
from store.objects.cache import ObjectCache
from store.objects.keys import copy_name
from store.objects.local_store import LocalObjectStore
from store.objects.port import ObjectDamaged, ObjectMissing, ObjectStoreUnavailable
from store.objects.settings import ObjectSettings


class Bench:
    """A store in a directory and caches over it."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.cache_dir = directory / "cache"
        self.store = LocalObjectStore(directory / "objects", ObjectSettings())
        self._caches: list[ObjectCache] = []

    async def put(self, key: str, content: bytes) -> None:
        source = self.directory / "source"
        source.write_bytes(content)
        await self.store.put(key, source)

    async def cache(
        self,
        *,
        bytes_max: int = 1000,
        directory: Path | None = None,
        free: int = 0,
        look: Callable[[Path], int] = free_bytes,
    ) -> ObjectCache:
        """free: bytes that are to stay free on the disk; look: how many are."""
        settings = ObjectSettings(
            cache_dir=directory or self.cache_dir, cache_bytes_max=bytes_max, cache_free_bytes_min=free
        )
        cache = ObjectCache(self.store, settings, look=look)
        self._caches.append(cache)
        await cache.open()
        return cache

    async def close(self) -> None:
        for cache in self._caches:
            await cache.close()

    def files(self) -> list[Path]:
        return sorted(path for path in self.cache_dir.iterdir() if path.name != ".lock")


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    bench = Bench(tmp_path)
    yield bench
    await bench.close()


async def read(cache: ObjectCache, key: str, content: bytes) -> bytes:
    async with cache.file(key, bytes=len(content), sha256=hashlib.sha256(content).hexdigest()) as path:
        return path.read_bytes()


def counted(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


async def test_file_is_the_object_and_stays(bench: Bench) -> None:
    await bench.put("a/b.parquet", b"content")
    cache = await bench.cache()
    assert await read(cache, "a/b.parquet", b"content") == b"content"
    await bench.store.delete("a/b.parquet")
    assert await read(cache, "a/b.parquet", b"content") == b"content"
    assert (cache.bytes, cache.pinned_bytes) == (7, 0)


async def test_least_recently_used_goes_first(bench: Bench) -> None:
    contents = {key: key.encode() * 300 for key in "abcd"}
    for key, content in contents.items():
        await bench.put(key, content)
    cache = await bench.cache()
    for key in "abcabad":  # c is the oldest when d needs room
        await read(cache, key, contents[key])
    await bench.store.delete_many(contents)
    for key in "abd":
        assert await read(cache, key, contents[key]) == contents[key]
    assert sum(path.stat().st_size for path in bench.files()) == cache.bytes == 900
    with pytest.raises(ObjectMissing):
        await read(cache, "c", contents["c"])


async def test_order_of_use_survives_a_restart(bench: Bench) -> None:
    contents = {key: key.encode() * 300 for key in "abcd"}
    for key, content in contents.items():
        await bench.put(key, content)
    cache = await bench.cache()
    for key in "abca":
        await read(cache, key, contents[key])
    await cache.close()
    cache = await bench.cache()
    assert cache.bytes == 900
    await read(cache, "d", contents["d"])
    await bench.store.delete_many(contents)
    for key in "acd":
        assert await read(cache, key, contents[key]) == contents[key]
    with pytest.raises(ObjectMissing):
        await read(cache, "b", contents["b"])


async def test_lower_limit_is_kept_from_the_start(bench: Bench) -> None:
    for key in "abc":
        await bench.put(key, key.encode() * 300)
    cache = await bench.cache()
    for key in "abc":
        await read(cache, key, key.encode() * 300)
    await cache.close()
    cache = await bench.cache(bytes_max=500)
    assert cache.bytes == 300
    assert [path.read_bytes() for path in bench.files()] == [b"c" * 300]


async def test_what_a_killed_process_left_half_is_removed(bench: Bench) -> None:
    await bench.put("k", b"content")
    cache = await bench.cache()
    await read(cache, "k", b"content")
    await cache.close()
    (whole,) = bench.files()
    (bench.cache_dir / f"{whole.name}.3.tmp").write_bytes(b"con")
    (bench.cache_dir / f"{whole.name}.4.tmp.0a1b2c3d.tmp").write_bytes(b"cont")
    (bench.cache_dir / "somebody-elses.tmp").write_bytes(b"not ours")
    (bench.cache_dir / "README").write_bytes(b"not ours")
    await bench.cache()
    assert {path.name for path in bench.files()} == {whole.name, "somebody-elses.tmp", "README"}


@pytest.mark.parametrize("spoiled", [b"", b"conten", b"Content", b"contents"])
async def test_copy_that_was_spoiled_while_nobody_ran_is_fetched_anew(bench: Bench, spoiled: bytes) -> None:
    await bench.put("k", b"content")
    cache = await bench.cache()
    await read(cache, "k", b"content")
    await cache.close()
    bench.files()[0].write_bytes(spoiled)
    cache = await bench.cache()
    assert await read(cache, "k", b"content") == b"content"
    assert cache.bytes == 7


async def test_copy_is_verified_once_after_a_restart(bench: Bench) -> None:
    await bench.put("k", b"content")
    await read(cache := await bench.cache(), "k", b"content")
    await cache.close()
    await bench.store.delete("k")
    cache = await bench.cache()
    before = counted("logfeed_object_cache_requests_total", outcome="hit")
    for _ in range(3):
        assert await read(cache, "k", b"content") == b"content"
    assert counted("logfeed_object_cache_requests_total", outcome="hit") - before == 3


@pytest.mark.parametrize("how", ["removed", "truncated"])
async def test_copy_that_goes_while_we_run_is_fetched_anew(bench: Bench, how: str) -> None:
    await bench.put("k", b"content")
    cache = await bench.cache()
    await read(cache, "k", b"content")
    if how == "removed":
        bench.files()[0].unlink()
    else:
        os.truncate(bench.files()[0], 3)
    before = counted("logfeed_object_cache_spoiled_total")
    assert await read(cache, "k", b"content") == b"content"
    assert counted("logfeed_object_cache_spoiled_total") - before == 1
    assert cache.bytes == 7


async def test_wrong_content_is_damaged_and_not_kept(bench: Bench) -> None:
    await bench.put("k", b"Content")
    cache = await bench.cache()
    with pytest.raises(ObjectDamaged, match="object k is damaged: expected SHA-256"):
        await read(cache, "k", b"content")
    with pytest.raises(ObjectDamaged, match="object k is damaged: expected 4 bytes"):
        await read(cache, "k", b"cont")
    assert (cache.bytes, bench.files()) == (0, [])


async def test_object_that_was_put_anew_never_meets_the_old_copy(bench: Bench) -> None:
    cache = await bench.cache()
    await bench.put("k", b"first")
    assert await read(cache, "k", b"first") == b"first"
    await bench.put("k", b"other")
    assert await read(cache, "k", b"other") == b"other"
    assert await read(cache, "k", b"first") == b"first"


async def test_empty_object_is_an_object(bench: Bench) -> None:
    await bench.put("k", b"")
    cache = await bench.cache()
    assert await read(cache, "k", b"") == b""
    assert len(bench.files()) == 1


@pytest.mark.parametrize("key", ["../outside", "/etc/passwd", "a/../../b", "", "a\0b"])
async def test_key_cannot_leave_the_directory(bench: Bench, key: str) -> None:
    cache = await bench.cache()
    with pytest.raises(ValueError, match="is no key"):
        await read(cache, key, b"content")


@pytest.mark.parametrize("sha256", ["", "../" + "a" * 61, "A" * 64, "a" * 63])
async def test_digest_cannot_leave_the_directory(bench: Bench, sha256: str) -> None:
    cache = await bench.cache()
    with pytest.raises(ValueError, match="is no SHA-256"):
        async with cache.file("k", bytes=1, sha256=sha256):
            pass


async def test_directory_belongs_to_one_process(bench: Bench) -> None:
    cache = await bench.cache()
    with pytest.raises(ConfigurationError, match=r"objects\.cache_dir: .* in use by another process"):
        await bench.cache()
    await cache.close()
    await bench.cache()


async def test_directory_that_cannot_be_used_is_a_configuration_error(bench: Bench) -> None:
    (bench.directory / "file").write_bytes(b"")
    with pytest.raises(ConfigurationError, match=r"objects\.cache_dir: .* cannot be used"):
        await bench.cache(directory=bench.directory / "file" / "cache")


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A real file system of 1 MiB, where the tests may mount one."""
    directory = tmp_path / "small"
    directory.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(directory)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small file system")
    yield directory
    subprocess.run(["umount", "--lazy", str(directory)], check=True)


async def test_full_disk_is_unavailable_and_leaves_nothing(bench: Bench, small_disk: Path) -> None:
    large = os.urandom(3 << 20)
    await bench.put("large", large)
    await bench.put("small", b"content")
    cache = await bench.cache(bytes_max=10 << 20, directory=small_disk, look=lambda _: 1 << 30)  # others were faster
    with pytest.raises(ObjectStoreUnavailable, match="the disk is full"):
        await read(cache, "large", large)
    assert cache.bytes == 0
    assert os.listdir(small_disk) == [".lock"]
    assert await read(cache, "small", b"content") == b"content"


async def test_what_is_to_stay_free_stays_free(bench: Bench, small_disk: Path) -> None:
    """On a disk of 1 MiB: copies give way though the cache may hold more, and what still does not fit is refused before it is
    fetched."""
    half = 512 << 10
    contents = {key: os.urandom(400 << 10) for key in "ab"} | {"c": os.urandom(700 << 10)}
    for key, content in contents.items():
        await bench.put(key, content)
    cache = await bench.cache(bytes_max=10 << 20, directory=small_disk, free=half)
    for key in "aba":
        assert await read(cache, key, contents[key]) == contents[key]
        assert cache.bytes == 400 << 10
        assert free_bytes(small_disk) >= half
    before = counted("logfeed_object_cache_evictions_total")
    with pytest.raises(DiskFull, match=r"stay free \(objects\.cache_free_bytes_min\)"):
        await read(cache, "c", contents["c"])
    assert counted("logfeed_object_cache_evictions_total") == before
    assert await read(cache, "a", contents["a"]) == contents["a"]


async def test_counters_tell_what_happened(bench: Bench) -> None:
    names = {
        "miss": ("logfeed_object_cache_requests_total", {"outcome": "miss"}),
        "hit": ("logfeed_object_cache_requests_total", {"outcome": "hit"}),
        "evicted": ("logfeed_object_cache_evictions_total", {}),
        "missing": ("logfeed_object_cache_failures_total", {"reason": "missing"}),
    }
    before = {short: counted(name, **labels) for short, (name, labels) in names.items()}
    cache = await bench.cache()
    await bench.put("a", b"a" * 700)
    await bench.put("b", b"b" * 700)
    await read(cache, "a", b"a" * 700)
    await read(cache, "a", b"a" * 700)
    await read(cache, "b", b"b" * 700)
    with pytest.raises(ObjectMissing):
        await read(cache, "c", b"c")
    after = {short: counted(name, **labels) for short, (name, labels) in names.items()}
    assert {short: after[short] - before[short] for short in names} == {"miss": 3, "hit": 1, "evicted": 1, "missing": 1}
    assert counted("logfeed_object_cache_bytes") == 700
    assert counted("logfeed_object_cache_files") == 1
    assert counted("logfeed_object_cache_pinned_bytes") == 0


async def test_copies_that_nobody_names_any_more_go_once_they_are_not_in_use(bench: Bench) -> None:
    contents = {"a": b"aa", "b": b"bb", "c": b"cc"}
    for key, content in contents.items():
        await bench.put(key, content)
    cache = await bench.cache()
    for key, content in contents.items():
        await read(cache, key, content)
    digests = {key: hashlib.sha256(content).hexdigest() for key, content in contents.items()}
    kept = frozenset({copy_name("a", bytes=2, sha256=digests["a"])})
    async with cache.file("b", bytes=2, sha256=digests["b"]) as path:
        await cache.keep_only(kept)
        assert path.read_bytes() == b"bb"
        assert len(bench.files()) == 2
    await cache.keep_only(kept)
    assert [path.name for path in bench.files()] == list(kept)
    assert cache.bytes == 2
    assert await read(cache, "c", b"cc") == b"cc", "it can be fetched again"
