"""Our records as streams with labels, and labels as conditions on our records. Pure.

A stream is a service and a level: labels `service_name` and `level`. All else is structured metadata: `correlation_id`, and the
metadata's fields by their dotted names, with `_` for what a label's name cannot have. So `http_status` asks for the fields
http_status, http.status, and status in an object http.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from itertools import product
from typing import Any, Final

import msgspec
import re2

from query.loki.syntax import Compare, LogQLError
from schemas.levels import LEVELS, band, level_name
from schemas.loki import CORRELATION_LABELS, LEVEL_NAMES, SERVICE_LABELS
from schemas.record import Log
from search.predicate import (
    EVERYTHING,
    NOTHING,
    CorrelationIs,
    CorrelationPresent,
    FieldPresent,
    LevelIn,
    MetaEquals,
    Predicate,
    ServiceIn,
    any_of,
    negate,
)

SERVICE: Final = "service_name"
LEVEL: Final = "level"
CORRELATION: Final = "correlation_id"
_STRANGE: Final = re.compile(r"[^A-Za-z0-9_]")
_PLAIN_BRANCH: Final = re.compile(r"(?:[^\\.+*?()\[\]{}|^$]|\\[^A-Za-z0-9])*")
_BACKSLASH: Final = re.compile(r"\\(.)", re.DOTALL)
_BRANCHES_MAX: Final = 200
_SPLITS_MAX: Final = 3
"""Underscores of a label's name that may each stand for a dot."""
_LABELS_MAX: Final = 200
"""Of one log; further fields are not shown as labels."""
_NAME_CHARS_MAX: Final = 200
_encode: Final = msgspec.json.Encoder().encode

_options = re2.Options()
_options.never_capture = True
_options.log_errors = False
_options.max_mem = 1 << 20


class Regex:
    """A regular expression over the whole of a label's value, as RE2 reads it."""

    def __init__(self, compare: Compare) -> None:
        """Raises LogQLError."""
        assert isinstance(compare.value, str)
        self.text = compare.value
        try:
            self._compiled = re2.compile(compare.value, _options)
        except re2.error as error:
            said = error.args[0] if error.args else error
            said = said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)
            raise LogQLError(f"the regular expression cannot be read: {said}", compare.column) from error

    def matches(self, value: str) -> bool:
        """Whether it matches all of the value."""
        return self._compiled.fullmatch(value) is not None


def is_service(name: str) -> bool:
    """Whether a label may stand for the service."""
    return name in SERVICE_LABELS


def is_level(name: str) -> bool:
    """Whether a label stands for the level."""
    return name.lower() in LEVEL_NAMES


def label_name(key: str) -> str:
    """A field's name as a label's."""
    name = _STRANGE.sub("_", key[:_NAME_CHARS_MAX])
    return f"_{name}" if name[:1].isdigit() or not name else name


def stream_of(log: Log) -> dict[str, str]:
    """Labels of the log's stream."""
    return {LEVEL: level_name(log.level).lower(), SERVICE: log.service_name}


def metadata_of(log: Log) -> dict[str, str]:
    """Its structured metadata."""
    labels: dict[str, str] = {}
    if log.correlation_id is not None:
        labels[CORRELATION] = log.correlation_id
    flatten(log.metadata, labels)
    return labels


def flatten(fields: dict[str, Any], labels: dict[str, str], *, prefix: str = "") -> None:
    """Add fields of an object as labels; those that are there stay. Any: JSON values, nested as deep as ingest takes."""
    for key, value in fields.items():
        if len(labels) >= _LABELS_MAX:
            return
        if isinstance(value, dict):
            flatten(value, labels, prefix=f"{prefix}{key}.")
            continue
        text = _text(value)
        if text is not None:
            labels.setdefault(label_name(prefix + key), text)


def _text(value: Any) -> str | None:  # any JSON value
    match value:
        case None:
            return None
        case str():
            return value
        case bool():
            return "true" if value else "false"
    return _encode(value).decode()


def looked_up(labels: dict[str, str], name: str) -> str:
    """A label's value by its name or by another one that clients have for it; empty: there is none."""
    value = labels.get(name)
    if value is not None:
        return value
    if is_service(name):
        return labels.get(SERVICE, "")
    if is_level(name):
        return labels.get(LEVEL, "")
    return labels.get(CORRELATION, "") if name in CORRELATION_LABELS else ""


