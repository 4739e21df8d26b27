"""How schemathesis writes NDJSON, which it does not know by itself (its SCHEMATHESIS_HOOKS)."""

from __future__ import annotations

import json
from typing import Any

import schemathesis


@schemathesis.serializer("application/x-ndjson")
def lines(_: schemathesis.SerializationContext, value: Any) -> bytes:  # what the schema, or a breach of it, gave
    """A line for each item; text goes out as it is."""
    if isinstance(value, bytes):
        return value
    items = value if isinstance(value, list) else [value]
    texts = [item if isinstance(item, str) else json.dumps(item, default=str) for item in items]
    return "\n".join(texts).encode("utf-8", "surrogatepass")


@schemathesis.serializer("application/x-protobuf")
def message(_: schemathesis.SerializationContext, value: Any) -> bytes:
    """Bytes as they are; text goes out as it is."""
    return value if isinstance(value, bytes) else str(value).encode("utf-8", "surrogatepass")
