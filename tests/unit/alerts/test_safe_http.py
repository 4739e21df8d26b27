"""Webhooks go to public addresses only, once resolved, without redirects, and take little of an answer. Real servers."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from alerts.channels.safe_http import ANSWER_BYTES_MAX, SafeHttp, is_permitted
from alerts.errors import DeliveryFailed, DeliveryRefused
from runtime.outgoing import check_url
from tests.certificates import make_certificate

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter, bytes], Awaitable[None]]


@asynccontextmanager
async def server(
    answer: bytes | Handler, *, host: str = "127.0.0.1", tls: ssl.SSLContext | None = None
) -> AsyncIterator[Served]:
    served = Served()

    async def handle(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        served.connections += 1
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            served.heads.append(head)
            if isinstance(answer, bytes):
                writer.write(answer)
                await writer.drain()
            else:
                await answer(reader, writer, head)
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    listening = await asyncio.start_server(handle, host, 0, ssl=tls)
    served.port = listening.sockets[0].getsockname()[1]
    try:
        yield served
    finally:
        listening.close()


class Served:
    """What a server saw."""

    def __init__(self) -> None:
        self.port = 0
        self.connections = 0
        self.heads: list[bytes] = []


def resolver(*answers: Sequence[str]) -> tuple[Callable[[str, int], Awaitable[Sequence[str]]], list[str]]:
    """Answers one after the other, the last one for ever; and what was asked."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    return resolve, asked


OK = b"HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n"


async def post(http: SafeHttp, url: str) -> None:
    try:
        await http.post(url, b"{}", {"X": "y"})
    finally:
        await http.close()


@pytest.mark.parametrize(
    "address",
    [
        *(
            "127.0.0.1",
            "127.9.9.9",
            "10.0.0.1",
            "172.16.0.1",
            "192.168.1.1",
            "169.254.169.254",
            "100.64.0.1",
            "0.0.0.0",
        ),
        *("224.0.0.1", "239.1.1.1", "255.255.255.255", "240.0.0.1", "192.0.2.1", "198.18.0.1", "::1", "::", "fe80::1"),
        *(
            "fc00::1",
            "fd12::1",
            "ff02::1",
            "::ffff:127.0.0.1",
            "::ffff:10.0.0.1",
            "64:ff9b::7f00:1",
            "64:ff9b::a9fe:a9fe",
        ),
        *("2002:7f00:1::1", "2002:a00:1::", "::127.0.0.1", "2001:db8::1", "64:ff9b:1::a00:1", "::ffff:169.254.169.254"),
        *("64:ff9b:1:7f00:0:100:808:808", "fec0::1"),
    ],
)
def test_addresses_that_are_not_public_are_refused_in_any_spelling(address: str) -> None:
    assert not is_permitted(ipaddress.ip_address(address), ())


