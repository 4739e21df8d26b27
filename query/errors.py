"""What query refuses a question for. Status codes are the edge's business (query/problems.py)."""

from __future__ import annotations

from schemas.errors import InvalidInput, LogfeedError, Overloaded


class InvalidParameter(InvalidInput):
    """A parameter of the question is not valid."""

    def __init__(self, parameter: str, message: str, *, column: int | None = None) -> None:
        """parameter: its name as sent; column: 1-based, where a position in the value is meant."""
        super().__init__(message)
        self.parameter = parameter
        self.column = column


class CursorError(InvalidInput):
    """The cursor is not one that this question can go on from: start again without it."""


class LogNotFound(LogfeedError):
    """There is no such log, or it may not be read."""


class TooManyScans(Overloaded):
    """Too many questions are being answered; try again shortly."""


class SnapshotBehind(Overloaded):
    """The database is behind what earlier pages of this walk have shown; try again shortly."""
