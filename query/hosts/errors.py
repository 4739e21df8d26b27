"""What is refused, or fails, of hosts and their files. Status codes are the edge's business (query/problems.py)."""

from __future__ import annotations

from schemas.errors import LogfeedError, Overloaded


class HostNotFound(LogfeedError):
    """There is no such host."""


class HostFileNotFound(LogfeedError):
    """There is no such file, or it may not be read."""


class HostUnreachable(LogfeedError):
    """The host's agent cannot be reached, or does not answer as an agent does."""


class HostSlow(LogfeedError):
    """The host's agent does not answer in time."""


class HostAway(Overloaded):
    """The host is not heard of."""


class HostBusy(Overloaded):
    """The host's agent does as much as it may; try again shortly."""


class TooManyHostReads(Overloaded):
    """As many of your questions to hosts are under way as may be; wait for one to end."""


class HostReadsFull(Overloaded):
    """As many questions to hosts are under way here as there may be; try again shortly."""
