"""Orderly stop: SIGTERM and Ctrl-C set one event; a second signal ends at once, and so does a stop that takes too long.

What is being stopped may wait for a database or a broker that hangs, each part for its own time. Nothing acknowledged is
lost by ending before that: so the whole has one deadline, kept by a thread that no event loop can hold up.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Awaitable, Callable
from typing import Final

import structlog

log = structlog.get_logger(__name__)

STOP_S: Final = 25.0
"""How long a stop may take: what sends SIGTERM often kills after 30 s."""


class Stop:
    """Says when to stop. Await `wait()` in loops, or ask `is_set`."""

    def __init__(self) -> None:
        """Not set."""
        self._event = asyncio.Event()

    @property
    def is_set(self) -> bool:
        """True once a stop was asked for."""
        return self._event.is_set()

    def set(self) -> None:
        """Ask for the stop. Idempotent."""
        self._event.set()

    async def wait(self, timeout_s: float | None = None) -> bool:
        """Wait for the stop, at most timeout_s; returns whether it was asked for."""
        if timeout_s is None:
            await self._event.wait()
        else:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._event.wait(), timeout_s)
        return self._event.is_set()


def listen_for_signals(stop: Stop, *, ends_within_s: float = STOP_S) -> None:
    """First SIGTERM or SIGINT sets `stop`; the next one ends the process at once with 130, a stop that takes longer than
    ends_within_s with 1.

    A server takes SIGINT also where a script's `&` left it ignored: whoever sends it means an orderly stop. Client commands
    keep to the shell's convention: an import in the background outlives the Ctrl-C that ends its script.
    """

    def on_signal() -> None:
        if stop.is_set:
            os._exit(130)
        stop.set()
        deadline = threading.Timer(ends_within_s, _end_late, (ends_within_s,))
        deadline.daemon = True
        deadline.start()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal)


def _end_late(seconds: float) -> None:
    log.error("the stop takes too long, ending at once: the database or the broker may hang", after_s=seconds)
    os._exit(1)


async def every(seconds: float, action: Callable[[], Awaitable[None]], stop: Stop) -> None:
    """Run `action` now and then every `seconds` until the stop. The action handles its own expected errors."""
    while not stop.is_set:
        await action()
        await stop.wait(seconds)
