"""Idempotency-Key: the answer a keyed request was about to get, reserved in the database just before publishing.

A retry finds the reservation, so it gets the same ids and the same answer, and publishes the same frame again; the writer
stores one of the copies (schemas/frames.py, key hash). The reservation is a courtesy to the answer, not what makes
storing exactly once: where the database does not answer in time, the request goes on without it, and for a while
none is tried. Keys belong to a principal: two of them may use the same key. They live as long as the rows do (72 h).

Requests under way together share statements (db/gathering.py): one at a time would cost two round trips and a
connection of the pool each.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass
from hashlib import blake2b, sha256
from typing import Final

import structlog

from db.database import Database, bounded
from db.gathering import Gathering
from ingest import metrics
from ingest.errors import FieldError, InvalidFields, KeyReused
from runtime.clock import Clock
from schemas.errors import DatabaseUnavailable

log = structlog.get_logger(__name__)

KEY_CHARS_MAX: Final = 255

_TOGETHER_MAX: Final = 256
"""Most keys of one statement."""
_FIND: Final = """
SELECT key_hash, body_sha256, received_ms, first_id, answer FROM id_reservations WHERE key_hash = ANY(%s)"""
# In one order, so that two processes with the same keys never wait for one another.
_RESERVE: Final = """
INSERT INTO id_reservations (key_hash, body_sha256, received_ms, first_id, answer)
SELECT * FROM unnest(%s::bytea[], %s::bytea[], %s::bigint[], %s::bigint[], %s::bytea[]) AS r (key_hash) ORDER BY key_hash
ON CONFLICT (key_hash) DO NOTHING RETURNING key_hash"""


@dataclass(frozen=True, slots=True)
class Keyed:
    """A request's key and body, as hashes."""

    key_hash: bytes
    """sha256 of principal and key; also decides the partition."""
    body_sha256: bytes
    """Of a body that is its own key: 32 bytes of BLAKE2b."""


@dataclass(frozen=True, slots=True)
class Reservation:
    """What an earlier request with the key was about to be answered."""

    received_ms: int
    first_id: int
    answer: bytes


def keyed(*, subject: str, key: str, route: str, body: bytes, place: str = "") -> Keyed:
    """The hashes of a keyed request; body: decompressed. place: what else of its head says what its logs are.

    Raises InvalidFields for a key that is not usable.
    """
    if not 1 <= len(key) <= KEY_CHARS_MAX or not key.isascii() or not key.isprintable():
        problem = f"expected 1..{KEY_CHARS_MAX} printable ASCII characters, got {len(key)}"
        raise InvalidFields([FieldError("Idempotency-Key", problem)])
    owner = subject.encode()
    body_hash = sha256(b"%b\0%b" % (route.encode(), place.encode() + b"\0" if place else b""))
    body_hash.update(body)
    return Keyed(sha256(b"%d:%b:%b" % (len(owner), owner, key.encode())).digest(), body_hash.digest())


def keyed_by_body(*, subject: str, route: str, place: str, body: bytes) -> Keyed:
    """Of a request that names no key, and whose body is its own, at this route and place; no key that a client sends is one of
    these. The body is read once, by BLAKE2b: a processor without instructions for SHA takes 1.1 ms for 350 KB of SHA-256, and
    0.5 for this (bench/wire_ratios.py: 1 µs a log of 5)."""
    digest = blake2b(b"%b\0%b\0" % (route.encode(), place.encode()), digest_size=32)
    digest.update(body)
    body_hash, owner = digest.digest(), subject.encode()
    return Keyed(sha256(b"body:%d:%b:%b" % (len(owner), owner, body_hash)).digest(), body_hash)


class Reservations:
    """The table of reservations, left alone for a while after it did not answer."""

    def __init__(self, database: Database, *, clock: Clock, deadline_s: float, pause_s: float) -> None:
        """deadline_s: for each statement. pause_s: after a failure."""
        self._database = database
        self._clock = clock
        self._deadline_s = deadline_s
        self._pause_s = pause_s
        self._paused_until_s = float("-inf")
        self._finding = Gathering(self._find_all, most=_TOGETHER_MAX)
        self._reserving = Gathering(self._reserve_all, most=_TOGETHER_MAX)

    async def find(self, request: Keyed) -> Reservation | None:
        """The reservation of the key; None without one, or without database. Raises KeyReused."""
        if self._clock.monotonic_s() < self._paused_until_s:
            return None
        try:
            async with asyncio.timeout(self._deadline_s):
                found = await self._finding.ask(request.key_hash)
        except (DatabaseUnavailable, TimeoutError) as error:
            self._pause(error)
            return None
        if found is None:
            return None
        body_sha256, reservation = found
        if body_sha256 != request.body_sha256:
            raise KeyReused()
        metrics.KEYS_RETRIED.inc()
        return reservation

    async def reserve(self, request: Keyed, reservation: Reservation) -> Reservation | None:
        """Reserve; returns the one of a concurrent request where that came first, else None. Raises KeyReused."""
        if self._clock.monotonic_s() < self._paused_until_s:
            metrics.RESERVATIONS_SKIPPED.inc()
            return None
        try:
            async with asyncio.timeout(self._deadline_s):
                inserted = await self._reserving.ask((request, reservation))
        except (DatabaseUnavailable, TimeoutError) as error:
            self._pause(error)
            metrics.RESERVATIONS_SKIPPED.inc()
            return None
        return None if inserted else await self.find(request)

    async def _find_all(self, key_hashes: Sequence[bytes]) -> list[tuple[bytes, Reservation] | None]:
        """body sha256 and reservation of each key."""
        async with bounded(self._deadline_s):
            rows = await self._database.fetch_all(_FIND, (list(set(key_hashes)),))
        found = {key_hash: (body_sha256, Reservation(*rest)) for key_hash, body_sha256, *rest in rows}
        return [found.get(key_hash) for key_hash in key_hashes]

    async def _reserve_all(self, wanted: Sequence[tuple[Keyed, Reservation]]) -> list[bool]:
        """Whether each was reserved; of several with one key the first alone is tried."""
        firsts: dict[bytes, int] = {}
        for number, (each, _) in enumerate(wanted):
            firsts.setdefault(each.key_hash, number)
        columns = [
            (each.key_hash, each.body_sha256, mine.received_ms, mine.first_id, mine.answer)
            for each, mine in (wanted[number] for number in firsts.values())
        ]
        async with bounded(self._deadline_s):
            rows = await self._database.fetch_all(_RESERVE, tuple(map(list, zip(*columns, strict=True))))
        reserved = {firsts[key_hash] for (key_hash,) in rows}
        return [number in reserved for number in range(len(wanted))]

    def _pause(self, error: BaseException) -> None:
        now_s = self._clock.monotonic_s()
        is_news = now_s >= self._paused_until_s
        self._paused_until_s = now_s + self._pause_s
        if is_news:  # every request under way has the same trouble
            self._say(error)

    def _say(self, error: BaseException) -> None:
        log.warning(
            "keyed requests go on without reservation", error=str(error) or "no answer in time", seconds=self._pause_s
        )
