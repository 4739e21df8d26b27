"""The routes of Elasticsearch's clients, at the root and below `/elastic`, and what the OpenAPI document says of them."""

from __future__ import annotations

from typing import Any, Final

from fastapi import Request

from ingest.api import TakesLogs
from ingest.wire.edge import Format, add_format
from ingest.wire.elastic.bulk_format import JSON, BulkFormat
from ingest.wire.elastic.greetings import add_greetings
from runtime.direct import DirectRouter
from schemas.access import SECURITY

PREFIX: Final = "/elastic"
_METHODS: Final = ("POST", "PUT")
_SUMMARY: Final = "Send documents, as to Elasticsearch"
_DESCRIPTION: Final = """Elasticsearch's `_bulk`: an action (`create` or `index`: the same) and a document, a line each.

Fields of the Elastic Common Schema become those of a log: `@timestamp`, `message`, `log.level`, `service.name`, `trace.id`;
all others its metadata. Items are taken or refused one by one: 201 durable, 200 dropped by a filter, 400 not valid; a refusal
of the whole request leaves nothing behind. Limits are those of `/api/v1/logs/batch`. A body in which every document has an
`_id` is its own Idempotency-Key."""
_ERROR_SCHEMA: Final = {
    "type": "object",
    "required": ["error", "status"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["type", "reason"],
            "properties": {"type": {"type": "string"}, "reason": {"type": "string"}},
        },
        "status": {"type": "integer"},
    },
}
_ANSWER_SCHEMA: Final = {
    "type": "object",
    "properties": {
        "took": {"type": "integer"},
        "errors": {"type": "boolean", "description": "Whether an item was refused."},
        "items": {
            "type": "array",
            "items": {
                "type": "object",
                "additionalProperties": {
                    "type": "object",
                    "properties": {
                        "_index": {"type": "string"},
                        "_id": {"type": "string", "description": "The client's, else that of the log."},
                        "result": {"type": "string", "enum": ["created", "noop"]},
                        "status": {"type": "integer", "enum": [200, 201, 400]},
                        "error": {"type": "object"},
                    },
                },
            },
        },
    },
}
_ANSWER_EXAMPLE: Final = {
    "took": 1,
    "errors": False,
    "items": [{"create": {"_index": "logs", "_id": "391824718239461376", "result": "created", "status": 201}}],
}
_PRODUCT_HEADER: Final = {"X-Elastic-Product": {"description": "Elasticsearch.", "schema": {"type": "string"}}}
_RETRY_HEADER: Final = {
    "Retry-After": {"description": "Seconds until a retry makes sense.", "schema": {"type": "integer"}}
}
_ASKS_HEADER: Final = {"WWW-Authenticate": {"description": "Bearer (RFC 6750).", "schema": {"type": "string"}}}


def _error(description: str, headers: dict[str, Any] | None = None) -> dict[str, Any]:
    return {
        "description": description,
        "headers": {**_PRODUCT_HEADER, **(headers or {})},
        "content": {JSON: {"schema": _ERROR_SCHEMA}},
    }


_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {
        "description": "What became of each item.",
        "headers": _PRODUCT_HEADER,
        "content": {JSON: {"schema": _ANSWER_SCHEMA, "example": _ANSWER_EXAMPLE}},
    },
    400: _error("The body is empty, or its compression is broken."),
    401: _error("No credentials came, or they are not valid (any more).", _ASKS_HEADER),
    403: _error("The key may not send logs of any service, or not from this address."),
    408: _error("The body did not arrive in time."),
    413: _error("The body is larger than one request may be, or has too many items: send several."),
    415: _error("The body's encoding is not supported."),
    422: _error("The Idempotency-Key is not usable, or was used with another body."),
    429: _error("A rate limit refuses the whole request.", _RETRY_HEADER),
    503: _error("The request cannot be taken now.", _RETRY_HEADER),
}
_PARAMETERS: Final[list[dict[str, Any]]] = [
    {
        "name": "filter_path",
        "in": "query",
        "required": False,
        "description": "Members of the answer: paths with `*` and `**`, separated by commas; a leading `-` takes away.",
        "schema": {"type": "string", "example": "errors,items.*.error,items.*.status"},
    },
    {
        "name": "Content-Encoding",
        "in": "header",
        "required": False,
        "description": "How the body is compressed.",
        "schema": {"type": "string", "enum": ["gzip", "zstd", "identity"]},
    },
]
_INDEX: Final = {
    "name": "index",
    "in": "path",
    "required": True,
    "description": "Of actions that name none. Kept in `metadata._index` of documents that name no service.",
    "schema": {"type": "string"},
}
_BODY: Final = {
    "required": True,
    "content": {
        "application/x-ndjson": {
            "schema": {"type": "string", "description": "An action and a document, a line each."},
            "example": '{"create":{}}\n{"service":{"name":"shop"},"log":{"level":"error"},"message":"payment declined"}\n',
        }
    },
}


def add_elastic(router: DirectRouter, service: TakesLogs) -> None:
    """What clients ask first, and `_bulk`."""

    def format_of(request: Request) -> Format:
        return BulkFormat(request, logs_max=service.settings.logs_max)

    for prefix in ("", PREFIX):
        add_greetings(router, prefix)
    for path, parameters in (("/_bulk", _PARAMETERS), ("/{index}/_bulk", [_INDEX, *_PARAMETERS])):
        add_format(
            router,
            service,
            paths=[path, PREFIX + path],
            methods=_METHODS,
            format_of=format_of,
            summary=_SUMMARY,
            description=_DESCRIPTION,
            responses=_RESPONSES,
            openapi_extra={"security": SECURITY, "parameters": parameters, "requestBody": _BODY},
        )
