"""Starts roles and commands in processes that need not import first: a server that has imported everything forks them.

Importing is most of what a start costs (1.3 s of CPU), and a run of the tests starts hundreds. What is forked runs
`cli.main.main` as `python -m cli.main` would: arguments, environment, directory, session and standard streams are its own, and
nothing of Logfeed has run in the server. Benchmarks start roles as users do, and so do tests of what a start itself promises.

    server: one per test process, started at the first need; ends, with all its children, when its socket closes.
    request: one datagram of MessagePack, with file descriptors: standard input, output, errors, and a pipe; answer: the
        process id.
    end: the server writes the exit status to the pipe, and closes it.

Concurrency: requests follow one another under a lock; processes may be waited for by any thread.
"""

from __future__ import annotations

import ctypes
import gc
import importlib
import os
import select
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import IO, Final

import msgspec

REPOSITORY: Final = Path(__file__).resolve().parents[1]
is_used = False
"""Whether `infra.fleet` starts roles so."""

_REQUEST_BYTES_MAX: Final = 128 * 1024
_ANSWER_S: Final = 60.0
_STATUS: Final = struct.Struct("i")
_LOGFEED: Final = "cli.main"


class _Request(msgspec.Struct):
    program: str
    arguments: list[str]
    environment: dict[str, str]


class WarmProcess:
    """As much of `subprocess.Popen` as roles need."""

    def __init__(self, pid: int, ended: int) -> None:
        """ended: the reading end of a pipe; closed here."""
        self.pid = pid
        self.returncode: int | None = None
        self._ended = ended
        self._lock = threading.Lock()

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        return self._look(0.0)

    def wait(self, timeout: float | None = None) -> int:
        """The exit code. Raises subprocess.TimeoutExpired."""
        ends_s = None if timeout is None else time.monotonic() + timeout
        while (code := self._look(0.2)) is None:
            if timeout is not None and ends_s is not None and time.monotonic() > ends_s:
                raise subprocess.TimeoutExpired(f"role with pid {self.pid}", timeout)
        return code

    def send_signal(self, number: int) -> None:
        """Nothing happens to one that has ended."""
        if self.poll() is None:
            os.kill(self.pid, number)

    def _look(self, wait_s: float) -> int | None:
        with self._lock:
            if self.returncode is None and select.select([self._ended], [], [], wait_s)[0]:
                status = os.read(self._ended, _STATUS.size)
                # Without one the server is gone, and its children with it.
                self.returncode = _STATUS.unpack(status)[0] if status else -signal.SIGKILL
                os.close(self._ended)
            return self.returncode


class _Server:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._process: subprocess.Popen[bytes] | None = None

    def start(self, request: _Request, streams: tuple[IO[bytes], IO[bytes], IO[bytes]]) -> WarmProcess:
        """Raises OSError when the server does not answer."""
        reading, writing = os.pipe()
        try:
            with self._lock:
                ours = self._connected()
                descriptors = [*(stream.fileno() for stream in streams), writing]
                socket.send_fds(ours, [msgspec.msgpack.encode(request)], descriptors)
                (pid,) = _STATUS.unpack(ours.recv(_STATUS.size))
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        return WarmProcess(pid, reading)

    def _connected(self) -> socket.socket:
        if self._socket is None or self._process is None or self._process.poll() is not None:
            self._socket, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
            self._socket.settimeout(_ANSWER_S)
            # Roles get environments of their own: this one is of the server alone.
            environment = {name: value for name, value in os.environ.items() if not name.startswith("LOGFEED_")}
            environment.pop("PYTHONDONTWRITEBYTECODE", None)
            environment["TERM"] = "dumb"  # what is imported here must not think of the tests' terminal
            with theirs:
                self._process = subprocess.Popen(
                    [sys.executable, "-m", "infra.warm", str(theirs.fileno())],
                    cwd=REPOSITORY,
                    env=environment,
                    stdin=subprocess.DEVNULL,
                    pass_fds=[theirs.fileno()],
                    start_new_session=True,
                )
        return self._socket


