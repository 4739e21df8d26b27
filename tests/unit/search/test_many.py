"""One log against many predicates gives what each predicate's own test gives."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.record import Log
from search import many
from search.many import ManyMatcher
from search.match import compile_match
from search.predicate import (
    EVERYTHING,
    NOTHING,
    And,
    Contains,
    CorrelationIs,
    CorrelationPresent,
    FieldPresent,
    IdRange,
    LevelIn,
    Matches,
    MetaCompare,
    MetaEquals,
    MinLevel,
    Or,
    Predicate,
    ServiceIn,
    TimeRange,
    negate,
)
from search.regex import parse_pattern

SERVICES = ("pay", "payments", "auth", "Auth")
TEXTS = ("reset", "RESET", "k", "ß", "é", "É", "\u212a", "", "%", "a.c", "done_now", "σ", "x" * 30)
MESSAGES = (
    "",
    "Connection RESET by peer",
    "100% done_now",
    "K \u212a k",
    "STRASSE straße",
    "café CAFÉ",
    "ΟΔΟΣ οδος",
    "a.c abc",
)
VALUES: tuple[Any, ...] = (1, 1.0, "1", "true", True, None, "x", "", [1], {"b": "x"}, 2**70, 0.1)

_leaves = st.one_of(
    st.just(EVERYTHING),
    st.just(NOTHING),
    st.just(CorrelationPresent()),
    st.builds(
        ServiceIn,
        st.frozensets(st.sampled_from(SERVICES), max_size=2),
        st.frozensets(st.sampled_from(("", "pay", "A")), max_size=1),
    ),
    st.builds(MinLevel, st.integers(1, 24)),
    st.builds(lambda a, b: LevelIn(((min(a, b), max(a, b)),)), st.integers(1, 24), st.integers(1, 24)),
    st.builds(TimeRange, st.integers(0, 3) | st.none(), st.integers(0, 3) | st.none()),
    st.builds(IdRange, st.integers(0, 3) | st.none(), st.integers(0, 3) | st.none()),
    st.builds(CorrelationIs, st.sampled_from(("", "c1", "C1"))),
    st.builds(Contains, st.sampled_from(TEXTS)),
    st.builds(
        Matches, st.sampled_from([parse_pattern(text) for text in ("res[e]t", "(?i)reset", "^c", "[ab].c", ".*")])
    ),
    st.builds(FieldPresent, st.sampled_from((("a",), ("a", "b"), ("missing",)))),
    st.builds(
        MetaEquals, st.sampled_from((("a",), ("a", "b"))), st.sampled_from(("1", "1.0", "true", "x", "", "null"))
    ),
    st.builds(MetaCompare, st.just(("a",)), st.sampled_from((">", "<=")), st.just(Decimal("0.5"))),
)
_predicates = st.recursive(
    _leaves,
    lambda children: st.one_of(
        st.builds(negate, children),
        st.builds(And, st.lists(children, min_size=1, max_size=4).map(tuple)),
        st.builds(Or, st.lists(children, min_size=1, max_size=4).map(tuple)),
    ),
    max_leaves=6,
)
_logs = st.builds(
    Log,
    id=st.integers(0, 3),
    timestamp=st.integers(0, 3),
    level=st.integers(1, 24),
    service_name=st.sampled_from(SERVICES),
    message=st.sampled_from(MESSAGES),
    correlation_id=st.sampled_from((None, "", "c1", "C1")),
    metadata=st.dictionaries(st.sampled_from(("a", "a.b")), st.sampled_from(VALUES), max_size=2),
)


def plainly(predicates: list[Predicate], log: Log) -> list[int]:
    return [index for index, predicate in enumerate(predicates) if compile_match(predicate)(log)]


@given(predicates=st.lists(_predicates, max_size=12), logs=st.lists(_logs, min_size=1, max_size=4))
def test_the_same_predicates_match_as_by_themselves(predicates: list[Predicate], logs: list[Log]) -> None:
    matcher = ManyMatcher(predicates)
    for log in [*logs, *logs]:
        found = matcher.matches(log)
        assert sorted(found) == plainly(predicates, log)


@given(
    texts=st.lists(st.text(st.sampled_from("abAB.é\u212a[k \n"), max_size=3), min_size=60, max_size=80, unique=True),
    logs=st.lists(st.text(st.sampled_from("abABc.éÉ\u212a[kK \n"), max_size=12), min_size=1, max_size=4),
)
def test_many_texts_at_once_are_found_as_one_by_one(texts: list[str], logs: list[str]) -> None:
    predicates: list[Predicate] = [Contains(text) for text in texts]
    matcher = ManyMatcher(predicates)
    for message in logs:
        log = Log(1, 1, 9, "pay", message, None, {})
        assert sorted(matcher.matches(log)) == plainly(predicates, log)


def test_a_set_without_memory_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """RE2 says that nothing matches when its automaton does not fit."""
    monkeypatch.setattr(many, "_SET_BYTES_MAX", 6_000)
    predicates: list[Predicate] = [Contains(f"{number:03}-{number * 7919 % 1000:03}") for number in range(200)]
    matcher = ManyMatcher(predicates)
    message = " ".join(f"{number:03}-{number * 7919 % 1000:03}" for number in range(150))
    log = Log(1, 1, 9, "pay", message, None, {})
    assert sorted(matcher.matches(log)) == list(range(150))


def test_as_many_services_as_there_may_be_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(many, "BUCKETS_MAX", 3)
    matcher = ManyMatcher([ServiceIn(frozenset({"s1"})), Contains("x"), ServiceIn(frozenset(), frozenset({"s"}))])
    for _ in range(2):
        for number in range(5):
            found = matcher.matches(Log(1, 1, 9, f"s{number}", "x", None, {}))
            assert sorted(found) == ([0, 1, 2] if number == 1 else [1, 2])
