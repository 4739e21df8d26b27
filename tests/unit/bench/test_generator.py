"""The load is what its plan says, refusals are waited out, and what was not taken is not counted."""

from __future__ import annotations

import asyncio
import re
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from bench.generator import Generator, Plan, Refused, accepted_logs, parse_arguments
from bench.wire import Answer


class Server:
    """Answers every POST; remembers heads and bodies."""

    def __init__(self) -> None:
        self.heads: list[bytes] = []
        self.bodies: list[bytes] = []
        self.answers: list[bytes] = []
        """Given first, one each; afterwards everything is accepted."""
        self.url = ""
        self.received = asyncio.Condition()

    async def until_received(self, requests: int) -> None:
        async with asyncio.timeout(10), self.received:
            await self.received.wait_for(lambda: len(self.bodies) >= requests)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                length = re.search(rb"content-length: (\d+)", head.lower())
                assert length is not None
                body = await reader.readexactly(int(length[1]))
                self.heads.append(head)
                self.bodies.append(body)
                async with self.received:
                    self.received.notify_all()
                text = b'{"accepted":%d}' % len(body.split(b"\n"))
                accepted = b"HTTP/1.1 201 Created\r\ncontent-length: %d\r\n\r\n%b" % (len(text), text)
                writer.write(self.answers.pop(0) if self.answers else accepted)
        except asyncio.IncompleteReadError:
            writer.close()


@pytest.fixture
async def server() -> AsyncIterator[Server]:
    made = Server()
    listening = await asyncio.start_server(made.serve, "127.0.0.1", 0)
    made.url = f"http://127.0.0.1:{listening.sockets[0].getsockname()[1]}"
    yield made
    listening.close()


def plan(server: Server, **changes: object) -> Plan:
    base = Plan(urls=(server.url,), path="/api/v1/logs/batch", logs_per_request=5, requests=12, connections=3)
    return replace(base, **changes)  # type: ignore[arg-type]  # passed on


async def test_a_number_of_requests_is_sent_and_counted(server: Server) -> None:
    report = await Generator(plan(server)).run()
    assert (report.requests, report.accepted_logs, len(server.bodies)) == (12, 60, 12)
    assert sum(report.accepted_by_second) == 60
    assert report.accepted_points()[-1][1] == 60
    assert len(report.latencies_ms) == 12
    assert len(set(server.bodies)) == 12


async def test_a_refusal_is_waited_out_and_the_same_body_sent_again(server: Server) -> None:
    server.answers = [b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 0\r\ncontent-length: 0\r\n\r\n"] * 2
    report = await Generator(plan(server, requests=1, connections=1, keyed=True)).run()
    assert report.retried == {"503": 2}
    assert report.accepted_logs == 5
    assert len(server.bodies) == 3
    assert len(set(server.bodies)) == 1
    assert len(set(server.heads)) == 1, "a retry keeps its key"


async def test_any_other_refusal_ends_the_load(server: Server) -> None:
    server.answers = [b"HTTP/1.1 422 Unprocessable\r\ncontent-length: 3\r\n\r\nno!"]
    with pytest.raises(ExceptionGroup) as caught:
        await Generator(plan(server, connections=1)).run()
    assert "422: no!" in str(caught.value.exceptions[0])


async def test_every_keyed_request_has_a_key_of_its_own(server: Server) -> None:
    await Generator(plan(server, keyed=True, logs_per_request=1, path="/api/v1/logs")).run()
    keys = {re.search(rb"Idempotency-Key: ([0-9a-f]{32})\r\n", head) for head in server.heads}
    assert None not in keys
    assert len({key[1] for key in keys if key}) == 12


async def test_a_rate_is_kept(server: Server) -> None:
    report = await Generator(plan(server, requests=20, rate=500.0)).run()
    assert report.took_s >= 19 * 5 / 500.0
    assert report.accepted_logs == 100


async def test_without_credit_nothing_is_sent(server: Server) -> None:
    generator = Generator(plan(server, credit=True))
    running = asyncio.create_task(generator.run())
    generator.grant(4)
    await server.until_received(4)
    generator.grant(9)
    await server.until_received(9)
    assert len(server.bodies) == 9
    generator.grant(1_000)
    assert (await running).requests == 12


async def test_a_stopped_load_reports_what_it_did(server: Server) -> None:
    generator = Generator(plan(server, requests=None))
    running = asyncio.create_task(generator.run())
    await server.until_received(20)
    generator.stop()
    report = await running
    assert report.accepted_logs == 5 * len(server.bodies)


async def test_several_servers_share_the_load(server: Server) -> None:
    report = await Generator(plan(server, urls=(server.url, server.url), requests=10)).run()
    assert report.requests == 10


def test_an_answer_that_accepts_less_is_a_refusal() -> None:
    with pytest.raises(Refused, match="10 logs were sent, 9 accepted"):
        accepted_logs(Answer(201, None, b'{"accepted": 9}'), 10)
    assert accepted_logs(Answer(200, None, b""), 10) == 10


def test_arguments_make_a_plan() -> None:
    made = parse_arguments(["http://a:1", "http://b:2", "--logs=1", "--rate=50", "--keyed"])
    assert made.urls == ("http://a:1", "http://b:2")
    assert (made.path, made.rate, made.keyed, made.credit) == ("/api/v1/logs", 50.0, True, False)
    assert parse_arguments(["http://a:1"]).path == "/api/v1/logs/batch"
