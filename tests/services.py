"""Real servers for one test run: Kafka, TimescaleDB and the embedded PostgreSQL.

Looked for in this order: an address in the environment (LOGFEED_TEST_KAFKA, LOGFEED_TEST_TIMESCALE with a superuser,
LOGFEED_TEST_EMBEDDED); containers, where a Docker engine answers within two seconds; plain processes (`infra.native`).
What cannot be had is named in `problems`, for a visible skip; in CI it is an error. Called once, from the main thread of
the controlling process: the kernel ends plain processes together with the thread that started them.
"""

from __future__ import annotations

import importlib
import os
import shutil
import socket
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import psycopg

from infra.native import KafkaNode, TimescaleNode
from infra.native.install import KAFKA_VERSION, POSTGRES_MAJOR, TIMESCALE_VERSION
from infra.native.kafka import BROKER_SETTINGS, HEAP_MIB, JVM_OPTIONS, broker_answers
from infra.native.timescale import INITDB_ARGUMENTS, SUPERUSER, TIMESCALE_SETTINGS

KAFKA_IMAGE = f"apache/kafka:{KAFKA_VERSION}"
TIMESCALE_IMAGE = f"timescale/timescaledb:{TIMESCALE_VERSION}-pg{POSTGRES_MAJOR}"
CONTAINER_START_SECONDS_MAX = 120.0


class ServicesMissing(Exception):
    """In CI every service must be there."""


@dataclass(frozen=True, slots=True)
class SharedServices:
    """Addresses of what runs; None and a sentence in `problems` (kafka, timescale, embedded) for what does not."""

    kafka_bootstrap: str | None
    timescale_url: str | None
    embedded_url: str | None
    problems: dict[str, str]
    stop: Callable[[], None]


@dataclass(frozen=True, slots=True)
class _Starting:
    """A server on its way: `ready` waits for it and returns its address."""

    ready: Callable[[], str]
    stop: Callable[[], None]


def start_shared_services() -> SharedServices:
    """Starts what the environment does not name, all at the same time. `ServicesMissing` in CI."""
    directory = Path(tempfile.mkdtemp(prefix="logfeed-services-"))
    directory.chmod(0o711)  # under root the servers run as another account and must pass through
    problems: dict[str, str] = {}
    addresses: dict[str, str] = {}
    with ExitStack() as undo:
        undo.callback(shutil.rmtree, directory, ignore_errors=True)
        starting: dict[str, _Starting] = {}
        for name, start in (("kafka", _kafka), ("timescale", _timescale), ("embedded", _embedded)):
            if given := os.environ.get(f"LOGFEED_TEST_{name.upper()}"):
                addresses[name] = given
                continue
            try:
                starting[name] = start(directory)
                undo.callback(starting[name].stop)
            except Exception as error:  # whatever it is, the tests that need the service say why they did not run
                problems[name] = _sentence(error)
        for name, server in starting.items():
            try:
                addresses[name] = server.ready()
            except Exception as error:
                problems[name] = _sentence(error)
        if problems and os.environ.get("CI"):
            raise ServicesMissing("; ".join(f"{name}: {problem}" for name, problem in problems.items()))
        stop = undo.pop_all().close
    for name, problem in problems.items():
        print(f"tests that need {name} will be skipped: {problem}", file=sys.stderr)
    return SharedServices(addresses.get("kafka"), addresses.get("timescale"), addresses.get("embedded"), problems, stop)


def _kafka(directory: Path) -> _Starting:
    if _docker_answers():
        return _kafka_container()
    node = KafkaNode(directory / "kafka")
    node.spawn()

    def ready() -> str:
        node.wait_ready()
        return node.bootstrap

    return _Starting(ready, node.remove)


def _timescale(directory: Path) -> _Starting:
    if _docker_answers():
        return _timescale_container()
    node = TimescaleNode(directory / "timescale")
    node.spawn()

    def ready() -> str:
        node.wait_ready()
        return node.url

    return _Starting(ready, node.remove)


def _embedded(directory: Path) -> _Starting:
    from db.embedded import EmbeddedPostgres

    server = EmbeddedPostgres(directory / "embedded")
    url = server.start()
    return _Starting(lambda: url, server.stop)  # a killed server would leave its segments of shared memory behind


def _docker_answers() -> bool:
    try:
        docker = importlib.import_module("docker")  # without type information
        return bool(docker.from_env(timeout=2).ping())
    except Exception:  # no package, no socket, no permission, no answer: all the same
        return False


def _kafka_container() -> _Starting:
    from testcontainers.core.container import DockerContainer

    with socket.socket() as probe:  # the broker must announce its port, so it is chosen before the container starts
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
    container = DockerContainer(KAFKA_IMAGE).with_bind_ports(9092, port)
    host: str = container.get_container_host_ip()
    settings = {
        "process.roles": "broker,controller",
        "node.id": "1",
        "controller.quorum.voters": "1@localhost:9093",
        "controller.listener.names": "CONTROLLER",
        "listeners": "PLAINTEXT://:9092,CONTROLLER://:9093",
        "advertised.listeners": f"PLAINTEXT://{host}:{port}",
        "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
        "inter.broker.listener.name": "PLAINTEXT",
        **BROKER_SETTINGS,
    }
    for key, value in settings.items():
        container.with_env("KAFKA_" + key.upper().replace(".", "_"), value)
    container.with_env("KAFKA_HEAP_OPTS", f"-Xmx{HEAP_MIB}m -Xms128m")
    container.with_env("KAFKA_JVM_PERFORMANCE_OPTS", " ".join(JVM_OPTIONS))
    container.start()

    def ready() -> str:
        _wait_until(lambda: broker_answers(host, port), f"{KAFKA_IMAGE} at {host}:{port}")
        return f"{host}:{port}"

    return _Starting(ready, container.stop)


def _timescale_container() -> _Starting:
    from testcontainers.core.container import DockerContainer

    command = ["postgres", *(part for key, value in TIMESCALE_SETTINGS.items() for part in ("-c", f"{key}={value}"))]
    container = (
        DockerContainer(TIMESCALE_IMAGE)
        .with_exposed_ports(5432)
        .with_env("POSTGRES_USER", SUPERUSER)
        .with_env("POSTGRES_PASSWORD", "tests-only")
        .with_env("POSTGRES_INITDB_ARGS", " ".join(INITDB_ARGUMENTS))
        .with_env("NO_TS_TUNE", "true")
        .with_command(command)
    )
    container.start()

    def ready() -> str:
        host = container.get_container_host_ip()
        url = f"postgresql://{SUPERUSER}:tests-only@{host}:{container.get_exposed_port(5432)}/logfeed"
        _wait_until(lambda: _database_answers(url), f"{TIMESCALE_IMAGE} at {host}")
        return url

    return _Starting(ready, container.stop)


def _database_answers(url: str) -> bool:
    try:
        with psycopg.connect(url, connect_timeout=2) as connection:
            return connection.execute("SELECT 1").fetchone() == (1,)
    except psycopg.OperationalError:
        return False


def _wait_until(answers: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + CONTAINER_START_SECONDS_MAX
    while not answers():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what} did not answer in {CONTAINER_START_SECONDS_MAX:.0f} s")
        time.sleep(0.1)


def _sentence(error: Exception) -> str:
    return " ".join(f"{type(error).__name__}: {error}".split())[:500]
