"""Tails over both profiles of real processes: what comes is shown once, to whom it may be shown, through cuts and restarts."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode

import httpx
import pytest
import websockets
from aiokafka.admin import AIOKafkaAdminClient, RecordsToDelete
from aiokafka.structs import TopicPartition
from websockets.asyncio.client import ClientConnection
from websockets.typing import Origin

from access.accounts import Accounts
from broker.queue import QueueBroker
from broker.settings import BrokerSettings
from db.database import Database
from infra.fleet import EMBEDDED, FULL, REPOSITORY, Fleet
from schemas.scope import AUDIT_SERVICE
from schemas.topics import WRITER_GROUP
from tests.fleets import Fleets
from tests.live_site import eventually

pytestmark = pytest.mark.timeout(300)  # the first test of a profile starts its servers

SUBJECT_TAILS = 12
CLIENT_BYTES = 64 * 1024
_services = itertools.count()
Json = dict[str, Any]


@dataclass
class Site:
    """A running fleet with access control on."""

    fleet: Fleet

    @property
    def url(self) -> str:
        """Of query."""
        return self.fleet.url("query")

    async def key(self, *grants: str, expires_at: datetime | None = None) -> str:
        """A new key's text, known to the processes."""
        async with self.database() as database:
            key = await Accounts(database).create_key("test", grants, created_by="tests", expires_at=expires_at)
        for label in ("query", "ingest"):
            await self._until_known(self.fleet.url(label), key.text)
        return key.text

    async def _until_known(self, url: str, key: str) -> None:
        async with httpx.AsyncClient(trust_env=False, headers=_bearer(key)) as client:
            ends_s = time.monotonic() + 20
            # 401 is of credentials alone: what else is wrong is answered otherwise.
            while (await client.request("GET" if url == self.url else "POST", f"{url}/api/v1/logs")).status_code == 401:
                assert time.monotonic() < ends_s, "the key is known within seconds"
                await asyncio.sleep(0.05)

    async def revoke(self, key: str) -> None:
        """Let the key in no more."""
        async with self.database() as database:
            await Accounts(database).revoke_key(key.split("_")[1])

    @asynccontextmanager
    async def database(self) -> AsyncIterator[Database]:
        """The rows' database."""
        database = Database(self.fleet.database_url, application_name="tail test", connections_max=2)
        await database.open()
        try:
            yield database
        finally:
            await database.close()

    async def send(self, key: str, logs: Sequence[Json], *, idempotency_key: str | None = None) -> list[str]:
        """One request, sent again until it is taken; the ids."""
        headers = {**_bearer(key), "Content-Type": "application/x-ndjson"}
        if idempotency_key is not None:
            headers["Idempotency-Key"] = idempotency_key
        body = "\n".join(map(json.dumps, logs))
        async with httpx.AsyncClient(trust_env=False, timeout=60) as client:
            ends_s = time.monotonic() + 60
            while True:
                with contextlib.suppress(httpx.TransportError):
                    answer = await client.post(
                        f"{self.fleet.url('ingest')}/api/v1/logs/batch?return_ids=true", headers=headers, content=body
                    )
                    if answer.status_code in (200, 201, 202):
                        return [str(each) for each in answer.json()["ids"]]
                    assert answer.status_code in (429, 503), answer.text
                assert time.monotonic() < ends_s, "ingest takes logs again"
                await asyncio.sleep(0.2)

    async def page(self, key: str, **parameters: Any) -> Json:
        """The newest logs."""
        async with httpx.AsyncClient(trust_env=False, headers=_bearer(key), timeout=30) as client:
            ends_s = time.monotonic() + 60
            while True:
                with contextlib.suppress(httpx.TransportError):
                    answer = await client.get(f"{self.url}/api/v1/logs", params={"limit": 1000, **parameters})
                    if answer.status_code == 200:
                        found: Json = answer.json()
                        return found
                    assert answer.status_code == 503, answer.text
                assert time.monotonic() < ends_s, "query answers again"
                await asyncio.sleep(0.2)


def _bearer(key: str) -> dict[str, str]:
    return {"Authorization": f"Bearer {key}"}


