"""Bodies of `_bulk` to logs: pure. Lines in pairs, an action and its document; one msgspec call reads them all.

Only where that fails, or an action is no plain `create` or `index`, the lines are looked at one by one: a bad one costs its
own item, never another. `delete` (a line alone) and `update` are errors of their items: logs are only ever added. What is
no action at all is an item as well, as long as the next line that is one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from ingest.errors import FieldError, MalformedBody
from ingest.parse import BOM, UNREADABLE, Incoming, Malformed, too_many, unreadable
from ingest.quick import PlainLog
from ingest.records import check_brackets
from ingest.wire.elastic.document import log_of
from ingest.wire.surrogates import mended

ACTION_ERROR: Final = "action"
"""Code of items whose action cannot be done, for the ledger."""
CREATE: Final = "create"
INDEX: Final = "index"
_ADDING: Final = (CREATE, INDEX)
ACTIONS: Final = (CREATE, INDEX, "update", "delete")
_ID_BYTES_MAX: Final = 512
_INDEX_BYTES_MAX: Final = 255
"""Elasticsearch's own limits."""
_WHITESPACE: Final = b" \t\r\n"
_objects: Final = msgspec.json.Decoder(dict[str, Any])


@dataclass(slots=True)
class Bulk:
    """What a body holds; the lists are as long as one another."""

    items: list[PlainLog | Malformed] = field(default_factory=list)
    actions: list[str] = field(default_factory=list)
    indexes: list[str | None] = field(default_factory=list)
    ids: list[str | None] = field(default_factory=list)
    """Ids that the client gave."""

    def add(self, item: PlainLog | Malformed, action: str, index: str | None, document_id: str | None) -> None:
        """One more."""
        self.items.append(item)
        self.actions.append(action)
        self.indexes.append(index)
        self.ids.append(document_id)


class _Unusual(Exception):
    """A line needs a closer look."""


def read_bulk(body: bytes, *, index: str | None, default_service: str | None, logs_max: int) -> Bulk:
    """The logs of a body. index: of actions that name none. default_service: see `log_of`.

    Raises MalformedBody when it is empty, BodyTooLarge past logs_max items.
    """
    body = body.removeprefix(BOM).rstrip(_WHITESPACE)
    if body.count(b"\n") >= logs_max:
        lines = sum(1 for line in body.split(b"\n") if line.strip(_WHITESPACE))
        if lines > 2 * logs_max:
            raise too_many(lines // 2, logs_max)
    check_brackets(body)
    try:
        bulk = _read_all(body, index, default_service)
    except (*UNREADABLE, _Unusual):
        bulk = _read_each((mended(body) or body).split(b"\n"), index, default_service)
    if not bulk.items:
        raise MalformedBody("request body is required: an action and a document, a line each")
    return bulk


def _read_all(body: bytes, default_index: str | None, default_service: str | None) -> Bulk:
    """Raises _Unusual, or what is UNREADABLE. Without ids all actions are alike: each text is looked at once."""
    bulk = Bulk()
    items, actions, indexes, ids = bulk.items, bulk.actions, bulk.indexes, bulk.ids
    lines = body.split(b"\n")
    heads = lines[::2]
    documents = _objects.decode_lines(b"\n".join(lines[1::2]))
    if len(documents) != len(heads):
        raise _Unusual  # it passes over blank lines: one may stand where a document should
    targets: dict[bytes, tuple[str, str | None, str | None]] = {}
    for head, document in zip(heads, documents, strict=True):
        target = targets.get(head)
        if target is None:
            target = _target(_objects.decode(head), default_index)
            if target[0] not in _ADDING:
                raise _Unusual
            targets[head] = target
        action, index, document_id = target
        items.append(log_of(document, index, document_id, default_service))
        actions.append(action)
        indexes.append(index)
        ids.append(document_id)
    return bulk


def _target(head: dict[str, Any], default_index: str | None) -> tuple[str, str | None, str | None]:
    """Action, index and id of an action line. Raises _Unusual when it is none that can be used."""
    if len(head) != 1:
        raise _Unusual
    ((action, target),) = head.items()
    if type(target) is not dict:
        raise _Unusual
    index = target.get("_index", default_index)
    document_id = target.get("_id")
    if type(document_id) is int:
        document_id = str(document_id)
    if not (_is_short(index, _INDEX_BYTES_MAX) and _is_short(document_id, _ID_BYTES_MAX)):
        raise _Unusual
    return action, index, document_id or None


def _is_short(text: object, bytes_max: int) -> bool:
    if text is None:
        return True
    return type(text) is str and (len(text) <= bytes_max // 4 or len(text.encode()) <= bytes_max)


def _read_each(lines: Sequence[bytes], default_index: str | None, default_service: str | None) -> Bulk:
    bulk = Bulk()
    rest = Incoming("", default_service)
    place = 0
    while place < len(lines):
        line, place = lines[place], place + 1
        if not line.strip(_WHITESPACE):
            continue
        head = _object(line)
        action = _action_of(head)
        if action == "delete":
            problem = "delete is not supported: logs are only added"
            bulk.add(_refused(problem, rest), action, default_index, None)
            continue
        has_document = place < len(lines) and (action is not None or _action_of(_object(lines[place])) is None)
        raw = lines[place] if has_document else b""
        place += has_document
        if isinstance(head, Malformed) or action is None:
            problem = "malformed action line: expected create or index with an object"
            bulk.add(_refused(problem, rest), INDEX, default_index, None)
        elif action == "update":
            problem = "update is not supported: logs are only added"
            bulk.add(_refused(problem, rest), action, default_index, None)
        else:
            bulk.add(*_read_one(head, raw, default_index, default_service))
    return bulk


def _read_one(
    head: dict[str, Any], raw: bytes, default_index: str | None, default_service: str | None
) -> tuple[PlainLog | Malformed, str, str | None, str | None]:
    """As `Bulk.add` takes it, of an action that adds and its line."""
    rest = Incoming("", default_service)
    try:
        action, index, document_id = _target(head, default_index)
    except _Unusual:
        problem = f"malformed action line: expected _index of at most {_INDEX_BYTES_MAX} bytes, _id of at most {_ID_BYTES_MAX}"
        return _refused(problem, rest), _action_of(head) or INDEX, default_index, None
    if not raw.strip(_WHITESPACE):
        return _refused("the document's line is missing", rest), action, index, document_id
    document = _object(raw)
    if isinstance(document, Malformed):
        return document, action, index, document_id
    item = log_of(document, index, document_id, default_service)
    return item, action, index, document_id


def _action_of(head: dict[str, Any] | Malformed) -> str | None:
    """The action that a line is; None for any other line."""
    if isinstance(head, Malformed) or len(head) != 1:
        return None
    ((action, target),) = head.items()
    return action if action in ACTIONS and type(target) is dict else None


def _object(raw: bytes) -> dict[str, Any] | Malformed:
    try:
        return _objects.decode(raw)
    except UNREADABLE as error:
        return unreadable(error, raw)


def _refused(problem: str, rest: Incoming) -> Malformed:
    return Malformed(ACTION_ERROR, [FieldError("", problem)], rest)
