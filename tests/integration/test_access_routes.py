"""Every route of the merged document with every kind of principal (INV-5). A route that nobody classified fails."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import httpx
import pytest

from cli import openapi
from cli.http_app import no_such_socket
from schemas.access import SECURITY
from tests.access_site import PASSWORD, Site, running

OPEN: Final = "open"
"""Anybody: says nothing of logs."""
LOGIN: Final = "login"
"""Anybody who has a password or a refresh token."""
PROVIDER: Final = "provider"
"""Anybody whom the login provider sends; here none is set. With one: test_access_oidc.py."""
ANY: Final = "any"
"""Whoever is somebody."""
READ: Final = "read"
WRITE: Final = "write"
TAIL: Final = "tail"
ALERT: Final = "alert"
ADMIN: Final = "admin"
"""Whoever administers all services."""
EXPORT: Final = "export"
KEPT: Final = "kept"
"""Whoever administers all services; one by its name is not there: test_accounts_api.py."""
PASSWORD_OF: Final = "password of"
"""Whoever administers all services, or is the user."""
SESSIONS_OF: Final = "sessions of"
"""The same, and here is nobody of that name: test_accounts_api.py."""
OWN: Final = "own"
"""Whoever is somebody, about what is theirs alone: test_personal.py."""
TOPIC: Final = "topic"
"""Whoever may tail; what they see then: test_topics_api.py."""
WATCH: Final = "watch"
"""Whoever may read; what they see then: test_experiments.py."""
PUT: Final = "put"
"""Whoever may write the service of what is there."""
SHOWN: Final = "shown"
"""Whoever may read a service of connections; of all others there are none."""
SENT: Final = "sent"
"""Whoever may write a service of connections; more: test_connections.py."""
LISTED: Final = "listed"
"""Whoever may read; here is nothing to see: test_hosts.py."""
THERE: Final = "there"
"""Whoever may read; here is no such host: test_hosts.py."""
HOST: Final = "host"
"""Whoever may register hosts; which: test_hosts.py."""
FORGET: Final = "forget"
"""Whoever administers all services."""

BULK: Final = "bulk"
"""Whoever may write; which services then, item by item: test_elastic_bulk.py."""
ELASTIC_GREETINGS: Final = (
    "",
    "_license",
    "_xpack",
    "_cluster/health",
    "_cat/health",
    "_nodes/http",
    "_index_template/{name}",
    "_template/{name}",
    "_data_stream/{name}",
    "_ilm/policy/{name}",
    "_ingest/pipeline/{name}",
)
SHIPPED: Final = "shipped"
"""Whoever may write, in the words of another protocol: bodies of `SHIPMENTS`."""
ASKED: Final = "asked"
"""Whoever may read, in the words of another protocol; what they see then: test_loki.py."""

ROUTES: Final = {
    **{f"GET {prefix}/{path}": OPEN for prefix in ("", "/elastic") for path in ELASTIC_GREETINGS},
    **{
        f"{method} {prefix}/{path}": BULK
        for method in ("POST", "PUT")
        for prefix in ("", "/elastic")
        for path in ("_bulk", "{index}/_bulk")
    },
    "GET /livez": OPEN,
    "GET /readyz": OPEN,
    "GET /metrics": OPEN,
    "POST /api/v1/auth/login": LOGIN,
    "POST /api/v1/auth/refresh": LOGIN,
    "POST /api/v1/auth/logout": LOGIN,
    "GET /api/v1/auth/oidc": OPEN,
    "GET /api/v1/auth/oidc/login": PROVIDER,
    "GET /api/v1/auth/oidc/callback": PROVIDER,
    "GET /api/v1/auth/me": ANY,
    "POST /api/v1/logs": WRITE,
    "POST /api/v1/logs/batch": WRITE,
    "POST /v1/logs": SHIPPED,
    "POST /otlp/v1/logs": SHIPPED,
    "POST /loki/api/v1/push": SHIPPED,
    "POST /api/prom/push": SHIPPED,
    "GET /ready": OPEN,
    "GET /loki/api/v1/query": ASKED,
    "GET /loki/api/v1/query_range": ASKED,
    "GET /loki/api/v1/labels": ASKED,
    "GET /loki/api/v1/label/{name}/values": ASKED,
    "GET /loki/api/v1/series": ASKED,
    "GET /loki/api/v1/index/stats": ASKED,
    "GET /loki/api/v1/detected_fields": ASKED,
    "GET /loki/api/v1/status/buildinfo": ASKED,
    "GET /api/v1/logs": READ,
    "GET /api/v1/logs/{log_id}": READ,
    "GET /api/v1/logs/{log_id}/context": READ,
    "GET /api/v1/correlations/{correlation_id}/logs": READ,
    "GET /api/v1/histogram": READ,
    "GET /api/v1/facets": READ,
    "GET /api/v1/export": EXPORT,
    "GET /api/v1/bookmarks": OWN,
    "PUT /api/v1/bookmarks/{kind}/{target_id}": OWN,
    "DELETE /api/v1/bookmarks/{kind}/{target_id}": OWN,
    "GET /api/v1/views": OWN,
    "PUT /api/v1/views/{name}": OWN,
    "DELETE /api/v1/views/{name}": OWN,
    "GET /api/v1/services": READ,
    "GET /api/v1/ledger": READ,
    "GET /api/v1/status": ADMIN,
    "GET /api/v1/keys": KEPT,
    "POST /api/v1/keys": KEPT,
    "DELETE /api/v1/keys/{prefix}": KEPT,
    "GET /api/v1/users": KEPT,
    "POST /api/v1/users": KEPT,
    "PATCH /api/v1/users/{name}": KEPT,
    "POST /api/v1/users/{name}/password": PASSWORD_OF,
    "GET /api/v1/users/{name}/sessions": SESSIONS_OF,
    "DELETE /api/v1/users/{name}/sessions": SESSIONS_OF,
    "GET /api/v1/patterns": READ,
    "GET /api/v1/patterns/{pattern_id}": READ,
    "GET /api/v1/experiments": READ,
    "GET /api/v1/experiments/events": WATCH,
    "GET /api/v1/experiments/{experiment_id}": READ,
    "PUT /api/v1/experiments/{experiment_id}": PUT,
    "GET /api/v1/experiments/{experiment_id}/logs": READ,
    "GET /api/v1/connections": SHOWN,
    "GET /api/v1/connections/statistics": SHOWN,
    "GET /api/v1/connections/{connection_id}": SHOWN,
    "PUT /api/v1/connections/{connection_id}": SENT,
    "GET /api/v1/connections/{connection_id}/summary": SHOWN,
    "GET /api/v1/connections/{connection_id}/series": SHOWN,
    "GET /api/v1/connections/{connection_id}/logs": SHOWN,
    "PUT /api/v1/connections/{connection_id}/logs/{side}": SENT,
    "GET /api/v1/tail": TAIL,
    "POST /api/v1/tail/tickets": TAIL,
    "GET /api/v1/hosts": LISTED,
    "PUT /api/v1/hosts/{host}": HOST,
    "DELETE /api/v1/hosts/{host}": FORGET,
    "GET /api/v1/hosts/{host}/files": THERE,
    "GET /api/v1/hosts/{host}/files/{name}": THERE,
    "GET /api/v1/topics": TOPIC,
    "GET /api/v1/topics/{name}/records": TOPIC,
    "GET /api/v1/alerts": ALERT,
    "GET /api/v1/alerts/rules": ALERT,
    "POST /api/v1/alerts/rules": ALERT,
    "GET /api/v1/alerts/rules/{name}": ALERT,
    "PUT /api/v1/alerts/rules/{name}": ALERT,
    "DELETE /api/v1/alerts/rules/{name}": ALERT,
    "POST /api/v1/alerts/trials": ALERT,
    "GET /api/v1/alerts/silences": ALERT,
    "POST /api/v1/alerts/silences": ALERT,
    "DELETE /api/v1/alerts/silences/{silence_id}": ALERT,
    "GET /api/v1/alerts/breakers": ALERT,
    "POST /api/v1/alerts/breakers/reset": ALERT,
    "GET /api/v1/alerts/notifications": ALERT,
}
THEIRS: Final = "other/secret"


def _otlp(service: str) -> tuple[Any, int]:
    resource = {"attributes": [{"key": "service.name", "value": {"stringValue": service}}]}
    records = [{"logRecords": [{"body": {"stringValue": "m"}}]}]
    return {"resourceLogs": [{"resource": resource, "scopeLogs": records}]}, 200


def _loki(service: str) -> tuple[Any, int]:
    return {"streams": [{"stream": {"app": service}, "values": [[f"{time.time_ns()}", "m"]]}]}, 204


SHIPMENTS: Final[dict[str, Callable[[str], tuple[Any, int]]]] = {
    "/v1/logs": _otlp,
    "/otlp/v1/logs": _otlp,
    "/loki/api/v1/push": _loki,
    "/api/prom/push": _loki,
}
"""Path -> the body of a log of a service, and the status that takes it."""
UNDOCUMENTED: Final = {
    "/docs",
    "/openapi.json",
    "/swagger/favicon-32x32.png",
    "/swagger/swagger-ui-bundle.js",
    "/swagger/swagger-ui.css",
}
"""The API's documentation, the same for everybody."""
SOCKETS: Final = {"/loki/api/v1/tail"}
"""WebSockets alone, which OpenAPI does not know. Who may open them: test_loki.py."""


