"""Ingest killed at an exact moment of a request: before its record is published, after it was acknowledged, amid its body.

A relay before the broker sees the record, or the broker's answer to it, come by, and kills ingest instead of passing it on.
"""

from __future__ import annotations

import asyncio
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from enum import StrEnum
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from infra.fleet import EMBEDDED, FULL, Fleet, Role, Servers, until
from tests.faults.conftest import MakeFleet
from tests.faults.producers import Producers, assert_exactly_once
from tests.faults.relay import Relay
from tests.faults.rounds.site import RelayedKafka


class Moment(StrEnum):
    """Of publishing."""

    BEFORE = "before the record is published"
    AFTER = "after the acknowledgement, before the answer"


class KillingRelay(Relay):
    """Kills once, when a record, or the answer to it, comes by; the piece goes no further."""

    def __init__(self, host: str, port: int, *, listen_port: int = 0, profile: str) -> None:
        super().__init__(host, port, listen_port=listen_port)
        self._profile = profile
        self._publishing: set[int] = set()
        self.moment: Moment | None = None
        self.victim: Role | None = None
        self.killed = asyncio.Event()

    def passes(self, connection: int, data: bytes, *, from_client: bool) -> bool:
        """See Relay."""
        if self.moment is None or self.killed.is_set():
            return True
        if from_client:
            is_record = self._is_record(data)
            if is_record:
                self._publishing.add(connection)
            if not (is_record and self.moment is Moment.BEFORE):
                return True
        elif connection not in self._publishing or self.moment is Moment.BEFORE:
            return True
        assert self.victim is not None
        self.victim.signal(signal.SIGKILL)
        self.killed.set()
        return False

    def _is_record(self, data: bytes) -> bool:
        """A statement that appends, or a Produce request (https://kafka.apache.org/protocol: size, then API key 0)."""
        if self._profile == EMBEDDED:
            return b"logfeed_queue_append" in data
        return len(data) > 14 and data[4:6] == b"\0\0"


@asynccontextmanager
async def embedded_ingest(make_fleet: MakeFleet) -> AsyncIterator[tuple[Fleet, KillingRelay, Role]]:
    fleet = await asyncio.to_thread(make_fleet, EMBEDDED)
    address = urlsplit(fleet.database_url)
    assert address.hostname
    assert address.port
    async with KillingRelay(address.hostname, address.port, profile=EMBEDDED) as relay:
        yield fleet, relay, fleet.role("ingest", LOGFEED_DATABASE__URL=relay.url_of(fleet.database_url))


@asynccontextmanager
async def full_ingest(database_url: str, directory: Path) -> AsyncIterator[tuple[Fleet, KillingRelay, Role]]:
    """Over a Kafka that sends clients to the relay, and the shared database."""
    kafka = RelayedKafka(directory / "kafka")
    try:
        kafka.start()
        fleet = Fleet(
            FULL, directory / "fleet", shared=Servers(FULL, directory, kafka=kafka), database_url=database_url
        )
        async with KillingRelay("127.0.0.1", kafka.relayed_port, listen_port=kafka.relay_port, profile=FULL) as relay:
            try:
                yield fleet, relay, fleet.role("ingest", LOGFEED_BROKER__BOOTSTRAP=relay.address)
            finally:
                await asyncio.to_thread(fleet.stop_everything)
    finally:
        kafka.remove()


async def _stored_once(fleet: Fleet, relay: KillingRelay, ingest: Role, moment: Moment) -> None:
    fleet.role("query")
    fleet.role("write")
    await fleet.ready("ingest", "query")
    producers = Producers(lambda: fleet.url("ingest"), seed=150)
    await producers.run(producers=1, requests=1, logs_per_request=10)
    relay.victim, relay.moment = ingest, moment
    producers.seed += 1
    sending = asyncio.create_task(producers.run(producers=1, requests=3, logs_per_request=10))
    await asyncio.wait_for(relay.killed.wait(), 60)
    assert ingest.process is not None
    await asyncio.to_thread(ingest.process.wait, 10)
    ingest.start()
    await sending
    assert producers.retries > 0
    logs = await assert_exactly_once(fleet.url("query"), producers)
    assert len(logs) == 40


@pytest.mark.parametrize("moment", [pytest.param(Moment.BEFORE, marks=pytest.mark.slow), Moment.AFTER])
async def test_ingest_killed_at_a_moment_stores_once(make_fleet: MakeFleet, moment: Moment) -> None:
    async with embedded_ingest(make_fleet) as (fleet, relay, ingest):
        await _stored_once(fleet, relay, ingest, moment)


@pytest.mark.long
@pytest.mark.kafka
@pytest.mark.timescale
@pytest.mark.parametrize("moment", list(Moment))
async def test_ingest_killed_at_a_moment_over_kafka_stores_once(
    kafka_bootstrap: str, timescale_url: str, tmp_path: Path, moment: Moment
) -> None:
    """kafka_bootstrap: where there is none, there cannot be one of its own either."""
    async with full_ingest(timescale_url, tmp_path) as (fleet, relay, ingest):
        await _stored_once(fleet, relay, ingest, moment)


async def test_ingest_killed_in_the_middle_of_a_body_stores_once(make_fleet: MakeFleet) -> None:
    fleet = await asyncio.to_thread(make_fleet, EMBEDDED)
    ingest = fleet.role("ingest")
    fleet.role("query")
    fleet.role("write")
    await fleet.ready("ingest", "query")
    body = b"\n".join(
        b'{"service_name":"shop","message":"cut","metadata":{"producer":1,"number":%d}}' % n for n in range(20)
    )
    head = (
        b"POST /api/v1/logs/batch HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-ndjson\r\n"
        b"Idempotency-Key: cut in half\r\nContent-Length: %d\r\n\r\n" % len(body)
    )
    async with httpx.AsyncClient(trust_env=False, base_url=fleet.url("ingest"), timeout=20) as client:

        async def half_is_held() -> bool:
            text = (await client.get("/metrics")).text
            held = [line for line in text.splitlines() if line.startswith("logfeed_ingest_bytes_in_flight ")]
            return any(float(line.rpartition(" ")[2]) > 0 for line in held)

        with socket.create_connection(("127.0.0.1", fleet.ports["ingest"])) as connection:
            connection.sendall(head + body[: len(body) // 2])
            await until(half_is_held, what="ingest has half of the body")
            await asyncio.to_thread(ingest.restart_killed)
        await fleet.ready("ingest")
        headers = {"Content-Type": "application/x-ndjson", "Idempotency-Key": "cut in half"}
        for _ in range(2):
            answer = await client.post("/api/v1/logs/batch", content=body, headers=headers)
            assert answer.status_code == 201, answer.text
    producers = Producers(lambda: fleet.url("ingest"))
    producers.sent = producers.acked = {(1, number) for number in range(20)}
    logs = await assert_exactly_once(fleet.url("query"), producers)
    assert len(logs) == 20
