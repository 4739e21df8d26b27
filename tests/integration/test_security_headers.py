"""What every answer says to browsers, and what pages of other origins may do: nothing."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import re
from collections.abc import AsyncIterator

import httpx
import pytest

from cli import openapi
from cli.http_app import build_app
from runtime import http
from runtime.answer_headers import API_POLICY, FIXED
from runtime.origins import Origins
from tests.access_site import PASSWORD, Site, running
from tests.app_server import serving

COOKIE_ROUTES = ("/api/v1/auth/login", "/api/v1/auth/refresh", "/api/v1/auth/logout")
FOREIGN = {"Origin": "https://evil.example"}
LOGIN = {"name": "ann", "password": PASSWORD}


@pytest.fixture
async def site(native_url: str) -> AsyncIterator[Site]:
    async with running(native_url) as site:
        yield site


def assert_guarded(answer: httpx.Response, *, policy: str = API_POLICY) -> None:
    where = f"{answer.request.method} {answer.request.url} {answer.status_code}"
    for name, value in (
        *((name.decode(), value.decode()) for name, value in FIXED),
        ("content-security-policy", policy),
    ):
        assert answer.headers.get_list(name) == [value], f"{where}: {name}"
    assert len(answer.headers.get_list("cache-control")) == 1, where
    assert not [name for name in answer.headers if name.startswith("access-control-")], where


def requests() -> list[tuple[str, str]]:
    """Each operation of the document, and what none answers."""
    found = [(verb.upper(), _filled(path)) for path, verbs in openapi.document()["paths"].items() for verb in verbs]
    return [
        *found,
        *((method, "/api/v1/logs") for method in ("DELETE", "PUT", "OPTIONS", "HEAD", "TRACE")),
        *(("GET", path) for path in ("/nothing", "/openapi.json", "/", "/api/v1/logs?limit=x", "/%00")),
        ("POST", "/docs"),
    ]


def _filled(path: str) -> str:
    if path in ("/api/v1/tail", "/api/v1/experiments/events"):
        return f"{path}?levle=error"  # what is let in would go on for ever
    return path.replace("{log_id}", "7").replace("{correlation_id}", "a/b")


async def test_every_answer_has_them_with_and_without_credentials(site: Site) -> None:
    admin = (await site.key("admin:*", "write:*")).text
    statuses = set()
    for token in (admin, None, "lf_wrong"):
        for method, path in requests():
            body = {"content": b"{"} if method == "POST" else {}
            answer = await site.ask(token, method, path, **body)
            assert_guarded(answer)
            assert "public" not in answer.headers["cache-control"], path
            statuses.add(answer.status_code)
    assert {200, 401, 404, 405, 422} <= statuses


async def test_answers_without_an_application_have_them_too(site: Site) -> None:
    async with serving(site.app) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"no http\r\n\r\n")
        async with asyncio.timeout(30):
            malformed = await reader.read()
        writer.close()
    for raw, status in ((malformed, 400), (http._HEAD_TOO_LARGE, 431), (http._TOO_MANY, 503)):
        head, _, body = raw.partition(b"\r\n\r\n")
        lines = [tuple(line.split(": ", 1)) for line in head.decode().split("\r\n")[1:]]
        answer = httpx.Response(int(head.split()[1]), headers=lines, content=body)  # type: ignore[arg-type]  # pairs
        answer.request = httpx.Request("GET", "http://raw")
        assert answer.status_code == answer.json()["status"] == status
        assert answer.headers["content-type"] == "application/problem+json"
        assert_guarded(answer)


async def test_refused_websockets_have_them_too(site: Site) -> None:
    asks = "GET {path} HTTP/1.1\r\nHost: logs\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
    asks += "Sec-WebSocket-Version: {version}\r\n"
    good = "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
    async with serving(site.app) as port:
        for path, version, rest, status in (
            ("/nothing", 13, good, 404),
            ("/api/v1/logs", 13, good, 404),
            ("/api/v1/tail", 13, good, 401),
            ("/api/v1/tail", 7, good, 400),
            ("/api/v1/tail", 13, "\r\n", 400),
        ):
            reader, writer = await asyncio.open_connection("127.0.0.1", port)
            writer.write((asks.format(path=path, version=version) + rest).encode())
            async with asyncio.timeout(30):
                head = (await reader.readuntil(b"\r\n\r\n")).decode()
            writer.close()
            lines = [tuple(line.split(": ", 1)) for line in head.split("\r\n")[1:] if line]
            answer = httpx.Response(int(head.split()[1]), headers=lines)  # type: ignore[arg-type]  # pairs
            answer.request = httpx.Request("GET", f"http://raw{path}")
            assert answer.status_code == status, head
            assert_guarded(answer)


async def test_kept_pages_stay_private_and_still_have_their_tag(site: Site) -> None:
    await site.put([{"service_name": "shop", "correlation_id": "c"}])
    admin = (await site.key("admin:*")).text
    for path in ("/api/v1/logs", "/api/v1/correlations/c/logs"):
        page = await site.ask(admin, "GET", path)
        assert page.headers["cache-control"] == "private, no-cache"
        again = await site.ask(admin, "GET", path, headers={"If-None-Match": page.headers["etag"]})
        assert (again.status_code, again.headers["cache-control"]) == (304, "private, no-cache")
        assert_guarded(again)
    for path in ("/api/v1/services", "/api/v1/ledger", "/api/v1/auth/me"):
        assert (await site.ask(admin, "GET", path)).headers["cache-control"] == "no-store", path
    await site.user("ann", "read:*")
    login = await site.ask(None, "POST", "/api/v1/auth/login", json=LOGIN)
    assert (login.status_code, login.headers["cache-control"]) == (200, "no-store")


async def test_hsts_is_said_over_tls_alone() -> None:
    transport = httpx.ASGITransport(build_app([], hsts_s=3600))
    async with httpx.AsyncClient(transport=transport) as client:
        assert "strict-transport-security" not in (await client.get("http://app/livez")).headers
        for path in ("/livez", "/docs", "/nothing"):
            answer = await client.get(f"https://app{path}")
            assert answer.headers["strict-transport-security"] == "max-age=3600"


async def test_documentation_runs_its_own_two_scripts_alone() -> None:
    transport = httpx.ASGITransport(build_app([]))
    async with httpx.AsyncClient(transport=transport, base_url="http://app") as client:
        page = await client.get("/docs")
        policy = page.headers["content-security-policy"]
        assert_guarded(page, policy=policy)
        scripts = re.findall(r"<script([^>]*)>(.*?)</script>", page.text, re.DOTALL)
        assert [("src=" in attributes, bool(body.strip())) for attributes, body in scripts] == [
            (True, False),
            (False, True),
        ]
        digest = base64.b64encode(hashlib.sha256(scripts[1][1].encode()).digest()).decode()
        assert f"script-src 'self' 'sha256-{digest}';" in policy
        assert "unsafe-eval" not in policy
        assert policy.startswith("default-src 'none';")
        links = re.findall(r'(?:src|href)="([^"]+)"', page.text)
        assert len(links) == 3
        for link in links:
            assert link.startswith("/swagger/"), "of no other host, and below any name"
            asset = await client.get(link)
            assert (asset.status_code, asset.headers["cache-control"]) == (200, "public, max-age=3600")
            assert_guarded(asset)


async def test_preflights_are_answered_without_leave(site: Site) -> None:
    for method, path in requests():
        asks = {**FOREIGN, "Access-Control-Request-Method": method, "Access-Control-Request-Headers": "authorization"}
        answer = await site.ask(None, "OPTIONS", path, headers=asks)
        assert answer.status_code in (404, 405), path
        assert_guarded(answer)


async def test_a_page_of_another_origin_learns_and_changes_nothing(site: Site) -> None:
    await site.user("ann", "read:*")
    async with site.client() as browser:
        assert (await browser.post("/api/v1/auth/login", json=LOGIN)).status_code == 200
        for headers in (FOREIGN, {"Origin": "null"}, {"Sec-Fetch-Site": "cross-site"}, {"Sec-Fetch-Site": "same-site"}):
            for path in COOKIE_ROUTES:
                answer = await browser.post(path, json=LOGIN, headers=headers)
                assert answer.status_code == 403, f"{path} {headers}"
                assert answer.json()["type"] == "urn:logfeed:problem:foreign-origin"
                assert "set-cookie" not in answer.headers
                assert_guarded(answer)
        # Simple requests: the cookie alone reads nothing, and the answer may not be read.
        for path in ("/api/v1/logs", "/api/v1/auth/me"):
            answer = await browser.get(path, headers=FOREIGN)
            assert answer.status_code == 401
            assert_guarded(answer)
        answer = await browser.post(
            "/api/v1/logs", content=b'{"message":"m"}', headers={**FOREIGN, "Content-Type": "text/plain"}
        )
        assert answer.status_code == 401
        own = {"Origin": "https://logfeed.test", "Sec-Fetch-Site": "same-origin"}
        assert (await browser.post("/api/v1/auth/refresh", headers=own)).status_code == 200, (
            "nothing above ended the session"
        )


async def test_a_named_origin_may_log_in(site: Site) -> None:
    await site.user("ann", "read:*")
    app = build_app([], origins=Origins(["https://logs.example"]))
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://inner") as client:
        for origin, status in (("https://logs.example", 404), ("https://evil.example", 403)):
            assert (await client.post("/api/v1/auth/login", headers={"Origin": origin})).status_code == status
