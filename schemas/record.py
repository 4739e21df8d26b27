"""The log record, in its two forms, and the limits of its fields.

`Log` is what filters, matchers and pages see. `LogLine` is the same line with its metadata as undecoded JSON: the writer
carries metadata from the frame to the database without parsing it (it was parsed and re-encoded once, by ingest).
Both are the same bytes on the wire: one JSON array per line, in the order of the fields. Changing the order is a new
record version (schemas/frames.py).
"""

from __future__ import annotations

import re
from typing import Any, Final

import msgspec

MESSAGE_BYTES_MAX: Final = 256 * 1024
METADATA_BYTES_MAX: Final = 64 * 1024
METADATA_DEPTH_MAX: Final = 16
CORRELATION_ID_CHARS_MAX: Final = 128
SERVICE_NAME_CHARS_MAX: Final = 100
SERVICE_NAME_PATTERN: Final = re.compile(r"[A-Za-z0-9._/-]{1,100}")
FUTURE_MS_MAX: Final = 10 * 60 * 1000
"""How far ahead of the clock a live log's timestamp may be, in milliseconds."""

TRUNCATED_KEY: Final = "_truncated"
"""Metadata key that marks a message that was cut at MESSAGE_BYTES_MAX."""


class Log(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """One log.

    id: Snowflake, 63 bits. timestamp: event time, microseconds since the Unix epoch, UTC. level: severity number
    1..24. metadata: a JSON object (JSON types only).
    """

    id: int
    timestamp: int
    level: int
    service_name: str
    message: str
    correlation_id: str | None
    metadata: dict[str, Any]  # any JSON value: the producer's own


class LogLine(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """One log as it lies in a frame; `metadata` is the object's JSON text. Same wire form as `Log`."""

    id: int
    timestamp: int
    level: int
    service_name: str
    message: str
    correlation_id: str | None
    metadata: msgspec.Raw


def is_service_name(text: str) -> bool:
    """True for 1..100 ASCII letters, digits and `. _ - /`."""
    return SERVICE_NAME_PATTERN.fullmatch(text) is not None
