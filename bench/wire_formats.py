"""The load's lines in the formats of other shippers, one function each, and how fast ingest accepts those.

A format's bodies are made like all others (`bench/lines.py`): some bodies of one mould are written in the format, and where
they differ are its holes. So a body of any format costs the generator as little as one of our own, and is never repeated.
"""

from __future__ import annotations

import base64
import json
import time
from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import orjson

from bench.lines import Mould, moulds
from bench.wire import Answer
from schemas.levels import parse_level

if TYPE_CHECKING:
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

_FILLS: Final = 10
"""Bodies that are compared: a place where digits are the same in all of them by chance is one of a billion."""
Lines = Sequence[dict[str, Any]]  # logs as JSON


@dataclass(frozen=True, slots=True)
class WireFormat:
    """How a format's requests look."""

    path: str
    content_type: str
    write: Callable[[Lines, int], bytes]
    """A body of lines that happened at a time (nanoseconds since 1970); the same length for lines of the same mould."""
    is_whole: Callable[[Answer], bool]
    """Whether an answer with a 2xx acknowledges all of a request."""


def _otlp_protobuf(lines: Lines, time_ns: int) -> bytes:
    return _otlp(lines, time_ns).SerializeToString()


def _otlp_json(lines: Lines, time_ns: int) -> bytes:
    from google.protobuf.json_format import MessageToDict

    document = MessageToDict(_otlp(lines, time_ns), use_integers_for_enums=True)
    for of_service in document["resourceLogs"]:
        for record in of_service["scopeLogs"][0]["logRecords"]:
            record["traceId"] = base64.b64decode(record["traceId"]).hex()
    return json.dumps(document, separators=(",", ":")).encode()


def _otlp(lines: Lines, time_ns: int) -> ExportLogsServiceRequest:
    """As a Collector sends them: a resource for each service."""
    from opentelemetry.proto.collector.logs.v1.logs_service_pb2 import ExportLogsServiceRequest

    request, by_service = ExportLogsServiceRequest(), defaultdict(list)
    for line in lines:
        by_service[line["service_name"]].append(line)
    for service, of_service in by_service.items():
        group = request.resource_logs.add()
        name = group.resource.attributes.add(key="service.name")
        name.value.string_value = service
        scope = group.scope_logs.add()
        scope.scope.name = "bench"
        for line in of_service:
            record = scope.log_records.add(
                time_unix_nano=time_ns,
                severity_number=parse_level(line["level"]),
                severity_text=line["level"],
                trace_id=bytes.fromhex(line["correlation_id"]),
            )
            record.body.string_value = line["message"]
            for key, value in line["metadata"].items():
                attribute = record.attributes.add(key=key)
                if isinstance(value, int):
                    attribute.value.int_value = value
                else:
                    attribute.value.string_value = value
    return request


def _bulk(lines: Lines, time_ns: int) -> bytes:
    """As Filebeat sends them: an action for each document, no ids."""
    at = datetime.fromtimestamp(time_ns // 1_000_000_000, UTC).isoformat(timespec="milliseconds")
    written = []
    for line in lines:
        document = {
            "@timestamp": at,
            "message": line["message"],
            "log": {"level": line["level"]},
            "service": {"name": line["service_name"]},
            "trace": {"id": line["correlation_id"]},
            **line["metadata"],
        }
        written += [b'{"create":{"_index":"bench"}}', orjson.dumps(document)]
    return b"\n".join([*written, b""])


def _loki_json(lines: Lines, time_ns: int) -> bytes:
    streams = [
        {"stream": labels, "values": [[str(time_ns), line, own] for line, own in entries]}
        for labels, entries in _loki(lines)
    ]
    return json.dumps({"streams": streams}, separators=(",", ":")).encode()


def _loki_protobuf(lines: Lines, time_ns: int) -> bytes:
    """In a snappy block of literals alone, so that lines of the same mould have the same length."""
    seconds, nanos = divmod(time_ns, 1_000_000_000)
    at = _field(1, b"\x08" + _varint(seconds) + b"\x10" + _varint(nanos | 1 << 28))
    body = b"".join(
        _field(
            1,
            _field(1, ("{" + ", ".join(f'{name}="{value}"' for name, value in labels.items()) + "}").encode())
            + b"".join(
                _field(
                    2,
                    at
                    + _field(2, line.encode())
                    + b"".join(
                        _field(3, _field(1, name.encode()) + _field(2, value.encode())) for name, value in own.items()
                    ),
                )
                for line, own in entries
            ),
        )
        for labels, entries in _loki(lines)
    )
    return _varint(len(body)) + b"\xfc" + (len(body) - 1).to_bytes(4, "little") + body


def _loki(lines: Lines) -> list[tuple[dict[str, str], list[tuple[str, dict[str, str]]]]]:
    """As Promtail groups them: streams by service and level, all else structured metadata. (labels, [(line, metadata)])"""
    streams: dict[tuple[str, str], list[tuple[str, dict[str, str]]]] = defaultdict(list)
    for line in lines:
        own = {"trace_id": line["correlation_id"], **{name: str(value) for name, value in line["metadata"].items()}}
        streams[line["service_name"], line["level"].lower()].append((line["message"], own))
    return [({"service_name": service, "level": level}, entries) for (service, level), entries in streams.items()]


def _field(number: int, content: bytes) -> bytes:
    return bytes((number << 3 | 2,)) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    parts = bytearray()
    while value > 127:
        parts.append(value & 127 | 128)
        value >>= 7
    parts.append(value)
    return bytes(parts)


FORMATS: Final[dict[str, WireFormat]] = {
    "otlp_protobuf": WireFormat(
        "/v1/logs", "application/x-protobuf", _otlp_protobuf, lambda answer: answer.body == b""
    ),
    "otlp_json": WireFormat("/v1/logs", "application/json", _otlp_json, lambda answer: answer.body == b"{}"),
    "bulk": WireFormat(
        "/_bulk?filter_path=errors,items.*.error,items.*.status",
        "application/x-ndjson",
        _bulk,
        lambda answer: answer.body.startswith(b'{"errors":false,'),
    ),
    "loki_json": WireFormat("/loki/api/v1/push", "application/json", _loki_json, lambda answer: answer.body == b""),
    "loki_protobuf": WireFormat(
        "/loki/api/v1/push", "application/x-protobuf", _loki_protobuf, lambda answer: answer.body == b""
    ),
}
"""Name, as in the figure `wire_ratio.NAME`, -> the format."""


def format_moulds(name: str, how_many: int, *, logs: int, seed: int) -> list[Mould]:
    """As `bench.lines.moulds`, in a format of `FORMATS`."""
    write = FORMATS[name].write
    made = []
    for mould in moulds(how_many, logs=logs, seed=seed):
        time_ns = time.time_ns()
        bodies = [write([orjson.loads(line) for line in mould.body().split(b"\n")], time_ns) for _ in range(_FILLS)]
        made.append(Mould.of_bodies(bodies, logs))
    return made
