"""Traces from a POST to the COMMIT, by real processes into a collector: one trace a request, one a batch, links between."""

from __future__ import annotations

import asyncio
import secrets
from typing import Any

import httpx
import pytest

from infra.fleet import EMBEDDED, FULL, Fleet, until
from tests.fleets import Fleets
from tests.span_receiver import Received, SpanReceiver, span_receiver

pytestmark = pytest.mark.timeout(180)

IN_REQUEST = ("POST /api/v1/logs/batch", "parse", "filter chain", "publish", "decode", "store")
IN_BATCH = ("store batch", "known keys", "plan", "COPY", "COMMIT")


def traceparent(*, is_kept: bool) -> tuple[str, str, str]:
    """(header, trace id, span id)"""
    trace_id, span_id = secrets.token_hex(16), secrets.token_hex(8)
    return f"00-{trace_id}-{span_id}-{'01' if is_kept else '00'}", trace_id, span_id


async def send(fleet: Fleet, header: str, logs: int) -> None:
    lines = "".join(f'{{"service_name":"shop","level":"INFO","message":"order {n}"}}\n' for n in range(logs))
    headers = {"traceparent": header, "content-type": "application/x-ndjson"}
    async with httpx.AsyncClient(trust_env=False, timeout=30) as client:
        answer = await client.post(f"{fleet.url('ingest')}/api/v1/logs/batch", content=lines, headers=headers)
    assert answer.status_code == 201, answer.text


async def ask(fleet: Fleet, header: str) -> list[dict[str, Any]]:
    async with httpx.AsyncClient(trust_env=False, timeout=30, headers={"traceparent": header}) as client:
        answer = await client.get(f"{fleet.url('query')}/api/v1/logs", params={"service_name": "shop"})
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["logs"]
    return found


async def _traced(fleets: Fleets, profile: str) -> None:
    async with span_receiver() as collector:
        more = {
            "LOGFEED_TRACING__ENDPOINT": collector.endpoint,
            "LOGFEED_TRACING__RATIO": "0",
            "LOGFEED_TRACING__AUTHORIZATION": "Bearer word",
        }
        fleet = await asyncio.to_thread(fleets.make, profile, extra=more)
        try:
            for name in ("ingest", "write", "query"):
                await asyncio.to_thread(fleet.role, name)
            await fleet.ready("ingest", "query")
            await _look(fleet, collector)
            # A stop sends what still waits.
            header, trace_id, _ = traceparent(is_kept=True)
            await ask(fleet, header)
            assert await asyncio.to_thread(fleet.roles[-1].stop) == 0
            assert "GET /api/v1/logs" in collector.of_trace(trace_id)
        except AssertionError as error:
            raise AssertionError(f"{error}\n{fleet.failures()}") from error
        finally:
            await asyncio.to_thread(fleets.end, fleet)


async def _look(fleet: Fleet, collector: SpanReceiver) -> None:
    unkept, unkept_id, _ = traceparent(is_kept=False)
    kept, kept_id, caller = traceparent(is_kept=True)
    await send(fleet, unkept, 3)
    await send(fleet, kept, 25)
    spans = await collector.has(kept_id, *IN_REQUEST)
    request = spans["POST /api/v1/logs/batch"]
    assert (request.above, request.service) == (caller, "logfeed-ingest"), "the caller's span is above it"
    assert request.value("http.response.status_code") == 201
    assert {spans[name].above for name in ("parse", "filter chain", "publish")} == {request.span_id}
    assert (spans["filter chain"].value("kept_logs"), spans["publish"].value("logs")) == (25, 25)
    published = spans["publish"].span_id
    assert {(spans[name].above, spans[name].service) for name in ("decode", "store")} == {(published, "logfeed-write")}
    _is_within(spans["publish"], request)

    ((batch_id, _),) = spans["store"].links
    batch = await collector.has(batch_id, *IN_BATCH)
    top = batch["store batch"]
    assert (kept_id, published) in top.links, "the batch says whose frames it stored"
    assert unkept_id not in {trace_id for trace_id, _ in top.links}
    assert {batch[name].above for name in IN_BATCH[1:]} == {top.span_id}
    assert batch["COPY"].value("rows") == top.value("rows")
    _is_within(batch["COPY"], top)
    assert batch["COPY"].span.end_time_unix_nano <= batch["COMMIT"].span.start_time_unix_nano

    async def are_found() -> bool:
        return len(await ask(fleet, unkept)) == 28

    await until(are_found, what="all logs are found")
    question, asked_id, _ = traceparent(is_kept=True)
    assert len(await ask(fleet, question)) == 28
    asked = await collector.has(asked_id, "GET /api/v1/logs", "snapshot", "scan", "statement")
    assert asked["scan"].above == asked["GET /api/v1/logs"].span_id
    assert asked["scan"].value("logs") == 28
    assert asked["statement"].above == asked["scan"].span_id

    assert collector.credentials == {"Bearer word"}
    assert not collector.of_trace(unkept_id), "whoever says no is not traced"
    told = " ".join(str(each.span) for each in collector.spans)
    assert "shop" not in told, "spans say nothing of what logs hold"
    assert "order" not in told


def _is_within(inner: Received, outer: Received) -> None:
    assert outer.span.start_time_unix_nano <= inner.span.start_time_unix_nano
    assert inner.span.end_time_unix_nano <= outer.span.end_time_unix_nano


async def test_a_request_is_traced_from_its_caller_to_the_commit(fleets: Fleets, embedded_server: str) -> None:
    await _traced(fleets, EMBEDDED)


@pytest.mark.long
@pytest.mark.kafka
async def test_a_request_is_traced_through_kafka(fleets: Fleets, kafka_bootstrap: str, timescale_server: str) -> None:
    await _traced(fleets, FULL)


@pytest.mark.long
async def test_a_collector_that_is_away_holds_nobody_up(fleets: Fleets, embedded_server: str) -> None:
    more = {"LOGFEED_TRACING__ENDPOINT": "http://127.0.0.1:9/v1/traces", "LOGFEED_TRACING__RATIO": "1"}
    fleet = await asyncio.to_thread(fleets.make, EMBEDDED, extra=more)
    try:
        for name in ("ingest", "write", "query"):
            await asyncio.to_thread(fleet.role, name)
        await fleet.ready("ingest", "query")
        await send(fleet, "", 10)

        async def are_found() -> bool:
            return len(await ask(fleet, "")) == 10

        await until(are_found, what="all logs are found")
        assert [await asyncio.to_thread(role.stop) for role in fleet.roles] == [0, 0, 0]
    finally:
        await asyncio.to_thread(fleets.end, fleet)
