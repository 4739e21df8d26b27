"""Object storage as its users see it. One contract suite (tests/contract/test_objects.py) holds both stores to this.

An object is a whole file under a key. It is written once as a whole and never changed in part; putting it again replaces
it. All calls are bounded: a deadline that grows with the bytes to be moved, a few retries, a few transfers at once. Bytes
stream between the store and files, so that memory does not depend on the size of objects.

Keys are relative to the place that `objects.url` names: segments of ASCII letters, digits and `. _ = -`, not beginning
with a dot, joined by `/`. No key is a proper prefix of another by whole segments (a directory is no file). Prefixes mean
whole segments too: `a/b` is a prefix of `a/b/c`, not of `a/bc`.

Failures are few: `ObjectMissing`, `ObjectDamaged`, `ObjectStoreUnavailable` (the same call may work later) and
`ObjectStoreRefused` (an operator must look). Their texts name the place and the key or the setting, never a secret.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable
from pathlib import Path
from typing import NamedTuple, Protocol

from schemas.errors import LogfeedError, Overloaded


class ObjectMissing(LogfeedError):
    """The store has no object of that key."""

    def __init__(self, key: str, place: str) -> None:
        """place: the store, as for people (`s3://bucket/prefix`)."""
        super().__init__(f"{place} has no object {key}")
        self.key = key


class ObjectDamaged(LogfeedError):
    """The object is not what it should be."""

    def __init__(self, key: str, difference: str) -> None:
        """difference: what was expected and what was found."""
        super().__init__(f"object {key} is damaged: {difference}")
        self.key = key


class ObjectStoreUnavailable(Overloaded):
    """The object storage, or the disk that its objects are read to, does not work now; try again shortly."""


class ObjectStoreRefused(LogfeedError):
    """The object storage refuses us: credentials, bucket, region or rights are wrong."""


class StoredObject(NamedTuple):
    """One object of a listing."""

    key: str
    bytes: int


class Fetched(NamedTuple):
    """What `get` wrote."""

    bytes: int
    sha256: str
    """Of these bytes, 64 hexadecimal digits."""


class ObjectStore(Protocol):
    """Whole files under keys. One instance serves many tasks of one event loop.

    Every method may raise ObjectStoreUnavailable and ObjectStoreRefused, and ValueError for what is no key. A cancelled
    call leaves nothing behind that a reader could see.
    """

    async def check(self) -> None:
        """Ask whether the place is there and lets us in. Writes nothing."""

    async def put(self, key: str, path: Path) -> None:
        """Store the file under the key, atomically: readers see the former object or the new one, whole.

        Must be durable when it returns, and safe to repeat. After an error the object may have been stored. The file must
        not change meanwhile; FileNotFoundError when it is not there.
        """

    async def get(self, key: str, path: Path, *, bytes_expected: int | None = None) -> Fetched:
        """Write the object to the file, and durably: whole or not at all; a file of that name is replaced.

        bytes_expected: an object of another size is ObjectDamaged before anything is written. Also raises ObjectMissing.
        """

    async def size(self, key: str) -> int | None:
        """Bytes of the object; None when there is none (and the place itself is certainly there)."""

    async def delete(self, key: str) -> None:
        """Delete the object. One that is not there is deleted already."""

    async def delete_many(self, keys: Iterable[str]) -> None:
        """Delete these objects, in as few requests as the store allows. After an error some may be deleted."""

    async def close(self) -> None:
        """End what is under way (ObjectStoreUnavailable there) and give connections back. May be called twice."""

    def list(self, prefix: str = "") -> AsyncIterator[StoredObject]:
        """All objects below a prefix (empty: all), by key in byte order, streamed.

        What is put or deleted meanwhile may or may not be seen. The deadline holds for each step, not for the whole.
        """
