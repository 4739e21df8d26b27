"""Ingest as one service: takes bodies, gives ids, judges, publishes. The only place that puts its parts together.

Concurrency: one event loop. A request's work after its body was read runs in a task of its own, so that a client that
goes away neither stops the send nor leaves a byte in the in-flight count. The stop refuses new requests, waits for those
tasks, publishes the counts that wait, closes the producer and gives the worker number back, in this order.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Coroutine
from dataclasses import dataclass
from typing import Any, Final

import orjson
import structlog

from access.principal import Authenticate, Principal, anyone
from broker.port import Broker
from connections.settings import ConnectionSettings
from db.database import Database
from db.worker_ids import WorkerIdLease
from ingest.api import make_router
from ingest.connections.api import make_connections_router
from ingest.connections.intake import Intake
from ingest.errors import BodyTooLarge, FieldError, InvalidFields, NothingAccepted, NotPermitted
from ingest.filters.config import build_chain
from ingest.idempotency import Reservations, keyed, keyed_by_body
from ingest.in_flight import Hold, InFlight
from ingest.key_rates import KeyRates
from ingest.parse import decode_batch, decode_one, is_array, too_many
from ingest.publish import Publisher
from ingest.quick import opened, plain_of, read_plain, read_plain_one
from ingest.receive import (
    NOT_PERMITTED,
    Answer,
    Received,
    batch_answer,
    single_answer,
)
from ingest.records import Records
from ingest.settings import IngestSettings
from ingest.take import Request, Taking
from ingest.wire.formats import add_formats
from runtime.clock import Clock, SystemClock
from runtime.stopping import Stop
from schemas.errors import Overloaded
from store.connections.texts import ConnectionTexts

log = structlog.get_logger(__name__)

_TEXTS: Final = "logfeed:connections"
"""Whose the keys of chunks are, whoever sends the text: it may be somebody else who goes on with it."""


@dataclass(frozen=True, slots=True)
class ConnectionSource:
    """What taking connections needs besides."""

    settings: ConnectionSettings
    retention_days: int
    """After which a connection that nobody puts goes."""


class IngestService:
    """Composed by the caller from an opened database and broker; `router` is mounted into a FastAPI application."""

    def __init__(
        self,
        settings: IngestSettings,
        *,
        broker: Broker,
        database: Database,
        instance: str,
        authenticate: Authenticate = anyone,
        clock: Clock | None = None,
        random: Callable[[], float] = random.random,
        connections: ConnectionSource | None = None,
    ) -> None:
        """broker, database: opened and closed by the caller. instance: stable name of this process.

        random: uniform in [0, 1), for sampling. connections: None takes none. Raises ConfigurationError for filters that are
        not valid.
        """
        self.settings = settings
        self._clock = clock or SystemClock()
        self._chain = build_chain(settings.filters, rates=settings.service_rates, random=random)
        self._rates = KeyRates(settings.key_rate.limits, self._clock)
        self._lease = WorkerIdLease(database, instance=instance, clock=self._clock, numbers=settings.worker_numbers)
        self._publisher = Publisher(broker, settings)
        self.in_flight = InFlight(settings.in_flight_bytes_max)
        self.authenticate = authenticate
        self._requests: set[asyncio.Task[Answer]] = set()
        self._stop = Stop()
        self._taking = Taking(
            settings,
            chain=self._chain,
            rates=self._rates,
            lease=self._lease,
            reservations=Reservations(
                database,
                clock=self._clock,
                deadline_s=settings.reservation_deadline_s,
                pause_s=settings.reservation_pause_s,
            ),
            publisher=self._publisher,
            clock=self._clock,
            check_open=self._check_open,
        )
        self._background: list[asyncio.Task[None]] = []
        self.router = make_router(self)
        add_formats(self.router, self)
        if connections is not None:
            texts = ConnectionTexts(
                database,
                kept_max=connections.settings.kept_max,
                retention_days=connections.retention_days,
                error_kinds_max=connections.settings.error_kinds_max,
            )
            intake = Intake(
                connections.settings,
                texts,
                self._take_text,
                retention_days=settings.retention_days,
                clock=self._clock,
            )
            # Side by side, not one inside the other: whoever mounts them sees each route.
            self.router.routes.extend(make_connections_router(intake, self).routes)

    # --- life ---

    async def start(self) -> None:
        """Start the tasks beside the requests; returns at once. While they have no worker number (the database is away, the
        clock is wrong) or no broker, requests get 503 and `ready` says why.
        """
        for name, work in (("worker number", self._lease.keep), ("publisher", self._publisher.run)):
            task = asyncio.create_task(work(self._stop), name=name)
            task.add_done_callback(self._background_ended)
            self._background.append(task)

    async def stop(self) -> None:
        """Refuse, drain within the deadline, flush, give back. Safe to call once, also without a `start`."""
        self._stop.set()
        if self._requests:
            _, late = await asyncio.wait(self._requests, timeout=self.settings.drain_deadline_s)
            if late:
                log.error("requests did not end in time", requests=len(late))
        if self._background:
            _, late_tasks = await asyncio.wait(self._background, timeout=self.settings.drain_deadline_s)
            for task in late_tasks:
                task.cancel()
            await asyncio.gather(*late_tasks, return_exceptions=True)
        await self._publisher.close()
        await self._lease.release()

    def ready(self) -> list[str]:
        """What keeps this service from taking logs, for people; empty when it is ready."""
        found = ["ingest is stopping"] if self._stop.is_set else []
        if self._lease.problem is not None:
            found.append(f"no ids: {self._lease.problem}")
        found.extend(f"the task {task.get_name()!r} ended" for task in self._background if task.done())
        return found + self._publisher.problems()

    # --- requests ---

    def check(self, principal: Principal) -> None:
        """Before a body is read. Raises Overloaded and its subclasses when the request would be refused anyway."""
        self._check_open()
        self._rates.check(principal)

    def _check_open(self) -> None:
        if self._stop.is_set:
            raise Overloaded("ingest is stopping", retry_after_s=2)
        self._publisher.check()

    async def take_one(self, body: bytes, hold: Hold, principal: Principal, key: str | None) -> Answer:
        """One log. Closes the hold when all is done, also when the caller is cancelled.

        Raises InvalidFields, NotPermitted, KeyReused, RateLimited, RecordTooLarge, Overloaded.
        """

        def request() -> Request:
            return Request(
                route="logs",
                body=body,
                plain=None if self._chain.reads_metadata else read_plain_one(body),
                decode=lambda: [decode_one(body)],
                principal=principal,
                keyed=None if key is None else keyed(subject=principal.subject, key=key, route="logs", body=body),
                answer=lambda received, _: single_answer(received),
                nothing_valid=lambda received: _one_invalid(received, body),
            )

        return await self._finish(self._taking.take(request, hold, principal, len(body)))

    async def take_batch(
        self,
        body: bytes,
        hold: Hold,
        principal: Principal,
        key: str | None,
        *,
        return_ids: bool,
        key_owner: str | None = None,
    ) -> Answer:
        """A batch; as `take_one`. key_owner: whose the key is; None: the principal's. Raises also MalformedBody, BodyTooLarge,
        NothingAccepted."""
        subject = principal.subject if key_owner is None else key_owner

        def request() -> Request:
            return Request(
                route="logs/batch",
                body=body,
                plain=None if self._chain.reads_metadata else read_plain(body, logs_max=self.settings.logs_max),
                decode=lambda: decode_batch(body, logs_max=self.settings.logs_max),
                principal=principal,
                keyed=None if key is None else keyed(subject=subject, key=key, route="logs/batch", body=body),
                answer=lambda received, ids: batch_answer(received, ids, return_ids=return_ids),
                nothing_valid=_none_valid,
            )

        return await self._finish(self._taking.take(request, hold, principal, len(body)))

    async def take_records(
        self,
        body: bytes,
        hold: Hold,
        principal: Principal,
        key: str | None,
        *,
        route: str,
        read: Callable[[bytes, Principal], Records],
        answer: Callable[[Received], Answer],
    ) -> Answer:
        """What `read` finds in a body of any format; as `take_one`. route: of the key as well: the same key elsewhere is
        another. answer: also where no record is valid, or there is none. Raises also what `read` raises, BodyTooLarge."""

        def request() -> Request:
            records = read(body, principal)
            logs = records.logs
            if len(logs) > self.settings.logs_max:
                raise too_many(len(logs), self.settings.logs_max)
            self._hold_expanded(hold, len(body), records.expanded_bytes)
            owner, named = principal.subject, None
            if key is not None:
                named = keyed(subject=owner, key=key, route=route, place=records.place, body=body)
            elif logs and records.have_own_times and self.settings.implied_keys:
                named = keyed_by_body(subject=owner, route=route, place=records.place, body=body)
            return Request(
                route=route,
                body=body,
                plain=None if self._chain.reads_metadata else plain_of(logs),
                decode=lambda: [*map(opened, logs)],
                principal=principal,
                keyed=named,
                answer=lambda received, _: answer(received),
                nothing_valid=None,
            )

        return await self._finish(self._taking.take(request, hold, principal, len(body)))

    def _hold_expanded(self, hold: Hold, body_bytes: int, expanded_bytes: int) -> None:
        """Raises Overloaded, and BodyTooLarge where the client could send the body again for ever."""
        if body_bytes + expanded_bytes > self.settings.in_flight_bytes_max // 2:
            raise BodyTooLarge(
                f"the body's logs, with what they share written into each, take {body_bytes + expanded_bytes} bytes, and"
                f" nobody may hold more than {self.settings.in_flight_bytes_max // 2}: send several requests"
            )
        hold.grow(expanded_bytes)

    async def _take_text(self, body: bytes, principal: Principal, key: str) -> dict[str, Any]:
        """See ingest.connections.intake.Publish."""
        self.check(principal)
        hold = self.in_flight.hold(principal.subject)
        hold.grow(len(body))
        answer = await self.take_batch(body, hold, principal, key, return_ids=False, key_owner=_TEXTS)
        content: dict[str, Any] = orjson.loads(answer.body)
        return content

    async def _finish(self, work: Coroutine[Any, Any, Answer]) -> Answer:
        task = asyncio.create_task(work)
        self._requests.add(task)
        task.add_done_callback(self._ended)
        return await asyncio.shield(task)

    def _ended(self, task: asyncio.Task[Answer]) -> None:
        self._requests.discard(task)
        if not task.cancelled():
            task.exception()  # whoever waited has it; where nobody waits any more it is no news

    @staticmethod
    def _background_ended(task: asyncio.Task[None]) -> None:
        error = None if task.cancelled() else task.exception()
        if error is not None:
            log.error("a task beside the requests failed", task=task.get_name(), error=repr(error))


def _one_invalid(received: Received, body: bytes) -> Exception:
    _, error = received.rejected[0]
    if error.code == NOT_PERMITTED:
        return NotPermitted(error.errors[0].message)
    if error.code != "json":
        return InvalidFields(error.errors)
    if not body.strip():
        return InvalidFields([FieldError("body", "is empty: send one log as a JSON object")])
    advice = "; several logs go to /api/v1/logs/batch" if is_array(body) else ""
    return InvalidFields([FieldError("body", error.text + advice)])


def _none_valid(received: Received) -> Exception:
    if all(error.code == NOT_PERMITTED for _, error in received.rejected):
        return NotPermitted(received.rejected[0][1].errors[0].message)
    return NothingAccepted(received.rejected)
