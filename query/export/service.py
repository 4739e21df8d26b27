"""Exports: a walk of pages inside the server, within the bounds of their first page, as they would be asked for along cursors.

A page is asked for when the one before it has been taken by the client: one page is in memory (INV-4), and a slow reader holds
no place of the database. Between pages an export has nothing open, so that its time has no bound; what a page may fail of for a
while (a busy database, a file on its way) is tried again with patience. Each page asks what its subject may now: a right that
has gone ends the export. What cannot be completed is never ended as if it were (api.py).

At most `exports_max` of one process, `exports_per_subject_max` of a subject. One event loop, no locks.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import msgspec
import structlog

from access.audit import AuditLog, Look
from access.errors import Forbidden
from access.principal import Current, Principal
from query import metrics
from query.answers import Answers
from query.cursor import Cursor
from query.errors import ExportsFull, TooManyExports
from query.page import Page, Question
from query.settings import QuerySettings
from runtime.clock import Clock
from runtime.stopping import Stop
from schemas.errors import Overloaded
from schemas.export_lines import csv_header, csv_records, ndjson, page_log
from schemas.record import Log

log = structlog.get_logger(__name__)

_RETRY_S_MAX: Final = 5.0


class Format(StrEnum):
    """What is written."""

    NDJSON = "ndjson"
    CSV = "csv"

    @property
    def media_type(self) -> str:
        """With its charset."""
        return "application/x-ndjson" if self is Format.NDJSON else "text/csv; charset=utf-8; header=present"

    @property
    def head(self) -> bytes:
        """What stands before the first log."""
        return b"" if self is Format.NDJSON else csv_header()

    def lines(self, logs: list[Log]) -> bytes:
        """The logs as text."""
        write = ndjson if self is Format.NDJSON else csv_records
        return write([page_log(each) for each in logs])


@dataclass(frozen=True, slots=True)
class ExportQuestion:
    """What is exported, and how."""

    question: Question
    """Its limit is that of the pages it is read in; it has no token."""
    format: Format
    subject: str | None
    """What the file's name tells: the one service asked for. None: several, or none named."""


class Exports:
    """Of one process."""

    def __init__(
        self,
        settings: QuerySettings,
        answers: Answers,
        *,
        current: Current,
        clock: Clock,
        audit: AuditLog | None,
        stop: Stop,
    ) -> None:
        """current: what a subject may now. stop: ends all of them."""
        self._settings = settings
        self._answers = answers
        self._current = current
        self._clock = clock
        self._audit = audit
        self._stop = stop
        self._open: Counter[str] = Counter()

    def check(self, principal: Principal) -> None:
        """Before anything is begun. Raises Forbidden, AuditFull."""
        if principal.may_export.is_empty:
            raise Forbidden("you may not export the logs of any service")
        if self._audit is not None:
            self._audit.check()

    @asynccontextmanager
    async def opened(self, asked: ExportQuestion, principal: Principal, where: Look) -> AsyncIterator[Export]:
        """An export whose first page is there. where: what the audit log is told, but for the number of logs. Raises
        TooManyExports, ExportsFull, and what a page raises."""
        with self._counted(principal.subject):
            export = Export(asked, principal, self._settings, self._answers, self._current, self._clock, self._stop)
            await export.begin()
            self._note(principal, where, "begin", 0)
            try:
                yield export
            finally:
                outcome = "done" if export.is_done else "cut"
                metrics.EXPORTS_ENDED.labels(outcome=outcome).inc()
                self._note(principal, where, "end", export.rows)

    @contextmanager
    def _counted(self, subject: str) -> Iterator[None]:
        if self._open[subject] >= self._settings.exports_per_subject_max:
            raise TooManyExports(
                f"{self._open[subject]} of your exports are running, as many as one may have: wait for one to end",
                retry_after_s=5,
            )
        if self._open.total() >= self._settings.exports_max:
            raise ExportsFull(retry_after_s=5)
        self._open[subject] += 1
        metrics.EXPORTS_RUNNING.inc()
        try:
            yield
        finally:
            metrics.EXPORTS_RUNNING.dec()
            self._open[subject] -= 1
            if not self._open[subject]:
                del self._open[subject]

    def _note(self, principal: Principal, where: Look, phase: str, rows: int) -> None:
        if self._audit is not None:
            self._audit.note(principal, msgspec.structs.replace(where, phase=phase, rows=rows))


class Export:
    """One export."""

    def __init__(
        self,
        asked: ExportQuestion,
        principal: Principal,
        settings: QuerySettings,
        answers: Answers,
        current: Current,
        clock: Clock,
        stop: Stop,
    ) -> None:
        """See Exports."""
        self.asked = asked
        self.rows = 0
        """Logs that were handed out."""
        self.is_done = False
        """All of them were."""
        self._principal = principal
        self._patience_s = settings.export_patience_s
        self._answers = answers
        self._current = current
        self._clock = clock
        self._stop = stop
        self._page: Page | None = None

    async def begin(self) -> None:
        """Ask for the first page, once. Raises what a page raises."""
        self._page = await self._asked(None)

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The text, a page at a time, none of them empty. Raises Forbidden and Unauthenticated when rights have changed,
        Overloaded when the patience is over or the server stops, and what else a page raises."""
        assert self._page is not None, "it has begun"
        text = self.asked.format.head
        while True:
            following, more = self._taken()
            text += more
            if text:
                yield text
            if following is None:
                self.is_done = True
                return
            text = b""
            self._page = await self._patient(following)

    def _taken(self) -> tuple[Cursor | None, bytes]:
        """Where the page leads, and its text; the page itself is let go."""
        page, self._page = self._page, None
        assert page is not None, "it was asked for"
        self.rows += len(page.logs)
        metrics.LOGS_SHOWN.inc(len(page.logs))
        return page.next, self.asked.format.lines(page.logs)

    async def _patient(self, cursor: Cursor) -> Page:
        gives_up_s = self._clock.monotonic_s() + self._patience_s
        while True:
            if self._stop.is_set:
                raise Overloaded("the server is stopping")
            try:
                return await self._asked(cursor)
            except Overloaded as error:
                pause_s = min(float(error.retry_after_s), _RETRY_S_MAX)
                if self._clock.monotonic_s() + pause_s > gives_up_s:
                    raise
            await self._stop.wait(pause_s)

    async def _asked(self, cursor: Cursor | None) -> Page:
        now = self._current(self._principal)
        if now.may_export != self._principal.may_export:
            raise Forbidden("what you may export has changed")
        return await self._answers.walked(
            self.asked.question, cursor, self._principal, allowed=self._principal.may_export
        )
