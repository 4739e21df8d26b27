"""INV-3: the settings that make an acknowledgement durable, where each is decided. Loosening one must fail here."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator

import pytest

from broker.factory import make_broker
from broker.kafka_producer import KafkaProducer
from broker.settings import BrokerSettings
from cli.settings import Settings
from cli.write_store import write_store
from db.database import Database
from store.postgres_write import PostgresWriteStore


@pytest.fixture
async def database(native_url: str) -> AsyncIterator[Database]:
    """A pool on the embedded server."""
    database = Database(native_url, application_name="test")
    await database.open()
    yield database
    await database.close()


async def setting_of_batches(store: PostgresWriteStore) -> str:
    """synchronous_commit in a batch's transaction."""
    async with store.begin():
        assert store._connection is not None
        row = await (await store._connection.execute("SHOW synchronous_commit")).fetchone()
    await store.close()
    assert row is not None
    return str(row[0])


async def test_kafka_acknowledges_from_all_replicas_and_refuses_repeats(kafka_bootstrap: str) -> None:
    broker = make_broker(BrokerSettings(kind="kafka", bootstrap=kafka_bootstrap, topic=f"t-{uuid.uuid4().hex}"), None)
    await broker.open()
    producer = await broker.producer()
    assert isinstance(producer, KafkaProducer)
    assert producer._session is not None
    sender = producer._session.client._sender
    assert sender._acks == -1, "acks=all"
    assert sender._txn_manager is not None, "idempotent"
    await producer.close()
    await broker.close()


async def test_every_connection_waits_for_the_disk(database: Database) -> None:
    assert await database.fetch_one("SHOW synchronous_commit") == ("on",)


@pytest.mark.parametrize(("kind", "expected"), [("queue", "on"), ("kafka", "off")])
async def test_only_batches_that_kafka_keeps_do_not_wait_for_the_disk(
    database: Database, kind: str, expected: str
) -> None:
    """Rows and offsets are one transaction, so that a crash that loses the batch makes it be read again."""
    settings = Settings.model_validate({"profile": "embedded", "broker": {"kind": kind}})
    assert await setting_of_batches(write_store(settings, database)) == expected


async def test_what_can_be_made_again_is_unlogged_and_the_queue_is_not(database: Database) -> None:
    """Losing a reservation costs an answer its ids; a queue's record lost is logs lost, and replicas read what is logged."""
    rows = await database.fetch_all(
        "SELECT relname FROM pg_class WHERE relpersistence = 'u' AND relkind IN ('r', 'p')"
        " AND relnamespace = 'public'::regnamespace ORDER BY relname"
    )
    assert rows == [("id_reservations",)]
