"""The HTTP edge of query: paths, parameters, answers. Every handler carries the principal's right to read (INV-5).

Parameters are read from the raw query string (query/params.py), so that nothing is ignored and every mistake is named; the
declarations here are for the OpenAPI document. `Cache-Control: no-cache` asks for an answer that was not kept; a tag that the
asker sends along is answered with 304 all the same, since that is looked up in the store.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Annotated, Any, Final

from fastapi import APIRouter, Path, Request, Response
from pydantic import BaseModel

from access.audit import QUESTION_CHARS_MAX, AuditLog
from access.errors import Forbidden
from access.principal import Authenticate, Principal
from query import params
from query.answers import Answer, Answers, Asked
from query.audit import note
from query.overview import Overview
from query.params import Parameter
from query.patterns import PatternAnswers, PatternTexts
from query.problems import ProblemRoute, problem_responses
from query.settings import QuerySettings
from runtime.clock import Clock
from runtime.path_text import any_text
from schemas.access import SECURITY
from schemas.overview import FacetsAnswer, HistogramAnswer
from schemas.pages import CorrelationPage, LedgerAnswer, LogContext, LogPage, OneLog, ServiceList
from schemas.patterns import OnePattern, PatternListAnswer
from search.params import ParameterError

LogId = Annotated[str, Path(description="The log's id, a decimal number.", examples=["382110771345817600"])]
PatternId = Annotated[str, Path(description="The pattern's id, 16 hexadecimal digits.", examples=["5f2a77c01d9be630"])]
CorrelationId = Annotated[str, Path(description="The correlation id; it may have `/` in it.")]

_JSON: Final = "application/json"
_TAG: Final = "Of this page: who asks again with it (`If-None-Match`) gets 304 while the page would be the same."
_TAGS: Final = re.compile(r'"([0-9a-f]+)"')
_TAGS_CHARS_MAX: Final = 4_096


def make_router(
    answers: Answers,
    overview: Overview,
    patterns: PatternAnswers,
    texts: PatternTexts,
    settings: QuerySettings,
    clock: Clock,
    authenticate: Authenticate,
    audit: AuditLog | None,
) -> APIRouter:
    """The routes of query under /api/v1. audit: None writes nothing down."""
    router = APIRouter(prefix="/api/v1", tags=["query"], route_class=ProblemRoute)

    async def reader(request: Request) -> Principal:
        principal = await authenticate(request)
        if principal.may_read.is_empty:
            raise Forbidden("you may not read the logs of any service")
        if len(request.scope["query_string"]) > QUESTION_CHARS_MAX:
            raise ParameterError("query string", f"expected at most {QUESTION_CHARS_MAX} characters")
        if audit is not None:
            audit.check()
        return principal

    @router.get("/logs", summary="Find logs", **documented(LogPage, params.FIND, 400, 404, 422, 500, 503, has_tag=True))
    async def find_logs(request: Request) -> Response:
        """Logs that match every parameter given, a page at a time, in order of (timestamp, id).

        A walk along `next_cursor` shows each log that was visible at the first page exactly once. A page may have few logs or
        none and still have a `next_cursor`: its time was used up, and `scanned_to` says how far it came. With `around` it
        begins in the midst, and both cursors lead on.
        """
        principal = await reader(request)
        items = request.query_params.multi_items()
        template_text = await texts.of(items, principal, allowed=principal.may_read)
        question = params.parse_find(items, now_us=clock.now_us(), template_text=template_text)
        answer = await answers.find(question, principal, asked=asked_of(request))
        return note(audit, request, principal, page_response(answer))

    @router.get("/logs/{log_id}", summary="One log", **documented(OneLog, params.NONE, 404, 422, 500, 503))
    async def one_log(log_id: LogId, request: Request) -> Response:
        """The log with this id, wherever it is stored; no time is needed."""
        principal = await reader(request)
        params.parse_none(request.query_params.multi_items())
        number = params.parse_log_id(log_id)
        answer = await answers.one(number, principal, is_fresh=_wants_fresh(request))
        return note(audit, request, principal, _answer(answer))

    @router.get(
        "/logs/{log_id}/context",
        summary="A log's neighbours",
        **documented(LogContext, params.CONTEXT, 404, 422, 500, 503),
    )
    async def log_context(log_id: LogId, request: Request) -> Response:
        """The logs of the same service just before and after this one, by (timestamp, id)."""
        principal = await reader(request)
        before, after = params.parse_context(request.query_params.multi_items())
        answer = await answers.context(params.parse_log_id(log_id), principal, before=before, after=after)
        return note(audit, request, principal, _answer(answer))

    @router.get(
        f"/correlations/{any_text('correlation_id')}/logs",
        summary="The story of a correlation id",
        **documented(CorrelationPage, params.CORRELATION, 400, 422, 500, 503, has_tag=True),
    )
    async def correlated_logs(correlation_id: CorrelationId, request: Request) -> Response:
        """Every log with this correlation id, oldest first, over all services and all time."""
        principal = await reader(request)
        limit, token = params.parse_correlation(request.query_params.multi_items())
        text = params.parse_correlation_id(correlation_id)
        answer = await answers.correlation(text, principal, limit=limit, token=token, asked=asked_of(request))
        return note(audit, request, principal, page_response(answer))

    @router.get("/histogram", summary="Logs over time", **documented(HistogramAnswer, params.HISTOGRAM, 422, 500, 503))
    async def histogram(request: Request) -> Response:
        """How many logs match, by time and level: each once, counted from the newest on. `counted_from` says how far that came
        in its time."""
        principal = await reader(request)
        items = request.query_params.multi_items()
        template_text = await texts.of(items, principal, allowed=principal.may_read)
        question = params.parse_histogram(items, now_us=clock.now_us(), template_text=template_text)
        return note(audit, request, principal, _answer(await overview.histogram(question, principal)))

    @router.get(
        "/facets",
        summary="Values of the newest logs",
        **documented(FacetsAnswer, params.FACETS, 422, 500, 503),
    )
    async def facets(request: Request) -> Response:
        """Which values the newest 20,000 logs that match have, and how many logs have each. `counted_from` says how far back
        they reach."""
        principal = await reader(request)
        items = request.query_params.multi_items()
        template_text = await texts.of(items, principal, allowed=principal.may_read)
        question = params.parse_facets(items, now_us=clock.now_us(), template_text=template_text)
        return note(audit, request, principal, _answer(await overview.facets(question, principal)))

    @router.get("/services", summary="Services", **documented(ServiceList, params.NONE, 422, 503))
    async def services(request: Request) -> Response:
        """Every service that may be read, when it was last heard of, and how many logs of each level it has stored."""
        principal = await reader(request)
        params.parse_none(request.query_params.multi_items())
        answer = await answers.services(principal, is_fresh=_wants_fresh(request))
        return note(audit, request, principal, _answer(answer))

    @router.get("/ledger", summary="The ledger", **documented(LedgerAnswer, params.LEDGER, 422, 503))
    async def ledger(request: Request) -> Response:
        """What became of every log received, per minute and service: received = stored + filtered + rejected + duplicate +
        dead-lettered. `unread` is what is accepted and not stored yet."""
        principal = await reader(request)
        start_us, end_us, names = params.parse_ledger(
            request.query_params.multi_items(), now_us=clock.now_us(), minutes_max=settings.ledger_minutes_max
        )
        answer = await answers.ledger(principal, start_us=start_us, end_us=end_us, service_names=names)
        return note(audit, request, principal, _answer(answer))

    @router.get("/patterns", summary="Patterns", **documented(PatternListAnswer, params.PATTERNS, 422, 503))
    async def find_patterns(request: Request) -> Response:
        """Kinds of lines in a span of time, how many lines each had, and how many in the span before: what is common, what
        fails, what is new, what is gone. Counted as logs come in; `counted_through` says how far."""
        principal = await reader(request)
        question = params.parse_patterns(request.query_params.multi_items(), params.PATTERNS, now_us=clock.now_us())
        return note(audit, request, principal, _answer(await patterns.find(question, principal)))

    @router.get(
        "/patterns/{pattern_id}",
        summary="One pattern",
        **documented(OnePattern, params.ONE_PATTERN, 404, 422, 503),
    )
    async def one_pattern(pattern_id: PatternId, request: Request) -> Response:
        """A pattern over time. Where it has become part of a more general one, that one is answered."""
        principal = await reader(request)
        question = params.parse_patterns(request.query_params.multi_items(), params.ONE_PATTERN, now_us=clock.now_us())
        body = await patterns.one(params.parse_pattern_id(pattern_id), question, principal)
        return note(audit, request, principal, _answer(body))

    return router


def documented(
    model: type[BaseModel], parameters: Iterable[Parameter], *problems: int, has_tag: bool = False
) -> dict[str, Any]:
    """What the OpenAPI document says of a route; FastAPI's values are of many types."""
    answer: dict[str, Any] = {"model": model, "description": "The answer."}
    responses: dict[int | str, dict[str, Any]] = {200: answer, **problem_responses(401, 403, 429, *problems)}
    declared = [parameter.openapi() for parameter in parameters]
    if has_tag:
        tag = {"description": _TAG, "schema": {"type": "string"}}
        answer["headers"] = {"ETag": tag}
        responses[304] = {
            "description": "The page with this tag is still what would be answered.",
            "headers": {"ETag": tag},
        }
        declared.append(
            {
                "name": "If-None-Match",
                "in": "header",
                "required": False,
                "schema": {"type": "string"},
                "description": "Tags of pages that you have: 304 without a body when one is still right.",
            }
        )
    return {
        "response_class": Response,
        "response_model": None,
        "responses": responses,
        "openapi_extra": {"parameters": declared, "security": SECURITY},
    }


def _answer(body: bytes) -> Response:
    return Response(body, media_type=_JSON, headers={"Cache-Control": "no-store"})


def page_response(answer: Answer) -> Response:
    """A page, or 304 for one that the asker has. Whoever stores it must ask before showing it again."""
    if answer.etag is None:
        assert answer.body is not None
        return _answer(answer.body)
    headers = {"ETag": f'W/"{answer.etag}"', "Cache-Control": "private, no-cache", "Vary": "Authorization, Cookie"}
    if answer.body is None:
        return Response(status_code=304, headers=headers)
    return Response(answer.body, media_type=_JSON, headers=headers)


def asked_of(request: Request) -> Asked:
    """What the request says of an answer that its asker may have already."""
    tags = ",".join(request.headers.getlist("if-none-match"))[:_TAGS_CHARS_MAX]
    return Asked(_wants_fresh(request), frozenset(_TAGS.findall(tags)))


def _wants_fresh(request: Request) -> bool:
    return "no-cache" in request.headers.get("cache-control", "").lower()
