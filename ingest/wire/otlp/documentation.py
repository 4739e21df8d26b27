"""What the OpenAPI document says of OTLP's routes. Nothing is parsed by it."""

from __future__ import annotations

from typing import Any, Final

from ingest.body import ENCODINGS
from ingest.wire.otlp.answers import JSON, PROTOBUF
from schemas.access import SECURITY

DESCRIPTION: Final = """Takes an `ExportLogsServiceRequest`, as OpenTelemetry's SDKs and Collectors send it: up to 10,000
records (8 MiB decompressed). The answer has the request's type.

200 means that every record that `partialSuccess` does not count is durable, or was dropped by a filter. Errors are
`google.rpc.Status`. Send again what was answered 429 or 503. A body in which every record has its own time is its own
`Idempotency-Key`: sent again, it is stored once.

Mapping: `docs/shippers/opentelemetry.md`. `/v1/logs` and `/otlp/v1/logs` are the same."""

_EXAMPLE: Final = {
    "resourceLogs": [
        {
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "shop/checkout"}}]},
            "scopeLogs": [
                {
                    "scope": {"name": "checkout"},
                    "logRecords": [
                        {
                            "timeUnixNano": "1795000000000000000",
                            "severityNumber": 17,
                            "severityText": "ERROR",
                            "body": {"stringValue": "payment declined"},
                            "attributes": [{"key": "order", "value": {"intValue": "17"}}],
                            "traceId": "4bf92f3577b34da6a3ce929d0e0e4736",
                            "spanId": "00f067aa0ba902b7",
                        }
                    ],
                }
            ],
        }
    ]
}
_OBJECTS: Final = {"type": "array", "items": {"type": "object"}}
_SCHEMA: Final = {
    "type": "object",
    "description": "ExportLogsServiceRequest in OTLP's JSON: ids in hex, enumerations as numbers, 64-bit integers as text.",
    "properties": {
        "resourceLogs": {
            "type": "array",
            "items": {
                "type": "object",
                "properties": {
                    "resource": {"type": "object", "properties": {"attributes": _OBJECTS}},
                    "scopeLogs": {
                        "type": "array",
                        "items": {
                            "type": "object",
                            "properties": {"scope": {"type": "object"}, "logRecords": _OBJECTS},
                        },
                    },
                },
            },
        }
    },
}
_STATUS_SCHEMA: Final = {
    "type": "object",
    "description": "google.rpc.Status",
    "required": ["code", "message"],
    "properties": {
        "code": {"type": "integer", "description": "google.rpc.Code"},
        "message": {"type": "string", "description": "What happened, what was expected, what to do."},
    },
}
_ANSWER_SCHEMA: Final = {
    "type": "object",
    "description": "ExportLogsServiceResponse",
    "properties": {
        "partialSuccess": {
            "type": "object",
            "properties": {
                "rejectedLogRecords": {"type": "string", "pattern": "^[0-9]+$"},
                "errorMessage": {"type": "string"},
            },
        }
    },
}
_BINARY: Final = {"schema": {"type": "string", "format": "binary"}}


def _error(
    description: str, code: int, message: str, *, retry: bool = False, challenge: bool = False
) -> dict[str, Any]:
    response: dict[str, Any] = {
        "description": description,
        "content": {
            JSON: {"schema": _STATUS_SCHEMA, "example": {"code": code, "message": message}},
            PROTOBUF: _BINARY,
        },
    }
    if retry:
        response["headers"] = {
            "Retry-After": {"description": "Seconds until a retry makes sense.", "schema": {"type": "integer"}}
        }
    if challenge:
        response["headers"] = {"WWW-Authenticate": {"description": "Bearer (RFC 6750).", "schema": {"type": "string"}}}
    return response


RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "What is not counted in `partialSuccess` was taken.",
        "content": {JSON: {"schema": _ANSWER_SCHEMA, "example": {}}, PROTOBUF: _BINARY},
    },
    400: _error("The body cannot be read, or none of its records is valid.", 3, "the gzip body is cut off"),
    401: _error(
        "No credentials came, or they are not valid (any more).",
        16,
        "this API key is not known: it was mistyped or revoked",
        challenge=True,
    ),
    403: _error(
        "The key may not send logs of any of these services, or from this address.",
        7,
        "record 0: service_name: the token does not permit writing logs of 'shop/checkout'",
    ),
    413: _error(
        "The body is larger than one request may be: send several.",
        3,
        "the body is larger than 8388608 bytes (decompressed): send several requests",
    ),
    415: _error(
        "The body's type or encoding is not supported.",
        3,
        f"this Content-Type is not supported: send {PROTOBUF} or {JSON}",
    ),
    429: _error("A rate limit refuses the whole request.", 8, "the limit 'pace' is exceeded", retry=True),
    503: _error(
        "The request cannot be taken now, or its body came too slowly.", 14, "the broker does not answer", retry=True
    ),
}
REQUEST: Final = {
    "security": SECURITY,
    "parameters": [
        {
            "name": "Idempotency-Key",
            "in": "header",
            "required": False,
            "description": "Instead of the body's own.",
            "schema": {"type": "string", "minLength": 1, "maxLength": 255},
        },
        {
            "name": "Content-Encoding",
            "in": "header",
            "required": False,
            "description": "How the body is compressed.",
            "schema": {"type": "string", "enum": list(ENCODINGS)},
        },
    ],
    "requestBody": {
        "required": True,
        "content": {JSON: {"schema": _SCHEMA, "example": _EXAMPLE}, PROTOBUF: _BINARY},
    },
}
