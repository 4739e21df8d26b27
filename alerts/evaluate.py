"""When a rule holds: pure, by event time.

A log goes into the bucket of its timestamp. A tick is a multiple of `every`; at tick T the window is [T - window, T), and T is
due once everything appended before T + lateness was read. What a tick decides therefore depends on which logs there are and not
on the order in which they came, so that a backtest over stored logs decides as the live evaluator did. Logs whose bucket was
looked at already are late: counted, and left out.

Bounded: a group has one running total, a number per bucket of the window and of what was read ahead of it, and SAMPLES_MAX
lines (and as many for each bucket that was not looked at yet). A pattern that is new (alerts/novelty.py) is a group of its own
while its first log is in the window. Groups past `groups_max` are watched together as one; which
ones, the order of arrival decides, so there (and only there) a backtest may differ.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from typing import Final, Literal

import msgspec

from alerts.fields import Reading, reading
from alerts.novelty import Novelty
from alerts.rules import Rule
from runtime.harmless import harmless
from schemas.levels import level_name
from schemas.record import Log

SAMPLES_MAX: Final = 3
SAMPLE_CHARS_MAX: Final = 500
OTHER: Final = "(other)"
_ERROR: Final = 17
_S: Final = 1_000_000


class Sample(msgspec.Struct, frozen=True, array_like=True, order=True):
    """One of the newest logs, cut and harmless."""

    timestamp: int
    """Microseconds since the Unix epoch."""
    id: int
    level: str
    service_name: str
    message: str


class Bucket(msgspec.Struct, array_like=True):
    """Logs of one group in one `every`."""

    count: int = 0
    errors: int = 0
    values: set[int] = msgspec.field(default_factory=set)
    """Hashes of different values, as many as the condition asks for at most."""
    samples: list[Sample] = msgspec.field(default_factory=list)
    """The newest ones, until the bucket was looked at."""


class Group(msgspec.Struct, array_like=True):
    """What is known of one group."""

    buckets: dict[int, Bucket] = msgspec.field(default_factory=dict)
    """timestamp // every -> logs; those before the window are gone."""
    count: int = 0
    """Of the window of the last tick."""
    errors: int = 0
    newest_us: int = 0
    """Timestamp of the newest log that a tick has seen; the tick at which the group came up where there is none yet."""
    is_heard: bool = False
    """A tick has seen a log of it."""
    pending_us: int | None = None
    """Tick since which the condition has held."""
    started_us: int | None = None
    """Tick at which the rule fired for this group; None while it does not."""
    samples: list[Sample] = msgspec.field(default_factory=list)
    first: int = 0
    """Bucket of the pattern's first log, for new patterns."""


class RuleState(msgspec.Struct):
    """All that is known of one rule; saved whole."""

    fingerprint: str
    tick_us: int
    """The last tick that was looked at."""
    start_us: int
    groups: dict[str, Group] = msgspec.field(default_factory=dict)
    """By the JSON text of the values; OVERFLOW for the rest."""
    late: int = 0
    """Logs that came after their bucket was looked at, since the rule began."""
    overflowed: int = 0
    """Logs of groups beyond `groups_max`."""
    miner: bytes = b""
    """For new patterns: see alerts/novelty.py."""
    known: dict[str, list[int]] = msgspec.field(default_factory=dict)


OVERFLOW: Final = ""
"""Key of the group of all groups beyond the limit."""


class Decision(msgspec.Struct, frozen=True):
    """A rule began to hold for a group, or does not hold any more."""

    alert_id: str
    """Stable: hash of rule, group and start."""
    rule: str
    group: tuple[str, ...]
    """Values of `group_labels`."""
    state: Literal["firing", "resolved"]
    at_us: int
    """Tick of the decision: event time."""
    started_us: int
    """Tick at which the rule began to fire."""
    value: float
    """What the condition compares: logs, logs a time, a share, values, or seconds of silence."""
    count: int
    """Logs in the window."""
    samples: tuple[Sample, ...] = ()
    """The newest logs, newest first."""
    reason: str = ""
    """Why it was resolved, where the condition did not say so."""


