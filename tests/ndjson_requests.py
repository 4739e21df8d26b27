"""What schemathesis does not know by itself (its SCHEMATHESIS_HOOKS): bodies of other types, and tuples."""

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


@schemathesis.hook
def before_load_schema(_: schemathesis.HookContext, raw_schema: dict[str, Any]) -> None:
    """It rewrites `prefixItems` as older drafts have them, and then calls the document invalid where an answer is checked
    (4.32). Here any of the members may be at any place."""
    _without_tuples(raw_schema)


def _without_tuples(node: Any) -> None:  # of a JSON document
    if isinstance(node, dict):
        if "prefixItems" in node:
            node["items"] = {"anyOf": node.pop("prefixItems")}
        for value in node.values():
            _without_tuples(value)
    elif isinstance(node, list):
        for value in node:
            _without_tuples(value)