# --- conditions on records ----------------------------------------------------------------------------------------


def asks_for_services(compare: Compare) -> bool:
    """Whether `predicate_of` needs to know which services there are."""
    if compare.name not in SERVICE_LABELS or compare.op not in ("=~", "!~"):
        return False
    text = str(compare.value)
    return _alternatives(text) is None and (compare.name != SERVICE or _prefix(text) is None)


def predicate_of(compare: Compare, services: Sequence[str]) -> Predicate | None:
    """The condition as one on records; None: only the labels themselves can tell. services: that may be read, where
    `asks_for_services`. Raises LogQLError."""
    if not isinstance(compare.value, str):
        return None
    positive = _positive(compare, compare.value, services)
    if positive is None:
        return None
    return negate(positive) if compare.op in ("!=", "!~") else positive


def _positive(compare: Compare, value: str, services: Sequence[str]) -> Predicate | None:
    """Of `=` or `=~`."""
    if compare.op in ("=~", "!~"):
        regex = Regex(compare)
        if value == ".*":
            return EVERYTHING
        if value == ".+":
            return _present(compare.name)
        if is_level(compare.name):
            names = [name for name in LEVELS if regex.matches(name.lower()) or regex.matches(name)]
            return LevelIn(tuple(map(band, names))) if names else NOTHING
        found = _alternatives(value)
        if found is not None:
            return any_of(*(_equals(compare, each) for each in found))
        if not is_service(compare.name):
            return None
        if compare.name == SERVICE and (prefix := _prefix(value)) is not None:
            return ServiceIn(prefixes=frozenset((prefix,)))
        matching = ServiceIn(frozenset(name for name in services if regex.matches(name)))
        return matching if compare.name == SERVICE else None if regex.matches("") else matching
    return _equals(compare, value)


def _alternatives(regex: str) -> list[str] | None:
    """The texts that `a|b|c` matches; None: it is more than a choice of texts."""
    inner = regex[1:-1] if regex.startswith("(") and regex.endswith(")") and regex.count("(") == 1 else regex
    branches = inner.split("|")
    if len(branches) > _BRANCHES_MAX or not all(map(_PLAIN_BRANCH.fullmatch, branches)):
        return None
    return [_BACKSLASH.sub(r"\1", branch) for branch in branches]


def _prefix(regex: str) -> str | None:
    """The text that everything which `text.*` matches begins with; None: it is another expression."""
    begin = regex.removesuffix(".*")
    if begin in (regex, "") or not _PLAIN_BRANCH.fullmatch(begin):
        return None
    return _BACKSLASH.sub(r"\1", begin)


def _equals(compare: Compare, value: str) -> Predicate:
    name = compare.name
    if value == "":
        return negate(_present(name))
    if is_level(name):
        try:
            return LevelIn((band(value),))
        except ValueError:
            return NOTHING
    try:
        of_field = _fields(name, value)
        if is_service(name):
            return any_of(ServiceIn(frozenset((value,))), *(() if name == SERVICE else of_field))
        if name in CORRELATION_LABELS:
            return any_of(CorrelationIs(value), *(() if name == CORRELATION else of_field))
        return any_of(*of_field)
    except ValueError as error:
        raise LogQLError(str(error), compare.column) from error


def _fields(name: str, value: str) -> list[Predicate]:
    return [MetaEquals(path, value) for path in paths_of(name)]


def _present(name: str) -> Predicate:
    if name == SERVICE or is_level(name) or is_service(name):
        return EVERYTHING
    fields = [FieldPresent(path) for path in paths_of(name)]
    if name in CORRELATION_LABELS:
        return any_of(CorrelationPresent(), *(() if name == CORRELATION else fields))
    return any_of(*fields)


def paths_of(name: str) -> list[tuple[str, ...]]:
    """The metadata fields that a label's name may mean, most likely first."""
    parts = name.split("_")
    places = len(parts) - 1
    if not places:
        return [(name,)]
    choices = product("_.", repeat=places) if places <= _SPLITS_MAX else [("_",) * places, (".",) * places]
    paths = []
    for signs in choices:
        dotted = "".join(part + sign for part, sign in zip(parts, (*signs, ""), strict=True))
        path = tuple(dotted.split("."))
        if all(path) and len(path) <= 8:
            paths.append(path)
    return paths or [(name,)]
