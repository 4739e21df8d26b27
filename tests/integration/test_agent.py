"""Agents as processes beside a real server: each line is stored once through rotation under load, truncation, kill -9,
and a server that is away; syslog over TCP and UDP; files are read while all that happens.
"""

from __future__ import annotations

import asyncio
import json
import shutil
import socket
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest

from infra.fleet import EMBEDDED, Fleet, Role, free_port
from tests.fleets import Fleets
from tests.integration.agent_site import AgentProcess, Reader, make_key, until

pytestmark = pytest.mark.timeout(300)  # the first test starts the server


@dataclass
class Site:
    """A running server, keys of it, and a place for agents."""

    fleet: Fleet
    server: Role
    url: str
    key: str
    reader: Reader


@pytest.fixture(scope="module")
def site(fleets: Fleets, embedded_server: str) -> Iterator[Site]:
    fleet = fleets.make(EMBEDDED, access="true")
    try:
        server = fleet.role("serve")
        fleet.role("write")
        asyncio.run(fleet.ready("serve"))
        key, reading = make_key(fleet, "write:*"), make_key(fleet, "read:*")
        yield Site(fleet, server, fleet.url("serve"), key, Reader(fleet.url("serve"), reading))
    finally:
        fleets.end(fleet)


@pytest.fixture
def agents(site: Site, tmp_path: Path) -> Iterator[list[AgentProcess]]:
    made: list[AgentProcess] = []
    yield made
    for agent in made:
        if agent.process is not None and agent.process.poll() is None:
            agent.kill()


def lines_of(begin: int, end: int) -> list[str]:
    return [f"line {number} of a program that writes much" for number in range(begin, end)]


def test_rotation_under_load_kills_and_a_server_that_is_away(
    site: Site, tmp_path: Path, agents: list[AgentProcess]
) -> None:
    service = "agent-load"
    agent = AgentProcess(tmp_path / "web-1", site.url, site.key, service=service, root={"metadata": {"zone": "a"}})
    agents.append(agent)
    agent.start()
    written = 0

    def write(count: int) -> None:
        nonlocal written
        agent.append("app.log", lines_of(written, written + count))
        written += count

    for turn in range(6):
        write(2_000)
        if turn == 1:
            (agent.logs / "app.log").rename(agent.logs / "app.log.1")
        elif turn == 2:
            agent.kill()
            agent.start()
        elif turn == 3:
            shutil.copy(agent.logs / "app.log", agent.logs / "app.log-20261118")
            with (agent.logs / "app.log").open("r+") as file:
                file.truncate(0)
        elif turn == 4:
            site.server.kill()
            write(2_000)
            agent.kill()
            agent.start()
            until(lambda: "takes no logs" in agent.log_text(), agent.log_text)
            site.server.start()
            asyncio.run(site.fleet.ready("serve"))
    site.reader.has_each_once(service, lines_of(0, written), agent)
    log = site.reader.logs(service)[0]
    assert log["metadata"]["host"] == "web-1"
    assert log["metadata"]["zone"] == "a"
    assert agent.stop() == 0


