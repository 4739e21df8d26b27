"""What the OpenAPI document says of the endpoints: models, statuses, examples. Nothing is parsed by it."""

from __future__ import annotations

from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field

from ingest.body import ENCODINGS
from schemas.access import SECURITY
from schemas.connections import ConnectionIn, ConnectionPut, TextPut
from schemas.levels import LEVELS
from schemas.record import CORRELATION_ID_CHARS_MAX, SERVICE_NAME_CHARS_MAX

ONE_DESCRIPTION: Final = """Takes one log as a JSON object. 201 means that it is durable: the broker has acknowledged it.

With an `Idempotency-Key` the request may be repeated as often as needed: the log is stored once, and each repetition gets
the same answer. Retry on 429 and 503 only, after `Retry-After` seconds."""

BATCH_DESCRIPTION: Final = """Takes up to 10,000 logs (8 MiB decompressed) as a JSON array or as NDJSON, plain or compressed.

Its logs may name at most 1,000 services. Bad items are rejected one by one with the reason, the others are taken. 201 means
that every accepted log is durable. All or nothing for refusals: 413, 429 and 503 leave nothing behind, so that the whole
request can be repeated; with an `Idempotency-Key` also where the answer was lost."""


class LogIn(BaseModel):
    """One log as a producer sends it. Fields outside these are errors; own fields go into `metadata`."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    service_name: str | None = Field(
        default=None,
        max_length=SERVICE_NAME_CHARS_MAX,
        pattern=r"^[A-Za-z0-9._/-]{1,100}$",
        examples=["shop/checkout"],
    )
    """Which service says it: ASCII letters, digits and `. _ - /`. May be left out with a key that may write exactly one."""
    message: str = Field(examples=["payment declined"])
    """Text; cut at 256 KiB, then `metadata._truncated` is true."""
    timestamp: str | float | None = Field(default=None, examples=["2026-11-22T10:00:00.123Z"])
    """Event time: ISO 8601 (UTC without a zone), or a number since 1970 in s, ms, µs or ns by size. Default: now."""
    level: str | int | None = Field(default=None, examples=["ERROR"])
    """TRACE, DEBUG, INFO (default), WARN, ERROR, FATAL, an alias (`warning`, `err`), or a severity number 1..24."""
    correlation_id: str | None = Field(default=None, max_length=CORRELATION_ID_CHARS_MAX)
    """Joins the logs of one story. When empty: `metadata.experiment_id`, else `metadata.connection_id`."""
    metadata: dict[str, Any] | None = Field(default=None, examples=[{"order": 17, "card": "visa"}])
    """Own fields: an object of at most 64 KiB, nested at most 16 deep."""


class LogAnswer(BaseModel):
    """The log was taken, or dropped by a filter."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    log_id: str | None = Field(examples=["391824718239461376"])
    """Id as a decimal string (it does not fit a double); null when a filter dropped the log."""
    filtered_by: str | None = Field(default=None, examples=["no-debug"])
    """Name of the filter; absent when the log was kept."""


class RejectedItem(BaseModel):
    """One log that was not taken."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    index: int = Field(examples=[3])
    """Place in the batch, from 0; blank lines do not count."""
    code: Literal[
        "json",
        "service_name",
        "timestamp",
        "level",
        "message",
        "metadata",
        "correlation_id",
        "unknown_field",
        "not_permitted",
    ] = Field(examples=["timestamp"])
    """The reason as the ledger counts it."""
    error: str = Field(examples=["timestamp: 1970-01-01T00:00:00+00:00 is older than the retention of 400 days"])
    """Every problem of the item, for people."""


class BatchAnswer(BaseModel):
    """What became of a batch: accepted + filtered + rejected is what was sent."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    accepted: int = Field(examples=[998])
    """Logs that are durable."""
    filtered: dict[str, int] = Field(examples=[{"no-debug": 1}])
    """Logs dropped, by the filter's name."""
    rejected_count: int = Field(examples=[1])
    """Logs that were not valid."""
    rejected: list[RejectedItem]
    """The first 100 of them."""
    first_id: str | None = Field(examples=["391824718239461376"])
    """Id of the first accepted log, a decimal string."""
    last_id: str | None = Field(examples=["391824718239462373"])
    """Id of the last accepted log."""
    ids: list[str | None] | None = None
    """With `return_ids=true`: the id of each item in the order sent, null where it was not accepted."""


class InvalidField(BaseModel):
    """One field that is not valid."""

    field: str = Field(examples=["level"])
    message: str = Field(examples=["expected a name such as INFO or a whole number 1..24, got 'loud'"])


