"""How the agent is, for probes and Prometheus: /livez, /readyz, /metrics. Tells of no file and no line."""

from __future__ import annotations

from collections.abc import Callable

import orjson
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from runtime.answer_headers import AnswerHeaders
from runtime.telemetry import render_metrics

PATHS = frozenset({"/livez", "/readyz", "/metrics"})


def health_answer(path: str, ready: Callable[[], list[str]]) -> Response:
    """path: of PATHS. ready: what keeps the agent from its work."""
    if path == "/livez":
        return Response("ok\n", media_type="text/plain")
    if path == "/metrics":
        body, media_type = render_metrics()
        return Response(body, media_type=media_type)
    problems = ready()
    return Response(
        orjson.dumps({"ready": not problems, "problems": problems}),
        status_code=503 if problems else 200,
        media_type="application/json",
    )


def health_app(ready: Callable[[], list[str]]) -> ASGIApp:
    """An application that answers these paths alone, to anybody: of a listener of its own."""
    headers = AnswerHeaders()

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            return
        is_asked = scope["method"] in ("GET", "HEAD") and scope["path"] in PATHS
        response = health_answer(scope["path"], ready) if is_asked else Response(status_code=404)
        await response(scope, receive, headers.guard(scope, send))

    return app
