"""Which values the newest logs have, and how often: the tally of a sample. Pure.

The sample is bounded in logs and in bytes, so the tally is. What a value stands for is what `metadata.KEY=VALUE` finds: texts,
numbers, true and false; null, arrays and objects are no values.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from schemas.levels import level_name
from schemas.record import Log
from search.fields import key_chains
from search.predicate import FieldPresent

ROWS_MAX: Final = 20_000
"""Logs of a sample."""
BYTES_MAX: Final = 32 * 1024 * 1024
"""Of their messages and metadata, about."""
KEYS_SHOWN: Final = 8
"""Metadata keys that are shown where nobody says which: the commonest of those whose values come again."""
_TELLING_VALUES: Final = 10
_TELLING_SHARE: Final = 0.1
"""Of a key's uses, at least, that its commonest values have; else they are ids or numbers of lines, and no choice."""
VALUE_CHARS_MAX: Final = 200
"""Longer values are counted among the others."""
_KEYS_MAX: Final = 500
"""Keys that are looked at; further ones of a sample are not."""
_KEY_CHARS_MAX: Final = 100
SERVICE: Final = "service_name"
LEVEL: Final = "level"


@dataclass(frozen=True, slots=True)
class Field:
    """One field whose values are counted."""

    name: str
    path: tuple[str, ...] = ()
    """Of a metadata field; none for the log's own."""


class Tally:
    """Values of a sample."""

    def __init__(self, fields: Sequence[Field]) -> None:
        """fields: none for the log's own and the commonest metadata keys."""
        self._fields = fields
        self._values: dict[Field, Counter[str]] = {field: Counter() for field in fields}
        self._long: Counter[Field] = Counter()
        self._services: Counter[str] = Counter()
        self._levels: Counter[int] = Counter()
        self._keys: dict[str, Field | None] = {}
        """Metadata keys that were met; None: it cannot be asked for."""
        self.rows = 0

    def add(self, logs: Iterable[Log]) -> None:
        """Further logs of the sample. Measured: 4 µs a log of five keys."""
        for log in logs:
            self.rows += 1
            self._services[log.service_name] += 1
            self._levels[log.level] += 1
            if self._fields:
                for field in self._fields:
                    if field.path:
                        self._note(field, _value(log.metadata, field.path))
            else:
                for key, value in log.metadata.items():
                    if (found := self._field_of(key)) is not None:
                        self._note(found, value)

    def facets(self, *, top: int) -> list[dict[str, Any]]:
        """Of each field the commonest values, most first; see schemas.overview.Facet."""
        return [_facet(field.name, self._counts(field), top, self._long[field]) for field in self._shown()]

    def _shown(self) -> Sequence[Field]:
        if self._fields:
            return self._fields
        uses = {field: values.total() + self._long[field] for field, values in self._values.items()}
        telling = [field for field, used in uses.items() if used and self._is_telling(field, used)]
        by_use = sorted(telling, key=lambda field: (-uses[field], field.name))
        return [Field(SERVICE), Field(LEVEL), *by_use[:KEYS_SHOWN]]

    def _is_telling(self, field: Field, used: int) -> bool:
        commonest = self._values[field].most_common(_TELLING_VALUES)
        return sum(count for _, count in commonest) >= _TELLING_SHARE * used

    def _counts(self, field: Field) -> Counter[str]:
        if field.path:
            return self._values[field]
        if field.name == SERVICE:
            return self._services
        levels: Counter[str] = Counter()
        for severity, rows in self._levels.items():
            levels[level_name(severity)] += rows
        return levels

    def _field_of(self, key: str) -> Field | None:
        if key not in self._keys:
            if len(self._keys) >= _KEYS_MAX or len(key) > _KEY_CHARS_MAX:
                return None
            self._keys[key] = asked = _asked(key)
            if asked is not None:
                self._values[asked] = Counter()
        return self._keys[key]

    def _note(self, field: Field, value: Any) -> None:  # any JSON value
        text = _text(value)
        if text is None:
            return
        if len(text) > VALUE_CHARS_MAX:
            self._long[field] += 1
        else:
            self._values[field][text] += 1


def metadata_field(key: str) -> Field:
    """The field of this dotted name. Raises ValueError with a message for people."""
    path = tuple(key.split("."))
    FieldPresent(path)
    return Field(f"metadata.{key}", path)


def _asked(key: str) -> Field | None:
    try:
        return metadata_field(key)
    except ValueError:
        return None


def _facet(name: str, counts: Counter[str], top: int, long: int) -> dict[str, Any]:
    shown = sorted(counts.items(), key=lambda item: (-item[1], item[0]))[:top]
    others = counts.total() + long - sum(count for _, count in shown)
    return {"field": name, "values": [{"value": value, "count": count} for value, count in shown], "others": others}


def _value(metadata: dict[str, Any], path: tuple[str, ...]) -> Any:  # any JSON value
    """The first value that the path means; see search.predicate.MetaEquals."""
    for keys in key_chains(path):
        value: Any = metadata
        for key in keys:
            value = value.get(key) if isinstance(value, dict) else None
        if _text(value) is not None:
            return value
    return None


def _text(value: Any) -> str | None:  # any JSON value
    """As it is asked for; None: it is no value."""
    if isinstance(value, str):
        return value
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        return str(value) if abs(value) < 10**VALUE_CHARS_MAX else None
    return repr(value) if isinstance(value, float) and math.isfinite(value) else None