class Evaluator:
    """One rule. Feed it the logs that its query matches, then say how far everything was read."""

    def __init__(self, rule: Rule, state: RuleState) -> None:
        """state: of this rule's fingerprint; changed in place."""
        document = rule.document
        self.rule = rule
        self.state = state
        self._every_us = document.every_s * _S
        self._window = document.window // document.every_s
        self._lateness_us = document.lateness * _S
        learnt = document.condition.new_pattern
        self._novelty = None if learnt is None else Novelty(state.miner, state.known)
        self._learns_until_us = state.start_us + (learnt.learn * _S if learnt else 0)
        self._labels = document.group_labels
        fields = self._labels if learnt is None else self._labels[:-1]  # the last one is the pattern
        self._fields: tuple[Reading, ...] = tuple(map(reading, fields))
        distinct = document.condition.distinct
        self._distinct: Reading | None = reading(distinct.field) if distinct else None
        self._values_max = distinct.at_least if distinct else 0
        self.is_dirty = True
        """Whether the state differs from what was saved last; the caller sets it back."""

    @property
    def lateness_us(self) -> int:
        """How far behind what was read a tick stays."""
        return self._lateness_us

    def add(self, log: Log) -> None:
        """Count a log that the rule's query matches."""
        state = self.state
        index = log.timestamp // self._every_us
        if (index + 1) * self._every_us <= state.tick_us:
            if log.timestamp >= state.start_us:
                state.late += 1
                self.is_dirty = True
            return
        group = self._group(log, index)
        if group is None:
            return
        self.is_dirty = True
        bucket = group.buckets.get(index)
        if bucket is None:
            bucket = group.buckets[index] = Bucket()
        bucket.count += 1
        if log.level >= _ERROR:
            bucket.errors += 1
        if self._distinct is not None and len(bucket.values) < self._values_max:
            value = self._distinct(log)
            if value:
                bucket.values.add(
                    int.from_bytes(hashlib.blake2b(value.encode("utf-8", "replace"), digest_size=7).digest())
                )
        samples = bucket.samples
        if len(samples) < SAMPLES_MAX or (log.timestamp, log.id) > (samples[0].timestamp, samples[0].id):
            samples.append(_sample(log))
            samples.sort()
            del samples[:-SAMPLES_MAX]

    def _group(self, log: Log, index: int) -> Group | None:
        """The group that a log counts in; None where it says nothing, since its pattern is known. index: of its bucket."""
        groups, is_told = self.state.groups, True
        values = [read(log) for read in self._fields]
        if self._novelty is not None:
            text, is_new = self._novelty.look(log.service_name, log.message)
            is_told = is_new and log.timestamp >= self._learns_until_us
            self.is_dirty |= self._novelty.has_learnt
            values.append(text)
        key = msgspec.json.encode(values).decode() if values else _ONLY
        group = groups.get(key)
        if group is not None:
            group.first = min(group.first, index)
            return group
        if not is_told:
            return None
        # Places are for groups that say something: one that is only still here to be resolved counts as well.
        if len(groups) - (OVERFLOW in groups) >= (self.rule.document.groups_max if values else 1):
            self.state.overflowed += 1
            key = OVERFLOW
        group = groups.setdefault(key, Group(newest_us=self.state.tick_us))
        if self._novelty is not None:
            group.first = max(group.first, index)
        return group

    def advance(self, read_us: int, *, looks_max: int | None = None) -> Iterator[Decision]:
        """Look at every tick that is due, now that everything appended before read_us was read. looks_max: at groups, after
        which the rest is left for the next call; one tick at least is gone through."""
        state, every_us = self.state, self._every_us
        looks = 0
        last_us = (read_us - self._lateness_us) // every_us * every_us
        is_silence = self.rule.document.condition.silence is not None
        if is_silence and not self._fields and last_us > state.tick_us and not state.groups:
            state.groups[_ONLY] = Group(newest_us=state.start_us)
        while state.tick_us < last_us:
            self.is_dirty = True
            if not state.groups:
                state.tick_us = last_us
                return
            state.tick_us += every_us
            looks += len(state.groups)
            for key in sorted(state.groups):
                yield from self._look(key, state.groups[key], state.tick_us)
            if looks_max is not None and looks >= looks_max:
                return

    def saved(self) -> RuleState:
        """The state with all that is known."""
        if self._novelty is not None and self._novelty.has_learnt:
            self.state.miner, self.state.known = self._novelty.saved()
        return self.state

    def end(self, reason: str) -> Iterator[Decision]:
        """Resolve what fires, and forget everything: the rule has gone, or is another now."""
        for key, group in sorted(self.state.groups.items()):
            if group.started_us is not None:
                yield self._resolved(key, group, self.state.tick_us, 0.0, reason)
        self.state.groups.clear()
        self.is_dirty = True

    def _look(self, key: str, group: Group, tick_us: int) -> Iterator[Decision]:
        entering = tick_us // self._every_us - 1
        if (bucket := group.buckets.get(entering)) is not None:
            group.count += bucket.count
            group.errors += bucket.errors
            group.samples = sorted([*group.samples, *bucket.samples])[-SAMPLES_MAX:]
            group.newest_us, group.is_heard = max(group.newest_us, group.samples[-1].timestamp), True
            bucket.samples = []
        if (bucket := group.buckets.pop(entering - self._window, None)) is not None:
            group.count -= bucket.count
            group.errors -= bucket.errors
        silence = self.rule.document.condition.silence
        if silence is None and group.samples:
            first_us = tick_us - self._window * self._every_us
            group.samples = [sample for sample in group.samples if sample.timestamp >= first_us]
        holds, value = self._holds(key, group, tick_us)
        is_young = group.first > entering - self._window
        if holds:
            if group.pending_us is None:
                group.pending_us = tick_us
            if group.started_us is None and tick_us - group.pending_us >= self.rule.document.for_ * _S:
                group.started_us = tick_us
                yield self._decision(key, group, "firing", tick_us, value)
        else:
            if group.started_us is not None:
                yield self._resolved(key, group, tick_us, value, "")
            group.pending_us = group.started_us = None
        if silence is not None:
            forget_us = max(silence.forget, 2 * self.rule.document.window) * _S
            if self._fields and group.is_heard and tick_us - group.newest_us >= forget_us:
                if group.started_us is not None:
                    yield self._resolved(key, group, tick_us, value, "silent for so long that it is forgotten")
                # Logs of later looks may be there already: whether they are is chance, so they begin the group anew.
                self.state.groups[key] = Group(buckets=group.buckets, newest_us=tick_us)
                group = self.state.groups[key]
        is_needed = bool(group.buckets) or holds or (silence is not None and (group.is_heard or not self._fields))
        if not (is_needed if self._novelty is None else is_young):
            del self.state.groups[key]

    def _holds(self, key: str, group: Group, tick_us: int) -> tuple[bool, float]:
        document = self.rule.document
        condition = document.condition
        if condition.count is not None:
            return group.count >= condition.count.at_least, float(group.count)
        if condition.rate is not None:
            rate = group.count * condition.rate.per / document.window
            return rate >= condition.rate.at_least, rate
        if condition.error_ratio is not None:
            ratio = group.errors / group.count if group.count else 0.0
            is_enough = group.count >= condition.error_ratio.min_logs
            return is_enough and ratio >= condition.error_ratio.at_least, ratio
        if condition.distinct is not None:
            first, last = tick_us // self._every_us - self._window, tick_us // self._every_us
            found: set[int] = set()
            for index, bucket in group.buckets.items():
                if first <= index < last:
                    found |= bucket.values
            return len(found) >= condition.distinct.at_least, float(len(found))
        if condition.new_pattern is not None:
            last = tick_us // self._every_us - 1
            return last - self._window < group.first <= last, float(group.count)
        # Silence. The rest of many groups is never silent as one; before a whole window was seen nobody knows.
        is_known = (group.is_heard or not self._fields) and key != OVERFLOW
        is_known &= tick_us - self.state.start_us >= document.window * _S
        return is_known and group.count == 0, max(0.0, (tick_us - group.newest_us) / _S)

    def _resolved(self, key: str, group: Group, tick_us: int, value: float, reason: str) -> Decision:
        decision = self._decision(key, group, "resolved", tick_us, value, reason)
        group.started_us = None
        return decision

    def _decision(
        self,
        key: str,
        group: Group,
        state: Literal["firing", "resolved"],
        tick_us: int,
        value: float,
        reason: str = "",
    ) -> Decision:
        assert group.started_us is not None
        values = self._values(key)
        return Decision(
            alert_id=alert_id(self.rule.name, values, group.started_us),
            rule=self.rule.name,
            group=values,
            state=state,
            at_us=tick_us,
            started_us=group.started_us,
            value=value,
            count=group.count,
            samples=tuple(reversed(group.samples)),
            reason=reason,
        )

    def _values(self, key: str) -> tuple[str, ...]:
        if key == OVERFLOW:
            return (OTHER,) * len(self._labels)
        return tuple(msgspec.json.decode(key, type=list[str]))


_ONLY: Final = "[]"


def new_state(rule: Rule, read_us: int) -> RuleState:
    """Of a rule that begins now: it counts what has a timestamp from the last tick on."""
    every_us = rule.document.every_s * _S
    start_us = (read_us - rule.document.lateness * _S) // every_us * every_us
    return RuleState(rule.fingerprint, start_us, start_us)


def alert_id(rule: str, group: tuple[str, ...], started_us: int) -> str:
    """Stable name of one firing."""
    return hashlib.sha256(msgspec.json.encode([rule, group, started_us])).hexdigest()[:32]


def _sample(log: Log) -> Sample:
    message = harmless(log.message[:SAMPLE_CHARS_MAX])
    return Sample(log.timestamp, log.id, level_name(log.level), log.service_name, message[:SAMPLE_CHARS_MAX])
