"""Objects in S3 or what speaks its protocol, through obstore.

obstore retries (5xx, 408, 429, silence, broken connections), resumes a body that was cut at the byte where it was (if the
object is still the same) and sends large files in parts, of which it holds a few in memory. What it does not have, a
deadline for the whole call, is put around it here (`bounds.py`): cancelling its future drops the connection.

Credentials are read by obstore from AWS's usual environment variables, or come from the machine's own service; profiles of
`~/.aws` are not read. An upload that is cut off by a deadline, or by the end of the process, leaves its parts in the
bucket, invisible and paid for, until a lifecycle rule of the bucket removes them: obstore aborts only what fails.

Futures of obstore that are pending when their event loop closes crash the interpreter: `close` waits for them.
"""

from __future__ import annotations

import asyncio
import contextlib
import errno
import os
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from datetime import timedelta
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, TypeVar

import obstore
from obstore.exceptions import BaseError
from obstore.store import S3Store

from store.objects.bounds import Bounds, Operation
from store.objects.files import PIECE_BYTES, TEMPORARY_SUFFIX, NewFile, cancelled_from_outside, disk_error, in_thread
from store.objects.keys import check_key, check_prefix
from store.objects.metrics import MOVED_BYTES
from store.objects.port import Fetched, ObjectDamaged, ObjectMissing, ObjectStoreUnavailable, StoredObject
from store.objects.s3_errors import Asked, translate
from store.objects.settings import ObjectSettings

if TYPE_CHECKING:
    from obstore import BytesStream

_PARTS_MAX: Final = 10_000
_DELETED_AT_ONCE: Final = 1000
"""Both are S3's."""
_LISTED_AT_ONCE: Final = 1000
_NO_LIMIT: Final = timedelta(days=1)
"""obstore's own limit of a request with its body (30 s) would end large downloads; ours is in `bounds.py`."""
_BACKOFF_S: Final = (0.1, 5.0)
"""Least and greatest; twice as long each time, with chance."""

T = TypeVar("T")


