"""A file system that hangs holds nobody up."""

from __future__ import annotations

import asyncio
import os
import threading
from pathlib import Path

import pytest

import store.tiers.disk_looks
from search.predicate import CorrelationIs
from store.segments.settings import SegmentSettings
from store.tiers.access import SegmentAccess
from store.tiers.disk_looks import DiskHangs, DiskLooks
from store.tiers.finding import Wanted
from store.tiers.places import Places
from tests.unit.store.tiers.test_stretches import segment


async def test_what_the_disk_says_is_given(tmp_path: Path) -> None:
    looks = DiskLooks()
    assert await looks.look(tmp_path.is_dir, timeout_s=60)
    with pytest.raises(FileNotFoundError):
        await looks.look((tmp_path / "absent").stat, timeout_s=60)


async def test_a_disk_that_hangs_is_left_behind_and_not_asked_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store.tiers.disk_looks, "_UNDER_WAY_MAX", 2)
    looks, may_end = DiskLooks(), threading.Event()
    for _ in range(2):
        with pytest.raises(DiskHangs):
            await looks.look(may_end.wait, timeout_s=0.01)
    asked = threading.Event()
    with pytest.raises(DiskHangs):
        await looks.look(asked.set, timeout_s=60)
    assert not asked.is_set()
    may_end.set()
    async with asyncio.timeout(60):
        while looks._under_way:  # noqa: ASYNC110  # of threads
            await asyncio.sleep(0.01)
    assert await looks.look(lambda: True, timeout_s=60)


async def test_a_directory_that_hangs_is_a_problem_and_holds_nothing_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    may_end = threading.Event()
    monkeypatch.setattr(Path, "is_dir", lambda _: may_end.wait())
    monkeypatch.setattr(store.tiers.access, "_LOOK_S", 0.05)
    access = SegmentAccess(tmp_path, SegmentSettings())
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    await access.look(())
    assert "does not answer" in (access.problem() or "")
    assert ticks > 10
    may_end.set()
    await access.look(())
    assert access.problem() is None
    ticking.cancel()
    await access.close()


async def test_a_filter_that_hangs_is_a_refusal_and_holds_up_no_other_thread(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Opening a pipe waits for who writes into it."""
    monkeypatch.setattr(store.tiers.access, "_FILTERS_S", 0.05)
    access = SegmentAccess(tmp_path, SegmentSettings())
    places = Places(tmp_path)
    places.prepare()
    one = segment(1, 0, 10)
    os.mkfifo(places.filter_of(one.name))
    threads = min(32, (os.cpu_count() or 1) + 4)  # of the event loop
    for _ in range(threads):
        with pytest.raises(DiskHangs):
            await access.candidates([one], Wanted.of(CorrelationIs("c")))
    assert await asyncio.to_thread(lambda: True)
    with places.filter_of(one.name).open("wb"):
        async with asyncio.timeout(60):
            while access._looks._under_way:  # noqa: ASYNC110  # of threads
                await asyncio.sleep(0.01)
    await access.close()
