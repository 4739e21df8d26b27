"""What ingest refuses a request for. Status codes are the edge's business (ingest/problems.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import msgspec

from schemas.errors import InvalidInput, LogfeedError, Overloaded

REJECTED_SHOWN_MAX: Final = 100
"""Most rejected items that an answer lists; `rejected_count` has them all."""


class FieldError(msgspec.Struct, frozen=True):
    """One field of the input that is not valid; `message` is for people."""

    field: str
    message: str


class ItemError(msgspec.Struct, frozen=True):
    """One log that was not taken. `code`: short and fixed, for the ledger.

    service_name: '' when it cannot be read, or is not the principal's to write.
    """

    code: str
    errors: tuple[FieldError, ...]
    service_name: str = ""

    @property
    def text(self) -> str:
        """All problems in one line, for people."""
        return _text(self.errors)


def _text(errors: Sequence[FieldError]) -> str:
    return "; ".join(f"{error.field}: {error.message}" if error.field else error.message for error in errors)


class MalformedBody(InvalidInput):
    """The body cannot be read as JSON at all."""


class UnsupportedBody(LogfeedError):
    """The body's content type or encoding is not supported."""


class BodyTooLarge(LogfeedError):
    """The body is larger than one request may be, or holds more logs or services."""


class BodyTooSlow(LogfeedError):
    """The body did not arrive in time."""


class InvalidFields(InvalidInput):
    """Fields of the request are not valid."""

    def __init__(self, errors: Sequence[FieldError], message: str | None = None) -> None:
        """errors: at least one; message: for people, made from the errors when left out."""
        super().__init__(message or _text(errors))
        self.errors = tuple(errors)


class NothingAccepted(InvalidInput):
    """No log of the batch is valid."""

    def __init__(self, rejected: Sequence[tuple[int, ItemError]]) -> None:
        """rejected: (index, error) of every log."""
        super().__init__(f"none of the {len(rejected)} logs is valid; the first: {rejected[0][1].text}")
        self.rejected = tuple(rejected)


class NotPermitted(LogfeedError):
    """The token does not permit writing logs of this service."""


class KeyReused(InvalidInput):
    """The Idempotency-Key was used before with another body: send a new key with each new request."""


class RateLimited(Overloaded):
    """A rate limit refuses the request; try again later."""


class RetentionAtRisk(Overloaded):
    """What the writers have not stored yet is close to being deleted by the broker: no more is taken until they caught up."""


class ConnectionNotFound(LogfeedError):
    """There is no such connection: put it first."""


class TextConflict(InvalidInput):
    """Another text is stored: a text may only grow at its end."""
