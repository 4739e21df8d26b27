"""OTLP's endpoint over a real database with access control on: what is answered, and what lies in the frames afterwards."""

from __future__ import annotations

import asyncio
import gzip
import zlib
from collections.abc import AsyncIterator
from typing import Any, Final

import cramjam
import httpx
import pytest
import zstandard
from google.rpc.status_pb2 import Status
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest, ExportLogsServiceResponse

from access.principal import RateLimits
from broker.factory import make_broker
from broker.settings import BrokerSettings
from ingest.wire.otlp.answers import JSON, PROTOBUF
from runtime.clock import SystemClock
from schemas.frames import FrameHeader, decode_headers, decode_lines, decompress, metadata_of
from schemas.record import LogLine
from tests.access_site import Site, running
from tests.unit.ingest.wire.otlp.requests import SPAN, TRACE, as_json, record, request

PATH: Final = "/v1/logs"
TYPES = pytest.mark.parametrize("media_type", [JSON, PROTOBUF])


@pytest.fixture
async def site(native_url: str) -> AsyncIterator[Site]:
    async with running(native_url, audit=False) as site:
        yield site


def now_ns() -> int:
    return SystemClock().now_us() * 1000


def body_of(sent: ExportLogsServiceRequest, media_type: str) -> bytes:
    return as_json(sent) if media_type == JSON else sent.SerializeToString()


async def post(
    site: Site, token: str | None, content: bytes, media_type: str, *, path: str = PATH, **headers: str
) -> httpx.Response:
    return await site.ask(token, "POST", path, content=content, headers={"content-type": media_type, **headers})


async def frames(site: Site) -> list[tuple[FrameHeader, list[LogLine]]]:
    """Every frame of the topic."""
    broker = make_broker(BrokerSettings(kind="queue"), site.database)
    await broker.open()
    reader = await broker.reader(group="test")
    try:
        partitions = range(broker.partitions)
        first, end = await reader.first_offsets(partitions), await reader.end_offsets(partitions)
        await reader.seek(first)
        found: list[Any] = []
        async with asyncio.timeout(20):
            while len(found) < sum(end[p] - first[p] for p in partitions):
                found.extend(await reader.poll(max_bytes=1 << 20, wait_ms=100))
    finally:
        await reader.close()
    return [(decode_headers(each.headers), decode_lines(decompress(each.value))) for each in found]


def status_of(response: httpx.Response, media_type: str, http: int) -> tuple[int, str]:
    """(code, message) of an error."""
    assert response.status_code == http, response.content
    assert response.headers["content-type"] == media_type
    if media_type == JSON:
        document = response.json()
        return document["code"], document["message"]
    status = Status.FromString(response.content)
    return status.code, status.message


