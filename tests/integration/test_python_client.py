"""The Python client with a real Logfeed: each log of a program is stored once and in order, whatever happens to either of them.

One fleet serves all tests, with access control on. Each test has a service of its own, and numbers its logs.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from logfeed_client import (
    AsyncClient,
    Client,
    Forbidden,
    InvalidQuestion,
    LogfeedHandler,
    NotFound,
    SenderLimits,
    bind,
    correlation,
)
from logfeed_client import __file__ as client_file
from logfeed_client.sending.answers import Trouble

from access.accounts import Accounts
from db.database import Database
from infra.fleet import EMBEDDED, Fleet, Role
from tests.fleets import Fleets

DEADLINE_S = 60.0
QUICK = SenderLimits(linger_s=0.02)
PROGRAM = Path(__file__).with_name("client_program.py")
SLOW = "python/slow"
_services = itertools.count(1)

pytestmark = pytest.mark.timeout(180)


class Site:
    """A running Logfeed."""

    def __init__(self, fleet: Fleet) -> None:
        self.fleet = fleet
        self.key = asyncio.run(self._key("write:*", "read:*", "tail:*"))  # known from the start
        self.role: Role = fleet.role("serve", LOGFEED_INGEST__SERVICE_RATES=json.dumps(
            {"services": {SLOW: {"logs_per_second": 400, "burst": 400}}}
        ))  # fmt: skip
        fleet.role("write")
        asyncio.run(fleet.ready("serve"))

    @property
    def url(self) -> str:
        """Base URL."""
        return self.fleet.url("serve")

    def new_key(self, *grants: str) -> str:
        """A key's text."""
        return asyncio.run(self._key(*grants))

    async def _key(self, *grants: str) -> str:
        database = Database(self.fleet.database_url, application_name="client test", connections_max=2)
        await database.open()
        try:
            return (await Accounts(database).create_key("test", grants, created_by="tests")).text
        finally:
            await database.close()

    def start(self) -> None:
        """The server is there again."""
        self.role.start()
        asyncio.run(self.fleet.ready("serve"))

    def client(self, **options: Any) -> Client:
        """Of this server."""
        return Client(self.url, **{"api_key": self.key, "patience_s": DEADLINE_S, **options})

    def numbers(self, service: str, count: int) -> list[int]:
        """Of the logs that are stored, in order of their ids, once there are so many."""
        with self.client() as client:
            found: list[Any] = []

            def are_there() -> bool:
                found[:] = [log for log in client.logs(service_name=service) if "number" in log.metadata]
                return len(found) >= count

            until(are_there, lambda: f"{len(found)} of {count} logs are stored")
            return [log.metadata["number"] for log in sorted(found, key=lambda log: int(log.id))]


def until(condition: Callable[[], bool], what: Callable[[], str] | str) -> None:
    ends_s = time.monotonic() + DEADLINE_S
    while not condition():
        assert time.monotonic() < ends_s, what if isinstance(what, str) else what()
        time.sleep(0.03)


@pytest.fixture(scope="module")
def site(embedded_server: str, fleets: Fleets) -> Iterator[Site]:
    fleet = fleets.make(EMBEDDED, access="true")
    try:
        yield Site(fleet)
    finally:
        print(fleet.failures())
        fleets.end(fleet)


@pytest.fixture
def service() -> str:
    return f"python/{next(_services)}-{os.getpid()}"


@contextmanager
def logging_to(site: Site, service: str, **options: Any) -> Iterator[tuple[logging.Logger, LogfeedHandler]]:
    """A logger with a handler, closed at the end."""
    handler = LogfeedHandler(site.url, **{"service_name": service, "api_key": site.key, "limits": QUICK, **options})
    log = logging.Logger("program")
    log.addHandler(handler)
    try:
        yield log, handler
    finally:
        handler.close()


def say(log: logging.Logger, numbers: range) -> None:
    for number in numbers:
        log.info("number %d", number, extra={"number": number})


# --- sending


