"""LogQL's subset: what is read, what is refused and where, and which logs it finds."""

from __future__ import annotations

from typing import Any

import pytest

from query.loki.logql import QUERY_CHARS_MAX, parse, parse_bytes, parse_duration_s, parse_logs
from query.loki.pipeline import needs_services, plan
from query.loki.syntax import Constant, LogQLError, LogQuery, Measure, MetricQuery
from schemas.levels import parse_level
from schemas.record import Log
from search.match import compile_match
from search.predicate import LevelIn, Predicate, ServiceIn, children_of

SERVICES = ("shop", "pay/api", "pay/db", "mail")
MINUTE_US = 60_000_000


def log(
    message: str = "m", *, level: str = "INFO", service: str = "shop", story: str | None = None, **metadata: Any
) -> Log:
    return Log(1, 1, parse_level(level), service, message, story, metadata)


def finds(text: str, one: Log) -> bool:
    """Whether the query shows the log."""
    compiled = plan(parse_logs(text), SERVICES)
    return compile_match(compiled.predicate)(one) and compiled.labelled(one) is not None


# Which logs

PAY = log(
    'level=warn msg="Payment declined" status=502 took=1.5s size=20kb',
    level="WARN",
    service="pay/api",
    story="4bf9",
    http={"status": 502, "method": "GET"},
    user_id="u7",
    pod="pay-0",
    ok=True,
)


@pytest.mark.parametrize(
    ("query", "is_found"),
    [
        ("{}", True),
        ('{service_name="pay/api"}', True),
        ('{service_name="pay"}', False),
        ('{service_name!="shop"}', True),
        ('{app="pay/api"}', True),
        ('{job="pay/api",level="warn"}', True),
        ('{level="warning"}', True),
        ('{level="WARN"}', True),
        ('{detected_level="warn"}', True),
        ('{level="unknown"}', False),
        ('{level!="error"}', True),
        ('{level=~"warn|error"}', True),
        ('{level=~"w.*"}', True),
        ('{level=~"(?i)WARN"}', True),
        ('{level!~"warn|error"}', False),
        ('{service_name=~"pay/.*"}', True),
        ('{service_name=~"pay"}', False),
        ('{service_name=~"shop|pay/api"}', True),
        ('{service_name=~"(shop|pay/api)"}', True),
        ('{service_name=~".+"}', True),
        ('{service_name=~".*"}', True),
        ('{service_name!~"pay/.*"}', False),
        ('{service_name!~".+"}', False),
        ('{app=~"pay/a.i"}', True),
        ('{service_name=""}', False),
        ('{correlation_id="4bf9"}', True),
        ('{trace_id="4bf9"}', True),
        ('{correlation_id="4"}', False),
        ('{correlation_id!=""}', True),
        ('{correlation_id=~"4b.*"}', True),
        ('{pod="pay-0"}', True),
        ('{pod=~"pay-[0-9]+"}', True),
        ('{pod=~"pay"}', False),
        ('{pod=~"pay-0|x"}', True),
        ('{pod=~"pay\\\\-0"}', True),
        ('{pod!~"pay-[0-9]+"}', False),
        ('{zone=""}', True),
        ('{zone!=""}', False),
        ('{zone!="a"}', True),
        ('{zone=~".*"}', True),
        ('{zone=~".+"}', False),
        ('{http_status="502"}', True),
        ('{http_method="GET"}', True),
        ('{user_id="u7"}', True),
        ('{ok="true"}', True),
        ('{pod="pay-0", user_id="u8"}', False),
        ('{} |= "Payment"', True),
        ('{} |= "payment"', False),
        ('{} |~ "(?i)payment"', True),
        ('{} != "Payment"', False),
        ('{} != "refund"', True),
        ('{} |= "refund" or "declined"', True),
        ('{} !~ "refund|declined"', False),
        ("{} |~ `status=5\\d\\d`", True),
        ('{} |= `msg="Payment declined"`', True),
        ('{} |= ""', True),
        ('{} |= "."', True),
        ('{} |= "*"', False),
        ('{} |= "1.5s" |= "20kb" != "x"', True),
        ("{} | http_status=502", True),
        ("{} | http_status>=500", True),
        ("{} | http_status<500", False),
        ("{} | http_status!=502", False),
        ('{} | pod="pay-0" or pod="x"', True),
        ('{} | pod="x" or http_status>500', True),
        ('{} | pod="x" and http_status>500', False),
        ('{} | pod="pay-0", user_id="u7"', True),
        ('{} | (pod="x" or pod="pay-0") and level="warn"', True),
        ('{} | logfmt | status="502"', True),
        ("{} | logfmt | status>=500 and took>1s", True),
        ("{} | logfmt | took>2s", False),
        ("{} | logfmt | took>=1500ms", True),
        ("{} | logfmt | size>10kb", True),
        ("{} | logfmt | size>10MB", False),
        ('{} | logfmt | msg="Payment declined"', True),
        ('{} | logfmt | msg=~"Payment.*"', True),
        ('{} | logfmt | msg!~"Payment.*"', False),
        ('{} | logfmt | level="warn"', True),
        ('{} | logfmt | level_extracted="warn"', True),
        ('{} | logfmt | nothing=""', True),
        ("{} | logfmt | nothing>1", False),
        ("{} | json", True),
        ('{} | json | __error__=""', False),
        ('{} | json | __error__!=""', True),
        ('{} | logfmt | __error__=""', True),
        ("{} | drop __error__, pod", True),
        ('{} | keep pod | user_id=""', True),
        ('{service_name="pay/api"} # a remark\n |= "Payment"', True),
        ('({service_name="pay/api"} |= "Payment")', True),
    ],
)
def test_a_query_finds_what_loki_would(query: str, is_found: bool) -> None:
    assert finds(query, PAY) is is_found


