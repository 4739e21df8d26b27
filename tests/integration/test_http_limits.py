"""Connections: silent and slow ones are closed, also those that do not read, the ones above the limit are told, and honest
ones never notice.

That a deadline has passed is seen by a silent connection that was made later: the server has closed it.
"""

from __future__ import annotations

import asyncio
import contextlib
import resource
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager

import httpx
import psutil
import pytest
from fastapi import FastAPI, Request, Response

from runtime.http import FILES_RESERVED, HttpSettings
from runtime.sparing import SparingFilter
from runtime.telemetry import REGISTRY
from tests import app_server

MIB = 1024 * 1024
Connection = tuple[asyncio.StreamReader, asyncio.StreamWriter]


def application() -> FastAPI:
    app = FastAPI()

    @app.post("/echo")
    async def echo(body: dict[str, int]) -> dict[str, int]:
        return body

    @app.get("/large")
    async def large(size: int) -> Response:
        return Response(bytes(size))

    @app.get("/held")
    async def held(request: Request) -> None:
        while (await request.receive())["type"] != "http.disconnect":
            pass

    @app.post("/refused")
    async def refused(status: int) -> Response:
        return Response("no" * 200, status, {"connection": "close"} if status == 401 else None)

    @app.get("/broken")
    async def broken() -> None:
        raise RuntimeError("broken")

    return app


@asynccontextmanager
async def serving(
    *,
    connections_max: int = 100,
    connections_per_address_max: int = 0,
    trusted_proxies: tuple[str, ...] = (),
    head_deadline_s: float = 30.0,
    head_bytes_max: int = 64 * 1024,
    write_deadline_s: float = 300.0,
    unread_bytes_max: int = 1024 * MIB,
    timeout_keep_alive: int = 60,
    ws: type[asyncio.Protocol] | None = None,
) -> AsyncIterator[int]:
    """A running server; yields its port."""
    settings = HttpSettings(
        connections_max=connections_max,
        connections_per_address_max=connections_per_address_max,
        head_deadline_s=head_deadline_s,
        head_bytes_max=head_bytes_max,
        write_deadline_s=write_deadline_s,
        unread_bytes_max=unread_bytes_max,
    )
    async with app_server.serving(
        application(), settings, trusted_proxies=trusted_proxies, ws=ws, timeout_keep_alive=timeout_keep_alive
    ) as port:
        yield port


async def closed_by_server(reader: asyncio.StreamReader) -> bytes:
    """What the server sends until it closes."""
    async with asyncio.timeout(30):
        with contextlib.suppress(ConnectionError):
            return await reader.read()
    return b""


async def deadline_passes(port: int) -> None:
    """Wait until every head that began before this call is overdue."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    assert await closed_by_server(reader) == b""
    writer.close()


async def answered(reader: asyncio.StreamReader) -> bytes:
    """The answer to BODY."""
    async with asyncio.timeout(30):
        return await reader.readuntil(BODY)


async def busy(port: int, *, address: str = "127.0.0.1") -> Connection:
    """A connection whose request's head has arrived; the server waits for the body. address: of the client."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port, local_addr=(address, 0))
    writer.write(HEAD.replace(b"\r\n\r\n", b"\r\nexpect: 100-continue\r\n\r\n"))
    async with asyncio.timeout(30):
        assert b" 100 " in await reader.readuntil(b"\r\n\r\n")
    return reader, writer


async def until_answered(port: int) -> None:
    """A request on a connection of its own, repeated while there are too many."""
    async with asyncio.timeout(30):
        while True:
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(HEAD.replace(b"host: x", b"host: x\r\nconnection: close") + BODY)
            answer = await closed_by_server(reader)
            writer.close()
            if b" 200 " in answer[:20]:
                return


def assert_told(answer: bytes) -> None:
    """It is the refusal of a connection."""
    assert answer.startswith(b"HTTP/1.1 503 ")
    assert b"retry-after: 2" in answer
    assert b"application/problem+json" in answer


