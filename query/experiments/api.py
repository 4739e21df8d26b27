"""The HTTP edge of experiments: /api/v1/experiments. See docs/experiments.md."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import AsyncExitStack, aclosing
from typing import Annotated, Final

from fastapi import APIRouter, Path, Request, Response
from msgspec import structs
from starlette.responses import StreamingResponse
from starlette.types import Receive, Scope, Send

from access.audit import QUESTION_CHARS_MAX, AuditLog, Look
from access.errors import Forbidden
from access.principal import Authenticate, Principal
from query import params
from query.api import asked_of, documented, page_response
from query.audit import look_of, note
from query.experiments.changes import read_change
from query.experiments.service import Experiments, ListQuestion
from query.json_body import read_json
from query.problems import ProblemRoute, method_not_allowed, problem_responses, without_references
from schemas.access import SECURITY
from schemas.experiments import (
    ID_PATTERN,
    ExperimentChange,
    ExperimentChanged,
    ExperimentDetails,
    ExperimentEvent,
    ExperimentList,
)
from schemas.pages import LogPage
from search.params import ParameterError

EVENT_STREAM: Final = "text/event-stream"
_JSON: Final = "application/json"
_HEADERS: Final = {"Cache-Control": "no-store"}
_STREAM_HEADERS: Final = {
    "X-Accel-Buffering": "no",  # proxies that gather answers would keep events back
}
ExperimentId = Annotated[
    str,
    Path(
        description=f"The experiment's id: {ID_PATTERN}, but not `events`. Its logs have it as `metadata.experiment_id`.",
        examples=["exp-42"],
    ),
]
_WATCH: Final = """Experiments that you may see, each time one changes or is new, as server-sent events.

`experiment`: `{"experiment": {…}}` as in the list, within a second of the change; of several changes in short order only the
last may be told. `gap`: changes were left out, read the list again. `end`: the server ends the stream, `end` says why. An
event's id goes on after it (`Last-Event-ID`). A comment every 15 s shows that the stream lives."""


