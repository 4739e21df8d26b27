"""One log against many predicates: which of them does it match? For tails, alert rules and routes. Pure.

Conjunctions are taken apart. What depends on service and level alone is decided once for each pair of these (a *bucket*),
after which most predicates are out of the question. Of the others one cheap part is looked up for all together: correlation
ids and metadata fields in dictionaries, texts in one pass (RE2's set of literals, or one by one while there are few); what
remains is the predicate's own test (match.py). The answer is always that of the plain tests (a property test).

RE2's set says nothing when its memory runs out. So a pattern that always matches is among them: where it is missing, the texts
are sought one by one.

1,000 predicates of which 100 name the log's service: 7 µs a log (CPython 3.11, `bench live`), against 300 by plain tests.
Not for several threads: buckets are made as logs come. Bounded: BUCKETS_MAX of them, then all are made anew.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import re2

from schemas.record import Log
from search.letters import fold, is_bytewise
from search.match import Test, compile_match
from search.numbers import parse_number
from search.predicate import (
    And,
    Contains,
    CorrelationIs,
    Everything,
    LevelIn,
    LogView,
    Matches,
    MetaEquals,
    MinLevel,
    Nothing,
    Or,
    Predicate,
    ServiceIn,
    all_of,
    children_of,
)
from search.regex_dialects import required_text

BUCKETS_MAX: Final = 20_000
_ALTERNATIVES_MAX: Final = 16
"""Of a disjunction that are looked up one by one; of a larger one the whole is tested."""
_SET_TEXTS_MIN: Final = 40
"""From so many texts on one pass of RE2 is cheaper than seeking each: 50 ns a byte of message against 0.2 µs a text."""
_SET_BYTES_MAX: Final = 8 * 1024 * 1024
"""Memory of one set's automaton."""

_Hit = tuple[int, Test | None]
"""(index of the predicate, what remains to be tested)."""


@dataclass(slots=True)
class _Part:
    """One alternative of one predicate: all of its parts must hold."""

    index: int
    of_place: Test
    """Of what depends on service and level alone."""
    rest: tuple[Predicate, ...]


@dataclass(slots=True)
class _Bucket:
    """What is left to decide for the logs of one service and level."""

    plain: list[int] = field(default_factory=list)
    """Nothing."""
    correlations: dict[str, list[_Hit]] = field(default_factory=dict)
    fields: dict[str, dict[str, list[_Hit]]] = field(default_factory=dict)
    """Metadata key -> text -> hits."""
    texts: list[tuple[str, list[_Hit]]] = field(default_factory=list)
    """Lower-case text."""
    text_set: Any = None  # of re2, which has no types
    """Of all the texts, the pattern that always matches first."""
    tests: list[tuple[int, Test]] = field(default_factory=list)