HEAD = b"POST /echo HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 7\r\n\r\n"
BODY = b'{"a":1}'


async def test_silent_and_half_spoken_connections_are_closed() -> None:
    async with serving(head_deadline_s=0.1) as port:
        for begin in (b"", b"POST /echo HTTP/1.1\r\nhost: x\r\n"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(begin)
            assert await closed_by_server(reader) == b""
            writer.close()


async def test_later_request_on_a_connection_has_the_same_deadline() -> None:
    async with serving(head_deadline_s=0.5) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(HEAD + BODY)
            assert b"200 OK" in await answered(reader)
            await deadline_passes(port)  # an idle connection is not silent
        writer.write(HEAD[:20])
        assert await closed_by_server(reader) == b""
        writer.close()


async def test_body_may_come_after_the_heads_deadline() -> None:
    async with serving(head_deadline_s=0.5) as port:
        reader, writer = await busy(port)
        await deadline_passes(port)
        writer.write(BODY)
        assert b"200 OK" in await answered(reader)
        writer.close()


async def test_an_answer_is_not_lost_with_the_body_that_nobody_reads() -> None:
    async with serving() as port:
        for _ in range(30):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"POST /refused?status=401 HTTP/1.1\r\nhost: x\r\ncontent-length: 9000000\r\n\r\n")
            with contextlib.suppress(ConnectionError):
                for _ in range(30):
                    writer.write(bytes(100_000))
                    await writer.drain()
            assert await closed_by_server(reader) != b""
            writer.close()


async def goes_on(writer: asyncio.StreamWriter) -> None:
    """Send parts of a body for ever."""
    while True:
        writer.write(b"1\r\nx\r\n" * 1_000)
        await writer.drain()


async def test_an_endless_body_is_not_read_for_long_after_the_answer() -> None:
    async with serving() as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /refused?status=401 HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n")
        async with asyncio.timeout(30):
            assert b"no" in await reader.read()
            with pytest.raises(ConnectionError):
                await goes_on(writer)
        writer.close()


async def test_a_connection_whose_body_came_after_the_answer_waits_as_any_other() -> None:
    async with serving(head_deadline_s=0.5) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(HEAD.replace(b"/echo", b"/refused?status=503"))
        async with asyncio.timeout(30):
            assert b" 503 " in await reader.readuntil(b"no" * 200)
        writer.write(BODY)
        await deadline_passes(port)
        writer.write(HEAD + BODY)
        assert b"200 OK" in await answered(reader)
        writer.close()


async def test_one_address_has_its_share_of_connections_and_keeps_no_other_out() -> None:
    async with serving(connections_per_address_max=5) as port:
        before = ended("address_limit")
        held = [await busy(port) for _ in range(5)]
        for number in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            answer = await closed_by_server(reader)
            assert_told(answer)
            assert b"Your address" in answer
            assert ended("address_limit") == before + number + 1
            writer.close()
        others = [await busy(port, address=f"127.0.0.{number}") for number in (2, 3, 4) for _ in range(5)]
        for reader, writer in [*held, *others]:
            writer.write(BODY)
            assert b"200 OK" in await answered(reader)
            writer.close()
        for _ in range(20):
            await until_answered(port)


async def test_silent_connections_of_an_address_make_room_for_its_own_and_for_no_others() -> None:
    async with serving(connections_max=8, connections_per_address_max=5) as port:
        silent = [await asyncio.open_connection("127.0.0.1", port, local_addr=("127.0.0.2", 0)) for _ in range(5)]
        speaking = await busy(port, address="127.0.0.2")
        assert_told(await closed_by_server(silent[0][0]))
        quiet = await busy(port)
        assert not any(reader.at_eof() for reader, _ in silent[1:])
        for reader, writer in (speaking, quiet):
            writer.write(BODY)
            assert b"200 OK" in await answered(reader)
        for _, writer in [*silent, speaking, quiet]:
            writer.close()


