"""Connections as one part of query: who may see which, and what is answered (INV-5).

Who may read the logs of either side (`connections.server_service`, `connections.client_service`) may see connections; a side
whose service they may not read is as if it were missing, in every figure.
"""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any, Final

import orjson

from access.principal import Principal
from connections.figures import percent
from connections.metrics import Rule, Side
from connections.series import downsampled, spearman
from connections.settings import ConnectionSettings
from query.answers import Answer, Answers, Asked
from query.errors import ConnectionNotFound
from query.listing import ListPlace, ListSeal, Secret
from query.page import Question
from runtime.clock import Clock
from schemas.connections import ID_PATTERN
from schemas.scope import ServiceScope
from schemas.times import time_text
from search.params import ParameterError
from search.predicate import CorrelationIs, MetaEquals, Predicate, ServiceIn, all_of
from store.connections.reading import ConnectionReader, SideFigures, Statistics, StoredConnection
from store.port import Order

_ID: Final = re.compile(ID_PATTERN.removeprefix("^").removesuffix("$"))
_STATISTICS_S: Final = 2.0
"""For which figures of all connections are kept."""
_STATISTICS_MAX: Final = 100
"""Rights for which they are."""


@dataclass(frozen=True, slots=True)
class ListQuestion:
    """Which connections."""

    username: str
    has_errors: bool | None
    limit: int
    token: str | None

    @property
    def canonical(self) -> str:
        """What stays the same along a walk."""
        return orjson.dumps([self.username, self.has_errors]).decode()


