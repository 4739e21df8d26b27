"""The HTTP edge of Loki's query API: paths, parameters, answers, and errors as its clients read them, a sentence of plain text.

Grafana's data source and logcli send GET alone. Every handler carries the principal's right to read (INV-5), and each answer is
written down in the audit log.
"""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Coroutine
from importlib.metadata import version
from typing import Any, Final

import orjson
import structlog
from fastapi import APIRouter, Request, Response
from fastapi.exceptions import HTTPException
from fastapi.routing import APIRoute

from access.audit import QUESTION_CHARS_MAX, AuditLog
from access.errors import Forbidden
from access.principal import Authenticate, Principal
from query import metrics
from query.audit import look_of
from query.loki import parameters
from query.loki.logql import parse, parse_logs
from query.loki.parameters import LIMIT_MAX, Span
from query.loki.service import LokiAnswers, Reply
from query.loki.shapes import CATEGORIZE
from query.loki.syntax import LogQLError, LogQuery, MetricQuery
from query.loki.windows import window_at, windows_of
from query.problems import internal, problem_of
from runtime.clock import Clock
from schemas.access import SECURITY
from schemas.errors import LogfeedError
from search.params import ParameterError

log = structlog.get_logger(__name__)

PREFIX: Final = "/loki/api/v1"
FLAGS_HEADER: Final = "X-Loki-Response-Encoding-Flags"
VERSION: Final = "3.5.0"
"""Of Loki, whose answers these are like: clients choose by it what they ask."""
_TEXT: Final = "text/plain; charset=utf-8"
_JSON: Final = "application/json"
_FIELDS_DEFAULT: Final = 1_000
_BAD_REQUEST, _UNPROCESSABLE = 400, 422

_RETRY: Final = {"Retry-After": {"description": "Whole seconds.", "schema": {"type": "integer"}}}
_SENTENCE: Final[dict[str, Any]] = {"text/plain": {"schema": {"type": "string"}}}
_ERRORS: Final[dict[int | str, dict[str, Any]]] = {
    400: {
        "description": "The query is not in the part of LogQL that is understood, or a parameter is not valid: where, is said."
    },
    401: {"description": "No credentials came, or they are not valid (any more)."},
    403: {"description": "You may not read logs of any service."},
    429: {"description": "As many of your questions as may be are being answered.", "headers": _RETRY},
    500: {"description": "A file of logs is damaged or cannot be read."},
    503: {"description": "The database is away, behind or busy.", "headers": _RETRY},
}

Ask = Callable[[Request, Principal, parameters.Items], Awaitable[Reply]]


class LokiRoute(APIRoute):
    """A route whose errors are sentences, and whose time is measured."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        """Wrap FastAPI's handler."""
        handle = super().get_route_handler()

        async def handle_with_sentences(request: Request) -> Response:
            started_s = time.perf_counter()
            try:
                response = await handle(request)
            except LogfeedError as error:
                response = sentence_of(problem_of(error))
            except HTTPException:
                raise
            except Exception:
                log.exception("question failed", route=self.path_format)
                response = sentence_of(internal())
            metrics.REQUEST_SECONDS.labels(self.path_format, str(response.status_code)).observe(
                time.perf_counter() - started_s
            )
            return response

        return handle_with_sentences


def sentence_of(problem: Response) -> Response:
    """A problem document in Loki's words: what is not valid is 400 there."""
    text: str = orjson.loads(bytes(problem.body))["detail"]
    status = _BAD_REQUEST if problem.status_code == _UNPROCESSABLE else problem.status_code
    headers = {name: value for name, value in problem.headers.items() if name in ("retry-after", "www-authenticate")}
    return Response(f"{text}\n".encode("utf-8", "replace"), status, headers, _TEXT)


def read_query(text: str) -> Any:  # one of syntax.Query: the caller tells them apart
    """Raises ParameterError, which names the parameter and the column."""
    try:
        return parse(text)
    except LogQLError as error:
        raise ParameterError("query", str(error), column=error.column) from error


def read_selector(text: str, parameter: str = "query") -> LogQuery:
    """As `read_query`, of a query for logs."""
    try:
        return parse_logs(text)
    except LogQLError as error:
        raise ParameterError(parameter, str(error), column=error.column) from error


