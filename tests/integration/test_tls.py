"""HTTPS: as a user starts it, a renewal without a restart, and the limits of connections, which hold as they do without TLS."""

from __future__ import annotations

import asyncio
import contextlib
import os
import ssl
import subprocess
import sys
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path

import httpx
import pytest
import websockets
from fastapi import FastAPI, Request, Response, WebSocket

from cli.serving import serve_http
from cli.settings import HttpSettings, load_settings
from infra.fleet import REPOSITORY, Role, free_port, until
from runtime.certificate import Certificate
from runtime.stopping import Stop
from runtime.telemetry import REGISTRY
from runtime.tls import over_tls
from schemas.errors import ConfigurationError
from tests import commands
from tests.access_site import soon
from tests.app_server import serving
from tests.certificates import Pair, make_pair

MIB = 1024 * 1024
LIMITS = HttpSettings(connections_max=50, head_deadline_s=2, write_deadline_s=2)


@pytest.fixture
def pair(tmp_path: Path) -> Pair:
    return make_pair(tmp_path)


def trust(pair: Pair) -> ssl.SSLContext:
    return ssl.create_default_context(cafile=str(pair.cert))


def application() -> FastAPI:
    app = FastAPI()

    @app.get("/large")
    async def large(size: int) -> Response:
        return Response(bytes(range(256)) * (size // 256))

    @app.websocket("/socket")
    async def socket(socket: WebSocket) -> None:
        """Says how it was reached, then as many bytes as it is asked for."""
        await socket.accept()
        await socket.send_text(socket.url.scheme)
        while True:
            await socket.send_bytes(bytes(int(await socket.receive_text())))

    @app.post("/echo")
    async def echo(request: Request) -> Response:
        return Response(await request.body(), headers={"x-scheme": request.url.scheme})

    return app


def ended(reason: str) -> float:
    return REGISTRY.get_sample_value("logfeed_http_connections_ended_total", {"reason": reason}) or 0.0


def at_least(reason: str, count: float) -> Callable[[], Awaitable[bool]]:
    async def is_so() -> bool:
        return ended(reason) >= count

    return is_so


async def test_large_bodies_come_through_whole_both_ways(pair: Pair) -> None:
    async with serving(application(), context=Certificate(*pair).shown()) as port:
        async with httpx.AsyncClient(
            verify=trust(pair), trust_env=False, base_url=f"https://127.0.0.1:{port}"
        ) as client:
            body = os.urandom(5 * MIB)
            for _ in range(2):
                answer = await client.post("/echo", content=body)
                assert answer.content == body
                assert answer.headers["x-scheme"] == "https"
            assert (await client.get("/large", params={"size": 16 * MIB})).content == bytes(range(256)) * (
                16 * MIB // 256
            )


async def test_websockets_are_served_over_tls_and_cut_when_nobody_reads(pair: Pair) -> None:
    before = ended("write_deadline")
    async with serving(application(), LIMITS, context=Certificate(*pair).shown()) as port:
        address = f"wss://localhost:{port}/socket"
        async with websockets.connect(address, ssl=trust(pair), proxy=None, max_size=None) as opened:
            assert await opened.recv() == "wss"
            for size in (1, 4 * MIB):
                await opened.send(str(size))
                assert await opened.recv() == bytes(size)
        plain = websockets.connect(address, ssl=trust(pair), proxy=None, max_size=None, compression=None)
        async with plain as opened:  # zeros would come as nothing
            assert await opened.recv() == "wss"
            opened.transport.pause_reading()
            await opened.send(str(32 * MIB))
            await soon(at_least("write_deadline", before + 1), "who does not read is cut", 30)


async def test_requests_sent_in_one_go_are_all_answered(pair: Pair) -> None:
    async with serving(application(), context=Certificate(*pair).shown()) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=trust(pair))
        writer.write(b"GET /large?size=256 HTTP/1.1\r\nhost: x\r\n\r\n" * 20)
        async with asyncio.timeout(30):
            for _ in range(20):
                assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
                await reader.readexactly(256)
            writer.write(b"GET /large?size=256 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
            assert (await reader.read()).startswith(b"HTTP/1.1 200")  # to the end: the server said goodbye
        writer.close()


async def test_old_versions_and_plain_http_are_refused_and_hurt_nobody(pair: Pair) -> None:
    async with serving(application(), context=Certificate(*pair).shown()) as port:
        old = trust(pair)
        old.minimum_version = ssl.TLSVersion.TLSv1
        old.set_ciphers("ALL:@SECLEVEL=0")
        old.maximum_version = ssl.TLSVersion.TLSv1_1
        with pytest.raises(ssl.SSLError):
            await asyncio.open_connection("127.0.0.1", port, ssl=old)
        for nonsense in (b"GET / HTTP/1.1\r\nhost: x\r\n\r\n", b"\x16\x03\x01\xff\xff" + os.urandom(500), b"\x00"):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write(nonsense)
            writer.write_eof()
            async with asyncio.timeout(30):
                assert b"HTTP" not in await reader.read()
            writer.close()
        for version in (ssl.TLSVersion.TLSv1_2, ssl.TLSVersion.TLSv1_3):
            new = trust(pair)
            new.minimum_version = new.maximum_version = version
            async with httpx.AsyncClient(verify=new, trust_env=False) as client:
                assert (await client.get(f"https://localhost:{port}/large?size=256")).status_code == 200


async def test_who_never_ends_the_handshake_is_closed_at_the_heads_deadline(pair: Pair) -> None:
    before = ended("head_deadline")
    async with serving(application(), LIMITS, context=Certificate(*pair).shown()) as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        silent[1][1].write(b"\x16\x03\x01")
        _, spoken = await asyncio.open_connection("127.0.0.1", port, ssl=trust(pair))  # a handshake and no request
        async with asyncio.timeout(30):
            for reader, writer in silent:
                assert await reader.read() == b""
                writer.close()
        await soon(at_least("head_deadline", before + 4), "all four are ended", 30)
        spoken.close()


async def test_connections_in_their_handshake_count(pair: Pair) -> None:
    limits = HttpSettings(connections_max=3, head_deadline_s=600)
    before = ended("limit")
    async with serving(application(), limits, context=Certificate(*pair).shown()) as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(3)]
        async with httpx.AsyncClient(verify=trust(pair), trust_env=False) as client:
            assert (await client.get(f"https://localhost:{port}/large?size=256")).status_code == 200
        assert ended("limit") == before + 1, "the oldest silent one made room"
        async with asyncio.timeout(30):
            assert await silent[0][0].read() == b""
        for _, writer in silent:
            writer.close()


async def test_an_answer_that_nobody_reads_is_dropped_and_one_read_slowly_is_not(pair: Pair) -> None:
    before = ended("write_deadline")
    async with serving(application(), LIMITS, context=Certificate(*pair).shown()) as port:
        ask = b"GET /large?size=16777216 HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n"
        _, idle = await asyncio.open_connection("127.0.0.1", port, ssl=trust(pair), limit=2**12)
        slow_reader, slow = await asyncio.open_connection("127.0.0.1", port, ssl=trust(pair), limit=2**16)
        idle.transport.pause_reading()  # type: ignore[attr-defined]  # of a transport that reads
        idle.write(ask)
        slow.write(ask)
        async with asyncio.timeout(60):
            while ended("write_deadline") == before:
                await slow_reader.read(64 * 1024)
                await asyncio.sleep(0.05)
            got = await slow_reader.read()
        assert got
        assert ended("write_deadline") == before + 1
        idle.transport.abort()
        slow.close()


async def test_a_renewed_certificate_serves_new_connections_without_a_restart(tmp_path: Path, pair: Pair) -> None:
    stop = Stop()
    port = free_port()
    http = HttpSettings(port=port, tls_cert=pair.cert, tls_key=pair.key)
    task = asyncio.create_task(serve_http(http, [], stop))

    async def serial() -> str | None:
        with contextlib.suppress(OSError):
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=ssl._create_unverified_context())
            shown: bytes = writer.get_extra_info("ssl_object").getpeercert(binary_form=True)
            writer.close()
            return ssl.DER_cert_to_PEM_cert(shown)
        return None

    async def differs(shown: str | None) -> bool:
        return await serial() != shown

    async with asyncio.timeout(120):
        await soon(lambda: differs(None), "it serves", 60)
        first = await serial()
        async with httpx.AsyncClient(verify=trust(pair), trust_env=False) as client:
            assert (await client.get(f"https://localhost:{port}/livez")).text == "ok\n"
            renewed = make_pair(tmp_path)
            assert renewed.cert == pair.cert
            await soon(lambda: differs(first), "the renewed one is shown", 60)
            assert (await client.get(f"https://localhost:{port}/livez")).text == "ok\n", "an open connection goes on"
        async with httpx.AsyncClient(verify=trust(renewed), trust_env=False) as client:
            answer = await client.get(f"https://localhost:{port}/livez")
            assert answer.headers["strict-transport-security"].startswith("max-age=")
        stop.set()
        await task