@dataclass(frozen=True)
class Kind:
    """One kind of principal."""

    token: str | None
    is_known: bool
    reads: frozenset[str] = frozenset()
    """Of the services that have logs: shop, pay/a, pay/b, other/secret."""
    writes: frozenset[str] = frozenset()
    may_tail: bool = False
    may_alert: bool = False
    may_admin: bool = False
    may_export: bool = False
    may_host: bool = False


ALL: Final = frozenset({"shop", "pay/a", "pay/b", THEIRS})
PAY: Final = frozenset({"pay/a", "pay/b"})


def operations() -> dict[str, dict[str, Any]]:
    return {
        f"{verb.upper()} {path}": operation
        for path, verbs in openapi.document()["paths"].items()
        for verb, operation in verbs.items()
    }


def test_every_route_is_classified_and_says_what_it_asks_for() -> None:
    found = operations()
    assert set(found) == set(ROUTES), "classify the route here, and give it what its kind asks for"
    for name, operation in found.items():
        asks = ROUTES[name] not in (OPEN, LOGIN, PROVIDER)
        assert operation.get("security", []) == (SECURITY if asks else []), name
        assert {"401", "403"} <= set(operation["responses"]) or not asks, name


async def test_every_route_of_the_application_is_in_the_document(site: Site) -> None:
    paths = set()
    for route in site.app.routes:
        if getattr(route, "endpoint", None) is no_such_socket:
            continue  # of any other path: it only refuses
        # What is included keeps its routes to itself.
        inner = getattr(route, "original_router", None)
        paths |= {
            re.sub(r":(path|text)}", "}", str(getattr(each, "path", "?")))
            for each in (inner.routes if inner else [route])
        }
    documented = {name.partition(" ")[2] for name in ROUTES}
    strange = {path for path in paths - documented if path not in UNDOCUMENTED | SOCKETS}
    assert not strange, "routes outside of the document"