JSON_LINE = log('{"level":"error","status":500,"http":{"path":"/x"},"tags":["a"],"pod":"other","n":null}', pod="mine")


@pytest.mark.parametrize(
    ("query", "is_found"),
    [
        ("{} | json | status=500", True),
        ('{} | json | status="500"', True),
        ('{} | json | http_path="/x"', True),
        ('{} | json | tags=`["a"]`', True),
        ('{} | json | pod="mine"', True),
        ('{} | json | pod_extracted="other"', True),
        ('{} | json | level="info"', True),
        ('{} | json | level_extracted="error"', True),
        ('{} | json | n=""', True),
        ('{} | json | json != "x="', True),
        ('{} | json != "status"', False),
    ],
)
def test_json_lines_give_labels(query: str, is_found: bool) -> None:
    assert finds(query, JSON_LINE) is is_found


def test_a_line_that_is_too_long_is_not_parsed() -> None:
    found = plan(parse_logs("{} | logfmt")).labelled(log("a=b " * 40_000))
    assert found is not None
    assert found.parsed == {"__error__": "LineTooLong"}


def test_fields_with_other_characters_are_asked_for_by_underscores() -> None:
    for metadata in ({"http.status": 500}, {"http": {"status": 500}}, {"http_status": "500"}):
        assert finds('{http_status="500"}', log(**metadata))
        assert finds("{} | http_status=500", log(**metadata))
        found = plan(parse_logs("{}")).labelled(log(**metadata))
        assert found is not None
        assert found.metadata == {"http_status": "500"}


# What the store is asked


def test_labels_of_records_and_lines_are_asked_of_the_store() -> None:
    exact = plan(parse_logs('{app="shop", level=~"warn|error", pod="x"} |= "a" |~ "b" | user="u" or user="v" | json'))
    assert exact.is_exact
    parts = children_of(exact.predicate)
    assert any(isinstance(part, LevelIn) for part in parts)
    assert not plan(parse_logs('{pod=~"x[0-9]"}')).is_exact
    assert not plan(parse_logs("{} | json | status=500")).is_exact
    assert not plan(parse_logs("{} | status=500")).is_exact


def test_expressions_over_services_become_names() -> None:
    query = parse_logs('{service_name=~"pay/(api|db)"}')
    assert needs_services(query)
    assert not needs_services(parse_logs('{service_name=~"a|b"}'))
    found: Predicate = plan(query, SERVICES).predicate
    assert found == ServiceIn(frozenset({"pay/api", "pay/db"}))


# Measures


def test_measures_are_read() -> None:
    assert parse('count_over_time({app="a"} |= "x" [5m])') == MetricQuery(
        Measure.COUNT, parse_logs('{app="a"} |= "x"'), 5 * MINUTE_US
    )
    query = parse('sum by (level, detected_level) (count_over_time({app="a"} | drop __error__ [1m]))')
    assert isinstance(query, MetricQuery)
    assert query.by == ("level", "detected_level")
    assert parse('sum(rate({app="a"}[1m])) by (app)') == MetricQuery(
        Measure.RATE, parse_logs('{app="a"}'), MINUTE_US, 0, ("app",)
    )
    assert parse('sum(bytes_over_time({app="a"}[1h30m] offset 1d))') == MetricQuery(
        Measure.BYTES, parse_logs('{app="a"}'), 90 * MINUTE_US, 86_400_000_000, ()
    )
    assert parse('bytes_rate({app="a"}[1m] |= "x")') == MetricQuery(
        Measure.BYTES_RATE, parse_logs('{app="a"} |= "x"'), MINUTE_US
    )


@pytest.mark.parametrize(
    ("text", "constant"),
    [
        ("vector(1)+vector(1)", Constant(2.0, True)),
        ("vector(1) + 1", Constant(2.0, True)),
        ("2*(3-1)/4", Constant(1.0, False)),
        ("1/0", Constant(float("inf"), False)),
    ],
)
def test_constants_are_calculated(text: str, constant: Constant) -> None:
    assert parse(text) == constant


