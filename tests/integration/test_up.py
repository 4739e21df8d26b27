"""`logfeed up` and `logfeed demo` as a user has them: real processes, real signals, real data."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shlex
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import httpx
import psutil
import psycopg
import pytest

from db.embedded import recorded_url
from infra.fleet import REPOSITORY, free_port

Answer = TypeVar("Answer")
START_S = 150.0
"""On a machine that is busy with other tests; a few seconds otherwise."""

pytestmark = pytest.mark.timeout(300)


def until(condition: Callable[[], Answer], what: str, timeout_s: float = 60.0) -> Answer:
    """The first true answer, within a deadline."""
    deadline = time.monotonic() + timeout_s
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.05)
    return answer


class Up:
    """One `logfeed up` (or demo) over a directory."""

    def __init__(self, directory: Path, *more: str, command: str = "up", port: int | None = None) -> None:
        unwanted = ("LOGFEED_", "PYTHONDONTWRITEBYTECODE")
        environment = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
        self.directory = directory
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}"
        self.output = ""
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", command, "--port", str(self.port), "--data", str(directory), *more],
            cwd=REPOSITORY,
            env={**environment, "PYTHONUNBUFFERED": "1", "NO_PROXY": "127.0.0.1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )
        self._family: set[psutil.Process] = set()
        self._reading = threading.Thread(target=self._read, daemon=True)
        self._reading.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self.output += line

    def ready(self) -> Up:
        """Wait until it says so."""

        def said() -> bool:
            assert self.process.poll() is None, self.output
            return "Ctrl-C stops it" in self.output

        until(said, f"{self.url} is ready", START_S)
        self.family()
        return self

    def family(self) -> list[psutil.Process]:
        """Every process below it now; all that were ever seen must end with it."""
        living = psutil.Process(self.process.pid).children(recursive=True)
        self._family |= set(living)
        return living

    def child(self, role: str) -> psutil.Process:
        """The child that runs a role, or PostgreSQL's first process."""
        for process in psutil.Process(self.process.pid).children():
            try:
                if process.cmdline()[-1:] == [role] or (role == "postgres" and process.name() == role):
                    return process
            except psutil.NoSuchProcess:
                continue
        raise AssertionError(f"there is no {role}")

    def finished(self, timeout_s: float = 30.0) -> int:
        """Its exit code; nothing of it lives on."""
        code = self.process.wait(timeout_s)
        until(lambda: not [item for item in self._family if item.is_running()], f"{self._family} end", timeout_s)
        self._reading.join(timeout_s)
        return code

    def interrupt(self) -> int:
        """Ctrl-C in a terminal reaches every process of the foreground."""
        self.family()
        os.killpg(self.process.pid, signal.SIGINT)
        return self.finished()

    def kill(self) -> None:
        """Whatever happened, nothing stays."""
        if self.process.poll() is None:
            self.family()
            self.process.kill()
        self.finished()

    def credentials(self, which: str) -> dict[str, str]:
        """The header of one of its first keys."""
        return {"Authorization": f"Bearer {(self.directory / 'keys' / which).read_text().strip()}"}

    def send(self, *messages: str) -> None:
        """Logs that are acknowledged, each message its own. Tried again with the same key until they are taken."""
        key = hashlib.sha256(repr(messages).encode()).hexdigest()
        body = [{"service_name": "shop", "message": message} for message in messages]

        def taken() -> bool:
            try:
                answer = httpx.post(
                    f"{self.url}/api/v1/logs/batch",
                    json=body,
                    headers={"Idempotency-Key": key, **self.credentials("ingest")},
                    trust_env=False,
                )
            except httpx.HTTPError:
                return False
            assert answer.status_code in (201, 503), answer.text
            return answer.status_code == 201

        until(taken, "logs are taken")

    def logs(self, **parameters: str) -> list[dict[str, Any]]:
        """What a page shows."""
        try:
            answer = httpx.get(
                f"{self.url}/api/v1/logs",
                params={"limit": "1000", **parameters},
                headers=self.credentials("admin"),
                trust_env=False,
            )
        except httpx.HTTPError:
            return []
        assert answer.status_code in (200, 503), answer.text
        return answer.json()["logs"] if answer.status_code == 200 else []

    def shows(self, *messages: str) -> None:
        """Wait until exactly these are found, each once."""
        wanted = sorted(messages)
        until(lambda: sorted(log["message"] for log in self.logs()) == wanted, f"logs {wanted}; {self.output[-3000:]}")


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where everything is kept; the server's own user must pass through pytest's private directories."""
    made = tmp_path_factory.mktemp("up")
    for parent in (made, *made.parents):
        if parent.stat().st_uid == 0 and parent.stat().st_mode & 0o011 != 0o011:
            parent.chmod(parent.stat().st_mode | 0o011)
    return made


@pytest.fixture(scope="module")
def shared(directory: Path) -> Iterator[Up]:
    """One that tests may hurt, for it mends itself."""
    running = Up(directory / "shared").ready()
    yield running
    running.kill()


def test_printed_command_works_as_printed_and_data_survives_a_stop(directory: Path) -> None:
    first = Up(directory / "survives")
    try:
        first.ready()
        assert f"Logfeed is ready  {first.url}\n" in first.output
        assert str(directory / "survives") in first.output
        printed = re.search(r"^  (curl -s .*\\\n.*)$", first.output, re.MULTILINE)
        assert printed is not None, first.output
        assert first.url in shlex.split(printed[1].replace("\\\n", ""))[2]
        done = subprocess.run(["bash", "-c", printed[1]], capture_output=True, text=True, check=True)
        assert json.loads(done.stdout)["log_id"].isdecimal()
        first.shows("hello, Logfeed")
        for which in ("admin", "ingest"):
            file = directory / "survives" / "keys" / which
            assert file.stat().st_mode & 0o777 == 0o600
            assert first.output.count(file.read_text().strip()) == 1
        assert httpx.get(f"{first.url}/api/v1/logs", trust_env=False).status_code == 401
        kept = directory / "survives" / "keys" / "admin-password"
        assert kept.stat().st_mode & 0o777 == 0o600
        password = kept.read_text().strip()
        assert re.findall(r"^  admin +(\S+)  the password", first.output, re.MULTILINE) == [password]
        assert f"{first.url}/login" in first.output
        person = {"name": "admin", "password": password}
        token = httpx.post(f"{first.url}/api/v1/auth/login", json=person, trust_env=False).json()["access_token"]
        whose = httpx.get(
            f"{first.url}/api/v1/auth/me", headers={"Authorization": f"Bearer {token}"}, trust_env=False
        ).json()
        assert whose["permissions"]["admin"] == ["*"]
        asking = re.search(r"^  newest logs +(.*)$", first.output, re.MULTILINE)
        assert asking is not None, first.output
        program = f'logfeed() {{ {shlex.quote(sys.executable)} -m cli.main "$@"; }}'
        found = subprocess.run(
            ["bash", "-c", f"{program}\n{asking[1]} --json"], cwd=REPOSITORY, capture_output=True, text=True, check=True
        )
        assert "hello, Logfeed" in found.stdout
        began = time.monotonic()
        assert first.interrupt() == 0, first.output
        assert time.monotonic() - began < 20
        assert "Traceback" not in first.output
        assert '"level": "error"' not in first.output
    finally:
        first.kill()
    second = Up(directory / "survives", port=first.port)
    try:
        second.ready().shows("hello, Logfeed")
        second.send("after the start")
        second.shows("hello, Logfeed", "after the start")
        assert "lf_" not in second.output, "keys are shown once"
        assert password not in second.output, "the password is shown once"
    finally:
        second.kill()


@pytest.mark.parametrize("role", ["write", "serve", "postgres"])
def test_killed_part_comes_back_and_nothing_acknowledged_is_lost(shared: Up, role: str) -> None:
    before = sorted(log["message"] for log in shared.logs())
    shared.send(*(f"{role} {n} before" for n in range(20)))
    victim = shared.child(role)
    victim.kill()
    until(lambda: not victim.is_running() or victim.status() == psutil.STATUS_ZOMBIE, f"{role} is gone")
    shared.send(*(f"{role} {n} after" for n in range(20)))
    shared.shows(*before, *(f"{role} {n} {when}" for n in range(20) for when in ("before", "after")))
    assert shared.child(role).pid != victim.pid
    shared.family()


def test_second_up_on_the_same_directory_is_refused(shared: Up) -> None:
    second = Up(shared.directory)
    assert second.finished() == 2
    assert second.output.startswith(f"error: another `logfeed up` is using {shared.directory}: stop it")
    assert len(second.output.splitlines()) == 1
    assert shared.process.poll() is None
    assert httpx.get(f"{shared.url}/readyz", trust_env=False).status_code == 200


def test_port_in_use_is_refused(directory: Path) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        refused = Up(directory / "refused", port=port)
        assert refused.finished() == 2
    assert refused.output == (
        f"error: cannot listen on 127.0.0.1:{port}: Address already in use; choose another with --host, --port\n"
    )
    assert not (directory / "refused" / "postgres").exists()


def test_bad_configuration_is_refused_by_name(directory: Path) -> None:
    file = directory / "bad.yaml"
    file.write_text("http: {prot: 1}\nlog: {level: loud}\n")
    refused = Up(directory / "never", "--config", str(file))
    assert refused.finished() == 2
    assert "http.prot: there is no such setting: did you mean http.port?" in refused.output
    assert "log.level: Input should be 'debug', 'info', 'warning' or 'error', got 'loud'" in refused.output
    assert "Traceback" not in refused.output
    assert not (directory / "never").exists()


def test_configuration_file_reaches_every_part_and_a_killed_parent_takes_all_along(directory: Path) -> None:
    file = directory / "filters.yaml"
    file.write_text("ingest: {filters: [{type: level, name: quiet, minimum: WARN}]}\n")
    running = Up(directory / "configured", "--config", str(file))
    try:
        running.ready()
        answer = httpx.post(
            f"{running.url}/api/v1/logs",
            json={"service_name": "a", "message": "m"},
            headers=running.credentials("ingest"),
            trust_env=False,
        )
        assert answer.status_code == 200, "the filter drops it"
        assert len(running.family()) > 4
        url = recorded_url(running.directory)
        assert url is not None
        psycopg.connect(url).close()
        running.process.kill()
        assert running.finished() == -signal.SIGKILL
        with pytest.raises(psycopg.OperationalError):
            psycopg.connect(url)
    finally:
        running.kill()


@pytest.mark.slow
def test_demo_shows_a_lively_shop_and_stops_on_ctrl_c(directory: Path) -> None:
    demo = Up(directory / "demo", command="demo")
    try:
        demo.ready()
        assert "Sample traffic is flowing" in demo.output
        assert f"logfeed logs --url {demo.url} 'level:error' --limit 20\n" in demo.output
        until(lambda: len({log["service_name"] for log in demo.logs()}) >= 4, "several services")
        failed = until(lambda: demo.logs(level="error"), "errors")
        followed = next(log["correlation_id"] for log in failed if log["correlation_id"])
        path = f"{demo.url}/api/v1/correlations/{followed}/logs"
        story = httpx.get(path, headers=demo.credentials("admin"), trust_env=False).json()["logs"]
        assert len({log["service_name"] for log in story}) >= 2
        newest = demo.logs(limit="1")[0]["timestamp"]
        until(lambda: demo.logs(limit="1")[0]["timestamp"] > newest, "more traffic")
        assert demo.interrupt() == 0, demo.output
        assert "Traceback" not in demo.output
    finally:
        demo.kill()
