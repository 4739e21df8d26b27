"""Agents are asked at the address that was judged, with their token and nothing of the user's, and answer as agents do or count
for nothing. Real servers."""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from query.hosts.agents import Agents, Caller
from query.hosts.errors import HostAway, HostBusy, HostFileNotFound, HostSlow, HostUnreachable
from query.hosts.settings import HostSettings
from runtime.outgoing import Resolve
from schemas.errors import ConfigurationError, InvalidInput
from store.hosts import Host
from tests.certificates import make_certificate
from tests.host_agent import HostAgent, host_agent, problem, whole

CALLER = Caller("user:7", "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
ALL = [("scope", '{"all":true}')]
SETTINGS = HostSettings(connect_s=0.5)


def host_of(agent: HostAgent, address: str | None = None) -> Host:
    return Host("web-1", "key:a", address or agent.url, agent.token, "0.1.0", ("nginx",), 0, 0.0)


@asynccontextmanager
async def asking(settings: HostSettings = SETTINGS, resolver: Resolve | None = None) -> AsyncIterator[Agents]:
    agents = Agents(settings) if resolver is None else Agents(settings, resolver=resolver)
    try:
        yield agents
    finally:
        await agents.close()


async def listed(agent: HostAgent, host: Host | None = None, settings: HostSettings = SETTINGS) -> bytes:
    async with asking(settings) as agents:
        return await agents.list_files(host or host_of(agent), ALL, CALLER)


def resolver(*answers: Sequence[str]) -> tuple[Callable[[str, int], Awaitable[Sequence[str]]], list[str]]:
    """Answers one after the other, the last one for ever; and what was asked."""
    asked: list[str] = []

    async def resolve(host: str, port: int) -> Sequence[str]:
        asked.append(host)
        return answers[min(len(asked), len(answers)) - 1]

    return resolve, asked


async def test_all_that_is_sent_is_the_question_the_agents_token_and_who_asks() -> None:
    async with host_agent(HostAgent({"nginx/a b%?.log": ("nginx", ["one"])})) as agent, asking() as agents:
        async with agents.reading(host_of(agent), "nginx/a b%?.log", [("n", "5"), *ALL], CALLER) as pieces:
            assert b"one" in b"".join([piece async for piece in pieces])
        [asked] = agent.asked
        assert asked.path == "/files/nginx/a b%?.log"
        assert asked.parameters == {"n": ["5"], "scope": ['{"all":true}']}
        names = {line.partition(":")[0].lower() for line in asked.head.split("\r\n")[1:] if line}
        expected = {"host", "authorization", "x-logfeed-subject", "traceparent", "user-agent", "accept"}
        assert names == expected | {"accept-encoding", "connection"}
        assert asked.header("authorization") == f"Bearer {agent.token}"
        assert asked.header("x-logfeed-subject") == "user:7"
        assert asked.header("traceparent") == CALLER.traceparent
        assert asked.header("accept-encoding") == "identity"


@pytest.mark.parametrize(
    "answer", [["169.254.169.254"], ["1.1.1.1"], ["::ffff:169.254.169.254"], ["8.8.8.8", "fe80::1"]]
)
async def test_a_name_that_means_another_network_is_not_connected_to(answer: list[str]) -> None:
    async with host_agent(HostAgent()) as agent:
        resolve, _ = resolver(answer)
        async with asking(resolver=resolve) as agents:
            with pytest.raises(HostUnreachable, match=r"not in the networks of agents \(hosts\.networks\)"):
                await agents.list_files(host_of(agent, f"http://web-1.example:{agent.port}"), ALL, CALLER)
        assert agent.asked == []


async def test_a_name_is_resolved_once_and_the_connection_goes_to_what_was_judged() -> None:
    async with host_agent(HostAgent()) as agent:
        resolve, asked = resolver(["8.8.8.8", "127.0.0.1"], ["169.254.169.254"])
        host = host_of(agent, f"http://web-1.example:{agent.port}")
        async with asking(resolver=resolve) as agents:
            assert b'"files"' in await agents.list_files(host, ALL, CALLER)
            assert asked == ["web-1.example"]
            assert agent.asked[0].header("host") == f"web-1.example:{agent.port}"
            with pytest.raises(HostUnreachable):
                await agents.list_files(host, ALL, CALLER)
        assert len(agent.asked) == 1


async def test_networks_that_are_not_named_are_refused_for_plain_addresses_too() -> None:
    async with host_agent(HostAgent()) as agent:
        with pytest.raises(HostUnreachable, match="not in the networks"):
            await listed(agent, settings=HostSettings(networks=("10.0.0.0/8",)))
        assert agent.asked == []


async def test_redirects_are_not_followed_and_the_token_goes_nowhere_else() -> None:
    async with host_agent(HostAgent()) as target, host_agent(HostAgent()) as agent:
        for status in (301, 302, 307, 308):
            agent.raw = f"HTTP/1.1 {status} Go\r\nLocation: {target.url}/files\r\nContent-Length: 0\r\n\r\n".encode()
            with pytest.raises(HostUnreachable, match="is not its agent"):
                await listed(agent)
        assert target.asked == []


PACKED = gzip.compress(b'{"files":[]}')


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (problem(404, "no"), HostFileNotFound),
        (problem(401, "unknown token"), HostAway),
        (problem(500, "no"), HostUnreachable),
        (problem(204, ""), HostUnreachable),
        (whole("<html>", media_type="text/html"), HostUnreachable),
        (whole({"files": []}, media_type="text/plain"), HostUnreachable),
        (b"nonsense\r\n\r\n", HostUnreachable),
        (b"", HostUnreachable),
        (b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 99\r\n\r\n{", HostUnreachable),
        (
            b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Encoding: gzip\r\nContent-Length: %d\r\n\r\n%b"
            % (len(PACKED), PACKED),
            HostUnreachable,
        ),
    ],
)
async def test_an_answer_that_is_no_agents_counts_for_nothing(raw: bytes, expected: type[Exception]) -> None:
    async with host_agent(HostAgent(raw=raw)) as agent:
        with pytest.raises(expected) as caught:
            await listed(agent)
        assert str(agent.port) not in str(caught.value), "where it is, is not for who asks"


async def test_what_the_agent_says_of_the_question_is_told_and_harmless() -> None:
    async with host_agent(HostAgent(raw=problem(422, "regex: \x1b[31mbad" + "x" * 1000))) as agent:
        with pytest.raises(InvalidInput) as caught:
            await listed(agent)
        assert str(caught.value).startswith("regex: \\x1b[31mbadxxx")
        assert len(str(caught.value)) <= 500
    for header, expected in (("7", 7), ("100000", 60), ("-1", 1), ("soon", 1), ("", 1)):
        raw = problem(503, "busy").replace(b"Connection:", f"Retry-After: {header}\r\nConnection:".encode())
        async with host_agent(HostAgent(raw=raw)) as agent:
            with pytest.raises(HostBusy, match="busy") as busy:
                await listed(agent)
            assert busy.value.retry_after_s == expected


async def test_one_that_is_not_there_or_says_nothing_is_given_up() -> None:
    async with host_agent(HostAgent(is_silent=True)) as agent:
        with pytest.raises(HostSlow):
            await listed(agent, settings=HostSettings(connect_s=0.05))
    with pytest.raises(HostUnreachable, match="cannot be reached"):
        await listed(agent)

    async def nobody(host: str, port: int) -> Sequence[str]:
        raise OSError(-2, "Name or service not known")

    async def hangs(host: str, port: int) -> Sequence[str]:
        await asyncio.Event().wait()
        return []

    for resolve, expected in ((nobody, HostUnreachable), (hangs, HostSlow)):
        async with asking(HostSettings(connect_s=0.05), resolve) as agents:
            with pytest.raises(expected):
                await agents.list_files(host_of(agent, "http://gone.example"), ALL, CALLER)


async def test_a_list_without_end_is_cut() -> None:
    body = b'{"files":[],"errors":["' + b"x" * (9 * 1024 * 1024) + b'"]}'
    head = b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n" % len(body)
    async with host_agent(HostAgent(raw=head + body)) as agent:
        with pytest.raises(HostUnreachable, match="without end"):
            await listed(agent)


async def test_tls_is_verified_against_the_name_by_the_authorities_of_the_settings(tmp_path: Path) -> None:
    good = make_certificate(tmp_path, "web-1.example")
    resolve, _ = resolver(["127.0.0.1"])
    for settings, name, is_right in (
        (HostSettings(ca_file=good.ca_file), "web-1.example", True),
        (HostSettings(ca_file=good.ca_file), "other.example", False),
        (HostSettings(), "web-1.example", False),
    ):
        async with host_agent(HostAgent(), tls=good.server_context()) as agent, asking(settings, resolve) as agents:
            host = host_of(agent, f"https://{name}:{agent.port}")
            if is_right:
                assert b'"files"' in await agents.list_files(host, ALL, CALLER)
            else:
                with pytest.raises(HostUnreachable):
                    await agents.list_files(host, ALL, CALLER)
            assert len(agent.asked) == is_right, "the token was shown to nobody else"


def test_authorities_that_cannot_be_read_are_said_at_the_start(tmp_path: Path) -> None:
    for content in (None, b"no certificate"):
        file = tmp_path / "ca.pem"
        if content is not None:
            file.write_bytes(content)
        with pytest.raises(ConfigurationError, match=r"hosts\.ca_file"):
            Agents(HostSettings(ca_file=file))


async def test_a_slow_reader_slows_the_agent_down() -> None:
    async with host_agent(HostAgent({"a": ("nginx", [])}, is_endless=True)) as agent, asking() as agents:
        async with agents.reading(host_of(agent), "a", [("n", "1"), *ALL], CALLER) as pieces:
            assert await anext(pieces)
            sent, unchanged = -1, 0
            while unchanged < 20:  # what lies in buffers of the kernel is all that is sent
                await asyncio.sleep(0.02)
                unchanged = unchanged + 1 if agent.lines_sent == sent else 0
                sent = agent.lines_sent
                assert sent < 6_400, "64 MB were taken from the agent that nobody reads"
        await asyncio.wait_for(agent.ended.wait(), 30)


def test_a_hosts_token_stands_in_no_text_of_it() -> None:
    """Errors and logs of ours may show a host."""
    assert "secretsecret" not in repr(host_of(HostAgent(token="secret" * 7 + "s")))