def make_loki_router(
    answers: LokiAnswers, clock: Clock, authenticate: Authenticate, audit: AuditLog | None
) -> APIRouter:
    """The routes under /loki/api/v1, but for the tail. audit: None writes nothing down."""
    router = APIRouter(prefix=PREFIX, tags=["loki"], route_class=LokiRoute)

    def add(path: str, summary: str, ask: Ask, *names: str, description: str, name: str | None = None) -> None:
        async def answer(request: Request) -> Response:
            principal = await authenticate(request)
            if principal.may_read.is_empty:
                raise Forbidden("you may not read the logs of any service")
            if len(request.scope["query_string"]) > QUESTION_CHARS_MAX:
                raise ParameterError("query string", f"expected at most {QUESTION_CHARS_MAX} characters")
            if audit is not None:
                audit.check()
            reply = await ask(request, principal, request.query_params.multi_items())
            if audit is not None:
                audit.note(principal, look_of(request, rows=reply.rows))
            return Response(reply.body, media_type=_JSON, headers={"Cache-Control": "no-store"})

        in_path = [_NAME] if "{name}" in path else []
        router.add_api_route(
            path,
            answer,
            methods=["GET"],
            name=name or f"loki_{path.strip('/').replace('/', '_')}",
            summary=summary,
            description=description,
            response_class=Response,
            response_model=None,
            responses={
                200: {"description": "The answer.", "content": {_JSON: {"schema": {"type": "object"}}}},
                **{status: {**said, "content": _SENTENCE} for status, said in _ERRORS.items()},
            },
            openapi_extra={"parameters": [*in_path, *parameters.documented(*names)], "security": SECURITY},
        )

    async def query_range(request: Request, principal: Principal, items: parameters.Items) -> Reply:
        query = read_query(parameters.query_of(items))
        asked = parameters.span(items, clock.now_us())
        if isinstance(query, LogQuery):
            return await answers.logs(
                query,
                asked,
                principal,
                order=parameters.order(items),
                limit=parameters.limit(items),
                is_categorized=is_categorized(request),
            )
        step_us = parameters.step_us(items, asked)
        is_measure = isinstance(query, MetricQuery)
        range_us, offset_us = (query.range_us, query.offset_us) if is_measure else (step_us, 0)
        return await answers.range(query, windows_of(asked, step_us, range_us, offset_us), principal)

    async def query(request: Request, principal: Principal, items: parameters.Items) -> Reply:
        asked = read_query(parameters.query_of(items))
        if isinstance(asked, LogQuery):
            raise ParameterError(
                "query",
                "log queries are not supported as an instant query type, please change your query to a range query type",
            )
        text = parameters.one(items, "time")
        at_us = clock.now_us() if text is None else parameters.time_us(text, "time")
        windows = window_at(at_us, asked.range_us, asked.offset_us) if isinstance(asked, MetricQuery) else None
        return await answers.instant(asked, windows, at_us, principal)

    async def labels(request: Request, principal: Principal, items: parameters.Items) -> Reply:
        return await answers.label_names(_selected(items), _span(items), principal)

    async def label_values(request: Request, principal: Principal, items: parameters.Items) -> Reply:
        name = request.path_params["name"]
        return await answers.label_values(name, _selected(items), _span(items), principal)

    async def series(request: Request, principal: Principal, items: parameters.Items) -> Reply:
        texts = parameters.all_of(items, "match[]", "match")
        if len(texts) > _MATCHES_MAX:
            raise ParameterError("match[]", f"expected at most {_MATCHES_MAX} selectors, got {len(texts)}")
        queries = [read_selector(text, "match[]") for text in texts]
        return await answers.series(queries, _span(items), principal)

    async def stats(request: Request, principal: Principal, items: parameters.Items) -> Reply:
        return await answers.stats(read_selector(parameters.query_of(items)), _span(items), principal)

    async def detected_fields(request: Request, principal: Principal, items: parameters.Items) -> Reply:
        return await answers.detected_fields(
            read_selector(parameters.query_of(items)),
            _span(items),
            principal,
            limit=parameters.limit(items, default=_FIELDS_DEFAULT),
            line_limit=parameters.limit(items, default=_FIELDS_DEFAULT, name="line_limit"),
        )

    async def build_info(request: Request, principal: Principal, items: parameters.Items) -> Reply:
        own = version("logfeed")
        told = {
            "version": VERSION,
            "revision": f"logfeed-{own}",
            "branch": "",
            "buildUser": "",
            "buildDate": "",
            "goVersion": "",
        }
        return Reply(orjson.dumps(told))

    def _span(items: parameters.Items) -> Span:
        return parameters.span(items, clock.now_us())

    add(
        "/query_range",
        "Logs, or a measure over time, in LogQL",
        query_range,
        *("query", "start", "end", "since", "limit", "direction", "step"),
        description="As Loki answers it: streams for `{…}`, a matrix for `count_over_time` and its like. With the header"
        f" {FLAGS_HEADER}: {CATEGORIZE} each line says which labels are structured metadata and which were parsed. At most"
        f" {LIMIT_MAX:,} lines.",
    )
    add(
        "/query",
        "A measure at one time, in LogQL",
        query,
        *("query", "time"),
        description="As Loki answers it: a vector. Logs are asked for with `query_range`.",
    )
    add(
        "/labels",
        "Labels",
        labels,
        *("query", "start", "end", "since"),
        description="Names of the labels that the newest logs of the time have: `service_name`, `level`, fields of metadata.",
    )
    add(
        "/label/{name}/values",
        "Values of a label",
        label_values,
        *("query", "start", "end", "since"),
        description="Services and levels that may be read; of other labels the values that the newest logs of the time have.",
        name="loki_label_values",
    )
    add(
        "/series",
        "Streams",
        series,
        *("match[]", "start", "end", "since"),
        description="Services and levels of the newest logs that match.",
    )
    add(
        "/index/stats",
        "How many logs match",
        stats,
        *("query", "start", "end", "since"),
        description="`entries` is counted; streams, chunks and bytes are Loki's own and 0 here.",
    )
    add(
        "/detected_fields",
        "Fields of the newest logs",
        detected_fields,
        *("query", "start", "end", "since", "limit", "line_limit"),
        description="Labels that the newest logs have, how many values each has, and of which type they are.",
    )
    add(
        "/status/buildinfo",
        "Which Loki this is like",
        build_info,
        description="The version of Loki whose answers these are like, and our own as the revision.",
    )
    return router


def is_categorized(request: Any) -> bool:  # a Request or a WebSocket
    """Whether the client wants labels apart by where they come from."""
    return CATEGORIZE in request.headers.get(FLAGS_HEADER, "")


def _selected(items: parameters.Items) -> LogQuery | None:
    text = parameters.one(items, "query")
    if text is None or text.strip() == "{}":
        return None
    return read_selector(text)


_MATCHES_MAX: Final = 20
_NAME: Final = {
    "name": "name",
    "in": "path",
    "required": True,
    "schema": {"type": "string"},
    "description": "The label's name.",
}
