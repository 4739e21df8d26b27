"""What goes wrong between us and S3: each fault ends within its bounds, in one clear error, with nothing half left behind.

The server is real; a proxy before it spoils chosen requests (http_proxy.py). Deadlines are short where the fault is that
nothing comes, and generous everywhere else.
"""

from __future__ import annotations

import asyncio
import hashlib
import os
import subprocess
import sys
import traceback
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path

import pytest

from infra.fleet import REPOSITORY, free_port, until
from schemas.errors import ConfigurationError, LogfeedError
from store.objects.cache import ObjectCache
from store.objects.factory import make_object_store
from store.objects.port import (
    ObjectDamaged,
    ObjectMissing,
    ObjectStore,
    ObjectStoreRefused,
    ObjectStoreUnavailable,
)
from store.objects.settings import ObjectSettings
from tests.faults.http_proxy import (
    Answer,
    CutAnswer,
    CutRequest,
    FlipByte,
    LoseAnswer,
    ObjectStorageProxy,
    Request,
    Silence,
    Spoiling,
    Trickle,
    Truncate,
)
from tests.s3_server import ACCESS_KEY, SECRET_KEY, SESSION_TOKEN, S3Server, s3_settings, s3_store

MIB = 1024 * 1024
CONTENT = os.urandom(3 * MIB)
LARGE_BYTES = 17 * MIB
KEY = "segments/a.parquet"
PATH = f"some/prefix/{KEY}"
RETRIES = 2
PASSING = [Answer(500, "InternalError"), Answer(503, "SlowDown"), Answer(429, ""), LoseAnswer()]

pytestmark = pytest.mark.usefixtures("aws_credentials")


class Place:
    """A bucket with one object behind a proxy, and stores that go through it."""

    def __init__(self, server: S3Server, proxy: ObjectStorageProxy, files: Path) -> None:
        self.server, self.proxy, self.files = server, proxy, files
        self.bucket = server.make_bucket()
        self.stores: list[ObjectStore] = []
        self.target = files / "target"
        self.source = files / "source"
        self.source.write_bytes(CONTENT)
        self.large = files / "large"
        self.large.write_bytes(os.urandom(LARGE_BYTES))

    def store(self, **changes: object) -> ObjectStore:
        store = s3_store(self.bucket, self.proxy.endpoint, **{"retries_max": RETRIES, **changes})
        self.stores.append(store)
        return store

    def nothing_is_left(self) -> bool:
        return {path.name for path in self.files.iterdir()} == {"source", "large"}


@pytest.fixture
async def place(s3_server: S3Server, tmp_path: Path) -> AsyncIterator[Place]:
    files = tmp_path / "files"
    files.mkdir()
    async with ObjectStorageProxy(s3_server.port) as proxy:
        place = Place(s3_server, proxy, files)
        await place.store().put(KEY, place.source)
        proxy.requests.clear()
        yield place
        for store in place.stores:
            await store.close()


def is_part(request: Request) -> bool:
    return request.method == "PUT" and "partNumber" in request.target


def is_completion(request: Request) -> bool:
    return request.method == "POST" and "uploadId" in request.target


def is_beginning(request: Request) -> bool:
    return request.method == "POST" and "uploads" in request.target


# Getting


@pytest.mark.parametrize("fault", [*PASSING, CutAnswer(0), CutAnswer(MIB)])
async def test_get_survives_one_fault(place: Place, fault: Spoiling) -> None:
    place.proxy.spoil(fault, times=1)
    fetched = await place.store().get(KEY, place.target, bytes_expected=len(CONTENT))
    assert place.target.read_bytes() == CONTENT
    assert fetched.sha256 == hashlib.sha256(CONTENT).hexdigest()
    assert len(place.proxy.requests) == 2


