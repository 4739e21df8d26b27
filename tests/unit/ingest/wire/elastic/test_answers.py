"""What clients are told."""

from __future__ import annotations

import json
from typing import Any

import pytest

from ingest.errors import FieldError, ItemError
from ingest.problems import Refusal
from ingest.receive import Received
from ingest.wire.elastic.answers import EVERYTHING, Outcome, members_of, outcome_of, refused, worded
from ingest.wire.elastic.bulk import Bulk
from schemas.record import Log

COMPACT = "errors,items.*.error,items.*.status"


def bulk(*ids: str | None, action: str = "create") -> Bulk:
    made = Bulk()
    for number, document_id in enumerate(ids):
        made.add(None, action, f"i{number}", document_id)  # type: ignore[arg-type]  # answers look at no item
    return made


def log(number: int) -> Log:
    return Log(number, 0, 9, "shop", "m", None, {})


def answer(received: Received, of: Bulk, filter_path: str = "") -> Any:
    outcome = Outcome.unpack(outcome_of(received, of).pack())
    return json.loads(worded(outcome, of, members_of(filter_path)))


MIXED = Received(
    kept=[log(10), log(13)],
    dropped=[(log(12), "no-debug")],
    rejected=[(1, ItemError("timestamp", (FieldError("timestamp", "is old"),)))],
)


def test_kept_logs_are_created_under_their_ids() -> None:
    assert answer(Received(kept=[log(10), log(11)]), bulk(None, "theirs")) == {
        "took": 1,
        "errors": False,
        "items": [
            {"create": {"_index": "i0", "_id": "10", "result": "created", "status": 201}},
            {"create": {"_index": "i1", "_id": "theirs", "result": "created", "status": 201}},
        ],
    }


def test_each_item_is_told_what_became_of_it() -> None:
    assert answer(MIXED, bulk(None, None, None, None, action="index")) == {
        "took": 1,
        "errors": True,
        "items": [
            {"index": {"_index": "i0", "_id": "10", "result": "created", "status": 201}},
            {
                "index": {
                    "_index": "i1",
                    "status": 400,
                    "error": {"type": "document_parsing_exception", "reason": "timestamp: is old"},
                }
            },
            {"index": {"_index": "i2", "result": "noop", "status": 200}},
            {"index": {"_index": "i3", "_id": "13", "result": "created", "status": 201}},
        ],
    }


def test_an_item_that_the_key_may_not_write_is_a_security_exception() -> None:
    error = ItemError("not_permitted", (FieldError("service_name", "the token does not permit writing logs of 'pay'"),))
    [item] = answer(Received(rejected=[(0, error)]), bulk(None))["items"]
    assert (item["create"]["status"], item["create"]["error"]["type"]) == (400, "security_exception")


def test_the_bytes_that_clients_look_for_stand_in_this_order() -> None:
    body = worded(outcome_of(Received(kept=[log(1)]), bulk(None)), bulk(None), members_of(COMPACT))
    assert body == b'{"errors":false,"items":[{"create":{"status":201}}]}'
    whole = worded(outcome_of(Received(kept=[log(1)]), bulk(None)), bulk(None))
    assert whole.startswith(b'{"took":1,"errors":false,"items":[')


def test_a_compact_answer_names_errors_and_statuses_alone() -> None:
    assert answer(MIXED, bulk(None, None, None, None), COMPACT) == {
        "errors": True,
        "items": [
            {"create": {"status": 201}},
            {"create": {"status": 400, "error": {"type": "document_parsing_exception", "reason": "timestamp: is old"}}},
            {"create": {"status": 200}},
            {"create": {"status": 201}},
        ],
    }


@pytest.mark.parametrize(
    ("filter_path", "members"),
    [
        ("", EVERYTHING),
        ("errors,items.*.error,items.*.status", {"errors", "error", "status"}),
        ("took,errors,items.*.error", {"took", "errors", "error"}),
        ("items", {"_index", "_id", "result", "status", "error"}),
        ("items.*", {"_index", "_id", "result", "status", "error"}),
        ("items.create.status", {"status"}),
        ("items.**.error", {"error"}),
        ("**.status", {"status"}),
        ("**.error.type", {"error"}),
        ("items.*.error.reason", {"error"}),
        ("items.*._*", {"_index", "_id"}),
        ("-items", {"took", "errors"}),
        ("-took", EVERYTHING - {"took"}),
        ("items,-items.*._id,-items.*._index", {"result", "status", "error"}),
        ("*", EVERYTHING),
        ("**", EVERYTHING),
        ("hits.hits", set()),
        ("took.more", set()),
        ("x" * 501, EVERYTHING),
        (",".join(["**." * 20 + "*"] * 5), EVERYTHING),
    ],
)
def test_filter_path_chooses_members(filter_path: str, members: set[str]) -> None:
    assert members_of(filter_path) == members


def test_items_without_a_member_are_left_out_as_elasticsearch_does() -> None:
    found = answer(MIXED, bulk(None, None, None, None), "errors,items.*.error")
    assert [list(item["create"]) for item in found["items"]] == [["error"]]
    assert answer(Received(kept=[log(1)]), bulk(None), "errors,items.*.error") == {"errors": False}


def test_what_is_kept_for_a_repeat_is_small() -> None:
    """Keys live 72 h: with answers as clients see them a busy Filebeat would fill the disk."""
    ids = [f"{number:020x}" for number in range(1_000)]
    received = Received(kept=[log(number) for number in range(1_000)])
    outcome = outcome_of(received, bulk(*ids))
    assert len(outcome.pack()) < 50
    items = json.loads(worded(Outcome.unpack(outcome.pack()), bulk(*ids)))["items"]
    assert [item["create"]["_id"] for item in items] == ids


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        (400, "parse_exception"),
        (401, "security_exception"),
        (413, "content_too_long_exception"),
        (429, "es_rejected_execution_exception"),
        (503, "unavailable_shards_exception"),
        (500, "exception"),
    ],
)
def test_a_refusal_has_the_shape_of_elasticsearchs(status: int, kind: str) -> None:
    cause = {"type": kind, "reason": "why"}
    found = json.loads(refused(Refusal(status, "slug", "title", "why", {})))
    assert found == {"error": {"root_cause": [cause], **cause}, "status": status}
