"""Tickets: how a browser opens a WebSocket, for which it can send no `Authorization`.

Who may tail asks for one with their credentials and names it in the WebSocket's address. It opens one tail, within seconds,
of this process, with the credentials it was asked for with: these are looked at again while the tail runs. So what stands in
an address, and in some proxy's log, opens nothing any more. Bounded; in memory only.
"""

from __future__ import annotations

import hashlib
import secrets
from collections import Counter
from dataclasses import dataclass
from typing import Final

from starlette.requests import HTTPConnection

TICKETS_MAX: Final = 10_000
SUBJECT_TICKETS_MAX: Final = 50


@dataclass(frozen=True, slots=True)
class _Ticket:
    subject: str
    connection: HTTPConnection
    ends_s: float


class Tickets:
    """Those that were not used yet."""

    def __init__(self, *, lives_s: float) -> None:
        """lives_s: seconds for which one is good."""
        self._lives_s = lives_s
        self._tickets: dict[bytes, _Ticket] = {}
        """By SHA-256, oldest first."""
        self._of: Counter[str] = Counter()
        """How many each subject has."""

    def issue(self, subject: str, connection: HTTPConnection, *, now_s: float) -> str | None:
        """A ticket for who sent this request; None when too many wait to be used. now_s: monotonic."""
        self._expire(now_s)
        if len(self._tickets) >= TICKETS_MAX or self._of[subject] >= SUBJECT_TICKETS_MAX:
            return None
        text = secrets.token_urlsafe(32)
        self._of[subject] += 1
        self._tickets[_sha256(text)] = _Ticket(subject, _kept(connection), now_s + self._lives_s)
        return text

    def redeem(self, text: str, *, now_s: float) -> HTTPConnection | None:
        """The request that asked for the ticket, once; None when there is no such ticket any more."""
        self._expire(now_s)
        ticket = self._taken(_sha256(text))
        return None if ticket is None else ticket.connection

    def _expire(self, now_s: float) -> None:
        while self._tickets:
            oldest = next(iter(self._tickets))
            if self._tickets[oldest].ends_s > now_s:
                return
            self._taken(oldest)

    def _taken(self, of: bytes) -> _Ticket | None:
        ticket = self._tickets.pop(of, None)
        if ticket is not None:
            self._of[ticket.subject] -= 1
            if not self._of[ticket.subject]:
                del self._of[ticket.subject]
        return ticket


def _kept(connection: HTTPConnection) -> HTTPConnection:
    """What authentication needs of a request, without its body and its channel."""
    scope = connection.scope
    kept = {name: scope[name] for name in ("type", "scheme", "path", "headers", "client", "server") if name in scope}
    return HTTPConnection({**kept, "query_string": b""})


def _sha256(text: str) -> bytes:
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