@pytest.mark.parametrize("trusted", [("127.0.0.1",), ("127.0.0.0/8", "proxy.example"), ("*",)])
async def test_a_trusted_proxy_has_as_many_connections_as_it_needs(trusted: tuple[str, ...]) -> None:
    async with serving(connections_per_address_max=5, trusted_proxies=trusted) as port:
        for reader, writer in [await busy(port) for _ in range(50)]:
            writer.write(BODY)
            assert b"200 OK" in await answered(reader)
            writer.close()


async def test_connections_above_the_limit_get_503_and_room_comes_back() -> None:
    async with serving(connections_max=50) as port:
        held = [await busy(port) for _ in range(50)]
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        assert_told(await closed_by_server(reader))
        writer.close()
        for reader, writer in held[:25]:
            writer.write(BODY)
            assert b"200 OK" in await answered(reader)
            writer.close()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http, asyncio.timeout(30):
            while (await http.post("/echo", json={"a": 1})).status_code != 200:  # noqa: ASYNC110  # asks a server
                await asyncio.sleep(0.01)
        for _, writer in held:
            writer.close()


async def test_silent_connections_make_room_the_oldest_first_and_busy_ones_stay() -> None:
    async with serving(connections_max=5) as port:
        reader, writer = await busy(port)
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(4)]
        silent[3][1].write(HEAD[:20])
        for told in (0, 1):
            newcomer = await busy(port)
            assert_told(await closed_by_server(silent[told][0]))
            newcomer[1].write(BODY)
            assert b"200 OK" in await answered(newcomer[0])
        silent[3][1].write(HEAD[20:] + BODY)
        assert b"200 OK" in await answered(silent[3][0]), "it was not its turn"
        writer.write(BODY)
        assert b"200 OK" in await answered(reader)
        assert not silent[2][0].at_eof()


@pytest.mark.parametrize("requests_before", [0, 1])
async def test_endless_head_is_ended_at_its_limit(requests_before: int) -> None:
    async with serving(head_bytes_max=10_000, head_deadline_s=300) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(requests_before):
            writer.write(HEAD + BODY)
            assert b"200 OK" in await answered(reader)

        async def endless() -> None:
            writer.write(HEAD[:-2])
            with contextlib.suppress(ConnectionError):
                while True:
                    writer.write(b"x-more: " + b"y" * 1_000 + b"\r\n")
                    await writer.drain()

        sending = asyncio.create_task(endless())
        answer = await closed_by_server(reader)
        sending.cancel()
        assert answer.startswith(b"HTTP/1.1 431 ") or answer == b"", "a reset may overtake the answer"
        writer.close()


async def test_requests_sent_in_one_go_are_not_taken_for_one_large_head() -> None:
    async with serving(head_bytes_max=1_024) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write((HEAD + BODY) * 40 + HEAD[:30])
        for _ in range(40):
            assert b"200 OK" in await answered(reader)
        writer.write(HEAD[30:] + BODY)
        assert b"200 OK" in await answered(reader)
        writer.close()


class Deaf:
    """Clients that ask and do not read the answer."""

    def __init__(self, port: int) -> None:
        self._port = port
        self.sockets: list[socket.socket] = []

    async def connect(self) -> socket.socket:
        client = socket.socket()
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.setblocking(False)
        self.sockets.append(client)
        await asyncio.get_running_loop().sock_connect(client, ("127.0.0.1", self._port))
        return client

    async def ask(self, size: int, *, times: int = 1) -> socket.socket:
        """A connection of its own on which so many answers of this size are due, and the first one was written."""
        client = await self.connect()
        request = f"GET /large?size={size} HTTP/1.1\r\nhost: x\r\n\r\n".encode()
        await asyncio.get_running_loop().sock_sendall(client, request * times)
        async with asyncio.timeout(30):
            assert await asyncio.get_running_loop().sock_recv(client, 1)
        return client

    def held_by_server(self) -> set[int]:
        """The clients' ports of the connections that the server's side has open."""
        return {
            each.raddr.port
            for each in psutil.Process().net_connections(kind="tcp4")
            if each.status == psutil.CONN_ESTABLISHED and each.laddr.port == self._port
        }

    def close(self) -> None:
        for each in self.sockets:
            each.close()