@dataclass
class Heard:
    """What a client was told."""

    messages: list[Json] = field(default_factory=list)
    token: str | None = None

    @property
    def logs(self) -> list[Json]:
        """As they were shown."""
        return [log for message in self.messages for log in message.get("logs") or []]

    @property
    def ids(self) -> list[str]:
        """Of the logs."""
        return [log["id"] for log in self.logs]

    @property
    def services(self) -> set[str]:
        """Of the logs."""
        return {log["service_name"] for log in self.logs}

    @property
    def skipped(self) -> int:
        """Logs."""
        return sum(message.get("skipped") or 0 for message in self.messages)

    @property
    def gaps(self) -> list[Json]:
        """In order."""
        return [message["gap"] for message in self.messages if message.get("gap")]

    @property
    def end(self) -> str | None:
        """Why it was ended."""
        return next((message["end"] for message in self.messages if message.get("end")), None)

    def note(self, message: Json) -> None:
        """Take a message."""
        self.messages.append(message)
        self.token = message.get("token") or self.token

    async def until(self, condition: Callable[[Heard], bool], what: str, timeout_s: float = 60.0) -> None:
        """Wait for a condition."""
        await eventually(lambda: condition(self), lambda: f"{what}: {len(self.ids)} logs came", timeout_s)

    async def until_logs(self, number: int) -> None:
        """Wait until so many were shown or skipped."""
        await self.until(lambda heard: len(heard.ids) + heard.skipped >= number, f"{number} logs")

    async def until_begun(self) -> None:
        """Wait for the first frame."""
        await self.until(lambda heard: bool(heard.messages), "the tail begins")


async def _hear_events(url: str, key: str, parameters: Json, heard: Heard) -> None:
    timeout = httpx.Timeout(30, read=60)
    async with httpx.AsyncClient(trust_env=False, timeout=timeout, headers=_bearer(key)) as client:
        async with client.stream("GET", f"{url}/api/v1/tail", params=parameters) as response:
            assert response.status_code == 200, await response.aread()
            assert response.headers["content-type"].startswith("text/event-stream")
            last_id = None
            async for line in response.aiter_lines():
                if line.startswith("id: "):
                    last_id = line[4:]
                if line.startswith("data: "):
                    message = json.loads(line[6:])
                    assert message.get("token") in (None, last_id)
                    heard.note(message)


async def _hear_socket(url: str, key: str, parameters: Json, heard: Heard) -> None:
    async with connected(url, key, **parameters) as opened:
        async for text in opened:
            heard.note(json.loads(text))


def connected(
    url: str, key: str | None, *, origin: str | None = None, **parameters: Any
) -> contextlib.AbstractAsyncContextManager[ClientConnection]:
    """A WebSocket."""
    query = urlencode(parameters, doseq=True)
    headers = {} if key is None else _bearer(key)
    address = f"{url.replace('http', 'ws', 1)}/api/v1/tail?{query}"
    return websockets.connect(
        address,
        additional_headers=headers,
        origin=None if origin is None else Origin(origin),
        proxy=None,
        max_size=None,
    )


async def closing(opened: ClientConnection) -> tuple[int, str]:
    """(code, reason) with which the server closes it."""
    with contextlib.suppress(websockets.ConnectionClosed):
        async with asyncio.timeout(30):
            async for _ in opened:
                pass
    assert opened.close_code is not None
    return opened.close_code, opened.close_reason or ""


@asynccontextmanager
async def tailing(site: Site, key: str, transport: str = "sse", /, **parameters: Any) -> AsyncIterator[Heard]:
    """A tail that has begun; cut at the end."""
    heard = Heard()
    hear = {"sse": _hear_events, "websocket": _hear_socket}[transport]
    task = asyncio.create_task(hear(site.url, key, parameters, heard))
    try:
        begun = asyncio.create_task(heard.until_begun())
        await asyncio.wait({task, begun}, return_when=asyncio.FIRST_COMPLETED)
        if task.done():
            begun.cancel()
            task.result()
        await begun
        yield heard
    finally:
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError, httpx.HTTPError):
            await task


def of(service: str, count: int = 1, **more: Any) -> list[Json]:
    """Logs to send."""
    return [{"service_name": service, "message": f"message {n}", **more} for n in range(count)]


def new_service(prefix: str = "tail") -> str:
    return f"{prefix}/{next(_services)}-{os.getpid()}"


