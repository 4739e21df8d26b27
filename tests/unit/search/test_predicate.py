"""The tree itself: constructors, the canonical form, what the planner may conclude, and the case table behind it."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from schemas.record import Log
from schemas.scope import ALL_SERVICES, NO_SERVICES, ServiceScope
from search.bounds import correlation_of, min_severity_of, services_of, time_bounds
from search.fields import key_chains
from search.letters import LOWER, fold, is_bytewise
from search.match import compile_match
from search.numbers import json_text, normal_form, parse_number
from search.predicate import (
    EVERYTHING,
    NOTHING,
    And,
    Contains,
    CorrelationIs,
    FieldPresent,
    IdRange,
    LevelIn,
    Matches,
    MetaCompare,
    MetaEquals,
    MinLevel,
    Not,
    Or,
    Predicate,
    ServiceIn,
    TimeRange,
    all_of,
    any_of,
    canonical,
    negate,
    within,
)
from search.regex import parse_pattern
from search.sql_duckdb import compile_duckdb
from search.sql_postgres import compile_postgres

A, B, C = Contains("a"), Contains("b"), Contains("c")


def service(*names: str, prefixes: tuple[str, ...] = ()) -> ServiceIn:
    return ServiceIn(frozenset(names), frozenset(prefixes))


def test_constructors_simplify() -> None:
    assert all_of() == EVERYTHING
    assert any_of() == NOTHING
    assert all_of(A) == any_of(A) == A
    assert all_of(A, EVERYTHING, B) == And((A, B))
    assert all_of(A, NOTHING) == NOTHING
    assert any_of(A, NOTHING, B) == Or((A, B))
    assert any_of(A, EVERYTHING) == EVERYTHING
    assert all_of(A, And((B, And((C, A))))) == And((A, B, C))
    assert any_of(A, Or((A, B))) == Or((A, B))
    assert all_of(Or((A, B)), C) == And((Or((A, B)), C))
    assert negate(negate(A)) == A
    assert negate(EVERYTHING) == NOTHING
    assert negate(NOTHING) == EVERYTHING


def test_levels_are_merged() -> None:
    assert LevelIn(((17, 20), (13, 16))) == LevelIn(((13, 20),))


def test_a_scope_becomes_a_predicate() -> None:
    assert within(ALL_SERVICES) == EVERYTHING
    assert within(NO_SERVICES) == NOTHING
    audit = frozenset({"audit"})
    assert within(ServiceScope(everything=True, excluded=audit)) == negate(ServiceIn(audit))
    assert within(ServiceScope(names=audit, excluded=audit)) == NOTHING
    assert within(ServiceScope(names=frozenset("a"), prefixes=frozenset("b"))) == service("a", prefixes=("b",))


@pytest.mark.parametrize(
    "make",
    [
        lambda: Contains("a\0"),
        lambda: Contains("\ud800"),
        lambda: CorrelationIs("\0"),
        lambda: service("a\0"),
        lambda: MetaEquals(("a",), "\0"),
        lambda: MetaEquals((), "x"),
        lambda: MetaEquals(("a", ""), "x"),
        lambda: FieldPresent(("a*",)),
        lambda: FieldPresent(tuple("abcdefghi")),
        lambda: MetaCompare(("a",), ">", Decimal("NaN")),
        lambda: MetaCompare(("a",), ">", Decimal("1e1001")),
        lambda: MinLevel(0),
        lambda: MinLevel(25),
        lambda: LevelIn(((5, 4),)),
        lambda: TimeRange(start_us=-(10**18)),
        lambda: TimeRange(end_us=10**18),
        lambda: IdRange(first=-1),
        lambda: IdRange(last=2**63),
    ],
)
def test_what_no_engine_could_evaluate_cannot_be_built(make: Any) -> None:
    with pytest.raises(ValueError):
        make()


def test_canonical_form_is_equal_for_equal_meaning_and_else_different() -> None:
    same: list[tuple[Predicate, Predicate]] = [
        (And((A, B)), And((B, A, B))),
        (Contains("ÀB"), Contains("àb")),
        (service("a", "b"), service("b", "a")),
        (MetaCompare(("a",), ">", Decimal("1.0")), MetaCompare(("a",), ">", Decimal("1"))),
        (Matches(parse_pattern("(?:a)b*?")), Matches(parse_pattern("ab*"))),
        (MinLevel(17), LevelIn(((17, 24),))),
    ]
    for left, right in same:
        assert canonical(left) == canonical(right)
    different: list[Predicate] = [
        EVERYTHING, NOTHING, A, B, And((A, B)), Or((A, B)), Not(A), service("a"), service(prefixes=("a",)), MinLevel(1),
        LevelIn(()), TimeRange(1, 2), TimeRange(2, 1), IdRange(1, 2), CorrelationIs("a"), FieldPresent(("a",)),
        MetaEquals(("a",), "1"), MetaEquals(("a",), "1.0"), MetaEquals(("a", "b"), "1"), MetaEquals(("a.b",), "1"),
        MetaCompare(("a",), ">", Decimal(1)), MetaCompare(("a",), ">=", Decimal(1)), Matches(parse_pattern("a")),
        And((A, Or((B, C)))), Or((And((A, B)), C)),
    ]  # fmt: skip
    assert len({canonical(predicate) for predicate in different}) == len(different)


def test_canonical_form_never_changes() -> None:
    """Cursors and stored rules hold hashes of it."""
    predicate = all_of(
        MinLevel(17), service("b", "a"), negate(Contains("É")), MetaCompare(("x", "y"), "<", Decimal("-1.50"))
    )
    assert canonical(predicate) == (
        b'["predicate-1",["And",["LevelIn",[17,24]],["MetaCompare",["x","y"],"<","-15e-1"],["Not",["Contains","\\u00e9"]],'
        b'["ServiceIn",["a","b"],[]]]]'
    )


@pytest.mark.parametrize(
    "predicate, expected",
    [
        (EVERYTHING, None),
        (NOTHING, service()),
        (service("a"), service("a")),
        (Not(service("a")), None),
        (And((A, service("a", "b"), service("b", "c"))), service("b")),
        (And((service("pay-1", "x"), service(prefixes=("pay",)))), service("pay-1")),
        (And((service(prefixes=("pay", "x")), service(prefixes=("pay-", "y")))), service(prefixes=("pay-",))),
        (And((service("a"), service("b"))), service()),
        (Or((service("a"), And((A, service("b"))))), service("a", "b")),
        (Or((service("a"), A)), None),
        (Or((service("a"), NOTHING)), service("a")),
        (And((service("a"), NOTHING)), service()),
    ],
)
def test_services_that_a_match_must_be_of(predicate: Predicate, expected: ServiceIn | None) -> None:
    assert services_of(predicate) == expected


def test_correlation_id_that_a_match_must_have() -> None:
    one, two = CorrelationIs("1"), CorrelationIs("2")
    assert correlation_of(And((A, one))) == "1"
    assert correlation_of(Or((one, And((A, one))))) == "1"
    assert correlation_of(Or((one, two))) is None
    assert correlation_of(Or((one, A))) is None
    assert correlation_of(Or(())) is None
    assert correlation_of(Not(one)) is None


@pytest.mark.parametrize(
    "predicate, expected",
    [
        (EVERYTHING, TimeRange()),
        (TimeRange(1, 5), TimeRange(1, 5)),
        (And((TimeRange(1, None), TimeRange(3, 9), A)), TimeRange(3, 9)),
        (Or((TimeRange(1, 2), TimeRange(5, 6))), TimeRange(1, 6)),
        (Or((TimeRange(1, 2), TimeRange(5, None))), TimeRange(1, None)),
        (Or((TimeRange(1, 2), A)), TimeRange()),
        (Or((TimeRange(5, 6), NOTHING)), TimeRange(5, 6)),
        (Not(TimeRange(1, 2)), TimeRange()),
        (NOTHING, TimeRange(0, 0)),
    ],
)
def test_time_that_a_match_must_be_in(predicate: Predicate, expected: TimeRange) -> None:
    assert time_bounds(predicate) == expected


@pytest.mark.parametrize(
    "predicate, expected",
    [
        (EVERYTHING, 1),
        (MinLevel(13), 13),
        (LevelIn(((17, 20), (5, 8))), 5),
        (And((MinLevel(9), LevelIn(((17, 20),)))), 17),
        (Or((MinLevel(9), MinLevel(17))), 9),
        (Or((MinLevel(9), A)), 1),
        (Not(MinLevel(9)), 1),
        (NOTHING, 24),
    ],
)
def test_least_severity_that_a_match_can_have(predicate: Predicate, expected: int) -> None:
    assert min_severity_of(predicate) == expected


def test_values_are_never_in_the_sql_text() -> None:
    hostile = "x'; DROP TABLE logs; --%s?"
    predicate = And(
        (
            Contains(hostile),
            Contains(hostile + "é"),
            CorrelationIs(hostile),
            service(hostile, prefixes=(hostile,)),
            MetaEquals((hostile, 'quote"'), hostile),
            FieldPresent((hostile,)),
            MetaCompare((hostile,), ">", Decimal("12345.25")),
            Matches(parse_pattern("DROP\\?%")),
        )
    )
    postgres, duck = compile_postgres(predicate), compile_duckdb(predicate)
    for text in (postgres.text, duck.text):
        assert "DROP" not in text
        assert "12345" not in text
    assert postgres.text.count("%") == postgres.text.count("%s") == len(postgres.params)
    assert duck.text.count("?") == len(duck.params)


def test_case_table_is_the_frozen_one() -> None:
    assert len(LOWER) == 1431
    assert all(lower not in LOWER for lower in LOWER.values()), "mapping twice changes nothing"
    assert all((upper < 128) == (lower < 128) for upper, lower in LOWER.items()), "ASCII pairs with ASCII only"
    assert fold("AZ\u00c9\u1e9e\u03a3\u03c2\u212b") == "az\u00e9\u00df\u03c3\u03c2\u00e5"
    assert fold("\u0130\u212a") == "\u0130\u212a"
    assert [is_bytewise(text) for text in ("abc", "İ漢", "é", "a É")] == [True, True, False, False]


@pytest.mark.parametrize(
    "text, form, written",
    [
        ("0", (0, 0, ""), "0"),
        ("-0.0", (0, 0, ""), "0"),
        ("0e99", (0, 0, ""), "0"),
        ("100", (1, 3, "1"), "1e2"),
        ("-12.50", (-1, 2, "125"), "-125e-1"),
        ("0.001", (1, -2, "1"), "1e-3"),
    ],
)
def test_numbers_have_one_form(text: str, form: tuple[int, int, str], written: str) -> None:
    number = parse_number(text)
    assert number is not None
    assert normal_form(number) == form
    assert json_text(number) == written
    assert Decimal(written) == number


@pytest.mark.parametrize(
    "text", ["", "+1", "01", ".5", "5.", "1e", "0x1", "NaN", "Infinity", "1 ", "１", "1_0", "1e1001", "1" * 101]
)
def test_only_json_numbers_are_numbers(text: str) -> None:
    assert parse_number(text) is None


def test_a_dotted_name_finds_every_nesting() -> None:
    assert list(key_chains(("a", "b", "c"))) == [("a", "b", "c"), ("a", "b.c"), ("a.b.c",)]
    found: list[dict[str, Any]] = [
        {"a": {"b": {"c": 1}}},
        {"a": {"b.c": 1}},
        {"a.b.c": 1},
        {"a.b.c": 1, "a": 2},
        {"a.b.c": 2, "a": {"b": {"c": 1}}},
    ]
    test = compile_match(MetaEquals(("a", "b", "c"), "1"))
    assert [metadata for metadata in found if not test(Log(1, 0, 9, "s", "", None, metadata))] == []
    missing: list[dict[str, Any]] = [
        {"a.b": {"c": 1}},
        {"a": [{"b": {"c": 1}}]},
        {"a": {"b": {"c": None}}},
        {"c": 1},
    ]
    test = compile_match(FieldPresent(("a", "b", "c")))
    assert [metadata for metadata in missing if test(Log(1, 0, 9, "s", "", None, metadata))] == []


def test_no_message_makes_matching_raise() -> None:
    predicate = all_of(
        Contains("é"), Contains("k"), Matches(parse_pattern("k|é")), MetaCompare(("n",), ">", Decimal("1e400"))
    )
    assert compile_match(any_of(predicate, A))(Log(1, 0, 9, "s", "a\0", None, {"n": 10**5000})) is True