async def test_get_survives_a_server_that_once_says_nothing(place: Place) -> None:
    place.proxy.spoil(Silence(), times=1)
    await place.store(silence_s=2, part_bytes=5 * MIB, transfer_bytes_per_s_min=10 * MIB, retries_max=10).get(
        KEY, place.target
    )
    assert place.target.read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Answer(500, "InternalError"), "InternalError"),
        (Answer(502, ""), "502"),
        (Answer(503, "SlowDown"), "SlowDown"),
        (Answer(429, ""), "429"),
        (LoseAnswer(), "the connection broke"),
        (CutAnswer(1000), "the connection broke"),
    ],
)
async def test_get_gives_up_after_few_retries(place: Place, fault: Spoiling, said: str) -> None:
    place.proxy.spoil(fault)
    with pytest.raises(ObjectStoreUnavailable, match=rf"get {KEY} failed.*{said}") as raised:
        await place.store().get(KEY, place.target)
    assert raised.value.retriable
    assert len(place.proxy.requests) == RETRIES + 1
    assert place.nothing_is_left()


async def test_get_gives_up_on_a_server_that_says_nothing(place: Place) -> None:
    place.proxy.spoil(Silence())
    with pytest.raises(
        ObjectStoreUnavailable, match=r"no answer within objects\.silence_s|did not end within its deadline"
    ):
        await place.store(silence_s=0.5, transfer_bytes_per_s_min=100 * MIB).get(KEY, place.target)
    assert place.nothing_is_left()


async def test_get_from_a_slow_server_ends_at_the_deadline(place: Place) -> None:
    fault = place.proxy.spoil(Trickle(step_bytes=1000, pause_s=0.05))
    with pytest.raises(ObjectStoreUnavailable, match=r"did not end within its deadline .objects\.call_deadline_s"):
        await place.store(call_deadline_s=2, transfer_bytes_per_s_min=1000 * MIB).get(KEY, place.target)
    assert fault.met.is_set()
    await asyncio.wait_for(fault.left.wait(), 60)
    assert place.nothing_is_left()


async def test_deadline_grows_with_the_bytes(place: Place) -> None:
    # Without what is granted for 3 MiB at 32 KiB/s this would end after a second.
    place.proxy.spoil(Trickle(step_bytes=64 * 1024, pause_s=0.05))
    await place.store(call_deadline_s=1, transfer_bytes_per_s_min=32 * 1024, silence_s=600, part_bytes=5 * MIB).get(
        KEY, place.target
    )
    assert place.target.read_bytes() == CONTENT


async def test_truncated_object_is_damaged(place: Place) -> None:
    place.proxy.spoil(Truncate(MIB))
    with pytest.raises(ObjectDamaged, match=rf"{KEY} is damaged: expected {len(CONTENT)} bytes, .* has {MIB}"):
        await place.store().get(KEY, place.target, bytes_expected=len(CONTENT))
    assert place.nothing_is_left()


async def test_object_with_a_flipped_byte_is_damaged_and_not_kept(place: Place, tmp_path: Path) -> None:
    place.proxy.spoil(FlipByte(2 * MIB))
    settings = s3_settings(place.bucket, place.proxy.endpoint, cache_dir=tmp_path / "cache")
    cache = ObjectCache(place.store(), settings)
    await cache.open()
    digest = hashlib.sha256(CONTENT).hexdigest()
    with pytest.raises(ObjectDamaged, match=rf"{KEY} is damaged: expected SHA-256 {digest}"):
        async with cache.file(KEY, bytes=len(CONTENT), sha256=digest):
            pass
    assert cache.bytes == 0
    assert [path.name for path in settings.cache_dir.iterdir()] == [".lock"]
    place.proxy.faults.clear()
    async with cache.file(KEY, bytes=len(CONTENT), sha256=digest) as path:
        assert path.read_bytes() == CONTENT
    await cache.close()


async def test_cancelled_get_leaves_nothing(place: Place) -> None:
    fault = place.proxy.spoil(Trickle(step_bytes=100_000, pause_s=0.05))
    getting = asyncio.create_task(place.store().get(KEY, place.target))
    await asyncio.wait_for(fault.met.wait(), 60)
    getting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await getting
    await asyncio.wait_for(fault.left.wait(), 60)
    assert place.nothing_is_left()