@pytest.fixture
async def site(native_url: str) -> AsyncIterator[Site]:
    async with running(native_url, audit=False) as site:
        yield site


@pytest.fixture
async def kinds(site: Site) -> dict[str, Kind]:
    revoked = await site.key("read:*", "write:*", "admin:*")
    await site.accounts.revoke_key(revoked.prefix)
    past = datetime.now(UTC) - timedelta(hours=1)
    admin = (await site.key("admin:*")).text
    await site.user("ann", "read:pay/*")
    await site.user("idle", "alert:shop")
    await site.user("gone", "admin:*")
    tokens = {}
    for name in ("ann", "idle", "gone"):
        answer = await site.ask(None, "POST", "/api/v1/auth/login", json={"name": name, "password": PASSWORD})
        tokens[name] = answer.json()["access_token"]
    await site.accounts.disable_user("gone")
    kinds = {
        "none": Kind(None, False),
        "wrong key": Kind("lf_" + "a" * 12 + "_" + "b" * 43, False),
        "almost": Kind(admin[:-1] + ("0" if admin[-1] != "0" else "1"), False),
        "wrong token": Kind(tokens["ann"][:-2] + "AA", False),
        "expired": Kind((await site.key("read:*", "write:*", "admin:*", expires_at=past)).text, False),
        "revoked": Kind(revoked.text, False),
        "disabled user": Kind(tokens["gone"], False),
        "reader of one service": Kind((await site.key("read:shop")).text, True, reads=frozenset({"shop"})),
        "writer of one service": Kind((await site.key("write:shop")).text, True, writes=frozenset({"shop"})),
        "key of a prefix": Kind((await site.key("read:pay/*", "write:pay/*")).text, True, reads=PAY, writes=PAY),
        "user of a prefix": Kind(tokens["ann"], True, reads=PAY),
        "user without permission": Kind(tokens["idle"], True, may_alert=True),
        "reader of all": Kind((await site.key("read:*")).text, True, reads=ALL),
        "writer of all": Kind((await site.key("write:*")).text, True, writes=ALL),
        "tails one service": Kind((await site.key("tail:shop")).text, True, may_tail=True),
        "admin": Kind(admin, True, reads=ALL, may_tail=True, may_alert=True, may_export=True, may_admin=True),
        "registers hosts": Kind((await site.key("host:*")).text, True, may_host=True),
        "exports one service": Kind((await site.key("export:shop")).text, True, may_export=True),
        "admin of a prefix": Kind(
            (await site.key("admin:pay/*")).text, True, reads=PAY, may_tail=True, may_alert=True, may_export=True
        ),
    }
    await site.access.directory.refresh()
    return kinds


