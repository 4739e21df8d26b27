"""One server process: started, stopped, killed and found again by its directory.

Promises: the port chosen at the first start is kept; `start` returns when the server answers and finds a running server
of the same directory by its state file (pid and start time, so that a reused pid is not mistaken for it); `kill` leaves
no process of the server behind, as a power switch would.

`die_with_parent` makes the kernel end the server with the thread that started it: call `start` from a thread that lives
as long as the server is wanted, usually the main one. Not thread-safe; two processes must not start one directory at
once without a lock of their own.
"""

import contextlib
import ctypes
import json
import os
import random
import signal
import socket
import subprocess
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypedDict

from infra.native.errors import NodeError
from infra.native.places import open_to_all, reachable_home, remove_tree, server_account

START_SECONDS_MAX = 60.0
STOP_SECONDS_MAX = 60.0
LOG_BYTES_MAX = 16 * 1024 * 1024
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None, use_errno=True)


class State(TypedDict, total=False):
    """What a node remembers in its state file between processes."""

    ports: dict[str, int]
    pid: int
    started_ticks: int
    secret: str


class Node(ABC):
    """A server in `directory` (see `places` for where root's servers live). Subclasses say how it is set up and asked."""

    name: str
    death_signal: signal.Signals
    stop_signal: signal.Signals
    start_seconds_max: float = START_SECONDS_MAX

    def __init__(self, directory: Path, *, die_with_parent: bool = True) -> None:
        self.account = server_account()
        self.directory = reachable_home(directory.absolute(), self.account)
        self._die_with_parent = die_with_parent
        self._child: subprocess.Popen[bytes] | None = None
        self._state = self._load()

    # ---- what a server must say about itself

    @abstractmethod
    def prepare(self) -> None:
        """Installs and sets up what is not there yet, and writes the configuration; called before each spawn."""

    @abstractmethod
    def command(self) -> list[str]:
        """The program and its arguments."""

    @abstractmethod
    def answers(self) -> bool:
        """Whether the server does its work, not only listens."""

    def environment(self) -> dict[str, str]:
        """All of the server's environment: nothing of the caller's settings gets in."""
        return {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC", "HOME": str(self.directory)}

    # ---- the life of the process

    def start(self) -> None:
        """Starts the server where it does not run and waits until it answers. `NodeError` carries its log's tail."""
        self.spawn()
        self.wait_ready()

    def spawn(self) -> None:
        """Starts the process without waiting, so that two servers can start at the same time."""
        if self.pid is not None:
            return
        open_to_all(self.directory)
        self.prepare()
        self._rotate_log()
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                self.command(),
                cwd=self.directory,
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                preexec_fn=self._tie_to_parent() if self._die_with_parent else None,
                **self._run_as(),
            )
        self._state["pid"] = self._child.pid
        self._state["started_ticks"] = _started_ticks(self._child.pid) or 0
        self.save()

    def wait_ready(self) -> None:
        """Waits until the spawned server answers, at most `start_seconds_max`."""
        deadline = time.monotonic() + self.start_seconds_max
        while not self.answers():
            if self.pid is None:
                raise NodeError(f"{self.name} ended while it started; the end of {self.log}:\n{self._log_tail()}")
            if time.monotonic() > deadline:
                self.kill()
                raise NodeError(
                    f"{self.name} did not answer in {self.start_seconds_max:.0f} s; {self.log}:\n{self._log_tail()}"
                )
            time.sleep(0.05)

    def stop(self) -> None:
        """Asks the server to end and waits; kills it after `STOP_SECONDS_MAX`. Not running is fine."""
        pid = self.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, self.stop_signal)
            if not self._gone_within(STOP_SECONDS_MAX):
                self.kill()
        self._forget_process()

    def kill(self) -> None:
        """SIGKILL to the server and all of its descendants. Not running is fine."""
        pid = self.pid
        if pid is not None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)  # so that it starts nothing new while its children are counted
            for each in (*_descendants(pid), pid):
                with contextlib.suppress(ProcessLookupError):
                    os.kill(each, signal.SIGKILL)
            if not self._gone_within(STOP_SECONDS_MAX):
                raise NodeError(f"{self.name}, process {pid}, is still there after SIGKILL")
        self._forget_process()

    def restart(self) -> None:
        """Stops and starts on the same port with the same data."""
        self.stop()
        self.start()

    def remove(self) -> None:
        """Kills the server and deletes its data."""
        self.kill()
        remove_tree(self.directory)
        self._state = {}

    @property
    def pid(self) -> int | None:
        """The running server's process id, whoever started it; None when it does not run."""
        if self._child is not None and self._child.poll() is not None:
            self._child = None
        pid = self._state.get("pid")
        if pid is None or _started_ticks(pid) != self._state.get("started_ticks"):
            return None
        return pid

    @property
    def log(self) -> Path:
        """The file that the server writes its messages to."""
        return self.directory / f"{self.name}.log"

    # ---- for subclasses

    def port(self, role: str = "main") -> int:
        """The loopback port of `role`: free when first asked for, the same ever after."""
        ports = self._state.setdefault("ports", {})
        if role not in ports:
            ports[role] = free_port(exclude=set(ports.values()))
            self.save()
        return ports[role]

    def secret(self) -> str:
        """A password for this directory's server, made at the first call."""
        if "secret" not in self._state:
            self._state["secret"] = os.urandom(18).hex()
            self.save()
        return self._state["secret"]

    def save(self) -> None:
        """Writes the state file at once and completely; it may hold a password."""
        open_to_all(self.directory)
        path = self.directory / "node.json"
        fresh = path.with_suffix(".new")
        fresh.unlink(missing_ok=True)
        fresh.touch(mode=0o600)
        fresh.write_text(json.dumps(self._state))
        fresh.replace(path)

    def own(self, path: Path) -> None:
        """Gives a file or directory to the account that the server runs as."""
        if not self.account.is_caller:
            os.chown(path, self.account.uid, self.account.gid)

    def run_as_server(self, command: list[str]) -> None:
        """Runs a set-up program as the server's account; `NodeError` with its output when it fails."""
        done = subprocess.run(
            command,
            cwd=self.directory,
            env=self.environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            **self._run_as(),
        )
        if done.returncode:
            raise NodeError(f"`{command[0]}` failed:\n{done.stdout.decode(errors='replace')[-2000:]}")

    def _run_as(self) -> "_RunAs":
        if self.account.is_caller:
            return {}
        return {"user": self.account.uid, "group": self.account.gid, "extra_groups": []}

    def _tie_to_parent(self) -> Callable[[], None]:
        parent = os.getpid()
        number = int(self.death_signal)

        def tie() -> None:  # runs after the change of user, which would clear the setting
            _LIBC.prctl(_PR_SET_PDEATHSIG, number, 0, 0, 0)
            if os.getppid() != parent:  # it died before the kernel was told
                os._exit(1)

        return tie

    def _gone_within(self, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while self.pid is not None:
            if time.monotonic() > deadline:
                return False
            time.sleep(0.02)
        return True

    def _forget_process(self) -> None:
        if self._child is not None:
            self._child.wait()
            self._child = None
        if self._state.pop("pid", None) is not None and self.directory.exists():
            self.save()

    def _load(self) -> State:
        try:
            loaded: State = json.loads((self.directory / "node.json").read_text())
        except FileNotFoundError:
            return {}
        return loaded

    def _rotate_log(self) -> None:
        if self.log.exists() and self.log.stat().st_size > LOG_BYTES_MAX:
            self.log.replace(self.log.with_suffix(".log.1"))

    def _log_tail(self) -> str:
        if not self.log.exists():
            return "(no log)"
        with self.log.open("rb") as file:
            file.seek(max(0, self.log.stat().st_size - 3000))
            return file.read().decode(errors="replace")


class _RunAs(TypedDict, total=False):
    user: int
    group: int
    extra_groups: list[int]


def free_port(exclude: set[int]) -> int:
    """A free loopback port below the range that outgoing connections take theirs from, so that it stays free while the
    server restarts. `NodeError` when none is found."""
    first_ephemeral = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    low, high = (20_000, first_ephemeral) if first_ephemeral > 21_000 else (20_000, 32_768)
    for port in random.sample(range(low, high), 200):
        with socket.socket() as probe, contextlib.suppress(OSError):
            if port not in exclude:
                probe.bind(("127.0.0.1", port))
                return port
    raise NodeError(f"no free loopback port found between {low} and {high}")


def _started_ticks(pid: int) -> int | None:
    """When the process began, in clock ticks since boot (proc(5), field 22); None when it is gone or a zombie."""
    try:
        fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if fields[0] in "ZX" else int(fields[19])


def _descendants(pid: int) -> Iterator[int]:
    for task in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            for child in map(int, task.read_text().split()):
                yield from _descendants(child)
                yield child
