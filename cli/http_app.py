"""The HTTP application: the routers of the services it was given, health, metrics, and one merged OpenAPI document."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Final, Protocol

import fastapi_swagger
from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import JSONResponse, PlainTextResponse
from fastapi.routing import APIRoute

from runtime.direct import DirectApplication
from runtime.telemetry import render_metrics

_DESCRIPTION = """\
Keeps every accepted log exactly once and finds any of them again.

Errors are problem documents (RFC 9457). Only 429 and 503 are worth retrying, after `Retry-After` seconds.
Ids are decimal strings: they pass 2^53. Times are ISO 8601, UTC.
"""

_TAGS: Final = [
    {"name": "ingest", "description": "Send logs. 2xx means durable; keyed requests may be repeated safely."},
    {"name": "query", "description": "Find logs: pages along `next_cursor`, look-ups, correlations, the ledger."},
    {"name": "health", "description": "For probes and monitoring."},
]
_READINESS: Final[dict[str, Any]] = {
    "application/json": {
        "schema": {
            "type": "object",
            "required": ["ready", "problems"],
            "properties": {
                "ready": {"type": "boolean"},
                "problems": {
                    "type": "array",
                    "items": {"type": "string"},
                    "description": "What keeps it from working, one sentence each.",
                },
            },
        }
    }
}
_METRICS: Final[dict[str, Any]] = {"text/plain": {"schema": {"type": "string"}}}


class HttpService(Protocol):
    """One service of the application."""

    router: APIRouter

    def ready(self) -> list[str]:
        """What keeps the service from doing its work, one sentence each; empty when ready."""


class RunningService(HttpService, Protocol):
    """One that works beside its requests. Those that come before its start, or after its stop, are refused with 503."""

    async def start(self) -> None:
        """Begin. Raises Overloaded (retriable) while what it cannot start without is away."""

    async def stop(self) -> None:
        """Finish what was taken, then free everything. Harmless without a start."""


def build_app(services: Sequence[HttpService]) -> FastAPI:
    """The application over services that the caller starts and stops."""
    app = DirectApplication(
        title="Logfeed",
        version=version("logfeed"),
        description=_DESCRIPTION,
        openapi_tags=_TAGS,
        generate_unique_id_function=_operation_id,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    for service in services:
        app.include_router(service.router)
    app.include_router(_health(services))
    fastapi_swagger.patch_fastapi(app)
    return app


def _operation_id(route: APIRoute) -> str:
    """The handler's name: what generated clients call the operation."""
    return route.name


def _health(services: Sequence[HttpService]) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get(
        "/livez",
        summary="Does the process live?",
        response_class=PlainTextResponse,
        response_description="It answers.",
    )
    async def livez() -> str:
        """Says nothing of broker and database: a restart would not mend those."""
        return "ok\n"

    @router.get(
        "/readyz",
        summary="Can it do its work now?",
        response_class=JSONResponse,
        responses={
            200: {"description": "It can.", "content": _READINESS},
            503: {"description": "Not now; `problems` says why.", "content": _READINESS},
        },
    )
    async def readyz() -> JSONResponse:
        """For load balancers: send no requests while it answers 503."""
        problems = [problem for service in services for problem in service.ready()]
        content: dict[str, Any] = {"ready": not problems, "problems": problems}
        return JSONResponse(content, status_code=503 if problems else 200)

    @router.get(
        "/metrics",
        summary="Prometheus metrics",
        response_class=Response,
        responses={200: {"description": "Prometheus text format.", "content": _METRICS}},
    )
    async def metrics() -> Response:
        """Names start with `logfeed_` and end in a unit."""
        body, content_type = render_metrics()
        return Response(body, media_type=content_type)

    return router
