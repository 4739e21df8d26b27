"""The one thing that programs share: takes lines from any thread, and has a thread of its own that sends them.

    sender = Sender("https://logs.example", service_name="shop", api_key=key, spool_dir="/var/spool/shop-logs")
    logging.getLogger().addHandler(LogfeedHandler(sender=sender))

Promises. `put` raises nothing and waits for nothing but `block_s` (0 by default); what finds no room is counted. A log that was
taken is stored once (INV-2 of Logfeed), unless the process is killed while it is in memory, or the server refuses it. At the
end of the program (`atexit`) what waits is sent within `close_s`, or spooled, or counted as dropped.

Processes. The thread starts with the first log. A child of a fork starts one of its own and sends nothing of its parent's
queue. The process id is looked at with each log too, for forks that Python was not told of; these are safe only where no thread
was at work (uWSGI: `py-call-osafterfork`, or `lazy-apps`).
"""

from __future__ import annotations

import atexit
import contextlib
import os
import sys
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Final

import httpx

from logfeed_client.connecting import checked_key, checked_url, client_options, key_of
from logfeed_client.notes import Notes, hush, sending
from logfeed_client.sending.delivery import Delivery
from logfeed_client.sending.limits import SenderLimits
from logfeed_client.sending.line_queue import LineQueue
from logfeed_client.sending.posting import Target
from logfeed_client.sending.stats import Counts, SenderStats

_FORK_WAITS_S: Final = 0.5
_GRACE_S: Final = 0.5
"""Of `close`, past its time, for what the thread does then."""

ApiKey = str | Callable[[], str | None]
"""A key, or what is asked for it before each request."""


class Sender:
    """Sends lines of one program to one server. Any thread may call."""

    def __init__(
        self,
        url: str | None = None,
        *,
        service_name: str,
        api_key: ApiKey | None = None,
        spool_dir: str | os.PathLike[str] | None = None,
        block_s: float = 0.0,
        limits: SenderLimits | None = None,
        make_client: Callable[[], httpx.Client] | None = None,
    ) -> None:
        """url: of Logfeed, without a path; None: LOGFEED_URL, else http://127.0.0.1:8080. service_name: of handlers that name
        none. api_key: with the permission `write`; None: LOGFEED_API_KEY; a function is asked before each request. spool_dir:
        where logs wait on disk while the server is away, made where it is missing; processes may share it. block_s: how long a
        log may wait for room when the queue is full; then it is dropped. make_client: makes the HTTP client, once in each
        process (proxies, certificates); it is closed here. Raises ValueError."""
        self._url = checked_url(url)
        self._limits = limits or SenderLimits()
        self._block_s = block_s
        self.service_name: Final = service_name
        self._target = Target(
            self._url,
            service_name,
            _key_source(api_key),
            make_client or (lambda: httpx.Client(**client_options(self._url))),
            None if spool_dir is None else Path(spool_dir).absolute(),
        )
        self._notes = Notes()
        self._made_in = os.getpid()
        self._start_over()
        _senders.add(self)
        hush()
        if spool_dir is not None:
            self._begin()  # what an earlier process left is sent without waiting for a log

    def put(self, line: bytes) -> bool:
        """Send a line: one log as JSON, with its line end. False where it had no room, and is lost. Raises nothing."""
        if self._pid != os.getpid():
            self._begin()
        if self._queue.put(line, self._block_s):
            return True
        reason = "closed" if self._queue.is_closed else "queue_full"
        self._counts.drop(reason)
        self._notes.tell(
            reason, f"logs are dropped: {'the sender is closed' if reason == 'closed' else 'the queue is full'}"
        )
        return False

    def failed(self, error: Exception) -> None:
        """Count a log that is lost because it could not be written as a line."""
        self._counts.drop("failed")
        self._notes.tell("failed", f"a log cannot be written and is dropped: {type(error).__name__}: {error}")

    def flush(self, timeout_s: float | None = None) -> bool:
        """Whether everything that was put before is stored, refused or spooled within that time. None: `limits.close_s`."""
        if self._pid != os.getpid():
            return len(self._queue) == 0
        wanted = self._queue.want_all()
        return self._delivery.wait_settled(wanted, self._limits.close_s if timeout_s is None else timeout_s)

    def close(self, timeout_s: float | None = None) -> None:
        """Take nothing more, and send what waits within that time (None: `limits.close_s`); what is left then is spooled, or
        dropped and told. Safe to call again."""
        bound_s = self._limits.close_s if timeout_s is None else timeout_s
        thread = self.end_soon(bound_s)
        if thread is not None:
            thread.join(bound_s + _GRACE_S)
        elif len(self._queue):
            self._run_here()
        self._delivery.abandon()

    def end_soon(self, timeout_s: float | None = None) -> threading.Thread | None:
        """The first half of `close`, which waits for nothing. Returns the thread that ends, if there is one."""
        self.forked()
        with self._lock:
            self._queue.close()
            self._delivery.close_by(time.monotonic() + (self._limits.close_s if timeout_s is None else timeout_s))
            return self._thread

    def stats(self) -> SenderStats:
        """What happened so far."""
        counts, queue, delivery = self._counts, self._queue, self._delivery
        spooled, spooled_bytes = delivery.spooled()
        return SenderStats(
            taken=queue.put_count,
            accepted=counts.accepted,
            filtered=counts.filtered,
            rejected=dict(counts.rejected),
            dropped=dict(counts.dropped),
            queued=max(0, queue.put_count - delivery.settled),
            queued_bytes=queue.bytes,
            spooled=spooled,
            spooled_bytes=spooled_bytes,
            requests=counts.requests,
            retries=counts.retries,
            trouble=delivery.trouble,
        )

    # --- life

    @property
    def close_s(self) -> float:
        """How long the end of the program may take."""
        return self._limits.close_s

    @property
    def requesting(self) -> threading.Lock:
        """Held while a request is under way."""
        return self._delivery.requesting

    def _start_over(self) -> None:
        """Nothing was put in this process yet."""
        limits = self._limits
        self._lock = threading.RLock()
        self._pid = 0
        """Of the process that the thread runs in; 0 before it does."""
        self._thread: threading.Thread | None = None
        self._counts = Counts()
        self._queue = LineQueue(
            logs_max=limits.queue_logs,
            bytes_max=limits.queue_bytes,
            batch_logs=limits.batch_logs,
            batch_bytes=limits.batch_bytes,
            linger_s=limits.linger_s,
        )
        self._delivery = Delivery(self._target, limits, self._queue, self._counts, self._notes)

    def _begin(self) -> None:
        """Start the thread of this process. Raises nothing: where none can be started the next log tries again."""
        pid = os.getpid()
        if self._made_in != pid:
            self.forked()
        with self._lock:
            if self._pid == pid or self._queue.is_closed:
                return
            # The thread holds this sender, so that one which nobody holds any more is closed with the program all the same.
            thread = threading.Thread(target=self._run, name="logfeed sender", daemon=True)
            try:
                thread.start()
            except RuntimeError as error:
                if "shutdown" in str(error):
                    return  # what is logged while the interpreter ends is sent by `close`
                self._notes.tell("thread", f"no thread can be started to send logs: {error}")
                return
            self._thread, self._pid = thread, pid
        _close_with_multiprocessing(self)

    def _run(self) -> None:
        self._delivery.run()

    def forked(self) -> None:
        """In the child of a fork: what the parent has is the parent's. Called once, by Python's hook or by the first call."""
        if self._made_in == os.getpid():
            return
        self._made_in = os.getpid()
        self._delivery.forget()
        self._start_over()

    def _run_here(self) -> None:
        """Send in this thread what waits: none could be started, as at the end of an interpreter."""
        before, sending.is_on = sending.is_on, True
        try:
            self._delivery.run()
        finally:
            sending.is_on = before


