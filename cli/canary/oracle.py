"""What was sent, what was acknowledged, what was seen: and what that says of the promises (INV-2, INV-6). Pure.

`judge` compares sets that are held whole, whatever identifies a log in them: fault tests use it. `Oracle` does the same as logs
come, for as long as one likes, in bounded memory: numbers go up by one and their logs' timestamps with them, so that a walk in
order of (timestamp, id) must show ascending numbers. It holds the logs from the oldest one on that is not settled (seen on each
way, or given up for lost), WINDOW_LOGS at most: `has_room` is false then, and whoever sends has to wait. Of what is wrong it
remembers the first WRONG_MAX; that many are told as "or more".

No clock: times come with what happens, in microseconds of one clock that never steps back.
"""

from __future__ import annotations

from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Collection, Hashable, Iterable
from dataclasses import dataclass, field
from enum import StrEnum
from itertools import pairwise
from typing import Any, Final, Generic, TypeVar

import msgspec

WINDOW_LOGS: Final = 10_000
WRONG_MAX: Final = 1_000
DELAYS_MAX: Final = 10_000
"""Of each way the newest delays that quantiles are made of."""
EXAMPLES: Final = 5

Key = TypeVar("Key", bound=Hashable)


class Way(StrEnum):
    """How a log is seen."""

    PAGES = "pages"
    TAIL = "tail"


@dataclass(frozen=True, slots=True)
class Judgement(Generic[Key]):
    """What is wrong with what was seen. Empty everywhere: nothing."""

    lost: frozenset[Key]
    """Acknowledged and not seen."""
    repeated: frozenset[Key]
    """Seen more than once."""
    unsent: frozenset[Key]
    """Seen and never sent."""
    out_of_order: int
    """Logs whose position is not after that of the one shown before."""

    @property
    def ok(self) -> bool:
        """Whether each acknowledged log was seen once, nothing else was, and all were in order."""
        return not (self.lost or self.repeated or self.unsent or self.out_of_order)

    def __str__(self) -> str:
        """For people: counts, with some of each."""
        found = {"lost": self.lost, "seen more than once": self.repeated, "never sent": self.unsent}
        parts = [f"{len(of)} {name}, e.g. {sorted(of, key=str)[:EXAMPLES]}" for name, of in found.items() if of]
        parts += [f"{self.out_of_order} out of order"] if self.out_of_order else []
        return "; ".join(parts) or "each acknowledged log was seen exactly once"


def judge(
    *,
    sent: Collection[Key],
    acknowledged: Collection[Key],
    seen: Iterable[Key],
    positions: Iterable[Any] = (),  # whatever compares: (timestamp, id)
) -> Judgement[Key]:
    """sent: all that may be seen, the acknowledged among them. seen: as shown, repeats included. positions: of what was
    shown, in that order, where they must ascend."""
    found = Counter(seen)
    places = list(positions)
    return Judgement(
        lost=frozenset(acknowledged) - found.keys(),
        repeated=frozenset(key for key, times in found.items() if times > 1),
        unsent=frozenset(found) - frozenset(sent),
        out_of_order=sum(after <= before for before, after in pairwise(places)),
    )


class Delays(msgspec.Struct, frozen=True):
    """Seconds from sending a log to what is measured; quantiles of the newest, the greatest of all. None: nothing was."""

    count: int
    p50_s: float | None
    p95_s: float | None
    max_s: float | None


class Verdict(msgspec.Struct, frozen=True):
    """How a run stands."""

    sent: int
    acknowledged: int
    unacknowledged: int
    """Given up: the server did not take them in time. They may be stored all the same, once."""
    seen: dict[str, int]
    """Way -> logs."""
    waiting: int
    """Not settled yet."""
    oldest_waiting_s: float
    """Age of the oldest of these; 0 when there is none."""
    lost: dict[str, int]
    """Way -> acknowledged and not seen in time, by now."""
    late: int
    """Counted as lost, and seen after all."""
    repeated: dict[str, int]
    """pages -> stored more than once, or shown more than once in one walk; tail -> shown again. The tail may do that while the
    database is away (docs/live.md)."""
    unsent: int
    """Seen under this run's name and never sent."""
    altered: int
    """Seen with another text or time than was sent."""
    out_of_order: int
    """Shown by pages before one that comes before it."""
    not_judged: int
    """Logs that the tail was told to look for in pages (it was cut off for too long, or too slow)."""
    delays: dict[str, Delays]
    """ack, pages, tail -> from sending."""
    examples: dict[str, list[int]]
    """What is wrong -> some numbers."""

    @property
    def broken(self) -> list[str]:
        """Promises that do not hold, for people."""
        found = [
            f"{count} acknowledged logs were not seen by {'the tail' if way == Way.TAIL else way}"
            for way, count in self.lost.items()
            if count
        ]
        stored_twice = self.repeated.get(Way.PAGES, 0)
        found += [f"{stored_twice} logs are there more than once"] if stored_twice else []
        found += [f"{self.unsent} logs were seen that were never sent"] if self.unsent else []
        found += [f"{self.altered} logs are not what was sent"] if self.altered else []
        found += [f"{self.out_of_order} logs were out of order in pages"] if self.out_of_order else []
        return found

    @property
    def problems(self) -> list[str]:
        """Why a finished run is no success, for people; empty when it is one."""
        found = self.broken
        found += [f"{self.unacknowledged} logs were not acknowledged in time"] if self.unacknowledged else []
        found += [f"{self.waiting} logs were neither seen nor surely lost at the end"] if self.waiting else []
        return found or ([] if self.acknowledged else ["nothing was acknowledged"])


