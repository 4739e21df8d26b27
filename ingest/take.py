"""One request's way from its body to the broker: rates, ids, verdicts, the reservation of its key, one frame.

A request is charged and judged before anything of it is promised. Its key is reserved before its frame is published, with the
answer as it will be, so that a repetition finds both: it is published again with the ids it had, and the writer drops what it
has. A request runs in a task of its own (ingest/main.py) and shares nothing with another but what counts them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from access.principal import Principal
from db.worker_ids import WorkerIdLease
from idgen.snowflake import ids_from
from ingest import metrics
from ingest.errors import RateLimited
from ingest.filters.chain import Chain
from ingest.filters.verdicts import Occasion
from ingest.idempotency import Keyed, Reservation, Reservations
from ingest.in_flight import Hold
from ingest.key_rates import KeyRates
from ingest.parse import Item, Window, may_hold_nul
from ingest.publish import Publisher
from ingest.quick import PlainLog
from ingest.receive import Answer, Received, frame_value, receive, receive_plain
from ingest.settings import IngestSettings
from runtime.clock import Clock
from runtime.tracing import Kind, step, traceparent_of_span
from schemas.frames import FrameHeader
from schemas.ids import received_ms as received_ms_of


@dataclass(slots=True)
class Request:
    """What a handler knows after the body was read."""

    route: str
    body: bytes
    plain: Sequence[PlainLog] | None
    """The logs, when all are as they should be and no filter reads their metadata."""
    decode: Callable[[], list[Item]]
    """Reads the body log by log."""
    principal: Principal
    keyed: Keyed | None
    answer: Callable[[Received, list[int]], Answer]
    nothing_valid: Callable[[Received], Exception] | None
    """The error where no log is valid; None: `answer` says that as well."""
    _items: list[Item] | None = None

    @property
    def items(self) -> list[Item]:
        """The logs read one by one, at first need. Raises what `decode` raises."""
        if self._items is None:
            self._items = self.decode()
        return self._items

    @property
    def count(self) -> int:
        """Number of logs. Raises what `decode` raises."""
        return len(self.items if self.plain is None else self.plain)


class Taking:
    """Of one service, which starts and stops what is given."""

    def __init__(
        self,
        settings: IngestSettings,
        *,
        chain: Chain,
        rates: KeyRates,
        lease: WorkerIdLease,
        reservations: Reservations,
        publisher: Publisher,
        clock: Clock,
        check_open: Callable[[], None],
    ) -> None:
        """check_open: raises Overloaded where nothing may be promised any more."""
        self._settings, self._chain, self._rates, self._lease = settings, chain, rates, lease
        self._reservations, self._publisher, self._clock, self._check_open = reservations, publisher, clock, check_open

    async def take(self, make: Callable[[], Request], hold: Hold, principal: Principal, body_bytes: int) -> Answer:
        """The answer, once everything of it is durable. make: reads the body. Closes the hold. Raises what `make` raises,
        RateLimited, KeyReused, Overloaded, and what the request says where nothing of it is valid."""
        with hold:
            self._rates.take(principal, "bytes", body_bytes)
            with step("parse"):
                request = make()
            if request.count == 0:  # of a format that allows it
                return request.answer(Received(), [])
            earlier = None if request.keyed is None else await self._reservations.find(request.keyed)
            if earlier is not None:
                return await self._repeat(request, earlier)
            ids = self._lease.take(request.count)
            charged = self._rates.take(principal, "logs", request.count)
            received = self._judge(request, ids, admitted=False)
            if received.refusal is not None:
                if charged is not None:
                    charged.tokens += request.count
                metrics.RATE_LIMITED.labels(limit=received.refusal.filter).inc()
                raise RateLimited(
                    f"the limit {received.refusal.filter!r} is exceeded", retry_after_s=received.refusal.retry_after_s
                )
            counts = {} if received.kept else received.counts()
            with self._publisher.room(len(counts)):
                if not received.kept and not received.dropped:
                    # Nothing is reserved: with other rights, or at another time, the same request may be a good one.
                    self._publisher.note(received_ms_of(ids[0]), counts)
                    self._count(received)
                    if request.nothing_valid is not None:
                        raise request.nothing_valid(received)
                    return request.answer(received, ids)
                value = frame_value(received.kept)
                answer = request.answer(received, ids)
                if request.keyed is not None:
                    self._check_open()
                    mine = Reservation(received_ms_of(ids[0]), ids[0], answer.pack())
                    with step("reserve the key"):
                        earlier = await self._reservations.reserve(request.keyed, mine)
                    if earlier is not None:
                        return await self._repeat(request, earlier)
                await self._publish(request, received, value, ids[0])
                if not received.kept:
                    self._publisher.note(received_ms_of(ids[0]), counts)
                self._count(received)
                return answer

    async def _repeat(self, request: Request, earlier: Reservation) -> Answer:
        """The frame again, with the ids it had; the answer as it was."""
        ids = ids_from(earlier.first_id, request.count)
        received = self._judge(request, ids, admitted=True)
        await self._publish(request, received, frame_value(received.kept), ids[0])
        answer = Answer.unpack(earlier.answer)
        # The filters may have changed since: nothing is acknowledged that this frame lacks, should it be the one stored.
        return answer if len(received.kept) >= answer.accepted else request.answer(received, ids)

    def _judge(self, request: Request, ids: list[int], *, admitted: bool) -> Received:
        window = Window.at(received_ms_of(ids[0]), self._settings.retention_days)
        may_write = request.principal.may_write
        occasion = Occasion(
            now_s=self._clock.monotonic_s(),
            key=None if request.keyed is None else request.keyed.key_hash,
            admitted=admitted,
        )
        with step("filter chain") as span:
            received = None
            if request.plain is not None:
                received = receive_plain(
                    request.plain, ids, window=window, may_write=may_write, chain=self._chain, occasion=occasion
                )
            if received is None:
                received = receive(
                    request.items,
                    ids,
                    window=window,
                    may_hold_nul=may_hold_nul(request.body) or b"\0" in request.body,
                    may_write=may_write,
                    chain=self._chain,
                    occasion=occasion,
                )
            if span is not None:
                kept, dropped, rejected = len(received.kept), len(received.dropped), len(received.rejected)
                span.note(kept_logs=kept, filtered_logs=dropped, rejected_logs=rejected)
        return received

    async def _publish(self, request: Request, received: Received, value: bytes, first_id: int) -> None:
        if not received.kept:
            return
        with step("publish", Kind.PRODUCER) as span:
            header = FrameHeader(
                frame_id=self._publisher.new_frame_id(),
                received_ms=received_ms_of(first_id),
                counts=received.counts(),
                key_hash=None if request.keyed is None else request.keyed.key_hash,
                body_sha256=None if request.keyed is None else request.keyed.body_sha256,
                traceparent=traceparent_of_span(span),
            )
            if span is not None:
                span.note(logs=len(received.kept), bytes=len(value))
            await self._publisher.publish(value, header)

    @staticmethod
    def _count(received: Received) -> None:
        metrics.LOGS_RECEIVED.inc(len(received.kept) + len(received.dropped) + len(received.rejected))
        metrics.LOGS_ACCEPTED.inc(len(received.kept))
        for name, logs in received.filtered.items():
            metrics.LOGS_FILTERED.labels(filter=name).inc(logs)
        for reason, logs in received.rejected_by.items():
            metrics.LOGS_REJECTED.labels(reason=reason).inc(logs)