class Connections:
    """The connections of one installation, for principals."""

    def __init__(
        self,
        settings: ConnectionSettings,
        reader: ConnectionReader,
        answers: Answers,
        *,
        secret: Secret,
        clock: Clock,
    ) -> None:
        """secret: of cursors; raises Overloaded while it cannot be had."""
        self._settings = settings
        self._rules = {rule.name: rule for rule in settings.rules}
        self._reader = reader
        self._answers = answers
        self._secret = secret
        self._clock = clock
        self._statistics: dict[ServiceScope, tuple[float, bytes]] = {}
        """By what may be read: (until when it is good, answer). Not by sides: a text that was sent while its side had another
        service is of that one still."""

    async def find(self, question: ListQuestion, principal: Principal) -> bytes:
        """ConnectionList. Raises CursorError, Overloaded."""
        if not any(self._readable(principal)):
            return orjson.dumps({"connections": [], "next_cursor": None})
        seal = ListSeal(await self._secret(), of="connections")
        before = None
        if question.token is not None:
            place = seal.open(question.token, subject=principal.subject, question=question.canonical)
            before = (place.at_us, place.id)
        async with self._answers.place(principal):
            found = await self._reader.find(
                username=question.username,
                has_errors=question.has_errors,
                before=before,
                limit=question.limit + 1,
                allowed=principal.may_read,
            )
        shown, following = found[: question.limit], None
        if len(found) > question.limit:
            place = ListPlace(shown[-1].last_updated_us, shown[-1].connection_id)
            following = seal.seal(place, subject=principal.subject, question=question.canonical)
        return orjson.dumps({"connections": list(map(_connection_json, shown)), "next_cursor": following})

    async def one(self, connection_id: str, principal: Principal) -> bytes:
        """ConnectionModel. Raises ConnectionNotFound, Overloaded."""
        return orjson.dumps(_connection_json(await self._existing(connection_id, principal)))

    async def summary(self, connection_id: str, principal: Principal) -> bytes:
        """ConnectionSummary. Raises ConnectionNotFound, Overloaded."""
        found = None
        if _is_id(connection_id) and any(self._readable(principal)):
            async with self._answers.place(principal):
                found = await self._reader.figures(connection_id, allowed=principal.may_read)
        if found is None:
            raise _not_found(connection_id)
        connection, medians, kinds = found
        readable = dict(zip(Side, self._readable(principal), strict=True))
        missing = [side for side in Side if readable[side] and side not in connection.sides]
        document = {
            "id": connection.connection_id,
            **_sides_json(connection),
            "missing_side": None if not missing else missing[0] if len(missing) == 1 else "both",
            "medians": [
                {
                    "metric": each.metric,
                    "unit": self._unit(each.metric),
                    "side": each.side,
                    "count": each.points,
                    "median": each.median,
                }
                for each in medians
                if each.metric in self._rules
            ],
            "common_errors": [{"message": message, "count": lines} for message, lines in kinds],
        }
        return orjson.dumps(document)

    async def series(
        self, connection_id: str, metric: str, side: Side | None, points_max: int, principal: Principal
    ) -> bytes:
        """SeriesAnswer. Raises ConnectionNotFound, ParameterError, Overloaded."""
        rule = self._rule(metric)
        await self._existing(connection_id, principal)
        # Of a metric of both sides, that of the client is what people feel.
        sides = [side] if side is not None else [Side.CLIENT, Side.SERVER] if rule.side is None else [rule.side]
        async with self._answers.place(principal):
            found = await self._reader.series(connection_id, rule.name, sides, allowed=principal.may_read)
        if found is None:
            whose = side or rule.side
            return orjson.dumps({"metric": rule.name, "unit": rule.unit, "side": whose, "points": [], "count": 0})
        whose, series = found
        points = await asyncio.to_thread(downsampled, series, points_max)
        document = {
            "metric": rule.name,
            "unit": rule.unit,
            "side": whose,
            "points": [(time_text(point.time_us), point.value, point.line) for point in points],
            "count": len(series),
        }
        return orjson.dumps(document)

    async def logs(
        self,
        connection_id: str,
        side: Side | None,
        principal: Principal,
        *,
        limit: int,
        token: str | None,
        asked: Asked,
    ) -> Answer:
        """A page of its lines, oldest first. Raises ConnectionNotFound, CursorError, Overloaded."""
        connection = await self._existing(connection_id, principal)
        sides = [figures for each, figures in connection.sides.items() if side in (None, each)]
        times = [time_us for figures in sides for time_us in (figures.first_us, figures.last_us) if time_us is not None]
        services = frozenset(figures.service_name for figures in sides)
        predicate: Predicate = all_of(CorrelationIs(connection_id), ServiceIn(services))
        if side is not None:
            predicate = all_of(predicate, MetaEquals(("side",), side))
        # Only where the lines are is looked; that may grow along a walk, and its cursor keeps to what it began with.
        question = Question(
            predicate,
            f"connection\n{connection_id}\n{side or ''}",
            Order.OLDEST_FIRST,
            limit,
            start_us=min(times, default=0),
            end_us=max(times, default=0) + 1,
            token=token,
        )
        return await self._answers.find(question, principal, asked=asked)

    async def statistics(self, principal: Principal) -> bytes:
        """ConnectionStatistics. Raises Overloaded."""
        readable = self._readable(principal)
        kept = self._statistics.get(principal.may_read)
        if kept is not None and self._clock.monotonic_s() < kept[0]:
            return kept[1]
        found = Statistics(0, [], [], [])
        if any(readable):
            async with self._answers.place(principal):
                found = await self._reader.statistics(allowed=principal.may_read)
        correlation = await asyncio.to_thread(spearman, found.pairs)
        document = {
            "connections": found.connections,
            "medians": [
                {"metric": metric, "unit": self._unit(metric), "median": median, "connections": number}
                for metric, median, number in found.medians
                if metric in self._rules
            ],
            "common_errors": [
                {"message": message, "count": lines, "connections": number} for message, lines, number in found.kinds
            ],
            "errors_and_latency": {"spearman": correlation, "n": len(found.pairs)},
        }
        body = orjson.dumps(document)
        if len(self._statistics) >= _STATISTICS_MAX:
            self._statistics.clear()
        self._statistics[principal.may_read] = (self._clock.monotonic_s() + _STATISTICS_S, body)
        return body

    def _readable(self, principal: Principal) -> tuple[bool, ...]:
        """Of each side, whether its log may be read."""
        return tuple(principal.may_read.permits(self._settings.service_of(side)) for side in Side)

    async def _existing(self, connection_id: str, principal: Principal) -> StoredConnection:
        found = None
        if _is_id(connection_id) and any(self._readable(principal)):
            async with self._answers.place(principal):
                found = await self._reader.one(connection_id, allowed=principal.may_read)
        if found is None:
            raise _not_found(connection_id)
        return found

    def _rule(self, metric: str) -> Rule:
        rule = self._rules.get(metric)
        if rule is None:
            raise ParameterError("metric", f"expected one of {', '.join(self._rules)}, got {metric[:60]!r}")
        return rule

    def _unit(self, metric: str) -> str:
        return self._rules[metric].unit


def _is_id(text: str) -> bool:
    """Whether a connection can be called so; what else comes in a path the database need not take as text."""
    return _ID.fullmatch(text) is not None


def _not_found(connection_id: str) -> ConnectionNotFound:
    return ConnectionNotFound(f"there is no connection {connection_id[:130]}, or it may not be read")


def _connection_json(connection: StoredConnection) -> dict[str, Any]:
    return {
        "id": connection.connection_id,
        "username": connection.username,
        "ip": connection.ip,
        "version": connection.version,
        "last_updated": time_text(connection.last_updated_us),
        **_sides_json(connection),
    }


def _sides_json(connection: StoredConnection) -> dict[str, Any]:
    return {side.value: _side_json(connection.sides.get(side)) for side in Side}


def _side_json(figures: SideFigures | None) -> dict[str, Any] | None:
    if figures is None:
        return None
    return {
        "lines": figures.lines,
        "errors": figures.errors,
        "warnings": figures.warnings,
        "error_percent": percent(figures.errors, figures.lines),
        "warning_percent": percent(figures.warnings, figures.lines),
    }
