"""The composition of the role `write`: a consumer with the sealer beside it."""

from __future__ import annotations

from typing import Final

from broker.queue import QueueBroker
from cli.beginning import side_by_side
from cli.role_process import RoleProcess, run_role
from cli.settings import Settings
from cli.tracing import make_traces
from cli.write_store import write_store
from db.leases import Lease
from runtime.clock import SystemClock
from store.upkeep import PostgresUpkeep
from writer.consume import Consumer
from writer.sealer import SEALER, Sealer
from writer.spans import BatchSpans

_DAY_US: Final = 86_400_000_000


async def run_writer(settings: Settings) -> None:
    """Store until SIGTERM or Ctrl-C. Raises what ends a writer for good (stuck consumer, too many dead letters)."""
    writer = settings.writer
    await run_role(
        settings,
        "write",
        _write,
        called="the writer",
        health_host=writer.health_host,
        health_port=writer.health_port,
    )


async def _write(process: RoleProcess) -> None:
    """Once what they need is there; when one ends, so does the other."""
    settings, database, stop = process.settings, process.database, process.stop
    broker = process.broker()
    if not await process.begins([broker.open]):
        return
    writer = settings.writer
    clock = SystemClock()
    traces = make_traces(settings.tracing, "write", writer.name)
    if traces is not None:
        process.stack.push_async_callback(traces.close)
    store = write_store(settings, database)
    upkeep = PostgresUpkeep(database, topic=settings.broker.topic, layout=settings.layout, settings=settings.store)
    consumer = Consumer(
        settings=writer,
        broker=broker,
        store=store,
        upkeep=upkeep,
        clock=clock,
        stop=stop,
        spans=None if traces is None else BatchSpans(traces, clock),
    )
    sealer = Sealer(
        lease=Lease(database, SEALER, writer.name, ttl_s=30.0),
        upkeep=upkeep,
        broker_upkeep=broker.upkeep if isinstance(broker, QueueBroker) else None,
        # A table goes when no class keeps any of its rows.
        retention_us=settings.retention.longest_days(settings.store.retention_days) * _DAY_US,
        clock=clock,
        stop=stop,
    )
    process.health.working = _Storing(consumer)
    try:
        await side_by_side(stop, consumer.run(), sealer.run())
    finally:
        await store.close()


class _Storing:
    """See Working."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer

    @property
    def problem(self) -> str | None:
        """Ready while it stores."""
        return None if self._consumer.ready else "the writer waits for the broker or the database"
