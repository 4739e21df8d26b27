"""Worker numbers of the id generator, leased in the database: two processes never share one.

A lease lasts an hour by the database's clock and is renewed each minute. The process itself stops giving out ids 55
minutes after it last asked for the lease and got it, by its monotonic clock, and never passes `reserved_until_ms`: so
ids are over before the lease is, with the database away as well. A number is free again when its lease ran out and its
reserved milliseconds lie in the past for the database and for whoever takes it; the last millisecond used is kept.

A machine whose clock differs from the database's by more than five minutes gets no ids: they would sort wrongly, and
a lease is only as good as the clocks that measure it. Each request refused for a clock is counted, `problem` shows it
before the first one comes, and the log tells it once a minute: somebody has to correct that clock.

A replica that is promoted may be behind the primary that failed, and not know who took a number last. So numbers are taken
from a quarter that the timeline of the WAL names: the next timeline's is left alone, and in the first hour of a timeline, when
processes of before may still have numbers that it does not know, none but its own is given out. A database that loses less
than five minutes so never lets two processes have one number: leases outlive ids by that.

One task calls `keep`; `take` is called from the same event loop. `keep` ends with the stop only: whatever is missing or
fails is told by `problem` and tried again, for a process that ends is only started again into the same trouble.
"""

from __future__ import annotations

import uuid
from typing import Final

import structlog
from prometheus_client import Counter

from db.database import Database
from db.replication import TIMELINE
from idgen.snowflake import ClockMovedBack, LeaseEnded, Snowflake
from runtime.clock import Clock
from runtime.stopping import Stop
from runtime.telemetry import REGISTRY
from schemas.errors import DatabaseUnavailable, LogfeedError, Overloaded
from schemas.ids import WORKERS

log = structlog.get_logger(__name__)

LEASE_S: Final = 3600
RENEW_S: Final = 60
STOP_AFTER_S: Final = 55 * 60
"""Seconds without a renewal after which no id is given out; less than LEASE_S by more than any request takes."""
RETRY_S: Final = 2
"""Seconds between attempts while no id can be given out."""
SKEW_MS_MAX: Final = 5 * 60 * 1000
"""Largest difference to the database's clock."""
ALARM_EVERY_S: Final = 60
"""Seconds between two log lines about refusals for the clock, and between two about the same trouble with the lease."""
CLOCK_REFUSALS: Final = Counter(
    "logfeed_clock_refusals", "Requests that got no ids because the clock stepped or is wrong.", registry=REGISTRY
)

_CLOCK: Final = "SELECT (extract(epoch FROM clock_timestamp()) * 1000)::bigint"
_LOCK: Final = "LOCK TABLE worker_ids IN SHARE ROW EXCLUSIVE MODE"
# A database's first timeline has none before it. `quarter`: 0 is the timeline's own, 1 that of the next one.
_NOTE_TIMELINE: Final = f"""
INSERT INTO timelines (timeline, seen_at)
SELECT {TIMELINE}, CASE WHEN {TIMELINE} = 1 THEN '-infinity' ELSE clock_timestamp() END ON CONFLICT DO NOTHING
"""
_TAKE: Final = f"""
WITH current AS (
    SELECT timeline, seen_at > clock_timestamp() - make_interval(secs => %s) AS is_young
    FROM timelines WHERE timeline = {TIMELINE}
), candidate AS (
    SELECT number AS worker, held.reserved_until_ms AS last_ms
    FROM current, generate_series(%s::integer, %s::integer) AS number
    CROSS JOIN LATERAL (SELECT (least(3, (number - %s) / %s) + 4 - (timeline - 1) %% 4) %% 4 AS quarter) AS place
    LEFT JOIN worker_ids AS held ON held.worker = number
    WHERE (quarter = 0 OR (quarter > 1 AND NOT is_young))
      AND (held.worker IS NULL
           OR (held.lease_until < clock_timestamp()
               AND held.reserved_until_ms < least((extract(epoch FROM clock_timestamp()) * 1000)::bigint, %s)))
    ORDER BY quarter, number
    LIMIT 1
), taken AS (
    INSERT INTO worker_ids AS w (worker, owner, lease_until, reserved_until_ms)
    SELECT worker, %s, clock_timestamp() + make_interval(secs => %s),
           (extract(epoch FROM clock_timestamp()) * 1000)::bigint + %s
    FROM candidate
    ON CONFLICT (worker) DO UPDATE
    SET owner = excluded.owner, lease_until = excluded.lease_until, reserved_until_ms = excluded.reserved_until_ms
    RETURNING w.worker, w.reserved_until_ms
)
SELECT taken.worker, candidate.last_ms, taken.reserved_until_ms FROM taken JOIN candidate USING (worker)
"""
_RENEW: Final = """
UPDATE worker_ids
SET lease_until = clock_timestamp() + make_interval(secs => %s),
    reserved_until_ms = greatest(reserved_until_ms, (extract(epoch FROM clock_timestamp()) * 1000)::bigint + %s)
WHERE worker = %s AND owner = %s AND lease_until > clock_timestamp()
RETURNING reserved_until_ms, (extract(epoch FROM clock_timestamp()) * 1000)::bigint
"""
_RELEASE: Final = """
UPDATE worker_ids SET lease_until = clock_timestamp(), reserved_until_ms = %s WHERE worker = %s AND owner = %s
"""