@pytest.fixture(
    scope="module",
    params=[EMBEDDED, pytest.param(FULL, marks=[pytest.mark.kafka, pytest.mark.timescale])],
)
def site(request: pytest.FixtureRequest, fleets: Fleets) -> Iterator[Site]:
    if request.param == FULL:
        request.getfixturevalue("kafka_bootstrap")
        request.getfixturevalue("timescale_server")
    fleet = fleets.make(
        request.param,
        partitions=3,
        access="true",
        extra={
            "LOGFEED_TAIL__SUBJECT_TAILS_MAX": str(SUBJECT_TAILS),
            "LOGFEED_TAIL__CLIENT_BYTES_MAX": str(CLIENT_BYTES),
            "LOGFEED_TAIL__HEARTBEAT_S": "1",
            "LOGFEED_TAIL__CHECK_S": "0.5",
            "LOGFEED_TAIL__FRAME_EVERY_MS": "50",
            "LOGFEED_HTTP__ALLOWED_ORIGINS": '["https://logs.example"]',
            "LOGFEED_BROKER__REQUEST_TIMEOUT_MS": "10000",
        },
    )
    try:
        for name in ("ingest", "query", "write"):
            fleet.role(name)
        asyncio.run(fleet.ready("ingest", "query"))
        yield Site(fleet)
    finally:
        fleets.end(fleet)


@pytest.mark.parametrize("transport", ["sse", "websocket"])
async def test_a_page_and_the_tail_from_it_show_each_log_once(site: Site, transport: str) -> None:
    service = new_service()
    key = await site.key(f"read:{service}", f"write:{service}", f"tail:{service}")
    sent: list[str] = []
    stop = asyncio.Event()

    async def send() -> None:
        while not stop.is_set():
            keyed = f"{service}-{len(sent)}" if len(sent) % 2 else None
            logs = of(service, 3)
            ids = await site.send(key, logs, idempotency_key=keyed)
            sent.extend(ids)
            if keyed is not None:
                # A client that did not hear the answer.
                await site.send(key, logs, idempotency_key=keyed)

    sending = asyncio.create_task(send())
    await eventually(lambda: len(sent) > 20 or sending.done(), lambda: "logs are taken")
    assert not sending.done()
    shown: list[str] = []
    page: Json = {"count": 0}
    while not page["count"]:
        page = await site.page(key, service_name=service)
    shown += [log["id"] for log in page["logs"]]
    assert page["next_cursor"] is None
    token = page["tail"]
    for _ in range(4):
        async with tailing(site, key, transport, service_name=service, **{"from": token}) as heard:
            wanted = len(sent) + 15
            await heard.until_logs(wanted - len(shown))
            shown += heard.ids
            token = heard.token
    stop.set()
    await sending
    async with tailing(site, key, transport, service_name=service, **{"from": token}) as heard:
        await heard.until(lambda heard: len(shown) + len(heard.ids) >= len(sent), "the rest")
        shown += heard.ids
    assert sorted(shown) == sorted(sent)


async def test_cuts_and_resumes_while_the_broker_restarts_show_each_log_once(site: Site) -> None:
    """Everything keyed and sent twice: what was refused may have been taken, and is taken once. Told by content: an answer of a
    time without the database may name ids that were not the stored ones."""
    service = new_service("faults")
    key = await site.key(f"read:{service}", f"write:{service}", f"tail:{service}")
    sent: list[tuple[int, str]] = []
    stop = asyncio.Event()

    async def send() -> None:
        for number in itertools.count():
            if stop.is_set():
                return
            logs = of(service, 2, metadata={"number": number})
            for _ in range(2):
                await site.send(key, logs, idempotency_key=f"{service}-{number}")
            sent.extend(map(numbered, logs))

    def numbered(log: Json) -> tuple[int, str]:
        return log["metadata"]["number"], log["message"]

    sending = asyncio.create_task(send())
    await eventually(lambda: len(sent) > 4 or sending.done(), lambda: "logs are taken")
    page: Json = {"count": 0}
    while not page["count"]:
        page = await site.page(key, service_name=service)
    shown = list(page["logs"])
    token, restarted = page["tail"], False
    for transport in ("sse", "websocket", "sse", "websocket"):
        async with tailing(site, key, transport, service_name=service, **{"from": token}) as heard:
            if not restarted:
                site.fleet.restart_broker()
                restarted = True
            await heard.until_logs(len(sent) + 10 - len(shown))
            shown += heard.logs
            token = heard.token or token
    stop.set()
    await sending
    async with tailing(site, key, service_name=service, **{"from": token}) as heard:
        await heard.until_logs(len(sent) - len(shown))
        shown += heard.logs
    assert sorted(map(numbered, shown)) == sorted(sent)
    assert len({log["id"] for log in shown}) == len(shown)