# Mistakes


@pytest.mark.parametrize(
    ("query", "column", "said"),
    [
        ("", 1, "empty"),
        ("shop", 1, "not supported"),
        ("{", 2, "label's name"),
        ("{app}", 5, "expected = != =~ or !~"),
        ('{app="a"', 9, "expected ,"),
        ('{app="a" level="b"}', 10, "expected ,"),
        ('{app="a}', 6, "never ends"),
        ("{app=a}", 6, "a string in quotes"),
        ('{app=~"("}', 2, "regular expression"),
        ('{app=~"(?P<x>a)|["}', 2, "regular expression"),
        ('{app="a"} |= x', 14, "a string in quotes"),
        ('{app="a"} |~ "(?=a)"', 11, "in the line filter, column"),
        ('{app="a"} |~ "["', 11, "in the line filter, column"),
        ('{app="a"} |> "<_> x"', 11, "not supported"),
        ('{app="a"} |= ip("1.2.3.4")', 14, "ip() is not supported"),
        ('{app="a"} | pattern "<x>"', 13, "pattern is not supported"),
        ('{app="a"} | line_format "x"', 13, "line_format is not supported"),
        ('{app="a"} | label_format a=b', 13, "label_format is not supported"),
        ('{app="a"} | unwrap x', 13, "unwrap is not supported"),
        ('{app="a"} | json a="b"', 18, "all fields are taken"),
        ('{app="a"} | logfmt --strict', 20, "all fields are taken"),
        ('{app="a"} | drop a="b"', 19, "names alone"),
        ('{app="a"} | a', 14, "a comparison"),
        ('{app="a"} | a > "x"', 17, "a number after >"),
        ('{app="a"} | a =~ 5', 18, "a string"),
        ('{app="a"} | a > 5 parsecs', 26, "expected"),
        ('{app="a"} | a > 5parsecs', 17, "a duration"),
        ('{app="a"} and', 11, "to end here"),
        ('count_over_time({app="a"})', 26, "expected ["),
        ('count_over_time({app="a"}[5])', 27, "a duration"),
        ('count_over_time({app="a"}[0s])', 26, "a duration is"),
        ('count_over_time({app="a"}[9y])', 26, "a duration is"),
        ('quantile_over_time(0.9, {app="a"}[5m])', 1, "quantile_over_time is not supported"),
        ('topk(5, count_over_time({app="a"}[5m]))', 1, "topk is not supported"),
        ('sum without (a) (rate({app="a"}[5m]))', 5, "without is not supported"),
        ('sum({app="a"})', 1, "sum of this is not supported"),
        ('sum(sum(rate({app="a"}[5m])))', 1, "sum of this is not supported"),
        ('rate({app="a"}[5m]) / rate({app="a"}[5m])', 21, "to join results by / is not supported"),
        ('rate({app="a"}[5m]) > 5', 21, "to end here"),
        ('rate({app="a"}[5m]) by (x)', 21, "by of rate is not supported"),
        ("vector(x)", 8, "a number"),
        ('{app="a\\q"}', 6, "is no escape"),
        ('{app="a\x00"}', 6, "does not occur"),
        ('{app="a"} ; drop', 11, "means nothing here"),
        ("(" * 60 + "1", 52, "nested more than"),
        ("{" + ",".join('a="b"' for _ in range(300)) + "}", 0, "at most 200 conditions"),
        (" " * (QUERY_CHARS_MAX + 1), QUERY_CHARS_MAX + 1, "at most 8,000 characters"),
    ],
)
def test_a_mistake_is_named_with_its_place(query: str, column: int, said: str) -> None:
    def read() -> None:
        found = parse(query)
        if isinstance(found, LogQuery):
            plan(found)

    with pytest.raises(LogQLError) as raised:
        read()
    assert said in str(raised.value)
    assert column in (0, raised.value.column), str(raised.value)


def test_a_measure_is_no_query_for_logs() -> None:
    with pytest.raises(LogQLError, match="a query for logs"):
        parse_logs("vector(1)")


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("5m", 300),
        ("1h30m", 5_400),
        ("250ms", 0.25),
        ("1.5s", 1.5),
        ("2d", 172_800),
        ("", None),
        ("5", None),
        ("m", None),
    ],
)
def test_durations(text: str, seconds: float | None) -> None:
    assert parse_duration_s(text) == seconds


@pytest.mark.parametrize(
    ("text", "size"), [("20b", 20), ("1kb", 1_000), ("1KiB", 1_024), ("1.5MB", 1_500_000), ("x", None)]
)
def test_sizes(text: str, size: float | None) -> None:
    assert parse_bytes(text) == size
