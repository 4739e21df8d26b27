"""The whole of Logfeed, one suite for both profiles: what was sent is found, by every way of asking, before and after closing.

One fleet a profile serves all tests: a server for live logs and questions, an ingest for archives (no retention), an ingest
with filters from a file, two writers. Its chunks are short and its border lies 18 hours back, so that logs are in open
chunks, in chunks that the `closed_site` fixture closes, and in late tables. Each test sends under services of its own and
notes what it sent; every question is compared with all that was sent so far, as corpora.py tells it.
"""

from __future__ import annotations

import asyncio
import gzip
import itertools
import json
import os
import random
import re
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from datetime import datetime
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

import httpx
import psycopg
import pytest
import zstandard

from db.database import Database
from db.migrations import Layout
from infra.fleet import EMBEDDED, FULL, REPOSITORY, Fleet
from store.settings import StoreSettings
from store.upkeep import PostgresUpkeep
from tests.fleets import Fleets
from tests.integration import corpora
from tests.integration.corpora import (
    DAY_US,
    HOUR_US,
    SECOND_US,
    SERVICES,
    Expected,
    Sendable,
    contains,
    iso,
    of_services,
    of_story,
    with_text,
)

pytestmark = pytest.mark.timeout(300)  # the first test of a profile starts the fleet and loads it

CHUNK_HOURS: Final = 2
OPEN_HOURS: Final = 18
UNLIMITED_DAYS: Final = 36_500
LOGS: Final = "/api/v1/logs"
FILTERS: Final = """
ingest:
  filters:
    - {type: level, name: no-debug, minimum: INFO}
    - {type: service, name: no-noise, deny: [noise/*]}
    - {type: content, name: secrets, action: mask, secrets: [card, password]}
    - {type: rate_limit, name: pace, logs_per_second: 4000, burst: 5000, on_exceed: refuse}
"""
Json = dict[str, Any]


@dataclass(frozen=True)
class Stored:
    """A log with the id under which it is stored."""

    log_id: int
    log: Expected


