"""Programs that ship to Elasticsearch, unmodified, against a real Logfeed: what they send is found once, also when Logfeed is
killed and comes back, or tells them to wait.

Each is configured as its page in docs/shippers/ says. Filebeat, Logstash and Fluent Bit, which no package index has, are
their requests: tests/unit/ingest/wire/elastic/requests.
"""

from __future__ import annotations

import asyncio
import gzip
import json
import shutil
import subprocess
import tempfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Final

import elastic_transport
import httpx
import pytest
from elasticsearch import ApiError, Elasticsearch, helpers

from access.principal import RateLimits
from infra.fleet import EMBEDDED
from tests.certificates import make_pair
from tests.elastic_site import Json, Site, until
from tests.fleets import Fleets
from tests.shippers import debian
from tests.shippers.debian import Shipper

pytestmark = pytest.mark.timeout(300)


@pytest.fixture(scope="module")
def site(request: pytest.FixtureRequest, fleets: Fleets) -> Iterator[Site]:
    fleet = fleets.make(EMBEDDED, access="true")
    try:
        serve = fleet.role("serve")
        fleet.role("write")
        asyncio.run(fleet.ready("serve"))
        failed = request.session.testsfailed
        yield Site(fleet, serve)
        if request.session.testsfailed > failed:
            print(fleet.failures())
    finally:
        fleets.end(fleet)


@pytest.fixture
def directory() -> Iterator[Path]:
    """Of a shipper: shorter than pytest's, for the names of sockets."""
    path = Path(tempfile.mkdtemp(prefix="ship-"))
    yield path
    shutil.rmtree(path, ignore_errors=True)


# --- elasticsearch-py -----------------------------------------------------------------------------------------------


def documents(service: str, count: int, *, ids: bool = True) -> list[Json]:
    now = datetime.now(UTC).isoformat()
    return [
        {"@timestamp": now, "message": f"{service} {number}", "service": {"name": service}, "n": number}
        | ({"_id": f"{service}-{number}"} if ids else {})
        for number in range(count)
    ]


def messages_of(given: list[Json]) -> list[str]:
    return [document["message"] for document in given]


@pytest.mark.parametrize("how", ["api_key", "basic_auth", "bearer_auth", "prefix"])
def test_the_python_client_sends_with_any_credentials(site: Site, how: str) -> None:
    key = site.key("write:*")
    ways: dict[str, Json] = {
        "api_key": {"api_key": key},
        "basic_auth": {"basic_auth": ("elastic", key)},
        "bearer_auth": {"bearer_auth": key},
        "prefix": {"api_key": ("some id", key)},
    }
    url = f"{site.url}/elastic" if how == "prefix" else site.url
    with Elasticsearch(url, http_compress=how == "api_key", **ways[how]) as client:
        assert client.info()["version"]["number"] == "8.19.0"
        assert client.ping()
        sent = documents(f"py/{how}", 1_200)
        assert helpers.bulk(client, sent, index="logs") == (1_200, [])
        found = client.bulk(operations=[{"create": {}}, {"message": "by hand", "app": f"py/{how}"}])
    assert found["errors"] is False
    site.until_once(f"py/{how}", [*messages_of(sent), "by hand"])


def test_the_python_client_is_told_which_item_is_bad(site: Site) -> None:
    sent = documents("py/bad", 3)
    sent[1]["@timestamp"] = "1999-01-01"
    with Elasticsearch(site.url, api_key=site.key("write:py/bad")) as client:
        done, errors = helpers.bulk(client, sent, index="logs", raise_on_error=False)
    assert done == 2
    assert isinstance(errors, list)
    assert errors[0]["index"]["_id"] == "py/bad-1"
    assert errors[0]["index"]["error"]["type"] == "document_parsing_exception"
    site.until_once("py/bad", ["py/bad 0", "py/bad 2"])


def test_the_python_client_with_a_wrong_key_is_refused(site: Site) -> None:
    with Elasticsearch(site.url, api_key="lf_" + "a" * 12 + "_" + "b" * 43) as client, pytest.raises(ApiError) as found:
        client.bulk(operations=[{"create": {}}, {"message": "m"}])
    assert found.value.status_code == 401
    assert "not known" in str(found.value)


