"""Every change of an experiment, to whoever watches: one look at the database for all of a process.

`ChangeHub.run` asks for what changed since the last number that it has seen, every `poll_ms` while anybody watches, and at once
after a change of this process. What each watcher has not been sent waits by experiment, in its newest state only; so what
waits is bounded by the experiments that there are, and by WAITING_MAX. Who has more waiting is told to read the list again.
Nothing is held up by anybody. One event loop, no locks.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, Protocol

import structlog

from runtime.sparing import SparingLog
from runtime.stopping import Stop
from schemas.errors import DatabaseUnavailable
from schemas.scope import ServiceScope
from store.experiments import Experiment

log = structlog.get_logger(__name__)

WAITING_MAX: Final = 1_000
"""Most changes that wait for one watcher, and most that one look brings."""


class Changes(Protocol):
    """What the hub asks (store.experiments.ExperimentStore)."""

    async def version(self) -> int:
        """Number of the last change."""

    async def changed_since(self, version: int, *, limit: int) -> list[Experiment]:
        """In the order of their last changes."""


class Watcher:
    """Changes that wait for one client."""

    def __init__(self, allowed: ServiceScope, after: int) -> None:
        """allowed: what it may see. after: number of the last change that it knows of."""
        self.allowed = allowed
        self.after = after
        self.has_missed = False
        """It must read the list again."""
        self.has_some = asyncio.Event()
        self._waiting: dict[str, Experiment] = {}

    def offer(self, experiment: Experiment) -> None:
        """What may not be seen is left out, as is what is older than what is known."""
        if experiment.change <= self.after or not self.allowed.permits(experiment.service_name):
            return
        waiting = self._waiting.get(experiment.experiment_id)
        if waiting is not None and waiting.change >= experiment.change:
            return
        if waiting is None and len(self._waiting) >= WAITING_MAX:
            self.miss()
        self._waiting[experiment.experiment_id] = experiment
        self.has_some.set()

    def miss(self) -> None:
        """What waits is given up."""
        self._waiting.clear()
        self.has_missed = True
        self.has_some.set()

    def take(self) -> list[Experiment]:
        """All that waits, in order."""
        taken = sorted(self._waiting.values(), key=lambda experiment: experiment.change)
        self._waiting.clear()
        self.has_some.clear()
        if taken:
            self.after = taken[-1].change
        return taken


class ChangeHub:
    """All watchers of one process."""

    def __init__(self, changes: Changes, *, poll_s: float) -> None:
        """poll_s: between two looks."""
        self._changes = changes
        self._poll_s = poll_s
        self._watchers: set[Watcher] = set()
        self._after = 0
        self._wanted = asyncio.Event()
        self._repeated = SparingLog(log)
        self._must_check = False
        """The database was away: it may be another one now, which is behind."""

    @contextmanager
    def joined(self, watcher: Watcher, version: int) -> Iterator[None]:
        """Offer changes after `version` to the watcher meanwhile: the number of the last change, read before."""
        # Looking again at what others have seen harms nobody: they leave it out.
        self._after = min(self._after, version) if self._watchers else version
        self._watchers.add(watcher)
        self._wanted.set()
        try:
            yield
        finally:
            self._watchers.discard(watcher)

    async def catch_up(self, watcher: Watcher, version: int) -> None:
        """Offer what came up to `version` that the watcher does not know. Raises DatabaseUnavailable."""
        if watcher.after == version:
            return
        if watcher.after > version:  # the database was restored
            watcher.after = version
            watcher.miss()
            return
        missed = await self._changes.changed_since(watcher.after, limit=WAITING_MAX)
        if len(missed) == WAITING_MAX:
            watcher.miss()
        for experiment in missed:
            watcher.offer(experiment)

    def look_now(self) -> None:
        """Something has changed."""
        self._wanted.set()

    async def run(self, stop: Stop) -> None:
        """Look until the stop."""
        stopping = asyncio.ensure_future(stop.wait())
        try:
            while not stop.is_set:
                is_full = await self._look() if self._watchers else False
                if is_full:
                    continue
                wanted = asyncio.ensure_future(self._wanted.wait())
                timeout = self._poll_s if self._watchers else None
                await asyncio.wait({wanted, stopping}, timeout=timeout, return_when=asyncio.FIRST_COMPLETED)
                wanted.cancel()
                self._wanted.clear()
        finally:
            stopping.cancel()

    async def _went_back(self, since: int) -> int:
        """The number to look from: of a database that is behind the one before, its own. Raises DatabaseUnavailable."""
        version = await self._changes.version()
        if version < since:
            self._after = since = version
            for watcher in self._watchers:
                watcher.after = min(watcher.after, version)
                watcher.miss()
        self._must_check = False
        return since

    async def _look(self) -> bool:
        """Whether there may be more at once."""
        since = self._after
        try:
            if self._must_check:
                since = await self._went_back(since)
            found = await self._changes.changed_since(since, limit=WAITING_MAX)
        except DatabaseUnavailable as error:
            self._must_check = True
            self._repeated.warning("changes of experiments cannot be read, trying again", error=str(error))
            return False
        for experiment in found:
            for watcher in self._watchers:
                watcher.offer(experiment)
        if self._after != since:  # somebody has joined meanwhile
            return True
        if found:
            self._after = found[-1].change
        return len(found) == WAITING_MAX