@dataclass
class Site:
    """A running fleet, its HTTP client, and everything that was sent to it."""

    fleet: Fleet
    directory: Path
    client: httpx.Client
    stored: list[Stored] = field(default_factory=list)
    filtered: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(service, rule) -> logs."""
    rejected: Counter[tuple[str, str]] = field(default_factory=Counter)
    """(service, reason) -> logs."""
    duplicate: Counter[str] = field(default_factory=Counter)
    """Service -> logs."""

    # --- sending

    def post_batch(self, to: str, body: bytes, **headers: str) -> httpx.Response:
        """NDJSON or an array to an ingest."""
        headers = {"Content-Type": "application/x-ndjson", **{k.replace("_", "-"): v for k, v in headers.items()}}
        url = f"{self.fleet.url(to)}{LOGS}/batch"
        return self.client.post(url, params={"return_ids": "true"}, content=body, headers=headers)

    def send(self, logs: Sequence[Sendable], *, to: str = "serve", body: bytes | None = None, **headers: str) -> Json:
        """Send a batch of which everything is taken, and note it. body: the batch in another form than NDJSON."""
        response = self.post_batch(to, body or ndjson(logs), **headers)
        assert response.status_code == 201, response.text
        answer: Json = response.json()
        assert (answer["accepted"], answer["filtered"], answer["rejected_count"]) == (len(logs), {}, 0)
        self.note(answer["ids"], logs)
        return answer

    def note(self, ids: Iterable[str], logs: Sequence[Sendable]) -> None:
        """These logs are stored under these ids."""
        self.stored += [Stored(int(log_id), log.expected) for log_id, log in zip(ids, logs, strict=True)]

    def note_found(self, expected: Sequence[Expected]) -> None:
        """These logs, all of their services, were sent by others: find out their ids. Each must be there once."""
        self.wait_stored()
        waiting: dict[object, list[Expected]] = defaultdict(list)
        for log in expected:
            waiting[log.identity].append(log)
        for found in self.walk(service_name=sorted({log.service_name for log in expected})):
            same = waiting.get(read(found).identity)
            assert same, f"was not sent, or is there too often: {found}"
            self.stored.append(Stored(int(found["id"]), same.pop()))
        lost = [log for logs in waiting.values() for log in logs]
        assert not lost, f"{len(lost)} logs are lost, e.g. {lost[0]}"

    def wait_stored(self) -> None:
        """Wait until everything that was acknowledged is stored."""

        def is_stored() -> bool:
            ended = [role.arguments for role in self.fleet.roles if not role.alive]
            assert not ended, f"processes have ended: {ended}"
            return not any(self.get("/api/v1/ledger")["unread"].values())

        wait_until(is_stored, "everything sent is stored", timeout_s=40)

    # --- asking

    def get(self, path: str, *, fresh: bool = True, **parameters: Any) -> Json:
        """An answer with status 200; 503 is asked again. fresh: none that was kept."""
        headers = {"Cache-Control": "no-cache"} if fresh else {}
        deadline = time.monotonic() + 30
        while True:
            response = self.client.get(f"{self.fleet.url('serve')}{path}", params=parameters, headers=headers)
            if response.status_code != 503:
                assert response.status_code == 200, f"{path} {parameters}: {response.text}"
                return dict(json.loads(response.content))
            assert "retry-after" in response.headers
            assert time.monotonic() < deadline, response.text

    def pages(self, path: str = LOGS, *, limit: int = 1_000, fresh: bool = True, **parameters: Any) -> Iterator[Json]:
        """Pages along next_cursor, to the end."""
        more: Json = {}
        while True:
            page = self.get(path, fresh=fresh, limit=limit, **parameters, **more)
            assert len(page["logs"]) <= limit
            yield page
            if page["next_cursor"] is None:
                return
            more = {"cursor": page["next_cursor"]}

    def walk(self, path: str = LOGS, **parameters: Any) -> list[Json]:
        """The logs of all pages."""
        return [log for page in self.pages(path, **parameters) for log in page["logs"]]

    def in_order(self) -> list[Stored]:
        """What is stored, by (timestamp, id)."""
        return sorted(self.stored, key=lambda stored: (stored.log.timestamp_us, stored.log_id))

    def expected_ids(self, keep: Callable[[Expected], bool], order: str) -> list[int]:
        """Ids of the stored logs that match, in order."""
        kept = [stored.log_id for stored in self.in_order() if keep(stored.log)]
        return kept if order == "asc" else kept[::-1]

    def some(self, count: int, keep: Callable[[Expected], bool] = lambda _: True) -> list[Stored]:
        """A sample, the same in each run of the same logs."""
        kept = [stored for stored in self.stored if keep(stored.log)]
        return random.Random(7).sample(kept, min(count, len(kept)))

    # --- importing

    def start_import(self, *arguments: str, to: str, state: str = "state") -> subprocess.Popen[str]:
        """`logfeed import` as a user runs it."""
        environment = {name: value for name, value in os.environ.items() if not name.startswith("LOGFEED_")}
        return subprocess.Popen(
            [sys.executable, "-m", "cli.main", "import", *arguments, "--url", self.fleet.url(to)],
            cwd=REPOSITORY,
            env={**environment, "XDG_STATE_HOME": str(self.directory / state), "COLUMNS": "200"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )

    def run_import(self, *arguments: str, to: str, state: str = "state") -> tuple[int, str]:
        """Exit code and output of an import."""
        return finished(self.start_import(*arguments, to=to, state=state))


def finished(process: subprocess.Popen[str]) -> tuple[int, str]:
    """Exit code and output of a process, once it ends."""
    try:
        output, _ = process.communicate(timeout=120)
    finally:
        process.kill()
    return process.returncode, output


def wait_until(condition: Callable[[], bool], what: str, *, timeout_s: float = 60.0) -> None:
    """Wait for a condition, with a deadline."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.02)


def now_us() -> int:
    """The machine's time."""
    return time.time_ns() // 1_000


def ndjson(logs: Iterable[Sendable]) -> bytes:
    """A batch's body."""
    return "\n".join(log.text for log in logs).encode()


def read(found: Json) -> Expected:
    """A log of an answer."""
    log = Expected(
        found["service_name"],
        corpora.micros(datetime.fromisoformat(found["timestamp"])),
        found["severity"],
        found["message"],
        found["correlation_id"],
        found["metadata"],
    )
    assert found["level"] == log.level
    return log


def ids_of(logs: Iterable[Json]) -> list[int]:
    """The logs' ids."""
    return [int(log["id"]) for log in logs]


def assert_same(found: Sequence[int], expected: Sequence[int], what: object) -> None:
    """The same ids in the same order; says what differs."""
    lost, surplus = set(expected) - set(found), set(found) - set(expected)
    assert not lost, f"{what}: {len(lost)} of {len(expected)} logs are not found, e.g. {min(lost)}"
    assert not surplus, f"{what}: {len(surplus)} logs are found that do not match, e.g. {min(surplus)}"
    assert len(found) == len(expected), f"{what}: logs are found twice"
    assert list(found) == list(expected), f"{what}: not in order of (timestamp, id)"