def test_syslog_over_tcp_and_udp_is_stored_also_when_it_came_while_the_server_was_away(
    site: Site, tmp_path: Path, agents: list[AgentProcess]
) -> None:
    tcp_port, udp_port = free_port(), free_port()
    syslog = {"tcp_port": tcp_port, "udp_port": udp_port, "service": "agent-syslog"}
    nowhere = f"http://127.0.0.1:{free_port()}"
    agent = AgentProcess(tmp_path / "web-2", nowhere, site.key, service="unused", syslog=syslog)
    agents.append(agent)
    agent.start()
    until(lambda: "listening for syslog" in agent.log_text(), agent.log_text)
    expected = []
    with socket.create_connection(("127.0.0.1", tcp_port)) as connection:
        counted = b"<165>1 2026-11-18T11:00:00Z host app 7 ID - counted, with\na line end"
        connection.sendall(b"%d " % len(counted) + counted + b"<34>Nov 18 11:00:01 host su: ended by a newline\n")
        expected += ["counted, with\na line end", "ended by a newline"]
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as datagrams:
        for number in range(20):
            datagrams.sendto(b"<13>app: datagram %d" % number, ("127.0.0.1", udp_port))
            expected.append(f"datagram {number}")
    if shutil.which("logger"):
        for number, transport in enumerate(("--tcp", "--udp")):
            port = str(tcp_port if transport == "--tcp" else udp_port)
            command = ["logger", transport, "--server", "127.0.0.1", "--port", port, "--priority", "auth.err"]
            subprocess.run([*command, "--tag", "tests", f"from logger {number}"], check=True, timeout=30)
            expected.append(f"from logger {number}")

    def kept() -> int:
        spool = tmp_path / "web-2" / "state" / "syslog"
        return sum(len(path.read_bytes().splitlines()) for path in spool.glob("*.ndjson"))

    until(lambda: kept() == len(expected), agent.log_text)
    agent.kill()
    agent.settings["url"] = site.url
    agent.start()
    site.reader.has_each_once("agent-syslog", expected, agent)
    logs = {log["message"]: log for log in site.reader.logs("agent-syslog")}
    assert logs["ended by a newline"]["level"] == "FATAL"
    assert logs["datagram 1"]["metadata"]["agent"] == "web-2"
    if "from logger 0" in logs:
        assert logs["from logger 0"]["level"] == "ERROR"
        assert logs["from logger 0"]["metadata"]["process"] == "tests"
    assert agent.stop() == 0
    assert agent.start().process is not None
    site.reader.has_each_once("agent-syslog", expected, agent)


def test_three_hosts_send_their_lines_and_show_their_files_through_one_server(
    site: Site, tmp_path: Path, agents: list[AgentProcess]
) -> None:
    key = make_key(site.fleet, "write:*", "host:host-*")
    ann = make_key(site.fleet, "read:rack-0", "read:rack-1")
    for number in range(3):
        agent = AgentProcess(tmp_path / f"host-{number}", site.url, key, service=f"rack-{number}")
        agents.append(agent)
        agent.append("a.log", [f"host {number} line {line}" for line in range(3)])
        agent.start()
    for number, agent in enumerate(agents):
        site.reader.has_each_once(f"rack-{number}", [f"host {number} line {line}" for line in range(3)], agent)
    with httpx.Client(
        base_url=site.url, headers={"Authorization": f"Bearer {ann}"}, trust_env=False, timeout=30
    ) as client:

        def hosts() -> dict[str, list[str]]:
            listed = client.get("/api/v1/hosts").json()["hosts"]
            return {host["host"]: host["services"] for host in listed if host["status"] == "up"}

        def newest(host: str) -> str:
            answer = client.get(f"/api/v1/hosts/{host}/files/app/a.log", params={"n": "1"})
            return str(json.loads(answer.text.splitlines()[0]).get("line")) if answer.status_code == 200 else ""

        until(lambda: len(hosts()) >= 2, lambda: f"{hosts()} {agents[0].log_text()}")
        assert {host: of for host, of in hosts().items() if of} == {"host-0": ["rack-0"], "host-1": ["rack-1"]}
        files = client.get("/api/v1/hosts/host-0/files").json()["files"]
        assert [file["name"] for file in files] == ["app/a.log"]
        assert newest("host-0") == "host 0 line 2"
        assert client.get("/api/v1/hosts/host-2/files/app/a.log").status_code == 404
        until(lambda: '"file": "app/a.log"' in agents[0].log_text(), agents[0].log_text)
        # Another start has another token, which the server is told at once.
        agents[0].kill()
        agents[0].append("a.log", ["after a restart"])
        agents[0].start()
        until(lambda: newest("host-0") == "after a restart", agents[0].log_text)
    assert [agent.stop() for agent in agents] == [0, 0, 0]


def test_a_configuration_that_cannot_be_used_is_said_at_the_start(tmp_path: Path) -> None:
    agent = AgentProcess(tmp_path / "web-3", "http://127.0.0.1:1", "key", service="not a service!")
    assert agent.start().ended() == 2
    assert "agent.roots.app.service" in agent.log_text()