async def test_nobody_is_shown_what_is_not_theirs(site: Site) -> None:
    mark = new_service("scope")
    services = [f"{mark}/pay/a", f"{mark}/pay/b", f"{mark}/shop", f"{mark}/mail"]
    writer = await site.key(f"write:{mark}/*", "read:unrelated")
    scopes: dict[str, set[str]] = {
        f"tail:{services[0]}": {services[0]},
        f"tail:{mark}/pay/*": set(services[:2]),
        f"tail:{services[2]}": {services[2]},
        f"tail:{mark}/*": set(services),
        f"admin:{services[3]}": {services[3]},
    }
    async with AsyncExitStack() as stack:
        heards = []
        for number, (grant, mine) in enumerate(scopes.items()):
            transport = ("sse", "websocket")[number % 2]
            key = await site.key(grant)
            question: Json = {} if number % 3 else {"query": "message OR nothing"}
            heards.append((await stack.enter_async_context(tailing(site, key, transport, **question)), mine))
        sent: dict[str, list[str]] = {service: [] for service in services}
        for _ in range(10):
            logs = [log for service in services for log in of(service)]
            ids = await site.send(writer, logs)
            for log, log_id in zip(logs, ids, strict=True):
                sent[log["service_name"]].append(log_id)
        for heard, mine in heards:
            wanted = sorted(log_id for service in mine for log_id in sent[service])
            await heard.until_logs(len(wanted))
            assert sorted(heard.ids) == wanted
            assert heard.services == mine


@pytest.mark.slow
async def test_a_slow_client_is_told_what_it_missed_and_holds_nobody_up(site: Site) -> None:
    service = new_service("slow")
    key = await site.key(f"write:{service}", f"tail:{service}")
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 * 1024)
    connection.connect(("127.0.0.1", site.fleet.ports["query"]))
    reader, writer = await asyncio.open_connection(sock=connection, limit=4 * CLIENT_BYTES)
    request = f"GET /api/v1/tail?service_name={service} HTTP/1.1\r\nHost: h\r\nAuthorization: Bearer {key}\r\n\r\n"
    writer.write(request.encode())
    head = await reader.readuntil(b"\r\n\r\n")
    assert b" 200 " in head
    await reader.readuntil(b"\n\n")
    async with tailing(site, key, "websocket", service_name=service) as quick:
        sent: list[str] = []
        for _ in range(100):
            sent += await site.send(key, of(service, 10, metadata={"text": "x" * 4_000}))
            # The quick one may be behind by no more than can wait for it.
            await quick.until_logs(len(sent))
        assert sorted(quick.ids) == sorted(sent), f"{quick.skipped} were skipped"
    slow = Heard()
    async with asyncio.timeout(60):
        while len(slow.ids) + slow.skipped < len(sent):
            line = await reader.readline()
            if line.startswith(b"data: "):
                slow.note(json.loads(line[6:]))
    assert slow.skipped > 0
    assert set(slow.ids) < set(sent)
    assert len(slow.ids) + slow.skipped == len(sent)
    # Who wants what was skipped goes on from the frame before.
    at = next(number for number, message in enumerate(slow.messages) if message.get("skipped"))
    before = slow.messages[at]["token"]
    async with tailing(site, key, service_name=service, **{"from": before}) as again:
        shown = {log["id"] for message in slow.messages[:at] for log in message.get("logs") or []}
        await again.until(lambda heard: len(shown) + len(heard.ids) >= len(sent), "what was skipped")
        assert shown | set(again.ids) == set(sent)
    writer.close()


@pytest.mark.parametrize("transport", ["sse", "websocket"])
@pytest.mark.parametrize("how", ["revoked", "expired"])
async def test_credentials_that_end_end_the_tail_with_a_reason(site: Site, transport: str, how: str) -> None:
    expires_at = datetime.now(UTC) + timedelta(seconds=6) if how == "expired" else None
    key = await site.key("tail:*", expires_at=expires_at)
    if transport == "sse":
        async with tailing(site, key) as heard:
            if how == "revoked":
                await site.revoke(key)
            await heard.until(lambda heard: heard.end is not None, "it ends")
            assert heard.end == "credentials"
            assert "expired or were revoked" in heard.messages[-1]["detail"]
        return
    async with connected(site.url, key) as opened:
        await opened.recv()
        if how == "revoked":
            await site.revoke(key)
        code, reason = await closing(opened)
        assert code == 1008
        assert "expired or were revoked" in reason


