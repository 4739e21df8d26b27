"""Any order of asking, leaving, cancelling, spoiling and restarting keeps the cache's promises.

A model beside the cache knows what each object is; files are real. After each step: bytes on disk and in the count are
within the limit, files in use are what was asked for, and what nobody uses is not pinned.
"""

from __future__ import annotations

import asyncio
import hashlib
import shutil
import tempfile
from collections.abc import Coroutine
from contextlib import AbstractAsyncContextManager
from pathlib import Path
from typing import Any, TypeVar

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from store.objects.cache import ObjectCache
from store.objects.local_store import LocalObjectStore
from store.objects.port import ObjectDamaged, ObjectMissing, ObjectStoreUnavailable
from store.objects.settings import ObjectSettings

LIMIT = 1000
KEYS = [f"objects/{letter}" for letter in "abc"]
SIZES = [0, 1, 300, 400, 600, 1000]
"""Few, so that contents of one size meet; some fit beside each other, some do not."""
T = TypeVar("T")


class CacheMachine(RuleBasedStateMachine):
    """One cache, one loop, several who hold files."""

    held = Bundle("held")

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.directory = Path(tempfile.mkdtemp(prefix="logfeed-cache-"))
        self.cache_dir = self.directory / "cache"
        self.store = LocalObjectStore(self.directory / "objects", ObjectSettings())
        self.objects: dict[str, bytes] = {}
        """What the store has."""
        self.versions: dict[str, set[bytes]] = {key: set() for key in KEYS}
        """All that was ever put."""
        self.in_use: dict[int, tuple[AbstractAsyncContextManager[Path], Path, bytes]] = {}
        self.numbers = 0
        self.start()

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        async def in_time() -> T:
            async with asyncio.timeout(60):
                return await work

        return self.loop.run_until_complete(in_time())

    def start(self) -> None:
        chosen = ObjectSettings(cache_dir=self.cache_dir, cache_bytes_max=LIMIT, cache_wait_s=0.02, transfers_max=2)

        async def make() -> ObjectCache:
            cache = ObjectCache(self.store, chosen)
            await cache.open()
            return cache

        self.cache = self.run(make())

    @rule(key=st.sampled_from(KEYS), size=st.sampled_from(SIZES), letter=st.sampled_from(b"xy"))
    def put(self, key: str, size: int, letter: int) -> None:
        content = bytes([letter]) * size
        source = self.directory / "source"
        source.write_bytes(content)
        self.run(self.store.put(key, source))
        self.objects[key] = content
        self.versions[key].add(content)

    @rule(key=st.sampled_from(KEYS))
    def delete(self, key: str) -> None:
        self.run(self.store.delete(key))
        self.objects.pop(key, None)

    @rule(target=held, key=st.sampled_from(KEYS), data=st.data())
    def hold(self, key: str, data: st.DataObject) -> int:
        """Its number, also where it cannot be had: that may be a matter of moments, and what is drawn must not."""
        self.numbers += 1
        current = self.objects.get(key, b"never put")
        known = [current, current, current, current.swapcase(), *sorted(self.versions[key])]
        content = data.draw(st.sampled_from(known))
        try:
            asked, path = self.asked(key, content)
        except ObjectMissing:
            assert key not in self.objects
            return self.numbers
        except ObjectDamaged:
            assert self.objects[key] != content
            return self.numbers
        except ObjectStoreUnavailable:
            return self.numbers
        self.in_use[self.numbers] = (asked, path, content)
        return self.numbers

    def asked(self, key: str, content: bytes) -> tuple[AbstractAsyncContextManager[Path], Path]:
        """A file that is held. Where there is room for it, a busy machine's patience may have ended all the same."""
        while True:
            asked = self.file(key, content)
            try:
                return asked, self.run(asked.__aenter__())
            except ObjectStoreUnavailable:
                if self.cache.pinned_bytes + len(content) > LIMIT:
                    raise

    @rule(number=consumes(held))
    def leave(self, number: int) -> None:
        if number in self.in_use:  # else it was not to be had, or a restart ended it
            asked, _, _ = self.in_use.pop(number)
            self.run(asked.__aexit__(None, None, None))

    @rule(
        keys=st.lists(st.sampled_from(KEYS), min_size=1, max_size=6),
        turns=st.integers(0, 30),
        cancelled=st.integers(0, 5),
    )
    def ask_at_once(self, keys: list[str], turns: int, cancelled: int) -> None:
        """Several at once, of whom one is cancelled after some turns of the loop."""
        contents = {key: self.objects.get(key, b"never put") for key in keys}

        async def read(key: str) -> bytes:
            async with self.file(key, contents[key]) as path:
                return path.read_bytes()

        async def ask() -> list[bytes | BaseException]:
            asking = [asyncio.ensure_future(read(key)) for key in keys]
            for _ in range(turns):
                await asyncio.sleep(0)
            asking[cancelled % len(asking)].cancel()
            outcomes = await asyncio.gather(*asking, return_exceptions=True)
            if under_way := asyncio.all_tasks() - {asyncio.current_task()}:
                await asyncio.wait(under_way)  # downloads that nobody waits for
            return outcomes

        for key, outcome in zip(keys, self.run(ask()), strict=True):
            if isinstance(outcome, bytes):
                assert outcome == contents[key]
            else:
                assert isinstance(outcome, (asyncio.CancelledError, ObjectMissing, ObjectStoreUnavailable)), outcome

    @rule(place=st.integers(0, 5), removed=st.booleans())
    def spoil(self, place: int, removed: bool) -> None:
        """Somebody meddles with a file that nobody uses."""
        used = {path.name for _, path, _ in self.in_use.values()}
        if names := sorted(path.name for path in self.copies() if path.name not in used):
            path = self.cache_dir / names[place % len(names)]
            path.unlink() if removed else path.write_bytes(b"")

    @rule(flipped=st.booleans())
    def restart(self, flipped: bool) -> None:
        """The process ends, with half files about, and another starts; meanwhile contents may change."""
        for asked, _, _ in self.in_use.values():
            self.run(asked.__aexit__(None, None, None))
        self.in_use.clear()
        self.run(self.cache.close())
        for path in self.copies():
            if flipped:
                path.write_bytes(path.read_bytes().swapcase())
            (self.cache_dir / f"{path.name}.7.tmp").write_bytes(b"half")
        self.start()
        assert not list(self.cache_dir.glob("*.tmp"))

    @invariant()
    def promises_hold(self) -> None:
        files = self.copies()
        assert self.cache.bytes <= LIMIT
        assert sum(path.stat().st_size for path in files) <= LIMIT
        used = {path.name: content for _, path, content in self.in_use.values()}
        for name, content in used.items():
            assert (self.cache_dir / name).read_bytes() == content
        assert self.cache.pinned_bytes == sum(len(content) for content in used.values())

    def teardown(self) -> None:
        for asked, _, _ in self.in_use.values():
            self.run(asked.__aexit__(None, None, None))
        assert self.cache.pinned_bytes == 0
        self.run(self.cache.close())
        assert not list(self.cache_dir.glob("*.tmp"))
        self.loop.run_until_complete(self.loop.shutdown_default_executor())
        self.loop.close()
        shutil.rmtree(self.directory)

    def copies(self) -> list[Path]:
        return [path for path in self.cache_dir.iterdir() if path.name != ".lock"]

    def file(self, key: str, content: bytes) -> AbstractAsyncContextManager[Path]:
        return self.cache.file(key, bytes=len(content), sha256=hashlib.sha256(content).hexdigest())


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(max_examples=40, stateful_step_count=40, deadline=None)