async def test_closing_ends_what_is_under_way(place: Place) -> None:
    fault = place.proxy.spoil(Silence())
    store = place.store()
    calls = [asyncio.create_task(store.get(KEY, place.target)), asyncio.create_task(store.size(KEY))]
    await asyncio.wait_for(fault.met.wait(), 60)
    await until(lambda: _true(len(place.proxy.requests) == 2), what="both requests came")
    await store.close()
    for call in calls:
        with pytest.raises(ObjectStoreUnavailable, match="closed"):
            await call
    assert place.nothing_is_left()


# Putting


@pytest.mark.parametrize("fault", [*PASSING, CutRequest(100_000)])
async def test_put_survives_one_fault(place: Place, fault: Spoiling) -> None:
    place.proxy.spoil(fault, times=1)
    await place.store().put("new", place.source)
    assert place.server.content(place.bucket, "some/prefix/new") == CONTENT


@pytest.mark.parametrize("only", [is_beginning, is_part, is_completion])
@pytest.mark.parametrize("fault", [Answer(503, "SlowDown"), CutRequest(10), LoseAnswer()])
async def test_large_put_survives_one_fault(place: Place, fault: Spoiling, only: Callable[[Request], bool]) -> None:
    place.proxy.spoil(fault, only=only, times=1)
    await place.store().put("new", place.large)
    assert place.server.content(place.bucket, "some/prefix/new") == place.large.read_bytes()


@pytest.mark.parametrize("fault", [Answer(500, "InternalError"), Answer(503, "SlowDown"), CutRequest(100_000)])
async def test_put_that_fails_leaves_the_former_object(place: Place, fault: Spoiling) -> None:
    other = place.files / "source"
    other.write_bytes(os.urandom(MIB))
    place.proxy.spoil(fault)
    with pytest.raises(ObjectStoreUnavailable, match=rf"put {KEY} failed after {RETRIES} retries"):
        await place.store().put(KEY, other)
    assert len(place.proxy.requests) == RETRIES + 1
    assert place.server.content(place.bucket, PATH) == CONTENT


@pytest.mark.parametrize("only", [is_beginning, is_part, is_completion])
@pytest.mark.parametrize("fault", [Answer(500, "InternalError"), CutRequest(10)])
async def test_large_put_that_fails_stores_nothing_and_cleans_up(
    place: Place, fault: Spoiling, only: Callable[[Request], bool]
) -> None:
    place.proxy.spoil(fault, only=only)
    with pytest.raises(ObjectStoreUnavailable, match="put new failed"):
        await place.store().put("new", place.large)
    assert place.server.content(place.bucket, "some/prefix/new") is None
    await until(lambda: _true(place.server.unfinished_uploads(place.bucket) == 0), what="the upload was aborted")


async def test_put_whose_completion_is_never_confirmed_can_be_repeated(place: Place) -> None:
    fault = place.proxy.spoil(LoseAnswer(), only=is_completion)
    with pytest.raises(ObjectStoreUnavailable, match="put new failed"):
        await place.store().put("new", place.large)
    fault.times = 0
    await place.store().put("new", place.large)
    assert place.server.content(place.bucket, "some/prefix/new") == place.large.read_bytes()


async def test_put_to_a_server_that_says_nothing_ends_at_the_deadline(place: Place) -> None:
    fault = place.proxy.spoil(Silence())
    with pytest.raises(ObjectStoreUnavailable, match="put new did not end within its deadline"):
        await place.store(call_deadline_s=1, transfer_bytes_per_s_min=1000 * MIB).put("new", place.source)
    await asyncio.wait_for(fault.left.wait(), 60)


# All calls


CALLS: dict[str, Callable[[ObjectStore, Place], Awaitable[object]]] = {
    "check": lambda store, place: store.check(),
    "put": lambda store, place: store.put(KEY, place.source),
    "large put": lambda store, place: store.put(KEY, place.large),
    "get": lambda store, place: store.get(KEY, place.target),
    "size": lambda store, place: store.size(KEY),
    "delete": lambda store, place: store.delete(KEY),
    "list": lambda store, place: _all(store),
}