class Problem(BaseModel):
    """RFC 9457 problem."""

    model_config = ConfigDict(use_attribute_docstrings=True)

    type: str = Field(examples=["urn:logfeed:problem:invalid-fields"])
    """Names the kind of problem; stable."""
    title: str
    """The kind, for people."""
    status: int
    """The status code."""
    detail: str
    """What happened, what was expected, what to do."""
    errors: list[InvalidField] | None = None
    """Each field that is not valid (422)."""
    rejected_count: int | None = None
    """Logs that were not valid (422 of a batch)."""
    rejected: list[RejectedItem] | None = None
    """The first 100 of them."""


def _inlined(schema: Any, definitions: dict[str, Any]) -> Any:
    """A JSON schema without references: FastAPI names models of application/json only."""
    if isinstance(schema, dict):
        if "$ref" in schema:
            return _inlined(definitions[schema["$ref"].rsplit("/", 1)[1]], definitions)
        return {key: _inlined(value, definitions) for key, value in schema.items() if key != "$defs"}
    if isinstance(schema, list):
        return [_inlined(value, definitions) for value in schema]
    return schema


_PROBLEM: Final = Problem.model_json_schema()
_PROBLEM_SCHEMA: Final = _inlined(_PROBLEM, _PROBLEM["$defs"])


def _problem(
    status: int, description: str, *, kind: str, title: str, detail: str, retry: bool = False, **members: Any
) -> dict[str, Any]:
    """kind, title, detail, members: of the example."""
    example = {
        "type": f"urn:logfeed:problem:{kind}",
        "title": title,
        "status": status,
        "detail": detail,
        **members,
    }
    response: dict[str, Any] = {
        "description": description,
        "content": {"application/problem+json": {"schema": _PROBLEM_SCHEMA, "example": example}},
    }
    if retry:
        response["headers"] = {
            "Retry-After": {"description": "Seconds until a retry makes sense.", "schema": {"type": "integer"}}
        }
    return response


_COMMON: Final[dict[int | str, dict[str, Any]]] = {
    400: _problem(
        400,
        "The body cannot be read: broken compression, more than 1,000 members, or an array that is cut off. Nothing was"
        " taken.",
        kind="malformed-body",
        title="The body cannot be read",
        detail="the gzip body is cut off",
    ),
    401: {
        **_problem(
            401,
            "No credentials came, or they are not valid (any more).",
            kind="unauthenticated",
            title="Who you are is not known",
            detail="this API key is not known: it was mistyped or revoked",
        ),
        "headers": {"WWW-Authenticate": {"description": "Bearer (RFC 6750).", "schema": {"type": "string"}}},
    },
    403: _problem(
        403,
        "The key may not send logs of this service, of any, or from this address.",
        kind="not-permitted",
        title="Not permitted",
        detail="the token does not permit writing logs of 'shop/checkout'",
    ),
    408: _problem(
        408,
        "The body did not arrive in time.",
        kind="body-too-slow",
        title="The body arrived too slowly",
        detail="the body did not arrive within 30 s",
    ),
    413: _problem(
        413,
        "The body is larger than one request may be, or its logs name more than 1,000 services: send several.",
        kind="body-too-large",
        title="The body is too large",
        detail="the body is larger than 8388608 bytes (decompressed): send several requests",
    ),
    415: _problem(
        415,
        "The body's type or encoding is not supported.",
        kind="unsupported-body",
        title="The body's type or encoding is not supported",
        detail=f"Content-Encoding 'br' is not supported (one of {', '.join(ENCODINGS)})",
    ),
    422: _problem(
        422,
        "Fields are not valid (each is named), or the Idempotency-Key was used with another body.",
        kind="invalid-fields",
        title="Fields are not valid",
        detail="level: expected a name such as INFO or a whole number 1..24, got 'loud'",
        errors=[{"field": "level", "message": "expected a name such as INFO or a whole number 1..24, got 'loud'"}],
    ),
    429: _problem(
        429,
        "A rate limit refuses the whole request.",
        kind="rate-limited",
        title="A rate limit refuses the request",
        detail="the limit 'pace' is exceeded",
        retry=True,
    ),
    503: _problem(
        503,
        "The request cannot be taken now: broker away, too much under way, or no ids.",
        kind="unavailable",
        title="The request cannot be taken now",
        detail="the broker does not answer",
        retry=True,
    ),
}
_NOT_FOUND: Final = _problem(
    404,
    "There is no such connection: put it first.",
    kind="not-found",
    title="There is no such connection",
    detail="there is no connection 1001: put it first",
)
_CONFLICT: Final = _problem(
    409,
    "Another text is stored, or there is no room for another connection: `detail` says which.",
    kind="conflict",
    title="Another text is stored",
    detail="another text of 1001/server is stored, or begun: 5000 bytes of it; a text may only grow at its end",
)
CONNECTION_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "It is changed, or was so already.", "model": ConnectionPut},
    201: {"description": "It is new.", "model": ConnectionPut},
    **{status: _COMMON[status] for status in (400, 401, 403, 408, 413, 415, 422, 503)},
    409: _CONFLICT,
}
CONNECTION_REQUEST: Final = {
    "security": SECURITY,
    "requestBody": {"required": True, "content": {"application/json": {"schema": ConnectionIn.model_json_schema()}}},
}
TEXT_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "All of it was stored before.", "model": TextPut},
    201: {"description": "What was new of it is durable.", "model": TextPut},
    **_COMMON,
    404: _NOT_FOUND,
    409: _CONFLICT,
}
TEXT_REQUEST: Final = {
    "security": SECURITY,
    "parameters": [
        {
            "name": "time",
            "in": "query",
            "required": False,
            "description": "`keep`: the times in the text. `shift`: moved, all of the connection alike, so that its"
            " `last_updated` was the moment of the first text. The first text of a connection decides for good.",
            "schema": {"type": "string", "enum": ["keep", "shift"], "default": "keep"},
        }
    ],
    "requestBody": {
        "required": True,
        "content": {
            "text/plain": {
                "schema": {"type": "string", "description": "Lines `time | LEVEL | message`."},
                "example": "2026-11-22 10:00:00.123 | INFO | Latency | latency: 0.02\n",
            }
        },
    },
}
_ID: Final = "391824718239461376"


