"""Loki's answers out of the store in memory: within bounds, whatever it is that is large."""

from __future__ import annotations

from typing import Any

import orjson
import pytest

from access.principal import ANYONE
from query.loki import service
from query.loki.logql import parse, parse_logs
from query.loki.parameters import Span
from query.loki.pipeline import needs_services, plan
from query.loki.service import LokiAnswers
from query.loki.syntax import MetricQuery
from query.loki.windows import windows_of
from schemas.ids import first_id_at
from schemas.record import Log
from search.match import compile_match
from search.params import ParameterError
from store.port import Order
from tests.unit.query.test_page import SECOND, T0, Rig

HOUR = Span(T0, T0 + 3_600 * SECOND)


def a_log(number: int, *, service_name: str = "shop", **metadata: Any) -> Log:
    return Log(first_id_at(T0 // 1000) + number, T0 + number * SECOND, 9, service_name, f"m{number}", None, metadata)


async def lines(rig: Rig, query: str) -> tuple[list[str], list[str]]:
    """Lines and warnings."""
    answers = LokiAnswers(rig.answers, rig.clock, budget_ms=2_000)
    reply = await answers.logs(
        parse_logs(query), HOUR, ANYONE, order=Order.NEWEST_FIRST, limit=1_000, is_categorized=False
    )
    answer = orjson.loads(reply.body)
    found = [line for stream in answer["data"]["result"] for _, line in stream["values"]]
    return found, answer.get("warnings", [])


@pytest.mark.parametrize("query", ["{}", '{} | n=~"[0-9]+"'])
async def test_fields_count_for_the_bytes_of_an_answer_as_messages_do(
    monkeypatch: pytest.MonkeyPatch, query: str
) -> None:
    monkeypatch.setattr(service, "BYTES_MAX", 200_000)
    monkeypatch.setattr(service, "PAGE_BYTES_MAX", 50_000)
    rig = Rig(page_bytes_max=50_000)
    rig.put(*(a_log(number, n=number, text="x" * 10_000) for number in range(100)))
    found, warnings = await lines(rig, query)
    assert 0 < len(found) <= 20
    assert sorted(found) == sorted(f"m{99 - number}" for number in range(len(found))), "the newest"
    assert warnings


async def test_sums_by_service_are_made_of_so_many_counts_and_no_more(monkeypatch: pytest.MonkeyPatch) -> None:
    rig = Rig()
    rig.put(*(a_log(number, service_name=f"s{number % 3}") for number in range(90)))
    answers = LokiAnswers(rig.answers, rig.clock, budget_ms=2_000)

    async def services(_: Any) -> list[dict[str, Any]]:
        return [{"service_name": f"s{number}", "counts": {}} for number in range(3)]

    monkeypatch.setattr(answers, "_services", services)
    query = parse("sum by (service_name) (count_over_time({}[1s]))")
    assert isinstance(query, MetricQuery)
    windows = windows_of(HOUR, SECOND, query.range_us, 0)
    series, _ = await answers.measured(query, windows, ANYONE)
    assert [len(points) for points in series.values()] == [30, 30, 30]
    monkeypatch.setattr(service, "COUNTS_MAX", 70)
    with pytest.raises(ParameterError, match="too many services"):
        await answers.measured(query, windows, ANYONE)


def test_services_that_begin_so_are_those_that_come_later_too() -> None:
    """A tail is opened once: it does not know which services there will be."""
    query = parse_logs('{service_name=~"team\\\\.a/.*"}')
    assert not needs_services(query)
    matches = compile_match(plan(query).predicate)
    assert matches(a_log(1, service_name="team.a/new"))
    assert matches(a_log(1, service_name="team.a/"))
    assert not matches(a_log(1, service_name="team-a/new"))
    assert not matches(a_log(1, service_name="my-team.a/new"))
    others = compile_match(plan(parse_logs('{service_name!~"shop.*"}')).predicate)
    assert others(a_log(1, service_name="new"))
    assert not others(a_log(1, service_name="shop-2"))
    for text in ('{service_name=~".*/api"}', '{service_name=~"[a-z]+"}', '{app=~"shop.*"}'):
        assert needs_services(parse_logs(text))
