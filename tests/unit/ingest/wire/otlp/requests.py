"""Requests of OTLP written twice: by protobuf's own classes of the protocol (opentelemetry-proto), and as JSON by hand."""

from __future__ import annotations

import base64
import json
from typing import Any

from google.protobuf.json_format import MessageToDict
from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest
from opentelemetry.proto.common.v1.common_pb2 import AnyValue, InstrumentationScope, KeyValue
from opentelemetry.proto.logs.v1.logs_pb2 import LogRecord, ResourceLogs, ScopeLogs
from opentelemetry.proto.resource.v1.resource_pb2 import Resource

TIME_NS = 1_795_000_000_123_456_789
TRACE = bytes.fromhex("4bf92f3577b34da6a3ce929d0e0e4736")
SPAN = bytes.fromhex("00f067aa0ba902b7")


def any_value(value: Any) -> AnyValue:
    """Of a Python value; None: no value."""
    made = AnyValue()
    match value:
        case None:
            pass
        case bool():
            made.bool_value = value
        case str():
            made.string_value = value
        case int():
            made.int_value = value
        case float():
            made.double_value = value
        case bytes():
            made.bytes_value = value
        case list():
            made.array_value.SetInParent()
            made.array_value.values.extend(any_value(each) for each in value)
        case dict():
            made.kvlist_value.SetInParent()
            made.kvlist_value.values.extend(attributes(value))
        case _:
            raise TypeError(repr(value))
    return made


def attributes(values: dict[str, Any]) -> list[KeyValue]:
    """KeyValues."""
    return [KeyValue(key=key, value=any_value(value)) for key, value in values.items()]


def record(body: Any = "paid", attrs: dict[str, Any] | None = None, **fields: Any) -> LogRecord:
    """A record with a time. fields: of LogRecord."""
    fields = {"time_unix_nano": TIME_NS, **fields}
    return LogRecord(body=any_value(body), attributes=attributes(attrs or {}), **fields)


def request(*records: LogRecord, resource: dict[str, Any] | None = None, **scope: Any) -> ExportLogsServiceRequest:
    """All of one resource and scope. scope: its name, version and attributes."""
    scope["attributes"] = attributes(scope.get("attributes", {}))
    logs = ScopeLogs(scope=InstrumentationScope(**scope), log_records=records)
    of = Resource(attributes=attributes({"service.name": "shop"} if resource is None else resource))
    return ExportLogsServiceRequest(resource_logs=[ResourceLogs(resource=of, scope_logs=[logs])])


def as_json(of: ExportLogsServiceRequest) -> bytes:
    """As OTLP writes it: protobuf's JSON, but ids in hex and enumerations as numbers."""
    document = MessageToDict(of, use_integers_for_enums=True)
    for resource_logs in document.get("resourceLogs", []):
        for scope_logs in resource_logs.get("scopeLogs", []):
            for each in scope_logs.get("logRecords", []):
                for name in ("traceId", "spanId"):
                    if name in each:
                        each[name] = base64.b64decode(each[name]).hex()
    return json.dumps(document, ensure_ascii=False, separators=(",", ":")).encode()
