"""A real PostgreSQL 17 with TimescaleDB (Apache edition), on loopback TCP, with a password.

Durable on purpose: fsync and full page writes stay on, so that a test which kills it proves something.
`TIMESCALE_SETTINGS` are what the product relies on; the containers use them too. The extension is also in `template1`, as in
the vendor's image, so every database created here has it.
"""

import re
import signal
import subprocess
from pathlib import Path
from urllib.parse import quote

from db.server_settings import SERVER_SETTINGS
from infra.native.errors import NodeError
from infra.native.install import POSTGRES_MAJOR, bin_directory, install_timescale
from infra.native.node import Node
from infra.native.places import remove_tree

SUPERUSER = "logfeed"
DATABASE = "logfeed"

TIMESCALE_SETTINGS = {
    "shared_preload_libraries": "timescaledb",
    "timescaledb.telemetry_level": "off",
    "max_worker_processes": "32",
    **SERVER_SETTINGS,
}
# Case folding and sort order that depend on no library: the same on every machine and in every container.
INITDB_ARGUMENTS = ("--encoding=UTF8", "--locale-provider=builtin", "--builtin-locale=C.UTF-8", "--locale=C")


class TimescaleNode(Node):
    """One PostgreSQL server with TimescaleDB whose data lives in its directory."""

    name = "timescale"
    death_signal = signal.SIGQUIT  # immediate shutdown: as abrupt as a kill, and it takes the backends along
    stop_signal = signal.SIGINT  # fast shutdown: ends sessions, writes a checkpoint

    @property
    def url(self) -> str:
        """The superuser's address of the database `logfeed`."""
        return self.url_of(DATABASE)

    def url_of(self, database: str) -> str:
        """The superuser's address of another database of this server."""
        return f"postgresql://{SUPERUSER}:{self.secret()}@127.0.0.1:{self.port()}/{quote(database, safe='')}"

    def create_database(self, name: str) -> str:
        """Creates an empty database with the extension and returns its address. Names: a-z, 0-9, _, up to 63."""
        if not re.fullmatch(r"[a-z_][a-z0-9_]{0,62}", name):
            raise ValueError(f"a database name is 1 to 63 of a-z, 0-9 and _, not beginning with a digit; got {name!r}")
        self._psql("postgres", f"CREATE DATABASE {name}")
        return self.url_of(name)

    def prepare(self) -> None:
        install_timescale()
        if not (self._data / "PG_VERSION").exists():
            self._initialise()
        settings = {
            **TIMESCALE_SETTINGS,
            "listen_addresses": "127.0.0.1",
            "port": str(self.port()),
            "unix_socket_directories": "",
            "log_timezone": "UTC",
            "log_line_prefix": "%m [%p] %q%a/%d ",
        }
        lines = [f"include '{self._data}/postgresql.conf'", *(f"{key} = '{value}'" for key, value in settings.items())]
        self._settings.write_text("\n".join(lines) + "\n")

    def command(self) -> list[str]:
        return [str(self._program("postgres")), "-D", str(self._data), "-c", f"config_file={self._settings}"]

    def answers(self) -> bool:
        return self._ask("postgres", "SELECT 1").returncode == 0

    def wait_ready(self) -> None:
        super().wait_ready()
        if self._psql("postgres", f"SELECT 1 FROM pg_database WHERE datname = '{DATABASE}'"):
            return
        self._psql("template1", "CREATE EXTENSION IF NOT EXISTS timescaledb")
        self._psql("postgres", f"CREATE DATABASE {DATABASE}")

    def _initialise(self) -> None:
        fresh = self.directory / "data.new"  # of a set-up that was cut off
        remove_tree(fresh)
        fresh.mkdir(mode=0o700)
        self.own(fresh)
        password = self.directory / "password"
        password.unlink(missing_ok=True)
        password.touch(mode=0o600)
        self.own(password)
        password.write_text(self.secret() + "\n")
        self.run_as_server(
            [
                str(self._program("initdb")),
                f"--pgdata={fresh}",
                f"--username={SUPERUSER}",
                "--auth=scram-sha-256",
                f"--pwfile={password}",
                f"-L{install_timescale()}/usr/share/postgresql/{POSTGRES_MAJOR}",
                *INITDB_ARGUMENTS,
            ]
        )
        password.unlink()
        fresh.rename(self._data)

    def _psql(self, database: str, statement: str) -> str:
        done = self._ask(database, statement)
        if done.returncode:
            raise NodeError(f"`{statement}` failed: {done.stderr.strip()}")
        return done.stdout.strip()

    def _ask(self, database: str, statement: str) -> subprocess.CompletedProcess[str]:
        flags = ["-X", "-A", "-t", "-q", "-v", "ON_ERROR_STOP=1"]
        place = ["-h", "127.0.0.1", "-p", str(self.port()), "-U", SUPERUSER, "-d", database]
        return subprocess.run(
            [str(self._program("psql")), *flags, *place, "-c", statement],
            cwd="/",
            env={**self.environment(), "PGPASSWORD": self.secret(), "PGCONNECT_TIMEOUT": "5"},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
        )

    def _program(self, name: str) -> Path:
        return bin_directory(install_timescale()) / name

    @property
    def _data(self) -> Path:
        return self.directory / "data"

    @property
    def _settings(self) -> Path:
        """Outside the data directory: rewritten at each start, readable by the server's account."""
        return self.directory / "server.conf"
