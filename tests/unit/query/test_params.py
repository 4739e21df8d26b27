"""Parameters mean what is declared; nothing is silently ignored."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query import params
from query.page import Question
from schemas.errors import InvalidInput
from search.params import ParameterError
from search.predicate import MinLevel
from store.port import Order

NOW = 1_767_225_600_000_000
MINUTE = 60_000_000


def find(*items: tuple[str, str]) -> Question:
    return params.parse_find(items, now_us=NOW)


def refusal(*items: tuple[str, str]) -> ParameterError:
    with pytest.raises(ParameterError) as caught:
        find(*items)
    return caught.value


def test_defaults_are_the_newest_hundred() -> None:
    question = find()
    assert (question.order, question.limit, question.token) == (Order.NEWEST_FIRST, 100, None)
    assert (question.start_us, question.end_us) == (None, None)


def test_an_unknown_parameter_is_refused_with_the_one_that_was_meant() -> None:
    assert "did you mean `level`?" in str(refusal(("levle", "ERROR")))
    assert "did you mean `service_name`?" in str(refusal(("service", "shop")))
    assert "did you mean `limit`?" in str(refusal(("LIMIT", "5")))
    far = refusal(("zzz", "5"))
    assert far.parameter == "zzz"
    assert "start_time" in str(far)


@pytest.mark.parametrize("text", ["0", "1001", "-1", "", "1e2", "1.0", " 1", "١", "9" * 30, "0x1", "ten", "1; DROP"])
def test_a_limit_outside_its_range_is_refused(text: str) -> None:
    assert "expected 1..1000" in str(refusal(("limit", text)))


@pytest.mark.parametrize(("text", "limit"), [("1", 1), ("1000", 1000), ("007", 7)])
def test_a_limit_in_its_range_is_taken(text: str, limit: int) -> None:
    assert find(("limit", text)).limit == limit


@pytest.mark.parametrize("name", ["limit", "order", "q", "regex", "query", "start_time", "min_level", "cursor"])
def test_a_single_parameter_given_twice_is_refused(name: str) -> None:
    assert "twice" in str(refusal((name, "1"), (name, "1")))


@pytest.mark.parametrize(
    "item",
    [
        ("order", "up"),
        ("start_time", "yesterday"),
        ("end_time", ""),
        ("end_time", "0000-01-01"),
        ("level", "loud"),
        ("min_level", ""),
        ("service_name", "a b"),
        ("correlation_id", ""),
        ("correlation_id", "x" * 129),
        ("q", "\0"),
        ("regex", "("),
        ("regex", r"(a)\1"),
        ("query", "level:"),
        ("cursor", ""),
        ("metadata.", "x"),
        ("metadata.a..b", "x"),
        ("metadata.a", "\0"),
    ],
)
def test_a_value_that_cannot_be_is_refused_by_name(item: tuple[str, str]) -> None:
    error = refusal(item)
    assert error.parameter == item[0]
    assert str(error).startswith(f"{item[0]}: ")


def test_a_start_that_is_not_before_the_end_is_refused() -> None:
    assert refusal(("start_time", "-1h"), ("end_time", "-2h")).parameter == "start_time"
    assert refusal(("start_time", "-1h"), ("end_time", "-1h")).parameter == "start_time"


def test_relative_times_are_before_now() -> None:
    question = find(("start_time", "-15m"), ("end_time", "now"))
    assert (question.start_us, question.end_us) == (NOW - 15 * MINUTE, NOW)


def test_the_canonical_text_is_the_same_for_the_same_question_and_no_other() -> None:
    base = (("service_name", "a"), ("service_name", "b"), ("level", "error"), ("start_time", "-15m"))
    same = (("start_time", "-15m"), ("level", "ERROR"), ("service_name", "b"), ("service_name", "a"), ("limit", "5"))
    assert find(*base).canonical == find(*same).canonical
    assert find(*base).canonical == params.parse_find(base, now_us=NOW + MINUTE).canonical
    others = [
        base[:3],
        (*base, ("order", "asc")),
        (*base, ("end_time", "now")),
        (*base, ("q", "x")),
        (*base[:3], ("start_time", "-16m")),
        (*base, ("metadata.a", "b")),
    ]
    assert len({find(*items).canonical for items in (base, *others)}) == 1 + len(others)


def test_all_parts_are_joined() -> None:
    question = find(("min_level", "warn"), ("q", "x"), ("metadata.user.id", "7"))
    assert MinLevel(13) in getattr(question.predicate, "children", ())
    assert len(getattr(question.predicate, "children", ())) == 3


@given(st.lists(st.tuples(st.sampled_from([p.name for p in params.FIND]) | st.text(max_size=8), st.text(max_size=30))))
@settings(deadline=None)
def test_whatever_comes_is_a_question_or_bad_input(items: list[tuple[str, str]]) -> None:
    for parse in (
        lambda: find(*items),
        lambda: params.parse_context(items),
        lambda: params.parse_correlation(items),
        lambda: params.parse_ledger(items, now_us=NOW, minutes_max=60),
        lambda: params.parse_log_id("".join(value for _, value in items)),
        lambda: params.parse_correlation_id("".join(value for _, value in items)),
    ):
        with contextlib.suppress(InvalidInput):
            parse()


def test_the_ledger_is_asked_on_whole_minutes_within_its_limit() -> None:
    assert params.parse_ledger([], now_us=NOW + 1, minutes_max=61) == (NOW - 60 * MINUTE, NOW + MINUTE, ())
    items = [("start_time", "-90s"), ("end_time", "now"), ("service_name", "b"), ("service_name", "a")]
    assert params.parse_ledger(items, now_us=NOW, minutes_max=60) == (NOW - 2 * MINUTE, NOW, ("b", "a"))
    with pytest.raises(ParameterError, match="at most 60 minutes"):
        params.parse_ledger([("start_time", "-61m")], now_us=NOW, minutes_max=60)
    with pytest.raises(ParameterError, match="service_name"):
        params.parse_ledger([("service_name", "a*")], now_us=NOW, minutes_max=60)


@pytest.mark.parametrize("text", ["", "-1", "1.0", "abc", "9223372036854775808", "1" * 40, "٣", "1 OR 1=1"])
def test_a_log_id_that_is_no_number_is_refused(text: str) -> None:
    with pytest.raises(ParameterError):
        params.parse_log_id(text)


def test_every_parameter_is_described_for_the_document() -> None:
    for declared in (params.FIND, params.CONTEXT, params.CORRELATION, params.LEDGER):
        for parameter in declared:
            shown = parameter.openapi()
            assert shown["in"] == "query"
            assert shown["description"]
            assert "type" in shown["schema"]


def test_a_tail_takes_what_a_page_takes_but_what_has_an_end() -> None:
    items = [("service_name", "shop"), ("start_time", "-1m"), ("metadata.a", "1"), ("query", "x")]
    tail = params.parse_tail([*items, ("from", "token")], now_us=NOW)
    assert (tail.token, tail.start_us, tail.items) == ("token", NOW - MINUTE, tuple(items))
    assert tail.predicate == find(*items).predicate
    assert tail.canonical == find(*items).tail_canonical
    for name in ("end_time", "order", "limit", "cursor"):
        with pytest.raises(ParameterError, match=name):
            params.parse_tail([(name, "1")], now_us=NOW)


def test_what_a_client_has_seen_last_goes_before_where_it_began() -> None:
    assert params.parse_tail([], now_us=NOW).token is None
    assert params.parse_tail([("from", "now")], now_us=NOW).token is None
    assert params.parse_tail([("from", "now")], now_us=NOW, last_event_id="a").token == "a"
    assert params.parse_tail([("from", "b")], now_us=NOW, last_event_id="").token == "b"
