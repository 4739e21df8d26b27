"""The HTTP edge of connections: what is asked of /api/v1/connections. What is sent there goes to ingest. See
docs/connections.md."""

from __future__ import annotations

from typing import Annotated, Final

from fastapi import APIRouter, Path, Request, Response

from access.audit import QUESTION_CHARS_MAX, AuditLog
from access.errors import Forbidden
from access.principal import Authenticate, Principal
from connections.metrics import Side
from query import params
from query.api import asked_of, documented, page_response
from query.audit import look_of, note
from query.connections.service import Connections, ListQuestion
from query.problems import ProblemRoute
from schemas.connections import (
    ID_PATTERN,
    ConnectionList,
    ConnectionModel,
    ConnectionStatistics,
    ConnectionSummary,
    SeriesAnswer,
)
from schemas.pages import LogPage
from search.params import ParameterError

_JSON: Final = "application/json"
_HEADERS: Final = {"Cache-Control": "no-store"}
ConnectionId = Annotated[str, Path(description=f"The connection's id: {ID_PATTERN}.", examples=["1001"])]


def make_connections_router(connections: Connections, authenticate: Authenticate, audit: AuditLog | None) -> APIRouter:
    """The routes under /api/v1/connections that show. audit: None writes nothing down."""
    router = APIRouter(prefix="/api/v1/connections", tags=["connections"], route_class=ProblemRoute)

    async def reader(request: Request) -> Principal:
        principal = await authenticate(request)
        if principal.may_read.is_empty:
            raise Forbidden("you may not read the logs of any service")
        if len(request.scope["query_string"]) > QUESTION_CHARS_MAX:
            raise ParameterError("query string", f"expected at most {QUESTION_CHARS_MAX} characters")
        if audit is not None:
            audit.check()
        return principal

    def answered(request: Request, principal: Principal, body: bytes) -> Response:
        if audit is not None:
            audit.note(principal, look_of(request, rows=0))
        return Response(body, 200, _HEADERS, _JSON)

    @router.get("", summary="Connections", **documented(ConnectionList, params.CONNECTIONS, 400, 422, 503))
    async def list_connections(request: Request) -> Response:
        """Connections, the one that was updated last first, with the counts of both logs."""
        principal = await reader(request)
        question = ListQuestion(*params.parse_connections(request.query_params.multi_items()))
        return answered(request, principal, await connections.find(question, principal))

    @router.get(
        "/statistics", summary="Figures of all connections", **documented(ConnectionStatistics, params.NONE, 422, 503)
    )
    async def connection_statistics(request: Request) -> Response:
        """Medians of the connections' medians, the most common errors of all, and whether errors come with latency."""
        principal = await reader(request)
        params.parse_none(request.query_params.multi_items())
        return answered(request, principal, await connections.statistics(principal))

    @router.get("/{connection_id}", summary="One connection", **documented(ConnectionModel, params.NONE, 404, 422, 503))
    async def one_connection(connection_id: ConnectionId, request: Request) -> Response:
        """Who was connected, and the counts of both logs."""
        principal = await reader(request)
        params.parse_none(request.query_params.multi_items())
        return answered(request, principal, await connections.one(connection_id, principal))

    @router.get(
        "/{connection_id}/summary",
        summary="Figures of a connection",
        **documented(ConnectionSummary, params.NONE, 404, 422, 503),
    )
    async def connection_summary(connection_id: ConnectionId, request: Request) -> Response:
        """Lines, errors and warnings of both logs, medians of all metrics, the most common errors, and which log is missing."""
        principal = await reader(request)
        params.parse_none(request.query_params.multi_items())
        return answered(request, principal, await connections.summary(connection_id, principal))

    @router.get(
        "/{connection_id}/series",
        summary="A metric over time",
        **documented(SeriesAnswer, params.CONNECTION_SERIES, 404, 422, 503),
    )
    async def connection_series(connection_id: ConnectionId, request: Request) -> Response:
        """Values taken from the lines, with their times and the numbers of their lines; of very many those that show the
        same."""
        principal = await reader(request)
        metric, side, points_max = params.parse_series(request.query_params.multi_items())
        whose = None if side is None else Side(side)
        return answered(
            request, principal, await connections.series(connection_id, metric, whose, points_max, principal)
        )

    @router.get(
        "/{connection_id}/logs",
        summary="Lines of a connection",
        **documented(LogPage, params.CONNECTION_LOGS, 400, 404, 422, 500, 503, has_tag=True),
    )
    async def connection_logs(connection_id: ConnectionId, request: Request) -> Response:
        """Lines of both logs, or of one, oldest first, as pages of all logs are; `metadata` says side and number of the
        line."""
        principal = await reader(request)
        side, limit, token = params.parse_connection_logs(request.query_params.multi_items())
        whose = None if side is None else Side(side)
        answer = await connections.logs(
            connection_id, whose, principal, limit=limit, token=token, asked=asked_of(request)
        )
        return note(audit, request, principal, page_response(answer))

    return router