@dataclass(slots=True)
class _Log:
    sent_us: int
    acknowledged_us: int | None = None
    given_up: bool = False
    log_id: str | None = None
    seen: set[Way] = field(default_factory=set)
    excused: set[Way] = field(default_factory=set)
    lost: set[Way] = field(default_factory=set)


class _Samples:
    """Delays of one kind."""

    def __init__(self) -> None:
        self._newest = deque[float](maxlen=DELAYS_MAX)
        self._count = 0
        self._max_s: float | None = None

    def add(self, seconds: float) -> None:
        """One delay."""
        self._newest.append(seconds)
        self._count += 1
        self._max_s = seconds if self._max_s is None else max(self._max_s, seconds)

    def summary(self) -> Delays:
        """So far."""
        ordered = sorted(self._newest)
        return Delays(self._count, _quantile(ordered, 0.5), _quantile(ordered, 0.95), self._max_s)


def _quantile(ordered: list[float], share: float) -> float | None:
    """Nearest rank."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else None


class Oracle:
    """Judges one run as it goes. One task at a time."""

    def __init__(
        self,
        *,
        lost_after_us: int,
        ways: Collection[Way] = tuple(Way),
        window: int = WINDOW_LOGS,
        on_delay: Callable[[str, float], None] | None = None,
    ) -> None:
        """lost_after_us: after its acknowledgement a log that is not seen counts as lost. ways: that are looked at.
        on_delay: is told each delay: ack, pages or tail, and its seconds."""
        self._on_delay = on_delay
        self._lost_after_us = lost_after_us
        self._ways = frozenset(ways)
        self._window = window
        self._logs = OrderedDict[int, _Log]()
        """Number -> log, ascending; the settled among them kept while there is room."""
        self._waiting = OrderedDict[int, None]()
        self._sent = self._acknowledged = self._unacknowledged = self._late = self._not_judged = 0
        self._seen = dict.fromkeys(sorted(self._ways), 0)
        self._lost: dict[Way, dict[int, None]] = {way: {} for way in sorted(self._ways)}
        self._repeated: dict[Way, dict[int, None]] = {way: {} for way in sorted(self._ways)}
        self._wrong: dict[str, dict[int, None]] = {name: {} for name in ("unsent", "altered", "out_of_order")}
        self._delays = {name: _Samples() for name in ("ack", *map(str, sorted(self._ways)))}

    @property
    def has_room(self) -> bool:
        """Whether another log may be sent."""
        return not self._waiting or self._sent - next(iter(self._waiting)) + 1 < self._window

    @property
    def waits(self) -> bool:
        """Whether any log is not settled."""
        return bool(self._waiting)

    @property
    def oldest_waiting(self) -> int | None:
        """Number of the oldest log that is not settled: where a walk has to begin."""
        return next(iter(self._waiting), None)

    @property
    def oldest_known(self) -> int | None:
        """Number of the oldest log that can still be judged."""
        return next(iter(self._logs), None)

    def send(self, at_us: int) -> int:
        """Number of the next log, from 1, which is about to be sent for the first time. Refuses (RuntimeError) without room."""
        if not self.has_room:
            raise RuntimeError("the oracle has no room: wait until logs were seen")
        self._sent += 1
        self._logs[self._sent] = _Log(at_us)
        self._waiting[self._sent] = None
        while len(self._logs) > self._window:
            self._logs.popitem(last=False)
        return self._sent

    def acknowledge(self, number: int, at_us: int) -> None:
        """The server answered 2xx. (Its ids say nothing: a retry may be answered with others than those that are stored.)"""
        log = self._logs[number]
        log.acknowledged_us = at_us
        self._acknowledged += 1
        self._note_delay("ack", log, at_us)
        self._settle(number, log)

    def give_up(self, number: int, at_us: int) -> None:
        """Nobody asks for its acknowledgement any more."""
        log = self._logs[number]
        log.given_up = True
        log.acknowledged_us = at_us
        self._unacknowledged += 1
        self._settle(number, log)

    def see(self, way: Way, number: int, log_id: str, at_us: int, *, intact: bool = True) -> None:
        """A log of the run was shown. intact: text and time are those that were sent."""
        if not 1 <= number <= self._sent:
            _note(self._wrong["unsent"], number)
            return
        if not intact:
            _note(self._wrong["altered"], number)
        log = self._logs.get(number)
        if log is None:  # settled long ago: nobody asks pages for it, and the tail has had it
            if way is Way.TAIL:
                _note(self._repeated[way], number)
            return
        if way is Way.PAGES and log.log_id not in (None, log_id):
            _note(self._repeated[way], number)
        if way in log.seen:
            # Pages are asked for a log until it was seen on all ways: only within one walk must it not come again.
            if way is Way.TAIL:
                _note(self._repeated[way], number)
            return
        if way is Way.PAGES:
            log.log_id = log_id
        log.seen.add(way)
        self._seen[way] += 1
        self._note_delay(way, log, at_us)
        if way in log.lost:
            log.lost.discard(way)
            self._lost[way].pop(number, None)
            self._late += 1
        self._settle(number, log)

    def walk(self, began_us: int) -> Walk:
        """A walk along pages that begins now, in ascending order, at `oldest_waiting` or before it."""
        return Walk(self, began_us)

    def gap(self, at_us: int) -> None:
        """The tail left out logs and said so: what was sent by then and it has not shown is not its fault."""
        for number in list(self._waiting):
            log = self._logs[number]
            if log.sent_us <= at_us and Way.TAIL not in log.seen and Way.TAIL not in log.excused:
                log.excused.add(Way.TAIL)
                self._not_judged += 1
                self._settle(number, log)

    def judge_tail(self, until_us: int) -> None:
        """The tail was not cut off by this time. What was acknowledged longer ago and not seen is lost."""
        self._lose(Way.TAIL, until_us)

    def judge_pages(self, until_us: int) -> None:
        """A whole walk that began at this time has ended."""
        self._lose(Way.PAGES, until_us)

    def note_repeated(self, number: int) -> None:
        """Pages of one walk showed it twice."""
        _note(self._repeated[Way.PAGES], number)

    def note_out_of_order(self, number: int) -> None:
        """Pages showed it after one that comes after it."""
        _note(self._wrong["out_of_order"], number)

    def verdict(self, now_us: int) -> Verdict:
        """So far."""
        oldest = self.oldest_waiting
        noted = {
            **{f"lost_{way}": of for way, of in self._lost.items()},
            **{f"repeated_{way}": of for way, of in self._repeated.items()},
            **self._wrong,
        }
        return Verdict(
            sent=self._sent,
            acknowledged=self._acknowledged,
            unacknowledged=self._unacknowledged,
            seen={str(way): count for way, count in self._seen.items()},
            waiting=len(self._waiting),
            oldest_waiting_s=0.0 if oldest is None else max(0, now_us - self._logs[oldest].sent_us) / 1e6,
            lost={str(way): len(of) for way, of in self._lost.items()},
            late=self._late,
            repeated={str(way): len(of) for way, of in self._repeated.items()},
            unsent=len(self._wrong["unsent"]),
            altered=len(self._wrong["altered"]),
            out_of_order=len(self._wrong["out_of_order"]),
            not_judged=self._not_judged,
            delays={str(name): samples.summary() for name, samples in self._delays.items()},
            examples={name: list(of)[:EXAMPLES] for name, of in noted.items() if of},
        )

    def _lose(self, way: Way, until_us: int) -> None:
        for number in list(self._waiting):
            log = self._logs[number]
            if log.acknowledged_us is None or log.acknowledged_us + self._lost_after_us > until_us:
                continue
            if way not in self._ways or way in log.seen | log.excused | log.lost:
                continue
            log.lost.add(way)
            if not log.given_up:
                _note(self._lost[way], number)
            self._settle(number, log)

    def _settle(self, number: int, log: _Log) -> None:
        if log.acknowledged_us is not None and log.seen | log.excused | log.lost >= self._ways:
            self._waiting.pop(number, None)

    def _note_delay(self, name: str, log: _Log, at_us: int) -> None:
        seconds = max(0, at_us - log.sent_us) / 1e6
        self._delays[name].add(seconds)
        if self._on_delay is not None:
            self._on_delay(name, seconds)


def _note(noted: dict[int, None], number: int) -> None:
    if len(noted) < WRONG_MAX:
        noted[number] = None


class Walk:
    """One walk along pages. What it shows comes in ascending order, each log once."""

    def __init__(self, oracle: Oracle, began_us: int) -> None:
        self._oracle = oracle
        self._began_us = began_us
        self._shown: set[int] = set()
        self._last = 0

    def see(self, number: int, log_id: str, at_us: int, *, intact: bool = True) -> None:
        """The next log of the walk."""
        if number in self._shown:
            self._oracle.note_repeated(number)
        elif number < self._last:
            self._oracle.note_out_of_order(number)
        if len(self._shown) < 2 * WINDOW_LOGS:
            self._shown.add(number)
        self._last = max(self._last, number)
        self._oracle.see(Way.PAGES, number, log_id, at_us, intact=intact)

    def end(self) -> None:
        """It came to its end: what was acknowledged long enough before it began and it did not show is lost."""
        self._oracle.judge_pages(self._began_us)