_server: Final = _Server()


def start_role(arguments: list[str], environment: dict[str, str], log_path: Path) -> WarmProcess:
    """Run `logfeed ARGUMENTS` with this environment in a process of its own; what it writes goes to log_path."""
    with open(os.devnull, "rb") as nothing, log_path.open("ab") as output:
        return _server.start(_Request(_LOGFEED, arguments, environment), (nothing, output, output))


def run(
    *arguments: str, environment: dict[str, str], stdin: str = "", program: str = _LOGFEED, timeout_s: float = 120.0
) -> subprocess.CompletedProcess[str]:
    """Run `main()` of the module `program` with these arguments in a process of its own, to its end.

    Raises subprocess.TimeoutExpired; the process is killed then."""
    with tempfile.TemporaryFile() as read, tempfile.TemporaryFile() as output, tempfile.TemporaryFile() as errors:
        read.write(stdin.encode())
        read.seek(0)
        process = _server.start(_Request(program, list(arguments), environment), (read, output, errors))
        try:
            code = process.wait(timeout_s)
        finally:
            process.send_signal(signal.SIGKILL)
        output.seek(0)
        errors.seek(0)
        return subprocess.CompletedProcess(arguments, code, output.read().decode(), errors.read().decode())


def _serve(requests: socket.socket) -> _Request:
    """Until the socket closes, when everything ends; in a child it returns what that one is to do."""
    wake_reading, wake_writing = os.pipe()
    os.set_blocking(wake_writing, False)
    os.set_blocking(wake_reading, False)
    signal.set_wakeup_fd(wake_writing)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    ends: dict[int, int] = {}
    while True:
        ready, _, _ = select.select([requests.fileno(), wake_reading], [], [])
        if wake_reading in ready:
            os.read(wake_reading, 4096)
            _reap(ends)
        if requests.fileno() not in ready:
            continue
        message, descriptors, _, _ = socket.recv_fds(requests, _REQUEST_BYTES_MAX, 4)
        if not message:
            for pid in ends:
                os.kill(pid, signal.SIGKILL)
            os._exit(0)
        request = msgspec.msgpack.decode(message, type=_Request)
        *streams, ended = descriptors
        parent = os.getpid()
        pid = os.fork()
        if pid == 0:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for descriptor in (wake_reading, wake_writing, ended, *ends.values()):
                os.close(descriptor)
            requests.close()
            _become(request, streams, parent)
            return request
        for stream in streams:
            os.close(stream)
        ends[pid] = ended
        requests.send(_STATUS.pack(pid))


def _reap(ends: dict[int, int]) -> None:
    while ends:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return
        if pid == 0:
            return
        ended = ends.pop(pid)
        os.write(ended, _STATUS.pack(os.waitstatus_to_exitcode(status)))
        os.close(ended)


def _become(request: _Request, streams: list[int], parent: int) -> None:
    """What a new process would have been given."""
    os.setsid()
    ctypes.CDLL(None).prctl(1, signal.SIGKILL, 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
        os.close(stream)
    os.environ.clear()
    os.environ.update(request.environment)
    if "PYTHONUNBUFFERED" in request.environment:
        sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115  # for as long as the process lasts
    time.tzset()


def _import_roles() -> None:
    """Everything that any role imports, and most of what commands do."""
    for name in (
        _LOGFEED,
        "uvloop",
        *(f"cli.{role}_role" for role in ("alert", "http", "mining", "route", "tier", "write")),
    ):
        importlib.import_module(name)


if __name__ == "__main__":
    _import_roles()
    gc.collect()
    gc.freeze()  # looking at what is shared would copy it
    asked = _serve(socket.socket(fileno=int(sys.argv[1])))
    sys.argv = ["logfeed", *asked.arguments]
    importlib.import_module(asked.program).main()
