"""The HTTP edge of derived topics: which there are, and their records by long polls. See docs/topics.md."""

from __future__ import annotations

from typing import Annotated, Any, Final
from urllib.parse import quote

import orjson
from fastapi import APIRouter, Path, Request, Response

from access.audit import QUESTION_CHARS_MAX, AuditLog, Look
from access.principal import Authenticate, Principal
from query import params
from query.audit import note
from query.problems import PROBLEM_TYPE, ProblemRoute, problem_responses, without_references
from query.topics.place import NOW
from query.topics.service import TopicReads
from schemas.access import SECURITY
from schemas.derived import TopicGap, TopicList, TopicRecords
from search.params import ParameterError

LIMIT_MAX: Final = 1_000
_TopicName = Annotated[str, Path(description="The topic's name.", examples=["logs.errors"])]
_DESCRIPTION: Final = """Records behind a place, each one log, in order of each partition; none when none came within `wait`.

Go on with `after=` the `next` of the answer: nothing is missed. A record may come again with the same `log.id` (at least once):
leave out ids you have. Records of services that you may not tail are passed over. 410 says that the records behind this place
are past their retention; its `next` goes on behind the gap."""


def make_topics_router(reads: TopicReads, authenticate: Authenticate, audit: AuditLog | None) -> APIRouter:
    """The routes under /api/v1/topics."""
    router = APIRouter(prefix="/api/v1/topics", tags=["topics"], route_class=ProblemRoute)
    wait_s_max = reads.settings.wait_s_max
    read_params = (
        params.Parameter(
            "after",
            f"`next` of the last answer, or `{NOW}`: what comes from now on. Left out: from the oldest record on.",
        ),
        params.Parameter(
            "limit",
            "Most records.",
            {"type": "integer", "minimum": 1, "maximum": LIMIT_MAX, "default": params.LIMIT_DEFAULT},
        ),
        params.Parameter(
            "wait",
            "Seconds to wait for a record when there is none.",
            {"type": "number", "minimum": 0, "maximum": wait_s_max, "default": 0},
        ),
    )

    async def asker(request: Request) -> Principal:
        principal = await authenticate(request)
        reads.check(principal)
        if audit is not None:
            audit.check()
        if len(request.scope["query_string"]) > QUESTION_CHARS_MAX:
            raise ParameterError("query string", f"expected at most {QUESTION_CHARS_MAX} characters")
        return principal

    @router.get(
        "",
        summary="Derived topics",
        response_class=Response,
        response_model=None,
        responses={
            200: {"model": TopicList, "description": "Topics that you may read."},
            **problem_responses(401, 403, 422, 429, 503),
        },
        openapi_extra={"security": SECURITY},
    )
    async def topics(request: Request) -> Response:
        """Topics whose records you may read, and which offsets they have."""
        principal = await asker(request)
        params.parse_none(request.query_params.multi_items())
        body = orjson.dumps({"topics": await reads.listing(principal)})
        return note(audit, request, principal, Response(body, 200, None, "application/json"))

    @router.get(
        "/{name}/records",
        summary="Records of a topic",
        description=_DESCRIPTION,
        response_class=Response,
        response_model=None,
        responses={
            200: {"model": TopicRecords, "description": "Records, and where to go on."},
            **problem_responses(401, 403, 404, 422, 429, 503),
            **_gap_response(),
        },
        openapi_extra={"parameters": [each.openapi() for each in read_params], "security": SECURITY},
    )
    async def topic_records(name: _TopicName, request: Request) -> Response:
        principal = await asker(request)
        values = params.Values(request.query_params.multi_items(), read_params)
        found = await reads.records(
            name,
            principal,
            lambda: authenticate(request),
            after=values.one("after") or "",
            limit=values.whole_number("limit", least=1, most=LIMIT_MAX, default=params.LIMIT_DEFAULT),
            wait_s=_seconds(values.one("wait"), wait_s_max),
        )
        # A poll without records shows nothing of any log, and comes twice a minute from each who waits.
        if audit is not None and found.shown:
            audit.note(principal, _look(request, len(found.shown)))
        return Response(found.json(), 200, {"Cache-Control": "no-store"}, "application/json")

    return router


def _gap_response() -> dict[int | str, dict[str, Any]]:
    documented = problem_responses(410)
    content = documented[410]["content"][PROBLEM_TYPE]
    content["schema"] = without_references(TopicGap)
    content["example"] = {**content["example"], "reason": "expired", "next": "0:1250"}
    return documented


def _seconds(text: str | None, most: float) -> float:
    if text is None:
        return 0.0
    plain = text.replace(".", "", 1)
    if not (plain.isascii() and plain.isdecimal() and len(text) <= 10 and 0 <= float(text) <= most):
        raise ParameterError("wait", f"expected 0..{most:g} seconds, got {text[:40]!r}")
    return float(text)


def _look(request: Request, rows: int) -> Look:
    # Of the request line alone: a URL is put together with what the Host header says.
    address = request.client.host if request.client else ""
    question: bytes = request.scope["query_string"]
    return Look(
        path=quote(request.scope["path"]),
        question=question.decode("latin-1"),
        rows=rows,
        status=200,
        address=address,
    )
