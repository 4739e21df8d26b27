"""What the audit log is told of alerting: who changed what, and who tried a rule on which logs.

What alerts show, three logs each, writes no entry: docs/access.md says why.
"""

from __future__ import annotations

from urllib.parse import quote

from fastapi import Request

from access.audit import AuditLog, Change, Look
from access.principal import Principal


class Written:
    """One process's."""

    def __init__(self, audit: AuditLog | None) -> None:
        """audit: None writes nothing down."""
        self._audit = audit

    def check(self) -> None:
        """Before anything is changed or tried. Raises AuditFull when it could not be written down."""
        if self._audit is not None:
            self._audit.check()

    def change(self, request: Request, principal: Principal, what: str, target: str) -> None:
        """what: behind who did it, for people. target: `rule:NAME`, `silence:ID`."""
        if self._audit is not None:
            self._audit.note_change(principal, Change(what, target, None, _path(request), _address(request)))

    def trial(self, request: Request, principal: Principal, logs: int) -> None:
        """logs: that the rule was held against."""
        if self._audit is not None:
            question = request.scope["query_string"].decode("latin-1")
            self._audit.note(principal, Look(_path(request), question, logs, 200, _address(request)))


def _path(request: Request) -> str:
    return quote(request.scope["path"])


def _address(request: Request) -> str:
    return request.client.host if request.client else ""
