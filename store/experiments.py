"""Experiments in the database: one row each, changed in one transaction that also numbers the change.

Numbers become visible in their order (the row of `experiment_version` is locked to the commit), so whoever has seen all
changes up to n asks for those after it and misses none. Reading carries `allowed` (INV-5), but for `changed_since`, whose
caller sends each change to those who may see it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from typing import Any, Final

from db.database import Connection, Database, bounded
from schemas.errors import InvalidInput
from schemas.experiments import ExperimentStatus
from schemas.scope import ServiceScope
from search.predicate import Contains, within
from search.sql import Columns, Sql, joined
from search.sql_postgres import compile_postgres

_CALL_S: Final = 10.0
_EXPIRED_MAX: Final = 1_000
"""Most that one new experiment removes."""
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)
_COLUMNS: Final = (
    "experiment_id, name, service_name, status, created_at, updated_at, started_at, ended_at, metadata::text, change"
)
_ONE: Final = f"SELECT {_COLUMNS} FROM experiments WHERE experiment_id = %s"
_NUMBER: Final = "UPDATE experiment_version SET version = version + 1, experiments = experiments + %s RETURNING version"
_INSERT: Final = """
    INSERT INTO experiments (experiment_id, name, service_name, status, created_at, updated_at, started_at, ended_at, metadata,
        change)
    VALUES (%s, %s, %s, %s, %s, %s, %s, %s, %s::json, %s) ON CONFLICT (experiment_id) DO NOTHING"""
_UPDATE: Final = """
    UPDATE experiments SET name = %s, status = %s, updated_at = %s, started_at = %s, ended_at = %s, metadata = %s::json, change
    = %s WHERE experiment_id = %s"""
# What somebody changes at this moment is passed over: they wait for the version's row, which is held here.
_EXPIRE: Final = """
    WITH gone AS (
        DELETE FROM experiments WHERE experiment_id IN (
            SELECT experiment_id FROM experiments WHERE updated_at < %s ORDER BY updated_at LIMIT %s FOR UPDATE SKIP LOCKED)
        RETURNING 1)
    UPDATE experiment_version SET experiments = experiments - (SELECT count(*) FROM gone) RETURNING experiments"""
_LIST: Final = f"""
    SELECT {_COLUMNS} FROM experiments
    WHERE {{wanted}} AND (%s::text[] IS NULL OR status = ANY (%s))
        AND (%s::timestamptz IS NULL OR (created_at, experiment_id) < (%s, %s))
    ORDER BY created_at DESC, experiment_id DESC LIMIT %s"""
_SINCE: Final = f"SELECT {_COLUMNS} FROM experiments WHERE change > %s ORDER BY change LIMIT %s"


class TooManyExperiments(InvalidInput):
    """There are as many experiments as are kept."""


@dataclass(frozen=True, slots=True)
class Experiment:
    """One experiment. Times are microseconds since the Unix epoch."""

    experiment_id: str
    name: str
    service_name: str
    status: ExperimentStatus
    created_us: int
    updated_us: int
    started_us: int | None
    ended_us: int | None
    metadata: bytes
    """JSON object."""
    change: int = 0
    """Number of its last change; 0 before it is stored."""


Decide = Callable[[Experiment | None], Experiment]
"""What an experiment becomes: of the one that is stored, or None. May raise; nothing has changed then."""


class ExperimentStore:
    """The experiments of one database."""

    def __init__(self, database: Database, *, kept_max: int, retention_days: int) -> None:
        """database: opened and closed by the caller. retention_days: after which an experiment that does not change goes."""
        self._database = database
        self._kept_max = kept_max
        self._retention_us = retention_days * 86_400_000_000

    async def put(self, experiment_id: str, decide: Decide) -> tuple[Experiment, bool]:
        """Store what `decide` says; (the experiment, whether it is new). What is not changed is not written, and has no number.

        Raises TooManyExperiments, DatabaseUnavailable, and whatever `decide` raises.
        """
        while True:
            async with bounded(_CALL_S), self._database.transaction() as connection:
                stored = await _fetched(connection, f"{_ONE} FOR UPDATE", (experiment_id,))
                if stored:
                    return await self._changed(connection, stored[0], decide(stored[0])), False
                experiment = await self._inserted(connection, decide(None))
                if experiment is not None:
                    return experiment, True

    async def find(
        self,
        *,
        allowed: ServiceScope,
        statuses: Sequence[str],
        text: str,
        before: tuple[int, str] | None,
        limit: int,
    ) -> list[Experiment]:
        """Newest first. statuses: none means any. text: part of id or name, in any case of letters; may be empty. before:
        (created_us, id), exclusive. Raises DatabaseUnavailable."""
        parts = [compile_postgres(within(allowed))]
        if text:
            fields = (Columns(message=name) for name in ("experiment_id", "name"))
            parts.append(joined("OR", (compile_postgres(Contains(text), columns) for columns in fields)))
        wanted: Sql = joined("AND", parts)
        created_at, experiment_id = (None, None) if before is None else (_moment(before[0]), before[1])
        chosen = list(statuses) or None
        params = (*wanted.params, chosen, chosen, created_at, created_at, experiment_id, limit)
        return await self._read(_LIST.format(wanted=wanted.text), params)

    async def one(self, experiment_id: str, *, allowed: ServiceScope) -> Experiment | None:
        """None when absent or not allowed. Raises DatabaseUnavailable."""
        found = await self._read(_ONE, (experiment_id,))
        return found[0] if found and allowed.permits(found[0].service_name) else None

    async def version(self) -> int:
        """Number of the last change. Raises DatabaseUnavailable."""
        async with bounded(_CALL_S):
            row = await self._database.fetch_one("SELECT version FROM experiment_version")
        assert row is not None, "made by the migration"
        return int(row[0])

    async def changed_since(self, version: int, *, limit: int) -> list[Experiment]:
        """Experiments of every service that changed after this number, as they are now, in the order of their last changes.
        Raises DatabaseUnavailable."""
        return await self._read(_SINCE, (version, limit))

    async def _read(self, statement: str, params: tuple[Any, ...]) -> list[Experiment]:
        async with bounded(_CALL_S), self._database.connection() as connection:
            return await _fetched(connection, statement, params)

    async def _changed(self, connection: Connection, before: Experiment, after: Experiment) -> Experiment:
        if after == before:
            return before
        after = replace(after, change=await _number(connection, 0))
        times = map(_moment, (after.updated_us, after.started_us, after.ended_us))
        params = (after.name, after.status, *times, after.metadata.decode(), after.change, after.experiment_id)
        await connection.execute(_UPDATE.encode(), params)
        return after

    async def _inserted(self, connection: Connection, experiment: Experiment) -> Experiment | None:
        """None when another one came first."""
        change = await _number(connection, 1)
        oldest = _moment(experiment.updated_us - self._retention_us)
        cursor = await connection.execute(_EXPIRE.encode(), (oldest, _EXPIRED_MAX))
        row = await cursor.fetchone()
        if row is None or row[0] > self._kept_max:
            raise TooManyExperiments(
                f"there are {self._kept_max} experiments, as many as are kept (experiments.kept_max)"
            )
        stored = replace(experiment, change=change)
        times = map(_moment, (stored.created_us, stored.updated_us, stored.started_us, stored.ended_us))
        named = (stored.experiment_id, stored.name, stored.service_name, stored.status)
        cursor = await connection.execute(_INSERT.encode(), (*named, *times, stored.metadata.decode(), stored.change))
        if cursor.rowcount:
            return stored
        await connection.execute("UPDATE experiment_version SET experiments = experiments - 1")
        return None


async def _number(connection: Connection, more: int) -> int:
    """The number of this change. more: experiments than before."""
    cursor = await connection.execute(_NUMBER.encode(), (more,))
    row = await cursor.fetchone()
    assert row is not None, "made by the migration"
    return int(row[0])


async def _fetched(connection: Connection, statement: str, params: tuple[Any, ...]) -> list[Experiment]:
    cursor = await connection.execute(statement.encode(), params)
    return [_experiment(row) for row in await cursor.fetchall()]


def _experiment(row: tuple[Any, ...]) -> Experiment:
    experiment_id, name, service_name, status, created_at, updated_at, started_at, ended_at, metadata, change = row
    return Experiment(
        experiment_id=experiment_id,
        name=name,
        service_name=service_name,
        status=ExperimentStatus(status),
        created_us=(created_at - _EPOCH) // _MICROSECOND,
        updated_us=(updated_at - _EPOCH) // _MICROSECOND,
        started_us=None if started_at is None else (started_at - _EPOCH) // _MICROSECOND,
        ended_us=None if ended_at is None else (ended_at - _EPOCH) // _MICROSECOND,
        metadata=metadata.encode(),
        change=change,
    )


def _moment(us: int | None) -> datetime | None:
    return None if us is None else _EPOCH + timedelta(microseconds=us)
