"""The query language: what each form means, and that every mistake is named at its place."""

from __future__ import annotations

from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.language import DEPTH_MAX, QUERY_CHARS_MAX, TERMS_MAX, QueryError, parse
from search.predicate import (
    EVERYTHING,
    NOTHING,
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
    Predicate,
    ServiceIn,
    all_of,
    any_of,
    negate,
)
from search.regex import parse_pattern
from search.template import lines_of

A, B, C = Contains("a"), Contains("b"), Contains("c")
ERROR, WARN = LevelIn(((17, 20),)), LevelIn(((13, 16),))


def service(*names: str, prefixes: tuple[str, ...] = ()) -> ServiceIn:
    return ServiceIn(frozenset(names), frozenset(prefixes))


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", EVERYTHING),
        (" \t\n ", EVERYTHING),
        ("a", A),
        ("a b", all_of(A, B)),
        ("a AND b", all_of(A, B)),
        ("a OR b", any_of(A, B)),
        ("a b OR c", any_of(all_of(A, B), C)),
        ("a OR b c", any_of(A, all_of(B, C))),
        ("a (b OR c)", all_of(A, any_of(B, C))),
        ("(a)", A),
        ("((a b))", all_of(A, B)),
        ("a -b", all_of(A, negate(B))),
        ("NOT a", negate(A)),
        ("NOT NOT a", A),
        ("-(a OR b)", negate(any_of(A, B))),
        ("NOT(a)b", all_of(negate(A), B)),
        ("a or b", all_of(A, Contains("or"), B)),
        ("ORDER ANDROID NOTE", all_of(Contains("ORDER"), Contains("ANDROID"), Contains("NOTE"))),
        ('"OR"', Contains("OR")),
    ],
)
def test_words_are_joined_by_and_and_or_binds_looser(text: str, expected: Predicate) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text, expected",
    [
        ('"a b"', Contains("a b")),
        (r'"say \"hi\""', Contains('say "hi"')),
        (r'"C:\temp\\x"', Contains(r"C:\temp\x")),
        ('-"a b"', negate(Contains("a b"))),
        ("100%", Contains("100%")),
        ("user=5", Contains("user=5")),
        ("12:30:45", Contains("12:30:45")),
        ("https://example.org/x?y=1", Contains("https://example.org/x?y=1")),
        ("std::vector", Contains("std::vector")),
        ("main()", Contains("main()")),
        ("(f(x))", Contains("f(x)")),
        ("->", Contains("->")),
        ("a->b", Contains("a->b")),
        ("a - b", all_of(A, Contains("-"), B)),
        ("--verbose", Contains("--verbose")),
        ("=>", Contains("=>")),
        ("<init>", Contains("<init>")),
        ("déjà", Contains("déjà")),
        ("-é", negate(Contains("é"))),
        ("it's", Contains("it's")),
        ('msg="x', Contains('msg="x')),
    ],
)
def test_text_is_taken_as_written(text: str, expected: Predicate) -> None:
    assert parse(text) == expected


def test_a_pattern_is_its_lines() -> None:
    text = "user <*> left after <num> ms"
    assert parse(f'pattern:"{text}"') == parse('Pattern:"  user <*>  left after <num> ms "') == lines_of(text)
    assert parse("-pattern:LOOKING") == negate(lines_of("LOOKING"))
    assert parse("pattern:*") == EVERYTHING
    assert parse('pattern:"*"') == lines_of("*")
    assert parse("metadata.pattern:LOOKING") == MetaEquals(("pattern",), "LOOKING")


def test_a_pattern_is_found_by_its_id_where_it_is_known() -> None:
    known = {7: "user <*> left"}
    assert parse("pattern:0000000000000007", template_text=known.get) == lines_of("user <*> left")
    assert parse('pattern:"0000000000000007"', template_text=known.get) == lines_of("0000000000000007")
    with pytest.raises(QueryError, match="no pattern with the id 0000000000000008 is known") as caught:
        parse("a pattern:0000000000000008", template_text=known.get)
    assert caught.value.column == 11


