"""`logfeed canary`, `doctor` and `status` as people type them, against real processes of both profiles."""

from __future__ import annotations

import asyncio
import contextlib
import json
import re
import subprocess
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import psycopg
import pytest

from access.accounts import Accounts
from db.database import Database
from infra.fleet import EMBEDDED, FULL, Fleet, Role, free_port, until
from tests import commands
from tests.fleets import Fleets

pytestmark = pytest.mark.timeout(300)  # the first test of a profile starts its servers


@dataclass
class Installation:
    """A running fleet with access control on, and a key that may do everything."""

    fleet: Fleet
    key: str

    @property
    def ingest(self) -> str:
        """Address of ingest."""
        return self.fleet.url("ingest" if self.fleet.profile == FULL else "serve")

    @property
    def query(self) -> str:
        """Address of query."""
        return self.fleet.url("query" if self.fleet.profile == FULL else "serve")

    def run(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """A command with the key."""
        return commands.logfeed(*arguments, **{"LOGFEED_URL": self.query, "LOGFEED_API_KEY": self.key, **environment})

    def canary(self, *arguments: str, **environment: str) -> tuple[int, dict[str, Any]]:
        """(exit code, report)."""
        done = self.run("canary", "--ingest-url", self.ingest, "--json", *arguments, **environment)
        assert done.stdout, done.stderr + self.fleet.failures()
        report: dict[str, Any] = json.loads(done.stdout)
        return done.returncode, report

    def doctor(self, **environment: str) -> tuple[int, list[dict[str, Any]]]:
        """(exit code, findings), with the settings of a role here."""
        port = str(next(iter(self.fleet.ports.values())))
        done = self.run("doctor", "--json", **self.fleet.environment(LOGFEED_HTTP__PORT=port, **environment))
        assert done.stdout, done.stderr
        report = json.loads(done.stdout)
        assert report["ok"] == (done.returncode == 0)
        findings: list[dict[str, Any]] = report["findings"]
        return done.returncode, findings

    def execute(self, *statements: str) -> None:
        """Statements in a transaction of their own, past every adapter."""
        with psycopg.connect(self.fleet.database_url) as connection:
            for statement in statements:
                connection.execute(statement.encode())


@pytest.fixture(scope="module", params=[EMBEDDED, pytest.param(FULL, marks=[pytest.mark.kafka, pytest.mark.timescale])])
def installation(request: pytest.FixtureRequest, fleets: Fleets) -> Iterator[Installation]:
    for server in ("embedded_server",) if request.param == EMBEDDED else ("kafka_bootstrap", "timescale_server"):
        request.getfixturevalue(server)  # skips, with the reason, where there can be none
    fleet = fleets.make(request.param, access="true", writers_listen=True)
    try:
        for role in ("ingest", "query", "write") if request.param == FULL else ("serve", "write"):
            fleet.role(role)
        labels = list(fleet.ports)
        key = asyncio.run(_ready_with_key(fleet, labels))
        yield Installation(fleet, key)
    finally:
        fleets.end(fleet)


async def _ready_with_key(fleet: Fleet, labels: list[str]) -> str:
    database = Database(fleet.database_url, application_name="tests", connections_max=2)
    await database.open()
    async with contextlib.AsyncExitStack() as stack:
        stack.push_async_callback(database.close)
        key = await Accounts(database).create_key("canary", ["admin:*", "write:*"], created_by="tests")
        await fleet.ready(*labels)  # they know it then: the directory is read before
    return key.text


# logfeed canary


def test_canary_finds_each_log_once_by_pages_and_by_the_tail(installation: Installation) -> None:
    code, report = installation.canary("--once", "25", "--rate", "100")
    assert (code, report["ok"], report["problems"]) == (0, True, []), report
    assert (report["sent"], report["acknowledged"], report["waiting"]) == (25, 25, 0)
    assert report["seen"] == {"pages": 25, "tail": 25}
    assert report["lost"] == {"pages": 0, "tail": 0}
    assert report["repeated"] == {"pages": 0, "tail": 0}
    for way in ("ack", "pages", "tail"):
        delays = report["delays"][way]
        assert delays["count"] == 25
        assert 0 < delays["p50_s"] <= delays["p95_s"] <= delays["max_s"]


_HARM = """
    CREATE FUNCTION harm() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN
        IF pg_trigger_depth() > 1 THEN RETURN NULL; END IF;
        DELETE FROM logs WHERE service_name = 'logfeed/canary' AND metadata->>'number' = '7';
        UPDATE logs SET message = message || '!' WHERE service_name = 'logfeed/canary' AND metadata->>'number' = '9'
            AND message NOT LIKE '%!';
        INSERT INTO logs SELECT (jsonb_populate_record(logs, jsonb_build_object('id', id + 1000000000))).* FROM logs
            WHERE service_name = 'logfeed/canary' AND metadata->>'number' = '12'
            AND NOT EXISTS (SELECT FROM logs AS other WHERE other.id = logs.id + 1000000000
                OR other.id = logs.id - 1000000000);
        RETURN NULL;
    END $$"""


def test_canary_tells_what_a_store_loses_doubles_and_changes(installation: Installation) -> None:
    installation.execute(_HARM, "CREATE TRIGGER harm AFTER INSERT ON logs FOR EACH STATEMENT EXECUTE FUNCTION harm()")
    try:
        code, report = installation.canary("--once", "20", "--rate", "100", "--lost-after", "3")
    finally:
        installation.execute("DROP TRIGGER harm ON logs", "DROP FUNCTION harm()")
    assert (code, report["ok"]) == (1, False)
    assert report["examples"] == {"lost_pages": [7], "repeated_pages": [12], "altered": [9]}, report
    assert report["seen"] == {"pages": 19, "tail": 20}, "the broker has all of them"


def test_canary_beside_a_deployment_tells_prometheus_and_ends_well(installation: Installation) -> None:
    fleet, port = installation.fleet, free_port()
    environment = {**fleet.environment(), "LOGFEED_URL": installation.query, "LOGFEED_API_KEY": installation.key}
    arguments = ["canary", "--ingest-url", installation.ingest, "--rate", "50", "--metrics-port", str(port)]
    canary = Role(arguments, environment, fleet.directory / "canary.log")
    canary.start()
    fleet.roles.append(canary)  # whatever happens, it ends with the fleet

    async def tells() -> bool:
        with contextlib.suppress(httpx.HTTPError):
            async with httpx.AsyncClient(trust_env=False) as client:
                text = (await client.get(f"http://127.0.0.1:{port}/metrics")).text
            found = {way: _value(text, f'logfeed_canary_seen_total{{way="{way}"}}') for way in ("pages", "tail")}
            return min(found.values()) > 20 and _value(text, 'logfeed_canary_lost_logs{way="pages"}') == 0
        return False

    asyncio.run(until(tells, what="logs are read back both ways"))
    assert canary.stop(60) == 0, canary.log_text()
    assert "ok: each acknowledged log was seen exactly once, in order" in canary.log_text()


def test_writers_tell_up_to_when_pages_are_complete(installation: Installation) -> None:
    async def tell() -> bool:
        async with httpx.AsyncClient(trust_env=False) as client:
            text = (await client.get(f"{installation.fleet.url('write')}/metrics")).text
        stored_to = re.findall(r'^logfeed_stored_to_timestamp_seconds{partition="\d"} (\S+)$', text, re.MULTILINE)
        return len(stored_to) == 4 and all(abs(time.time() - float(each)) < 30 for each in stored_to)

    asyncio.run(until(tell, what="all partitions are stored up to about now"))


def _value(text: str, sample: str) -> float:
    """Of a sample in Prometheus' text format; -1 when it is not there."""
    return next((float(line.rpartition(" ")[2]) for line in text.splitlines() if line.startswith(sample)), -1.0)


def test_canary_needs_rights_and_says_which(installation: Installation) -> None:
    refused = installation.run("canary", "--once", "1", "--ingest-url", installation.ingest, LOGFEED_API_KEY="wrong")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "--write logfeed/canary --read logfeed/canary --tail logfeed/canary" in refused.stderr


def test_canary_that_reaches_nobody_says_so() -> None:
    done = commands.logfeed("canary", "--once", "1", "--give-up-after", "0", "--url", "http://127.0.0.1:1")
    assert (done.returncode, done.stdout) == (1, "")
    assert "no connection" in done.stderr
    both = commands.logfeed("canary", "--once", "1", "--for", "1s")
    assert (both.returncode, both.stdout) == (2, "")
    assert "give one of them" in both.stderr


# logfeed doctor


def test_doctor_finds_an_installation_that_works_to_be_well(installation: Installation) -> None:
    code, found = installation.doctor()
    assert code == 0, found
    assert not [each for each in found if each["state"] == "fail"]
    texts = [f"{each['what']}: {each['text']}" for each in found]
    for beginning in ("program: Logfeed", "database: answers: PostgreSQL", "clock: of the database", "broker: "):
        assert any(text.startswith(beginning) for text in texts), texts
    assert any("records wait to be stored; writers: write" in text for text in texts)
    assert any(text.startswith("ports: http.port") and text.endswith(": ready") for text in texts)
    assert not any(text.startswith("hosts:") for text in texts), "no agent registered"
    shown = installation.run("doctor", **installation.fleet.environment())
    assert shown.returncode == 0
    assert shown.stdout.splitlines()[0].startswith("ok    program    Logfeed")


def test_doctor_says_what_to_do_about_a_partition_that_halted(installation: Installation) -> None:
    topic = installation.fleet.topic
    installation.execute(
        f"UPDATE consumer_offsets SET halted = 'a test halts it' WHERE topic = '{topic}' AND partition = 1"
    )
    try:
        code, found = installation.doctor()
    finally:
        installation.execute(f"UPDATE consumer_offsets SET halted = NULL WHERE topic = '{topic}'")
    (failed,) = (each for each in found if each["state"] == "fail")
    assert (code, failed["text"]) == (1, "partition 1 is halted: a test halts it")
    assert "logfeed db resume 1" in failed["do"]


def test_doctor_makes_no_topic_and_looks_on_without_one(installation: Installation) -> None:
    code, found = installation.doctor(LOGFEED_BROKER__TOPIC="logs.nobody.made.it")
    failed = [each for each in found if each["state"] == "fail"]
    assert code == 1
    assert any("topic logs.nobody.made.it is missing" in each["text"] for each in failed), found
    assert any(each["what"] == "tiers" for each in found)
    assert installation.doctor(LOGFEED_BROKER__TOPIC="logs.nobody.made.it")[0] == 1, "it is still not there"


def test_doctor_looks_at_the_rest_when_the_database_is_away(installation: Installation) -> None:
    code, found = installation.doctor(LOGFEED_DATABASE__URL="postgresql://nobody:none@127.0.0.1:1/none")
    (failed,) = (each for each in found if each["state"] == "fail")
    assert (code, failed["what"]) == (1, "database")
    assert "start the server" in failed["do"]
    is_asked = any(each["what"] == "broker" for each in found)
    assert is_asked == (installation.fleet.profile == FULL), "the queue is in the database"


def test_doctor_finds_settings_that_are_none_and_a_database_without_tables(postgres_url: str, tmp_path: Path) -> None:
    file = tmp_path / "logfeed.yaml"
    file.write_text("htpt: {port: 1}\n")
    wrong = commands.logfeed("doctor", "--config", str(file))
    assert (wrong.returncode, wrong.stdout.startswith("fail  settings")) == (1, True)
    assert "logfeed config check" in wrong.stdout
    empty = commands.logfeed("doctor", LOGFEED_DATABASE__URL=postgres_url, LOGFEED_DATA_DIR=str(tmp_path))
    assert empty.returncode == 1
    assert "run `logfeed db migrate`" in empty.stdout
    assert "writers" not in empty.stdout


# logfeed status


def test_status_shows_what_the_api_says(installation: Installation) -> None:
    done = installation.run("status", "--json")
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout)
    assert [each["partition"] for each in answer["partitions"]] == [0, 1, 2, 3]
    screen = installation.run("status")
    assert screen.returncode == 0
    assert screen.stdout.startswith("writers     write: ")
    assert screen.stdout.count("\n  partition ") == 4
    assert "sealer: write" in screen.stdout
    refused = installation.run("status", LOGFEED_API_KEY="wrong")
    assert (refused.returncode, refused.stdout) == (1, "")
    assert "LOGFEED_API_KEY" in refused.stderr


def test_status_is_shown_again_and_again(installation: Installation) -> None:
    environment = {
        **installation.fleet.environment(),
        "LOGFEED_URL": installation.query,
        "LOGFEED_API_KEY": installation.key,
    }
    watch = Role(["status", "--watch", "--every", "0.5"], environment, installation.fleet.directory / "watch.log")
    watch.start()
    installation.fleet.roles.append(watch)

    async def shown_twice() -> bool:
        return watch.log_text().count("writers     write: ") >= 2

    asyncio.run(until(shown_twice, what="the status is shown again"))
    assert watch.alive
    watch.kill()