def test_the_python_client_that_is_told_to_wait_loses_nothing(site: Site) -> None:
    key = site.key("write:py/paced", rates=RateLimits(logs_per_s=400.0, bytes_per_s=None, burst_s=1.0))
    sent = documents("py/paced", 1_200)
    with Elasticsearch(site.url, api_key=key, retry_on_status=()) as client:
        told = [
            ok
            for ok, _ in helpers.streaming_bulk(
                client, sent, index="logs", chunk_size=200, max_retries=20, initial_backoff=0.2, max_backoff=1
            )
        ]
    assert told == [True] * 1_200
    site.until_once("py/paced", messages_of(sent))


def test_documents_with_ids_are_stored_once_whenever_logfeed_is_killed(site: Site) -> None:
    """Answers are lost, and the whole is sent again until it was heard to the end."""
    sent = documents("py/killed", 4_000)
    kills = 0
    with Elasticsearch(site.url, api_key=site.key("write:py/killed"), max_retries=1, request_timeout=20) as client:
        for _ in range(200):
            try:
                for number, (ok, _) in enumerate(helpers.streaming_bulk(client, sent, index="logs", chunk_size=250)):
                    assert ok
                    if kills < 4 and number == 500 + kills * 800:
                        kills += 1
                        site.kill()
                        site.serve.start()
                break
            except elastic_transport.TransportError:  # what it was told of an item would be another error
                asyncio.run(site.fleet.ready("serve"))
    assert kills == 4
    site.until_once("py/killed", messages_of(sent))


# --- curl -----------------------------------------------------------------------------------------------------------


