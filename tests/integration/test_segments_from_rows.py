"""Rows of PostgreSQL become segments without any value changing on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from psycopg.types.json import Jsonb

from db.database import Database
from schemas.record import MESSAGE_BYTES_MAX, Log
from search.predicate import ServiceIn
from search.sql_postgres import compile_postgres
from store.page_sql import to_datetime
from store.segments.from_rows import batches_from_rows
from store.segments.verification import verify
from store.segments.writing import SegmentWriter
from tests.segment_rows import log_at, logs, logs_of, read, settings

ODD_METADATA = (
    '{"b": 1, "aa": [1.10, 1e2, {"x": null}], "é": "\\"\\\\\\n\\u2028", "big": 123456789012345678901234567890.5}',
    "{}",
    '{"k": ""}',
)


@pytest.fixture
async def database(postgres_url: str) -> AsyncIterator[Database]:
    """With an empty table of rows."""
    opened = Database(postgres_url, application_name="test", connections_max=3)
    await opened.open()
    await opened.execute("DROP TABLE IF EXISTS rows")
    await opened.execute(
        "CREATE TABLE rows (timestamp timestamptz NOT NULL, id bigint NOT NULL, level smallint NOT NULL,"
        ' service_name text COLLATE "C" NOT NULL, correlation_id text COLLATE "C", message text COLLATE "C" NOT NULL,'
        " metadata jsonb NOT NULL, arrived bigint)"
    )
    await opened.execute("CREATE INDEX ON rows (timestamp, id)")
    yield opened
    await opened.close()


def insert(url: str, of: Sequence[Log]) -> None:
    with psycopg.connect(url, autocommit=True) as connection, connection.cursor() as cursor:
        connection.execute("TRUNCATE rows")
        cursor.executemany(
            "INSERT INTO rows VALUES (%s, %s, %s, %s, %s, %s, %s)",
            [
                (
                    to_datetime(log.timestamp),
                    log.id,
                    log.level,
                    log.service_name,
                    log.correlation_id,
                    log.message,
                    Jsonb(log.metadata),
                )
                for log in of
            ],
        )


async def batches(database: Database, **options: Any) -> list[pa.RecordBatch]:
    """Any: the options' types."""
    found = []
    async for batch in batches_from_rows(database, "rows", **options):
        batch.validate(full=True)
        found.append(batch)
    return found


def all_logs(of: Sequence[pa.RecordBatch]) -> list[Log]:
    return [log for batch in of for log in logs_of(batch)]


@hypothesis_settings(max_examples=30, deadline=None, suppress_health_check=list(HealthCheck))
@given(of=logs(max_size=20), batch_rows=st.integers(1, 7))
async def test_arbitrary_rows_come_out_as_they_were(database: Database, of: list[Log], batch_rows: int) -> None:
    insert(database.url, of)
    found = await batches(database, batch_rows=batch_rows)
    assert all_logs(found) == of
    assert all(len(batch) <= batch_rows for batch in found)


async def test_metadata_is_the_text_that_the_database_prints(database: Database) -> None:
    with psycopg.connect(database.url, autocommit=True) as connection:
        for number, text in enumerate(ODD_METADATA):
            connection.execute("INSERT INTO rows VALUES (now(), %s, 9, 's', NULL, 'm', %s)", (number, text))
        printed = connection.execute("SELECT metadata::text FROM rows ORDER BY timestamp, id").fetchall()
    (batch,) = await batches(database)
    assert [(text,) for text in batch.column("metadata").to_pylist()] == printed


async def test_batches_of_large_rows_are_bounded_in_bytes(database: Database) -> None:
    of = [log_at(at, at, message="€" * (MESSAGE_BYTES_MAX // 3)) for at in range(30)]
    insert(database.url, of)
    found = await batches(database, batch_bytes=2_000_000)
    assert all_logs(found) == of
    assert max(batch.nbytes for batch in found) < 2_000_000 + MESSAGE_BYTES_MAX + 1_000
    assert all_logs(await batches(database, batch_bytes=1)) == of


async def test_rows_become_a_segment_that_verifies(database: Database, tmp_path: Path) -> None:
    of = [
        log_at(at // 3, at, service_name=("pay", "auth")[at % 2], correlation_id=str(at) or None) for at in range(3_000)
    ]
    insert(database.url, of)
    writer = SegmentWriter(tmp_path, "s", settings=settings(row_group_rows=700, rows_max=2_000))
    async for batch in batches_from_rows(database, "rows", batch_rows=256):
        await asyncio.to_thread(writer.write, batch)
    segments = await asyncio.to_thread(writer.close)
    for segment in segments:
        verify(segment.path, segment.info)
    assert [log for segment in segments for log in read(segment.path)] == of


async def test_reading_goes_on_after_a_position_and_within_a_condition(database: Database) -> None:
    of = [log_at(at // 3, at, service_name=("pay", "it's 100%")[at % 2]) for at in range(100)]
    insert(database.url, of)
    where = compile_postgres(ServiceIn(frozenset({"it's 100%"})))
    found = await batches(database, where=where, after=(10, 30), batch_rows=8)
    assert all_logs(found) == [log for log in of if (log.timestamp, log.id) > (10, 30) and log.id % 2]


async def test_stopping_early_leaves_the_connection_usable(database: Database) -> None:
    insert(database.url, [log_at(at, at) for at in range(100)])
    async with aclosing(batches_from_rows(database, "rows", batch_rows=10)) as iterator:
        assert len(await anext(iterator)) == 10
    for _ in range(4):
        assert await database.fetch_one("SHOW enable_seqscan") == ("on",)


async def test_a_name_that_is_none_of_ours_is_refused(database: Database) -> None:
    with pytest.raises(ValueError, match="no name of ours"):
        await anext(batches_from_rows(database, "rows; DROP TABLE rows"))
