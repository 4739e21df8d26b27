"""The bytes of all requests under way, bounded together (INV-4), and shared fairly among those who send them.

A subject may hold as much as it leaves free: alone half of the budget, two that send without end a third each, n of them
1/(n + 1) each. So whatever one does, or several, there is room for another's request. (Dynamic thresholds: Choudhury and Hahne,
IEEE/ACM Transactions on Networking 6(2), 1998.) Nothing is set aside for subjects that are not there, and nothing has to be
known of them but what they hold now. One event loop, no locks.
"""

from __future__ import annotations

from types import TracebackType

from ingest import metrics
from schemas.errors import Overloaded


class InFlight:
    """A budget of bytes."""

    def __init__(self, bytes_max: int) -> None:
        """bytes_max: of all holds together; one subject has half of it at most."""
        self._bytes_max = bytes_max
        self._by_subject: dict[str, int] = {}
        """Those that hold something."""
        self.bytes = 0

    def hold(self, subject: str) -> Hold:
        """A share of this subject, empty at first. Whoever opened it, or the task it was handed to, closes it."""
        return Hold(self, subject)

    def add(self, subject: str, count: int) -> None:
        """Raises Overloaded past what the subject may hold; nothing was added then."""
        held = self._by_subject.get(subject, 0) + count
        if held > self._bytes_max - self.bytes - count:
            metrics.IN_FLIGHT_REFUSALS.inc()
            raise Overloaded(
                f"{held - count} bytes of your requests are under way and {self.bytes} in all; at most {self._bytes_max} are"
                " held, and nobody may hold more than is left free"
            )
        self._by_subject[subject] = held
        self._set(self.bytes + count)

    def give_back(self, subject: str, count: int) -> None:
        """The reverse of `add`."""
        left = self._by_subject.get(subject, 0) - count
        if left:
            self._by_subject[subject] = left
        else:
            self._by_subject.pop(subject, None)
        self._set(self.bytes - count)

    def _set(self, count: int) -> None:
        self.bytes = count
        metrics.BYTES_IN_FLIGHT.set(count)


class Hold:
    """One request's share of the budget; closing gives all of it back, once."""

    def __init__(self, budget: InFlight, subject: str) -> None:
        """Made by `InFlight.hold`."""
        self._budget = budget
        self._subject = subject
        self._bytes = 0

    def grow(self, count: int) -> None:
        """Hold so many bytes more. Raises Overloaded."""
        self._budget.add(self._subject, count)
        self._bytes += count

    def close(self) -> None:
        """Give everything back. Harmless when repeated."""
        self._budget.give_back(self._subject, self._bytes)
        self._bytes = 0

    def __enter__(self) -> Hold:
        """Closed at the end of the block."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close."""
        self.close()
