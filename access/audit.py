"""Who looked at what: one log of the service logfeed/audit for each question that was answered, and for each change over HTTP
of who may what, of what is told whom, of hosts.

Entries go the way of every log (frame, broker, writer), so they are stored once, found like any other and kept as long as
retention says; who has `admin` over that service reads them. They are published beside the questions, half a second together
at most, and again under the same Idempotency-Key until they are acknowledged. While they cannot be, they wait in memory, at
most BYTES_MAX; then questions are refused with 503 rather than answered unseen. What a process that is killed had not published
yet, half a second of questions when the broker takes records, is lost with it: docs/access.md says so.

Concurrency: one event loop. `note` is called by requests, `run` by one task.
"""

from __future__ import annotations

import asyncio
import uuid
from collections import deque
from collections.abc import Awaitable, Callable, Sequence
from typing import Any, Final

import msgspec
import orjson
import structlog

from access.metrics import AUDIT_ENTRIES, AUDIT_WAITING
from access.principal import Principal
from runtime.clock import Clock
from runtime.stopping import Stop
from schemas.errors import InvalidInput, LogfeedError, Overloaded, RecordTooLarge
from schemas.scope import AUDIT_SERVICE, NO_SERVICES, ServiceScope

log = structlog.get_logger(__name__)

BYTES_MAX: Final = 16 * 1024 * 1024
QUESTION_CHARS_MAX: Final = 30_000
"""Longer ones are refused by who answers: what is not written down is not answered. Fits into a log's metadata, however it is
spelled in JSON."""
LINGER_S: Final = 0.5

_BATCH_LOGS: Final = 1_000
_BATCH_BYTES: Final = 4 * 1024 * 1024
_AGAIN_S: Final = 1.0
_LAST_S_MAX: Final = 10.0
_PATH_CHARS_MAX: Final = 4_000
"""No path that a route takes is as long."""

AUDITOR: Final = Principal(
    subject="logfeed:audit",
    may_write=ServiceScope(names=frozenset({AUDIT_SERVICE})),
    may_read=NO_SERVICES,
    name="the audit log",
)
"""Who sends the entries: no key can be this."""

Publish = Callable[[bytes, str], Awaitable[int]]
"""Publishes NDJSON under an Idempotency-Key; returns, once it is durable, how many lines were rejected. Raises LogfeedError."""


class AuditFull(Overloaded):
    """The audit log cannot be written now, so no question is answered: try again shortly."""


class Look(msgspec.Struct, frozen=True):
    """What somebody was shown."""

    path: str
    """Percent-encoded."""
    question: str
    """The query string as it came, at most QUESTION_CHARS_MAX."""
    rows: int
    """Logs in the answer."""
    status: int
    address: str
    phase: str = ""
    """Of what lasts: `begin`, and `end` with the number of logs until then."""


class Change(msgspec.Struct, frozen=True):
    """What somebody changed."""

    what: str
    """For people, behind who did it: `made the key 3kzj6qvw2xah (shop)`."""
    target: str
    """What it is of: key:PREFIX, user:NUMBER, rule:NAME."""
    grants: Sequence[str] | None
    """What it may from now on; None: it is nothing that may anything."""
    path: str
    """Percent-encoded."""
    address: str