async def test_a_permission_that_changes_ends_the_tail(site: Site) -> None:
    key = await site.key("tail:a", "tail:b")
    async with tailing(site, key) as heard:
        async with site.database() as database:
            await database.execute(
                "UPDATE api_keys SET grants = ARRAY['tail:a'] WHERE prefix = %s", (key.split("_")[1],)
            )
        await heard.until(lambda heard: heard.end is not None, "it ends")
        assert heard.end == "permissions"


async def test_refusals_say_why(site: Site) -> None:
    key, reader = await site.key("tail:*"), await site.key("read:*")
    async with httpx.AsyncClient(trust_env=False) as client:
        for credentials, parameters, status, text in (
            (None, "", 401, "Bearer"),
            ("lf_" + "a" * 12 + "_" + "b" * 43, "", 401, "not known"),
            (reader, "", 403, "may not tail"),
            (key, "?levle=x", 422, "did you mean `level`"),
            (key, "?end_time=now", 422, "end_time"),
            (key, "?limit=5", 422, "limit"),
            (key, "?regex=(", 422, "regex"),
            (key, "?from=nonsense", 400, "from was cut or changed"),
        ):
            answer = await client.get(
                f"{site.url}/api/v1/tail{parameters}", headers={} if credentials is None else _bearer(credentials)
            )
            assert answer.status_code == status, answer.text
            assert text in answer.text
            with pytest.raises(websockets.InvalidStatus) as refused:
                async with connected(site.url, credentials, **dict(parse_qsl(parameters[1:]))):
                    pass
            assert refused.value.response.status_code == status
            assert text in (refused.value.response.body or b"").decode()


async def test_tokens_belong_to_their_subject_and_question(site: Site) -> None:
    key, other = await site.key("tail:*", "read:*"), await site.key("tail:*", "read:*")
    page = await site.page(key, service_name="x", order="asc")
    assert (await site.page(key, end_time="now"))["tail"] is None
    async with httpx.AsyncClient(trust_env=False) as client:
        for credentials, service in ((other, "x"), (key, "y")):
            answer = await client.get(
                f"{site.url}/api/v1/tail",
                params={"service_name": service, "from": page["tail"]},
                headers=_bearer(credentials),
            )
            assert answer.status_code == 400, answer.text
    async with tailing(site, key, service_name="x", **{"from": page["tail"]}):
        pass


async def test_a_ticket_opens_one_websocket_and_no_page_of_others_does(site: Site) -> None:
    service = new_service()
    key = await site.key(f"tail:{service}", f"write:{service}")
    async with httpx.AsyncClient(trust_env=False, headers=_bearer(key)) as client:
        answer = await client.post(f"{site.url}/api/v1/tail/tickets")
        assert answer.status_code == 201
        ticket = answer.json()["ticket"]
        own = site.url
        for origin in ("https://evil.example", "null", "http://127.0.0.1:1"):
            with pytest.raises(websockets.InvalidStatus) as refused:
                async with connected(site.url, None, origin=origin, ticket=ticket):
                    pass
            assert refused.value.response.status_code == 403
        async with connected(site.url, None, origin=own, ticket=ticket) as opened:
            await opened.recv()
            with pytest.raises(websockets.InvalidStatus) as refused:
                async with connected(site.url, None, origin=own, ticket=ticket):
                    pass
            assert refused.value.response.status_code == 401
            ids = await site.send(key, of(service))
            async with asyncio.timeout(30):
                while not (logs := json.loads(await opened.recv()).get("logs")):
                    pass
            assert [log["id"] for log in logs] == ids
            await site.revoke(key)
            assert (await closing(opened))[0] == 1008
    other = await site.key("tail:*")
    async with connected(site.url, other, origin="https://logs.example") as opened:
        await opened.recv()
        await opened.send("hello")
        assert (await closing(opened))[0] == 1003


