"""FAULTS 19: bodies that are too large, too slow, or grow when they are opened, sent over sockets to a real server. Each is
refused with its own status, costs little memory, leaves no byte in flight, and nobody else notices.

FAULTS 22, records larger than the broker takes: test_ingest_api.py, tests/unit/ingest/test_publish.py.
"""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import os
import socket
from collections.abc import AsyncIterator, Callable, Iterator

import httpx
import psutil
import pytest
import zstandard

from infra.fleet import Role, free_port, until

MIB = 1024 * 1024
BODY_BYTES_MAX = 8 * MIB
"""The default."""
DEADLINE_S = 2
MEMORY_BYTES_MAX = 160 * MIB
"""Beyond what the server takes without them: 40 MiB of a bomb's step, 8 MiB of each body under way, the allocator's rest."""
AT_ONCE = 4
LOG = {"service_name": "shop", "message": "paid"}

pytestmark = pytest.mark.timeout(600)


@pytest.fixture(scope="module")
def server(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Role, int]]:
    """A real server and its port."""
    port = free_port()
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("LOGFEED_", "PYTHONDONT"))}
    environment |= {
        "LOGFEED_DATABASE__URL": postgres_url,
        "LOGFEED_HTTP__PORT": str(port),
        "LOGFEED_ACCESS__ENABLED": "false",
        "LOGFEED_INGEST__BODY_DEADLINE_S": str(DEADLINE_S),
    }
    directory = tmp_path_factory.mktemp("hostile")
    migration = Role(["db", "migrate"], environment, directory / "migrate.log")
    migration.start()
    assert migration.process is not None
    assert migration.process.wait(200) == 0
    role = Role(["serve"], environment, directory / "serve.log")
    role.start()
    yield role, port
    role.kill()


@pytest.fixture
async def port(server: tuple[Role, int]) -> AsyncIterator[int]:
    """Of the server, which works before and after, with nothing left in flight, and has not grown."""
    role, port = server
    assert role.process is not None
    process = psutil.Process(role.process.pid)

    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False, timeout=60) as http:

        async def works() -> bool:
            with contextlib.suppress(httpx.TransportError):
                return (await http.post("/api/v1/logs", json=LOG)).status_code == 201
            return False

        async def nothing_in_flight() -> bool:
            lines = (await http.get("/metrics")).text.splitlines()
            held = [line for line in lines if line.startswith("logfeed_ingest_bytes_in_flight ")]
            return held == ["logfeed_ingest_bytes_in_flight 0.0"]

        await until(works, what="the server works", timeout_s=200)
        before = process.memory_info().rss
        most = before

        async def look() -> None:
            nonlocal most
            while True:
                most = max(most, process.memory_info().rss)
                await asyncio.sleep(0.01)

        looking = asyncio.create_task(look())
        yield port
        looking.cancel()
        await until(works, what="the server works still")
        await until(nothing_in_flight, what="no byte is left in flight")
        assert most - before < MEMORY_BYTES_MAX


async def answer(port: int, head: str, body: AsyncIterator[bytes] | bytes) -> bytes:
    """What the server says, which may be before it has all of the body. Plain sockets: a stream that cannot send any more does
    not read what came before that."""
    loop = asyncio.get_running_loop()
    with socket.socket() as connection:
        connection.setblocking(False)
        await loop.sock_connect(connection, ("127.0.0.1", port))

        async def send() -> None:
            await loop.sock_sendall(
                connection, f"POST /api/v1/logs/batch HTTP/1.1\r\nHost: x\r\n{head}\r\n\r\n".encode()
            )
            if isinstance(body, bytes):
                await loop.sock_sendall(connection, body)
            else:
                async for chunk in body:
                    await loop.sock_sendall(connection, chunk)

        sending = asyncio.create_task(send())
        said = b""
        try:
            async with asyncio.timeout(60):
                while b"\r\n" not in said:
                    piece = await loop.sock_recv(connection, 4096)
                    assert piece, f"the server ended with {said!r}"
                    said += piece
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
        return said.partition(b"\r\n")[0]


async def chunked(piece: bytes, pieces: int | None = None) -> AsyncIterator[bytes]:
    """pieces None: without end."""
    number = 0
    while pieces is None or number < pieces:
        yield b"%x\r\n%b\r\n" % (len(piece), piece)
        number += 1
    yield b"0\r\n\r\n"


async def test_a_body_that_announces_too_much_is_refused_before_it_is_sent(port: int) -> None:
    head = f"Content-Length: {BODY_BYTES_MAX + 1}\r\nContent-Type: application/json"
    assert b" 413 " in await answer(port, head, b"")
    assert b" 413 " in await answer(port, "Content-Length: 1000000000000\r\nContent-Type: application/json", b"[")


async def test_a_body_without_a_length_is_refused_at_its_limit(port: int) -> None:
    head = "Transfer-Encoding: chunked\r\nContent-Type: application/json"
    answers = await asyncio.gather(*(answer(port, head, chunked(b" " * 65_536)) for _ in range(AT_ONCE)))
    assert all(b" 413 " in each for each in answers)


BOMBS: dict[str, tuple[str, Callable[[], bytes]]] = {
    "gzip": ("gzip", lambda: gzip.compress(bytes(300 * MIB))),
    "zstd": ("zstd", lambda: zstandard.compress(bytes(300 * MIB))),
    "gzip of members": ("gzip", lambda: gzip.compress(bytes(MIB)) * 300),
    "zstd of frames": ("zstd", lambda: zstandard.compress(bytes(MIB)) * 300),
}


@pytest.mark.parametrize("kind", BOMBS)
@pytest.mark.parametrize("has_length", [True, False])
async def test_a_bomb_is_refused_where_it_passes_the_limit(port: int, kind: str, has_length: bool) -> None:
    encoding, make = BOMBS[kind]
    bomb = make()
    head = f"Content-Type: application/json\r\nContent-Encoding: {encoding}\r\n"
    head += f"Content-Length: {len(bomb)}" if has_length else "Transfer-Encoding: chunked"
    bodies = [bomb if has_length else chunked(bomb, 1) for _ in range(AT_ONCE)]
    answers = await asyncio.gather(*(answer(port, head, body) for body in bodies))
    assert all(b" 413 " in each for each in answers), answers


@pytest.mark.parametrize(
    ("encoding", "member"),
    [("gzip", gzip.compress(b"", mtime=0)), ("zstd", zstandard.compress(b""))],
    ids=["gzip", "zstd"],  # the same in each worker
)
async def test_a_body_of_members_that_hold_nothing_is_refused(port: int, encoding: str, member: bytes) -> None:
    body = member * (4 * MIB // len(member))
    head = f"Content-Type: application/json\r\nContent-Encoding: {encoding}\r\nContent-Length: {len(body)}"
    assert b" 400 " in await answer(port, head, body)


async def test_a_body_of_several_members_is_one_body(port: int) -> None:
    lines = [json.dumps({**LOG, "message": f"m{number}"}).encode() + b"\n" for number in range(20)]
    body = b"".join(map(gzip.compress, lines))
    head = f"Content-Type: application/x-ndjson\r\nContent-Encoding: gzip\r\nContent-Length: {len(body)}"
    assert b" 201 " in await answer(port, head, body)


async def test_bodies_that_do_not_come_are_ended_and_hold_nothing(port: int) -> None:
    head = "Content-Type: application/json\r\nContent-Length: 1000000"
    answers = await asyncio.gather(*(answer(port, head, b"[" + b" " * number) for number in range(100)))
    assert all(b" 408 " in each for each in answers)
