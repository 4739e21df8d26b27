"""The one root of our errors. They know nothing of HTTP: each edge owns its table from class to status.

`retriable` is a fact of the class: the same call may succeed later without anybody changing anything.
"""

from __future__ import annotations

from typing import ClassVar


class LogfeedError(Exception):
    """Something went wrong in Logfeed."""

    retriable: ClassVar[bool] = False

    def __init__(self, message: str | None = None) -> None:
        """message: for people; the class's docstring when left out."""
        super().__init__(message or (self.__doc__ or type(self).__name__).strip().splitlines()[0])


class InvalidInput(LogfeedError):
    """The input is not valid."""


class Overloaded(LogfeedError):
    """Too much is under way; try again shortly."""

    retriable = True

    def __init__(self, message: str | None = None, *, retry_after_s: int = 1) -> None:
        """retry_after_s: whole seconds after which a retry makes sense."""
        super().__init__(message)
        self.retry_after_s = retry_after_s


class TooManyQuestions(Overloaded):
    """You ask too many questions at once; wait for the answers to some of them."""


class BrokerUnavailable(Overloaded):
    """The broker does not take records now; try again shortly."""


class RecordNotSent(BrokerUnavailable):
    """The broker does not take records now, and this one was certainly not sent."""


class PartitionUnavailable(RecordNotSent):
    """The record's partition has no leader now while others have theirs; it was certainly not sent."""


class RecordTooLarge(LogfeedError):
    """The record is larger than the broker takes."""


class OffsetOutOfRange(LogfeedError):
    """The broker no longer has, or never had, the offset asked for."""

    def __init__(self, *, partition: int, wanted: int, first: int, end: int) -> None:
        """first, end: the offsets the broker has are first..end-1."""
        super().__init__(f"partition {partition}: offset {wanted} was asked for, the broker has {first}..{end - 1}")
        self.partition, self.wanted, self.first, self.end = partition, wanted, first, end


class DatabaseUnavailable(Overloaded):
    """The database does not answer now; try again shortly."""


class ConfigurationError(LogfeedError):
    """The configuration is not usable."""