async def test_head_is_answered_and_holds_no_place(site: Site) -> None:
    async with httpx.AsyncClient(trust_env=False, headers=_bearer(await site.key("tail:*"))) as client:
        for _ in range(2 * SUBJECT_TAILS):
            answer = await client.head(f"{site.url}/api/v1/tail", timeout=30)
            assert (answer.status_code, answer.content) == (200, b"")
            assert answer.headers["content-type"].startswith("text/event-stream")
        assert (await client.get(f"{site.url}/livez")).text == "ok\n", "the connection is whole"


async def test_one_subject_has_so_many_tails_and_gets_a_place_back(site: Site) -> None:
    key = await site.key("tail:*")
    async with AsyncExitStack() as stack:
        for number in range(SUBJECT_TAILS):
            await stack.enter_async_context(tailing(site, key, ("sse", "websocket")[number % 2]))
        async with httpx.AsyncClient(trust_env=False, headers=_bearer(key)) as client:
            answer = await client.get(f"{site.url}/api/v1/tail")
            assert answer.status_code == 429
            assert (await client.head(f"{site.url}/api/v1/tail")).status_code == 429
            assert answer.headers["retry-after"]
        async with tailing(site, await site.key("tail:*")):
            pass
    ends_s = time.monotonic() + 20
    while True:
        try:
            async with tailing(site, key):
                break
        except AssertionError:
            assert time.monotonic() < ends_s, "places come back"
            await asyncio.sleep(0.1)


async def test_a_tail_is_written_down_with_the_number_of_its_logs(site: Site) -> None:
    service = new_service()
    key = await site.key(f"tail:{service}", f"write:{service}")
    auditor = await site.key(f"admin:{AUDIT_SERVICE}")
    async with tailing(site, key, service_name=service) as heard:
        await site.send(key, of(service, 7))
        await heard.until(lambda heard: len(heard.ids) == 7, "all of them")
    ends_s = time.monotonic() + 30
    while True:
        page = await site.page(
            auditor,
            service_name=AUDIT_SERVICE,
            order="asc",
            **{"metadata.path": "/api/v1/tail", "metadata.question": f"service_name={service.replace('/', '%2F')}"},
        )
        if page["count"] == 2:
            break
        assert time.monotonic() < ends_s, page
        await asyncio.sleep(0.2)
    begin, end = (log["metadata"] for log in page["logs"])
    assert (begin["phase"], begin["rows"], end["phase"], end["rows"]) == ("begin", 0, "end", 7)
    assert begin["subject"] == end["subject"] == f"key:{key.split('_')[1]}"


async def test_what_the_broker_forgot_is_a_gap_that_pages_fill(site: Site) -> None:
    service = new_service("gap")
    key = await site.key(f"tail:{service}", f"write:{service}", f"read:{service}")
    async with tailing(site, key, service_name=service, query="message") as heard:
        first = await site.send(key, of(service, 2))
        await heard.until(lambda heard: len(heard.ids) == 2, "both")
        # The frame's own token, before more comes.
        token = heard.token
    missing = [log_id for _ in range(6) for log_id in await site.send(key, of(service, 2))]
    ends_s = time.monotonic() + 30
    while (await site.page(key, service_name=service))["count"] < len(first + missing):
        assert time.monotonic() < ends_s, "everything is stored"
        await asyncio.sleep(0.1)
    await _forget(site)
    async with tailing(site, key, service_name=service, query="message", **{"from": token}) as heard:
        after = await site.send(key, of(service, 2))
        await heard.until(lambda heard: set(after) <= set(heard.ids), "what comes after the gap")
        assert heard.gaps
        assert {gap["reason"] for gap in heard.gaps} == {"expired"}
    page = await site.page(key, **dict(parse_qsl(heard.gaps[-1]["query"])))
    shown = {log["id"] for log in page["logs"]} | set(heard.ids)
    assert shown >= set(missing + after)


async def _forget(site: Site) -> None:
    """Delete what the broker has, as retention would."""
    fleet = site.fleet
    async with site.database() as database:
        rows = await database.fetch_all(
            "SELECT partition, next_offset FROM consumer_offsets WHERE topic = %s", (fleet.topic,)
        )
        ends: dict[int, int] = dict(rows)
        if fleet.kafka is not None:
            admin = AIOKafkaAdminClient(bootstrap_servers=fleet.kafka.bootstrap)
            await admin.start()
            try:
                records = {TopicPartition(fleet.topic, partition): RecordsToDelete(end) for partition, end in rows}
                await admin.delete_records(records)
            finally:
                await admin.close()
            return
        queue = QueueBroker(database, BrokerSettings(topic=fleet.topic, queue_keep_s=0.001, queue_bytes_max=1024))
        await queue.open()
        await queue.commit_group(WRITER_GROUP, ends)
        ends_s = time.monotonic() + 60
        while await database.fetch_all(
            "SELECT FROM queue_partitions WHERE topic = %s AND first_offset < next_offset", (fleet.topic,)
        ):
            assert time.monotonic() < ends_s, "what was committed is truncated"
            await queue.upkeep()  # leaves a step out where the writer's own holds the lock