@pytest.mark.parametrize(
    "text, pattern, ignore_case",
    [
        ("/ab+c/", "ab+c", False),
        ("/ab/i", "ab", True),
        ("/(?i)ab/", "(?i)ab", False),
        (r"/a\/b/", "a/b", False),
        (r"/a\\/", r"a\\", False),
        ("/a b/", "a b", False),
        ("message:/x$/i", "x$", True),
    ],
)
def test_regular_expressions_stand_between_slashes(text: str, pattern: str, ignore_case: bool) -> None:
    assert parse(text) == Matches(parse_pattern(pattern, ignore_case=ignore_case))


@pytest.mark.parametrize(
    "text, expected",
    [
        ("level:error", ERROR),
        ("level:ERR", ERROR),
        ("LEVEL:error", ERROR),
        ('level:"error"', ERROR),
        ("level:warn,error", LevelIn(((13, 20),))),
        ("level>=warn", MinLevel(13)),
        ("level>warn", MinLevel(17)),
        ("level:>=warn", MinLevel(13)),
        ("level<warn", LevelIn(((1, 12),))),
        ("level<=warn", LevelIn(((1, 16),))),
        ("level>fatal", NOTHING),
        ("level<trace", NOTHING),
        ("level:*", EVERYTHING),
        ("service:pay", service("pay")),
        ("service_name:pay", service("pay")),
        ("service:pay*", service(prefixes=("pay",))),
        ("service:a,b*,c.d/e_f-g", service("a", "c.d/e_f-g", prefixes=("b",))),
        ("service:*", EVERYTHING),
        ("correlation:abc-1", CorrelationIs("abc-1")),
        ('correlation_id:"a b"', CorrelationIs("a b")),
        ("correlation:*", CorrelationPresent()),
        ('correlation:"*"', CorrelationIs("*")),
        ("-correlation:*", negate(CorrelationPresent())),
        ("id:42", IdRange(42, 42)),
        ("id>42", IdRange(first=43)),
        ("id>=42", IdRange(first=42)),
        ("id<42", IdRange(last=41)),
        ("id<=42", IdRange(last=42)),
        ("id<0", NOTHING),
        (f"id>{2**63 - 1}", NOTHING),
        ("message:a", A),
        ('message:"a b"', Contains("a b")),
        ("message:*", EVERYTHING),
    ],
)
def test_known_fields_mean_the_columns_of_a_log(text: str, expected: Predicate) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text, expected",
    [
        ("user:bob", MetaEquals(("user",), "bob")),
        ("User:bob", MetaEquals(("User",), "bob")),
        ("http.status_code:200", MetaEquals(("http", "status_code"), "200")),
        ("metadata.level:x", MetaEquals(("level",), "x")),
        ("app.kubernetes.io/name:api", MetaEquals(("app", "kubernetes", "io/name"), "api")),
        ("@type:x", MetaEquals(("@type",), "x")),
        ('user:"Bob B"', MetaEquals(("user",), "Bob B")),
        ('user:""', MetaEquals(("user",), "")),
        ('user:"*"', MetaEquals(("user",), "*")),
        ('user:"a*"', MetaEquals(("user",), "a*")),
        ("path:/api/v1", MetaEquals(("path",), "/api/v1")),
        ("list:a,b", MetaEquals(("list",), "a,b")),
        ("time:12:30", MetaEquals(("time",), "12:30")),
        ("user:*", FieldPresent(("user",))),
        ("ms>10", MetaCompare(("ms",), ">", Decimal(10))),
        ("ms>=1.5", MetaCompare(("ms",), ">=", Decimal("1.5"))),
        ("ms<-1e3", MetaCompare(("ms",), "<", Decimal(-1000))),
        ("ms<=0", MetaCompare(("ms",), "<=", Decimal(0))),
        ("ms:>10", MetaCompare(("ms",), ">", Decimal(10))),
        ('ms>"10"', MetaCompare(("ms",), ">", Decimal(10))),
        ("(user:bob)", MetaEquals(("user",), "bob")),
        ("-user:bob", negate(MetaEquals(("user",), "bob"))),
    ],
)
def test_other_fields_are_metadata(text: str, expected: Predicate) -> None:
    assert parse(text) == expected


