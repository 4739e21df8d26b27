"""A piece of SQL with its parameters, and where it finds a log's fields."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Sql:
    """A boolean expression: true or false, never NULL. Each placeholder in `text` stands for the next of `params`.

    Values are only ever in `params`. The text holds no % or ? besides placeholders and needs no brackets around it.
    """

    text: str
    params: tuple[object, ...] = ()


@dataclass(frozen=True, slots=True)
class Columns:
    """SQL expressions for a log's fields, trusted as they are: column names, with a table's alias where needed.

    Only correlation_id and metadata may be NULL.
    """

    id: str = "id"
    timestamp: str = "timestamp"
    level: str = "level"
    service_name: str = "service_name"
    message: str = "message"
    correlation_id: str = "correlation_id"
    metadata: str = "metadata"


def joined(word: str, parts: Iterable[Sql]) -> Sql:
    """(a WORD b WORD c), in brackets unless there is one part only; there must be one."""
    parts = list(parts)
    if len(parts) == 1:
        return parts[0]
    text = f" {word} ".join(part.text for part in parts)
    return Sql(f"({text})", tuple(value for part in parts for value in part.params))