class ManyMatcher:
    """Made of all predicates at once; make another when they change."""

    def __init__(self, predicates: Iterable[Predicate]) -> None:
        """predicates: numbered from 0 in their order."""
        self._by_service: dict[str, list[_Part]] = defaultdict(list)
        self._of_any: list[_Part] = []
        self._tests: dict[Predicate, Test] = {}
        self._has_alternatives = False
        for index, predicate in enumerate(predicates):
            self._add(index, predicate)
        self._buckets: dict[tuple[str, int], _Bucket] = {}
        self._same: dict[tuple[int, ...], _Bucket] = {}

    def matches(self, log: LogView) -> list[int]:
        """Numbers of the predicates that the log matches, each once, in no order."""
        place = (log.service_name, log.level)
        bucket = self._buckets.get(place)
        if bucket is None:
            bucket = self._bucket(*place)
        found = list(bucket.plain)
        if bucket.correlations and (hits := bucket.correlations.get(log.correlation_id or "")):
            found += _kept(hits, log)
        for key, by_text in bucket.fields.items():
            value = log.metadata.get(key)
            if isinstance(value, str) and (hits := by_text.get(value)):
                found += _kept(hits, log)
        if bucket.texts:
            found += _with_texts(bucket, log)
        for index, test in bucket.tests:
            if test(log):
                found.append(index)
        return list(set(found)) if self._has_alternatives and len(found) > 1 else found

    def _add(self, index: int, predicate: Predicate) -> None:
        alternatives: Sequence[Predicate] = (predicate,)
        if isinstance(predicate, Or) and len(predicate.children) <= _ALTERNATIVES_MAX:
            alternatives = predicate.children
            self._has_alternatives = True
        for alternative in alternatives:
            if isinstance(alternative, Nothing):
                continue
            parts = alternative.children if isinstance(alternative, And) else (alternative,)
            of_place = [part for part in parts if _is_of_place(part)]
            rest = tuple(part for part in parts if not _is_of_place(part))
            part = _Part(index, self._test(all_of(*of_place)), rest)
            names = next((each.names for each in of_place if isinstance(each, ServiceIn) and not each.prefixes), None)
            if names is None:
                self._of_any.append(part)
                continue
            for name in names:
                self._by_service[name].append(part)

    def _bucket(self, service_name: str, level: int) -> _Bucket:
        if len(self._buckets) >= BUCKETS_MAX:
            self._buckets.clear()
            self._same.clear()
        example = Log(0, 0, level, service_name, "", None, {})
        parts = [part for part in (*self._by_service.get(service_name, ()), *self._of_any) if part.of_place(example)]
        # Services that nobody names share what is asked of all.
        same = tuple(map(id, parts))
        bucket = self._same.get(same)
        if bucket is None:
            bucket = self._same[same] = self._filled(parts)
        self._buckets[service_name, level] = bucket
        return bucket

    def _filled(self, parts: Iterable[_Part]) -> _Bucket:
        bucket = _Bucket()
        texts: dict[str, list[_Hit]] = defaultdict(list)
        for part in parts:
            if not part.rest:
                bucket.plain.append(part.index)
                continue
            key = min(part.rest, key=_key_rank)
            others = tuple(each for each in part.rest if each is not key)
            hit: _Hit = (part.index, self._test(all_of(*others)) if others else None)
            match key:
                case CorrelationIs(correlation_id) if correlation_id:
                    bucket.correlations.setdefault(correlation_id, []).append(hit)
                case MetaEquals((name,), text) if _is_plain_text(text):
                    bucket.fields.setdefault(name, {}).setdefault(text, []).append(hit)
                case Contains(text) if is_bytewise(text):
                    texts[fold(text)].append(hit)
                case Matches(pattern) if required := required_text(pattern):
                    texts[required].append((part.index, self._test(all_of(*part.rest))))
                case _:
                    bucket.tests.append((part.index, self._test(all_of(*part.rest))))
        bucket.texts = list(texts.items())
        bucket.text_set = _set_of(list(texts)) if len(texts) >= _SET_TEXTS_MIN else None
        return bucket

    def _test(self, predicate: Predicate) -> Test:
        test = self._tests.get(predicate)
        if test is None:
            test = self._tests[predicate] = compile_match(predicate)
        return test


def _with_texts(bucket: _Bucket, log: LogView) -> list[int]:
    """Of the hits whose text is in the message. Only A-Z are mapped, as match.py does for such texts."""
    found: list[int] = []
    message = log.message
    if bucket.text_set is not None:
        lowered = message.lower().encode() if message.isascii() else message.encode().lower()
        numbers = bucket.text_set.Match(lowered)
        if numbers:
            for number in numbers:
                if number:
                    found += _kept(bucket.texts[number - 1][1], log)
            return found
    if message.isascii():
        text = message.lower()
        for needle, hits in bucket.texts:
            if needle in text:
                found += _kept(hits, log)
        return found
    text_bytes = message.encode().lower()
    for needle, hits in bucket.texts:
        if needle.encode() in text_bytes:
            found += _kept(hits, log)
    return found


def _kept(hits: list[_Hit], log: LogView) -> list[int]:
    return [index for index, test in hits if test is None or test(log)]


def _set_of(texts: Sequence[str]) -> Any:
    """RE2's set; None where it cannot be made."""
    options = re2.Options()
    options.log_errors = False
    options.literal = True
    options.max_mem = _SET_BYTES_MAX
    made = re2.Set.SearchSet(options)
    try:
        for text in ("", *texts):
            made.Add(text.encode())
        made.Compile()
    except re2.error:
        return None
    return made


def _is_of_place(predicate: Predicate) -> bool:
    """Whether service and level alone decide it."""
    if isinstance(predicate, ServiceIn | LevelIn | MinLevel | Everything | Nothing):
        return True
    children = children_of(predicate)
    return bool(children) and all(map(_is_of_place, children))


def _key_rank(predicate: Predicate) -> int:
    """Which part to look up: the one that fewest logs have."""
    match predicate:
        case CorrelationIs(text) if text:
            return 0
        case MetaEquals((_,), text) if _is_plain_text(text):
            return 1
        case Contains(text) if is_bytewise(text):
            return 2
        case Matches(pattern) if required_text(pattern):
            return 3
    return 4


def _is_plain_text(text: str) -> bool:
    """Whether only a JSON string can equal it: no number, no boolean."""
    return text not in ("true", "false") and parse_number(text) is None
