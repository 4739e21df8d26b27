"""Answers of `_bulk` as Elasticsearch words them: pure.

    {"took": 1, "errors": false, "items": [{"create": {"_index": "logs", "_id": "…", "result": "created", "status": 201}}]}

`errors` stands right before `items`: Fluent Bit looks for that text where an answer is longer than its buffer. An item has
201 when it is durable, 200 and `noop` when a filter dropped it (as a document that an ingest pipeline drops), 400 when it is
not taken: clients send 429 and 5xx again, some 403 as well, so nothing that stays wrong has one of these. What is refused
whole has no items: `{"error": {…}, "status": 429}`.

What is kept for a repeated key is not the wording, which repeats what the request says, but what became of the items.
"""

from __future__ import annotations

from fnmatch import fnmatchcase
from functools import lru_cache
from typing import Any, Final

import msgspec
import orjson

from ingest.problems import Refusal
from ingest.receive import Received
from ingest.wire.elastic.bulk import ACTION_ERROR, ACTIONS, Bulk

CREATED: Final = 201
DROPPED: Final = 200
REFUSED: Final = 400
_TYPES: Final = {ACTION_ERROR: "illegal_argument_exception", "not_permitted": "security_exception"}
_ITEM_TYPE: Final = "document_parsing_exception"
_REFUSAL_TYPES: Final = {
    400: "parse_exception",
    401: "security_exception",
    403: "security_exception",
    408: "timeout_exception",
    413: "content_too_long_exception",
    415: "media_type_header_exception",
    422: "illegal_argument_exception",
    429: "es_rejected_execution_exception",
    503: "unavailable_shards_exception",
}
_FILTER_CHARS_MAX: Final = 500
_LEAVES: Final = {
    "took": (("took",),),
    "errors": (("errors",),),
    "_index": (("items", "*", "_index"),),
    "_id": (("items", "*", "_id"),),
    "result": (("items", "*", "result"),),
    "status": (("items", "*", "status"),),
    "error": (("items", "*", "error", "type"), ("items", "*", "error", "reason")),
}
"""Members of an answer, and where they stand in it; `*` is an item's action."""
EVERYTHING: Final = frozenset(_LEAVES)
_STATUS_ALONE: Final = frozenset({"status"})


class Outcome(msgspec.Struct, array_like=True):
    """What became of the items of a request that was taken; all others are durable. Places count from 0."""

    failed: list[tuple[int, str, str]]
    """(place, type, reason)"""
    dropped: list[int]
    ids: list[str]
    """Ours, of each item, where the client gave some none; '' where it is not kept."""

    def pack(self) -> bytes:
        """As bytes."""
        return _encoder.encode(self)

    @classmethod
    def unpack(cls, packed: bytes) -> Outcome:
        """The reverse of `pack`."""
        return _decoder.decode(packed)


_encoder: Final = msgspec.json.Encoder()
_decoder: Final = msgspec.json.Decoder(Outcome)


def outcome_of(received: Received, bulk: Bulk, *, keep_ids: bool = True) -> Outcome:
    """What to tell of the items of `bulk`. keep_ids: ours, which a client may not want to be told."""
    failed = [(place, _TYPES.get(error.code, _ITEM_TYPE), error.text) for place, error in received.rejected]
    has_ids = not keep_ids or None not in bulk.ids
    if not (failed or received.dropped):
        return Outcome([], [], [] if has_ids else [str(log.id) for log in received.kept])
    rejected = {place for place, _ in received.rejected}
    others = [place for place in range(len(bulk.items)) if place not in rejected]
    dropped_ids = {log.id for log, _ in received.dropped}
    taken_ids = sorted([*(log.id for log in received.kept), *dropped_ids])
    ids = [""] * len(bulk.items)
    dropped = []
    for place, log_id in zip(others, taken_ids, strict=True):  # ids are in the order of the items
        if log_id in dropped_ids:
            dropped.append(place)
        else:
            ids[place] = str(log_id)
    return Outcome(failed, dropped, [] if has_ids else ids)


