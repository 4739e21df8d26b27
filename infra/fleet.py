"""A whole Logfeed of real processes over real servers in one directory: what fault tests hurt and benchmarks load.

Every role runs as `python -m cli.main ROLE`, as a user would start it, and dies with the process that started it. Tests have
them forked instead (infra/warm.py), which spares them the imports.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import os
import signal
import socket
import subprocess
import sys
import time
import uuid
from collections.abc import Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path

import httpx

from db.embedded import EmbeddedPostgres
from db.migrations import Layout, migrate
from infra import warm
from infra.native import KafkaNode, TimescaleNode

REPOSITORY = Path(__file__).resolve().parents[1]
FULL = "full"
EMBEDDED = "embedded"


async def until(condition: Callable[[], Awaitable[bool]], *, what: str, timeout_s: float = 60.0) -> None:
    """Wait for a condition, with a deadline."""
    deadline = time.monotonic() + timeout_s
    while not await condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        await asyncio.sleep(0.05)


def free_port() -> int:
    """A port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def die_with_parent() -> None:
    """In a child before it runs: be killed when the thread that started it ends."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)


@dataclass
class Role:
    """One process."""

    arguments: list[str]
    environment: dict[str, str]
    log_path: Path
    program: Path = REPOSITORY
    """Directory of the packages that it runs."""
    process: subprocess.Popen[bytes] | warm.WarmProcess | None = None
    peak_kib: int = 0

    def start(self) -> None:
        """Start it (again)."""
        if warm.is_used and self.program == REPOSITORY:
            self.process = warm.start_role(self.arguments, self.environment, self.log_path)
            return
        with self.log_path.open("ab") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "cli.main", *self.arguments],
                cwd=self.program,
                env=self.environment,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                preexec_fn=die_with_parent,
                start_new_session=True,
            )

    @property
    def alive(self) -> bool:
        """True while it runs."""
        return self.process is not None and self.process.poll() is None

    def signal(self, number: signal.Signals) -> None:
        """Send a signal."""
        assert self.process is not None
        self._note_peak()
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(number)

    def kill(self) -> None:
        """SIGKILL and reap."""
        if self.process is not None:
            self.signal(signal.SIGKILL)
            self.process.wait()

    def stop(self, timeout_s: float = 30.0) -> int:
        """SIGTERM; returns the exit code. Fails the test when it does not end."""
        assert self.process is not None
        self.signal(signal.SIGTERM)
        return self.process.wait(timeout_s)

    def restart_killed(self) -> None:
        """SIGKILL, then start."""
        self.kill()
        self.start()

    def log_text(self) -> str:
        """What it wrote so far."""
        return self.log_path.read_text(errors="replace") if self.log_path.exists() else ""

    def _note_peak(self) -> None:
        assert self.process is not None
        with contextlib.suppress(OSError, ValueError):
            for line in Path(f"/proc/{self.process.pid}/status").read_text().splitlines():
                if line.startswith("VmHWM:"):
                    self.peak_kib = max(self.peak_kib, int(line.split()[1]))


class Servers:
    """Broker and database of one profile in one directory. They end with this object's own thread, which starts them.

    Any thread may call; calls block, and follow one another."""

    def __init__(
        self,
        profile: str,
        directory: Path,
        *,
        kafka: KafkaNode | None = None,
        timescale: TimescaleNode | None = None,
    ) -> None:
        """kafka, timescale: of the full profile, where they are others than usual."""
        self.profile = profile
        self.kafka = (kafka or KafkaNode(directory / "kafka")) if profile == FULL else None
        self.timescale = (timescale or TimescaleNode(directory / "timescale")) if profile == FULL else None
        self.embedded = EmbeddedPostgres(directory / "embedded") if profile == EMBEDDED else None
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="servers")

    @property
    def layout(self) -> Layout:
        """Of the profile's tables."""
        return Layout.NATIVE if self.profile == EMBEDDED else Layout.TIMESCALE

    @property
    def url(self) -> str:
        """The superuser's address of the database `logfeed`."""
        database = self.embedded or self.timescale
        assert database is not None
        return database.url

    def start(self) -> None:
        """Start what does not run, and wait until it answers."""
        self._do(self._start)

    def start_broker(self) -> None:
        """The broker alone. In the embedded profile it is the database."""
        self._do(self._start if self.kafka is None else self.kafka.start)

    def stop(self) -> None:
        """For good; what native nodes stored goes with them."""
        self._do(self._stop)
        self._thread.shutdown()

    def kill_database(self) -> None:
        """As a crash would."""
        self._do(self._kill_database)

    def kill_broker(self) -> None:
        """In the embedded profile it is the database."""
        self._do(self._kill_broker)

    def _do(self, work: Callable[[], None]) -> None:
        self._thread.submit(work).result()

    def _start(self) -> None:
        if self.embedded is not None:
            if not self.embedded.running():
                self.embedded.start()
            return
        assert self.kafka is not None
        assert self.timescale is not None
        self.kafka.spawn()
        self.timescale.start()
        self.kafka.wait_ready()

    def _stop(self) -> None:
        for server in (self.embedded, self.timescale, self.kafka):
            if server is not None:
                server.stop()
        for node in (self.timescale, self.kafka):
            if node is not None:
                node.remove()

    def _kill_database(self) -> None:
        database = self.embedded or self.timescale
        assert database is not None
        database.kill()

    def _kill_broker(self) -> None:
        if self.kafka is None:
            self._kill_database()
        else:
            self.kafka.kill()


