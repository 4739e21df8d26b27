"""Kafka and TimescaleDB without Docker: they answer, and keep what they acknowledged through kill -9."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import psycopg
import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic

from infra.native import KafkaNode, TimescaleNode
from infra.native.apt import debian_mirror
from infra.native.errors import InstallError
from infra.native.kafka import class_archive
from infra.native.places import Account, locked, reachable_home, remove_tree, server_account

ROOT = Path(__file__).resolve().parents[2]


def _absent(*programs: str) -> list[str]:
    return [] if os.environ.get("CI") else [program for program in programs if shutil.which(program) is None]


needs_java = pytest.mark.skipif(bool(_absent("java", "mvn")), reason="no java or mvn on this machine")
needs_apt = pytest.mark.skipif(bool(_absent("apt-get", "dpkg-deb")), reason="no apt on this machine")


@pytest.fixture(scope="module")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[KafkaNode]:
    node = KafkaNode(tmp_path_factory.mktemp("native") / "kafka")
    node.start()
    yield node
    node.remove()


@pytest.fixture(scope="module")
def timescale(tmp_path_factory: pytest.TempPathFactory) -> Iterator[TimescaleNode]:
    node = TimescaleNode(tmp_path_factory.mktemp("native") / "timescale")
    node.start()
    yield node
    node.remove()


# ---- Kafka


@needs_java
@pytest.mark.kafka
async def test_acknowledged_record_survives_kill_and_restart_of_the_broker(kafka: KafkaNode) -> None:
    bootstrap = kafka.bootstrap
    await _create_topic(bootstrap, "kept")
    await _produce(bootstrap, "kept", b"first")
    assert await _consume(bootstrap, "kept", 1) == [b"first"]

    kafka.kill()
    assert kafka.pid is None
    kafka.start()
    assert kafka.bootstrap == bootstrap
    assert await _consume(bootstrap, "kept", 1) == [b"first"]

    kafka.restart()
    await _produce(bootstrap, "kept", b"second")
    assert await _consume(bootstrap, "kept", 2) == [b"first", b"second"]


@needs_java
@pytest.mark.kafka
async def test_broker_takes_a_frame_of_sixteen_mebibytes(kafka: KafkaNode) -> None:
    await _create_topic(kafka.bootstrap, "large")
    frame = os.urandom(16 * 1024 * 1024)
    await _produce(kafka.bootstrap, "large", frame)
    assert await _consume(kafka.bootstrap, "large", 1) == [frame]


@needs_java
@pytest.mark.kafka
def test_broker_starts_with_its_classes_kept_and_without_them_when_they_are_cut_off(
    kafka: KafkaNode, monkeypatch: pytest.MonkeyPatch
) -> None:
    archive = class_archive()
    assert archive is not None
    assert str(archive) in Path(f"/proc/{kafka.pid}/maps").read_text()

    cut_off = kafka.directory / archive.name
    cut_off.write_bytes(archive.read_bytes()[: 1 << 20])
    monkeypatch.setattr("infra.native.kafka.cache_root", lambda _: kafka.directory)
    kafka.restart()
    assert kafka.answers()
    assert not cut_off.exists()
    assert cut_off.name not in Path(f"/proc/{kafka.pid}/maps").read_text()


# ---- TimescaleDB


@needs_apt
@pytest.mark.timescale
def test_committed_row_survives_kill_and_restart_of_the_database(timescale: TimescaleNode) -> None:
    url = timescale.create_database("kept")
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE logs (at timestamptz NOT NULL, line text)")
        connection.execute("SELECT create_hypertable('logs', by_range('at', INTERVAL '6 hours'))")
        connection.execute("INSERT INTO logs VALUES ('2026-01-02', 'first')")
        assert connection.execute("SHOW fsync").fetchone() == ("on",)

        timescale.kill()
        assert timescale.pid is None
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")

    timescale.start()
    with psycopg.connect(url, autocommit=True) as connection:
        assert connection.execute("SELECT line FROM logs").fetchall() == [("first",)]
        connection.execute("INSERT INTO logs VALUES ('2026-01-03', 'second')")

    timescale.restart()
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT line FROM logs ORDER BY at").fetchall() == [("first",), ("second",)]
        chunks = connection.execute("SELECT count(*) FROM timescaledb_information.chunks").fetchone()
        assert chunks == (2,)


@needs_apt
@pytest.mark.timescale
def test_kill_leaves_no_backend_behind(timescale: TimescaleNode) -> None:
    connection = psycopg.connect(timescale.url)
    backend = connection.info.backend_pid
    busy = b"SELECT sum(a * b) FROM generate_series(1, 100000) a, generate_series(1, 100000) b"
    connection.pgconn.send_query(busy)  # one that looks at nothing but its numbers for minutes
    _wait_until(lambda: _is_running(backend), "the query's start")
    timescale.kill()
    _wait_until(lambda: not _is_alive(backend), "the backend's end")
    connection.close()
    timescale.start()


@needs_apt
@pytest.mark.timescale
def test_database_needs_the_password(timescale: TimescaleNode) -> None:
    with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
        psycopg.connect(timescale.url.replace(timescale.secret(), "guess"))


@needs_apt
@pytest.mark.timescale
def test_started_server_is_found_again_by_its_directory(timescale: TimescaleNode) -> None:
    again = TimescaleNode(timescale.directory)
    assert again.pid == timescale.pid
    assert again.url == timescale.url
    again.start()
    assert again.pid == timescale.pid


@needs_apt
@pytest.mark.timescale
def test_server_dies_with_the_process_that_started_it(tmp_path: Path) -> None:
    program = (
        "import os, pathlib, signal, sys\n"
        "from infra.native import TimescaleNode\n"
        "node = TimescaleNode(pathlib.Path(sys.argv[1]))\n"
        "node.start()\n"
        "print(node.pid, flush=True)\n"
        "os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    node = TimescaleNode(tmp_path / "orphan")
    try:
        done = subprocess.run(
            [sys.executable, "-c", program, str(tmp_path / "orphan")],
            cwd=ROOT,
            capture_output=True,
            text=True,
            timeout=60,
        )
        pid = int(done.stdout)
        _wait_until(lambda: not _is_alive(pid), "the server's end")
    finally:
        node.remove()


# ---- the command


@needs_java
@needs_apt
@pytest.mark.kafka
@pytest.mark.timescale
async def test_services_run_in_the_background_until_stopped(tmp_path: Path) -> None:
    try:
        first = _services("start", tmp_path)
        assert first.returncode == 0, first.stderr
        settings = dict(line.removeprefix("export ").split("=", 1) for line in first.stdout.splitlines())
        assert settings["LOGFEED_PROFILE"] == "full"
        assert _services("start", tmp_path).stdout == first.stdout
        assert _services("status", tmp_path).returncode == 0
        await _create_topic(settings["LOGFEED_BROKER__BOOTSTRAP"], "here")
        with psycopg.connect(settings["LOGFEED_DATABASE__URL"]) as connection:
            found = connection.execute("SELECT 1 FROM pg_extension WHERE extname = 'timescaledb'").fetchone()
            assert found == (1,)
    finally:
        assert _services("stop", tmp_path).returncode == 0
    assert _services("stop", tmp_path).returncode == 0
    assert _services("status", tmp_path).returncode == 3
    remove_tree(reachable_home(tmp_path, server_account()))


# ---- what decides where and from where


def test_mirror_is_the_one_of_the_machine(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    with pytest.raises(InstallError, match="Debian 12 or 13"):
        debian_mirror(tmp_path)
    (tmp_path / "sources.list").write_text(
        "# deb http://comment.test/debian bookworm main\n"
        "deb-src http://source.test/debian bookworm main\n"
        "deb http://other.test/tools nodistro main\n"
        "deb [arch=amd64 signed-by=/k.gpg] http://line.test/debian bookworm main contrib # mine\n"
    )
    assert debian_mirror(tmp_path) == "http://line.test/debian"
    (tmp_path / "sources.list.d" / "debian.sources").write_text(
        "Types: deb\nEnabled: no\nURIs: http://off.test/debian\nSuites: trixie\nComponents: main\n\n"
        "Types: deb\nURIs: http://late.test/debian-security\nSuites: trixie-security\nComponents: main\n\n"
        "# a comment\nTypes: deb deb-src\nURIs: http://stanza.test/debian\nSuites: trixie\n trixie-updates\n"
        "Components: main\n"
    )
    assert debian_mirror(tmp_path) == "http://stanza.test/debian"


def test_closed_directory_is_not_reachable_for_another_account(tmp_path: Path) -> None:
    stranger = Account("stranger", uid=54321, gid=54321)
    shut = tmp_path / "shut"
    shut.mkdir(mode=0o700)
    assert not stranger.reaches(shut / "inside")
    assert Account("root", uid=0, gid=0).reaches(shut / "inside")
    assert stranger.reaches(Path("/usr/lib"))


def test_second_installer_waits_for_the_first(tmp_path: Path) -> None:
    program = (
        "import pathlib, sys\n"
        "from infra.native.places import locked\n"
        "with locked(pathlib.Path(sys.argv[1])):\n"
        "    pathlib.Path(sys.argv[2]).touch()\n"
    )
    lock, entered = tmp_path / "lock", tmp_path / "entered"
    with locked(lock):
        other = subprocess.Popen([sys.executable, "-c", program, str(lock), str(entered)], cwd=ROOT)
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(1.0)
        assert not entered.exists()
    assert other.wait(30) == 0
    assert entered.exists()


# ---- helpers


@asynccontextmanager
async def _producer(bootstrap: str) -> AsyncIterator[AIOKafkaProducer]:
    producer = AIOKafkaProducer(
        bootstrap_servers=bootstrap, acks="all", enable_idempotence=True, max_request_size=17 * 1024 * 1024
    )
    await producer.start()
    try:
        yield producer
    finally:
        await producer.stop()


async def _produce(bootstrap: str, topic: str, value: bytes) -> None:
    async with _producer(bootstrap) as producer:
        await producer.send_and_wait(topic, value)


async def _consume(bootstrap: str, topic: str, count: int) -> list[bytes]:
    consumer = AIOKafkaConsumer(bootstrap_servers=bootstrap, auto_offset_reset="none", enable_auto_commit=False)
    await consumer.start()
    try:
        partition = TopicPartition(topic, 0)
        consumer.assign([partition])
        consumer.seek(partition, 0)
        return [(await consumer.getone()).value for _ in range(count)]
    finally:
        await consumer.stop()


async def _create_topic(bootstrap: str, name: str) -> None:
    admin = AIOKafkaAdminClient(bootstrap_servers=bootstrap)
    await admin.start()
    try:
        await admin.create_topics([NewTopic(name, 1, 1)])
    finally:
        await admin.close()


def _services(action: str, directory: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "infra.native", "services", action, "--dir", str(directory)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=100)


def _is_alive(pid: int) -> bool:
    return _process_state(pid) not in "ZX"


def _is_running(pid: int) -> bool:
    return _process_state(pid) == "R"


def _process_state(pid: int) -> str:
    """The letter of proc(5); X when the process is gone."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
    except (FileNotFoundError, ProcessLookupError):
        return "X"


def _wait_until(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + 15.0
    while not condition():
        assert time.monotonic() < deadline, f"no sign of {what} in 15 s"
        time.sleep(0.02)
