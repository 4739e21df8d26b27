"""Values of a log's fields as texts: what groups are told apart by, and what `distinct` counts. Pure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import orjson

from schemas.levels import level_name
from search.fields import key_chains
from search.language import parse_path
from search.predicate import LogView

VALUE_CHARS_MAX: Final = 200
Reading = Callable[[LogView], str]


def reading(field: str) -> Reading:
    """What reads a field: '' where it is missing or null, JSON where it is neither text nor number, cut at VALUE_CHARS_MAX."""
    match field:
        case "service":
            return lambda log: log.service_name
        case "level":
            return lambda log: level_name(log.level)
        case "correlation_id":
            return lambda log: log.correlation_id or ""
    chains = tuple(key_chains(parse_path(field)))

    def read(log: LogView) -> str:
        for keys in chains:
            value: Any = log.metadata
            for key in keys:
                value = value.get(key) if isinstance(value, dict) else None
            if value is not None:
                return _text(value)
        return ""

    return read


def _text(value: Any) -> str:  # a JSON value
    if isinstance(value, str):
        return value[:VALUE_CHARS_MAX].replace("\0", "\ufffd").encode("utf-8", "replace").decode()
    try:
        return orjson.dumps(value, option=orjson.OPT_SORT_KEYS).decode()[:VALUE_CHARS_MAX]
    except (orjson.JSONEncodeError, RecursionError):
        return repr(value)[:VALUE_CHARS_MAX]
