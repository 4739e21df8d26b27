"""What the agent refuses; the edge (`api.py`) knows which status that is."""

from __future__ import annotations

from schemas.errors import InvalidInput, LogfeedError, Overloaded


class NoSuchFile(LogfeedError):
    """There is no such file, or it may not be read."""


class ReadersFull(Overloaded):
    """As many files are being read as may be; try again shortly."""


class QuestionInvalid(InvalidInput):
    """A parameter is not valid."""

    def __init__(self, parameter: str, problem: str) -> None:
        """problem: without the parameter's name."""
        super().__init__(f"{parameter}: {problem}")
        self.parameter, self.problem = parameter, problem


class ReadFailed(LogfeedError):
    """The file cannot be read on."""


class StateError(LogfeedError):
    """What the agent remembers cannot be read or written."""
