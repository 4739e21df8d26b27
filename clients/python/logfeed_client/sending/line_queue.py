"""Lines that wait to be sent, bounded by number and bytes: the program's threads put, the sender's thread takes.

`put` blocks for nobody's I/O: its lock is held for some appends, by the sender too. What does not fit is refused before
anything changes, at once or after `block_s`. The lock may be taken again by its holder (a signal handler that logs, a
destructor), and waking is one `SimpleQueue.put`, which may be interrupted by itself; so neither can hang.

The sender is woken by the first line, by a full batch, and when somebody wants to see everything gone. Measured
(bench/client.py): 0.4 µs a line.
"""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from typing import Final

_LINE_OVERHEAD_BYTES: Final = 64
"""What a line costs in memory besides its text: an empty line is not free either."""


class LineQueue:
    """One sender's, one process's."""

    def __init__(self, *, logs_max: int, bytes_max: int, batch_logs: int, batch_bytes: int, linger_s: float) -> None:
        """logs_max, bytes_max: of all that waits. batch_logs, batch_bytes: of one batch. linger_s: how long the first line of a
        batch waits for others."""
        self._logs_max, self._bytes_max = logs_max, bytes_max
        self._batch_logs, self._batch_bytes = batch_logs, batch_bytes
        self._linger_s = linger_s
        self._lock = threading.RLock()
        self._room = threading.Condition(self._lock)
        self._wakes: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._lines: deque[bytes] = deque()
        self._is_woken = False
        self._waiting_for_room = 0
        self._since_s = 0.0
        """When the line that waits longest came."""
        self._wanted = 0
        """Everything up to this number in `put_count` is wanted gone."""
        self.is_closed = False
        self.bytes = 0
        self._taken_count = 0

    def __len__(self) -> int:
        return len(self._lines)

    @property
    def put_count(self) -> int:
        """Lines that found room so far."""
        with self._lock:
            return self._taken_count + len(self._lines)

    def put(self, line: bytes, block_s: float = 0.0) -> bool:
        """False where there is no room within that time, or it is closed. Raises nothing."""
        size = len(line) + _LINE_OVERHEAD_BYTES
        lines = self._lines
        with self._lock:
            # What `_is_refused` says, without its call: this is in the way of each log.
            is_tight = self.is_closed or len(lines) >= self._logs_max or self.bytes + size > self._bytes_max
            if is_tight and self._is_refused(size) and (block_s <= 0 or not self._waited(size, block_s)):
                return False
            lines.append(line)
            self.bytes += size  # in one go: a signal handler that logs may come at any call
            count = len(lines)
            if count == 1:
                self._since_s = time.monotonic()
                self._wake()
            elif count == self._batch_logs or self.bytes >= self._batch_bytes:
                self._wake()
        return True

    def take(self) -> list[bytes]:
        """The oldest lines, as many as one batch holds; at least one where there is any."""
        taken: list[bytes] = []
        with self._lock:
            room = self._batch_bytes
            while self._lines and len(taken) < self._batch_logs:
                size = len(self._lines[0]) + _LINE_OVERHEAD_BYTES
                if taken and size > room:
                    break
                room -= size
                self.bytes -= size
                taken.append(self._lines.popleft())
            self._taken_count += len(taken)
            self._since_s = time.monotonic()
            if self._waiting_for_room:
                self._room.notify_all()
        return taken

    def put_back(self, lines: list[bytes]) -> None:
        """Lines that were taken just now are the oldest again."""
        with self._lock:
            self._lines.extendleft(reversed(lines))
            self.bytes += sum(map(len, lines)) + _LINE_OVERHEAD_BYTES * len(lines)
            self._taken_count -= len(lines)

    def want_all(self) -> int:
        """What was put so far is to be taken without lingering; how many these are."""
        with self._lock:
            self._wanted = self.put_count
            self._wake()
            return self.put_count

    def close(self) -> None:
        """Nothing more is taken in."""
        with self._lock:
            self.is_closed = True
            self._room.notify_all()
            self.want_all()

    def is_due(self) -> bool:
        """Whether `take` is worth it: a batch is full, its time is up, or it is wanted."""
        with self._lock:
            return self._due_in_s() <= 0

    def wait(self, timeout_s: float | None, *, for_lines: bool) -> None:
        """Until that time is up, somebody wakes it or, for_lines, `is_due`. None: without an end. One thread."""
        ends_s = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            with self._lock:
                woken_for = self._wanted
                lines_s = self._due_in_s() if for_lines else float("inf")
                self._is_woken = False
            left_s = float("inf") if ends_s is None else ends_s - time.monotonic()
            pause_s = min(left_s, lines_s)
            if pause_s <= 0:
                return
            try:
                self._wakes.get(timeout=None if pause_s == float("inf") else min(pause_s, threading.TIMEOUT_MAX))
            except queue.Empty:
                continue
            if self._wanted != woken_for or self.is_closed:
                return

    def _wake(self) -> None:
        if not self._is_woken:
            self._is_woken = True
            self._wakes.put(None)

    def _due_in_s(self) -> float:
        count = len(self._lines)
        if not count:
            return float("inf")
        if count >= self._batch_logs or self.bytes >= self._batch_bytes or self._wanted > self._taken_count:
            return 0.0
        return self._since_s + self._linger_s - time.monotonic()

    def _is_refused(self, size: int) -> bool:
        # A line larger than all of it has room where nothing else is.
        return self.is_closed or (
            bool(self._lines) and (len(self._lines) >= self._logs_max or self.bytes + size > self._bytes_max)
        )

    def _waited(self, size: int, block_s: float) -> bool:
        """Whether there is room now."""
        self._waiting_for_room += 1
        try:
            return self._room.wait_for(lambda: self.is_closed or not self._is_refused(size), block_s) and not (
                self.is_closed
            )
        finally:
            self._waiting_for_room -= 1
