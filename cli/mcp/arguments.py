"""What each tool takes: declared once, for the schema that models are given and for reading what they send."""

from __future__ import annotations

from typing import Annotated, Any, Final, Literal

import msgspec
from msgspec import Meta

LOGS_MAX: Final = 200
LOGS_DEFAULT: Final = 30
CONTEXT_MAX: Final = 30
CONTEXT_DEFAULT: Final = 10
PATTERNS_MAX: Final = 100
PATTERNS_DEFAULT: Final = 20
BUCKETS_MAX: Final = 100
BUCKETS_DEFAULT: Final = 30
VALUES_MAX: Final = 50
VALUES_DEFAULT: Final = 10
FIELDS_MAX: Final = 10

_TIME: Final = "ISO 8601 (UTC without a zone), `now`, or a time before now: `-15m`, `-2h`, `-7d`."
_Id = Annotated[str, Meta(pattern=r"^[0-9]{1,19}$", description="The log's id, a decimal number, as text.")]
_Query = Annotated[
    str,
    Meta(
        max_length=4_000,
        description=(
            'Which logs, in the query language. Terms side by side must all hold: `timeout level>=warn service:pay* "two words"'
            " -healthcheck http.status>=500 correlation:abc /regex \\d+/ (a OR b)`. A plain word is searched for in messages,"
            " letters in either case; other names before `:` are metadata fields. No times in it. Left out: all logs."
        ),
    ),
]
_Start = Annotated[str, Meta(max_length=64, description=f"Not before this time. {_TIME}")]
_SpanStart = Annotated[
    str, Meta(max_length=64, description=f"Not before this time; by default an hour before the end. {_TIME}")
]
_End = Annotated[str, Meta(max_length=64, description=f"Before this time; by default now. {_TIME}")]
_Cursor = Annotated[
    str,
    Meta(
        min_length=1, max_length=4_000, description="`next_cursor` of the answer to the same arguments: its next page."
    ),
]
_Logs = Annotated[int, Meta(ge=1, le=LOGS_MAX, description=f"Most logs, 1 to {LOGS_MAX}.")]


class Arguments(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of a tool."""


class Search(Arguments, frozen=True):
    """Of search_logs."""

    query: _Query | None = None
    start_time: _Start | None = None
    end_time: _End | None = None
    order: Annotated[Literal["desc", "asc"], Meta(description="desc: newest first. asc: oldest first.")] = "desc"
    limit: _Logs = LOGS_DEFAULT
    cursor: _Cursor | None = None


class OneLog(Arguments, frozen=True):
    """Of get_log."""

    id: _Id


class Context(Arguments, frozen=True):
    """Of get_context."""

    id: _Id
    before: Annotated[int, Meta(ge=0, le=CONTEXT_MAX, description="Most logs before it.")] = CONTEXT_DEFAULT
    after: Annotated[int, Meta(ge=0, le=CONTEXT_MAX, description="Most logs after it.")] = CONTEXT_DEFAULT


class Story(Arguments, frozen=True):
    """Of get_correlation."""

    correlation_id: Annotated[str, Meta(min_length=1, max_length=128, description="As logs have it, exactly.")]
    limit: _Logs = LOGS_DEFAULT
    cursor: _Cursor | None = None


class Counts(Arguments, frozen=True):
    """Of count_over_time."""

    query: _Query | None = None
    start_time: _SpanStart | None = None
    end_time: _End | None = None
    buckets: Annotated[int, Meta(ge=1, le=BUCKETS_MAX, description="Most buckets of time.")] = BUCKETS_DEFAULT


class Values(Arguments, frozen=True):
    """Of count_values."""

    query: _Query | None = None
    start_time: _SpanStart | None = None
    end_time: _End | None = None
    fields: Annotated[
        list[Annotated[str, Meta(min_length=1, max_length=200)]],
        Meta(
            max_length=FIELDS_MAX,
            description="`service_name`, `level` or `metadata.KEY`. Left out: the first two and the commonest metadata keys.",
        ),
    ] = []
    top: Annotated[int, Meta(ge=1, le=VALUES_MAX, description="Most values of each field.")] = VALUES_DEFAULT


class Patterns(Arguments, frozen=True):
    """Of list_patterns."""

    service: (
        Annotated[
            str, Meta(min_length=1, max_length=101, description="Only lines of this service, or of a prefix: `pay/*`.")
        ]
        | None
    ) = None
    min_level: (
        Annotated[
            Literal["TRACE", "DEBUG", "INFO", "WARN", "ERROR", "FATAL"],
            Meta(description="Only lines of this level and above."),
        ]
        | None
    ) = None
    start_time: _SpanStart | None = None
    end_time: _End | None = None
    sort: Annotated[
        Literal["count", "errors", "new", "gone"],
        Meta(
            description="count: most lines first. errors: most errors first. new: first seen in the span."
            " gone: there before the span, not in it."
        ),
    ] = "count"
    limit: Annotated[int, Meta(ge=1, le=PATTERNS_MAX, description="Most patterns.")] = PATTERNS_DEFAULT


class Services(Arguments, frozen=True):
    """Of list_services."""

    prefix: Annotated[str, Meta(max_length=100, description="Only services whose names begin so: `pay/`.")] = ""


def schema_of(arguments: type[Arguments]) -> dict[str, Any]:
    """JSON Schema of one object, in one piece. Any: JSON values."""
    _, components = msgspec.json.schema_components((arguments,), ref_template="#/$defs/{name}")
    schema: dict[str, Any] = dict(components[arguments.__name__])
    for name in ("title", "description"):
        schema.pop(name, None)
    return schema