def test_the_pages_curl_command_works(site: Site) -> None:
    command = debian.configuration_of("elastic", "printf")
    command = command.replace("http://127.0.0.1:8080", site.url).replace(
        '"logfeed:$KEY"', '"logfeed:$KEY" --noproxy "*"'
    )
    command = command.replace("2026-11-22T10:00:00.123Z", datetime.now(UTC).isoformat())
    command = command.replace('"shop"', '"curl/shop"')
    environment = {"KEY": site.key("write:curl/*"), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(["sh", "-c", command], env=environment, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout)["errors"] is False, done.stdout
    site.until_once("curl/shop", ["payment declined"])
    [log] = site.logs("curl/shop")
    assert log["level"] == "ERROR"


def test_a_browser_and_a_client_share_the_address(site: Site) -> None:
    page = httpx.get(site.url, headers={"Accept": "text/html,*/*;q=0.8"}, trust_env=False)
    assert page.headers["content-type"].startswith("text/html")
    info = httpx.get(site.url, headers={"Accept": "application/json"}, trust_env=False)
    assert info.json()["tagline"] == "You Know, for Search"


# --- shippers that cannot be installed here: what they ask, in their order --------------------------------------------

REQUESTS: Final = Path(__file__).parents[1] / "unit" / "ingest" / "wire" / "elastic" / "requests"


def _request(name: str, service: str) -> bytes:
    body = (REQUESTS / f"{name}.ndjson").read_text()
    lines = [json.loads(line) for line in body.splitlines()]
    for line in lines[1::2]:
        line["service"] = {"name": service}
        line["@timestamp"] = datetime.now(UTC).isoformat()
    return "".join(f"{json.dumps(line)}\n" for line in lines).encode()


def test_logstash_finds_what_it_asks_for_and_its_bulk_is_taken(site: Site) -> None:
    """HEAD and GET /, the licence, its template; then bodies with gzip and its filter_path."""
    key = site.key("write:ls")
    headers = {"Content-Type": "application/json", "x-elastic-product-origin": "logstash-output-elasticsearch"}
    with httpx.Client(base_url=site.url, auth=("logstash", key), headers=headers, trust_env=False) as logstash:
        assert logstash.head("/").status_code == 200
        root = logstash.get("/")
        assert root.headers["x-elastic-product"] == "Elasticsearch"
        assert int(root.json()["version"]["number"].partition(".")[0]) == 8
        assert logstash.get("/_license").json()["license"]["status"] == "active"
        assert logstash.head("/_index_template/ecs-logstash").status_code == 200
        packed = gzip.compress(_request("logstash", "ls"))
        answer = logstash.post(
            "/_bulk",
            params={"filter_path": "errors,items.*.error,items.*.status"},
            content=packed,
            headers={"Content-Encoding": "gzip", "X-Elastic-Event-Count": "1"},
        )
    assert answer.json() == {"errors": False, "items": [{"index": {"status": 201}}]}
    site.until_once("ls", ["GET /cart 200"])


def test_filebeat_finds_what_it_asks_for_and_its_bulk_is_taken(site: Site) -> None:
    """GET /, its policy, template and data stream; then bodies with its filter_path. The answer is lost once."""
    headers = {"Accept": "application/json", "User-Agent": "Elastic-filebeat/8.17.0 (linux; amd64)"}
    headers["Authorization"] = f"ApiKey {site.key('write:fb')}"
    with httpx.Client(base_url=site.url, headers=headers, trust_env=False) as filebeat:
        assert filebeat.get("/").json()["version"]["number"] == "8.19.0"
        for path in ("_ilm/policy/filebeat", "_index_template/filebeat-8.17.0", "_data_stream/filebeat-8.17.0"):
            assert filebeat.get(f"/{path}").status_code == 200
        body = _request("filebeat_ids", "fb")
        for _ in range(2):
            answer = filebeat.post(
                "/_bulk",
                params={"filter_path": "errors,items.*.error,items.*.status"},
                content=body,
                headers={"Content-Type": "application/json; charset=UTF-8"},
            )
            assert answer.json() == {"errors": False, "items": [{"create": {"status": 201}}] * 2}
    site.until_once("fb", ["one", "two"])


def test_fluent_bit_that_generates_ids_sends_a_chunk_again_and_it_is_stored_once(site: Site) -> None:
    auth = ("fluent-bit", site.key("write:flb"))
    with httpx.Client(
        base_url=site.url, auth=auth, headers={"User-Agent": "Fluent-Bit"}, trust_env=False
    ) as fluent_bit:
        body = _request("fluent_bit_generate_id", "flb")
        for _ in range(2):
            answer = fluent_bit.post("/_bulk", content=body, headers={"Content-Type": "application/x-ndjson"})
            assert b'"errors":false,"items":[' in answer.content, "what it looks for in an answer that is cut"
    site.until_once("flb", ["one"])


# --- rsyslog, syslog-ng -----------------------------------------------------------------------------------------------

SHIPPERS: Final = {"rsyslog": debian.rsyslog, "syslog-ng": debian.syslog_ng}
SHOP: Final = "shop"
"""Whose the file is that the pages read."""


class Shipping:
    """One shipper that runs, and what was written to it."""

    def __init__(self, site: Site, shipper: Shipper, service: str) -> None:
        self.site = site
        self.service = service
        self.sent: list[str] = []
        self._shipper = shipper

    def write(self, count: int, severity: int = 6) -> None:
        """Lines, each of its own; severity: syslog's."""
        messages = [f"line {len(self.sent) + number}" for number in range(count)]
        lines = [f"<{8 + severity}>{datetime.now():%b %e %H:%M:%S} web-1 {self.service}: {text}" for text in messages]
        self.write_lines([line.encode() for line in lines], messages)

    def write_lines(self, lines: list[bytes], messages: list[str]) -> None:
        """Whole lines, and what their messages have to be."""
        self._shipper.write(lines)
        self.sent += messages

    def until_once(self) -> None:
        self.site.until_once(self.service, self.sent, self.said)

    def said(self) -> str:
        return self._shipper.said()


@pytest.fixture(params=SHIPPERS)
def shipping(request: pytest.FixtureRequest, site: Site, directory: Path) -> Iterator[Callable[..., Shipping]]:
    """Starts the shipper with a key."""
    started: list[Shipper] = []

    def start(service: str, rates: RateLimits | None = None, *, port: int = 0, tls_ca: Path | None = None) -> Shipping:
        service = f"{service}-{request.param}"
        key = site.key(f"write:{service}", f"write:{SHOP}", rates=rates)
        shipper = SHIPPERS[request.param](directory, logfeed_port=port or site.port, key=key, tls_ca=tls_ca)
        started.append(shipper)
        shipper.start()
        until(shipper.listens, shipper.said)
        return Shipping(site, shipper, service)

    yield start
    for shipper in started:
        shipper.kill()


def test_lines_are_logs_with_their_level_and_program(shipping: Callable[..., Shipping]) -> None:
    shipped = shipping("levels")
    shipped.write(3)
    shipped.write(2, severity=3)
    shipped.until_once()
    logs = {log["message"]: log for log in shipped.site.logs(shipped.service)}
    assert [logs[f"line {number}"]["level"] for number in range(5)] == ["INFO"] * 3 + ["ERROR"] * 2
    assert {log["metadata"]["facility"] for log in logs.values()} == {"user"}
    assert len({log["metadata"]["_id"] for log in logs.values()}) == 5


def test_times_hosts_and_odd_bytes_arrive_and_a_trace_is_one_log(
    shipping: Callable[..., Shipping], directory: Path, request: pytest.FixtureRequest
) -> None:
    shipped = shipping("exact")
    zone = timezone(timedelta(hours=2))
    sent = datetime.now(zone).replace(microsecond=123_456)
    odd = {"rsyslog": "caf?", "syslog-ng": "caf\\xe9"}[request.node.callspec.params["shipping"]]
    head = f"<14>1 {sent.isoformat()} web-7 {shipped.service} 77 - -"
    shipped.write_lines([f"{head} exact".encode(), head.encode() + b" caf\xe9"], ["exact", odd])
    shipped.until_once()
    for log in shipped.site.logs(shipped.service):
        assert datetime.fromisoformat(log["timestamp"]) == sent
        assert log["metadata"]["host"] == "web-7"

    before = shipped.site.messages(SHOP)
    trace = f"{sent:%Y-%m-%d} failed of {odd}\n  at here\n  at there"
    with (directory / "shop.log").open("a") as file:
        file.write(f"{trace}\n{sent:%Y-%m-%d} the next\n")
    until(lambda: trace in shipped.site.messages(SHOP), shipped.said)
    assert all(message.startswith("2") for message in shipped.site.messages(SHOP) - before)


@pytest.mark.long
def test_lines_go_by_https_where_the_pages_say_how(
    shipping: Callable[..., Shipping], site: Site, directory: Path, request: pytest.FixtureRequest
) -> None:
    pair, label = make_pair(directory), f"https-{request.node.callspec.params['shipping']}"
    role = site.fleet.role(
        "ingest", label=label, LOGFEED_HTTP__TLS_CERT=str(pair.cert), LOGFEED_HTTP__TLS_KEY=str(pair.key)
    )
    try:
        port = site.fleet.ports[label]
        shipped = shipping("https", port=port, tls_ca=pair.cert)
        shipped.write(50)
        shipped.until_once()
    finally:
        role.kill()


@pytest.mark.parametrize(
    "shipping", [pytest.param("rsyslog", marks=pytest.mark.long), "syslog-ng"], indirect=True
)  # rsyslog waits for half a minute
def test_nothing_is_lost_or_twice_when_logfeed_is_away_and_comes_back(shipping: Callable[..., Shipping]) -> None:
    shipped = shipping("away")
    shipped.write(200)
    shipped.until_once()
    shipped.site.kill()
    shipped.write(1_000)
    shipped.site.bring_back()
    shipped.write(200)
    shipped.until_once()


@pytest.mark.long
def test_nothing_is_lost_or_twice_when_logfeed_is_killed_while_it_takes(shipping: Callable[..., Shipping]) -> None:
    shipped = shipping("killed")
    for _ in range(3):
        shipped.write(3_000)
        before = len(shipped.sent) - 3_000
        until(lambda: shipped.site.messages(shipped.service).total() > before, lambda: "some are stored")  # noqa: B023
        shipped.site.kill()
        shipped.site.bring_back()
    shipped.until_once()


@pytest.mark.slow
def test_nothing_is_lost_or_twice_where_a_shipper_is_told_to_wait(shipping: Callable[..., Shipping]) -> None:
    shipped = shipping("paced", rates=RateLimits(logs_per_s=1_000.0, bytes_per_s=None, burst_s=1.5))
    for _ in range(4):
        shipped.write(1_000)
    shipped.until_once()
