"""Services for the whole run: started once, by the controller of pytest-xdist (or by pytest itself), shared by all workers.

Unit tests and readers need none of them: `pytest tests/unit tests/fuzz` starts nothing, and neither does a run with
LOGFEED_TEST_NO_SERVICES=1, where tests that need a service are skipped and say so. Each test that needs a database gets a
fresh one; topics have random names. Files of all of them lie in memory (`tests.scratch`).
"""

from __future__ import annotations

import faulthandler
import os
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from db.migrations import Layout
from infra import warm
from tests.databases import create_database, create_migrated_database, drop_database, drop_templates
from tests.scratch import use_scratch

if TYPE_CHECKING:
    from tests.fleets import Fleets, OwnBroker
    from tests.s3_server import S3Server
    from tests.services import SharedServices

_shared: SharedServices | None = None
_remove_scratch: Callable[[], None] | None = None

WITHOUT_SERVICES = tuple(Path(__file__).resolve().parent / name for name in ("unit", "fuzz"))
TEARDOWN_S_MAX = 300
"""After which the process of a worker ends; its test has failed then, and another goes on."""
RUN_VARIABLE = "LOGFEED_TEST_RUN"
"""Name of the run, the same in all its processes: templates of databases bear it."""


def pytest_configure(config: pytest.Config) -> None:
    """Start the shared services before any worker starts; unit tests alone start none."""
    global _shared, _remove_scratch
    warm.is_used = True
    if hasattr(config, "workerinput") or not _wants_services(config):
        return
    _remove_scratch = use_scratch()
    from tests.services import start_shared_services

    _shared = start_shared_services()
    os.environ[RUN_VARIABLE] = uuid.uuid4().hex[:8]
    for name, value in (
        ("LOGFEED_TEST_KAFKA", _shared.kafka_bootstrap),
        ("LOGFEED_TEST_TIMESCALE", _shared.timescale_url),
        ("LOGFEED_TEST_EMBEDDED", _shared.embedded_url),
    ):
        if value is not None:
            os.environ[name] = value
    for name, problem in _shared.problems.items():
        os.environ[f"LOGFEED_TEST_PROBLEM_{name.upper()}"] = problem


@pytest.hookimpl(wrapper=True)
def pytest_runtest_teardown() -> Iterator[None]:
    """A teardown that never ends would hold up the whole run: pytest-timeout looks away once a test has failed."""
    faulthandler.dump_traceback_later(TEARDOWN_S_MAX, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()


def pytest_unconfigure(config: pytest.Config) -> None:
    """Stop what was started; on servers that were given, leave nothing behind."""
    if _shared is not None:
        for server in filter(None, (_shared.embedded_url, _shared.timescale_url)):
            drop_templates(server, run=os.environ[RUN_VARIABLE])
        _shared.stop()
    if _remove_scratch is not None:
        _remove_scratch()


def _wants_services(config: pytest.Config) -> bool:
    if os.environ.get("LOGFEED_TEST_NO_SERVICES") == "1" or config.option.collectonly:
        return False
    asked = [(config.invocation_params.dir / argument.split("::")[0]).resolve() for argument in config.args]
    return not all(any(path.is_relative_to(folder) for folder in WITHOUT_SERVICES) for path in asked)


def _service(name: str) -> str:
    value = os.environ.get(f"LOGFEED_TEST_{name}")
    if value is None:
        reason = os.environ.get(f"LOGFEED_TEST_PROBLEM_{name}", "not started")
        if os.environ.get("CI"):
            pytest.fail(f"{name.lower()} is missing in CI: {reason}")
        pytest.skip(f"{name.lower()} is missing: {reason}")
    return value


@pytest.fixture(scope="session")
def embedded_server() -> str:
    """URL of the shared embedded PostgreSQL 18."""
    return _service("EMBEDDED")


@pytest.fixture(scope="session")
def timescale_server() -> str:
    """URL of the shared TimescaleDB."""
    return _service("TIMESCALE")


@pytest.fixture(scope="session")
def kafka_bootstrap() -> str:
    """host:port of the shared Kafka broker."""
    return _service("KAFKA")


@pytest.fixture(scope="module")
def postgres_url(embedded_server: str) -> Iterator[str]:
    """A fresh, empty database on embedded PostgreSQL, per module."""
    url = create_database(embedded_server)
    yield url
    drop_database(embedded_server, url)


@pytest.fixture
def native_url(embedded_server: str) -> Iterator[str]:
    """A fresh migrated database with native partitions, per test."""
    url = create_migrated_database(embedded_server, Layout.NATIVE, run=os.environ[RUN_VARIABLE])
    yield url
    drop_database(embedded_server, url)


@pytest.fixture
def timescale_url(timescale_server: str) -> Iterator[str]:
    """A fresh migrated database with a hypertable, per test."""
    url = create_migrated_database(timescale_server, Layout.TIMESCALE, run=os.environ[RUN_VARIABLE])
    yield url
    drop_database(timescale_server, url)


@pytest.fixture(scope="session")
def fleets() -> Iterator[Fleets]:
    """Makes fleets of real processes on servers of this process, which start at the first need."""
    from tests.fleets import Fleets

    made = Fleets(os.environ[RUN_VARIABLE])
    yield made
    made.stop()


@pytest.fixture(params=["queue", pytest.param("kafka", marks=pytest.mark.kafka)])
def own_broker(request: pytest.FixtureRequest, fleets: Fleets) -> Iterator[OwnBroker]:
    """A running broker that the test may hurt."""
    # The shared one skips, with the reason, where there can be none.
    request.getfixturevalue("kafka_bootstrap" if request.param == "kafka" else "embedded_server")
    with fleets.broker(request.param) as broker:
        yield broker


@pytest.fixture(scope="session")
def s3_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[S3Server]:
    """A real S3 server that lets everybody in, started when the first test of this process needs it."""
    from tests.s3_server import S3Server

    server = S3Server(tmp_path_factory.mktemp("s3"))
    try:
        server.start()
        yield server
    finally:
        server.stop()


@pytest.fixture
def aws_credentials(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tests' own credentials in AWS's variables, and none of the machine's."""
    from tests.s3_server import ACCESS_KEY, SECRET_KEY, SESSION_TOKEN

    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", ACCESS_KEY)
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET_KEY)
    monkeypatch.setenv("AWS_SESSION_TOKEN", SESSION_TOKEN)


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Real log lines beside the repository; the test is skipped where they are absent."""
    directory = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not directory.is_dir():
        pytest.skip("no real log lines beside the repository (../shared/data)")
    return directory
