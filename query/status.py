"""GET /api/v1/status: how the installation stands, for who has `admin` on all services. One moment of the database.

What `logfeed tier status` and `logfeed dead list` show at the machine, and how far the writers are behind the broker. The
broker's ends are asked first: a record that is stored meanwhile counts as stored. Where the broker is away the rest is told all
the same.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

import orjson
from fastapi import APIRouter, Request, Response

from access.audit import AuditLog
from access.errors import Forbidden
from access.principal import Authenticate, Principal
from db.database import Database
from query import params
from query.audit import note
from query.patterns import Place
from query.problems import ProblemRoute, problem_responses
from schemas.access import SECURITY
from schemas.errors import Overloaded
from schemas.status import StatusAnswer
from schemas.times import time_text
from store.replicas.store import ReplicaState
from store.status import PartitionStatus, StoreStatus, store_status
from store.tiers.retention import RetentionPolicy
from store.tiers.settings import TierSettings
from store.tiers.status import Stock, TierStatus, tier_status

Ends = Callable[[], Awaitable[Mapping[int, int]]]
"""Partition -> offset of its next record, of those that have a leader. May raise Overloaded."""
_DUE: Final = (
    "tables_to_write",
    "rows_to_write",
    "tables_to_switch",
    "segments_to_cool",
    "segments_past_age",
    "segments_to_remove",
)


@dataclass(frozen=True, slots=True)
class StatusSource:
    """What the status is made of besides the database."""

    tiers: TierSettings
    retention: RetentionPolicy
    has_objects: bool
    """There is object storage to move to."""
    ends: Ends


class StatusAnswers:
    """The answer's body, as JSON bytes."""

    def __init__(
        self,
        database: Database,
        topic: str,
        source: StatusSource,
        place: Place,
        replicas: Callable[[], Sequence[ReplicaState]],
    ) -> None:
        """database: opened and closed by the caller. place: of a question. replicas: as they are now."""
        self._replicas = replicas
        self._database = database
        self._topic = topic
        self._source = source
        self._place = place

    async def status(self, principal: Principal) -> bytes:
        """Raises Forbidden, Overloaded."""
        if not principal.may_admin.everything:
            raise Forbidden("you lack the permission admin on all services")
        ends = await self._ends()
        source = self._source
        async with self._place(principal):
            tiers = await tier_status(self._database, source.tiers, source.retention, has_objects=source.has_objects)
            store = await store_status(self._database, self._topic)
        replicas = [
            {"server": each.name, "problem": each.problem, "behind_s": each.behind_s} for each in self._replicas()
        ]
        return orjson.dumps({**_tiers_json(tiers), **_store_json(store, ends), "replicas": replicas})

    async def _ends(self) -> Mapping[int, int]:
        try:
            return await self._source.ends()
        except Overloaded:
            return {}


def make_status_router(answers: StatusAnswers, authenticate: Authenticate, audit: AuditLog | None) -> APIRouter:
    """The route. audit: None writes nothing down."""
    router = APIRouter(prefix="/api/v1", tags=["query"], route_class=ProblemRoute)

    @router.get(
        "/status",
        summary="How the installation stands",
        response_class=Response,
        response_model=None,
        responses={
            200: {"model": StatusAnswer, "description": "The answer."},
            **problem_responses(401, 403, 422, 429, 503),
        },
        openapi_extra={"security": SECURITY},
    )
    async def status(request: Request) -> Response:
        """How much is in which tier and what is due, how far the writers are behind the broker, who leads what, and why lines
        could not be stored. Needs `admin` on all services."""
        principal = await authenticate(request)
        body = await answers.status(principal)
        params.parse_none(request.query_params.multi_items())
        if audit is not None:
            audit.check()
        answer = Response(body, media_type="application/json", headers={"Cache-Control": "no-store"})
        return note(audit, request, principal, answer)

    return router


def _tiers_json(found: TierStatus) -> dict[str, Any]:
    return {
        "tiers": [_stock_json(stock) for stock in found.stocks],
        "due": {name: getattr(found, name) for name in _DUE},
    }


def _stock_json(stock: Stock) -> dict[str, Any]:
    return {
        "tier": stock.tier,
        "retention_class": stock.retention_class,
        "pieces": stock.pieces,
        "rows": stock.rows,
        "bytes": stock.bytes,
        "oldest": _time(stock.oldest_us),
        "newest": _time(stock.newest_us),
    }


def _store_json(found: StoreStatus, ends: Mapping[int, int]) -> dict[str, Any]:
    return {
        "partitions": [_partition_json(each, ends.get(each.partition)) for each in found.partitions],
        "writers": list(found.writers),
        "roles": [{"name": name, "leader": leader} for name, leader in found.leaders.items()],
        "dead_letters": [
            {
                "reason": each.reason,
                "service_name": each.service_name,
                "count": each.count,
                "newest": time_text(each.newest_us),
                "newest_id": str(each.newest_id),
            }
            for each in found.dead
        ],
    }


def _partition_json(found: PartitionStatus, end: int | None) -> dict[str, Any]:
    # Stored since the broker was asked: the end is there at least.
    end = None if end is None else max(end, found.next_offset)
    return {
        "partition": found.partition,
        "writer": found.writer,
        "stored_offset": found.next_offset,
        "end_offset": end,
        "lag_records": None if end is None else end - found.next_offset,
        "stored_to": _time(found.stored_to_us),
        "halted": found.halted,
    }


def _time(us: int | None) -> str | None:
    return None if us is None else time_text(us)
