"""`logfeed up`: the whole of Logfeed on one machine, as processes that one parent looks after.

The parent starts the embedded PostgreSQL, migrates it, then starts `serve` (ingest and query on one port), `write`, `tier`
(old rows become files), `alert` and `mine` (patterns of lines), and starts again what ends. Children and server die with the
parent, however it ends; what was acknowledged is in the database by then. Ctrl-C stops ingest first, lets the writer finish,
then the server.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import fcntl
import os
import signal
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import httpx
import structlog

from cli.first_keys import FirstAccess, make_first_access
from cli.http_client import Trust, own_server_trust
from cli.listening import listening_socket
from cli.settings import CONFIG_VARIABLE, Settings
from db.database import Database
from db.embedded import EmbeddedPostgres
from db.migrations import migrate
from runtime.certificate import Certificate
from runtime.stopping import Stop, listen_for_signals
from schemas.errors import ConfigurationError, DatabaseUnavailable, LogfeedError

log = structlog.get_logger(__name__)

_STOP_S: Final = 20.0
_ALL_STOP_S: Final = 60.0
"""Serve, write, then the other children at once, then the server; what is left then ends with this process."""
_READY_S: Final = 60.0
_BACKOFF_S_MAX: Final = 10.0
_PR_SET_PDEATHSIG: Final = 1


def _die_with_parent() -> None:
    # At once: PostgreSQL goes as well, and without it an orderly stop only waits for its deadlines.
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)


@dataclass(slots=True)
class _Child:
    role: str
    process: asyncio.subprocess.Process | None = None
    restarts: int = 0


class Family:
    """The children of `up`. One task looks after each."""

    def __init__(self, environment: dict[str, str], stop: Stop) -> None:
        """environment: what each child sees, settings included."""
        self._environment = environment
        self._stop = stop
        self._children = [_Child(role) for role in ("serve", "write", "tier", "alert", "mine", "route")]

    async def look_after(self) -> None:
        """Run all until the stop, then stop them in the order of the flow."""
        async with asyncio.TaskGroup() as group:
            for child in self._children:
                group.create_task(self._keep_running(child))
            await self._stop.wait()
            for child in self._children[:2]:
                await _end(child)
            # What follows the flow waits for none of the others; one after the other they would not fit into _ALL_STOP_S.
            await asyncio.gather(*map(_end, self._children[2:]))

    async def _keep_running(self, child: _Child) -> None:
        backoff_s = 0.5
        while not self._stop.is_set:
            child.process = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "cli.main", child.role),
                env=self._environment,
                stdin=asyncio.subprocess.DEVNULL,
                start_new_session=True,
                preexec_fn=_die_with_parent,
            )
            began_s = asyncio.get_running_loop().time()
            code = await child.process.wait()
            if await self._stop.wait(0.0):
                return
            if asyncio.get_running_loop().time() - began_s > 60:
                backoff_s = 0.5
            log.error("a process ended, starting it again", role=child.role, exit_code=code, in_s=backoff_s)
            child.restarts += 1
            await self._stop.wait(backoff_s)
            backoff_s = min(backoff_s * 2, _BACKOFF_S_MAX)


async def _end(child: _Child) -> None:
    process = child.process
    if process is None or process.returncode is not None:
        return
    with contextlib.suppress(ProcessLookupError):
        process.send_signal(signal.SIGTERM)
    try:
        await asyncio.wait_for(process.wait(), _STOP_S)
    except TimeoutError:
        log.error("a process did not stop in time, killing it", role=child.role)
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


@contextlib.contextmanager
def _only_one(data_dir: Path) -> Iterator[None]:
    """Hold the data directory. Raises ConfigurationError when another `up` has it."""
    try:
        data_dir.mkdir(parents=True, exist_ok=True)
        file = (data_dir / "up.lock").open("a+")
    except OSError as error:
        raise ConfigurationError(f"data directory {data_dir} cannot be used: {error.strerror}") from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            raise ConfigurationError(
                f"another `logfeed up` is using {data_dir.resolve()}: stop it or choose --data"
            ) from error
        yield


async def up(
    settings: Settings,
    *,
    config: Path | None,
    announce: Callable[[str, FirstAccess], None],
    beside: Callable[[str, Stop], Awaitable[None]] | None = None,
) -> None:
    """Run everything until Ctrl-C or SIGTERM.

    config: file the settings were read from besides the environment, for the children to read as well.
    announce: called once with the base URL, and what opens it if that was made now, when it is ready. beside: runs next to it.
    Raises LogfeedError when the start fails.
    """
    if settings.http.tls_cert is not None and settings.http.tls_key is not None:
        Certificate(
            settings.http.tls_cert, settings.http.tls_key
        )  # said here, not by a child that ends again and again
    trust = own_server_trust(settings.http.tls_cert)
    stop = Stop()
    listen_for_signals(stop, ends_within_s=_ALL_STOP_S)
    with _only_one(settings.data_dir):
        with listening_socket(settings.http.host, settings.http.port) as listener:
            port: int = listener.getsockname()[1]
        server = EmbeddedPostgres(settings.data_dir)
        await asyncio.to_thread(server.start)
        try:
            await migrate(server.url, settings.layout)
            made = await _first_access(settings, server)
            scheme = "https" if settings.http.has_tls else "http"
            base_url = f"{scheme}://{_shown_host(settings.http.host)}:{port}"
            async with asyncio.TaskGroup() as group:
                group.create_task(Family(_environment(settings, config, port, server), stop).look_after())
                group.create_task(_watch_server(server, stop))
                group.create_task(_announce_when_ready(base_url, trust, stop, lambda url: announce(url, made)))
                if beside is not None:
                    group.create_task(_beside_when_ready(base_url, trust, stop, beside))
        except* LogfeedError as errors:
            raise errors.exceptions[0] from None
        finally:
            await asyncio.to_thread(server.stop)


async def _first_access(settings: Settings, server: EmbeddedPostgres) -> FirstAccess:
    if not settings.access.enabled:
        return FirstAccess()
    database = Database(server.url, application_name="logfeed up", connections_max=2)
    await database.open()
    try:
        return await make_first_access(database, settings.data_dir)
    finally:
        await database.close()


def _environment(settings: Settings, config: Path | None, port: int, server: EmbeddedPostgres) -> dict[str, str]:
    return {
        **os.environ,
        **({CONFIG_VARIABLE: str(config.resolve())} if config is not None else {}),
        "LOGFEED_DATABASE__URL": server.url,
        "LOGFEED_HTTP__HOST": settings.http.host,
        "LOGFEED_HTTP__PORT": str(port),
        **_tls_environment(settings),
        "LOGFEED_DATA_DIR": str(settings.data_dir.resolve()),
        "LOGFEED_LOG__LEVEL": settings.log.level,
    }


def _tls_environment(settings: Settings) -> dict[str, str]:
    """Flags come before what the children read from environment and file."""
    cert, key = settings.http.tls_cert, settings.http.tls_key
    if cert is None or key is None:
        return {}
    return {"LOGFEED_HTTP__TLS_CERT": str(cert.resolve()), "LOGFEED_HTTP__TLS_KEY": str(key.resolve())}


def _shown_host(host: str) -> str:
    if host in ("", "0.0.0.0", "::"):
        return "127.0.0.1"
    return f"[{host}]" if ":" in host else host


async def _watch_server(server: EmbeddedPostgres, stop: Stop) -> None:
    """Start PostgreSQL again when it ends: it recovers by itself, clients retry."""
    while not await stop.wait(1.0):
        if not server.running():
            log.error("PostgreSQL ended, starting it again", log_file=str(server.data_dir / "postgres.log"))
            try:
                await asyncio.to_thread(server.start)
            except DatabaseUnavailable as error:
                # Its last backends may still be ending; the next round tries again.
                log.error("PostgreSQL did not start", error=str(error))


async def _is_ready(client: httpx.AsyncClient, base_url: str) -> bool:
    try:
        answer = await client.get(f"{base_url}/readyz", timeout=2.0)
    except httpx.HTTPError:
        return False
    return answer.status_code == httpx.codes.OK


async def _until_ready(base_url: str, trust: Trust, stop: Stop) -> bool:
    deadline_s = asyncio.get_running_loop().time() + _READY_S
    async with httpx.AsyncClient(trust_env=False, verify=trust) as client:
        while not stop.is_set:
            if await _is_ready(client, base_url):
                return True
            if asyncio.get_running_loop().time() > deadline_s:
                log.error("not ready yet; the messages above say why", waited_s=_READY_S, url=f"{base_url}/readyz")
                deadline_s += _READY_S
            await stop.wait(0.1)
    return False


async def _announce_when_ready(base_url: str, trust: Trust, stop: Stop, announce: Callable[[str], None]) -> None:
    if await _until_ready(base_url, trust, stop):
        announce(base_url)


async def _beside_when_ready(
    base_url: str, trust: Trust, stop: Stop, beside: Callable[[str, Stop], Awaitable[None]]
) -> None:
    if await _until_ready(base_url, trust, stop):
        await beside(base_url, stop)