class AuditLog:
    """Entries of one process."""

    def __init__(self, publish: Publish, clock: Clock) -> None:
        """publish: see Publish."""
        self._publish = publish
        self._clock = clock
        self._waiting: deque[bytes] = deque()
        self._bytes = 0
        self._has_some = asyncio.Event()

    def check(self) -> None:
        """Before a question is asked. Raises AuditFull when it could not be written down."""
        if self._bytes >= BYTES_MAX:
            AUDIT_ENTRIES.labels(outcome="refused").inc()
            raise AuditFull(retry_after_s=5)

    def note(self, principal: Principal, look: Look) -> None:
        """Write down that an answer is given. Raises nothing."""
        self._add(_entry(principal, look, self._clock.now_us()))

    def note_change(self, principal: Principal, change: Change) -> None:
        """Write down that something was changed. Raises nothing."""
        self._add(_change_entry(principal, change, self._clock.now_us()))

    def _add(self, entry: dict[str, Any]) -> None:
        line = orjson.dumps(entry, option=orjson.OPT_APPEND_NEWLINE)
        self._waiting.append(line)
        self._bytes += len(line)
        AUDIT_WAITING.set(len(self._waiting))
        self._has_some.set()

    async def run(self, stop: Stop) -> None:
        """Publish until the stop, then what is left, for ten seconds at most."""
        while not stop.is_set:
            waiting, stopping = asyncio.ensure_future(self._has_some.wait()), asyncio.ensure_future(stop.wait())
            await asyncio.wait({waiting, stopping}, return_when=asyncio.FIRST_COMPLETED)
            waiting.cancel()
            stopping.cancel()
            await stop.wait(LINGER_S)
            await self._publish_all(stop)
        try:
            async with asyncio.timeout(_LAST_S_MAX):
                await self._publish_all(None)
        except TimeoutError:
            AUDIT_ENTRIES.labels(outcome="lost").inc(len(self._waiting))
            log.error("audit entries were not published before the end", entries=len(self._waiting))

    async def _publish_all(self, stop: Stop | None) -> None:
        """All that waits. stop: gives up with it, None: never."""
        while self._waiting:
            batch = self._batch()
            key = uuid.uuid4().hex
            while not await self._is_published(batch, key):
                if stop is None:
                    await asyncio.sleep(_AGAIN_S)
                elif await stop.wait(_AGAIN_S):
                    return
            for line in batch:
                self._waiting.popleft()
                self._bytes -= len(line)
            AUDIT_WAITING.set(len(self._waiting))
        self._has_some.clear()

    def _batch(self) -> list[bytes]:
        batch: list[bytes] = []
        size = 0
        for line in self._waiting:
            size += len(line)
            if len(batch) >= _BATCH_LOGS or (batch and size > _BATCH_BYTES):
                break
            batch.append(line)
        return batch

    async def _is_published(self, batch: list[bytes], key: str) -> bool:
        """Whether it needs no further attempt."""
        try:
            rejected = await self._publish(b"".join(batch), key)
        except (InvalidInput, RecordTooLarge) as error:
            AUDIT_ENTRIES.labels(outcome="lost").inc(len(batch))
            log.error("audit entries were refused", entries=len(batch), error=str(error))
            return True
        except LogfeedError as error:
            log.warning("the audit log cannot be written, trying again", entries=len(batch), error=str(error))
            return False
        if rejected:
            AUDIT_ENTRIES.labels(outcome="lost").inc(rejected)
            log.error("audit entries were rejected: is this host's clock right?", entries=rejected)
        AUDIT_ENTRIES.labels(outcome="published").inc(len(batch) - rejected)
        return True


def _entry(principal: Principal, look: Look, now_us: int) -> dict[str, Any]:
    path, question = _sound(look.path[:_PATH_CHARS_MAX]), _sound(look.question[:QUESTION_CHARS_MAX])
    return {
        "service_name": AUDIT_SERVICE,
        "timestamp": now_us,
        "level": "INFO",
        "message": f"{principal.name or principal.subject} looked at {path}: {look.rows} logs",
        "metadata": {
            "subject": principal.subject,
            "name": principal.name,
            "path": path,
            "question": question,
            "rows": look.rows,
            "status": look.status,
            "address": look.address,
            **({"phase": look.phase} if look.phase else {}),
        },
    }


def _change_entry(principal: Principal, change: Change, now_us: int) -> dict[str, Any]:
    return {
        "service_name": AUDIT_SERVICE,
        "timestamp": now_us,
        "level": "INFO",
        "message": f"{principal.name or principal.subject} {_sound(change.what)}",
        "metadata": {
            "subject": principal.subject,
            "name": principal.name,
            "path": _sound(change.path[:_PATH_CHARS_MAX]),
            "change": _sound(change.what),
            "target": change.target,
            **({} if change.grants is None else {"permissions": _sound(" ".join(change.grants)[:QUESTION_CHARS_MAX])}),
            "address": change.address,
        },
    }


def _sound(text: str) -> str:
    return text.encode("utf-8", "replace").decode()
