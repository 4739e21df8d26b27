"""What records of OTLP become, the same of both encodings; what is wrong with one costs only that one."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

from ingest.errors import BodyTooLarge, MalformedBody
from ingest.parse import Malformed
from ingest.quick import PlainLog
from ingest.records import BRACKETS_MAX, COMMAS_MAX, EXPANDED_BYTES_MAX
from ingest.wire.otlp.json_body import read_json
from ingest.wire.otlp.protobuf import read_protobuf
from ingest.wire.otlp.records import Made
from ingest.wire.protobuf import FIELDS_MAX
from tests.unit.ingest.wire.otlp.requests import (
    SPAN,
    TIME_NS,
    TRACE,
    any_value,
    as_json,
    record,
    request,
)

LOGS_MAX = 1_000
HEX = st.sampled_from([b"", TRACE, bytes(16), TRACE[:8], b"\xff" * 16])


def read_as_protobuf(body: bytes, default_service: str | None = "unknown_service") -> Made:
    return read_protobuf(body, default_service=default_service, logs_max=LOGS_MAX)


def read_as_json(body: bytes, default_service: str | None = "unknown_service") -> Made:
    return read_json(body, default_service=default_service, logs_max=LOGS_MAX)


def read_both(sent: ExportLogsServiceRequest, default_service: str | None = "unknown_service") -> Made:
    """Fails where the two encodings differ."""
    made = read_as_protobuf(sent.SerializeToString(), default_service)
    of_json = read_as_json(as_json(sent), default_service)
    assert of_json.logs == made.logs
    assert (of_json.have_own_times, of_json.metadata_bytes) == (made.have_own_times, made.metadata_bytes)
    return made


def only(made: Made) -> PlainLog:
    [log] = made.logs
    assert isinstance(log, PlainLog)
    return log


def metadata(log: PlainLog) -> Any:
    return json.loads(bytes(log.metadata))


def test_a_record_becomes_a_log() -> None:
    sent = record(
        "payment declined",
        {"order": 17, "card": "visa", "amount": 12.5, "tried": True, "tags": ["a", 1, None], "of": {"a": {"b": "c"}}},
        severity_number=17,
        severity_text="ERROR",
        trace_id=TRACE,
        span_id=SPAN,
        observed_time_unix_nano=TIME_NS + 1,
        event_name="declined",
    )
    of = {"service.name": "shop/checkout", "host.name": "node-1"}
    made = read_both(request(sent, resource=of, name="checkout", version="1.2", attributes={"lib": "x"}))
    log = only(made)
    assert (log.message, log.service_name, log.timestamp) == ("payment declined", "shop/checkout", TIME_NS)
    assert (log.level, log.correlation_id) == (17, TRACE.hex())
    assert metadata(log) == {
        "order": 17,
        "card": "visa",
        "amount": 12.5,
        "tried": True,
        "tags": ["a", 1, None],
        "of": {"a": {"b": "c"}},
        "host.name": "node-1",
        "lib": "x",
        "otel.scope.name": "checkout",
        "otel.scope.version": "1.2",
        "span_id": SPAN.hex(),
        "event_name": "declined",
    }
    assert made.have_own_times


@pytest.mark.parametrize(
    ("number", "text", "attrs", "level", "kept_text"),
    [
        *((number, "", {}, number, None) for number in range(1, 25)),
        (0, "", {}, None, None),
        (9, "INFO", {}, 9, None),
        (10, "INFO2", {}, 10, "INFO2"),
        (9, "error", {}, 9, "error"),
        (0, "Warning", {}, 13, None),
        (0, "loud", {}, None, "loud"),
        (0, "", {"log.level": "error"}, 17, None),
        (0, "", {"loglevel": "crit"}, 21, None),
        (0, "", {"severity": 5}, 5, None),
        (0, "", {"severity": "loud", "lvl": "dbg"}, 5, None),
        (0, "", {"level": True}, None, None),
        (0, "debug", {"level": "error"}, 5, None),
        (25, "", {}, 25, None),
    ],
)
def test_level(number: int, text: str, attrs: dict[str, Any], level: int | None, kept_text: str | None) -> None:
    log = only(read_both(request(record(attrs=attrs, severity_number=number, severity_text=text))))
    assert log.level == level
    assert metadata(log).get("severity_text") == kept_text


@pytest.mark.parametrize(
    ("resource", "default", "service", "kept"),
    [
        ({"service.name": "shop"}, "unknown_service", "shop", None),
        ({"service.name": "shop", "service.namespace": "eu"}, None, "shop", None),
        ({}, "unknown_service", "unknown_service", None),
        ({}, None, None, None),
        ({"service.name": "unknown_service:java"}, "unknown_service", "unknown_service", "unknown_service:java"),
        ({"service.name": "unknown_service:java"}, None, None, "unknown_service:java"),
        ({"service.name": ""}, None, None, ""),
        ({"service.name": "My Shop: é"}, None, "My_Shop___", "My Shop: é"),
        ({"service.name": "x" * 120}, None, "x" * 100, "x" * 120),
        ({"service.name": 5}, "unknown_service", "unknown_service", 5),
    ],
)
def test_service(resource: dict[str, Any], default: str | None, service: str | None, kept: object) -> None:
    log = only(read_both(request(record(), resource=resource), default))
    assert log.service_name == service
    assert metadata(log).get("service.name") == kept


@pytest.mark.parametrize(
    ("body", "event_name", "message"),
    [
        ("text", "", "text"),
        ("", "", ""),
        (None, "", ""),
        (None, "started", "started"),
        (5, "", "5"),
        (True, "", "true"),
        (1.5, "", "1.5"),
        (float("nan"), "", '"NaN"'),
        (b"\x00\xff", "", '"AP8="'),
        (["a", {"b": None}], "", '["a",{"b":null}]'),
        ({"msg": "ß", "n": [1]}, "", '{"msg":"ß","n":[1]}'),
    ],
)
def test_message(body: Any, event_name: str, message: str) -> None:
    assert only(read_both(request(record(body, event_name=event_name)))).message == message


@pytest.mark.parametrize(
    ("trace", "attrs", "correlation"),
    [
        (TRACE, {}, TRACE.hex()),
        (bytes(16), {}, None),
        (b"", {}, None),
        (TRACE[:15], {}, None),
        (TRACE, {"correlation_id": "c-1"}, TRACE.hex()),
        (b"", {"correlation_id": "c-1"}, "c-1"),
        (b"", {"correlation_id": 5}, None),
        (b"", {"correlation_id": "x" * 129}, None),
    ],
)
def test_correlation_id(trace: bytes, attrs: dict[str, Any], correlation: str | None) -> None:
    log = only(read_both(request(record(attrs=attrs, trace_id=trace, span_id=bytes(8)))))
    assert log.correlation_id == correlation
    assert "span_id" not in metadata(log)


@pytest.mark.parametrize(
    ("time_ns", "observed_ns", "timestamp"), [(TIME_NS, 5, TIME_NS), (0, TIME_NS, TIME_NS), (0, 0, None)]
)
def test_time_is_the_records_own_where_it_has_one(time_ns: int, observed_ns: int, timestamp: int | None) -> None:
    sent = record(time_unix_nano=time_ns, observed_time_unix_nano=observed_ns)
    made = read_both(request(record(), sent))
    assert made.logs[1].timestamp == timestamp  # type: ignore[union-attr]  # it is one that could be read
    assert made.have_own_times == (timestamp is not None)


def test_of_attributes_with_one_name_the_records_counts() -> None:
    of = {"service.name": "shop", "a": "resource", "b": "resource"}
    log = only(read_both(request(record(attrs={"a": "record"}), resource=of, attributes={"a": "scope", "b": "scope"})))
    assert metadata(log) == {"a": "record", "b": "scope"}


JSON_VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats() | st.text() | st.binary(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=6,
)
RECORDS = st.builds(
    record,
    JSON_VALUES,
    st.dictionaries(st.text(), JSON_VALUES, max_size=4),
    severity_number=st.integers(0, 24),
    severity_text=st.sampled_from(["", "INFO", "Warning", "loud"]),
    trace_id=HEX,
    span_id=st.sampled_from([b"", SPAN, b"\x01"]),
    time_unix_nano=st.sampled_from([0, TIME_NS, 2**64 - 1]),
    event_name=st.text(max_size=5),
)


@settings(deadline=None)
@given(sent=st.lists(RECORDS, max_size=3), of=st.dictionaries(st.text(), JSON_VALUES, max_size=3), name=st.text())
def test_both_encodings_mean_the_same(sent: list[Any], of: dict[str, Any], name: str) -> None:
    made = read_both(request(*sent, resource=of, name=name))
    assert len(made.logs) == len(sent)
    for log in made.logs:
        assert isinstance(log, PlainLog)
        assert isinstance(metadata(log), dict)


def broken(name: str) -> bytes:
    """A LogRecord that cannot be read."""
    good = record("x", {"key": "value"}).SerializeToString()
    match name:
        case "message":
            return record("x" * 9).SerializeToString().replace(b"x" * 9, b"\xff" * 9)
        case "attribute":
            return good.replace(b"value", b"\xffalue")
        case "name of an attribute":
            return good.replace(b"key", b"\xffey")
        case "level":
            return record(severity_text="loud").SerializeToString().replace(b"loud", b"\xffoud")
        case "cut":
            return good[:-1]
        case "nested":
            value = any_value(1).SerializeToString()
            for _ in range(150):
                value = _field(5, _field(1, value))
            return _field(5, value)
        case "attributes":
            return _field(6, _field(1, b"a" * 100)) * 3_000
        case "array":
            return _field(5, _field(5, b"\x0a\x00" * 150_000))
        case "fields":
            return b"\x32\x00" * (FIELDS_MAX + 1)
        case _:
            raise ValueError(name)


BROKEN = {
    "message": ("protobuf", "texts must be UTF-8"),
    "attribute": ("protobuf", "texts must be UTF-8"),
    "name of an attribute": ("protobuf", "texts must be UTF-8"),
    "level": ("protobuf", "texts must be UTF-8"),
    "cut": ("protobuf", "is no LogRecord"),
    "nested": ("protobuf", "is no LogRecord"),
    "attributes": ("metadata", "may take 262144 bytes"),
    "array": ("metadata", "may take 262144 bytes"),
    "fields": ("protobuf", "more than 200000 fields"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_record_of_protobuf_costs_only_itself(name: str) -> None:
    field, text = BROKEN[name]
    marker = record("marker of a place").SerializeToString()
    body = request(record("one"), record("marker of a place"), record("two")).SerializeToString()
    raw = broken(name)
    made = read_as_protobuf(_with_length(body, marker, raw))
    one, bad, two = made.logs
    assert isinstance(one, PlainLog)
    assert isinstance(two, PlainLog)
    assert (one.message, two.message) == ("one", "two")
    assert isinstance(bad, Malformed)
    assert bad.code == field
    assert text in bad.errors[0].message
    assert bad.rest.service_name == "shop"


def _with_length(body: bytes, old: bytes, new: bytes) -> bytes:
    """The same request with another record; the lengths around it are written anew."""
    assert old in body
    resource_logs = ExportLogsServiceRequest.FromString(body).resource_logs[0]
    records = b"".join(
        _field(2, new if each.SerializeToString() == old else each.SerializeToString())
        for each in resource_logs.scope_logs[0].log_records
    )
    scope_logs = _field(1, resource_logs.scope_logs[0].scope.SerializeToString()) + records
    return _field(1, _field(1, resource_logs.resource.SerializeToString()) + _field(2, scope_logs))


def _field(number: int, content: bytes) -> bytes:
    size, length = len(content), b""
    while size >= 0x80:
        length += bytes([size & 0x7F | 0x80])
        size >>= 7
    return bytes([number << 3 | 2]) + length + bytes([size]) + content


JSON_RECORD = '{"timeUnixNano":"1795000000123456789","body":{"stringValue":"%s"}}'


@pytest.mark.parametrize(
    ("bad", "field"),
    [
        ('{"body":5}', "json"),
        ("7", "json"),
        ('{"timeUnixNano":"soon"}', "timestamp"),
        ('{"timeUnixNano":true}', "json"),
        ('{"severityNumber":"INFO"}', "json"),
        ('{"body":{"stringValue":5}}', "json"),
        ('{"timeUnixNano":"' + "1" * 5_000 + '"}', "timestamp"),
        ('{"body":{"intValue":"1e5"}}', "metadata"),
        ('{"body":{"doubleValue":"much"}}', "metadata"),
        ('{"attributes":[{"key":5}]}', "json"),
        ('{"attributes":[{"key":"a","value":{"stringValue":5}}]}', "json"),
        ('{"attributes":["a"]}', "json"),
        ('{"attributes":5}', "json"),
    ],
)
def test_a_broken_record_of_json_costs_only_itself(bad: str, field: str) -> None:
    records = ",".join([JSON_RECORD % "one", bad, JSON_RECORD % "two"])
    made = read_as_json(f'{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{records}]}}]}}]}}'.encode())
    one, found, two = made.logs
    assert isinstance(one, PlainLog)
    assert isinstance(two, PlainLog)
    assert (one.message, two.message) == ("one", "two")
    assert isinstance(found, Malformed)
    assert found.code == field


def test_invalid_utf_8_in_json_costs_only_its_record() -> None:
    records = ",".join([JSON_RECORD % "one", JSON_RECORD % "é", JSON_RECORD % "two"])
    body = f'{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{records}]}}]}}]}}'.encode().replace(
        b"\xc3\xa9", b"\xc3("
    )
    kinds = [type(log) for log in read_as_json(body).logs]
    assert kinds == [PlainLog, Malformed, PlainLog]


def test_half_a_surrogate_pair_becomes_a_replacement() -> None:
    """What JavaScript writes of a text that was cut inside of an emoji."""
    records = ",".join(
        [JSON_RECORD % "cut \\ud83d", JSON_RECORD % "\\ud83d\\ude00 \\\\ud83d \\udE00\\n", JSON_RECORD % "two"]
    )
    made = read_as_json(f'{{"resourceLogs":[{{"scopeLogs":[{{"logRecords":[{records}]}}]}}]}}'.encode())
    assert [log.message for log in made.logs if isinstance(log, PlainLog)] == [
        "cut \ufffd",
        "😀 \\ud83d \ufffd\n",
        "two",
    ]


def test_numbers_may_be_text_in_json() -> None:
    sent = (
        b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[{"timeUnixNano":1795000000123456789,"unknown":[1],'
        b'"attributes":[{"key":"a","value":{"intValue":"-9"}},{"key":"b","value":{"doubleValue":"0.5"}},'
        b'{"key":"c","value":{"doubleValue":"-Infinity"}},{"key":"d","value":{}},{"key":"e"},'
        b'{"key":"f","value":{"intValue":9}},{"key":"g","value":{"stringValue":null,"boolValue":false}}],'
        b'"traceId":"4BF92F3577B34DA6A3CE929D0E0E4736","body":null}]}]}]}'
    )
    log = only(read_as_json(sent))
    assert metadata(log) == {"a": -9, "b": 0.5, "c": "-Infinity", "d": None, "e": None, "f": 9, "g": False}
    assert (log.timestamp, log.correlation_id) == (TIME_NS, TRACE.hex())


def test_what_is_wrong_with_a_resource_costs_only_its_records() -> None:
    bad = request(record("lost"), resource={"host": "node"}).resource_logs[0].SerializeToString()
    good = request(record("kept")).resource_logs[0].SerializeToString()
    made = read_as_protobuf(_field(1, bad.replace(b"node", b"\xffode")) + _field(1, good))
    lost, kept = made.logs
    assert isinstance(lost, Malformed)
    assert lost.code == "protobuf"
    assert "Resource" in lost.errors[0].message
    assert isinstance(kept, PlainLog)
    assert kept.message == "kept"


@pytest.mark.parametrize("body", [b"\x0a", b"\x0a\x05abc", b"\xff" * 20, b"\x0b\x00", b"\x0a\x02\x12\x05"])
def test_a_body_that_is_no_protobuf_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedBody, match="ExportLogsServiceRequest"):
        read_as_protobuf(body)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b"7",
        b'{"resourceLogs":7}',
        b'{"resourceLogs":[{"scopeLogs":[{"logRecords":7}]}]}',
        b"{",
        b"[" * 99_999,
    ],
)
def test_a_body_that_is_no_json_is_malformed(body: bytes) -> None:
    with pytest.raises(MalformedBody, match="ExportLogsServiceRequest"):
        read_as_json(body)


@pytest.mark.parametrize("body", [b"{}", b'{"resourceLogs":[]}', b'{"resourceLogs":null}', b'{"resourceLogs":[{}]}'])
def test_a_body_may_be_empty(body: bytes) -> None:
    assert read_as_json(body).logs == []
    assert read_as_protobuf(b"").logs == []


def test_records_are_bounded_before_they_are_read() -> None:
    full = [record("x")] * LOGS_MAX
    assert len(read_both(request(*full)).logs) == LOGS_MAX
    more = request(*full, record("x"))
    for read, body in ((read_as_protobuf, more.SerializeToString()), (read_as_json, as_json(more))):
        with pytest.raises(BodyTooLarge, match="1000 logs"):
            read(body)


def test_groups_and_objects_are_bounded() -> None:
    with pytest.raises(BodyTooLarge, match="resources"):
        read_as_protobuf(_field(1, _field(2, b"")) * (2 * LOGS_MAX))
    with pytest.raises(BodyTooLarge, match="resources"):
        read_as_protobuf(_field(1, b"") * (2 * LOGS_MAX + 1))
    with pytest.raises(BodyTooLarge, match="commas"):
        read_as_json(b'{"resourceLogs":[{"scopeLogs":[{"logRecords":[' + b"1," * (COMMAS_MAX + 1) + b"1]}]}]}")
    with pytest.raises(BodyTooLarge, match="objects"):
        read_as_json(b'{"resourceLogs":[' + b"{}," * BRACKETS_MAX + b"{}]}")


def test_what_a_resource_adds_to_its_records_is_bounded() -> None:
    large = {"service.name": "shop", "blob": "x" * 60_000}
    assert read_both(request(*[record("x")] * 10, resource=large)).metadata_bytes > 600_000
    more = request(*[record("x")] * (EXPANDED_BYTES_MAX // 60_000 + 1), resource=large)
    for read, body in ((read_as_protobuf, more.SerializeToString()), (read_as_json, as_json(more))):
        with pytest.raises(BodyTooLarge, match="resources"):
            read(body)


def test_fields_of_later_versions_are_passed_over() -> None:
    later = b"".join([_field(15, b"new"), b"\xfd\x01" + bytes(4), b"\xf9\x01" + bytes(8), b"\xf8\x01\x05"])
    body = _field(1, _field(2, _field(2, record("x").SerializeToString() + later) + later) + later) + later
    assert only(read_as_protobuf(body)).message == "x"


def test_a_long_text_is_no_reason_to_reject_a_record() -> None:
    """It is cut later, as everywhere."""
    assert len(only(read_both(request(record("x" * 1_000_000)))).message) == 1_000_000


@pytest.mark.parametrize(
    "attribute",
    [
        _field(1, b"key"),
        _field(2, _field(1, b"value")),
        _field(1, b"key") + _field(2, b""),
        _field(2, _field(1, b"value")) + _field(1, b"key"),
        _field(1, b"other") + _field(1, b"key") + _field(2, _field(1, b"value")),
        _field(1, b"key") + _field(2, _field(1, b"first") + _field(1, b"value")),
        _field(1, b"key") + _field(2, _field(1, b"value") + b"\x18\x05"),
        _field(1, b"key") + _field(2, b"\x18\x05" + _field(1, b"value")),
        _field(1, b"key") + _field(2, b"\x21" + bytes(8)) + b"\x18\x07",
        _field(1, b"key") + _field(2, b"\x10\x01\x18\x07"),
        b"",
    ],
)
def test_attributes_that_are_unusually_written_are_read_as_the_library_reads_them(attribute: bytes) -> None:
    """Read all at once or one by one, with others before and after them."""
    usual = record("one", {"a": "x", "n": 5, "f": 0.5, "l": ["y", 7]})
    strange = record("two", {"b": "y"}).SerializeToString() + _field(6, attribute)
    marker = record("marker of a place").SerializeToString()
    sent = request(usual, record("marker of a place"), usual)
    made = read_as_protobuf(_with_length(sent.SerializeToString(), marker, strange))
    expected = read_as_json(
        as_json(ExportLogsServiceRequest.FromString(_with_length(sent.SerializeToString(), marker, strange)))
    )
    assert [metadata(log) for log in made.logs if isinstance(log, PlainLog)] == [
        metadata(log) for log in expected.logs if isinstance(log, PlainLog)
    ]
    assert len(made.logs) == 3


def test_more_than_a_mebibyte_of_records_is_read_alike() -> None:
    records = [record(f"message {number}", {"blob": "x" * 3_000}) for number in range(600)]
    assert len(read_both(request(*records)).logs) == 600
