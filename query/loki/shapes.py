"""Answers as Loki writes them, as JSON bytes: pure. Source: grafana/loki, pkg/util/marshal."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

import orjson

from query.loki.pipeline import Labelled

CATEGORIZE: Final = "categorize-labels"
"""Of the header X-Loki-Response-Encoding-Flags: labels say where they come from."""
Labels = tuple[tuple[str, str], ...]
Points = Sequence[tuple[int, float]]
"""(time in µs, value)"""


def streams_of(logs: Iterable[Labelled], *, is_categorized: bool) -> list[dict[str, Any]]:
    """Logs by their streams, in the order in which they come. Uncategorized, all labels of a log are those of its stream."""
    streams: dict[Labels, dict[str, Any]] = {}
    for one in logs:
        labels = one.stream if is_categorized else one.all
        key = tuple(sorted(labels.items()))
        stream = streams.get(key)
        if stream is None:
            stream = streams[key] = {"stream": dict(key), "values": []}
        value: list[Any] = [f"{one.log.timestamp}000", one.log.message]
        if is_categorized:
            categories = {"structuredMetadata": one.metadata, "parsed": one.parsed}
            value.append({name: labels for name, labels in categories.items() if labels})
        stream["values"].append(value)
    return list(streams.values())


def logs_answer(logs: Iterable[Labelled], *, is_categorized: bool, warnings: Sequence[str]) -> bytes:
    """Of a query for logs."""
    flags = {"encodingFlags": [CATEGORIZE]} if is_categorized else {}
    result = streams_of(logs, is_categorized=is_categorized)
    return _success({"resultType": "streams", **flags, "result": result, "stats": {}}, warnings)


def matrix_answer(series: Mapping[Labels, Points], *, warnings: Sequence[str] = ()) -> bytes:
    """Of a query for a measure over a range."""
    result = [
        {"metric": dict(labels), "values": [[us / 1e6, _number(value)] for us, value in points]}
        for labels, points in sorted(series.items())
        if points
    ]
    return _success({"resultType": "matrix", "result": result, "stats": {}}, warnings)


def vector_answer(values: Mapping[Labels, float], at_us: int, *, warnings: Sequence[str] = ()) -> bytes:
    """Of a query for a measure at one time."""
    result = [
        {"metric": dict(labels), "value": [at_us / 1e6, _number(value)]} for labels, value in sorted(values.items())
    ]
    return _success({"resultType": "vector", "result": result, "stats": {}}, warnings)


def scalar_answer(value: float, at_us: int) -> bytes:
    """Of a number."""
    return _success({"resultType": "scalar", "result": [at_us / 1e6, _number(value)], "stats": {}}, ())


def list_answer(data: Sequence[Any]) -> bytes:
    """Of names, values or series."""
    return orjson.dumps({"status": "success", "data": data})


def tail_message(logs: Iterable[Labelled], *, is_categorized: bool, skipped: int = 0) -> bytes:
    """Of a tail. skipped: logs that the client did not take in time; of these nothing else is known."""
    message: dict[str, Any] = {"streams": streams_of(logs, is_categorized=is_categorized)}
    if is_categorized:
        message["encodingFlags"] = [CATEGORIZE]
    if skipped:
        message["dropped_entries"] = [{"timestamp": "0", "labels": {"skipped": str(skipped)}}]
    return orjson.dumps(message)


def _success(data: dict[str, Any], warnings: Sequence[str]) -> bytes:
    return orjson.dumps({"status": "success", **({"warnings": list(warnings)} if warnings else {}), "data": data})


def _number(value: float) -> str:
    """As Go's strconv writes it, shortest."""
    if math.isnan(value):
        return "NaN"
    if math.isinf(value):
        return "+Inf" if value > 0 else "-Inf"
    return str(int(value)) if value.is_integer() and abs(value) < 1e15 else repr(value)