async def test_every_route_with_every_kind_of_principal(site: Site, kinds: dict[str, Kind]) -> None:
    names = sorted(ALL)
    ids = await site.put(
        [{"service_name": name, "correlation_id": "story", "message": f"said by {name}"} for name in names]
    )
    by_service = dict(zip(names, ids, strict=True))
    for name in names:
        await site.database.execute(
            "INSERT INTO ledger (minute, service_name, level, outcome, reason, count)"
            " SELECT date_trunc('minute', clock_timestamp()), %s, 9, outcome, '', 1"
            " FROM unnest(ARRAY['received', 'stored']) AS outcome",
            (name,),
        )
        await site.database.execute(
            "WITH one AS (INSERT INTO pattern_templates (service_name, pattern_id, template, first_minute, last_minute)"
            " VALUES (%s, %s, %s, 0, 0) RETURNING key)"
            " INSERT INTO pattern_minutes SELECT key, extract(epoch FROM clock_timestamp()) / 60 - 1, 9, 1, '{}' FROM one",
            (name, by_service[name], f"said by {name}"),
        )
        await _put_experiment(site, name)
    answer = await site.ask(kinds["writer of all"].token, "PUT", "/api/v1/connections/c", json=_CONNECTION)
    assert answer.status_code == 201, answer.text
    for label, kind in kinds.items():
        async with site.client(kind.token) as client:
            for name, wanted in ROUTES.items():
                await _check(client, name, wanted, label, kind, by_service)


async def _put_experiment(site: Site, service: str) -> None:
    token = (await site.key(f"write:{service}")).text
    body = {"status": "queued", "service_name": service}
    answer = await site.ask(token, "PUT", f"/api/v1/experiments/{_experiment(service)}", json=body)
    assert answer.status_code == 201, answer.text


def _experiment(service: str) -> str:
    return f"of.{service.replace('/', '.')}"


_CONNECTION: Final = {"username": "ada", "ip": "", "version": "", "last_updated": "2026-01-01"}


