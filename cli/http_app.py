"""The HTTP application: the routers of the services it was given, health, metrics, and one merged OpenAPI document."""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from typing import Any, Protocol

import fastapi_swagger
from fastapi import APIRouter, FastAPI, Response
from fastapi.responses import JSONResponse

from runtime.telemetry import render_metrics

_DESCRIPTION = """\
Keeps every accepted log exactly once and finds any of them again.

Errors are problem documents (RFC 9457). Only 429 and 503 are worth retrying, after `Retry-After` seconds.
Ids are decimal strings: they pass 2^53. Times are ISO 8601, UTC.
"""


class HttpService(Protocol):
    """One service of the application."""

    router: APIRouter

    async def start(self) -> None:
        """Build what requests need. Raises Overloaded (retriable) while what it cannot start without is away."""

    async def stop(self) -> None:
        """Finish what was taken, then free everything."""

    def ready(self) -> list[str]:
        """What keeps the service from doing its work, one sentence each; empty when ready."""


def build_app(services: Sequence[HttpService]) -> FastAPI:
    """The application over services that the caller starts and stops."""
    app = FastAPI(
        title="Logfeed",
        version=version("logfeed"),
        description=_DESCRIPTION,
        docs_url=None,
        redoc_url=None,
        swagger_ui_oauth2_redirect_url=None,
    )
    for service in services:
        app.include_router(service.router)
    app.include_router(_health(services))
    fastapi_swagger.patch_fastapi(app)
    return app


def _health(services: Sequence[HttpService]) -> APIRouter:
    router = APIRouter(tags=["health"])

    @router.get("/livez", summary="Does the process live?", response_class=Response)
    async def livez() -> Response:
        return Response("ok\n", media_type="text/plain")

    @router.get(
        "/readyz",
        summary="Can it do its work now?",
        response_class=JSONResponse,
        responses={503: {"description": "Not ready; `problems` says why"}},
    )
    async def readyz() -> JSONResponse:
        problems = [problem for service in services for problem in service.ready()]
        content: dict[str, Any] = {"ready": not problems, "problems": problems}
        return JSONResponse(content, status_code=503 if problems else 200)

    @router.get("/metrics", summary="Prometheus metrics", response_class=Response)
    async def metrics() -> Response:
        body, content_type = render_metrics()
        return Response(body, media_type=content_type)

    return router
