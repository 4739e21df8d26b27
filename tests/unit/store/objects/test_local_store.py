"""Objects in a directory survive kill -9 and power cuts whole, and leave no rubbish."""

from __future__ import annotations

import asyncio
import errno
import os
import subprocess
import sys
import time
from functools import partial
from pathlib import Path

import pytest

from infra.fleet import REPOSITORY, die_with_parent, until
from store.objects.local_store import LocalObjectStore
from store.objects.port import ObjectStoreRefused, ObjectStoreUnavailable
from store.objects.settings import ObjectSettings

SIZE = 8 * 1024 * 1024

WRITER = """
import asyncio, sys
from pathlib import Path
from store.objects.local_store import LocalObjectStore
from store.objects.settings import ObjectSettings

async def main(directory):
    store = LocalObjectStore(directory / "objects", ObjectSettings())
    while True:
        for name in ("a", "b"):
            await store.put("dir/k", directory / name)

asyncio.run(main(Path(sys.argv[1])))
"""


def start_writer(directory: Path) -> subprocess.Popen[bytes]:
    """A process that puts two versions of one object in turn."""
    command = [sys.executable, "-c", WRITER, str(directory)]
    return subprocess.Popen(command, cwd=REPOSITORY, preexec_fn=die_with_parent)


@pytest.fixture
def store(tmp_path: Path) -> LocalObjectStore:
    return LocalObjectStore(tmp_path / "objects", ObjectSettings())


async def under_way(incoming: Path, left_before: int) -> bool:
    return len(os.listdir(incoming)) > left_before


async def is_true(condition: bool) -> bool:
    return condition


async def test_killed_while_it_puts_leaves_the_former_or_the_new_object(tmp_path: Path) -> None:
    versions = [letter * SIZE for letter in (b"a", b"b")]
    for content in versions:
        (tmp_path / content[:1].decode()).write_bytes(content)
    object_path, incoming = tmp_path / "objects" / "dir" / "k", tmp_path / "objects" / ".incoming"
    first = LocalObjectStore(tmp_path / "objects", ObjectSettings())
    await first.put("dir/k", tmp_path / "a")
    for _ in range(3):
        left_before = len(os.listdir(incoming))
        writer = start_writer(tmp_path)
        try:
            await until(
                partial(under_way, incoming, left_before),
                what="a put is under way",
            )
        finally:
            writer.kill()
            writer.wait()
        assert object_path.read_bytes() in versions
        store = LocalObjectStore(tmp_path / "objects", ObjectSettings())
        assert [stored async for stored in store.list()] == [("dir/k", SIZE)]


async def test_what_was_left_behind_an_hour_ago_is_removed(store: LocalObjectStore, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x")
    await store.put("k", tmp_path / "source")
    old, young = (tmp_path / "objects" / ".incoming" / name for name in ("old.tmp", "young.tmp"))
    for path in (old, young):
        path.write_bytes(b"half")
    os.utime(old, (time.time() - 4000, time.time() - 4000))
    await LocalObjectStore(tmp_path / "objects", ObjectSettings()).put("k", tmp_path / "source")
    assert (old.exists(), young.exists()) == (False, True)


async def test_put_syncs_before_it_renames_and_the_directory_after(
    store: LocalObjectStore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    steps: list[str] = []
    sync, replace = os.fsync, Path.replace

    def noted_sync(descriptor: int) -> None:
        steps.append(f"sync {Path(os.readlink(f'/proc/self/fd/{descriptor}')).relative_to(tmp_path)}")
        sync(descriptor)

    def noted_replace(path: Path, target: Path) -> Path:
        steps.append(f"rename to {target.relative_to(tmp_path)}")
        return replace(path, target)

    monkeypatch.setattr(os, "fsync", noted_sync)
    monkeypatch.setattr(Path, "replace", noted_replace)
    (tmp_path / "source").write_bytes(b"x")
    await store.put("a/b/k", tmp_path / "source")
    made, (written, *renamed) = steps[:-3], steps[-3:]
    # Directories first, each made known to the one above.
    assert made == ["sync .", "sync objects", "sync objects", "sync objects/a"]
    assert written.startswith("sync objects/.incoming/")
    assert renamed == ["rename to objects/a/b/k", "sync objects/a/b"]


@pytest.mark.parametrize(
    ("number", "error", "said"),
    [
        (errno.ENOSPC, ObjectStoreUnavailable, r"put k failed: the disk is full .*objects\.url"),
        (errno.EIO, ObjectStoreUnavailable, "put k failed: Input/output error"),
        (errno.EACCES, ObjectStoreRefused, r"put k failed: Permission denied; mend what objects\.url names"),
    ],
)
async def test_disk_trouble_is_told_and_leaves_nothing(
    store: LocalObjectStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    number: int,
    error: type[Exception],
    said: str,
) -> None:
    (tmp_path / "source").write_bytes(b"new")
    await store.put("k", tmp_path / "source")

    def failing(descriptor: int) -> None:
        raise OSError(number, os.strerror(number))

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", failing)
        with pytest.raises(error, match=said):
            await store.put("k", tmp_path / "source")
    assert os.listdir(tmp_path / "objects" / ".incoming") == []
    assert [stored async for stored in store.list()] == [("k", 3)]


async def test_cancelled_put_has_ended_when_it_returns(store: LocalObjectStore, tmp_path: Path) -> None:
    with (tmp_path / "source").open("wb") as file:
        file.truncate(256 * 1024 * 1024)
    putting = asyncio.create_task(store.put("k", tmp_path / "source"))
    incoming = tmp_path / "objects" / ".incoming"
    await until(lambda: is_true(incoming.is_dir() and any(incoming.iterdir())), what="the copy has begun")
    putting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await putting
    assert os.listdir(incoming) == []
    assert [stored async for stored in store.list()] == []


async def test_deadline_ends_a_copy(tmp_path: Path) -> None:
    with (tmp_path / "source").open("wb") as file:
        file.truncate(1024 * 1024 * 1024)
    settings = ObjectSettings(call_deadline_s=0.05, transfer_bytes_per_s_min=1 << 40)
    store = LocalObjectStore(tmp_path / "objects", settings)
    with pytest.raises(ObjectStoreUnavailable, match="put k did not end within its deadline"):
        await store.put("k", tmp_path / "source")
    assert [stored async for stored in store.list()] == []


async def test_key_below_an_object_is_refused(store: LocalObjectStore, tmp_path: Path) -> None:
    (tmp_path / "source").write_bytes(b"x")
    await store.put("a", tmp_path / "source")
    with pytest.raises(ObjectStoreRefused):
        await store.put("a/b", tmp_path / "source")
    assert await store.size("a/b") is None
    await store.put("c/d", tmp_path / "source")
    with pytest.raises(ObjectStoreRefused):
        await store.put("c", tmp_path / "source")
    assert await store.size("c") is None


async def test_directory_that_may_not_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = LocalObjectStore(tmp_path / "file" / "objects", ObjectSettings())
    with pytest.raises(ObjectStoreRefused, match=r"objects\.url"):
        await store.check()
