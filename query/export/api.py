"""The HTTP edge of exports: one answer as long as the result. See docs/asking.md.

Errors that come before the first byte are problems. One that comes later ends the connection without the end that the answer
would have, so that no client takes a part for the whole.
"""

from __future__ import annotations

import re
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from typing import Any, Final
from urllib.parse import quote

import structlog
from fastapi import APIRouter, Request, Response
from starlette.responses import StreamingResponse

from access.audit import QUESTION_CHARS_MAX, Look
from access.principal import Authenticate
from query.export.parameters import EXPORT, parse_export
from query.export.service import ExportQuestion, Exports, Format
from query.long_answer import LongAnswer
from query.patterns import PatternTexts
from query.problems import ProblemRoute, problem_responses
from runtime.clock import Clock
from schemas.access import SECURITY
from search.params import ParameterError

log = structlog.get_logger(__name__)

_UNSAFE: Final = re.compile(r"[^A-Za-z0-9._-]")
_DESCRIPTION: Final = """Every log that matches and that you may export (the permission `export`), as one file: NDJSON as pages
have them, or CSV. All that was there when it began, each once, in order.

The answer comes as fast as it is read. When it cannot be completed the connection ends without the end of the answer (the last
chunk is missing): what came until then is not the whole."""


def make_export_router(exports: Exports, texts: PatternTexts, clock: Clock, authenticate: Authenticate) -> APIRouter:
    """The route /api/v1/export."""
    router = APIRouter(prefix="/api/v1", tags=["query"], route_class=ProblemRoute)
    text_schema = {"schema": {"type": "string"}}
    answer: dict[str, Any] = {
        "description": "The logs, to the last one.",
        "content": {each.media_type.partition(";")[0]: text_schema for each in Format},
        "headers": {
            "Content-Disposition": {"description": "An attachment, and its name.", "schema": {"type": "string"}}
        },
    }

    @router.get(
        "/export",
        summary="Export logs",
        description=_DESCRIPTION,
        response_class=StreamingResponse,
        response_model=None,
        responses={200: answer, **problem_responses(401, 403, 422, 429, 500, 503)},
        openapi_extra={"parameters": [each.openapi() for each in EXPORT], "security": SECURITY},
    )
    async def export_logs(request: Request) -> Response:
        principal = await authenticate(request)
        exports.check(principal)
        if len(request.scope["query_string"]) > QUESTION_CHARS_MAX:
            raise ParameterError("query string", f"expected at most {QUESTION_CHARS_MAX} characters")
        items = request.query_params.multi_items()
        template_text = await texts.of(items, principal, allowed=principal.may_export)
        now_us = clock.now_us()
        asked = parse_export(items, now_us=now_us, template_text=template_text)
        stack = AsyncExitStack()
        export = await stack.enter_async_context(exports.opened(asked, principal, _look(request)))

        def cut(error: Exception) -> None:
            log.warning("an export was cut", rows=export.rows, reason=str(error))

        headers = _headers(asked, now_us)
        return LongAnswer(export.pieces, stack, media_type=asked.format.media_type, headers=headers, cut=cut)

    return router


def _headers(asked: ExportQuestion, now_us: int) -> dict[str, str]:
    what = "logs" if asked.subject is None else _UNSAFE.sub("_", asked.subject)
    moment = datetime.fromtimestamp(now_us // 1_000_000, UTC)
    name = f"logfeed-{what}-{moment:%Y%m%dT%H%M%SZ}.{asked.format}"
    return {"Content-Disposition": f'attachment; filename="{name}"', "Cache-Control": "no-store"}


def _look(request: Request) -> Look:
    return Look(
        # Of the request line alone: a URL is put together with what the Host header says.
        path=quote(request.scope["path"]),
        question=request.scope["query_string"].decode("latin-1"),
        rows=0,
        status=200,
        address=request.client.host if request.client else "",
    )
