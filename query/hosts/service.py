"""Hosts: heard of by their agents' heartbeats, and asked for files by who may read them.

A read is passed through as it is taken: one piece is in memory, a slow reader slows the agent down, and when the reader goes
the agent's answer is ended. It always ends with a record that says how: the agent's own, or, where its answer was cut, is too
long, takes too long, or the reader may no longer, one of ours. Rights are looked at again every `hosts.check_s`.

A host of whose services somebody may read none is not there for them: whether it is up is not theirs to know.

At most `streams_max` questions of one process to agents, `subject_streams_max` of a subject; heartbeats take _BEATS_AT_ONCE
connections to the database, shared as turns are, a list takes a place among questions. One event loop, no locks.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass
from typing import Final

import httpx
import msgspec
import orjson
import structlog

from access.audit import AuditLog, Look
from access.errors import AccessUnknown, Forbidden, Unauthenticated
from access.principal import Current, Principal
from query.hosts import metrics
from query.hosts.addresses import read_address
from query.hosts.agents import Agents, Asked, Caller
from query.hosts.errors import HostAway, HostNotFound, HostReadsFull, HostUnreachable, TooManyHostReads
from query.hosts.records import AnswerFaulty, End, EndStatus, Form, Records, read_files, scope_json
from query.hosts.settings import HostSettings
from query.listing import ListPlace, ListSeal, Secret
from query.patterns import Place
from runtime.clock import Clock
from runtime.stopping import Stop
from runtime.turns import Turns
from schemas.hosts import AWAY_S, HEARTBEAT_S, HostHeartbeat, HostStatus, is_host_name
from schemas.scope import ServiceScope
from schemas.times import time_text
from search.params import ParameterError
from store.hosts import Heartbeat, Host, HostStore

log = structlog.get_logger(__name__)

_LIST: Final = "hosts"
_BEATS_AT_ONCE: Final = 3
_BEATS_WAITING_MAX: Final = 300
_BEAT_WAIT_S: Final = float(HEARTBEAT_S)
_GRACE_S: Final = 5.0
"""For which an agent that was told how long it may take is waited for beyond that."""


@dataclass(frozen=True, slots=True)
class FileQuestion:
    """What is read of a file."""

    name: str
    asked: Asked
    """Parameters that go to the agent as they came."""
    form: Form
    seconds_max: float
    """After which it ends from here."""


class Hosts:
    """Of one process."""

    def __init__(
        self,
        settings: HostSettings,
        store: HostStore,
        agents: Agents,
        *,
        place: Place,
        secret: Secret,
        current: Current,
        clock: Clock,
        audit: AuditLog | None,
        stop: Stop,
    ) -> None:
        """agents: closed by the caller. place: of a question. secret: of cursors; raises Overloaded while it cannot be had.
        current: what a subject may now. stop: ends all reads."""
        self.settings = settings
        self._store = store
        self._agents = agents
        self._place = place
        self._secret = secret
        self._current = current
        self._clock = clock
        self._audit = audit
        self._stop = stop
        self._open: Counter[str] = Counter()
        self._beats = Turns(at_once=_BEATS_AT_ONCE, waiting_max=_BEATS_WAITING_MAX, wait_s=_BEAT_WAIT_S)

    async def beat(self, name: str, said: HostHeartbeat, principal: Principal) -> bytes:
        """The answer to a heartbeat, as JSON. Raises Forbidden, ParameterError, HostTaken, TooManyHosts, Overloaded."""
        _check_name(name)
        if not principal.may_host.permits(name):
            raise Forbidden(f"this key may not register host {name}: `logfeed keys create … --host {name}` makes one")
        address = read_address(said.address, self._agents.networks)
        heartbeat = Heartbeat(address, said.token, said.version, sorted(set(said.services)))
        async with self._beats.turn(principal.subject):
            now_us = await self._store.beat(name, principal.subject, heartbeat)
        return orjson.dumps({"host": name, "heartbeat_s": HEARTBEAT_S, "server_time": time_text(now_us)})

    async def find(self, principal: Principal, *, cursor: str | None, limit: int) -> tuple[bytes, int]:
        """Hosts as JSON, and how many. Raises CursorError, TooManyQuestions, Overloaded."""
        seal = ListSeal(await self._secret(), of=_LIST)
        after = "" if cursor is None else seal.open(cursor, subject=principal.subject, question=_LIST).id
        async with self._place(principal):
            found = await self._store.find(allowed=principal.may_read, after=after, limit=limit + 1)
        shown, following = found[:limit], None
        if len(found) > limit:
            following = seal.seal(ListPlace(0, shown[-1].name), subject=principal.subject, question=_LIST)
        hosts = [_host_json(host, principal) for host in shown]
        return orjson.dumps({"hosts": hosts, "next_cursor": following}), len(shown)

    async def forget(self, name: str, principal: Principal) -> bool:
        """Free a host's name; whether there was one. Harmless when repeated. Raises Forbidden, Overloaded."""
        if not principal.may_admin.everything:
            raise Forbidden("you lack the permission admin on all services")
        _check_name(name)
        is_gone = await self._store.forget(name)
        if is_gone:
            log.info("a host was forgotten", host=name, by=principal.subject)
        return is_gone

    async def files(self, name: str, asked: Asked, principal: Principal, traceparent: str) -> tuple[bytes, int]:
        """Files of a host that may be read, as JSON, and how many. Raises HostNotFound and what Agents raises."""
        with self._counted(principal.subject):
            allowed = principal.may_read
            host = await self._known(name, allowed)
            question = [*asked, ("scope", scope_json(allowed, host.services))]
            body = await self._agents.list_files(host, question, Caller(principal.subject, traceparent))
            try:
                found = read_files(body, allowed)
            except AnswerFaulty as error:
                log.warning("an agent does not answer as one", host=name, what=str(error))
                raise HostUnreachable(f"the agent of host {name} answers what cannot be read") from error
        return msgspec.json.encode(found), len(found.files)

    @asynccontextmanager
    async def reading(
        self, name: str, question: FileQuestion, principal: Principal, traceparent: str, where: Look
    ) -> AsyncIterator[FileRead]:
        """A read whose answer has begun. where: what the audit log is told, but for the number of lines. Raises HostNotFound,
        TooManyHostReads, HostReadsFull and what Agents raises."""
        with self._counted(principal.subject):
            host = await self._known(name, principal.may_read)
            scope = ("scope", scope_json(principal.may_read, host.services))
            caller = Caller(principal.subject, traceparent)
            async with self._agents.reading(host, question.name, [*question.asked, scope], caller) as pieces:
                read = FileRead(
                    host, question, principal, self.settings, pieces, self._current, self._clock, self._stop
                )
                self._note(principal, where, "begin", 0)
                try:
                    yield read
                finally:
                    metrics.ENDED.labels(status=read.end.status if read.end else "left").inc()
                    self._note(principal, where, "end", read.lines)

    async def _known(self, name: str, allowed: ServiceScope) -> Host:
        """The host, which is up and has files of a service that may be read."""
        host = await self._store.one(name) if is_host_name(name) else None
        if host is None or not (allowed.everything or any(map(allowed.permits, host.services))):
            raise HostNotFound(f"there is no host {name[:100]!r}, or you may read nothing there")
        if host.silent_s > AWAY_S:
            raise HostAway(
                f"host {name} has not been heard of for {host.silent_s:.0f} s: does its agent run, and reach this server?",
                retry_after_s=HEARTBEAT_S,
            )
        return host

    @contextmanager
    def _counted(self, subject: str) -> Iterator[None]:
        if self._open[subject] >= self.settings.subject_streams_max:
            metrics.REFUSED.labels(reason="subject").inc()
            raise TooManyHostReads(
                f"{self._open[subject]} of your questions to hosts are under way, as many as may be: wait for one to end",
                retry_after_s=5,
            )
        if self._open.total() >= self.settings.streams_max:
            metrics.REFUSED.labels(reason="process").inc()
            raise HostReadsFull(retry_after_s=5)
        self._open[subject] += 1
        metrics.ASKED.inc()
        try:
            yield
        finally:
            metrics.ASKED.dec()
            self._open[subject] -= 1
            if not self._open[subject]:
                del self._open[subject]

    def _note(self, principal: Principal, where: Look, phase: str, rows: int) -> None:
        if self._audit is not None:
            self._audit.note(principal, msgspec.structs.replace(where, phase=phase, rows=rows))