class S3ObjectStore:
    """See ObjectStore."""

    def __init__(self, settings: ObjectSettings, *, endpoint: str | None, region: str) -> None:
        """settings.bucket must be there. endpoint: None for AWS. Asks nobody; credentials are read from the environment."""
        assert settings.bucket is not None
        self._bucket, prefix = settings.bucket
        self._region = region
        self._endpoint = endpoint or f"AWS {region}"
        self._place = f"s3://{self._bucket}/{prefix}".rstrip("/")
        self._part_bytes = settings.part_bytes
        self._parts_at_once = settings.parts_at_once
        self._bounds = Bounds(settings, self._place)
        self._pending: set[asyncio.Future[Any]] = set()
        """Any: of all kinds of answers."""
        self._closed = False
        least_s, greatest_s = _BACKOFF_S
        self._store = S3Store(
            self._bucket,
            prefix=prefix or None,
            region=region,
            # Not by the name `endpoint`: AWS_ENDPOINT_URL_S3 of the environment would go before it.
            config={"aws_endpoint_url_s3": endpoint} if endpoint else {},
            # AWS wants the bucket in the host's name, but a certificate for *.s3… does not cover dots; others want the path.
            virtual_hosted_style_request=endpoint is None and "." not in self._bucket,
            client_options={
                "allow_http": endpoint is not None and endpoint.startswith("http://"),
                "connect_timeout": timedelta(seconds=settings.connect_timeout_s),
                "read_timeout": timedelta(seconds=settings.silence_s),
                "timeout": _NO_LIMIT,
                "user_agent": "logfeed",
            },
            retry_config={
                "max_retries": settings.retries_max,
                "retry_timeout": timedelta(seconds=settings.call_deadline_s),
                "backoff": {
                    "init_backoff": timedelta(seconds=least_s),
                    "max_backoff": timedelta(seconds=greatest_s),
                    "base": 2,
                },
            },
        )

    async def check(self) -> None:
        """See ObjectStore. Lists at most one object: the right that is asked for is s3:ListBucket."""
        async with self._bounds.call("check", "the bucket"):
            stream = obstore.list(self._store, None, chunk_size=1)
            await self._next(stream.__anext__, "check", "the bucket")

    async def put(self, key: str, path: Path) -> None:
        """See ObjectStore."""
        check_key(key)
        size = (await in_thread(path.stat)).st_size
        async with self._bounds.transfer("put", key) as deadline:
            deadline.allow(size)
            part_bytes = max(self._part_bytes, -(-size // _PARTS_MAX))
            try:
                await self._answer(
                    lambda: obstore.put_async(
                        self._store, key, path, chunk_size=part_bytes, max_concurrency=self._parts_at_once
                    ),
                    "put",
                    key,
                )
            except ObjectMissing:  # what is missing when something is stored is the file
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), str(path)) from None
            MOVED_BYTES.labels("put").inc(size)

    async def get(self, key: str, path: Path, *, bytes_expected: int | None = None) -> Fetched:
        """See ObjectStore."""
        check_key(key)
        async with self._bounds.transfer("get", key) as deadline:
            found = await self._answer(lambda: obstore.get_async(self._store, key), "get", key)
            size = found.meta["size"]
            if bytes_expected not in (None, size):
                raise ObjectDamaged(key, f"expected {bytes_expected} bytes, {self._place} has {size}")
            deadline.allow(size)
            try:
                fetched = await self._write(found.stream(min_chunk_size=PIECE_BYTES), size, key, path)
            except OSError as error:
                raise disk_error(error, doing=f"writing {path} for {key}", setting=str(path.parent)) from error
            MOVED_BYTES.labels("get").inc(size)
            return fetched

    async def size(self, key: str) -> int | None:
        """See ObjectStore."""
        check_key(key)
        async with self._bounds.call("size", key):
            try:
                found = await self._answer(lambda: obstore.head_async(self._store, key), "size", key)
            except ObjectMissing:
                # An answer to HEAD has no body: it may be the bucket that is missing. Only one to GET says which.
                try:
                    late = await self._answer(lambda: obstore.get_async(self._store, key), "size", key)
                except ObjectMissing:
                    return None
                return late.meta["size"]  # it was put just now
            return found["size"]

    async def delete(self, key: str) -> None:
        """See ObjectStore."""
        await self.delete_many([key])

    async def delete_many(self, keys: Iterable[str]) -> None:
        """See ObjectStore."""
        left = iter([check_key(key) for key in keys])
        while step := [*islice(left, _DELETED_AT_ONCE)]:
            what = f"{len(step)} objects" if len(step) > 1 else step[0]
            async with self._bounds.call("delete", what):
                with contextlib.suppress(ObjectMissing):  # so do some servers say that nothing was to be done
                    await self._answer(partial(obstore.delete_async, self._store, step), "delete", what)

    async def list(self, prefix: str = "") -> AsyncIterator[StoredObject]:
        """See ObjectStore."""
        check_prefix(prefix)
        what = prefix or "everything"
        stream = obstore.list(self._store, prefix or None, chunk_size=_LISTED_AT_ONCE)
        while True:
            async with self._bounds.call("list", what):
                step = await self._next(stream.__anext__, "list", what)
            if step is None:
                return
            for found in step:
                yield StoredObject(found["path"], found["size"])

    async def close(self) -> None:
        """See ObjectStore."""
        self._closed = True
        for future in self._pending:
            future.cancel()
        if self._pending:
            await asyncio.wait(self._pending)

    async def _write(self, stream: BytesStream, size: int, key: str, path: Path) -> Fetched:
        new = await in_thread(NewFile, path.with_name(f"{path.name}.{uuid.uuid4().hex[:8]}{TEMPORARY_SUFFIX}"))
        try:
            while (piece := await self._next(stream.__anext__, "get", key)) is not None:
                await in_thread(new.write, piece)
            if new.bytes != size:
                raise ObjectStoreUnavailable(f"{self._place}: get {key} ended after {new.bytes} of {size} bytes")
            return await in_thread(new.publish, path)
        finally:
            await in_thread(new.discard)

    async def _next(self, step: Callable[[], Awaitable[T]], operation: Operation, what: str) -> T | None:
        """The next piece of a stream; None at its end."""
        try:
            return await self._answer(step, operation, what)
        except StopAsyncIteration:
            return None

    async def _answer(self, ask: Callable[[], Awaitable[T]], operation: Operation, what: str) -> T:
        """What obstore answers; what it raises, in our errors, and without it as their context (see s3_errors.py)."""
        closed = ObjectStoreUnavailable(f"{self._place} is closed")
        if self._is_closed():
            raise closed
        future: asyncio.Future[T] = asyncio.ensure_future(ask())
        self._pending.add(future)
        try:
            return await future
        except (BaseError, FileNotFoundError) as error:
            failure = translate(
                error,
                Asked(
                    operation=operation,
                    what=what,
                    bucket=self._bucket,
                    place=self._place,
                    endpoint=self._endpoint,
                    region=self._region,
                ),
            )
        except asyncio.CancelledError:
            if not self._is_closed() or cancelled_from_outside():
                raise
            failure = closed
        finally:
            self._pending.discard(future)
        raise failure

    def _is_closed(self) -> bool:
        return self._closed
