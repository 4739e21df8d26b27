"""A store for questions of scheduling only: each download waits until the test lets it go."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Iterable
from pathlib import Path

from store.objects.port import Fetched, ObjectMissing, ObjectStore, StoredObject


class GatedStore(ObjectStore):
    """Objects in memory; a key in `held` is given when its event is set."""

    def __init__(self) -> None:
        self.objects: dict[str, bytes] = {}
        self.held: dict[str, asyncio.Event] = {}
        self.errors: dict[str, Exception] = {}
        self.begun: Counter[str] = Counter()
        self.cancelled: Counter[str] = Counter()
        self.running = 0
        self.most_running = 0

    def add(self, key: str, content: bytes, *, held: bool = False) -> None:
        self.objects[key] = content
        if held:
            self.held[key] = asyncio.Event()

    async def get(self, key: str, path: Path, *, bytes_expected: int | None = None) -> Fetched:
        self.begun[key] += 1
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.to_thread(path.write_bytes, b"half")  # as a file under way would be
            if key in self.held:
                await self.held[key].wait()
            if key in self.errors:
                raise self.errors[key]
            content = self.objects.get(key)
            if content is None:
                raise ObjectMissing(key, "the tests' store")
            await asyncio.to_thread(path.write_bytes, content)
            return Fetched(len(content), hashlib.sha256(content).hexdigest())
        except asyncio.CancelledError:
            self.cancelled[key] += 1
            raise
        finally:
            self.running -= 1

    async def check(self) -> None:
        raise NotImplementedError

    async def put(self, key: str, path: Path) -> None:
        raise NotImplementedError

    async def size(self, key: str) -> int | None:
        raise NotImplementedError

    async def delete(self, key: str) -> None:
        raise NotImplementedError

    async def delete_many(self, keys: Iterable[str]) -> None:
        raise NotImplementedError

    async def close(self) -> None:
        raise NotImplementedError

    def list(self, prefix: str = "") -> AsyncIterator[StoredObject]:
        raise NotImplementedError
