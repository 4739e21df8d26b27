"""Which log a document is."""

from __future__ import annotations

from typing import Any

import pytest

from ingest.parse import Incoming, Malformed
from ingest.quick import opened
from ingest.wire.elastic.document import log_of


def incoming(document: dict[str, Any], default_service: str | None = None) -> Incoming:
    log = opened(log_of(document, None, None, default_service))
    assert isinstance(log, Incoming)
    return log


@pytest.mark.parametrize(
    "document",
    [
        {"log": {"level": "error"}},
        {"log.level": "error"},
        {"level": "ERROR"},
        {"severity": "Error"},
        {"lvl": "err"},
        {"loglevel": "severe"},
        {"SeverityText": "ERROR"},
        {"log": {"level": "strange"}, "level": "error"},
        {"level": 3, "severity": "error"},
    ],
)
def test_a_level_is_found_wherever_shippers_write_it(document: dict[str, Any]) -> None:
    assert incoming({"message": "m", **document}).level == 17


@pytest.mark.parametrize("level", ["beginner", "", 30, None, True, ["error"], {"name": "error"}, "error" * 20])
def test_what_is_no_level_stays_and_costs_no_log(level: Any) -> None:
    log = incoming({"message": "m", "level": level})
    assert log.level is None
    assert log.metadata == {"level": level}


def test_what_is_taken_out_leaves_no_empty_object() -> None:
    document = {"message": "m", "log": {"level": "info"}, "service": {"name": "shop"}, "trace": {"id": "t"}}
    assert incoming(document) == Incoming("m", "shop", None, 9, "t", {})
    kept = incoming({"message": "m", "service": {"name": "shop", "version": "2"}, "trace": {"id": "t", "flags": 1}})
    assert kept.metadata == {"service": {"version": "2"}, "trace": {"flags": 1}}


@pytest.mark.parametrize(
    ("document", "service"),
    [
        ({"service": {"name": "shop"}}, "shop"),
        ({"service.name": "shop"}, "shop"),
        ({"service_name": "shop"}, "shop"),
        ({"service": "shop"}, "shop"),
        ({"app": "shop"}, "shop"),
        ({"application": "shop"}, "shop"),
        ({"service": {"name": ""}, "app": "shop"}, "shop"),
        ({"service": {"name": 7}}, "d"),
        ({"service": {"version": "1"}}, "d"),
        ({"app": ["shop"]}, "d"),
        ({}, "d"),
    ],
)
def test_a_service_is_found_or_the_default(document: dict[str, Any], service: str) -> None:
    assert incoming({"message": "m", **document}, default_service="d").service_name == service


def test_a_name_that_no_service_may_have_becomes_the_nearest_one_and_is_kept() -> None:
    log = incoming({"message": "m", "service": {"name": "Größe & Preis"}})
    assert log.service_name == "Gr__e___Preis"
    assert log.metadata == {"service.name": "Größe & Preis"}
    long = incoming({"message": "m", "service": {"name": "x" * 200}})
    assert long.service_name == "x" * 100
    assert long.metadata == {"service.name": "x" * 200}


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({"message": "a", "msg": "b"}, "a"),
        ({"message": ""}, ""),
        ({"msg": "b", "log": "c"}, "b"),
        ({"log": "c\n"}, "c\n"),
        ({"message": 7}, "7"),
        ({"message": {"a": [1, "ä"]}}, '{"a":[1,"ä"]}'),
        ({"message": None, "a": 1}, '{"message":null,"a":1}'),
        ({"a": 1, "@timestamp": "2026-11-22"}, '{"a":1,"@timestamp":"2026-11-22"}'),
        ({}, "{}"),
    ],
)
def test_the_message_is_text_or_the_documents_json(document: dict[str, Any], message: str) -> None:
    assert incoming(document).message == message


def test_without_a_message_the_fields_are_metadata_too() -> None:
    assert incoming({"amount": 12, "log": {"level": "warn"}}).metadata == {"amount": 12}


@pytest.mark.parametrize("time", ["2026-11-22T10:00:00.123Z", "2026-11-22", 1_795_341_600_123, 1_795_341_600.123])
def test_a_time_is_handed_on(time: Any) -> None:
    log = incoming({"message": "m", "@timestamp": time})
    assert (log.timestamp, log.metadata) == (time, {})


@pytest.mark.parametrize("time", [True, [1], {"a": 1}])
def test_a_time_of_another_type_is_an_error_of_its_document(time: Any) -> None:
    log = log_of({"message": "m", "@timestamp": time}, None, None, None)
    assert isinstance(log, Malformed)
    assert log.code == "timestamp"


def test_a_field_called_timestamp_is_the_time_only_where_it_is_one() -> None:
    assert incoming({"message": "m", "timestamp": "2026-11-22T10:00:00Z"}).timestamp == "2026-11-22T10:00:00Z"
    for other in ("later", [1], {"a": 1}, True):
        log = incoming({"message": "m", "timestamp": other})
        assert (log.timestamp, log.metadata) == (None, {"timestamp": other})
    both = incoming({"message": "m", "@timestamp": "2026-11-22", "timestamp": "2026-11-21"})
    assert (both.timestamp, both.metadata) == ("2026-11-22", {"timestamp": "2026-11-21"})


def test_a_correlation_id_that_is_too_long_stays_where_it_is() -> None:
    assert incoming({"message": "m", "trace": {"id": "t" * 128}}).correlation_id == "t" * 128
    log = incoming({"message": "m", "trace": {"id": "t" * 129}, "correlation_id": "c"})
    assert (log.correlation_id, log.metadata) == ("c", {"trace": {"id": "t" * 129}})
