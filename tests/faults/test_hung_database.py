"""SIGTERM while the database hangs (stopped, nothing closed, nobody answers): every role ends within its time."""

from __future__ import annotations

import asyncio
import signal
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import httpx
import psutil
import pytest

from infra.fleet import EMBEDDED, FULL, Fleet, Role, until
from tests.faults.conftest import MakeFleet
from tests.faults.producers import Producers, assert_exactly_once, fetch_all

ENDS_WITHIN_S = 30.0
"""Their own deadline (runtime.stopping) is 25 s."""


@contextmanager
def hung_database(fleet: Fleet) -> Iterator[None]:
    """The postmaster and every backend stopped, as a machine that hangs; they go on afterwards."""
    server = fleet.embedded or fleet.timescale
    assert server is not None
    assert server.pid is not None
    postmaster = psutil.Process(server.pid)
    postmaster.suspend()  # first: it starts nothing new while its children are counted
    stopped = [postmaster, *postmaster.children(recursive=True)]
    for process in stopped[1:]:
        process.suspend()
    try:
        yield
    finally:
        for process in stopped:
            with suppress(psutil.NoSuchProcess):
                process.resume()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("profile", [EMBEDDED, pytest.param(FULL, marks=pytest.mark.long)])
async def test_sigterm_while_the_database_hangs_ends_every_role_in_time(make_fleet: MakeFleet, profile: str) -> None:
    fleet = await asyncio.to_thread(make_fleet, profile)
    roles = {name: fleet.role(name) for name in ("ingest", "query", "serve", "write")}
    await fleet.ready("ingest", "query", "serve")
    producers = Producers(lambda: fleet.url("ingest"), seed=120)
    await producers.run(producers=2, requests=10, logs_per_request=50)
    await assert_exactly_once(fleet.url("query"), producers)
    async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
        with hung_database(fleet):
            waiting = [await _with_a_request_under_way(fleet, name, client) for name in ("ingest", "serve")]
            producers.sent.add((0, 0))  # nobody was told whether these are stored
            waiting += [
                asyncio.create_task(client.get(f"{fleet.url(name)}/api/v1/logs")) for name in ("query", "serve")
            ]
            began_s = time.monotonic()
            for role in roles.values():
                role.signal(signal.SIGTERM)
            codes = await asyncio.gather(*(asyncio.to_thread(_code, role) for role in roles.values()))
            assert time.monotonic() - began_s < ENDS_WITHIN_S
            for name, code in zip(roles, codes, strict=True):
                # 1 says that not everything was given back in time.
                assert code in (0, 1), roles[name].log_text()[-2000:]
                assert (code == 1) == ("the stop takes too long" in roles[name].log_text())
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)
    for role in roles.values():
        role.start()
    await fleet.ready("ingest", "query")
    await producers.run(producers=2, requests=10, logs_per_request=50)

    async def found_once() -> bool:
        logs = await fetch_all(fleet.url("query"))
        found = Counter((log["metadata"]["producer"], log["metadata"]["number"]) for log in logs)
        return all(found[pair] == 1 for pair in producers.acked) and found.keys() <= producers.sent

    await until(found_once, what="everything acknowledged is found once")


def _code(role: Role) -> int:
    assert role.process is not None
    return role.process.wait(ENDS_WITHIN_S + 30)


async def _with_a_request_under_way(fleet: Fleet, name: str, client: httpx.AsyncClient) -> asyncio.Task[httpx.Response]:
    """A log that the role has taken up; where the broker is Kafka, the hung database does not keep it from an answer."""
    log = {"service_name": "shop", "message": "under way", "metadata": {"producer": 0, "number": 0}}
    sending = asyncio.create_task(client.post(f"{fleet.url(name)}/api/v1/logs", json=log))

    async def taken_up() -> bool:
        text = (await client.get(f"{fleet.url(name)}/metrics")).text
        held = [line for line in text.splitlines() if line.startswith("logfeed_ingest_bytes_in_flight ")]
        return sending.done() or any(float(line.rpartition(" ")[2]) > 0 for line in held)

    await until(taken_up, what=f"{name} has taken the log up")
    assert not sending.done() or sending.result().status_code == 201, sending.result().text
    return sending