@contextmanager
def deaf(port: int) -> Iterator[Deaf]:
    clients = Deaf(port)
    try:
        yield clients
    finally:
        clients.close()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(30):
        while not condition():  # noqa: ASYNC110  # asks the kernel
            await asyncio.sleep(0.02)


def ended(reason: str) -> float:
    return REGISTRY.get_sample_value("logfeed_http_connections_ended_total", {"reason": reason}) or 0.0


async def test_answer_that_nobody_reads_is_dropped_at_its_deadline() -> None:
    async with serving(write_deadline_s=0.3) as port:
        with deaf(port) as clients:
            before = ended("write_deadline")
            for _ in range(5):
                await clients.ask(8 * MIB)
            await until(lambda: ended("write_deadline") == before + 5)
            await until(lambda: not clients.held_by_server())


async def test_answer_that_is_read_slowly_comes_whole_however_long_it_takes() -> None:
    """More than the kernel would take at once, and then again only in large steps, behind which progress is not seen."""
    async with serving(write_deadline_s=0.3) as port:
        with deaf(port) as clients:
            loop = asyncio.get_running_loop()
            client, begun_s = await clients.ask(6 * MIB), loop.time()
            size = 0
            async with asyncio.timeout(60):
                while size < 6 * MIB:
                    piece = await loop.sock_recv(client, 8_192)
                    assert piece, f"cut off after {size} bytes"
                    size += len(piece)
                    await asyncio.sleep(0.002)  # the client's slowness
            assert loop.time() - begun_s > 3 * 0.3, "several deadlines have passed"


async def test_answer_that_is_read_byte_by_byte_is_dropped() -> None:
    async with serving(write_deadline_s=1.0) as port:
        with deaf(port) as clients:
            client = await clients.ask(8 * MIB)
            with contextlib.suppress(ConnectionError):
                async with asyncio.timeout(30):
                    while await asyncio.get_running_loop().sock_recv(client, 1) and clients.held_by_server():  # noqa: ASYNC110
                        await asyncio.sleep(0.01)  # the client's slowness
            assert not clients.held_by_server()


@pytest.mark.parametrize("fault", ["endless head", "unfinished head", "keep-alive"])
async def test_ended_connection_does_not_wait_for_a_client_that_reads_nothing(fault: str) -> None:
    """Whatever ends it, and however little of the answer is left."""
    keep_alive = fault == "keep-alive"
    async with serving(
        head_bytes_max=2_048,
        head_deadline_s=0.5,
        write_deadline_s=2.0 if keep_alive else 300.0,
        timeout_keep_alive=1 if keep_alive else 60,
    ) as port:
        with deaf(port) as clients:
            client = await clients.ask(60_000, times=200) if keep_alive else await clients.ask(8 * MIB)
            own_port = client.getsockname()[1]
            await until(lambda: own_port in clients.held_by_server())
            if fault == "endless head":
                for _ in range(4):
                    await asyncio.get_running_loop().sock_sendall(client, b"GET / HTTP/1.1\r\nx: " + b"y" * 1_500)
            elif fault == "unfinished head":
                await asyncio.get_running_loop().sock_sendall(client, b"GET / HT")
            await until(lambda: own_port not in clients.held_by_server())


async def test_connections_above_the_limit_are_counted_until_they_are_gone() -> None:
    async with serving(connections_max=5, head_bytes_max=2_048) as port:
        with deaf(port) as clients:
            most = 0
            for _ in range(40):
                client = await clients.ask(4 * MIB)
                # Its head is too large: it is ended, and does not read the answer before.
                with contextlib.suppress(ConnectionError):
                    for _ in range(3):
                        await asyncio.get_running_loop().sock_sendall(client, b"GET / HTTP/1.1\r\nx: " + b"y" * 1_500)
                        await asyncio.sleep(0)
                most = max(most, len(clients.held_by_server()))
            assert most <= 6, "five, and one that is being refused"
            await until(lambda: not clients.held_by_server())


