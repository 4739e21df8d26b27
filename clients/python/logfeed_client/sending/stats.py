"""What a sender counts, and the line that tells Logfeed itself of logs that are missing."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from logfeed_client.sending.answers import Taken, Trouble


@dataclass(frozen=True, slots=True)
class SenderStats:
    """Of one sender in this process, since its first log (in a child of a fork: since the fork)."""

    taken: int
    """Logs that found room in the queue."""
    accepted: int
    """Logs that the server has stored; those that an earlier process spooled are among them."""
    filtered: int
    """Logs that the server's filters dropped."""
    rejected: Mapping[str, int]
    """Logs that the server did not take, by its code."""
    dropped: Mapping[str, int]
    """Logs that are lost, by reason: `queue_full`, `closed`, `refused`, `too_large`, `unreadable`, `failed`."""
    queued: int
    """Logs that are in memory only: in the queue, and in the batch in hand."""
    queued_bytes: int
    spooled: int
    """Batches on disk."""
    spooled_bytes: int
    requests: int
    retries: int
    """Requests that were answered by "later", or not at all."""
    trouble: Trouble | None
    """Why logs wait just now."""


class Counts:
    """Incremented by any thread."""

    def __init__(self) -> None:
        """Nothing has happened."""
        self._lock = threading.RLock()
        self._unreported: Counter[str] = Counter()
        self.dropped: Counter[str] = Counter()
        self.rejected: Counter[str] = Counter()
        self.accepted = 0
        self.filtered = 0
        self.requests = 0
        self.retries = 0

    def drop(self, reason: str, logs: int = 1) -> None:
        """Logs are lost."""
        if logs <= 0:
            return
        with self._lock:
            self.dropped[reason] += logs
            self._unreported[reason] += logs

    def took(self, taken: Taken) -> None:
        """The server has answered for a batch."""
        with self._lock:
            self.accepted += taken.accepted
            self.filtered += taken.filtered
            for reason in taken.reasons:
                self.rejected[reason.code] += reason.logs

    @property
    def has_unreported(self) -> bool:
        """Whether logs were lost that `report` has not told yet."""
        return bool(self._unreported)

    def report(self, service_name: str, now_us: int) -> bytes | None:
        """A log that says what was dropped since the last one; None where nothing was."""
        with self._lock:
            dropped, self._unreported = dict(self._unreported), Counter()
        if not dropped:
            return None
        reasons = ", ".join(f"{count} {reason}" for reason, count in sorted(dropped.items()))
        log = {
            "service_name": service_name,
            "timestamp": now_us,
            "level": "WARN",
            "message": f"{sum(dropped.values())} logs of this program were dropped: {reasons}",
            "metadata": {"logger": "logfeed_client", "dropped": dropped},
        }
        return json.dumps(log, separators=(",", ":")).encode() + b"\n"