class FileRead:
    """One read."""

    def __init__(
        self,
        host: Host,
        question: FileQuestion,
        principal: Principal,
        settings: HostSettings,
        pieces: AsyncIterator[bytes],
        current: Current,
        clock: Clock,
        stop: Stop,
    ) -> None:
        """See Hosts. pieces: of the agent's answer."""
        self.question = question
        self.end: End | None = None
        """How it ended; None while it goes on, or when the reader has left."""
        self._host = host
        self._principal = principal
        self._settings = settings
        self._from_agent = pieces
        self._current = current
        self._clock = clock
        self._stop = stop
        self._records = Records(question.form)
        self._bytes = 0

    @property
    def lines(self) -> int:
        """That were handed out."""
        return self._records.lines

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """What the reader is sent, none of it empty; the last piece is the end's record. Close it (`contextlib.aclosing`)."""
        deadline_s = self._clock.monotonic_s() + self.question.seconds_max + _GRACE_S
        coming: asyncio.Future[bytes] | None = None
        try:
            while self.end is None:
                coming = coming or asyncio.ensure_future(anext(self._from_agent))
                left_s = max(0.0, deadline_s - self._clock.monotonic_s())
                await asyncio.wait({coming}, timeout=min(self._settings.check_s, left_s))
                self.end = self._ended(deadline_s)
                if self.end is None and coming.done():
                    text = self._taken(coming)
                    coming = None
                    if text:
                        yield text
        finally:
            if coming is not None:
                coming.cancel()
                await asyncio.gather(coming, return_exceptions=True)
        yield self.end.written(self.question.form)

    def _taken(self, coming: asyncio.Future[bytes]) -> bytes:
        """What is sent of the piece that came; sets the end where there is one."""
        text = b""
        try:
            piece = coming.result()
            text = self._records.feed(piece)
        except StopAsyncIteration:
            self.end = self._own(EndStatus.ERROR, "the agent's answer was cut")
        except (httpx.HTTPError, AnswerFaulty) as error:
            log.warning("an agent's answer was cut", host=self._host.name, error=str(error)[:200])
            self.end = self._own(EndStatus.ERROR, "the agent's answer was cut")
        else:
            self._bytes += len(piece)
            metrics.BYTES.inc(len(text))
            if self._records.end is not None:
                self.end = self._records.end
            elif self._bytes > self._settings.answer_bytes_max:
                most = self._settings.answer_bytes_max
                self.end = self._own(EndStatus.LIMIT, f"more than {most} bytes (hosts.answer_bytes_max)")
        return text

    def _ended(self, deadline_s: float) -> End | None:
        """Why it ends from here, if it does."""
        if self._stop.is_set:
            return self._own(EndStatus.ERROR, "the server is stopping")
        if self._clock.monotonic_s() >= deadline_s:
            return self._own(EndStatus.DEADLINE, None)
        try:
            now = self._current(self._principal)
        except Unauthenticated:
            return self._own(
                EndStatus.ERROR, "your key was revoked or has expired, your session ended, or you are disabled"
            )
        except AccessUnknown as error:
            return self._own(EndStatus.ERROR, str(error))
        if now.may_read != self._principal.may_read:
            return self._own(EndStatus.ERROR, "what you may read has changed")
        return None

    def _own(self, status: EndStatus, error: str | None) -> End:
        return End(status, self._records.lines, None, error)


def _check_name(name: str) -> None:
    if not is_host_name(name):
        raise ParameterError(
            "host", f"expected 1..100 letters, digits and . _ -, a letter or digit first, got {name[:120]!r}"
        )


def _host_json(host: Host, principal: Principal) -> dict[str, object]:
    """Neither where it is nor what opens it."""
    return {
        "host": host.name,
        "status": HostStatus.UP if host.silent_s <= AWAY_S else HostStatus.AWAY,
        "last_seen": time_text(host.seen_us),
        "version": host.version,
        "services": [service for service in host.services if principal.may_read.permits(service)],
    }
