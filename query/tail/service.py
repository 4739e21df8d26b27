"""Tails as one part of query: follows the broker, counts who tails, opens sessions.

Starts when the broker is there; until then, and while the database has not given the secret of tokens, a tail is refused with
503. Once open, tails go on while the database is away.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager
from typing import Final

from msgspec import structs

from access.audit import AuditLog, Look
from access.errors import Forbidden
from access.principal import Principal
from broker.port import Broker
from live.follow import Follower
from live.keys import StoredKeys
from live.settings import LiveSettings
from query.errors import TailsFull, TooManyTails
from query.params import TailQuestion
from query.patterns import PatternTexts
from query.tail import metrics
from query.tail.hub import Hub
from query.tail.session import Recheck, TailSession
from query.tail.settings import TailSettings
from query.tail.tickets import Tickets
from query.tail.token import TailSeal
from runtime.clock import Clock
from runtime.stopping import Stop
from schemas.errors import BrokerUnavailable

GROUP: Final = "logfeed-tail"
"""Names the readers to the broker."""
_STOP_S: Final = 2.0


class Tails:
    """The tails of one process."""

    def __init__(
        self,
        settings: TailSettings,
        live: LiveSettings,
        *,
        broker: Broker,
        stored_keys: StoredKeys,
        seal: Callable[[], Awaitable[TailSeal]],
        pattern_texts: PatternTexts,
        audit: AuditLog | None,
        clock: Clock,
        stop: Stop,
    ) -> None:
        """broker: opened before `start`. seal: raises Overloaded while it cannot be had. stop: ends every tail."""
        self.settings = settings
        self.clock = clock
        self.pattern_texts = pattern_texts
        self.tickets = Tickets(lives_s=settings.ticket_s)
        self._follower = Follower(broker, live, group=GROUP, stored_keys=stored_keys)
        self._hub = Hub(self._follower, settings)
        self._seal = seal
        self._audit = audit
        self._stop = stop
        self._following: asyncio.Task[None] | None = None
        self._open: Counter[str] = Counter()

    async def start(self) -> None:
        """Begin to follow."""
        if self._following is None:
            self._following = asyncio.create_task(self._follower.run(self._stop), name="tails")

    async def stop(self) -> None:
        """End every tail. Safe without a start, and twice."""
        self._stop.set()
        following, self._following = self._following, None
        if following is not None:
            # A broker that is away may keep it for long, and there is nothing to save.
            await asyncio.wait({following}, timeout=_STOP_S)
            following.cancel()
            await asyncio.gather(following, return_exceptions=True)

    def check(self, principal: Principal) -> None:
        """Before anything is begun. Raises Forbidden, Overloaded."""
        if principal.may_tail.is_empty:
            raise Forbidden("you may not tail the logs of any service")
        if self._audit is not None:
            self._audit.check()
        if self._following is None or self._stop.is_set:
            raise BrokerUnavailable("tails are not there yet: the broker has not answered", retry_after_s=2)

    @asynccontextmanager
    async def session(
        self, question: TailQuestion, principal: Principal, recheck: Recheck, *, transport: str, where: Look
    ) -> AsyncIterator[TailSession]:
        """A tail. transport: for the metrics. where: what the audit log is told; its rows are logs that are shown before what
        comes.

        Raises CursorError, Forbidden, TooManyTails, Overloaded.
        """
        self.check(principal)
        seal = await self._seal()
        begins = None
        if question.token is not None:
            begins = seal.open(question.token, subject=principal.subject, question=question.canonical)
        with self._counted(principal.subject):
            session = TailSession(
                question,
                principal,
                begins,
                recheck=recheck,
                seal=seal,
                hub=self._hub,
                follower=self._follower,
                settings=self.settings,
                clock=self.clock,
                stop=self._stop,
            )
            metrics.TAILS.labels(transport).inc()
            self._note(principal, where, "begin", where.rows)
            try:
                yield session
            finally:
                metrics.TAILS.labels(transport).dec()
                self._note(principal, where, "end", where.rows + session.logs_sent)

    @contextmanager
    def _counted(self, subject: str) -> Iterator[None]:
        if self._open.total() >= self.settings.tails_max:
            metrics.REFUSED.labels("process").inc()
            raise TailsFull(retry_after_s=5)
        if self._open[subject] >= self.settings.subject_tails_max:
            metrics.REFUSED.labels("subject").inc()
            raise TooManyTails(
                f"you have {self._open[subject]} tails open, as many as you may: close one", retry_after_s=5
            )
        self._open[subject] += 1
        try:
            yield
        finally:
            self._open[subject] -= 1
            if not self._open[subject]:
                del self._open[subject]

    def _note(self, principal: Principal, where: Look, phase: str, logs: int) -> None:
        if self._audit is not None:
            self._audit.note(principal, structs.replace(where, phase=phase, rows=logs))
