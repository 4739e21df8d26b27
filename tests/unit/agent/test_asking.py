"""Whatever answers at the server's address, the agent goes on, within bounds. Real connections."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
import zstandard

from agent.asking import NoAnswer, ask, new_client
from agent.heartbeat import Heartbeat
from agent.roots import Root
from agent.settings import AgentSettings, read_api_key
from agent.shipping.checkpoint import Checkpoint, Part
from agent.shipping.sending import Away, Sender
from agent.shipping.shipper import Shipper
from agent.shipping.tailed import ShippedRoot
from runtime.clock import SystemClock
from runtime.stopping import Stop
from schemas.errors import ConfigurationError
from tests.certificates import make_pair

Answerer = Callable[[bytes, asyncio.StreamWriter], Awaitable[None]]


@asynccontextmanager
async def answering(answer: Answerer, tls: ssl.SSLContext | None = None) -> AsyncIterator[int]:
    """A server that reads a request and lets `answer` write; its port."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = (await reader.readuntil(b"\r\n\r\n")).lower()
                size = int(head.partition(b"content-length: ")[2].partition(b"\r\n")[0] or 0)
                await answer(await reader.readexactly(size), writer)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1]
    finally:
        server.close()


def always(raw: bytes) -> Answerer:
    async def answer(_body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(raw)
        await writer.drain()

    return answer


async def endless(_body: bytes, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while True:
        writer.write(b"x" * 65_536)
        await writer.drain()


@pytest.mark.parametrize(
    "answer",
    [
        always(b"HTTP/1.1 200 OK\r\ncontent-encoding: gzip\r\ncontent-length: 4\r\n\r\nxxxx"),
        always(b"HTTP/1.1 200 OK\r\ncontent-length: 4\r\n\r\nxxxx"),
        always(b"HTTP/1.1 302 Found\r\nlocation: http://127.0.0.1:1/\r\ncontent-length: 0\r\n\r\n"),
        always(b"no HTTP at all\r\n\r\n"),
        endless,
    ],
    ids=["damaged", "no server of ours", "elsewhere", "no HTTP", "endless"],
)
async def test_what_is_no_answer_of_a_server_is_waited_for(answer: Answerer) -> None:
    async with answering(answer) as port:
        sender = Sender(new_client(f"http://127.0.0.1:{port}", api_key="k", trust=True), SystemClock())
        assert isinstance(await sender.send(Part("key", 1, 1), b"x"), Away)
        await sender.close()


async def test_a_server_that_asks_for_years_is_asked_again_within_a_minute() -> None:
    raw = b"HTTP/1.1 503 No\r\nretry-after: 999999999\r\ncontent-length: 0\r\n\r\n"
    async with answering(always(raw)) as port:
        sender = Sender(new_client(f"http://127.0.0.1:{port}", api_key=None, trust=True), SystemClock())
        outcome = await sender.send(Part("key", 1, 1), b"x")
        assert isinstance(outcome, Away)
        assert outcome.pause_s == 60
        await sender.close()


async def test_an_answer_that_trickles_without_end_is_left() -> None:
    async def trickling(_body: bytes, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.01)

    async with answering(trickling) as port:
        async with new_client(f"http://127.0.0.1:{port}", api_key=None, trust=True) as client:
            with pytest.raises(NoAnswer, match="does not come to its end"):
                await ask(client, "GET", "/", b"", {}, seconds_max=0.2)


@pytest.mark.parametrize("scheme", ["https", "HTTPS", "HttpS"])
async def test_a_certificate_is_verified_however_the_scheme_is_spelt(tmp_path: Path, scheme: str) -> None:
    pair = make_pair(tmp_path)
    tls = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    tls.load_cert_chain(pair.cert, pair.key)
    trusted = ssl.create_default_context(cafile=str(pair.cert))
    heard: list[bytes] = []

    async def answer(body: bytes, writer: asyncio.StreamWriter) -> None:
        heard.append(body)
        writer.write(b"HTTP/1.1 200 OK\r\ncontent-length: 0\r\n\r\n")

    async with answering(answer, tls) as port:
        async with new_client(
            f"{scheme}://127.0.0.1:{port}", api_key="k", trust=ssl.create_default_context()
        ) as client:
            with pytest.raises(NoAnswer, match="certificate verify failed"):
                await ask(client, "POST", "/", b"x", {})
        assert heard == []
        async with new_client(f"{scheme}://127.0.0.1:{port}", api_key="k", trust=trusted) as client:
            assert (await ask(client, "POST", "/", b"x", {})).status == 200


async def test_a_key_that_cannot_be_read_for_a_while_ends_no_heartbeats(tmp_path: Path) -> None:
    beats = asyncio.Event()
    key = tmp_path / "key"
    key.write_text("lf_old")
    settings = AgentSettings(api_key_file=key)
    read: list[bool] = []

    async def answer(_body: bytes, writer: asyncio.StreamWriter) -> None:
        key.unlink(missing_ok=True)
        writer.write(b"HTTP/1.1 401 No\r\ncontent-length: 0\r\n\r\n")

    async with answering(answer) as port:

        def new() -> httpx.AsyncClient:
            try:
                found = read_api_key(settings, {})
            except ConfigurationError:
                read.append(False)
                beats.set()
                raise
            return new_client(f"http://127.0.0.1:{port}", api_key=found, trust=True)

        stop = Stop()
        heartbeat = Heartbeat(
            new, SystemClock(), host="web-1", address="http://127.0.0.1:1", token="t", version="1", services=[]
        )
        work = asyncio.create_task(heartbeat.run(stop))
        async with asyncio.timeout(20):
            await beats.wait()
        stop.set()
        await work
        assert read == [False]


async def test_a_stop_between_two_requests_leaves_none_to_be_sent_again(tmp_path: Path) -> None:
    (tmp_path / "logs").mkdir()
    lines = [f"line {number} {'x' * 200}" for number in range(5_000)]
    (tmp_path / "logs" / "a.log").write_text("".join(f"{line}\n" for line in lines))
    bodies: list[bytes] = []
    stop = Stop()

    async def answer(body: bytes, writer: asyncio.StreamWriter) -> None:
        bodies.append(body)
        stop.set()
        count = zstandard.decompress(body).count(b"\n")
        said = b'{"accepted":%d,"filtered":{}}' % count
        writer.write(b"HTTP/1.1 201 OK\r\ncontent-length: %d\r\n\r\n" % len(said) + said)

    async with answering(answer) as port:
        for turn in (1, 2):
            stop = Stop()
            checkpoint = Checkpoint(tmp_path / "state")
            shipper = Shipper(
                [ShippedRoot(Root("app", tmp_path / "logs", "shop"))],
                checkpoint,
                lambda: Sender(new_client(f"http://127.0.0.1:{port}", api_key=None, trust=True), SystemClock()),
                SystemClock(),
                host="web-1",
                files_max=10,
                batch_bytes_max=256 * 1024,
                unfinished_line_s=30,
                scan_s=1,
                is_closed_segment=lambda _: False,
                chance=lambda: 0.5,
            )
            async with asyncio.timeout(30):
                await shipper.run(stop)
            state, body = checkpoint.load()
            checkpoint.close()
            assert (len(bodies), state.parts, body) == (turn, [], b"")
    found = [line for body in bodies for line in zstandard.decompress(body).splitlines()]
    assert state.places[0].offset == sum(len(line) + 1 for line in lines[: len(found)])
    assert len(found) < len(lines)