async def test_unread_answers_of_all_together_are_bounded_and_the_oldest_goes() -> None:
    async with serving(unread_bytes_max=40 * MIB) as port:
        with deaf(port) as clients:
            ports = [(await clients.ask(16 * MIB)).getsockname()[1] for _ in range(2)]
            await until(lambda: set(ports) <= clients.held_by_server())
            before = ended("unread_bytes")
            for _ in range(4):
                ports.append((await clients.ask(16 * MIB)).getsockname()[1])
                await until(lambda: ended("unread_bytes") == before + len(ports) - 2 or len(ports) < 4)
            await until(lambda: clients.held_by_server() == set(ports[-2:]))
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}") as http:
                assert len((await http.get("/large", params={"size": 40 * MIB})).content) == 40 * MIB


async def test_answer_under_way_is_not_broken_by_a_refusal() -> None:
    """A head that is too large behind a request whose answer is due: nothing is told in its place."""
    async with serving(head_bytes_max=2_048) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        before = ended("head_bytes")
        writer.write(b"GET /held HTTP/1.1\r\nhost: x\r\n\r\n" + b"GET / HTTP/1.1\r\nx: ")
        with contextlib.suppress(ConnectionError):
            while ended("head_bytes") == before:
                writer.write(b"y" * 1_000)
                await writer.drain()
                await asyncio.sleep(0.001)
        assert await closed_by_server(reader) == b""
        writer.close()


@pytest.mark.parametrize(
    "request_line", [b"nonsense\r\n\r\n", b"GET /broken HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"]
)
async def test_flood_of_requests_that_fail_does_not_flood_the_log(
    request_line: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.filtering(SparingFilter()):  # as `configure_logging` does
        async with serving() as port:
            for _ in range(50):
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.write(request_line)
                assert (await closed_by_server(reader)).split(b" ")[1] in (b"400", b"500")
                writer.close()
    assert [record.name for record in caplog.records].count("uvicorn.error") == 1


class Upgraded(asyncio.Protocol):
    """Stands for a WebSocket library: takes the connection over, says so, and holds it."""

    def __init__(self, **_: object) -> None:
        self.transport: asyncio.Transport | None = None

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(b"HTTP/1.1 101 Switching Protocols\r\n\r\n")


async def test_upgraded_connection_is_handed_over_and_counts_no_longer() -> None:
    async with serving(connections_max=1, head_deadline_s=0.5, ws=Upgraded) as port:
        held = []
        for _ in range(3):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(b"GET /ws HTTP/1.1\r\nhost: x\r\nupgrade: websocket\r\nconnection: upgrade\r\n\r\n")
            async with asyncio.timeout(30):
                assert b" 101 " in await reader.readline()
            held.append((reader, writer))
        await deadline_passes(port)
        for reader, writer in held:
            assert not reader.at_eof()
            writer.close()


FITS = """
import resource, sys
from runtime.http import fit_open_files
print(fit_open_files(int(sys.argv[1])), resource.getrlimit(resource.RLIMIT_NOFILE)[0])
"""


@pytest.mark.parametrize(
    ("soft", "hard", "connections_max", "fitting", "raised_to"),
    [
        (64, 5_000, 2_000, 2_000, 2_000 + FILES_RESERVED + 2_048),
        (64, 1_024, 2_000, 1_024 - FILES_RESERVED, 1_024),
        (5_000, 5_000, 100, 100, 5_000),
        (64, 100, 10, 1, 100),
    ],
)
def test_limit_of_open_files_is_raised_to_what_connections_need(
    soft: int, hard: int, connections_max: int, fitting: int, raised_to: int
) -> None:
    done = subprocess.run(
        [sys.executable, "-c", FITS, str(connections_max)],
        capture_output=True,
        text=True,
        check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard)),
    )
    *warnings, last = done.stdout.splitlines()
    assert last == f"{fitting} {raised_to}"
    assert any("ulimit -n" in line for line in warnings) is (fitting < connections_max)
