"""How long each row is kept: which class it is of, and from when on nobody finds it.

A log is of the first class that it matches; a log of none is of the class `default`. The same rule in two forms: `classify`,
over whole columns, for those who write files; `hidden`, as a predicate, for those who read, which every engine compiles its own
way. A row is past its age when its timestamp is: pages leave it out from then on, whether or not its table or file is gone yet.

Pure, no clock; times are microseconds since the Unix epoch.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from functools import reduce
from typing import Final, Self

import pyarrow as pa
import pyarrow.compute as pc

from schemas.levels import band
from search.predicate import EVERYTHING, LevelIn, Predicate, ServiceIn, TimeRange, all_of, any_of, negate
from store.tiers.settings import DEFAULT_CLASS, RetentionClass, RetentionSettings

_DAY_US: Final = 86_400_000_000
_LEVELS: Final = (1, 24)


@dataclass(frozen=True, slots=True)
class _Rule:
    """Who is of a class. No names and no prefixes: every service."""

    name: str
    age_us: int
    names: frozenset[str]
    prefixes: frozenset[str]
    levels: tuple[int, int]
    """Inclusive."""

    @property
    def predicate(self) -> Predicate:
        services = ServiceIn(self.names, self.prefixes) if self.names or self.prefixes else EVERYTHING
        levels = LevelIn((self.levels,)) if self.levels != _LEVELS else EVERYTHING
        return all_of(services, levels)

    def mask(self, services: pa.DictionaryArray, levels: pa.Array) -> pa.Array:
        """True where a row matches."""
        found = pc.and_(pc.greater_equal(levels, self.levels[0]), pc.less_equal(levels, self.levels[1]))
        if not self.names and not self.prefixes:
            return found
        tests = [pc.is_in(services.dictionary, pa.array(sorted(self.names), pa.string()))]
        tests += [pc.starts_with(services.dictionary, prefix) for prefix in sorted(self.prefixes)]
        return pc.and_(found, reduce(pc.or_, tests).take(services.indices))


class RetentionPolicy:
    """The classes in force."""

    def __init__(self, rules: Iterable[_Rule], default_us: int) -> None:
        """Use `of`."""
        self._rules = tuple(rules)
        self._ages = {DEFAULT_CLASS: default_us} | {rule.name: rule.age_us for rule in self._rules}

    @classmethod
    def of(cls, retention: RetentionSettings, *, default_days: int) -> Self:
        """default_days: store.retention_days."""
        return cls(map(_rule, retention.classes), default_days * _DAY_US)

    @property
    def ages_us(self) -> Mapping[str, int]:
        """Class -> age, `default` first, the others in the order in which they are tried."""
        return self._ages

    @property
    def longest_us(self) -> int:
        """The age past which no row is kept."""
        return max(self._ages.values())

    @property
    def table(self) -> list[tuple[list[str], list[str], int, int, int]]:
        """(names, prefixes, least and greatest level, age in µs) in the order in which classes are tried, `default` last; every
        service has the empty prefix. For who writes the rule down elsewhere."""
        return [
            (
                sorted(rule.names),
                sorted(rule.prefixes) if rule.names or rule.prefixes else [""],
                *rule.levels,
                rule.age_us,
            )
            for rule in (*self._rules, _default(self._ages[DEFAULT_CLASS]))
        ]

    def age_us(self, name: str) -> int:
        """The age of a class. One that there is no more has the longest: a slip in the configuration deletes nothing."""
        return self._ages.get(name, self.longest_us)

    def classify(self, batch: pa.RecordBatch) -> pa.Array:
        """Rows (of store.segments.format.SCHEMA) -> the name of each one's class, as texts."""
        classes: pa.Array = pa.repeat(pa.scalar(DEFAULT_CLASS, pa.string()), len(batch))
        if not self._rules:
            return classes
        services = batch.column("service_name").dictionary_encode()
        levels = batch.column("level")
        for rule in reversed(self._rules):
            classes = pc.if_else(rule.mask(services, levels), rule.name, classes)
        return classes

    def hidden(self, now_us: int) -> Predicate:
        """True of the rows that are past their class's age: timestamp < now - age."""
        past = [TimeRange(end_us=now_us - self.longest_us)]
        shorter: list[Predicate] = []
        for place, rule in enumerate((*self._rules, _default(self._ages[DEFAULT_CLASS]))):
            if rule.age_us < self.longest_us:
                # Earlier classes that go at the same time or sooner need not be excepted: their rows are hidden as well.
                others = (negate(other.predicate) for other in self._rules[:place] if other.age_us > rule.age_us)
                shorter.append(all_of(TimeRange(end_us=now_us - rule.age_us), rule.predicate, *others))
        return any_of(*past, *shorter)

    def cutoff_us(self, now_us: int) -> int:
        """No row with this timestamp or a later one is hidden."""
        return now_us - min(self._ages.values())


def _rule(found: RetentionClass) -> _Rule:
    everybody = "*" in found.services
    return _Rule(
        found.name,
        found.days * _DAY_US,
        frozenset(() if everybody else (text for text in found.services if not text.endswith("*"))),
        frozenset(() if everybody else (text[:-1] for text in found.services if text.endswith("*"))),
        (
            band(found.min_level)[0] if found.min_level else _LEVELS[0],
            band(found.max_level)[1] if found.max_level else _LEVELS[1],
        ),
    )


def _default(age_us: int) -> _Rule:
    return _Rule(DEFAULT_CLASS, age_us, frozenset(), frozenset(), _LEVELS)