@pytest.mark.parametrize("call", CALLS)
async def test_server_that_is_away_is_unavailable(place: Place, call: str) -> None:
    store = s3_store(place.bucket, f"http://127.0.0.1:{free_port()}", retries_max=1)
    with pytest.raises(ObjectStoreUnavailable, match="no connection"):
        await CALLS[call](store, place)
    await store.close()


@pytest.mark.parametrize("call", CALLS)
async def test_missing_bucket_is_refused_and_named(place: Place, call: str) -> None:
    store = s3_store("no-such-bucket", place.proxy.endpoint)
    with pytest.raises(ObjectStoreRefused, match=r"objects\.url: there is no bucket no-such-bucket at http://127"):
        await CALLS[call](store, place)
    await store.close()


@pytest.mark.parametrize("call", CALLS)
async def test_throttled_call_is_unavailable(place: Place, call: str) -> None:
    place.proxy.spoil(Answer(503, "SlowDown"))
    with pytest.raises(ObjectStoreUnavailable, match=r"SlowDown|answered 503"):
        await CALLS[call](place.store(), place)


@pytest.mark.parametrize("call", CALLS)
async def test_call_to_a_silent_server_ends_at_the_deadline(place: Place, call: str) -> None:
    place.proxy.spoil(Silence())
    with pytest.raises(ObjectStoreUnavailable, match="did not end within its deadline"):
        await CALLS[call](place.store(call_deadline_s=1, transfer_bytes_per_s_min=1000 * MIB), place)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Answer(403, "AccessDenied"), "AWS_ACCESS_KEY_ID.*do not permit this"),
        (Answer(403, "InvalidAccessKeyId"), "AWS_ACCESS_KEY_ID.*are not accepted .InvalidAccessKeyId"),
        (Answer(400, "ExpiredToken"), "AWS_SESSION_TOKEN.*are not accepted .ExpiredToken"),
        (Answer(401, ""), "AWS_SECRET_ACCESS_KEY.*are not accepted .401"),
        (Answer(403, "RequestTimeTooSkewed"), "clock"),
        (Answer(301, "PermanentRedirect"), r"objects\.region .AWS_REGION.*is not in us-east-1"),
        (Answer(400, "AuthorizationHeaderMalformed"), r"objects\.region"),
        (Answer(400, "EntityTooLarge"), "400 EntityTooLarge"),
    ],
)
async def test_refusal_says_what_to_mend_and_no_secret(place: Place, fault: Answer, said: str) -> None:
    # As the answers to wrong signatures do, it shows the request with its session token.
    place.proxy.spoil(Answer(fault.status, fault.code, f"x-amz-security-token:{SESSION_TOKEN} {SECRET_KEY}"))
    with pytest.raises(ObjectStoreRefused, match=said) as raised:
        await place.store().put(KEY, place.source)
    assert not raised.value.retriable
    assert len(place.proxy.requests) == 1
    _shows_no_secret(raised.value)


async def test_failure_shows_no_secret(place: Place) -> None:
    place.proxy.spoil(Answer(500, "InternalError", f"{SESSION_TOKEN} {SECRET_KEY} {ACCESS_KEY}"))
    with pytest.raises(ObjectStoreUnavailable) as raised:
        await place.store(retries_max=0).get(KEY, place.target)
    _shows_no_secret(raised.value)


async def test_many_deleted_in_one_request_name_the_one_that_failed(place: Place) -> None:
    body = "<DeleteResult><Error><Key>some/prefix/b</Key><Code>AccessDenied</Code><Message>no</Message></Error></DeleteResult>"
    place.proxy.spoil(Answer(200, body=body))
    with pytest.raises(ObjectStoreRefused, match="AccessDenied"):
        await place.store().delete_many(["a", "b"])


# Credentials and addresses