@pytest.mark.parametrize(
    "address", ["1.1.1.1", "93.184.216.34", "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_public_addresses_are_permitted(address: str) -> None:
    assert is_permitted(ipaddress.ip_address(address), ())


def test_networks_that_are_named_are_permitted_and_no_others() -> None:
    allowed = (ipaddress.ip_network("10.1.0.0/16"), ipaddress.ip_network("fd00:1::/32"))
    for address, expected in (("10.1.2.3", True), ("::ffff:10.1.2.3", True), ("10.2.0.1", False), ("fd00:1::5", True)):
        assert is_permitted(ipaddress.ip_address(address), allowed) is expected


@pytest.mark.parametrize(
    "wrong",
    [
        *("file:///etc/passwd", "gopher://x/", "ftp://x/", "//x/", "http://", "http://x:99999/", "http://x:0/", "x"),
        *("http://user@x/", "http://u:p@x/", "http://x/#f", "http://x /", "http://x/\n", "http://[fe80::1%25eth0]/"),
    ],
)
def test_what_is_no_address_of_a_webhook_is_refused(wrong: str) -> None:
    with pytest.raises(ValueError):
        check_url(wrong)


async def test_a_name_that_points_inside_is_refused_and_nothing_is_sent() -> None:
    async with server(OK) as inside:
        for answer in (["127.0.0.1"], ["::1"], ["169.254.169.254"], ["::ffff:127.0.0.1"], ["10.0.0.1", "127.0.0.1"]):
            resolve, _ = resolver(answer)
            with pytest.raises(DeliveryRefused, match="is not a public address"):
                await post(SafeHttp((), resolver=resolve), f"http://hooks.example:{inside.port}/")
        for literal in ("127.0.0.1", "[::1]", "[::ffff:127.0.0.1]"):
            with pytest.raises(DeliveryRefused):
                await post(SafeHttp(()), f"http://{literal}:{inside.port}/")
        assert inside.connections == 0


@pytest.mark.parametrize("number", ["2130706433", "0x7f000001", "0177.0.0.1", "127.1"])
async def test_odd_spellings_of_addresses_go_through_the_resolver_and_are_judged_by_its_answer(number: str) -> None:
    async with server(OK) as inside:
        with pytest.raises((DeliveryRefused, DeliveryFailed)):
            await post(SafeHttp(()), f"http://{number}:{inside.port}/")
        assert inside.connections == 0


async def test_a_name_is_resolved_once_and_the_connection_goes_to_that_address() -> None:
    async with server(OK) as first, server(OK, host="127.0.0.2") as second:
        resolve, asked = resolver(["127.0.0.2"], ["127.0.0.1"])
        await post(SafeHttp(["127.0.0.2/32"], resolver=resolve), f"http://hooks.example:{second.port}/x?y=1")
        assert asked == ["hooks.example"]
        assert (first.connections, second.connections) == (0, 1)
        head = second.heads[0].decode()
        assert head.startswith("POST /x?y=1 HTTP/1.1\r\n")
        assert f"host: hooks.example:{second.port}\r\n" in head.lower()
        # The name points elsewhere by the next attempt: that is judged anew.
        resolve, asked = resolver(["127.0.0.2"], ["127.0.0.1"])
        http = SafeHttp(["127.0.0.2/32"], resolver=resolve)
        await http.post(f"http://hooks.example:{second.port}/", b"{}", {})
        with pytest.raises(DeliveryRefused):
            await post(http, f"http://hooks.example:{second.port}/")
        assert first.connections == 0


async def test_redirects_are_not_followed() -> None:
    async with server(OK) as target:
        location = f"http://127.0.0.1:{target.port}/"
        for status in (301, 302, 303, 307, 308):
            answer = f"HTTP/1.1 {status} Go\r\nLocation: {location}\r\nContent-Length: 0\r\n\r\n".encode()
            async with server(answer) as first:
                with pytest.raises(DeliveryFailed, match=rf"answered {status}: redirects are not followed"):
                    await post(SafeHttp(["127.0.0.1/32"]), f"http://127.0.0.1:{first.port}/")
                assert first.connections == 1
        assert target.connections == 0


@pytest.mark.parametrize("is_chunked", [True, False])
async def test_an_answer_without_end_is_cut(is_chunked: bool) -> None:
    sent = 0

    async def gigabyte(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        nonlocal sent
        length = "Transfer-Encoding: chunked" if is_chunked else f"Content-Length: {2**30}"
        writer.write(f"HTTP/1.1 200 OK\r\n{length}\r\n\r\n".encode())
        chunk = b"x" * 65_536
        for _ in range(2**30 // len(chunk)):
            writer.write(b"%x\r\n%s\r\n" % (len(chunk), chunk) if is_chunked else chunk)
            await writer.drain()
            sent += len(chunk)

    async with server(gigabyte) as large:
        await post(SafeHttp(["127.0.0.1/32"]), f"http://127.0.0.1:{large.port}/")
    assert sent < 64 * 1024 * 1024, "no more than lies in buffers of the kernel"


async def test_a_bomb_is_not_unpacked_and_errors_are_cut_and_harmless() -> None:
    async def bomb(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        body = b"\x1b[31m<b>no</b>\n" + b"x" * ANSWER_BYTES_MAX * 2
        writer.write(b"HTTP/1.1 500 No\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()

    async with server(bomb) as bad:
        with pytest.raises(DeliveryFailed) as caught:
            await post(SafeHttp(["127.0.0.1/32"]), f"http://127.0.0.1:{bad.port}/secret-path")
    text = str(caught.value)
    assert text.startswith("answered 500: \\x1b[31m<b>no</b> xxx")
    assert len(text) < 300
    assert "secret-path" not in text


async def test_one_that_hangs_is_cut_by_the_caller() -> None:
    released = asyncio.Event()

    async def hang(reader: asyncio.StreamReader, writer: asyncio.StreamWriter, head: bytes) -> None:
        await released.wait()

    async with server(hang) as slow:
        http = SafeHttp(["127.0.0.1/32"])
        with pytest.raises(TimeoutError):
            async with asyncio.timeout(0.2):
                await http.post(f"http://127.0.0.1:{slow.port}/", b"{}", {})
        released.set()
        await http.close()


async def test_tls_is_verified_against_the_name_and_not_the_address(tmp_path: Path) -> None:
    good = make_certificate(tmp_path, "hooks.example")
    trusting = ssl.create_default_context(cafile=good.ca_file)
    for name, expected in (("hooks.example", True), ("other.example", False)):
        async with server(OK, tls=good.server_context()) as secure:
            resolve, _ = resolver(["127.0.0.1"])
            http = SafeHttp(["127.0.0.1/32"], resolver=resolve, tls=trusting)
            url = f"https://{name}:{secure.port}/"
            if expected:
                await post(http, url)
            else:
                with pytest.raises(DeliveryFailed, match="certificate"):
                    await post(http, url)
            assert len(secure.heads) == expected, "nothing was sent to who could not show the name"
    async with server(OK, tls=good.server_context()) as secure:
        resolve, _ = resolver(["127.0.0.1"])
        with pytest.raises(DeliveryFailed, match="certificate"):
            await post(SafeHttp(["127.0.0.1/32"], resolver=resolve), f"https://hooks.example:{secure.port}/")


async def test_a_server_that_is_not_there_or_speaks_nonsense_is_a_failure_that_may_pass() -> None:
    async with server(b"nonsense\r\n\r\n") as odd:
        with pytest.raises(DeliveryFailed):
            await post(SafeHttp(["127.0.0.1/32"]), f"http://127.0.0.1:{odd.port}/")
        gone = odd.port
    with pytest.raises(DeliveryFailed):
        await post(SafeHttp(["127.0.0.1/32"]), f"http://127.0.0.1:{gone}/")

    async def nobody(host: str, port: int) -> Sequence[str]:
        raise OSError(-2, "Name or service not known")

    with pytest.raises(DeliveryFailed, match="name is not known"):
        await post(SafeHttp((), resolver=nobody), "http://gone.example/")
