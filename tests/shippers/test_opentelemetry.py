"""OpenTelemetry's own exporters, as they are, against a Logfeed of real processes."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import pytest
from opentelemetry.exporter.otlp.json.http._log_exporter import OTLPLogExporter as JsonExporter
from opentelemetry.exporter.otlp.proto.http import Compression
from opentelemetry.exporter.otlp.proto.http._log_exporter import OTLPLogExporter as ProtobufExporter
from opentelemetry.sdk._logs import LoggerProvider, LoggingHandler
from opentelemetry.sdk._logs.export import BatchLogRecordProcessor
from opentelemetry.sdk.resources import Resource

from access.principal import RateLimits
from infra.fleet import EMBEDDED, FULL, REPOSITORY
from tests.faults.http_proxy import LoseAnswer, ObjectStorageProxy
from tests.fleets import Fleets
from tests.shipper_site import ShipperSite, shipper_site

PATH: Final = "/v1/logs"
BATCH: Final = 500
LOGS: Final = 1_200

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def site(fleets: Fleets, embedded_server: str) -> Iterator[ShipperSite]:
    with shipper_site(fleets, EMBEDDED) as site:
        yield site


def exporter(kind: str, url: str, key: str, *, timeout_s: float = 30) -> Any:  # of either package
    make = JsonExporter if kind == "json" else ProtobufExporter
    return make(f"{url}{PATH}", headers={"Authorization": f"Bearer {key}"}, timeout=timeout_s)


def log_through(made: Any, service: str, logs: int = LOGS, *, flush_ms: int = 60_000) -> None:
    """Numbered logs, to their end."""
    provider = LoggerProvider(resource=Resource.create({"service.name": service}))
    processor = BatchLogRecordProcessor(made, max_queue_size=max(logs, BATCH), max_export_batch_size=BATCH)
    provider.add_log_record_processor(processor)
    logger = logging.Logger("test")
    logger.addHandler(LoggingHandler(logger_provider=provider))
    for number in range(logs):
        logger.info("number %d", number, extra={"number": number})
    provider.force_flush(flush_ms)
    provider.shutdown()


async def assert_each_once(site: ShipperSite, service: str, logs: int = LOGS) -> list[dict[str, Any]]:
    found = await site.stored(logs, service_name=service)
    assert Counter(log["metadata"]["number"] for log in found) == dict.fromkeys(range(logs), 1)
    return found


async def test_a_program_with_the_sdk_and_nothing_but_its_environment(site: ShipperSite) -> None:
    program = Path(__file__).parent / "python_program.py"
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith("OTEL_")},
        "PYTHONPATH": str(REPOSITORY),
        "OTEL_SERVICE_NAME": "shop/checkout",
        "OTEL_RESOURCE_ATTRIBUTES": "deployment.environment.name=test",
        "OTEL_EXPORTER_OTLP_LOGS_ENDPOINT": f"{site.url}{PATH}",
        "OTEL_EXPORTER_OTLP_LOGS_HEADERS": f"Authorization=Bearer%20{site.write_key}",
        "OTEL_EXPORTER_OTLP_LOGS_COMPRESSION": "gzip",
    }
    done = await asyncio.create_subprocess_exec(
        sys.executable, str(program), env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    output, _ = await done.communicate()
    assert done.returncode == 0, output.decode()
    logs = await site.stored(52, service_name="shop/checkout")
    assert [log["message"] for log in logs[:50]] == [f"order {number} paid" for number in range(50)]
    assert [log["level"] for log in logs[49:]] == ["INFO", "WARN", "ERROR"]
    paid, odd, failed = logs[7], logs[50], logs[51]
    assert (paid["metadata"]["order"], paid["metadata"]["card"]) == (7, "visa")
    assert paid["metadata"]["deployment.environment.name"] == "test"
    assert paid["metadata"]["otel.scope.name"] == "checkout"
    assert odd["message"] == "zażółć 😀"
    assert failed["metadata"]["exception.type"] == "ValueError"
    found = await site.logs(service_name="shop/checkout", query="exception.message:declined")
    assert [log["id"] for log in found] == [failed["id"]]


async def test_every_compression_of_the_exporter(site: ShipperSite) -> None:
    for compression in Compression:
        made = ProtobufExporter(
            f"{site.url}{PATH}", headers={"Authorization": f"Bearer {site.write_key}"}, compression=compression
        )
        await asyncio.to_thread(log_through, made, f"packed-{compression.value}", 20)
        await assert_each_once(site, f"packed-{compression.value}", 20)


@pytest.mark.parametrize("kind", ["protobuf", "json"])
async def test_an_answer_that_is_lost_is_no_second_log(site: ShipperSite, kind: str) -> None:
    await _loses_an_answer(site, kind)


@pytest.mark.long
def test_an_answer_that_is_lost_is_no_second_log_over_kafka(
    fleets: Fleets, kafka_bootstrap: str, timescale_server: str
) -> None:
    with shipper_site(fleets, FULL) as site:
        asyncio.run(_loses_an_answer(site, "protobuf"))


async def _loses_an_answer(site: ShipperSite, kind: str) -> None:
    service = f"lost-{kind}"
    async with ObjectStorageProxy(site.fleet.ports["ingest"]) as proxy:
        fault = proxy.spoil(LoseAnswer(), times=2)
        await asyncio.to_thread(log_through, exporter(kind, proxy.endpoint, site.write_key), service)
        assert fault.left.is_set()
        assert len(proxy.requests) > LOGS / BATCH + 1, "it was sent again"
    await assert_each_once(site, service)


@pytest.mark.parametrize("kind", ["protobuf", pytest.param("json", marks=pytest.mark.long)])
async def test_ingest_is_killed_and_comes_back(site: ShipperSite, kind: str) -> None:
    service = f"away-{kind}"
    site.ingest.kill()
    made = exporter(kind, site.url, site.write_key, timeout_s=120)
    sending = asyncio.create_task(asyncio.to_thread(log_through, made, service, flush_ms=120_000))
    await asyncio.sleep(0)
    site.ingest.start()
    await site.ready()
    await sending
    await assert_each_once(site, service)


async def test_what_a_rate_refuses_comes_again(site: ShipperSite) -> None:
    """The first batch uses up what comes in four seconds; the exporter waits as it is told."""
    key = await asyncio.to_thread(site.key, "write:*", rates=RateLimits(BATCH / 4, None, 1.0))
    await site.knows(key)
    before = await site.metric('logfeed_ingest_rate_limited_total{limit="key_logs"}')
    await asyncio.to_thread(log_through, exporter("protobuf", site.url, key, timeout_s=120), "paced", BATCH + 50)
    assert await site.metric('logfeed_ingest_rate_limited_total{limit="key_logs"}') > before
    await assert_each_once(site, "paced", BATCH + 50)


async def test_curl_as_the_page_says(site: ShipperSite) -> None:
    text = (REPOSITORY / "docs" / "shippers" / "opentelemetry.md").read_text()
    command = re.findall(r"```sh\n(curl .*?)```", text, re.DOTALL)[0].replace("http://127.0.0.1:8080", site.url)
    environment = {**os.environ, "INGEST": f"Authorization: Bearer {site.write_key}"}
    done = await asyncio.create_subprocess_exec("bash", "-c", command, env=environment, stdout=subprocess.PIPE)
    output, _ = await done.communicate()
    assert output == b"{}"
    [log] = await site.stored(1, service_name="shop/checkout", q="payment declined")
    assert (log["level"], log["metadata"]["order"]) == ("ERROR", 17)
    assert log["correlation_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