@dataclass
class Fleet:
    """Servers and roles of one profile in one directory."""

    profile: str
    directory: Path
    partitions: int = 4
    extra: dict[str, str] = field(default_factory=dict)
    """More environment for every role."""
    access: str = "false"
    """Whether access control is on. Its cost and faults are measured where it is meant."""
    writers_listen: bool = False
    """Writers get a health port, so that `ready` can wait for them."""
    roles: list[Role] = field(default_factory=list)
    shared: Servers | None = None
    """Servers that run and outlive the fleet, which has `database_url` on them to itself. None: its own, in its directory."""
    database_url: str = ""

    def __post_init__(self) -> None:
        self.directory.mkdir(parents=True, exist_ok=True)
        self.topic = f"logs.{uuid.uuid4().hex[:8]}"
        self.servers = self.shared or Servers(self.profile, self.directory)
        self.kafka, self.timescale, self.embedded = self.servers.kafka, self.servers.timescale, self.servers.embedded
        self.ports: dict[str, int] = {}

    def start_servers(self) -> None:
        """Start the broker and the database, where these are its own, and migrate."""
        if self.shared is not None:
            return
        self.servers.start()
        self.database_url = self.servers.url
        asyncio.run(migrate(self.database_url, self.servers.layout))

    def stop_everything(self) -> None:
        """Kill the roles, stop its own servers."""
        for role in self.roles:
            if role.alive:
                role.signal(signal.SIGCONT)
                role.kill()
        if self.shared is None:
            self.servers.stop()

    def restart_database(self) -> None:
        """Kill the database as a crash would and start it again."""
        self.servers.kill_database()
        self.servers.start()

    def restart_broker(self) -> None:
        """Kill the broker and start it again (in the embedded profile it is the database)."""
        self.servers.kill_broker()
        self.servers.start()

    def environment(self, **more: str) -> dict[str, str]:
        """What a role sees."""
        # Compiled modules halve the start of every process.
        unwanted = ("LOGFEED_", "PYTHONDONTWRITEBYTECODE")
        clean = {name: value for name, value in os.environ.items() if not name.startswith(unwanted)}
        settings = {
            "LOGFEED_PROFILE": self.profile,
            "LOGFEED_DATABASE__URL": self.database_url,
            "LOGFEED_BROKER__TOPIC": self.topic,
            "LOGFEED_BROKER__PARTITIONS": str(self.partitions),
            "LOGFEED_LOG__JSON_LINES": "true",
            "LOGFEED_ACCESS__ENABLED": self.access,
        }
        if self.kafka is not None:
            settings["LOGFEED_BROKER__BOOTSTRAP"] = self.kafka.bootstrap
        return {**clean, **settings, **self.extra, **more}

    def role(self, name: str, *, label: str | None = None, **more: str) -> Role:
        """Start a role. HTTP roles get a port of their own; writers, and who leads one at a time, a stable name."""
        return self.role_of(REPOSITORY, name, label=label, **more)

    def role_of(self, program: Path, name: str, *, label: str | None = None, **more: str) -> Role:
        """The same of another version. program: directory of its packages."""
        label = label or name
        arguments = [name]
        if name == "write":
            arguments += ["--name", label]
            if self.writers_listen:
                self.ports[label] = free_port()
                more["LOGFEED_WRITER__HEALTH_PORT"] = str(self.ports[label])
        elif name in ("alert", "mine", "route", "tier"):
            arguments += ["--name", label]
        else:
            self.ports[label] = free_port()
            arguments += ["--port", str(self.ports[label])]
        role = Role(arguments, self.environment(**more), self.directory / f"{label}.log", program)
        role.start()
        self.roles.append(role)
        return role

    def url(self, label: str) -> str:
        """Base URL of an HTTP role."""
        return f"http://127.0.0.1:{self.ports[label]}"

    async def ready(self, *labels: str, timeout_s: float = 60.0) -> None:
        """Wait until the HTTP roles are ready."""
        async with httpx.AsyncClient(trust_env=False) as client:
            for label in labels:

                async def answers(label: str = label) -> bool:
                    with contextlib.suppress(httpx.HTTPError):
                        return (await client.get(f"{self.url(label)}/readyz", timeout=2)).status_code == 200
                    return False

                await until(answers, what=f"{label} ready", timeout_s=timeout_s)

    def failures(self) -> str:
        """Ends of the roles' logs, for a failing test's message."""
        return "\n".join(f"--- {role.log_path.name}\n{role.log_text()[-3000:]}" for role in self.roles)
