"""The API does what its OpenAPI document says, whoever asks whatever: no 5xx, no status, type, header or body that is not
in it.

schemathesis makes the requests from the document that the application serves: valid ones, and ones that break each rule of
it.
"""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final
from urllib.parse import quote

import pytest

from cli import openapi
from infra.fleet import REPOSITORY
from tests.access_site import Site, running
from tests.app_server import serving

CHECKS: Final = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,unsupported_method"
)
PHASES: Final = "examples,coverage"
"""Some 2,000 requests, the same ones each time: every rule of the document kept, and broken by itself."""
PHASES_LONG: Final = f"{PHASES},fuzzing"
"""And random ones that break several at once."""
EXAMPLES_LONG: Final = 400
RUN_S_MAX: Final = 360.0
"""On a machine that is busy with other tests; 30 s otherwise."""
SERVICES: Final = ("shop", "pay/a", "other/secret")
SENDING: Final = ("ingest", "loki", "health")
ASKING: Final = ("query", "auth", "tail", "topics", "alerts")
PARTS: Final = {
    "sending": [f"--include-tag={tag}" for tag in SENDING],
    "asking": [f"--include-tag={tag}" for tag in ASKING],
    "others": [f"--exclude-tag={tag}" for tag in (*SENDING, *ASKING)],
}
"""Of the operations, by their tags: each is in one, whatever tags come. Three processes take them at once."""


@pytest.fixture
async def site(native_url: str) -> AsyncIterator[Site]:
    async with running(native_url) as site:
        await site.put(
            [{"service_name": name, "correlation_id": "order-4711", "metadata": {"n": 1}} for name in SERVICES * 3]
        )
        await site.user("ann", "read:*")
        yield site


async def conforms(
    site: Site, token: str, directory: Path, part: str, *, phases: str, deadline_s: float, examples: int = 1
) -> None:
    """Fails with schemathesis's report. One request at a time: nothing is refused for want of room. examples: of each
    operation, in the phase that has no end of its own."""
    site.app.openapi()  # made once, in seconds where the machine is busy: schemathesis waits ten
    async with serving(site.app) as port:
        arguments = [
            *("run", f"http://127.0.0.1:{port}/openapi.json", "--header", f"Authorization: Bearer {token}"),
            *("--phases", phases, "--checks", CHECKS, "--max-examples", str(examples)),
            *("--generation-deterministic", "--workers", "1", "--continue-on-failure"),
            *PARTS[part],
            *("--exclude-path", "/api/v1/tail"),  # its answers end when the client goes: test_tail.py
            *("--exclude-path", "/api/v1/experiments/events"),  # the same: test_experiments.py
            *("--request-timeout", "60", "--suppress-health-check", "all", "--warnings", "off", "--no-color"),
        ]
        process = await asyncio.create_subprocess_exec(
            str(Path(sys.executable).parent / "schemathesis"),
            *arguments,
            cwd=directory,
            env={**os.environ, "SCHEMATHESIS_HOOKS": "tests.ndjson_requests", "PYTHONPATH": str(REPOSITORY)},
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
        )
        try:
            async with asyncio.timeout(deadline_s):
                output, _ = await process.communicate()
        finally:
            if process.returncode is None:
                process.kill()
                await process.wait()
    assert process.returncode == 0, output.decode()[-20_000:]
    assert token not in output.decode()


ADMIN: Final = pytest.param(("admin:*", "write:*"), id="admin")
NARROW: Final = ("read:pay/*", "write:pay/a")


STRANGE: Final = ("a\0b", "\0", "%", "\ud800", "\U0010ffff", "../..", "' OR true --", "9" * 40)
"""Texts that databases, paths and numbers choke on; as a query they are sent as they are, or as UTF-8 that is none."""


@pytest.mark.slow
@pytest.mark.timeout(420)
async def test_strange_text_in_any_parameter_is_no_defect(site: Site) -> None:
    """schemathesis seldom sends a NUL, and never one in a path."""
    token = (await site.key("admin:*", "write:*", "host:*")).text
    document = openapi.document()
    asked = 0
    async with site.client(token) as client:
        for path, verbs in document["paths"].items():
            if path in ("/api/v1/tail", "/api/v1/experiments/events", "/metrics"):
                continue
            for verb, operation in verbs.items():
                declared = operation.get("parameters", [])
                for each in declared:
                    if each["in"] not in ("path", "query"):
                        continue
                    for text in STRANGE:
                        sent = quote(text.encode("utf-8", "surrogatepass"), safe="")
                        given = {
                            other["name"]: sent if other is each else str(other.get("example", "x"))
                            for other in declared
                            if other is each or other["in"] == "path" or other.get("required")
                        }
                        query = "&".join(
                            f"{name}={value}"
                            for name, value in given.items()
                            if any(other["name"] == name and other["in"] == "query" for other in declared)
                        )
                        where = path
                        for name, value in given.items():
                            where = where.replace(f"{{{name}}}", value)
                        answer = await client.request(verb.upper(), f"{where}?{query}")
                        asked += 1
                        assert answer.status_code < 500 or answer.status_code == 503, (verb, path, each["name"], text)
    assert asked > 1_000


@pytest.mark.slow
@pytest.mark.timeout(420)
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("grants", [ADMIN, pytest.param(NARROW, id="narrow", marks=pytest.mark.long)])
async def test_every_answer_is_in_the_document(site: Site, grants: tuple[str, ...], part: str, tmp_path: Path) -> None:
    token = (await site.key(*grants)).text
    await conforms(site, token, tmp_path, part, phases=PHASES, deadline_s=RUN_S_MAX)


@pytest.mark.long
@pytest.mark.timeout(3600)
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("grants", [ADMIN, pytest.param(NARROW, id="narrow")])
async def test_every_answer_of_many_more_is_in_the_document(
    site: Site, grants: tuple[str, ...], part: str, tmp_path: Path
) -> None:
    token = (await site.key(*grants)).text
    await conforms(site, token, tmp_path, part, phases=PHASES_LONG, deadline_s=3000, examples=EXAMPLES_LONG)
