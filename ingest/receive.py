"""Decides what becomes of a request's logs: pure. Items, ids and the occasion in; kept logs, counts and the answer out.

The same body, ids and chain give the same result: what a retried request with an Idempotency-Key relies on.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Final

import msgspec
import orjson

from ingest.errors import REJECTED_SHOWN_MAX, BodyTooLarge, FieldError, ItemError
from ingest.filters.chain import Chain
from ingest.filters.verdicts import AnyLog, Occasion, Refuse
from ingest.parse import Item, Window, to_log
from ingest.quick import PlainLog, plain_lines
from schemas.errors import RecordTooLarge
from schemas.frames import FRAME_BYTES_MAX, FrameHeader, Headers, ServiceCounts, encode_headers
from schemas.frames import encode_lines as encode_frame_lines
from schemas.scope import ServiceScope

SERVICES_MAX: Final = 1_000
"""Most services that the logs of one request may name: each is an entry of its counts."""
NOT_PERMITTED: Final = "not_permitted"


@dataclass(slots=True)
class Received:
    """What became of the logs of one request. With a refusal nothing else counts."""

    kept: list[AnyLog] = field(default_factory=list)
    dropped: list[tuple[AnyLog, str]] = field(default_factory=list)
    """(log, filter's name)"""
    rejected: list[tuple[int, ItemError]] = field(default_factory=list)
    """(index, why)"""
    refusal: Refuse | None = None

    @property
    def filtered(self) -> Counter[str]:
        """Logs dropped, by the filter's name."""
        return Counter(name for _, name in self.dropped)

    @property
    def rejected_by(self) -> Counter[str]:
        """Logs rejected, by reason."""
        return Counter(error.code for _, error in self.rejected)

    def counts(self) -> dict[str, ServiceCounts]:
        """Service -> what the ledger books; services that are unreadable or not permitted under ''."""
        counts = {
            name: ServiceCounts(received=kept)
            for name, kept in Counter([log.service_name for log in self.kept]).items()
        }
        for log, rule in self.dropped:
            of_service = counts.setdefault(log.service_name, ServiceCounts())
            of_service.received += 1
            of_service.filtered[rule] = of_service.filtered.get(rule, 0) + 1
        for _, error in self.rejected:
            of_service = counts.setdefault(error.service_name, ServiceCounts())
            of_service.received += 1
            of_service.rejected[error.code] = of_service.rejected.get(error.code, 0) + 1
        return counts


def receive(
    items: Sequence[Item],
    ids: Sequence[int],
    *,
    window: Window,
    may_hold_nul: bool,
    may_write: ServiceScope,
    chain: Chain,
    occasion: Occasion,
) -> Received:
    """Judge the items; ids[i] is the id of items[i], whatever becomes of it.

    Raises BodyTooLarge past SERVICES_MAX services, before any filter was asked.
    """
    received = Received()
    logs: list[AnyLog] = []
    indexes: list[int] = []
    default_service = may_write.only_name
    for index, item in enumerate(items):
        log = to_log(item, ids[index], window, may_hold_nul=may_hold_nul, default_service=default_service)
        if isinstance(log, ItemError):
            received.rejected.append((index, _owned(log, may_write)))
        elif may_write.is_all or may_write.permits(log.service_name):
            logs.append(log)
            indexes.append(index)
        else:
            received.rejected.append((index, _not_permitted(log.service_name)))
    services = {log.service_name for log in logs}.union(error.service_name for _, error in received.rejected) - {""}
    if len(services) > SERVICES_MAX:
        raise BodyTooLarge(
            f"the logs of a request may name {SERVICES_MAX} services, these name {len(services)}: send several requests, "
            "and put what differs from log to log into metadata"
        )
    judged = chain.judge_all(logs, occasion, indexes=indexes)
    received.kept, received.dropped, received.refusal = judged.kept, judged.dropped, judged.refusal
    return received


def receive_plain(
    logs: Sequence[PlainLog],
    ids: Sequence[int],
    *,
    window: Window,
    may_write: ServiceScope,
    chain: Chain,
    occasion: Occasion,
) -> Received | None:
    """As `receive`, of logs whose metadata nobody reads; None when any of them needs a closer look. Raises nothing."""
    lines = plain_lines(logs, ids, window, default_service=may_write.only_name)
    if lines is None:
        return None
    services = {line.service_name for line in lines}
    if len(services) > SERVICES_MAX or not (may_write.is_all or all(map(may_write.permits, services))):
        return None
    judged = chain.judge_all(lines, occasion)
    return Received(kept=judged.kept, dropped=judged.dropped, refusal=judged.refusal)


def _not_permitted(service_name: str) -> ItemError:
    error = FieldError("service_name", f"the token does not permit writing logs of {service_name!r}")
    return ItemError(NOT_PERMITTED, (error,))


def _owned(error: ItemError, may_write: ServiceScope) -> ItemError:
    """Nobody adds to the counts of a service that is not theirs."""
    if may_write.permits(error.service_name):
        return error
    return msgspec.structs.replace(error, service_name="")


def frame_value(kept: Sequence[AnyLog]) -> bytes:
    """The frame's value. Raises RecordTooLarge when it is more than a frame holds."""
    value = encode_frame_lines(kept)
    if len(value) > FRAME_BYTES_MAX:
        raise RecordTooLarge(
            f"the logs take {len(value)} bytes compressed, a frame holds {FRAME_BYTES_MAX}: send fewer"
        )
    return value


def frame_headers(header: FrameHeader, value: bytes) -> Headers:
    """The frame's headers. Raises RecordTooLarge when the whole is more than a frame may be."""
    headers = encode_headers(header)
    size = len(value) + sum(len(name) + len(content) for name, content in headers)
    if size > FRAME_BYTES_MAX:
        raise RecordTooLarge(
            f"the request makes a record of {size} bytes, the broker takes {FRAME_BYTES_MAX}: send fewer"
        )
    return headers


# --- answers ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Answer:
    """Status and body of a request that was taken."""

    status: int
    body: bytes
    accepted: int
    """Number of logs that it acknowledges."""

    def pack(self) -> bytes:
        """As kept in a reservation."""
        return b"%d %d\n%b" % (self.status, self.accepted, self.body)

    @classmethod
    def unpack(cls, packed: bytes) -> Answer:
        """The reverse of `pack`. Reads what the first releases kept, too: the status alone, and always a body of JSON."""
        head, _, body = packed.partition(b"\n")
        status, _, accepted = head.partition(b" ")
        return cls(int(status), body, int(accepted) if accepted else _acknowledged(body))


def _acknowledged(body: bytes) -> int:
    content = orjson.loads(body)
    return int(content["accepted"]) if "accepted" in content else int(content["log_id"] is not None)


def batch_answer(received: Received, ids: Sequence[int], *, return_ids: bool) -> Answer:
    """201 when anything was kept, 200 when all of it was filtered."""
    kept = received.kept
    answer: dict[str, object] = {
        "accepted": len(kept),
        "filtered": received.filtered,
        "rejected_count": len(received.rejected),
        "rejected": rejected_list(received.rejected),
        "first_id": str(kept[0].id) if kept else None,
        "last_id": str(kept[-1].id) if kept else None,
    }
    if return_ids:
        kept_ids = {log.id for log in kept}
        answer["ids"] = [str(log_id) if log_id in kept_ids else None for log_id in ids]
    return Answer(201 if kept else 200, orjson.dumps(answer), len(kept))


def single_answer(received: Received) -> Answer:
    """201 with the id, or 200 with the name of the filter that dropped the log."""
    if received.kept:
        return Answer(201, orjson.dumps({"log_id": str(received.kept[0].id)}), 1)
    return Answer(200, orjson.dumps({"log_id": None, "filtered_by": received.dropped[0][1]}), 0)


def rejected_list(rejected: Sequence[tuple[int, ItemError]]) -> list[dict[str, object]]:
    """The first rejected items as an answer lists them."""
    return [{"index": index, "code": error.code, "error": error.text} for index, error in rejected[:REJECTED_SHOWN_MAX]]
