"""Which logs go where, and what may be set. Against plain matching, and against what must not be."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from broker.topic_names import service_of, service_topic
from cli.settings import Settings
from live.events import Batch
from routes.settings import RouteSettings, RoutingSettings, derived_topics
from routes.table import RouteTable
from schemas.record import Log
from schemas.topics import Source, source_of
from search.match import compile_match

QUERIES = ("", "level>=warn", "service:pay/*", '"card"', "service:shop level:info", "metadata.n>3", "-service:shop")
ROUTES = {f"r{number}": RouteSettings(query=query, topic=f"t{number}") for number, query in enumerate(QUERIES)}
LOGS = st.builds(
    Log,
    id=st.integers(1, 2**62),
    timestamp=st.just(1_800_000_000_000_000),
    level=st.integers(1, 24),
    service_name=st.sampled_from(["shop", "pay/a", "pay", "mail"]),
    message=st.sampled_from(["card declined", "CARD", "cash"]),
    correlation_id=st.none(),
    metadata=st.fixed_dictionaries({"n": st.integers(0, 6)}),
)


@given(st.lists(LOGS, max_size=5))
def test_a_log_goes_to_each_topic_whose_query_it_matches_once(logs: list[Log]) -> None:
    table = RouteTable(ROUTES, RoutingSettings(services=("pay/*", "mail")))
    for index, (log, records) in enumerate(zip(logs, table.records(Batch(2, 40, 41, 0, logs)), strict=True)):
        wanted = {route.topic for route in ROUTES.values() if compile_match(route.predicate)(log)}
        wanted |= {"logs.errors"} if log.level >= 17 else set()
        wanted |= {service_topic(log.service_name)} if log.service_name in ("pay/a", "mail") else set()
        topics = [record.topic for record in records]
        assert sorted(topics) == sorted(wanted)
        for record in records:
            assert record.key.decode() == log.service_name
            assert json.loads(record.value)["id"] == str(log.id)
            assert source_of(record.headers) == Source(2, 40, index)
            assert dict(record.headers)["id"] == b"%d" % log.id


def test_made_up_services_get_no_more_topics_than_there_may_be() -> None:
    routing = RoutingSettings(errors=False, services=("*",), service_topics_max=3)
    table = RouteTable({}, routing, known=[service_topic("a")])
    topics = [table.topics(Log(1, 0, 9, f"s{number}", "", None, {})) for number in range(1_000)]
    assert topics[:2] == [[service_topic("s0")], [service_topic("s1")]]
    assert not any(topics[2:])
    assert table.unrouted == 998
    assert table.topics(Log(1, 0, 9, "a", "", None, {})) == [service_topic("a")]
    assert table.topics(Log(1, 0, 9, "s1", "", None, {})) == [service_topic("s1")]


def test_the_audit_log_matches_nothing() -> None:
    table = RouteTable(ROUTES, RoutingSettings(services=("*", "logfeed/*")))
    assert table.topics(Log(1, 0, 17, "logfeed/audit", "card", None, {"n": 5})) == []


@given(st.text("ab.-_/su", min_size=1, max_size=12))
def test_a_services_topic_says_which_service_it_is_of(name: str) -> None:
    assert service_of(service_topic(name)) == name


@given(st.text("ab.-_/suä", max_size=8))
def test_what_no_service_is_called_is_no_services_topic(tail: str) -> None:
    service = service_of(f"logs.service.{tail}")
    assert service is None or service_topic(service) == f"logs.service.{tail}"


@pytest.mark.parametrize(
    ("routes", "said"),
    [
        ({"a": {"query": "level>>", "topic": "t"}}, "level"),
        ({"a": {"query": "", "topic": "logs.errors"}}, "Logfeed's own"),
        ({"a": {"query": "", "topic": "logs_errors"}}, "Logfeed's own"),
        ({"a": {"query": "", "topic": "logs.service.x"}}, "Logfeed's own"),
        ({"a": {"query": "", "topic": "a/b"}}, "pattern"),
        ({"a": {"query": "", "topic": ".."}}, "Kafka"),
        ({"a": {"query": "", "topic": "logs.v1"}}, "broker.topic"),
        ({"a": {"query": "", "topic": "a.b"}, "b": {"query": "", "topic": "a_b"}}, "same topic"),
        ({"A b": {"query": "", "topic": "t"}}, "name"),
        ({"a": {"query": ""}}, "topic"),
        ({f"r{number}": {"query": "", "topic": f"t{number}"} for number in range(101)}, "at most 100"),
    ],
)
def test_what_cannot_be_a_route_is_said(routes: dict[str, Any], said: str) -> None:
    with pytest.raises(ValidationError, match=said):
        Settings.model_validate({"routes": routes})


@pytest.mark.parametrize("service", ["logfeed/audit", "a b", "", "a*b", "*a"])
def test_what_cannot_be_a_service_is_said(service: str) -> None:
    with pytest.raises(ValidationError):
        RoutingSettings(services=(service,))


def test_the_topics_of_the_settings_are_named_with_what_they_are() -> None:
    routes = {"cards": RouteSettings(query='"card"', topic="team.cards", description="for the card team")}
    infos = derived_topics(routes, RoutingSettings(services=("pay/*",)))
    assert [(info.name, str(info.kind)) for info in infos] == [("logs.errors", "errors"), ("team.cards", "route")]
    assert infos[1].description == "for the card team"
    assert not derived_topics({}, RoutingSettings(errors=False))
