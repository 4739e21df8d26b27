"""What query refuses a question for, beside its parameters (search.params.ParameterError).

Status codes are the edge's business (query/problems.py).
"""

from __future__ import annotations

from schemas.errors import InvalidInput, LogfeedError, Overloaded


class CursorError(InvalidInput):
    """The cursor is not one that this question can go on from: start again without it."""


class LogNotFound(LogfeedError):
    """There is no such log, or it may not be read."""


class PatternNotFound(LogfeedError):
    """There is no such pattern, or it may not be read."""


class ExperimentNotFound(LogfeedError):
    """There is no such experiment, or it may not be read."""


class ConnectionNotFound(LogfeedError):
    """There is no such connection, or it may not be read."""


class ExperimentConflict(InvalidInput):
    """The experiment is otherwise by now."""


class TooManyWatchers(Overloaded):
    """You have as many streams of changes open as you may: close one."""


class WatchersFull(Overloaded):
    """As many streams of changes are open here as there may be; try again shortly."""


class TooManyScans(Overloaded):
    """Too many questions are being answered; try again shortly."""


class TooManyTails(Overloaded):
    """You have as many tails open as you may: close one."""


class TailsFull(Overloaded):
    """As many tails are open here as there may be; try again shortly."""


class TooManyExports(Overloaded):
    """As many of your exports are running as one may have; wait for one to end."""


class ExportsFull(Overloaded):
    """As many exports are running here as there may be; try again shortly."""


class SnapshotBehind(Overloaded):
    """The database is behind what earlier pages of this walk have shown; try again shortly."""


class TopicNotFound(LogfeedError):
    """There is no such topic, or it may not be read."""


class TopicGone(LogfeedError):
    """Records behind this place are not there any more."""

    def __init__(self, message: str, *, reason: str, following: str) -> None:
        """reason: expired or remade. following: place to go on from."""
        super().__init__(message)
        self.reason = reason
        self.following = following


class TooManyTopicReads(Overloaded):
    """As many of your requests for records are open as there may be; wait for their answers."""


class TopicReadsFull(Overloaded):
    """As many requests for records are open here as there may be; try again shortly."""
