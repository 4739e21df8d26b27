"""What asking raises. Sending raises nothing: see `logfeed_client.sending`."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, ClassVar, Final

_TEXT_CHARS_MAX: Final = 500


class LogfeedError(Exception):
    """Base of what this package raises when it asks."""


class Unreachable(LogfeedError):
    """The server does not answer, or has said "later" for as long as the client is patient. The cause is kept."""


class NotLogfeed(LogfeedError):
    """The answer is none of Logfeed's: is the address right, and is no other program before it?"""


class ProblemError(LogfeedError):
    """The server refuses, and asking the same again would not help. Carries the problem document (RFC 9457)."""

    statuses: ClassVar[tuple[int, ...]] = ()

    def __init__(self, status: int, document: Mapping[str, Any]) -> None:
        """status: of HTTP. document: of values of JSON; empty where the answer was none."""
        self.status = status
        self.document = document
        self.type = str(document.get("type", "about:blank"))
        """Names the kind of problem; stable."""
        self.title = str(document.get("title", ""))
        self.detail = str(document.get("detail", ""))
        """What happened, what was expected, what to do."""
        super().__init__(f"{status}: {self.detail or self.title or 'the server refuses'}"[:_TEXT_CHARS_MAX])

    @property
    def errors(self) -> list[Mapping[str, Any]]:
        """The parameters that are not valid: `field`, `message`, sometimes `column`."""
        found = self.document.get("errors")
        return [each for each in found if isinstance(each, dict)] if isinstance(found, list) else []


class InvalidQuestion(ProblemError):
    """400, 422: a parameter, the query or a cursor is not valid; see `errors`."""

    statuses = (400, 422)


class Unauthenticated(ProblemError):
    """401: the key is missing, not known, expired or revoked."""

    statuses = (401,)


class Forbidden(ProblemError):
    """403: the key may not do this."""

    statuses = (403,)


class NotFound(ProblemError):
    """404: there is no such log, or you may not read it."""

    statuses = (404,)


_KINDS: Final[dict[int, type[ProblemError]]] = {
    status: kind for kind in (InvalidQuestion, Unauthenticated, Forbidden, NotFound) for status in kind.statuses
}


def problem_of(status: int, body: bytes) -> ProblemError:
    """Of any answer that refuses. Raises nothing."""
    try:
        document = json.loads(body)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        document = {"detail": body[:_TEXT_CHARS_MAX].decode("utf-8", "replace")}
    return _KINDS.get(status, ProblemError)(status, document)