# --- the fleet --------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module", params=[EMBEDDED, FULL])
def site(request: pytest.FixtureRequest, fleets: Fleets) -> Iterator[Site]:
    """A fleet of the profile, with the corpora stored."""
    if request.param == FULL:
        request.getfixturevalue("kafka_bootstrap")
        request.getfixturevalue("timescale_server")
    try:
        data: Path | None = request.getfixturevalue("shared_data")
    except pytest.skip.Exception:
        data = None
    directory = Path(tempfile.mkdtemp(prefix="logfeed-end-to-end-"))
    directory.chmod(0o711)
    fleet = fleets.make(
        request.param,
        extra={
            "LOGFEED_STORE__RETENTION_DAYS": str(UNLIMITED_DAYS),
            "LOGFEED_STORE__CHUNK_HOURS": str(CHUNK_HOURS),
            "LOGFEED_STORE__CLOSING_DELAY_S": "86400",  # chunks are closed by the tests
        },
    )
    failed_before = request.session.testsfailed
    try:
        start(fleet)
        with httpx.Client(trust_env=False, timeout=30.0) as client:
            made = Site(fleet, directory, client)
            load(made, data)
            yield made
    finally:
        if request.session.testsfailed > failed_before or sys.exc_info()[0] is not None:
            print(fleet.failures())
        fleets.end(fleet)
        shutil.rmtree(directory, ignore_errors=True)


def start(fleet: Fleet) -> None:
    """An old border, roles."""
    with psycopg.connect(fleet.database_url) as connection:
        chunk_s = CHUNK_HOURS * 3_600
        border_s = (time.time() - OPEN_HOURS * 3_600) // chunk_s * chunk_s
        connection.execute("UPDATE border SET closed_before = to_timestamp(%s)", (border_s,))
    filters = fleet.directory / "filters.yaml"
    filters.write_text(FILTERS, encoding="utf-8")
    fleet.role("serve")
    fleet.role("ingest", label="archive", LOGFEED_INGEST__RETENTION_DAYS=str(UNLIMITED_DAYS))
    fleet.role("ingest", label="filtering", LOGFEED_CONFIG=str(filters))
    fleet.role("write", label="writer-1")
    fleet.role("write", label="writer-2")
    asyncio.run(fleet.ready("serve", "archive", "filtering"))


def load(site: Site, data: Path | None) -> None:
    """Generated logs by POST in every form, real ones through the CLI, with their times shifted and kept."""
    began_us = now_us()
    imports: list[subprocess.Popen[str]] = []
    if data is not None:
        files = {system: str(data / f"{system}_2k.log") for system in corpora.SYSTEMS}
        unlimited = ("--retention-days", str(UNLIMITED_DAYS))
        keep = (*files.values(), "--service", "kept", "--time", "keep", *unlimited)
        shift = ((path, "--service", f"shifted/{system}", "--time", "shift") for system, path in files.items())
        imports = [site.start_import(*keep, to="archive"), *(site.start_import(*one, to="serve") for one in shift)]
    post_generated(site)
    for process in imports:
        code, output = finished(process)
        assert code == 0, output
        assert re.search(r"read (12,000|2,000) lines as \1 logs: accepted \1, filtered 0, rejected 0", output), output
    if data is not None:
        kept = {system: corpora.real(data, system, "kept", now_us()) for system in corpora.SYSTEMS}
        site.note_found([log for logs in kept.values() for log in logs])
        for system, logs in kept.items():
            site.note_found(shifted(site, f"shifted/{system}", logs, began_us))
    site.wait_stored()


def shifted(site: Site, service: str, kept: list[Expected], began_us: int) -> list[Expected]:
    """The logs as a shift moves them: all by as much, the newest to the moment of the import."""
    site.wait_stored()
    newest_us = read(site.get(LOGS, service_name=service, limit=1)["logs"][0]).timestamp_us
    assert began_us <= newest_us <= now_us()
    shift_us = newest_us - max(log.timestamp_us for log in kept)
    return [replace(log, service_name=service, timestamp_us=log.timestamp_us + shift_us) for log in kept]


def post_generated(site: Site) -> None:
    """Every form of body: single logs, NDJSON, an array, compressed, with a key."""
    logs = [*corpora.generated(now_us()), corpora.long_message(now_us())]
    singles, batches = logs[:20], [logs[first : first + 250] for first in range(20, len(logs), 250)]
    for log in singles:
        response = site.client.post(
            f"{site.fleet.url('serve')}{LOGS}", content=log.text, headers={"Content-Type": "application/json"}
        )
        assert response.status_code == 201, response.text
        site.note([response.json()["log_id"]], [log])
    for number, batch in enumerate(batches):
        array = f"[{', '.join(log.text for log in batch)}]".encode()
        match number % 4:
            case 0:
                site.send(batch, Idempotency_Key=f"generated-{number}")
            case 1:
                site.send(batch, body=array, Content_Type="application/json")
            case 2:
                site.send(batch, body=gzip.compress(ndjson(batch)), Content_Encoding="gzip")
            case _:
                site.send(batch, body=zstandard.compress(array), Content_Encoding="zstd")


