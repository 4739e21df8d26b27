"""`logfeed canary` as people type it, against real processes of both profiles."""

from __future__ import annotations

import asyncio
import contextlib
import json
import subprocess
from collections.abc import Iterator
from dataclasses import dataclass
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

    def execute(self, *statements: str) -> None:
        """Statements in a transaction of their own, past every adapter."""
        with psycopg.connect(self.fleet.database_url) as connection:
            for statement in statements:
                connection.execute(statement.encode())


@pytest.fixture(scope="module", params=[EMBEDDED, pytest.param(FULL, marks=[pytest.mark.kafka, pytest.mark.timescale])])
def installation(request: pytest.FixtureRequest, fleets: Fleets) -> Iterator[Installation]:
    for server in ("embedded_server",) if request.param == EMBEDDED else ("kafka_bootstrap", "timescale_server"):
        request.getfixturevalue(server)  # skips, with the reason, where there can be none
    fleet = fleets.make(request.param, access="true")
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
