"""Kafka's own tools, and the Java example, read what the router writes: keys, headers and values as docs/topics.md has them."""

from __future__ import annotations

import asyncio
import json
import re
import shutil
import uuid
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from aiokafka import AIOKafkaConsumer

from broker.kafka_topics import KafkaTopics
from broker.settings import BrokerSettings
from infra.fleet import REPOSITORY
from infra.native.install import KAFKA_VERSION, install_kafka, java
from live.events import Batch
from routes.settings import RouteSettings, RoutingSettings
from routes.table import RouteTable
from schemas.pages import LogModel
from schemas.record import Log
from tests.live_site import DEADLINE_S

pytestmark = [pytest.mark.kafka, pytest.mark.long]

EXAMPLE: Final = REPOSITORY / "clients" / "java-example"
TOOLS_POM: Final = f"""<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>tests</groupId>
  <artifactId>tools</artifactId>
  <version>1</version>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka-tools</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""


@dataclass(frozen=True)
class Filled:
    """A topic with records, the first of which come twice."""

    bootstrap: str
    topic: str
    logs: list[Log]
    repeats: int

    @property
    def ids(self) -> list[int]:
        return [log.id for log in self.logs]


@pytest.fixture
async def filled(kafka_bootstrap: str) -> AsyncIterator[Filled]:
    topic = f"derived-{uuid.uuid4().hex}"
    topics = KafkaTopics(BrokerSettings(kind="kafka", bootstrap=kafka_bootstrap, derived_partitions=2))
    logs = [
        Log(n + 1, 1_800_000_000_000_000, 9, ("shop", "pay/api")[n % 2], f"Grüße {n}", None, {"n": n})
        for n in range(50)
    ]
    table = RouteTable({"all": RouteSettings(query="", topic=topic)}, RoutingSettings())
    records = [record for each in table.records(Batch(3, 17, 18, 0, logs)) for record in each]
    try:
        await topics.ensure([topic])
        await topics.publish(records[:20])
        await topics.publish(records)  # as a router does that was killed
        yield Filled(kafka_bootstrap, topic, logs, 20)
    finally:
        await topics.close()


async def run(*command: str, cwd: Path | None = None) -> list[str]:
    """Lines that a program writes. Fails with what it says."""
    process = await asyncio.create_subprocess_exec(
        *command,
        cwd=cwd,
        stdin=asyncio.subprocess.DEVNULL,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        async with asyncio.timeout(600):
            output, errors = await process.communicate()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    assert process.returncode == 0, (output + errors).decode()[-5_000:]
    return output.decode().splitlines()


@pytest.mark.timeout(1200)
async def test_the_java_example_compiles_and_prints_each_log_once(filled: Filled, tmp_path: Path) -> None:
    project = tmp_path / "example"
    await asyncio.to_thread(shutil.copytree, EXAMPLE, project)
    await run("mvn", "-B", "-q", "compile", cwd=project)
    lines = await run(
        *(str(java()), "-cp", f"{project}/target/classes:{install_kafka()}/libs/*", "example.Subscriber"),
        *(filled.bootstrap, filled.topic, f"java-{uuid.uuid4().hex}", str(len(filled.logs))),
    )
    found = {}
    for line in lines:
        log_id, key, value = line.split(" ", 2)
        log = LogModel.model_validate_json(value)
        assert (log.id, log.service_name) == (log_id, key)
        assert int(log_id) not in found
        found[int(log_id)] = log.message
    assert found == {log.id: log.message for log in filled.logs}


def test_the_java_example_uses_the_kafka_that_tests_run() -> None:
    found = re.search(r"<artifactId>kafka-clients</artifactId>\s*<version>([^<]+)<", (EXAMPLE / "pom.xml").read_text())
    assert found is not None
    assert found[1] == KAFKA_VERSION


@pytest.mark.timeout(300)
async def test_the_console_consumer_shows_keys_headers_and_values(filled: Filled, tmp_path: Path) -> None:
    # What kafka-console-consumer.sh runs; it comes apart from the broker.
    (tmp_path / "pom.xml").write_text(TOOLS_POM)
    await run("mvn", "-B", "-q", "dependency:copy-dependencies", "-DincludeScope=runtime", cwd=tmp_path)
    lines = await run(
        *(str(java()), "-cp", f"{tmp_path}/target/dependency/*", "org.apache.kafka.tools.consumer.ConsoleConsumer"),
        *("--bootstrap-server", filled.bootstrap, "--topic", filled.topic, "--from-beginning"),
        *("--max-messages", str(len(filled.logs) + filled.repeats)),
        *("--property", "print.key=true", "--property", "print.headers=true"),
    )
    seen = []
    for line in lines:
        headers, key, value = line.split("\t", 2)
        named = dict(pair.split(":") for pair in headers.split(","))
        log = json.loads(value)
        index = filled.ids.index(int(log["id"]))
        assert named == {"v": "1", "id": log["id"], "partition": "3", "offset": "17", "index": str(index)}
        assert key == log["service_name"]
        seen.append(int(log["id"]))
    assert len(seen) == len(filled.logs) + filled.repeats
    assert set(seen) == set(filled.ids)


@pytest.mark.timeout(120)
async def test_a_consumer_group_gets_each_service_in_order(filled: Filled) -> None:
    consumer = AIOKafkaConsumer(
        filled.topic,
        bootstrap_servers=filled.bootstrap,
        group_id=f"group-{uuid.uuid4().hex}",
        auto_offset_reset="earliest",
        enable_auto_commit=False,
    )
    await consumer.start()
    seen: dict[bytes, list[int]] = {}
    try:
        async with asyncio.timeout(DEADLINE_S):
            while sum(map(len, seen.values())) < len(filled.logs):
                record = await consumer.getone()
                log_id = int(dict(record.headers)["id"])
                ids = seen.setdefault(record.key, [])
                if log_id not in ids:
                    ids.append(log_id)
        await consumer.commit()
    finally:
        await consumer.stop()
    assert {key.decode(): ids for key, ids in seen.items()} == {
        service: [log.id for log in filled.logs if log.service_name == service] for service in ("shop", "pay/api")
    }