@pytest.mark.slow
async def test_tails_outlive_a_restart_of_the_broker(site: Site) -> None:
    """In the full profile, and the database's as well: tails go on while it is away."""
    service = new_service("restart")
    key = await site.key(f"tail:{service}", f"write:{service}", f"read:{service}")
    async with (
        tailing(site, key, service_name=service) as heard,
        tailing(site, key, "websocket", service_name=service) as other,
    ):
        sent = await site.send(key, of(service, 3))
        if site.fleet.timescale is not None:
            await asyncio.to_thread(site.fleet.servers.kill_database)
            sent += await site.send(key, of(service, 3))
            for one in (heard, other):
                await one.until(lambda heard: len(heard.ids) >= len(sent), "with the database away")
            await asyncio.to_thread(site.fleet.servers.start)
        await asyncio.to_thread(site.fleet.restart_broker)
        sent += await site.send(key, of(service, 3), idempotency_key=service)
        sent_again = await site.send(key, of(service, 3), idempotency_key=service)
        assert len(sent_again) == 3
        for one in (heard, other):
            await one.until(lambda heard: len(heard.ids) >= len(sent), "after the restart")
            assert len(one.ids) == len(set(one.ids))
            assert set(one.ids) >= set(sent)


async def test_the_command_follows_through_a_restart_and_ends_cleanly(site: Site, tmp_path: Path) -> None:
    service = new_service("cli")
    key = await site.key(f"tail:{service}", f"write:{service}", f"read:{service}")
    sent = await site.send(key, of(service, 5))
    ends_s = time.monotonic() + 30
    while (await site.page(key, service_name=service))["count"] < 5:
        assert time.monotonic() < ends_s
        await asyncio.sleep(0.1)
    output = (tmp_path / "out").open("w+b")
    errors = (tmp_path / "err").open("w+b")
    arguments = ["logs", "--follow", "--json", "-s", service, "--url", site.url, "--give-up-after", "60"]
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOGFEED_")}
    process = subprocess.Popen(  # noqa: ASYNC220  # it starts, and is not waited for
        [sys.executable, "-m", "cli.main", *arguments],
        # Whoever runs the tests in the background may have them ignore Ctrl-C.
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.default_int_handler),
        cwd=REPOSITORY,
        env={**environment, "LOGFEED_API_KEY": key},
        stdout=output,
        stderr=errors,
        stdin=subprocess.DEVNULL,
    )

    def printed() -> list[str]:
        return [
            json.loads(line)["id"]
            for line in (tmp_path / "out").read_text().splitlines(keepends=True)
            if line.endswith("\n")
        ]

    try:
        await eventually(lambda: len(printed()) >= 5, lambda: "the page is printed")
        sent += await site.send(key, of(service, 5))
        await eventually(lambda: len(printed()) >= 10, lambda: "what comes is printed")
        query = next(role for role in site.fleet.roles if role.arguments[0] == "query")
        assert await asyncio.to_thread(query.stop) == 0
        sent += await site.send(key, of(service, 5))
        query.start()
        await site.fleet.ready("query")
        sent += await site.send(key, of(service, 5))
        await eventually(lambda: len(printed()) >= 20, lambda: f"it goes on: {len(printed())}", 60)
        query.restart_killed()
        sent += await site.send(key, of(service, 5))
        await eventually(lambda: len(printed()) >= 25, lambda: f"it goes on: {len(printed())}", 60)
        process.send_signal(signal.SIGINT)
        assert process.wait(30) == 130
        assert sorted(printed()) == sorted(sent)
        assert printed()[:5] == sent[:5]
        assert "Traceback" not in (tmp_path / "err").read_text()
    finally:
        process.kill()
        process.wait()
        output.close()
        errors.close()
        await site.fleet.ready("query")