@pytest.fixture(scope="module")
def strict_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A server that checks credentials, and knows nobody."""
    server = S3Server(tmp_path_factory.mktemp("strict"), checks_credentials=True)
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.mark.parametrize("call", CALLS)
async def test_wrong_credentials_are_refused(place: Place, strict_server: S3Server, call: str) -> None:
    store = s3_store("anything", strict_server.endpoint)
    with pytest.raises(
        ObjectStoreRefused, match="AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY, AWS_SESSION_TOKEN"
    ) as raised:
        await CALLS[call](store, place)
    _shows_no_secret(raised.value)
    await store.close()


async def test_no_credentials_are_refused(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY", "AWS_SESSION_TOKEN"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_METADATA_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(ObjectStoreRefused, match="no credentials: AWS_ACCESS_KEY_ID"):
        await place.store().size(KEY)


async def test_endpoint_and_region_come_from_the_environment(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", place.proxy.endpoint)
    monkeypatch.setenv("AWS_REGION", "eu-central-1")
    store = make_object_store(ObjectSettings(url=f"s3://{place.bucket}/some/prefix"))
    assert await store.size(KEY) == len(CONTENT)
    assert [request.method for request in place.proxy.requests] == ["HEAD"]
    await store.close()


async def test_our_endpoint_goes_before_that_of_the_environment(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3", "AWS_ENDPOINT"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("AWS_BUCKET", "another")
    assert await place.store().size(KEY) == len(CONTENT)


async def test_no_unencrypted_connection_unless_the_endpoint_says_so(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    store = s3_store(place.bucket, place.proxy.endpoint.replace("http:", "https:"), retries_max=0, connect_timeout_s=1)
    with pytest.raises(LogfeedError):
        await store.size(KEY)
    assert place.proxy.requests == []
    await store.close()


def test_endpoint_with_a_password_is_refused_and_not_shown(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://user:the-password@host:9000")
    with pytest.raises(ConfigurationError, match="AWS_ENDPOINT_URL: expected http://host:port") as raised:
        make_object_store(ObjectSettings(url="s3://bucket"))
    assert "the-password" not in "".join(traceback.format_exception(raised.value))


# The server comes and goes


async def test_works_again_when_the_server_is_back(place: Place) -> None:
    store = place.store(retries_max=0)
    fault = place.proxy.spoil(Answer(503, "ServiceUnavailable"))
    for _ in range(3):
        with pytest.raises(ObjectStoreUnavailable):
            await store.get(KEY, place.target)
    fault.times = 0
    await store.get(KEY, place.target)
    assert place.target.read_bytes() == CONTENT


async def test_missing_object_is_no_failure_of_the_store(place: Place) -> None:
    with pytest.raises(ObjectMissing):
        await place.store().get("not/there", place.target)
    assert [request.method for request in place.proxy.requests] == ["GET"]
    assert place.nothing_is_left()


MEMORY_SCRIPT = """
import asyncio, resource, sys
from pathlib import Path
from tests.s3_server import s3_store

def peak_mib():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024

async def main():
    bucket, endpoint, directory = sys.argv[1:]
    source, target = Path(directory, "source"), Path(directory, "target")
    store = s3_store(bucket, endpoint)
    source.write_bytes(b"")
    await store.put("warm", source)
    await store.get("warm", target)
    before = peak_mib()
    with source.open("wb") as file:
        file.truncate(192 * 1024 * 1024)
    await store.put("k", source)
    await store.get("k", target)
    assert target.stat().st_size == source.stat().st_size
    await store.close()
    print(peak_mib() - before)

asyncio.run(main())
"""


def test_memory_does_not_grow_with_objects(s3_server: S3Server, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", MEMORY_SCRIPT, s3_server.make_bucket(), s3_server.endpoint, str(tmp_path)],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    # Parts of 8 MiB: two on their way, those read ahead, and copies that are being signed; never the object's 192 MiB.
    assert int(done.stdout) < 96, f"{done.stdout.strip()} MiB more than before"


async def _true(condition: bool) -> bool:
    return condition


async def _all(store: ObjectStore) -> list[str]:
    return [stored.key async for stored in store.list()]


def _shows_no_secret(error: BaseException) -> None:
    shown = "".join(traceback.format_exception(error)) + repr(error.__context__) + repr(error.__cause__)
    for secret in (SECRET_KEY, SESSION_TOKEN, ACCESS_KEY):
        assert secret not in shown