@pytest.fixture(scope="module")
def closed_site(site: Site) -> Site:
    """The site with all chunks of the past and the late table closed and indexed."""
    site.wait_stored()
    close_all(site)

    def finished_kinds() -> set[str]:
        query = "SELECT kind FROM catalogue WHERE state = 'finished' AND rows > 0"
        with psycopg.connect(site.fleet.database_url) as connection:
            return {kind for (kind,) in connection.execute(query)}

    wait_until(lambda: finished_kinds() == {"chunk", "late"}, "chunks and a late table are finished")
    return site


def close_all(site: Site) -> None:
    """What the writers' upkeep would do a day later."""
    layout = Layout.TIMESCALE if site.fleet.profile == FULL else Layout.NATIVE
    settings = StoreSettings(chunk_hours=CHUNK_HOURS, closing_delay_s=0, late_age_s=60)

    async def close() -> None:
        database = Database(site.fleet.database_url, application_name="test")
        await database.open()
        upkeep = PostgresUpkeep(database, site.fleet.topic, layout, settings, ahead_us_max=120 * SECOND_US)
        try:
            await upkeep.close_due(now_us=now_us() + 120 * SECOND_US)  # the late table is old enough by then
            await upkeep.finish_closed()
        finally:
            await database.close()

    asyncio.run(close())


# --- questions --------------------------------------------------------------------------------------------------------


def assert_all_questions(site: Site, *, orders: tuple[str, str], fresh: bool) -> None:
    """Every question has the logs that it must have, each once and in order. orders: taken in turns.

    Three askers at a time: faster, and as it will be.
    """
    in_order = site.in_order()

    def ask(question: corpora.Question, order: str) -> None:
        found = site.walk(fresh=fresh, order=order, **question.parameters)
        expected = [stored.log_id for stored in in_order if question.keep(stored.log)]
        assert_same(ids_of(found), expected if order == "asc" else expected[::-1], f"{question.parameters} {order}")

    with ThreadPoolExecutor(3) as askers:
        for _ in askers.map(ask, corpora.questions([each.log for each in in_order]), itertools.cycle(orders)):
            pass


def assert_everything(site: Site) -> None:
    """All logs as they were sent, in every field, with the time they were received in their ids."""
    found = site.walk()
    assert_same(ids_of(found), site.expected_ids(lambda log: True, "desc"), "everything")
    logs = {stored.log_id: stored.log for stored in site.stored}
    for log in found:
        assert read(log).identity == logs[int(log["id"])].identity
        assert log["received_at"] <= iso(now_us())


def assert_found_everywhere(site: Site, logs: Sequence[Stored]) -> None:
    """By page, by id, by correlation id."""
    services = sorted({stored.log.service_name for stored in logs})
    assert_same(ids_of(site.walk(service_name=services)), site.expected_ids(of_services(*services), "desc"), services)
    for stored in logs:
        one = site.get(f"{LOGS}/{stored.log_id}")["log"]
        assert read(one).identity == stored.log.identity
        if stored.log.correlation_id is not None:
            assert one in site.walk(story(stored.log.correlation_id))


def story(correlation_id: str) -> str:
    """Path of a correlation id's logs."""
    return f"/api/v1/correlations/{quote(correlation_id, safe='')}/logs"


def old_logs(label: str) -> list[Sendable]:
    """Logs of many ages, each with a correlation id of its own."""
    ages_us = (SECOND_US, 3 * HOUR_US, 9 * HOUR_US, 17 * HOUR_US, 30 * HOUR_US, 10 * DAY_US, 399 * DAY_US)
    began_us = now_us()
    return [
        corpora.post(
            Expected("old", began_us - age_us, 13, f"{label} late by {age_us}", f"{label}-{age_us}", {"age": age_us})
        )
        for age_us in ages_us
    ]


def send_old_logs(site: Site, label: str) -> list[Stored]:
    """Sent, stored, noted."""
    logs = old_logs(label)
    site.send(logs)
    site.wait_stored()
    return site.stored[-len(logs) :]


def test_every_log_is_found_as_it_was_sent(site: Site) -> None:
    assert len(site.stored) >= 3_001
    assert_everything(site)


def test_every_question_over_open_chunks(site: Site) -> None:
    assert_all_questions(site, orders=("desc", "asc"), fresh=False)


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [1, 7, 1_000])
def test_cursors_lead_to_the_end_and_back(site: Site, limit: int, order: str) -> None:
    level = {1: "FATAL", 7: "ERROR", 1_000: "INFO"}[limit]
    parameters: Json = {
        "service_name": ["mail", "auth"],
        "level": level,
        "q": " " if limit > 1 else "mail",
        "order": order,
    }
    pages = list(site.pages(limit=limit, **parameters))
    expected = site.expected_ids(
        lambda log: log.service_name in ("mail", "auth") and log.level == level and contains(log, parameters["q"]),
        order,
    )
    assert_same(ids_of(log for page in pages for log in page["logs"]), expected, parameters)
    assert len(expected) > limit or limit == 1_000
    assert pages[0]["prev_cursor"] is None
    full, rest = divmod(len(expected), limit)
    assert [len(page["logs"]) for page in pages] == [limit] * full + [rest] * (rest > 0)
    back = [pages[-1]]
    while (cursor := back[-1]["prev_cursor"]) is not None:
        back.append(site.get(LOGS, limit=limit, cursor=cursor, **parameters))
    is_the_way_back = [page["logs"] for page in reversed(back)] == [page["logs"] for page in pages]
    assert is_the_way_back, f"{len(back)} pages lead back over {len(pages)}: {parameters}"