def make_experiments_router(experiments: Experiments, authenticate: Authenticate, audit: AuditLog | None) -> APIRouter:
    """The routes under /api/v1/experiments. audit: None writes nothing down."""
    router = APIRouter(prefix="/api/v1/experiments", tags=["experiments"], route_class=ProblemRoute)

    async def reader(request: Request) -> Principal:
        principal = await authenticate(request)
        if principal.may_read.is_empty:
            raise Forbidden("you may not read the logs of any service")
        if len(request.scope["query_string"]) > QUESTION_CHARS_MAX:
            raise ParameterError("query string", f"expected at most {QUESTION_CHARS_MAX} characters")
        if audit is not None:
            audit.check()
        return principal

    @router.get("", summary="Experiments", **documented(ExperimentList, params.EXPERIMENTS, 400, 422, 503))
    async def list_experiments(request: Request) -> Response:
        """Experiments of services that you may read, the one that was made last first."""
        principal = await reader(request)
        question = ListQuestion(*params.parse_experiments(request.query_params.multi_items()))
        body = await experiments.find(question, principal)
        return note(audit, request, principal, Response(body, 200, _HEADERS, _JSON))

    @router.get(
        "/events",
        summary="Changes as they come",
        description=_WATCH,
        response_class=StreamingResponse,
        response_model=None,
        responses={
            200: {
                "description": "Events until the client goes or the stream ends.",
                "content": {EVENT_STREAM: {"schema": without_references(ExperimentEvent)}},
            },
            **problem_responses(400, 401, 403, 422, 429, 503),
        },
        openapi_extra={
            "parameters": [
                {
                    "name": "Last-Event-ID",
                    "in": "header",
                    "required": False,
                    "schema": {"type": "string"},
                    "description": "The id of the last event that came: goes on after it.",
                },
            ],
            "security": SECURITY,
        },
    )
    async def watch_experiments(request: Request) -> Response:
        principal = await reader(request)
        params.parse_none(request.query_params.multi_items())
        stack = AsyncExitStack()
        events = await stack.enter_async_context(
            experiments.stream(
                principal, lambda: authenticate(request), last_event_id=request.headers.get("last-event-id")
            )
        )
        look = look_of(request, rows=0)
        if audit is not None:
            _note_ends(audit, principal, look, stack)
        return _EventStream(events, stack)

    @router.put("/events", include_in_schema=False)
    async def no_such_experiment(request: Request) -> Response:
        """No experiment is called so: the path takes GET alone."""
        return method_not_allowed(request.scope["path"])

    @router.get(
        "/{experiment_id}", summary="One experiment", **documented(ExperimentDetails, params.NONE, 404, 422, 503)
    )
    async def one_experiment(experiment_id: ExperimentId, request: Request) -> Response:
        """How it stands, and its logs counted by agent and level; of very many the newest."""
        principal = await reader(request)
        params.parse_none(request.query_params.multi_items())
        body, counted = await experiments.one(experiment_id, principal)
        if audit is not None:
            audit.note(principal, look_of(request, rows=counted))
        return Response(body, 200, _HEADERS, _JSON)

    @router.put(
        "/{experiment_id}",
        summary="Make or change an experiment",
        response_class=Response,
        response_model=None,
        responses={
            200: {"model": ExperimentChanged, "description": "It is changed, or was so already."},
            201: {"model": ExperimentChanged, "description": "It is new."},
            **problem_responses(401, 403, 409, 422, 429, 503),
        },
        openapi_extra={
            "security": SECURITY,
            "requestBody": {"required": True, "content": {_JSON: {"schema": without_references(ExperimentChange)}}},
        },
    )
    async def put_experiment(experiment_id: ExperimentId, request: Request) -> Response:
        """What is left out stays. The same again changes nothing. Needs `write` for the experiment's service."""
        principal = await authenticate(request)
        if principal.may_write.is_empty:
            raise Forbidden("you may not write the logs of any service")
        params.parse_none(request.query_params.multi_items())
        document = await read_json(request, ExperimentChange)
        change = read_change(document, now_us=experiments.clock.now_us())
        body, is_new = await experiments.put(experiment_id, change, principal)
        return Response(body, 201 if is_new else 200, _HEADERS, _JSON)

    @router.get(
        "/{experiment_id}/logs",
        summary="Logs of an experiment",
        **documented(LogPage, params.EXPERIMENT_LOGS, 400, 404, 422, 500, 503, has_tag=True),
    )
    async def experiment_logs(experiment_id: ExperimentId, request: Request) -> Response:
        """Logs with this `metadata.experiment_id`, newest first, as pages of all logs are. `tail` goes on at `/api/v1/tail`
        with `metadata.experiment_id`, the same `level` and `start_time`, and for agents `query=metadata.agent_id:"A" OR …`."""
        principal = await reader(request)
        items = request.query_params.multi_items()
        question = params.parse_experiment_logs(items, experiment_id, now_us=experiments.clock.now_us())
        answer = await experiments.logs(experiment_id, question, principal, asked_of(request))
        return note(audit, request, principal, page_response(answer))

    return router


def _note_ends(audit: AuditLog, principal: Principal, look: Look, stack: AsyncExitStack) -> None:
    """Of what lasts the audit log has two entries."""
    audit.note(principal, structs.replace(look, phase="begin"))
    stack.callback(audit.note, principal, structs.replace(look, phase="end"))


class _EventStream(StreamingResponse):
    """Server-sent events. Ends what they come from when the client has gone."""

    def __init__(self, events: AsyncGenerator[bytes, None], stack: AsyncExitStack) -> None:
        super().__init__(_closing(events), media_type=EVENT_STREAM, headers=_STREAM_HEADERS)
        self._stack = stack

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        async with self._stack:
            await super().__call__(scope, receive, send)


async def _closing(events: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
    async with aclosing(events):
        async for event in events:
            yield event
