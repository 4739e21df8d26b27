"""What decides how rows are found."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest

from schemas.scope import ServiceScope
from search.predicate import (
    EVERYTHING,
    And,
    Contains,
    CorrelationIs,
    LevelIn,
    Matches,
    MetaCompare,
    MetaEquals,
    MinLevel,
    Not,
    Or,
    Predicate,
    ServiceIn,
    all_of,
    within,
)
from search.regex import parse_pattern
from store.scan_ways import Density, Traits, prefers_index

SHOP = ServiceIn(frozenset({"shop"}))


def density(rows: int, hits: int) -> Density:
    found = Density()
    found.saw(rows, hits)
    return found


@pytest.mark.parametrize(
    "hits, wanted, prefers",
    [
        (2000, 101, False),
        (100, 101, False),  # 1 in 20: two thousand rows more
        (0, 101, True),  # 1 in 4,000 at most
        (1, 101, True),
        (0, 1, False),  # 4,000 rows at most
        (0, 2, True),
        (30, 1, False),
        (20, 1001, True),
    ],
)
def test_an_index_is_asked_for_what_is_rare(hits: int, wanted: int, prefers: bool) -> None:
    assert prefers_index(density(2_000, hits), wanted=wanted) is prefers


def test_many_rows_beside_the_index_speak_against_it() -> None:
    rare = density(2_000, 0)
    assert prefers_index(rare, wanted=101, rows_beside=100_000)
    assert not prefers_index(rare, wanted=101, rows_beside=1_000_000)


def test_density_is_of_everything_seen() -> None:
    found = density(2_000, 0)
    assert found.rows_with(100) == pytest.approx(400_000, rel=0.01)
    found.saw(398_000, 40)
    assert found.rows_with(100) == pytest.approx(1_000_000, rel=0.02)


@pytest.mark.parametrize(
    "predicate, has_bulk_index",
    [
        (EVERYTHING, False),
        (SHOP, True),
        (all_of(Contains("x"), SHOP), True),
        (all_of(SHOP, within(ServiceScope(names=frozenset({"pay", "shop"})))), True),
        (ServiceIn(frozenset({"shop", "pay"})), False),
        (ServiceIn(prefixes=frozenset({"sh"})), False),
        (Or((SHOP, Contains("x"))), False),
        (Not(SHOP), False),
        (MinLevel(17), True),
        (MinLevel(16), False),
        (LevelIn(((21, 24),)), True),
        (LevelIn(((9, 12), (21, 24))), False),
    ],
)
def test_bulk_indexes_hold_one_service_and_errors(predicate: Predicate, has_bulk_index: bool) -> None:
    assert Traits.of(predicate).has_bulk_index is has_bulk_index


def test_traits_tell_what_is_slow_and_what_an_index_knows() -> None:
    assert Traits.of(EVERYTHING).is_everything
    assert not Traits.of(And((SHOP, MetaEquals(("a",), "1")))).is_slow
    assert Traits.of(Or((SHOP, Not(Contains("x"))))).is_slow
    assert Traits.of(Matches(parse_pattern("a|b"))).is_slow
    assert Traits.of(all_of(SHOP, CorrelationIs("c"))).correlation == "c"
    assert Traits.of(MetaCompare(("a",), ">", Decimal(1))).terms is None
    terms = Traits.of(all_of(MinLevel(17), MetaEquals(("a",), "1"))).terms
    assert terms is not None
    assert [json.loads(str(document)) for document in terms.params] == [{"a": "1"}, {"a": 1}]