def _json(example: dict[str, Any]) -> dict[str, Any]:
    return {"application/json": {"example": example}}


ONE_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "A filter dropped the log.", "model": LogAnswer},
    201: {
        "description": "The log is durable.",
        "model": LogAnswer,
        "content": _json({"log_id": _ID}),
        "headers": {"Location": {"description": "Where the log can be read.", "schema": {"type": "string"}}},
    },
    **_COMMON,
}
BATCH_RESPONSES: Final[dict[int | str, dict[str, Any]]] = {
    200: {"description": "Filters dropped every log.", "model": BatchAnswer},
    201: {
        "description": "Every accepted log is durable.",
        "model": BatchAnswer,
        "content": _json(
            {
                "accepted": 997,
                "filtered": {"no-debug": 2},
                "rejected_count": 1,
                "rejected": [{"index": 3, "code": "level", "error": "level: expected 1..24, got 99"}],
                "first_id": _ID,
                "last_id": "391824718239462373",
            }
        ),
    },
    **_COMMON,
}

_KEY: Final = {
    "name": "Idempotency-Key",
    "in": "header",
    "required": False,
    "description": "1..255 printable ASCII characters, new for each new request, the same for its retries. Lives 72 h.",
    "schema": {"type": "string", "minLength": 1, "maxLength": 255},
}
_ENCODING: Final = {
    "name": "Content-Encoding",
    "in": "header",
    "required": False,
    "description": "How the body is compressed.",
    "schema": {"type": "string", "enum": list(ENCODINGS)},
}
_RETURN_IDS: Final = {
    "name": "return_ids",
    "in": "query",
    "required": False,
    "description": "Answer with the id of each item.",
    "schema": {"type": "boolean", "default": False},
}
_LOG_SCHEMA: Final = LogIn.model_json_schema()
_EXAMPLE: Final = {
    "service_name": "shop/checkout",
    "level": "ERROR",
    "message": "payment declined",
    "correlation_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    "metadata": {"order": 17},
}
ONE_REQUEST: Final = {
    "security": SECURITY,
    "parameters": [_KEY, _ENCODING],
    "requestBody": {"required": True, "content": {"application/json": {"schema": _LOG_SCHEMA, "example": _EXAMPLE}}},
}
BATCH_REQUEST: Final = {
    "security": SECURITY,
    "parameters": [_KEY, _ENCODING, _RETURN_IDS],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {"schema": {"type": "array", "items": _LOG_SCHEMA}, "example": [_EXAMPLE]},
            "application/x-ndjson": {
                "schema": {"type": "string", "description": "One log object per line."},
                "example": '{"service_name":"shop","message":"paid"}\n{"service_name":"shop","message":"sent"}\n',
            },
        },
    },
}
assert set(LEVELS) == {"TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"}, "the description above names the levels"
