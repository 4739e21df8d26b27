"""What Elasticsearch's clients ask before they send, answered so that they go on: fixed, and the same for everybody.

- Which server is it? Beats, Logstash, Vector and the official clients want `version.number`, and the product's header.
- Is it well? rsyslog asks `_cat/health`, others `_cluster/health`. What is behind us shows in each `_bulk` itself.
- May it be used? Logstash asks for an active licence.
- Are templates, policies, pipelines there? They are: nothing is to be set up, so that nobody needs to.

The page has the address `/` as well. Who asks for HTML, as browsers do, is not answered here. Nothing here says anything of
logs, so no key is asked for: a wrong one is refused where logs are sent.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, Final

import orjson
from fastapi import APIRouter, Response
from fastapi.routing import APIRoute
from starlette.routing import Match
from starlette.types import Scope

from ingest.wire.elastic.bulk_format import JSON, PRODUCT

VERSION: Final = "8.19.0"
"""Clients of 7, 8 and 9 send their plainest requests to it."""
_INFO: Final = {
    "name": "logfeed",
    "cluster_name": "logfeed",
    "cluster_uuid": "logfeed-logfeed-logfee",
    "version": {
        "number": VERSION,
        "build_flavor": "default",
        "build_type": "unknown",
        "build_hash": "unknown",
        "build_date": "1970-01-01T00:00:00.000Z",
        "build_snapshot": False,
        "lucene_version": "9.12.2",
        "minimum_wire_compatibility_version": "7.17.0",
        "minimum_index_compatibility_version": "7.0.0",
    },
    "tagline": "You Know, for Search",
}
"""The tagline is what clients of 7.x know the product by."""
_LICENSE: Final = {"status": "active", "uid": "logfeed", "type": "basic", "mode": "basic"}
_GREETINGS: Final[dict[str, tuple[str, dict[str, Any]]]] = {
    "/": ("Which server it is, for clients", _INFO),
    "/_license": ("An active licence, for Logstash", {"license": _LICENSE}),
    "/_xpack": ("What the server has besides: nothing", {"license": _LICENSE, "features": {}}),
    "/_cluster/health": (
        "It answers",
        {"cluster_name": "logfeed", "status": "green", "timed_out": False, "number_of_nodes": 1},
    ),
    "/_nodes/http": ("No other servers", {"cluster_name": "logfeed", "nodes": {}}),
}
"""Path -> (summary, answer)."""
_THERE: Final = (
    "/_index_template/{name}",
    "/_template/{name}",
    "/_data_stream/{name}",
    "/_ilm/policy/{name}",
    "/_ingest/pipeline/{name}",
)
"""Whatever name: it is there."""
_TEXT: Final = "text/plain"
_PRODUCT_HEADER: Final = {"X-Elastic-Product": {"description": "Elasticsearch.", "schema": {"type": "string"}}}
_NAME: Final = {
    "name": "name",
    "in": "path",
    "required": True,
    "description": "Any.",
    "schema": {"type": "string"},
}
_DESCRIPTION: Final = (
    "For clients of Elasticsearch, which ask for it before they send: the same for everybody, without a key."
)


class _ForPrograms(APIRoute):
    """Not there for who asks for HTML."""

    def matches(self, scope: Scope) -> tuple[Match, Scope]:
        """See APIRoute."""
        if _wants_html(scope):
            return Match.NONE, {}
        return super().matches(scope)


def _wants_html(scope: Scope) -> bool:
    return any(name == b"accept" and b"text/html" in value.lower() for name, value in scope.get("headers", ()))


def add_greetings(router: APIRouter, prefix: str) -> None:
    """The routes, below a prefix that may be empty."""
    for path, (summary, answer) in _GREETINGS.items():
        _add(router, prefix + path, _giving(answer), summary, is_page=prefix + path == "/")
    _add(router, prefix + "/_cat/health", _health, "It answers, for rsyslog", media_type=_TEXT)
    for path in _THERE:
        summary = "It is there, whatever it is called: nothing needs to be set up"
        _add(router, prefix + path, _giving({}), summary, parameters=[_NAME])


def _giving(answer: dict[str, Any]) -> Callable[[], Awaitable[Response]]:
    body = orjson.dumps(answer)

    async def give() -> Response:
        return Response(body, headers={**PRODUCT, "Vary": "Accept"}, media_type=JSON)

    return give


async def _health() -> Response:
    return Response("logfeed green 1\n", headers=PRODUCT, media_type=_TEXT)


def _add(
    router: APIRouter,
    path: str,
    endpoint: Callable[[], Awaitable[Response]],
    summary: str,
    *,
    is_page: bool = False,
    media_type: str = JSON,
    parameters: list[dict[str, Any]] | None = None,
) -> None:
    schema = {"type": "string" if media_type == _TEXT else "object"}
    name = "".join(character if character.isalnum() else "_" for character in path.replace("{", "").replace("}", ""))
    router.add_api_route(
        path,
        endpoint,
        methods=["GET"],
        name=f"elastic{name}".rstrip("_"),
        summary=summary,
        description=_DESCRIPTION,
        response_class=Response,
        responses={
            200: {
                "description": "Always the same.",
                "headers": _PRODUCT_HEADER,
                "content": {media_type: {"schema": schema}},
            }
        },
        openapi_extra=None if parameters is None else {"parameters": parameters},
        route_class_override=_ForPrograms if is_page else None,
    )