@pytest.mark.parametrize("spoil", ["cert", "key"])
def test_half_of_a_pair_is_refused(pair: Pair, spoil: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(f"LOGFEED_HTTP__TLS_{spoil.upper()}", str(pair.cert))
    with pytest.raises(ConfigurationError, match="need each other"):
        load_settings(None)


async def test_protocol_over_tls_hands_on_what_is_lost(pair: Pair) -> None:
    """A client that is gone in its handshake is gone above, too."""
    gone = asyncio.Event()

    class Above(asyncio.Protocol):
        def connection_lost(self, exc: Exception | None) -> None:
            gone.set()

    context = Certificate(*pair).shown()
    server = await asyncio.get_running_loop().create_server(over_tls(Above, lambda: context), "127.0.0.1", 0)
    _, writer = await asyncio.open_connection(*server.sockets[0].getsockname())
    writer.transport.abort()
    async with asyncio.timeout(30):
        await gone.wait()
    server.close()


@pytest.fixture
def up(tmp_path: Path, pair: Pair) -> Iterator[tuple[Role, int, Path]]:
    """`logfeed up` with TLS: (process, port, data directory)."""
    port, data = free_port(), tmp_path / "data"
    clean = {key: value for key, value in os.environ.items() if not key.startswith(("LOGFEED_", "PYTHONDONT"))}
    arguments = [
        "up",
        "--port",
        str(port),
        "--data",
        str(data),
        "--tls-cert",
        str(pair.cert),
        "--tls-key",
        str(pair.key),
    ]
    role = Role(arguments, {**clean, "PYTHONUNBUFFERED": "1"}, tmp_path / "up.log")
    role.start()
    yield role, port, data
    role.kill()


@pytest.mark.timeout(300)
async def test_up_serves_https_and_the_commands_ask_it(up: tuple[Role, int, Path], pair: Pair, tmp_path: Path) -> None:
    _, port, data = up
    url = f"https://127.0.0.1:{port}"

    async def said() -> bool:
        return "Ctrl-C stops it" in (tmp_path / "up.log").read_text()

    await until(said, what="up is ready", timeout_s=150)
    assert url in (tmp_path / "up.log").read_text()

    def logfeed(*arguments: str, ca: Path | None) -> subprocess.CompletedProcess[str]:
        environment = {"LOGFEED_DATA_DIR": str(data), "LOGFEED_URL": url}
        if ca is not None:
            environment["LOGFEED_CA_FILE"] = str(ca)
        return commands.logfeed(*arguments, **environment)

    lines = tmp_path / "app.log"
    lines.write_text("2026-01-01T00:00:00Z ERROR it works over TLS\n")
    sent = await asyncio.to_thread(logfeed, "import", str(lines), "--service", "shop", "--time", "now", ca=pair.cert)
    assert sent.returncode == 0, sent.stderr

    async def found() -> bool:
        return "it works over TLS" in (await asyncio.to_thread(logfeed, "logs", ca=pair.cert)).stdout

    await until(found, what="the log is found")
    strange = await asyncio.to_thread(logfeed, "logs", "--give-up-after", "0", ca=None)
    assert strange.returncode == 3
    assert "its certificate is not believed" in strange.stderr
    assert "LOGFEED_CA_FILE" in strange.stderr
    broken = await asyncio.to_thread(logfeed, "logs", ca=lines)
    assert broken.returncode == 2
    assert "LOGFEED_CA_FILE" in broken.stderr


@pytest.mark.timeout(120)
def test_up_with_a_certificate_that_cannot_serve_ends_at_once_and_says_why(pair: Pair, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "cli.main", "up", "--data", str(tmp_path / "data"), "--port", "0"]
    for arguments, says in (
        (["--tls-cert", str(pair.cert)], "need each other"),
        (
            ["--tls-cert", str(tmp_path / "none.pem"), "--tls-key", str(pair.key)],
            "none.pem cannot be read: No such file",
        ),
    ):
        done = subprocess.run([*command, *arguments], cwd=REPOSITORY, capture_output=True, text=True, timeout=100)
        assert done.returncode == 2, done.stderr
        assert says in " ".join(done.stderr.split())
        assert not (tmp_path / "data" / "keys").exists()