async def _check(
    client: httpx.AsyncClient, name: str, wanted: str, label: str, kind: Kind, by_service: dict[str, int]
) -> None:
    method, _, template = name.partition(" ")
    is_of_one = any(of_one in template for of_one in ("{log_id}", "{pattern_id}", "{experiment_id}"))
    if name in ("GET /api/v1/tail", "GET /api/v1/experiments/events"):
        template += "?levle=error"  # what is let in would go on for ever
    for service, log_id in by_service.items():
        path = template.replace("{log_id}", str(log_id)).replace("{correlation_id}", "story")
        path = path.replace("{pattern_id}", f"{log_id:016x}")
        path = (
            path.replace("{experiment_id}", _experiment(service))
            .replace("{connection_id}", "c")
            .replace("{side}", "server")
        )
        if "/connections/" in path:
            path = path.replace("/series", "/series?metric=latency")
        if wanted == ASKED:
            path = path.replace("{name}", "pod") + "?query=" + ("vector(1)" if path.endswith("/query") else "{}")
        path = path.replace("{host}", "web-1")
        body: Any = None if wanted != WRITE else {"service_name": service, "message": "m"}
        if wanted == PUT:
            body = {"status": "running", "service_name": service}
        elif wanted == SHIPPED:
            body, shipped_status = SHIPMENTS[template](service)
        elif wanted == SENT:
            body = None if "{side}" in template else _CONNECTION
        if wanted == BULK:
            lines = f'{{"create":{{}}}}\n{json.dumps({"service": {"name": service}, "message": "m"})}\n'
            answer = await client.request(method, path, content=lines)
        else:
            answer = await client.request(method, path, json=[body] if path.endswith("/batch") else body)
        where = f"{name} by {label} of {service}: {answer.status_code} {answer.text[:300]}"
        match wanted:
            case "open":
                expected = 200
            case "login":
                expected = {"login": 422, "refresh": 401, "logout": 204}[path.rpartition("/")[2]]
            case "provider":
                expected = 404
            case _ if not kind.is_known:
                expected = 401
            case "any":
                expected = 200
            case "own":
                is_gone = name == "DELETE /api/v1/views/{name}"
                # `{kind}` is no kind, and no body was sent.
                expected = 200 if method == "GET" else 204 if is_gone else 422
            case "export":  # which services: test_export_api.py
                expected = 200 if kind.may_export else 403
            case "alert" if not kind.may_alert:
                expected = 403
            case "alert":  # what they may then: test_alert_api.py
                expected = 404 if "{" in template and method != "PUT" else 200 if method == "GET" else 422
            case "admin":
                expected = 200 if kind.may_admin else 403
            case "kept" | "password of" if not kind.may_admin:
                expected = 403  # `{name}` is nobody who asks
            case "kept" | "password of":  # no body was sent
                expected = 200 if method == "GET" else 404 if method == "DELETE" else 422
            case "sessions of":
                expected = 404 if kind.may_admin else 403
            case "topic":
                expected = 403 if not kind.may_tail else 404 if "{" in template else 200
            case "shipped":
                expected = shipped_status if service in kind.writes else 403
            case "write":
                expected = 201 if service in kind.writes else 403
            case "bulk":
                expected = 200 if kind.writes else 403
            case "tail" if not kind.may_tail:
                expected = 403
            case "tail":
                expected = 422 if method == "GET" else 201
            case "put":
                expected = 200 if service in kind.writes else 403
            case "sent" if kind.writes != ALL:
                expected = 403
            case "sent":
                expected = 200
            case "host":
                expected = 422 if kind.may_host else 403
            case "forget":
                expected = 204 if kind.may_admin else 403
            case _ if not kind.reads:
                expected = 403
            case "there":
                expected = 404
            case "watch":
                expected = 422
            case "asked":
                expected = 200
            case "shown":
                expected = 200 if kind.reads == ALL or "{" not in template else 404
            case _:
                expected = 200 if not is_of_one or service in kind.reads else 404
        assert answer.status_code == expected, where
        if wanted == BULK and expected == 200:
            [item] = answer.json()["items"]
            assert item["create"]["status"] == (201 if service in kind.writes else 400), where
        assert (answer.status_code == 401) == ("www-authenticate" in answer.headers), where
        if wanted != OPEN and expected != 201:
            hidden = [each for each in by_service if each not in kind.reads and each != service]
            assert not any(each in answer.text for each in hidden if each not in _OWN_WORDS), where
        if name == "GET /api/v1/histogram" and expected == 200:  # it names no service
            assert answer.json()["total"] == len(kind.reads), where
        elif expected == 200 and wanted == READ and not is_of_one:
            assert all(each in answer.text for each in kind.reads), f"{where}: what is theirs is there"
            if "correlations" in template:
                assert answer.json()["withheld"] == (kind.reads != frozenset(by_service)), where


_OWN_WORDS: Final = {"shop"}
"""That also stand in a principal's own permissions."""


async def test_cursors_tags_and_kept_answers_are_of_their_subject(site: Site, kinds: dict[str, Kind]) -> None:
    await site.put([{"service_name": name, "correlation_id": "s"} for name in ("shop", "pay/a", "pay/b", "pay/a")])
    for path in ("/api/v1/logs?limit=1", "/api/v1/correlations/s/logs?limit=1"):
        mine = await site.ask(kinds["admin"].token, "GET", path)
        cursor, tag = mine.json()["next_cursor"], mine.headers["etag"]
        again = await site.ask(kinds["admin"].token, "GET", f"{path}&cursor={cursor}")
        assert again.status_code == 200
        for label in ("key of a prefix", "user of a prefix", "reader of all"):
            token = kinds[label].token
            assert (await site.ask(token, "GET", f"{path}&cursor={cursor}")).status_code == 400, label
            answer = await site.ask(token, "GET", path, headers={"If-None-Match": tag})
            assert answer.status_code == 200, label
            assert answer.headers["etag"] != tag
    # Kept answers: who may less is not shown what was kept for who may more.
    shown: list[set[str]] = []
    for label in ("admin", "user of a prefix", "admin", "key of a prefix"):
        answer = await site.ask(kinds[label].token, "GET", "/api/v1/logs")
        shown.append({log["service_name"] for log in answer.json()["logs"]})
    assert shown == [{"shop", "pay/a", "pay/b"}, {"pay/a", "pay/b"}] * 2


async def test_secrets_stand_in_no_log_of_ours(site: Site, kinds: dict[str, Kind], capfd: Any) -> None:
    tokens = [kind.token for kind in kinds.values() if kind.token]
    await asyncio.gather(*(site.ask(token, "GET", "/api/v1/logs") for token in tokens))
    await site.ask(None, "POST", "/api/v1/auth/login", json={"name": "ann", "password": "my secret words"})
    written = "".join(capfd.readouterr())
    for secret in [*tokens, "my secret words", PASSWORD]:
        assert secret not in written
