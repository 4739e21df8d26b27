"""What the sender tells the people who run the program, on stderr: each kind of trouble once, not with each log it costs.

Goes through `logging.lastResort`, never through the program's own handlers, one of which may be this one. A trouble that has
passed may be told again when it comes back, after a minute at the earliest. Threads may call at the same time.
"""

from __future__ import annotations

import logging
import threading
import time
from typing import Final

LOGGER: Final = "logfeed_client"
"""Name under which notes are told; logs of this name are never sent."""
_AGAIN_S: Final = 60.0
_KINDS_MAX: Final = 200


class Sending(threading.local):
    """Whether this thread is sending logs just now: what it logs meanwhile (httpx does) is not sent, or there were no end."""

    is_on = False


sending: Final = Sending()


class Notes:
    """Of one sender."""

    def __init__(self) -> None:
        """Nothing was told."""
        self._told: dict[str, float] = {}
        self._passed: set[str] = set()

    def tell(self, kind: str, text: str) -> None:
        """Once for each kind. Raises nothing."""
        now_s = time.monotonic()
        told_s = self._told.get(kind)
        if told_s is None:
            if len(self._told) >= _KINDS_MAX:
                return
        elif kind not in self._passed or now_s - told_s < _AGAIN_S:
            return
        self._told[kind] = now_s
        self._passed.discard(kind)
        say(text)

    def passed(self, kind: str) -> bool:
        """The trouble is over. True where it was told, and this was not yet."""
        if kind not in self._told or kind in self._passed:
            return False
        self._passed.add(kind)
        return True


class _Hush(logging.Filter):
    """Leaves out what is logged by a thread that sends."""

    def filter(self, record: logging.LogRecord) -> bool:
        """True: it is logged."""
        return not sending.is_on


_hush: Final = _Hush()
_TALKERS: Final = (
    "httpx",
    "httpcore.connection",
    "httpcore.http11",
    "httpcore.http2",
    "httpcore.proxy",
    "httpcore.socks",
)


def hush() -> None:
    """httpx logs each request at INFO: requests of senders would fill the program's console. Its other requests are logged as
    before."""
    for name in _TALKERS:
        logging.getLogger(name).addFilter(_hush)  # once, however often it is asked for


def say(text: str) -> None:
    """One line on stderr. Raises nothing."""
    last = logging.lastResort
    if last is None:
        return
    try:
        last.handle(logging.LogRecord(LOGGER, logging.WARNING, __file__, 0, f"logfeed: {text}", None, None))
    except Exception:  # a closed stderr must not hurt the program
        return