def test_logs_are_found_by_id_and_others_are_not(site: Site) -> None:
    known = {stored.log_id for stored in site.stored}
    for stored in site.some(150):
        assert read(site.get(f"{LOGS}/{stored.log_id}", fresh=False)["log"]).identity == stored.log.identity
    sample = site.some(20)
    for absent in [1, max(known) + 4_096, *(s.log_id + 1 for s in sample if s.log_id + 1 not in known)]:
        response = site.client.get(f"{site.fleet.url('serve')}{LOGS}/{absent}")
        assert response.status_code == 404, response.text
        assert response.headers["content-type"] == "application/problem+json"
    least = sorted(known)[len(known) // 2]
    found = site.walk(service_name="orders", query=f"id>={least}")
    newer = [stored for stored in site.stored if stored.log_id >= least]
    assert set(ids_of(found)) == {stored.log_id for stored in newer if stored.log.service_name == "orders"}


def test_stories_are_whole_and_oldest_first_without_a_time(site: Site) -> None:
    named = {stored.log.correlation_id for stored in site.some(60, lambda log: log.service_name in SERVICES)}
    for correlation_id in (named | {"exp-42", "1001"}) - {None}:
        assert correlation_id is not None
        expected = site.expected_ids(of_story(correlation_id), "asc")
        assert_same(ids_of(site.walk(story(correlation_id), limit=5)), expected, correlation_id)
    assert site.walk(story("no-such-story")) == []


def test_stories_of_real_requests_have_every_line_with_their_id(site: Site, shared_data: Path) -> None:
    text = (shared_data / "OpenStack_2k.log").read_text(encoding="utf-8")
    lines: dict[str, set[str]] = defaultdict(set)
    for line in text.splitlines():
        for request in corpora.REQUEST_ID.findall(line):
            lines[request].add(line)
    longest = sorted(lines, key=lambda request: len(lines[request]))[-20:]
    sources = {stored.log_id: stored.log.source for stored in site.stored}
    for request in {*longest, *random.Random(7).sample(sorted(lines), 150)}:
        found = site.walk(story(request), limit=100)
        positions = [(log["timestamp"], int(log["id"])) for log in found]
        assert positions == sorted(set(positions))
        for service in ("shifted/OpenStack", "kept"):
            its_lines = [sources[int(log["id"])] for log in found if log["service_name"] == service]
            assert sorted(its_lines) == sorted(lines[request])
        assert len(found) == 2 * len(lines[request])


def test_context_is_the_logs_beside_it_in_its_service(site: Site) -> None:
    for stored in site.some(40):
        neighbours = site.expected_ids(of_services(stored.log.service_name), "asc")
        place = neighbours.index(stored.log_id)
        found = site.get(f"{LOGS}/{stored.log_id}/context", before=6, after=9)
        assert ids_of(found["before"]) == neighbours[max(place - 6, 0) : place]
        assert int(found["log"]["id"]) == stored.log_id
        assert ids_of(found["after"]) == neighbours[place + 1 : place + 10]
        assert found["complete"] is True


def test_every_message_of_a_sample_is_found_by_its_text(site: Site) -> None:
    messages = {
        stored.log.message
        for stored in site.some(40, lambda log: len(log.message.strip()) > 0 and len(log.message) < 4_000)
    }
    for message in sorted(messages):
        found = site.walk(q=message)
        assert_same(ids_of(found), site.expected_ids(with_text(message), "desc"), message)


# --- sending ----------------------------------------------------------------------------------------------------------


def wait_shown(site: Site, sent: Stored) -> None:
    """Wait until the newest page of the log's service has it."""

    def is_shown() -> bool:
        return sent.log_id in ids_of(site.get(LOGS, service_name=sent.log.service_name)["logs"])

    wait_until(is_shown, "an acknowledged log is in a page", timeout_s=10)


def test_acknowledged_log_is_soon_shown(site: Site) -> None:
    for number in range(5):
        site.send([corpora.post(Expected("visible", now_us(), 9, f"visible {number}", None, {}))])
        began_s = time.monotonic()
        wait_shown(site, site.stored[-1])
        print(f"shown after {time.monotonic() - began_s:.3f} s")


def test_visible_through_of_an_idle_system_moves_on(site: Site) -> None:
    site.wait_stored()
    for asked in (site.get(LOGS, limit=1)["visible_through"], iso(now_us())):

        def has_passed(asked: str = asked) -> bool:
            visible: str = site.get(LOGS, limit=1)["visible_through"]
            return visible > asked

        wait_until(has_passed, f"visible_through is past {asked}", timeout_s=10)


def test_acknowledged_log_is_always_in_the_ledger_or_unread(site: Site) -> None:
    for number in range(1, 21):
        site.send([corpora.post(Expected("booked", now_us(), 9, f"booked {number}", None, {}))])

        def is_booked(number: int = number) -> bool:
            ledger = site.get("/api/v1/ledger")
            received: int = sum(row["received"] for row in ledger["rows"] if row["service_name"] == "booked")
            assert received + sum(ledger["unread"].values()) >= number
            return received == number

        wait_until(is_booked, "an acknowledged log is in the ledger", timeout_s=10)


def test_batch_sent_again_with_its_key_is_stored_once_and_answered_the_same(site: Site) -> None:
    moment_us = now_us()
    logs = [
        corpora.post(Expected("keyed", moment_us - n, 9, f"keyed {n}", f"keyed-{n % 3}", {"n": n})) for n in range(50)
    ]
    answer = site.send(logs, Idempotency_Key="the key")
    for to in ("serve", "serve", "archive"):
        again = site.post_batch(to, ndjson(logs), Idempotency_Key="the key")
        assert (again.status_code, again.json()) == (201, answer)
        site.duplicate["keyed"] += len(logs)
    other = site.post_batch("serve", ndjson(logs[1:]), Idempotency_Key="the key")
    assert other.status_code == 422, other.text
    site.wait_stored()
    found = site.walk(service_name="keyed")
    assert ids_of(found) == [int(log_id) for log_id in answer["ids"]]
    assert len(site.walk(story("keyed-1"))) == 17


def test_bad_lines_are_named_and_the_others_stored(site: Site) -> None:
    good = corpora.post(Expected("mixed", now_us(), 17, "good", None, {}))
    bad = {
        "timestamp": {"service_name": "mixed", "message": "m", "timestamp": iso(now_us() - 401 * DAY_US)},
        "level": {"service_name": "mixed", "message": "m", "level": "fetal"},
        "unknown_field": {"service_name": "mixed", "message": "m", "levle": "info"},
        "correlation_id": {"service_name": "mixed", "message": "m", "correlation_id": "x" * 129},
        "service_name": {"service_name": "not a name", "message": "m"},
    }
    lines = [good.text, *map(json.dumps, bad.values()), "{cut off", good.text]
    response = site.post_batch("serve", "\n".join(lines).encode())
    assert response.status_code == 201, response.text
    answer = response.json()
    assert (answer["accepted"], answer["rejected_count"]) == (2, 6)
    assert [(item["index"], item["code"]) for item in answer["rejected"]] == [*enumerate(bad, start=1), (6, "json")]
    assert answer["ids"][1:7] == [None] * 6
    site.note([answer["ids"][0], answer["ids"][7]], [good, good])
    for code in ("timestamp", "level", "unknown_field", "correlation_id"):
        site.rejected["mixed", code] += 1
    site.rejected["", "service_name"] += 1
    site.rejected["", "json"] += 1
    site.wait_stored()
    assert len(site.walk(service_name="mixed")) == 2


def test_hostile_items_have_a_reason_and_their_neighbours_are_stored(site: Site) -> None:
    """FAULTS 20 and 21, as lines, as an array where its brackets match, and each alone."""
    good = corpora.post(Expected("hostile", now_us(), 9, "good", None, {}))
    lines = [text for hostile in corpora.HOSTILE.values() for text in (good.text.encode(), hostile.text)]
    told_apart = [hostile for name, hostile in corpora.HOSTILE.items() if name != "cut off"]
    array = [text for hostile in told_apart for text in (good.text.encode(), hostile.text)]
    for sent, body in (
        ([*corpora.HOSTILE.values()], b"\xef\xbb\xbf" + b"\r\n".join(lines)),
        (told_apart, b"[" + b",\n".join(array) + b"]"),
    ):
        response = site.post_batch("serve", body)
        assert response.status_code == 201, response.text
        answer = response.json()
        assert (answer["accepted"], answer["rejected_count"]) == (len(sent), len(sent))
        codes = [(item["index"], item["code"]) for item in answer["rejected"]]
        assert codes == [(2 * number + 1, hostile.code) for number, hostile in enumerate(sent)]
        assert all(0 < len(item["error"]) < 2_000 for item in answer["rejected"])
        site.note(answer["ids"][::2], [good] * len(sent))
        site.rejected.update((hostile.service, hostile.code) for hostile in sent)
    for name, hostile in corpora.HOSTILE.items():
        response = site.client.post(
            f"{site.fleet.url('serve')}{LOGS}", content=hostile.text, headers={"Content-Type": "application/json"}
        )
        assert response.status_code == 422, (name, response.text)
        assert response.json()["errors"][0]["message"]
        site.rejected[hostile.service, hostile.code] += 1
    site.wait_stored()
    assert len(site.walk(service_name="hostile")) == len(corpora.HOSTILE) + len(told_apart)


def test_extreme_items_are_found_exactly_as_they_were_sent(site: Site) -> None:
    logs = corpora.extreme(now_us())
    answer = site.send(logs)
    site.wait_stored()
    found = {log["id"]: log for log in site.walk(service_name=["extreme", "e" * 100])}
    assert list(found) == answer["ids"][::-1]
    for log_id, log in zip(answer["ids"], logs, strict=True):
        assert read(found[log_id]).identity == log.expected.identity, log.expected.message[:40]


def test_filters_of_a_file_drop_mask_and_are_counted(site: Site) -> None:
    moment_us = now_us()
    secrets = ("4111 1111 1111 1111", "5500005555555559", "hunter2-secret")
    texts = {
        f"paid with {secrets[0]} today": "paid with [masked:card] today",
        f"card={secrets[1]}": "card=[masked:card]",
        f"login with password={secrets[2]} failed": "login with password=[masked:password] failed",
        "order 4111 1111 1111 1112 is no card": "order 4111 1111 1111 1112 is no card",
    }
    kept: list[Sendable] = []
    for number, (text, masked) in enumerate(texts.items()):
        log = corpora.post(Expected("masked", moment_us, 9, text, None, {"deep": [{"card": secrets[1], "n": number}]}))
        found = replace(log.expected, message=masked, metadata={"deep": [{"card": "[masked:card]", "n": number}]})
        kept.append(replace(log, expected=found))
    debug = [corpora.post(Expected("masked", moment_us, 5, f"debug {n}", None, {})) for n in range(10)]
    noise = [corpora.post(Expected("noise/a", moment_us, severity, "noise", None, {})) for severity in (1, 9, 13)]
    response = site.post_batch("filtering", ndjson([*debug, *kept, *noise]))
    assert response.status_code == 201, response.text
    answer = response.json()
    assert (answer["accepted"], answer["filtered"], answer["rejected_count"]) == (4, {"no-debug": 11, "no-noise": 2}, 0)
    site.note([log_id for log_id in answer["ids"] if log_id is not None], kept)
    dropped = site.post_batch("filtering", ndjson(debug))
    assert (dropped.status_code, dropped.json()["filtered"]) == (200, {"no-debug": 10})
    site.filtered += Counter({("masked", "no-debug"): 20, ("noise/a", "no-debug"): 1, ("noise/a", "no-noise"): 2})
    site.wait_stored()
    assert sorted(log["message"] for log in site.walk(service_name="masked")) == sorted(texts.values())
    assert site.walk(service_name="noise/*") == []
    for secret in secrets:
        assert site.walk(q=secret) == []
    assert not any(secret in text for secret in secrets for text in all_rows_as_text(site))


def all_rows_as_text(site: Site) -> Iterator[str]:
    """Every row of every table that holds logs."""
    with psycopg.connect(site.fleet.database_url) as connection:
        late = connection.execute("SELECT table_name FROM catalogue WHERE kind = 'late'").fetchall()
        for table in ("logs", *(name for (name,) in late)):
            yield from (text for (text,) in connection.execute(f"SELECT t::text FROM {table} AS t".encode()))


# --- importing --------------------------------------------------------------------------------------------------------


def lines_of(path: Path, service: str, count: int) -> list[Expected]:
    """A file of recent lines, and what must be found of them."""
    first_us = (now_us() - 2 * HOUR_US) // SECOND_US * SECOND_US
    logs = [Expected(service, first_us + n * 1_000, 9, f"line {n}", None, {}) for n in range(count)]
    path.write_text("".join(f"{iso(log.timestamp_us)} INFO {log.message}\n" for log in logs), encoding="utf-8")
    return logs


def test_killed_import_run_again_stores_each_line_once(site: Site) -> None:
    path = site.directory / "killed.log"
    logs = lines_of(path, "killed", 11_000)
    command = (str(path), "--service", "killed")

    def accepted() -> float:
        metrics = site.client.get(f"{site.fleet.url('filtering')}/metrics").text
        found = re.search(r"^logfeed_ingest_logs_accepted_total (\S+)$", metrics, re.MULTILINE)
        assert found is not None
        return float(found[1])

    # The rate limit holds the second of three batches back for more than a second, and the third after it.
    before = accepted()
    process = site.start_import(*command, to="filtering")
    wait_until(lambda: accepted() > before, "a batch is accepted")
    process.send_signal(signal.SIGKILL)
    code, output = finished(process)
    assert code == -signal.SIGKILL, output
    site.wait_stored()
    assert 0 < len(site.walk(service_name="killed")) < len(logs)
    code, output = site.run_import(*command, to="filtering")
    assert code == 0, output
    site.note_found(logs)


def test_import_run_twice_stores_nothing_twice(site: Site) -> None:
    path = site.directory / "twice.log"
    logs = lines_of(path, "twice", 500)
    command = (str(path), "--service", "twice", "--time", "keep")
    code, output = site.run_import(*command, to="serve")
    assert code == 0, output
    site.note_found(logs)
    code, output = site.run_import(*command, to="serve")
    assert code == 0, output
    assert "was imported before" in output
    code, output = site.run_import(*command, to="serve", state="lost state")
    assert code == 0, output
    site.duplicate["twice"] += len(logs)
    site.wait_stored()
    assert len(site.walk(service_name="twice")) == len(logs)


def test_import_past_the_retention_is_refused_before_the_first_line(site: Site) -> None:
    path = site.directory / "ancient.log"
    path.write_text("2005-12-04 04:47:44 ERROR of another time\n" * 3, encoding="utf-8")
    code, output = site.run_import(str(path), "--service", "ancient", "--time", "keep", to="serve")
    assert code == 2, output
    assert "Nothing was sent" in output
    assert "LOGFEED_INGEST__RETENTION_DAYS" in output
    site.wait_stored()
    assert site.walk(service_name="ancient") == []
    assert all(service["service_name"] != "ancient" for service in site.get("/api/v1/services")["services"])


# --- late rows and closed chunks ---------------------------------------------------------------------------------------


def test_old_logs_are_found_at_once(site: Site) -> None:
    assert_found_everywhere(site, send_old_logs(site, "before"))


def test_old_logs_are_found_after_their_chunks_closed(closed_site: Site) -> None:
    early = [stored for stored in closed_site.stored if stored.log.service_name == "old"]
    late = send_old_logs(closed_site, "after")
    assert_found_everywhere(closed_site, early + late)
    with psycopg.connect(closed_site.fleet.database_url) as connection:
        rows = connection.execute("SELECT count(*) FROM logs_late_2 WHERE id = ANY (%s)", ([s.log_id for s in late],))
        assert rows.fetchone() == (6,)


@pytest.mark.slow
def test_every_question_over_closed_chunks(closed_site: Site) -> None:
    assert_all_questions(closed_site, orders=("asc", "desc"), fresh=True)


def test_everything_is_still_there_once_after_closing(closed_site: Site) -> None:
    assert_everything(closed_site)
    for stored in closed_site.some(100):
        assert read(closed_site.get(f"{LOGS}/{stored.log_id}")["log"]).identity == stored.log.identity
    for stored in closed_site.some(50, lambda log: log.correlation_id is not None):
        wanted = stored.log.correlation_id
        assert wanted is not None
        expected = closed_site.expected_ids(of_story(wanted), "asc")
        assert_same(ids_of(closed_site.walk(story(wanted))), expected, wanted)


# --- books ------------------------------------------------------------------------------------------------------------


def test_services_and_ledger_agree_with_what_was_sent(closed_site: Site) -> None:
    site = closed_site
    site.wait_stored()
    stored: dict[str, Counter[str]] = defaultdict(Counter)
    for each in site.stored:
        stored[each.log.service_name][each.log.level] += 1
    services = {service["service_name"]: service["counts"] for service in site.get("/api/v1/services")["services"]}
    assert services == {name: dict(levels) for name, levels in stored.items()}

    ledger = site.get("/api/v1/ledger", start_time="-1h")
    assert all(row["balanced"] for row in (*ledger["rows"], ledger["totals"]))
    assert set(ledger["unread"].values()) == {0}
    booked = {key: Counter[Any]() for key in ("received", "stored", "filtered", "rejected", "duplicate")}
    for row in ledger["rows"]:
        name = row["service_name"]
        booked["received"][name] += row["received"]
        booked["duplicate"][name] += row["duplicate"]
        for outcome in ("stored", "filtered", "rejected"):
            booked[outcome].update({(name, reason): count for reason, count in row[outcome].items()})
        assert row["dead_lettered"] == {}
    repeated = +booked["duplicate"]
    del repeated["killed"]  # what was under way at the kill is sent again
    assert repeated == +site.duplicate
    assert booked["stored"] == Counter((each.log.service_name, each.log.level) for each in site.stored)
    assert booked["filtered"] == site.filtered
    assert booked["rejected"] == site.rejected
    received = Counter(each.log.service_name for each in site.stored) + booked["duplicate"]
    for (name, _), count in (site.filtered + site.rejected).items():
        received[name] += count
    assert booked["received"] == received
    assert ledger["totals"]["received"] == received.total()
