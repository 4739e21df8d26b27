"""What clients ask before they send, beside the page at the same address."""

from __future__ import annotations

from collections.abc import AsyncIterator

import httpx
import pytest
from fastapi import APIRouter

from cli.http_app import build_app
from cli.page import NOTICE, WebPage
from ingest.wire.elastic.greetings import VERSION, add_greetings

BROWSER = "text/html,application/xhtml+xml,application/xml;q=0.9,image/avif,image/webp,*/*;q=0.8"


class Greetings:
    def __init__(self) -> None:
        self.router = APIRouter()
        for prefix in ("", "/elastic"):
            add_greetings(self.router, prefix)

    def ready(self) -> list[str]:
        return []


@pytest.fixture
async def http() -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(build_app([Greetings(), WebPage(None)]))
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        del client.headers["accept"]
        yield client


@pytest.mark.parametrize("accept", [BROWSER, "text/html", "text/html, text/*;q=0.5, image/*", "Text/HTML"])
async def test_a_browser_gets_the_page(http: httpx.AsyncClient, accept: str) -> None:
    answer = await http.get("/", headers={"Accept": accept})
    assert answer.text == NOTICE
    assert "x-elastic-product" not in answer.headers
    assert (await http.head("/", headers={"Accept": accept})).headers["content-type"].startswith("text/html")


@pytest.mark.parametrize(
    "accept",
    [
        pytest.param("application/json", id="Filebeat"),
        pytest.param("application/vnd.elasticsearch+json; compatible-with=9", id="elasticsearch-py"),
        pytest.param("*/*", id="curl, rsyslog, Logstash"),
        pytest.param(None, id="Vector"),
    ],
)
@pytest.mark.parametrize("path", ["/", "/elastic/"])
async def test_a_client_is_told_what_it_asks_for(http: httpx.AsyncClient, path: str, accept: str | None) -> None:
    headers = {} if accept is None else {"Accept": accept}
    answer = await http.get(path, headers=headers)
    assert answer.headers["x-elastic-product"] == "Elasticsearch"
    assert answer.headers["vary"] == "Accept"
    info = answer.json()
    assert info["version"]["number"] == VERSION
    assert (info["version"]["build_flavor"], info["tagline"]) == ("default", "You Know, for Search")
    head = await http.head(path, headers=headers)
    assert (head.status_code, head.headers["x-elastic-product"]) == (200, "Elasticsearch")


@pytest.mark.parametrize("prefix", ["", "/elastic"])
@pytest.mark.parametrize(
    "path",
    [
        "/_license",
        "/_xpack",
        "/_cluster/health",
        "/_cat/health",
        "/_nodes/http",
        "/_index_template/filebeat-8.17.0",
        "/_template/logstash",
        "/_data_stream/filebeat-8.17.0",
        "/_ilm/policy/filebeat",
        "/_ingest/pipeline/filebeat-8.17.0-nginx-access-pipeline",
    ],
)
async def test_what_clients_look_for_is_there(http: httpx.AsyncClient, prefix: str, path: str) -> None:
    for ask in (http.get, http.head):
        answer = await ask(prefix + path)
        assert (answer.status_code, answer.headers["x-elastic-product"]) == (200, "Elasticsearch"), path
    license = (await http.get(prefix + "/_license")).json()["license"]
    assert license["status"] == "active"


async def test_what_nobody_needs_is_no_path(http: httpx.AsyncClient) -> None:
    for path in ("/logs/_search", "/_search", "/elastic/_sql", "/_cat/indices"):
        answer = await http.get(path, headers={"Accept": "application/json"})
        assert answer.json()["type"] == "urn:logfeed:problem:no-such-path"