def _key_source(api_key: ApiKey | None) -> Callable[[], str | None]:
    if callable(api_key):
        return lambda: checked_key(api_key())
    text = key_of(api_key)
    return lambda: text


# --- the process

_senders: Final[weakref.WeakSet[Sender]] = weakref.WeakSet()


def _close_all() -> None:
    senders = list(_senders)
    began_s = time.monotonic()
    for sender in senders:  # side by side: the end of the program takes as long as the slowest may
        sender.end_soon()
    for sender in senders:
        sender.close(max(0.0, began_s + sender.close_s - time.monotonic()))


class _Fork:
    """Forks of this process wait until no request is under way; not for long, since one that takes longer waits for the
    network, where a fork does no harm."""

    def __init__(self) -> None:
        self._held: list[threading.Lock] = []

    def before(self) -> None:
        """In the parent."""
        ends_s = time.monotonic() + _FORK_WAITS_S
        for sender in list(_senders):
            lock = sender.requesting
            if lock.acquire(timeout=max(0.0, ends_s - time.monotonic())):
                self._held.append(lock)

    def after_in_parent(self) -> None:
        """Go on."""
        while self._held:
            self._held.pop().release()

    def after_in_child(self) -> None:
        """Begin anew."""
        self._held = []
        sending.is_on = False
        for sender in list(_senders):
            sender.forked()


def _close_with_multiprocessing(sender: Sender) -> None:
    """Its children end without `atexit`."""
    util = sys.modules.get("multiprocessing.util")
    process = sys.modules.get("multiprocessing.process")
    if util is not None and process is not None and process.parent_process() is not None:
        with contextlib.suppress(Exception):
            util.Finalize(None, sender.close, exitpriority=0)


atexit.register(_close_all)
if hasattr(os, "register_at_fork"):
    _fork = _Fork()
    os.register_at_fork(before=_fork.before, after_in_parent=_fork.after_in_parent, after_in_child=_fork.after_in_child)
