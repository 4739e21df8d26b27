"""The bytes of all requests under way, bounded together (INV-4). One event loop, no locks."""

from __future__ import annotations

from types import TracebackType

from ingest import metrics
from schemas.errors import Overloaded


class InFlight:
    """A budget of bytes."""

    def __init__(self, bytes_max: int) -> None:
        """bytes_max: of all holds together."""
        self._bytes_max = bytes_max
        self.bytes = 0

    def hold(self) -> Hold:
        """A share, empty at first. Whoever opened it, or the task it was handed to, closes it."""
        return Hold(self)

    def add(self, count: int) -> None:
        """Raises Overloaded past the limit; nothing was added then."""
        if self.bytes + count > self._bytes_max:
            raise Overloaded(f"{self.bytes} bytes of requests are under way, at most {self._bytes_max} are held")
        self._set(self.bytes + count)

    def give_back(self, count: int) -> None:
        """The reverse of `add`."""
        self._set(self.bytes - count)

    def _set(self, count: int) -> None:
        self.bytes = count
        metrics.BYTES_IN_FLIGHT.set(count)


class Hold:
    """One request's share of the budget; closing gives all of it back, once."""

    def __init__(self, budget: InFlight) -> None:
        """Made by `InFlight.hold`."""
        self._budget = budget
        self._bytes = 0

    def grow(self, count: int) -> None:
        """Hold so many bytes more. Raises Overloaded."""
        self._budget.add(count)
        self._bytes += count

    def close(self) -> None:
        """Give everything back. Harmless when repeated."""
        self._budget.give_back(self._bytes)
        self._bytes = 0

    def __enter__(self) -> Hold:
        """Closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()