def worded(outcome: Outcome, bulk: Bulk, shown: frozenset[str] = EVERYTHING) -> bytes:
    """The answer's body. shown: members of it, see `members_of`."""
    items = _items(outcome, bulk, shown)
    answer: dict[str, Any] = {}
    if "took" in shown:
        answer["took"] = 1
    if "errors" in shown:
        answer["errors"] = bool(outcome.failed)
    if items:
        answer["items"] = items
    return orjson.dumps(answer)


def _items(outcome: Outcome, bulk: Bulk, shown: frozenset[str]) -> list[dict[str, Any]]:
    of_items = shown - {"took", "errors"}
    if not (outcome.failed or outcome.dropped) and of_items - {"error"} == _STATUS_ALONE:
        made = {action: {action: {"status": CREATED}} for action in set(bulk.actions)}
        return [made[action] for action in bulk.actions]
    errors = {place: {"type": kind, "reason": reason} for place, kind, reason in outcome.failed}
    dropped = frozenset(outcome.dropped)
    items = []
    for place, (action, index, document_id) in enumerate(zip(bulk.actions, bulk.indexes, bulk.ids, strict=True)):
        item: dict[str, Any] = {"_index": index or ""}
        if document_id is None and outcome.ids:
            document_id = outcome.ids[place]
        if document_id:
            item["_id"] = document_id
        if (error := errors.get(place)) is not None:
            item |= {"status": REFUSED, "error": error}
        elif place in dropped:
            item |= {"result": "noop", "status": DROPPED}
        else:
            item |= {"result": "created", "status": CREATED}
        if of_items != EVERYTHING - {"took", "errors"}:
            item = {name: value for name, value in item.items() if name in of_items}
        if item:
            items.append({action: item})
    return items


def members_of(filter_path: str) -> frozenset[str]:
    """Members of an answer that `filter_path` lets through: paths with * and **, a leading - takes away. A longer text than
    clients send is passed over."""
    return _members_of(filter_path) if 0 < len(filter_path) <= _FILTER_CHARS_MAX else EVERYTHING


@lru_cache(maxsize=64)
def _members_of(filter_path: str) -> frozenset[str]:
    patterns = [pattern.strip() for pattern in filter_path.split(",") if pattern.strip()]
    taken = [_parts(pattern[1:]) for pattern in patterns if pattern.startswith("-")]
    given = [_parts(pattern) for pattern in patterns if not pattern.startswith("-")]

    def is_shown(leaf: tuple[str, ...]) -> bool:
        let_through = not given or any(_leads_to(pattern, leaf) for pattern in given)
        return let_through and not any(_leads_to(pattern, leaf) for pattern in taken)

    return frozenset(name for name, leaves in _LEAVES.items() if any(map(is_shown, leaves)))


def _parts(pattern: str) -> tuple[str, ...]:
    """`**` once where it stands several times in a row: it means the same, and takes no time."""
    parts = pattern.split(".")
    return tuple(part for place, part in enumerate(parts) if part != "**" or parts[place - 1 : place] != ["**"])


def _leads_to(pattern: tuple[str, ...], leaf: tuple[str, ...]) -> bool:
    """Whether the pattern names the leaf, or what it is in."""
    if not pattern:
        return True
    if not leaf:
        return all(part == "**" for part in pattern)
    if pattern[0] == "**":
        return _leads_to(pattern[1:], leaf) or _leads_to(pattern, leaf[1:])
    names = ACTIONS if leaf[0] == "*" else leaf[:1]
    return any(fnmatchcase(name, pattern[0]) for name in names) and _leads_to(pattern[1:], leaf[1:])


def refused(refusal: Refusal) -> bytes:
    """The body of an error, of the whole request."""
    error = {"type": _REFUSAL_TYPES.get(refusal.status, "exception"), "reason": refusal.detail}
    return orjson.dumps({"error": {"root_cause": [error], **error}, "status": refusal.status})