def test_what_a_program_logs_is_found_again_by_every_question(site: Site, service: str) -> None:
    with logging_to(site, service) as (log, handler):
        with correlation() as story, bind(user="u-1"):
            say(log, range(1_200))
            try:
                raise ValueError("no money")
            except ValueError:
                log.exception("failed", extra={"number": 1_200})
        assert handler.sender.flush(DEADLINE_S)
        stats = handler.stats()
        assert (stats.taken, stats.accepted, stats.rejected, stats.dropped) == (1_201, 1_201, {}, {})
    assert site.numbers(service, 1_201) == list(range(1_201))
    with site.client() as client:
        assert [log.metadata["number"] for log in client.correlation(story)] == list(range(1_201))
        (failed,) = client.logs(query="level>=error", service_name=service)
        assert failed.metadata["exception"]["message"] == "no money"
        assert failed.metadata["user"] == "u-1"
        assert client.get(failed.id) == failed
        around = client.context(failed.id, before=2, after=2)
        assert [log.metadata["number"] for log in around.before] == [1_198, 1_199]
        assert (around.log, around.after, around.complete) == (failed, [], True)
        histogram = client.histogram(service_name=service, start_time=timedelta(hours=1))
        assert (histogram.total, histogram.counted_from) == (1_201, None)
        assert sum(bucket.counts.get("ERROR", 0) for bucket in histogram.buckets) == 1
        pages = list(client.pages(service_name=service, page_logs=500, order="asc"))
        assert [len(page.logs) for page in pages] == [500, 500, 201]
        assert [log.metadata["number"] for log in client.logs(service_name=service, limit=3)] == [1_200, 1_199, 1_198]
        assert len(list(client.logs(service_name=service, metadata={"number": 7}))) == 1


def test_refusals_are_errors_with_the_servers_words(site: Site, service: str) -> None:
    with site.client() as client:
        with pytest.raises(NotFound):
            client.get(1)
        with pytest.raises(InvalidQuestion) as raised:
            next(client.logs(query="level:"))
        assert raised.value.errors[0]["field"] == "query"
    key = site.new_key(f"write:{service}")
    with site.client(api_key=key) as client:
        until(lambda: _is_forbidden(client), "the key is known, and may not read")


def _is_forbidden(client: Client) -> bool:
    try:
        client.get(1)
    except Forbidden:
        return True
    except Exception:
        return False
    return False


@pytest.mark.parametrize("has_spool", [False, True])
def test_a_server_that_is_killed_and_comes_back_has_each_log_once_and_in_order(
    site: Site, service: str, tmp_path: Path, has_spool: bool
) -> None:
    spool = tmp_path / "spool" if has_spool else None
    with logging_to(site, service, spool_dir=spool) as (log, handler):
        say(log, range(300))
        assert handler.sender.flush(DEADLINE_S)
        saying = threading.Thread(target=lambda: say_slowly(log, range(300, 1_800)))
        saying.start()
        site.role.kill()
        try:
            until(lambda: handler.stats().trouble is Trouble.AWAY, "it is missed")
            if has_spool:
                until(lambda: handler.stats().spooled_bytes > 0, "logs wait on disk")
        finally:
            site.start()
        saying.join()
        until(lambda: not handler.stats().spooled and handler.sender.flush(1.0), "everything is sent")
        assert handler.stats().dropped == {}
    assert site.numbers(service, 1_800) == list(range(1_800))


def say_slowly(log: logging.Logger, numbers: range) -> None:
    """So that the server dies among them."""
    for number in numbers:
        say(log, range(number, number + 1))
        time.sleep(0.001)


def test_a_rate_of_the_server_is_kept_and_loses_nothing(site: Site) -> None:
    with logging_to(site, SLOW, limits=SenderLimits(linger_s=0.02, batch_logs=300)) as (log, handler):
        say(log, range(1_200))
        until(lambda: handler.stats().trouble is Trouble.BUSY, "it is told to wait")
        until(lambda: handler.stats().accepted == 1_200, "everything is sent")
        assert handler.stats().retries > 0
    assert site.numbers(SLOW, 1_200) == list(range(1_200))


def test_a_key_that_may_not_write_yet_sends_when_it_may(site: Site, service: str, tmp_path: Path) -> None:
    key = [site.new_key(f"write:{service}-not")]
    with logging_to(site, service, api_key=lambda: key[0], spool_dir=tmp_path) as (log, handler):
        say(log, range(50))
        until(lambda: handler.stats().trouble is Trouble.CREDENTIALS, "it is refused")
        key[0] = site.key
        until(lambda: handler.stats().accepted == 50, "the renewed key sends them")
    assert site.numbers(service, 50) == list(range(50))


