"""Clients of Loki's push API as their users install them, unchanged, against a real server."""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import subprocess
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import logging_loki
import pytest

from access.principal import RateLimits
from infra.fleet import REPOSITORY
from tests.faults.http_proxy import CutRequest, ObjectStorageProxy
from tests.fleets import Fleets
from tests.loki_site import LokiSite, loki_site, new_service
from tests.shippers.npm import installed

pytestmark = pytest.mark.timeout(300)  # the first test starts servers and installs clients

PROMTAIL_BODY = REPOSITORY / "tests" / "unit" / "ingest" / "wire" / "loki" / "promtail.snappy"
"""Marshalled by grafana/loki's own package pkg/push and compressed by golang/snappy, as Promtail's client does it."""


@pytest.fixture(scope="module")
def site(fleets: Fleets) -> Iterator[LokiSite]:
    with loki_site(fleets) as site:
        yield site


@pytest.fixture(scope="module")
def scripts() -> Path:
    return installed(REPOSITORY / "tests" / "shippers" / "loki")


@asynccontextmanager
async def running(scripts: Path, script: str, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """A client's process; killed where it does not end by itself."""
    process = await asyncio.create_subprocess_exec(
        "node", script, *arguments, cwd=scripts, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def run(scripts: Path, script: str, *arguments: str) -> str:
    """What it wrote, once it has ended well."""
    async with running(scripts, script, *arguments) as process:
        async with asyncio.timeout(120):
            output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()
    return output.decode()


@pytest.mark.parametrize("version", ["0", "1"])
async def test_python_logging_loki(site: LokiSite, version: str) -> None:
    service = new_service("python")
    key = await site.key(f"write:{service}", f"read:{service}")
    path = {"0": "/api/prom/push", "1": "/loki/api/v1/push"}[version]
    handler = logging_loki.LokiHandler(
        url=f"{site.url}{path}", tags={"application": service}, auth=("anybody", key), version=version
    )
    failures: list[logging.LogRecord] = []
    handler.handleError = failures.append
    logger = logging.Logger("checkout", level=logging.DEBUG)
    logger.addHandler(handler)

    def log() -> None:
        for number in range(5):
            logger.error('failed "%s" é', number, extra={"tags": {"trace_id": f"t{number}"}})

    await asyncio.to_thread(log)
    assert not failures
    logs = await site.settled(key, service, 5)
    assert sorted(log["message"] for log in logs) == [f'failed "{n}" é' for n in range(5)]
    assert {log["level"] for log in logs} == {"ERROR"}
    assert sorted(log["correlation_id"] for log in logs) == [f"t{n}" for n in range(5)]
    assert all(log["metadata"] == {"logger": "checkout"} for log in logs)


async def test_pino_loki(site: LokiSite, scripts: Path) -> None:
    service = new_service("pino")
    key = await site.key(f"write:{service}", f"read:{service}")
    output = await run(scripts, "pino.cjs", site.url, key, service, "50")
    assert output == ""
    logs = await site.settled(key, service, 50)
    by_number = {json.loads(log["message"])["n"]: log for log in logs}
    assert sorted(by_number) == list(range(50))
    for number, log in by_number.items():
        assert (log["level"], log["correlation_id"]) == ("WARN", f"trace-{number}")
        assert log["metadata"]["attempt"] == str(number)


@pytest.mark.parametrize("form", ["json", "protobuf"])
async def test_winston_loki(site: LokiSite, scripts: Path, form: str) -> None:
    service = new_service("winston")
    key = await site.key(f"write:{service}", f"read:{service}")
    output = await run(scripts, "winston.cjs", site.url, key, service, "40", form)
    assert "refused" not in output
    logs = await site.settled(key, service, 40)
    assert sorted(int(log["message"].split()[2]) for log in logs) == list(range(40))
    for log in logs:
        assert log["level"] == ("ERROR" if int(log["message"].split()[2]) % 2 else "INFO")


@pytest.mark.parametrize("form", ["json", "protobuf"])
async def test_winston_loki_sends_again_what_was_lost_on_its_way_and_what_a_rate_refused(
    site: LokiSite, scripts: Path, form: str
) -> None:
    """The first batch uses up what may come in two seconds."""
    service = new_service("winston-away")
    key = await site.key(f"write:{service}", f"read:{service}", rates=RateLimits(20.0, None, 1.0))
    async with ObjectStorageProxy(site.fleet.ports["serve"]) as proxy:
        proxy.spoil(CutRequest(0), times=2)
        output = await run(scripts, "winston-outage.cjs", proxy.endpoint, key, service, "80", form)
    assert output.count("socket hang up") + output.count("ECONNRESET") == 2, output
    assert "HTTP 429" in output
    logs = await site.settled(key, service, 80)
    assert sorted(int(log["message"].split()[2]) for log in logs) == list(range(80))


async def test_pino_loki_tells_what_it_lost_and_goes_on(site: LokiSite, scripts: Path) -> None:
    """It sends nothing again, as docs/shippers/loki.md says."""
    service = new_service("pino-away")
    key = await site.key(f"write:{service}", f"read:{service}")
    async with ObjectStorageProxy(site.fleet.ports["serve"]) as proxy:
        proxy.spoil(CutRequest(0), times=1)
        output = await run(scripts, "pino-outage.cjs", proxy.endpoint, key, service, "20")
    assert "refused: Got unknown error when trying to send log to Loki" in output
    logs = await site.settled(key, service, 10)
    assert sorted(json.loads(log["message"])["n"] for log in logs) == list(range(10, 20))


async def test_a_body_of_promtail_by_curl(site: LokiSite) -> None:
    key = await site.key("write:*", "read:web", "read:varlogs")
    arguments: list[Any] = [
        *("curl", "--silent", "--show-error", "--noproxy", "*", "--write-out", "%{http_code}"),
        *("--header", "Content-Type: application/x-protobuf", "--user", f"promtail:{key}"),
        *("--data-binary", f"@{PROMTAIL_BODY}", f"{site.url}/loki/api/v1/push"),
    ]
    for _ in range(2):  # as Promtail does it where an answer was lost
        done = await asyncio.to_thread(subprocess.run, arguments, capture_output=True, text=True, check=True)
        assert done.stdout == "204"
    web, other = await site.settled(key, "web", 2)
    assert (web["message"], web["level"]) == ("GET /cart 502 in 31ms", "WARN")
    assert web["metadata"] == {"job": "default/web", "pod": "web-5d9c"}
    assert web["timestamp"] == "2026-11-18T11:06:40.123456Z"
    assert (other["message"], other["correlation_id"]) == (
        'café "quoted" back\\slash',
        "4bf92f3577b34da6a3ce929d0e0e4736",
    )
    assert other["metadata"]["user"] == "ann"
    assert [log["level"] for log in await site.stored(key, "varlogs", 2)] == ["ERROR", "DEBUG"]