@TYPES
@pytest.mark.parametrize("path", [PATH, "/otlp/v1/logs"])
async def test_what_is_sent_lies_in_a_frame(site: Site, media_type: str, path: str) -> None:
    token = (await site.key("write:shop")).text
    time_ns = now_ns()
    sent = request(
        record("paid", {"order": 17}, time_unix_nano=time_ns, severity_number=17, trace_id=TRACE, span_id=SPAN),
        record("shipped", {"experiment_id": "e-1", "nul": "\0", "esc": "\x1b[31m"}, time_unix_nano=0),
        resource={"service.name": "shop", "host.name": "node-1"},
    )
    answer = await post(site, token, body_of(sent, media_type), media_type, path=path)
    assert (answer.status_code, answer.content) == (200, b"{}" if media_type == JSON else b"")
    assert answer.headers["content-type"] == media_type
    [(header, [paid, shipped])] = await frames(site)
    assert header.key_hash is None, "a record without a time of its own means another one each time"
    assert (paid.message, paid.level, paid.service_name) == ("paid", 17, "shop")
    assert (paid.timestamp, paid.correlation_id) == (time_ns // 1000, TRACE.hex())
    assert metadata_of(paid) == {"order": 17, "host.name": "node-1", "span_id": SPAN.hex()}
    assert (shipped.message, shipped.level, shipped.correlation_id) == ("shipped", 9, "e-1")
    assert metadata_of(shipped)["nul"] == "\ufffd"
    assert metadata_of(shipped)["esc"] == "\x1b[31m"


@TYPES
async def test_a_body_with_times_of_its_own_is_stored_once(site: Site, media_type: str) -> None:
    token = (await site.key("write:*")).text
    body = body_of(request(record(time_unix_nano=now_ns()), record(time_unix_nano=now_ns())), media_type)
    first, again = await post(site, token, body, media_type), await post(site, token, body, media_type)
    assert (first.status_code, again.status_code) == (200, 200)
    one, two = await frames(site)
    assert one[0].key_hash is not None
    assert one[0].key_hash == two[0].key_hash, "the writer stores the first of a key"
    assert [line.id for line in one[1]] == [line.id for line in two[1]]


@TYPES
async def test_bad_records_are_a_partial_success(site: Site, media_type: str) -> None:
    token = (await site.key("write:shop")).text
    good = record("good", time_unix_nano=now_ns())
    sent = request(good, record("old", time_unix_nano=10**18), record("deep", {"a": nested(40)}), good)
    sent.MergeFrom(request(record("theirs", time_unix_nano=now_ns()), resource={"service.name": "mail"}))
    answer = await post(site, token, body_of(sent, media_type), media_type)
    assert answer.status_code == 200
    if media_type == JSON:
        partial = answer.json()["partialSuccess"]
        rejected, text = int(partial["rejectedLogRecords"]), partial["errorMessage"]
    else:
        response = ExportLogsServiceResponse.FromString(answer.content).partial_success
        rejected, text = response.rejected_log_records, response.error_message
    assert rejected == 3
    for part in ("record 1: timestamp: ", "record 2: metadata: may be nested 16 deep", "record 4: service_name: "):
        assert part in text
    [(header, lines)] = await frames(site)
    assert [line.message for line in lines] == ["good", "good"]
    assert header.counts["shop"].rejected == {"timestamp": 1, "metadata": 1}
    assert header.counts[""].rejected == {"not_permitted": 1}


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


@TYPES
async def test_refusals_are_statuses(site: Site, media_type: str) -> None:
    token = (await site.key("write:shop")).text
    good = body_of(request(record(time_unix_nano=now_ns())), media_type)
    theirs = body_of(request(record(time_unix_nano=now_ns()), resource={"service.name": "mail"}), media_type)
    old = body_of(request(record(time_unix_nano=10**18)), media_type)
    assert status_of(await post(site, None, good, media_type), media_type, 401)[0] == 16
    reader = (await site.key("read:*")).text
    assert status_of(await post(site, reader, good, media_type), media_type, 403)[0] == 7
    code, text = status_of(await post(site, token, theirs, media_type), media_type, 403)
    assert (code, "does not permit" in text) == (7, True)
    code, text = status_of(await post(site, token, old, media_type), media_type, 400)
    assert (code, "older than" in text) == (3, True)
    code, text = status_of(await post(site, token, good[:-3], media_type), media_type, 400)
    assert (code, "ExportLogsServiceRequest" in text) == (3, True)
    packed = {"content-encoding": "gzip"}
    assert status_of(await post(site, token, b"no gzip", media_type, **packed), media_type, 400)[0] == 3
    assert status_of(await post(site, token, good, media_type, **{"content-encoding": "br"}), media_type, 415)[0] == 3
    assert status_of(await post(site, token, b"x" * (9 << 20), media_type), media_type, 413)[0] == 3
    for kind in ("text/plain", "application/x-www-form-urlencoded", ""):
        code, text = status_of(await post(site, token, good, kind), JSON, 415)
        assert PROTOBUF in text
    assert await frames(site) == []


async def test_what_was_refused_for_its_rights_is_taken_once_they_are_given(site: Site) -> None:
    """An answer that acknowledges nothing is not kept for a body's key."""
    key = await site.key("write:mail")
    body = as_json(request(record(time_unix_nano=now_ns())))
    assert (await post(site, key.text, body, JSON)).status_code == 403
    await site.database.execute("UPDATE api_keys SET grants = %s", (["write:*"],))
    await site.access.directory.refresh()
    assert (await post(site, key.text, body, JSON)).status_code == 200
    assert len(await frames(site)) == 1


@TYPES
async def test_an_empty_request_is_a_success(site: Site, media_type: str) -> None:
    token = (await site.key("write:*")).text
    answer = await post(site, token, b"{}" if media_type == JSON else b"", media_type)
    assert (answer.status_code, answer.content) == (200, b"{}" if media_type == JSON else b"")


def packed(body: bytes, encoding: str) -> bytes:
    match encoding:
        case "gzip":
            return gzip.compress(body)
        case "deflate":
            return zlib.compress(body)
        case "zstd":
            return zstandard.compress(body)
        case "snappy":
            return bytes(cramjam.snappy.compress_raw(body))
        case "x-snappy-framed":
            return bytes(cramjam.snappy.compress(body))
        case _:
            return body


async def test_every_content_encoding_of_collectors(site: Site) -> None:
    token = (await site.key("write:*")).text
    encodings = ("gzip", "deflate", "zstd", "snappy", "x-snappy-framed", "identity")
    for encoding in encodings:
        body = request(record(encoding, time_unix_nano=now_ns())).SerializeToString()
        headers = {"content-encoding": encoding}
        answer = await post(site, token, packed(body, encoding), PROTOBUF, **headers)
        assert answer.status_code == 200, answer.content
    assert sorted(line.message for _, lines in await frames(site) for line in lines) == sorted(encodings)


async def test_a_service_is_the_keys_only_one_where_none_is_said(site: Site) -> None:
    body = as_json(request(record(time_unix_nano=now_ns()), resource={}))
    for grant in ("write:shop", "write:*"):
        assert (await post(site, (await site.key(grant)).text, body, JSON)).status_code == 200
    assert {line.service_name for _, lines in await frames(site) for line in lines} == {"shop", "unknown_service"}


@TYPES
async def test_a_rate_is_said_with_when_to_come_again(site: Site, media_type: str) -> None:
    token = (await site.key("write:*", rates=RateLimits(1.0, None, 1.0))).text
    body = body_of(request(*[record(time_unix_nano=now_ns())] * 100), media_type)
    assert (await post(site, token, body, media_type)).status_code == 200
    other = body_of(request(record("other", time_unix_nano=now_ns())), media_type)
    answer = await post(site, token, other, media_type)
    assert status_of(answer, media_type, 429)[0] == 8
    assert answer.headers["retry-after"] == "2"


async def test_filters_read_what_resources_say(native_url: str) -> None:
    """And a filter's drop is no rejection."""
    rules = [{"type": "where", "name": "no-canary", "query": "host.name:canary"}]
    async with running(native_url, audit=False, ingest={"filters": rules}) as site:
        token = (await site.key("write:*")).text
        of = {"service.name": "shop", "host.name": "node"}
        sent = request(record("kept", {"a": {"b": "c"}}, time_unix_nano=now_ns()), resource=of)
        canary = {**of, "host.name": "canary"}
        sent.MergeFrom(request(record("gone", time_unix_nano=now_ns()), resource=canary))
        answer = await post(site, token, sent.SerializeToString(), PROTOBUF)
        assert (answer.status_code, answer.content) == (200, b"")
        [(header, [kept])] = await frames(site)
    assert metadata_of(kept) == {"a": {"b": "c"}, "host.name": "node"}
    assert header.counts["shop"].filtered == {"no-canary": 1}