def test_a_log_that_logfeed_does_not_take_is_counted_and_the_others_are_stored(site: Site, service: str) -> None:
    with logging_to(site, service) as (log, handler):
        say(log, range(3))
        log.handle(
            logging.makeLogRecord({"name": "old", "msg": "too old", "created": 1e9, "levelno": 20, "process": 1})
        )
        say(log, range(3, 6))
        assert handler.sender.flush(DEADLINE_S)
        assert (handler.stats().accepted, handler.stats().rejected) == (6, {"timestamp": 1})
    assert site.numbers(service, 6) == list(range(6))


# --- programs


def program(site: Site, *arguments: object) -> subprocess.Popen[str]:
    """`client_program.py` with this server and a key."""
    return subprocess.Popen(
        [sys.executable, str(PROGRAM), site.url, site.key, *map(str, arguments)],
        env={**os.environ, "PYTHONPATH": str(Path(client_file).resolve().parents[1])},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def finished(process: subprocess.Popen[str]) -> str:
    """What it said."""
    try:
        output, errors = process.communicate(timeout=DEADLINE_S)
    finally:
        process.kill()
    assert process.returncode == 0, errors
    return output


def test_what_was_spooled_outlives_a_killed_program_and_arrives_once(site: Site, service: str, tmp_path: Path) -> None:
    site.role.kill()
    try:
        for first in (0, 700):  # the second one begins with what the first one left
            process = program(site, service, tmp_path, first, 700, "spooled")
            assert process.stdout is not None
            assert process.stdout.readline() == "spooled\n"
            process.kill()
            process.communicate()
    finally:
        site.start()
    assert list(tmp_path.glob("*/*.ndjson"))
    for _ in range(2):
        assert finished(program(site, service, tmp_path, 0, 0, "idle")) == "idle\n"
    assert not list(tmp_path.glob("*/*.ndjson"))
    assert site.numbers(service, 1_400) == list(range(1_400))


def test_a_program_that_ends_and_its_child_have_sent_everything(site: Site, service: str) -> None:
    finished(program(site, service, "", 0, 1_500, "fork"))
    assert site.numbers(service, 1_500) == list(range(1_500))
    assert site.numbers(f"{service}/child", 1_500) == list(range(1_500))


# --- tails


def test_a_tail_shows_what_comes_and_goes_on_from_its_token(site: Site, service: str) -> None:
    with logging_to(site, service) as (log, handler), site.client() as client:
        say(log, range(10))
        assert handler.sender.flush(DEADLINE_S)
        assert site.numbers(service, 10) == list(range(10))
        page = next(client.pages(service_name=service))
        shown = [entry.metadata["number"] for entry in reversed(page.logs)]
        assert page.tail is not None
        token = page.tail
        for first in (10, 20):
            say(log, range(first, first + 10))
            tail = client.tail(from_token=token, service_name=service)
            for entry in tail:
                shown.append(entry.metadata["number"])
                if len(shown) == first + 10:
                    break
            # Its last message was not taken to its end: the next tail is told of it again, from the token before.
            token = tail.token
            shown = list(dict.fromkeys(shown))
        assert shown[:20] == list(range(20))


async def test_the_client_for_asyncio_asks_and_tails(site: Site, service: str) -> None:
    with logging_to(site, service) as (log, handler):
        async with AsyncClient(site.url, api_key=site.key, patience_s=DEADLINE_S) as client:
            tail = client.tail(service_name=service)
            shown: list[int] = []

            async def follow() -> None:
                async for entry in tail:
                    shown.append(entry.metadata["number"])
                    if len(shown) == 20:
                        return

            following = asyncio.create_task(follow())
            while tail.token == "now":
                assert not following.done()
                await asyncio.sleep(0.02)
            say(log, range(20))
            await asyncio.wait_for(following, DEADLINE_S)
            assert shown == list(range(20))
            await asyncio.to_thread(site.numbers, service, 20)
            found = [entry async for entry in client.logs(service_name=service, order="asc")]
            assert [entry.metadata["number"] for entry in found] == list(range(20))
            assert (await client.get(found[0].id)) == found[0]
            assert (await client.histogram(service_name=service)).total == 20
            assert (await client.context(found[5].id, before=1, after=1)).log == found[5]
            assert handler.stats().accepted == 20
