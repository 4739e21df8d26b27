"""Experiments as one part of query: who may change and see which, and what is answered (INV-5).

An experiment is of one service. Who may write that service's logs may change it, who may read them may see it, and its logs are
shown as all logs are: those of services that the asker may read. Every call carries the right.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import orjson

from access.errors import AccessUnknown, Forbidden, Unauthenticated
from access.principal import Principal
from query.answers import Answer, Answers, Asked
from query.errors import ExperimentNotFound, TooManyWatchers, WatchersFull
from query.experiments.changes import Change, begun, changed, is_experiment_id
from query.experiments.events import ChangeHub, Watcher
from query.experiments.settings import ExperimentSettings
from query.experiments.tally import EXPERIMENT_FIELD, tally
from query.listing import ListPlace, ListSeal, Secret
from query.page import Question
from query.tail.session import EndReason
from runtime.clock import Clock
from runtime.stopping import Stop
from schemas.errors import DatabaseUnavailable
from schemas.times import time_text
from search.params import ParameterError
from search.predicate import MetaEquals
from store.experiments import Experiment, ExperimentStore

Recheck = Callable[[], Awaitable[Principal]]
"""Who watches, as of now. Raises what authentication raises."""
_CHANGES: Final = "changes"
_EVENT_EVERY_S: Final = 0.25
_STOP_S: Final = 2.0
_REASONS: Final = {
    EndReason.CREDENTIALS: "your credentials have expired or were revoked",
    EndReason.UNKNOWN: "who may what cannot be told now: try again later",
    EndReason.STOPPING: "the server stops: connect again",
}


@dataclass(frozen=True, slots=True)
class ListQuestion:
    """Which experiments."""

    statuses: tuple[str, ...]
    text: str
    limit: int
    token: str | None

    @property
    def canonical(self) -> str:
        """What stays the same along a walk."""
        return orjson.dumps([sorted(set(self.statuses)), self.text]).decode()


class Experiments:
    """The experiments of one installation, for principals."""

    def __init__(
        self,
        settings: ExperimentSettings,
        store: ExperimentStore,
        answers: Answers,
        *,
        secret: Secret,
        clock: Clock,
        stop: Stop,
    ) -> None:
        """secret: of cursors; raises Overloaded while it cannot be had. stop: ends streams of changes."""
        self.settings = settings
        self.clock = clock
        self._store = store
        self._answers = answers
        self._secret = secret
        self._stop = stop
        self._hub = ChangeHub(store, poll_s=settings.poll_ms / 1000)
        self._running: asyncio.Task[None] | None = None
        self._open: Counter[str] = Counter()

    async def start(self) -> None:
        """Begin to look for changes."""
        if self._running is None:
            self._running = asyncio.create_task(self._hub.run(self._stop), name="changes of experiments")

    async def stop(self) -> None:
        """End every stream. Safe without a start, and twice."""
        self._stop.set()
        running, self._running = self._running, None
        if running is not None:
            await asyncio.wait({running}, timeout=_STOP_S)
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    # --- changing and asking --------------------------------------------------------------------------------------

    async def put(self, experiment_id: str, change: Change, principal: Principal) -> tuple[bytes, bool]:
        """(ExperimentChanged, whether it is new). Raises Forbidden, ParameterError, ExperimentConflict, TooManyExperiments,
        Overloaded."""
        if not is_experiment_id(experiment_id):
            expected = "1 to 128 of A-Z a-z 0-9 . _ : -, a letter or digit first, and not `events`"
            raise ParameterError("experiment_id", f"expected {expected}, got {experiment_id[:60]!r}")
        now_us = self.clock.now_us()

        def decide(stored: Experiment | None) -> Experiment:
            service_name = (
                change.service_name or principal.may_write.only_name if stored is None else stored.service_name
            )
            if service_name is None:
                raise ParameterError(
                    "service_name", "is needed for a new experiment: you may write more than one service"
                )
            if not principal.may_write.permits(service_name):
                raise Forbidden(f"you may not write what experiment {experiment_id} belongs to")
            if stored is None:
                return begun(experiment_id, change, service_name, now_us=now_us)
            return changed(stored, change, now_us=now_us)

        async with self._answers.place(principal):
            experiment, is_new = await self._store.put(experiment_id, decide)
        self._hub.look_now()
        # Nothing that only a reader may know.
        answer = {
            "id": experiment.experiment_id,
            "service_name": experiment.service_name,
            "status": experiment.status,
            "updated_at": time_text(experiment.updated_us),
        }
        return orjson.dumps(answer), is_new

    async def find(self, question: ListQuestion, principal: Principal) -> bytes:
        """ExperimentList. Raises CursorError, Overloaded."""
        seal = ListSeal(await self._secret(), of="experiments")
        before = None
        if question.token is not None:
            place = seal.open(question.token, subject=principal.subject, question=question.canonical)
            before = (place.at_us, place.id)
        async with self._answers.place(principal):
            found = await self._store.find(
                allowed=principal.may_read,
                statuses=question.statuses,
                text=question.text,
                before=before,
                limit=question.limit + 1,
            )
        shown, following = found[: question.limit], None
        if len(found) > question.limit:
            place = ListPlace(shown[-1].created_us, shown[-1].experiment_id)
            following = seal.seal(place, subject=principal.subject, question=question.canonical)
        return orjson.dumps({"experiments": list(map(experiment_json, shown)), "next_cursor": following})

    async def one(self, experiment_id: str, principal: Principal) -> tuple[bytes, int]:
        """(ExperimentDetails, logs counted). Raises ExperimentNotFound, Overloaded."""
        experiment = await self._existing(experiment_id, principal)
        predicate = MetaEquals((EXPERIMENT_FIELD,), experiment_id)
        logs, is_all = await self._answers.newest(predicate, principal, limit=self.settings.counted_logs_max)
        figures = await asyncio.to_thread(tally, logs)
        return orjson.dumps({**experiment_json(experiment), **figures, "is_estimated": not is_all}), len(logs)

    async def logs(self, experiment_id: str, question: Question, principal: Principal, asked: Asked) -> Answer:
        """A page of logs. question: of the experiment. Raises ExperimentNotFound, CursorError, Overloaded."""
        await self._existing(experiment_id, principal)
        return await self._answers.find(question, principal, asked=asked)

    async def _existing(self, experiment_id: str, principal: Principal) -> Experiment:
        found = None
        if is_experiment_id(experiment_id):
            async with self._answers.place(principal):
                found = await self._store.one(experiment_id, allowed=principal.may_read)
        if found is None:
            raise ExperimentNotFound(f"there is no experiment {experiment_id[:130]}, or it may not be read")
        return found

    # --- changes as they come -------------------------------------------------------------------------------------

    @asynccontextmanager
    async def stream(
        self, principal: Principal, recheck: Recheck, *, last_event_id: str | None
    ) -> AsyncIterator[AsyncGenerator[bytes, None]]:
        """Server-sent events until the stream ends. last_event_id: of the last event that came: goes on after it.

        Raises CursorError, TooManyWatchers, Overloaded.
        """
        if self._running is None or self._stop.is_set:
            raise DatabaseUnavailable("changes are not there yet: the service begins or ends", retry_after_s=2)
        seal = ListSeal(await self._secret(), of=_CHANGES)
        after = None
        if last_event_id:
            after = seal.open(last_event_id, subject=principal.subject, question=_CHANGES).at_us
        sealed = seal.bound(subject=principal.subject, question=_CHANGES)
        with self._counted(principal.subject):
            version = await self._store.version()
            watcher = Watcher(principal.may_read, version if after is None else after)
            with self._hub.joined(watcher, version):
                await self._hub.catch_up(watcher, version)
                yield self._events(watcher, recheck, lambda change: sealed(ListPlace(change, "")))

    async def _events(
        self, watcher: Watcher, recheck: Recheck, token: Callable[[int], str]
    ) -> AsyncGenerator[bytes, None]:
        """token: of the change after which to go on. Each event has its own: what was sent together may come in part."""
        settings, clock = self.settings, self.clock
        yield b": open\n\n"  # so that whoever waits for the headers knows that it is watched
        beat_s = clock.monotonic_s() + settings.heartbeat_s
        while True:
            end = EndReason.STOPPING if self._stop.is_set else await self._ended(watcher, recheck)
            if end is not None:
                yield _event("end", {"end": end, "detail": _REASONS[end]}, token(watcher.after))
                return
            events: list[bytes] = []
            if watcher.has_missed:
                watcher.has_missed = False
                gap = {"gap": "read the list again: changes were left out"}
                events.append(_event("gap", gap, token(watcher.after)))
            # What may be seen can be less since it was offered.
            taken = [each for each in watcher.take() if watcher.allowed.permits(each.service_name)]
            events += [
                _event("experiment", {"experiment": experiment_json(each)}, token(each.change)) for each in taken
            ]
            if not events and clock.monotonic_s() >= beat_s:
                events.append(b": still here\n\n")
            if events:
                yield b"".join(events)
                beat_s = clock.monotonic_s() + settings.heartbeat_s
                await asyncio.sleep(_EVENT_EVERY_S)
                continue
            with suppress(TimeoutError):
                async with asyncio.timeout(min(settings.check_s, max(beat_s - clock.monotonic_s(), 0.01))):
                    await watcher.has_some.wait()

    async def _ended(self, watcher: Watcher, recheck: Recheck) -> EndReason | None:
        """Whether who watches may no longer; what they may see is set anew."""
        try:
            principal = await recheck()
        except (Unauthenticated, Forbidden):
            return EndReason.CREDENTIALS
        except AccessUnknown:
            return EndReason.UNKNOWN
        watcher.allowed = principal.may_read
        return None

    @contextmanager
    def _counted(self, subject: str) -> Iterator[None]:
        if self._open.total() >= self.settings.watchers_max:
            raise WatchersFull(retry_after_s=5)
        if self._open[subject] >= self.settings.subject_watchers_max:
            raise TooManyWatchers(
                f"you have {self._open[subject]} streams open, as many as you may: close one", retry_after_s=5
            )
        self._open[subject] += 1
        try:
            yield
        finally:
            self._open[subject] -= 1
            if not self._open[subject]:
                del self._open[subject]


def experiment_json(experiment: Experiment) -> dict[str, Any]:
    """See schemas.experiments.ExperimentModel."""
    started_us, ended_us = experiment.started_us, experiment.ended_us
    return {
        "id": experiment.experiment_id,
        "name": experiment.name,
        "service_name": experiment.service_name,
        "status": experiment.status,
        "created_at": time_text(experiment.created_us),
        "updated_at": time_text(experiment.updated_us),
        "started_at": None if started_us is None else time_text(started_us),
        "ended_at": None if ended_us is None else time_text(ended_us),
        "metadata": orjson.Fragment(experiment.metadata),
    }


def _event(kind: str, content: dict[str, Any], token: str) -> bytes:
    """One server-sent event. No line end stands in JSON or in a token."""
    return b"event: %b\nid: %b\ndata: %b\n\n" % (kind.encode(), token.encode(), orjson.dumps(content))
