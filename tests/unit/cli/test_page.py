"""The web page's files as browsers get them."""

from __future__ import annotations

import gzip
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest

from cli.http_app import build_app
from cli.page import NOTICE, POLICY, WebPage

INDEX = '<!doctype html><script type="module" src="/assets/index-1a2b3c.js"></script>'
SCRIPT = "document.title = 'Logfeed';" * 20
PATHS = (
    "/",
    "/login",
    "/experiments",
    "/experiments/run%2F7",
    "/connections/c-1",
    "/alerts",
    "/status",
    "/settings/tokens",
)


def build(directory: Path) -> Path:
    """Files as a build leaves them."""
    for name, text in (
        ("index.html", INDEX),
        ("assets/index-1a2b3c.js", SCRIPT),
        ("favicon.svg", "<svg/>"),
        (".vite/manifest.json", "{}"),
    ):
        file = directory / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    (directory / "assets" / "index-1a2b3c.js.gz").write_bytes(gzip.compress(SCRIPT.encode()))
    return directory


@pytest.fixture
async def http(tmp_path: Path) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(build_app([WebPage(build(tmp_path))]))
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        yield client


async def test_every_address_of_the_page_can_be_reloaded(http: httpx.AsyncClient) -> None:
    for path in PATHS:
        answer = await http.get(path)
        assert (answer.status_code, answer.text) == (200, INDEX), path
        assert answer.headers["content-type"] == "text/html; charset=utf-8"
        assert answer.headers["cache-control"] == "no-cache"
        assert answer.headers["content-security-policy"] == POLICY
        assert (await http.head(path)).status_code == 200


async def test_what_is_no_address_of_the_page_stays_a_problem(http: httpx.AsyncClient) -> None:
    for path in ("/nothing", "/login/more", "/api/v1/nothing", "/assets/index-0.js", "/.vite/manifest.json"):
        assert (await http.get(path)).json()["type"] == "urn:logfeed:problem:no-such-path", path
    for path in ("/assets/..%2f..%2fetc/passwd", "/assets/%2e%2e/index.html"):
        assert (await http.get(path)).status_code == 404, path


async def test_files_with_a_hash_in_their_name_are_kept_for_ever_and_come_compressed(http: httpx.AsyncClient) -> None:
    answer = await http.get("/assets/index-1a2b3c.js")
    assert answer.text == SCRIPT
    assert answer.headers["cache-control"] == "public, max-age=31536000, immutable"
    assert answer.headers["content-type"] == "text/javascript; charset=utf-8"
    assert (answer.headers["content-encoding"], answer.headers["vary"]) == ("gzip", "Accept-Encoding")
    plain = await http.get("/assets/index-1a2b3c.js", headers={"Accept-Encoding": "identity"})
    assert "content-encoding" not in plain.headers
    assert plain.content == SCRIPT.encode()
    assert (await http.get("/favicon.svg")).headers["cache-control"] == "no-cache"


def test_the_policy_lets_nothing_run_in_place() -> None:
    assert POLICY.startswith("default-src 'none';")
    assert "unsafe" not in POLICY
    assert "*" not in POLICY


async def test_without_a_build_its_place_says_so_and_the_api_is_there() -> None:
    transport = httpx.ASGITransport(build_app([WebPage(None)]))
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        for path in PATHS:
            answer = await client.get(path)
            assert (answer.status_code, answer.text) == (200, NOTICE)
            assert answer.headers["cache-control"] == "no-store"
        assert "make web" in NOTICE
        assert (await client.get("/docs")).status_code == 200
        assert (await client.get("/openapi.json")).json()["paths"].keys() == {"/livez", "/readyz", "/metrics"}
