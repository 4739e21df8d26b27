"""FAULTS 19: a thousand idle connections to a real server, five times what it holds; in `make test-long` ten and a hundred
thousand, or as many as this machine can open. They cost it little, keep nobody out, and are closed."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import httpx
import psutil
import pytest

from infra.fleet import Role, free_port, until
from runtime.http import FILES_RESERVED

PER_ADDRESS: Final = 20_000
"""Clients that connect from one address: ports of one address are fewer than the largest crowd."""
BURST: Final = 2_048
"""Accepted in one go before those above the limit are closed."""
MEMORY_BYTES_MAX: Final = 64 * 1024 * 1024
"""Beyond what the server takes without them."""
LOG: Final = {"service_name": "shop", "message": "paid"}

pytestmark = pytest.mark.timeout(600)


@dataclass(frozen=True)
class Crowd:
    """So many idle clients of a server with this limit and this deadline for a request's head."""

    clients: int
    connections_max: int
    deadline_s: float


SMALL: Final = Crowd(1_000, 200, 8.0)
LARGE: Final = Crowd(10_000, 2_000, 25.0)
HUGE: Final = Crowd(100_000, 2_000, 120.0)
"""Its deadline is longer than so many take to connect on a busy machine."""


@pytest.fixture(
    params=[
        pytest.param(SMALL, id="1000"),
        pytest.param(LARGE, id="10000", marks=pytest.mark.long),
        pytest.param(HUGE, id="100000", marks=[pytest.mark.long, pytest.mark.timeout(1_800)]),
    ]
)
def crowd(request: pytest.FixtureRequest) -> Iterator[Crowd]:
    """With as many clients as this process may open: fewer than wanted only where the machine forbids more, and says so."""
    crowd: Crowd = request.param
    wanted = crowd.clients
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    others = psutil.Process().num_fds() + 200
    allowed = wanted + others if hard == resource.RLIM_INFINITY else min(wanted + others, hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, allowed), hard))
    count = min(wanted, allowed - others)
    if count < wanted:
        warnings.warn(f"{count:,} idle connections instead of {wanted:,}: ulimit -n is {hard:,}", stacklevel=1)
    assert count > crowd.connections_max, f"ulimit -n is {hard:,}: too few for this test"
    yield replace(crowd, clients=count)
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


@pytest.fixture
def server(native_url: str, crowd: Crowd, tmp_path: Path) -> Iterator[tuple[Role, int]]:
    """A real server and its port."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LOGFEED_", "PYTHONDONT"))}
    environment |= {
        "LOGFEED_DATABASE__URL": native_url,
        "LOGFEED_HTTP__PORT": str(port),
        "LOGFEED_ACCESS__ENABLED": "false",
        "LOGFEED_HTTP__CONNECTIONS_MAX": str(crowd.connections_max),
        "LOGFEED_HTTP__HEAD_DEADLINE_S": str(crowd.deadline_s),
        # All come from a few addresses: that each has its share is another test's (test_http_limits.py).
        "LOGFEED_HTTP__CONNECTIONS_PER_ADDRESS_MAX": "0",
    }
    role = Role(["serve"], environment, tmp_path / "serve.log")
    role.start()
    yield role, port
    role.kill()


class Idle:
    """Clients that connect and say nothing."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.sockets: list[socket.socket] = []

    def connect(self, count: int) -> None:
        """Runs in a thread."""
        for number in range(count):
            address = f"127.0.0.{2 + number // PER_ADDRESS}"
            self.sockets.append(socket.create_connection(("127.0.0.1", self._port), source_address=(address, 0)))

    def open(self) -> int:
        """Those that the server has not closed."""
        count = 0
        for each in self.sockets:
            try:
                each.recv(1, socket.MSG_DONTWAIT | socket.MSG_PEEK)
            except BlockingIOError:
                count += 1
            except ConnectionError:
                continue
        return count

    def close(self) -> None:
        for each in self.sockets:
            each.close()


async def test_idle_connections_keep_nobody_out(crowd: Crowd, server: tuple[Role, int]) -> None:
    role, port = server
    assert role.process is not None
    process = psutil.Process(role.process.pid)
    url = f"http://127.0.0.1:{port}"
    idle = Idle(port)
    memory: list[int] = []
    files: list[int] = []

    async def send_one() -> int:
        """A real request on a connection of its own."""
        async with httpx.AsyncClient(trust_env=False, timeout=30) as http:
            response = await http.post(f"{url}/api/v1/logs", json=LOG, headers={"connection": "close"})
        memory.append(process.memory_info().rss)
        files.append(process.num_fds())
        return response.status_code

    async def works() -> bool:
        with contextlib.suppress(httpx.TransportError):
            return await send_one() == 201
        return False

    async def all_refused() -> bool:
        return idle.open() <= crowd.connections_max

    async def all_closed() -> bool:
        return idle.open() == 0

    await until(works, what="the server works", timeout_s=200)
    memory_before, files_before = memory[-1], files[-1]
    try:
        connecting = asyncio.create_task(asyncio.to_thread(idle.connect, crowd.clients))
        while not connecting.done():
            await until(works, what="a request is answered while they connect")
        await connecting
        await until(all_refused, what="those above the limit are closed")
        for _ in range(10):
            assert await send_one() == 201, "whoever has something to say is let in"
        assert crowd.connections_max - 100 < idle.open() <= crowd.connections_max, "as many as may be are still held"
        await until(all_closed, what="all silent ones are closed", timeout_s=crowd.deadline_s + 60)
        assert await send_one() == 201
    finally:
        idle.close()
    assert max(memory) - memory_before < MEMORY_BYTES_MAX
    assert max(files) <= files_before + crowd.connections_max + BURST + FILES_RESERVED

    async def all_forgotten() -> bool:
        return process.num_fds() <= files_before + 20

    await until(all_forgotten, what="every connection is forgotten")
    print(
        f"{(max(memory) - memory_before) / 1e6:.0f} MB, {max(files) - files_before} files for {crowd.clients} connections"
    )
    assert role.stop() == 0