class ClockSkewed(LogfeedError):
    """This machine's clock and the database's clock differ too much."""


class NoWorkerIdFree(Overloaded):
    """All worker numbers that may be given out now are leased; one becomes free an hour after its holder died."""


class WorkerIdLease:
    """The right of this process to give out ids, and the ids."""

    def __init__(self, database: Database, *, instance: str, clock: Clock, numbers: range = range(WORKERS)) -> None:
        """instance: name shown in the table; a random part is added, so that two processes of one name stay two. numbers: that
        may be taken, four at least; those of other databases whose logs are read together must be others."""
        self._numbers = numbers
        self._database = database
        self._clock = clock
        self.owner = f"{instance}/{uuid.uuid4().hex}"
        self._ids: Snowflake | None = None
        self._stop_at_s = 0.0
        self._problem = "no worker number was taken yet"
        self._skewed = False
        self._alarm_at_s = float("-inf")
        self._told: tuple[type[Exception] | None, float] = (None, 0.0)
        """Trouble with the lease that was logged last, and when."""

    @property
    def worker(self) -> int | None:
        """The number held, None without one."""
        return None if self._ids is None else self._ids.worker

    @property
    def problem(self) -> str | None:
        """Why `take` would refuse now; None when it would not for the sake of the lease or the clock."""
        lost = self._lost()
        if self._ids is None or lost is not None:
            return lost
        try:
            self._ids.check_clock(self._now_ms())
        except (ClockMovedBack, LeaseEnded) as error:
            return str(error)
        return None

    def _lost(self) -> str | None:
        if self._ids is None:
            return self._problem
        if self._clock.monotonic_s() >= self._stop_at_s:
            return f"the lease of worker number {self._ids.worker} was not renewed for {STOP_AFTER_S // 60} minutes"
        return None

    def take(self, count: int) -> list[int]:
        """`count` ids for one request. Raises IdsUnavailable (its subclasses say why); nothing was given out then."""
        lost = self._lost()
        if self._ids is None or lost is not None:
            if self._skewed:
                self._alarm(lost)
            raise LeaseEnded(f"no ids: {lost}", retry_after_s=RETRY_S)
        try:
            return self._ids.take(count, self._now_ms())
        except (ClockMovedBack, LeaseEnded) as error:
            self._alarm(str(error))
            raise

    async def acquire(self) -> None:
        """Take the first free number. Raises DatabaseUnavailable, ClockSkewed, NoWorkerIdFree."""
        asked_at_s = self._clock.monotonic_s()
        async with self._database.transaction() as connection:
            row = await (await connection.execute(_CLOCK)).fetchone()
            now_ms = self._now_ms()
            if row is not None:
                self._check_skew(now_ms, row[0])
            await connection.execute(_LOCK)
            await connection.execute(_NOTE_TIMELINE)
            first, count = self._numbers.start, len(self._numbers)
            place = (first, first + count - 1, first, count // 4)
            parameters = (LEASE_S, *place, now_ms, self.owner, LEASE_S, LEASE_S * 1000)
            taken = await (await connection.execute(_TAKE, parameters)).fetchone()
        if taken is None:
            raise NoWorkerIdFree(retry_after_s=RENEW_S)
        worker, last_ms, reserved_until_ms = taken
        self._ids = Snowflake(worker=worker, last_ms=last_ms or 0, reserved_until_ms=reserved_until_ms)
        self._stop_at_s = asked_at_s + STOP_AFTER_S
        log.info("worker number leased", worker=worker)

    async def renew(self) -> bool:
        """Extend the lease; False when it is lost (no id is given out any more, `acquire` again).

        Raises DatabaseUnavailable (the lease goes on until its end) and ClockSkewed (the number is given up).
        """
        ids = self._ids
        if ids is None:
            return False
        asked_at_s = self._clock.monotonic_s()
        row = await self._database.fetch_one(_RENEW, (LEASE_S, LEASE_S * 1000, ids.worker, self.owner))
        if row is None:
            self._drop(f"the lease of worker number {ids.worker} was lost")
            return False
        reserved_until_ms, database_ms = row
        try:
            self._check_skew(self._now_ms(), database_ms)
        except ClockSkewed as error:
            self._drop(str(error))
            raise
        ids.extend(reserved_until_ms)
        self._stop_at_s = asked_at_s + STOP_AFTER_S
        return True

    async def keep(self, stop: Stop) -> None:
        """Take a number and renew it each minute until the stop; a lost one is replaced by another."""
        while not stop.is_set:
            await self._renew_or_replace()
            await stop.wait(RENEW_S if self.problem is None else RETRY_S)

    async def release(self) -> None:
        """Give the number back with the last millisecond used (clean stop). Harmless without one or without database."""
        ids = self._ids
        if ids is None:
            return
        self._drop("the worker number was given back")
        try:
            await self._database.execute(_RELEASE, (ids.last_ms, ids.worker, self.owner))
        except DatabaseUnavailable as error:
            log.warning(
                "worker number not given back, it stays leased for an hour", worker=ids.worker, error=str(error)
            )

    async def _renew_or_replace(self) -> None:
        try:
            if not await self.renew():
                await self.acquire()
        except (
            Exception
        ) as error:  # also what nobody expects: ids go on until the lease ends, and then say why they stopped
            self._note(error)
        else:
            self._told = (None, 0.0)

    def _note(self, error: Exception) -> None:
        is_expected = isinstance(error, (DatabaseUnavailable, ClockSkewed, NoWorkerIdFree))
        if self._ids is None:
            self._problem = str(error) if is_expected else repr(error)
            self._skewed = isinstance(error, ClockSkewed)
        now_s = self._clock.monotonic_s()
        told, told_s = self._told
        if told is type(error) and now_s < told_s + ALARM_EVERY_S:
            return
        self._told = (type(error), now_s)
        if isinstance(error, DatabaseUnavailable):
            log.warning("worker number not renewed", error=str(error), problem=self.problem)
        elif is_expected:
            log.error("no ids", error=str(error))
        else:
            log.error("worker number not renewed", exc_info=error, problem=self.problem)

    def _drop(self, why: str) -> None:
        self._ids = None
        self._problem = why

    def _now_ms(self) -> int:
        return self._clock.now_us() // 1000

    def _alarm(self, why: str | None) -> None:
        CLOCK_REFUSALS.inc()
        now_s = self._clock.monotonic_s()
        if now_s >= self._alarm_at_s:
            self._alarm_at_s = now_s + ALARM_EVERY_S
            log.error("no ids because of the clock", error=why)

    def _check_skew(self, local_ms: int, database_ms: int) -> None:
        skew_ms = local_ms - database_ms
        self._skewed = abs(skew_ms) > SKEW_MS_MAX
        if self._skewed:
            side = "ahead of" if skew_ms > 0 else "behind"
            raise ClockSkewed(
                f"this machine's clock is {abs(skew_ms) / 1000:.0f} s {side} the database's, at most "
                f"{SKEW_MS_MAX // 1000} s are tolerated: correct the clock (NTP)"
            )