@pytest.mark.parametrize(
    "text, column, length, words",
    [
        ("level:", 7, 1, ["expected a value after 'level:'", "quotes"]),
        ("level:eror_", 7, 5, ["'eror_' is not a level", "did you mean error?"]),
        ("a level:warn,fetal", 14, 5, ["did you mean fatal?"]),
        ('level:"fetal"', 8, 5, ["did you mean fatal?"]),
        ("level:zzz", 7, 3, ["TRACE, DEBUG, INFO, WARN, ERROR, FATAL"]),
        ("level:warn,,error", 12, 1, ["each side of the comma"]),
        ("refused: no", 9, 1, ["expected a value after 'refused:'", '"quotes"']),
        ("service:a b*c service:x*y", 23, 3, ["not a service name"]),
        ("service>a", 1, 8, ["cannot be compared with >", "service:value"]),
        ("id:abc", 4, 3, ["expected an id"]),
        ("id:99999999999999999999", 4, 20, ["expected an id"]),
        ("ms>fast", 4, 4, ["expected a number after '>'"]),
        ("ms>1e2000", 4, 6, ["expected a number"]),
        ("ms>٣", 4, 1, ["expected a number"]),
        ("user:bo*", 8, 1, ["prefix with * works for service only", 'user:"bo*"']),
        ("a..b:c", 1, 4, ["must not be empty"]),
        (".".join("abcdefghi") + ":c", 1, 17, ["1..8 parts"]),
        ("timestamp>5", 1, 9, ["start_time", "metadata.timestamp"]),
        ("(a", 1, 1, ["expected ) to close"]),
        ("a)", 2, 1, ["closes nothing"]),
        ("()", 2, 1, ["expected a term before this )"]),
        ("a OR", 5, 1, ["expected a term here"]),
        ("OR a", 1, 2, ["expected a term before OR", '"OR"']),
        ("a OR OR b", 6, 2, ["expected a term before OR"]),
        ("a AND", 6, 1, ["expected a term here"]),
        ("NOT", 4, 1, ["expected a term here"]),
        ("-(a", 2, 1, ["expected ) to close"]),
        ('"a', 1, 1, ['expected " to close']),
        ('""', 1, 2, ["expected text between"]),
        ('"a"b', 4, 1, ["expected a space after the term"]),
        ("/a", 1, 1, ["expected / to close", "quotes"]),
        ("//", 1, 2, ["expected a regular expression"]),
        ("/api/v1/x", 6, 1, ["expected a space after the term", "quotes"]),
        ("a /b(c/", 5, 1, ["in the regular expression: expected ) to close this group"]),
        ("a\0", 2, 1, ["U+0000"]),
        ("ab\ud800", 3, 1, ["U+D800"]),
        ("correlation:" + "x" * 129, 13, 129, ["at most 128"]),
    ],
)
def test_a_mistake_is_named_with_its_place_and_what_was_expected(
    text: str, column: int, length: int, words: list[str]
) -> None:
    with pytest.raises(QueryError) as caught:
        parse(text)
    assert (caught.value.column, caught.value.length) == (column, length), caught.value
    assert str(caught.value).startswith(f"column {column}: ")
    for word in words:
        assert word in str(caught.value)


@pytest.mark.parametrize(
    "accepted, refused, column",
    [
        ("a" * QUERY_CHARS_MAX, "a" * (QUERY_CHARS_MAX + 1), QUERY_CHARS_MAX + 1),
        ("a " * TERMS_MAX, "a " * (TERMS_MAX + 1), 2 * TERMS_MAX + 1),
        ("(" * DEPTH_MAX + "a" + ")" * DEPTH_MAX, "(" * (DEPTH_MAX + 1) + "a" + ")" * (DEPTH_MAX + 1), DEPTH_MAX + 1),
        ("NOT " * DEPTH_MAX + "a", "NOT " * (DEPTH_MAX + 1) + "a", 4 * DEPTH_MAX + 1),
    ],
)
def test_size_is_limited(accepted: str, refused: str, column: int) -> None:
    parse(accepted)
    with pytest.raises(QueryError) as caught:
        parse(refused)
    assert caught.value.column == column


@given(st.text(st.sampled_from('ab:><="/\\()-* \t,.ORANDNTlevelserviced?+{}[]|^$é0123456789'), max_size=40))
def test_any_text_is_parsed_or_refused_at_a_place_in_it(text: str) -> None:
    error = _error_of(text)
    if error is not None:
        assert 1 <= error.column <= len(text) + 1
        assert error.length >= 1


def _error_of(text: str) -> QueryError | None:
    try:
        parse(text)
    except QueryError as error:
        return error
    return None
