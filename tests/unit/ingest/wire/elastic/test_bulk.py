"""Bodies of `_bulk`: what is good is taken, what is bad costs its own item."""

from __future__ import annotations

import json

import pytest

from ingest.errors import BodyTooLarge, ItemError, MalformedBody
from ingest.parse import Incoming, Window, to_log
from ingest.quick import opened
from ingest.records import BRACKETS_MAX
from ingest.wire.elastic.bulk import Bulk, read_bulk
from schemas.record import Log

WINDOW = Window.at(1_795_342_000_000, 400)
GOOD = b'{"create":{"_index":"i"}}\n{"message":"good"}\n'


def read(body: bytes, logs_max: int = 100) -> Bulk:
    return read_bulk(body, index=None, default_service="d", logs_max=logs_max)


def outcomes(bulk: Bulk) -> list[str]:
    """Messages of what is taken; codes and reasons of what is not."""
    found = []
    for number, item in enumerate(bulk.items):
        log = to_log(opened(item), number, WINDOW, may_hold_nul=True)
        found.append(log.message if isinstance(log, Log) else f"{log.code}! {log.text}")
    return found


@pytest.mark.parametrize(
    ("bad", "reason"),
    [
        (b'{"create":{}}\n{"message":\n', "json! not valid JSON"),
        (b'{"create":{}}\n["message"]\n', "json! expected a JSON object, got an array"),
        (b'{"create":{}}\n"message"\n', "json! expected a JSON object, got text"),
        (b'{"create":{}}\n{"message":"\xff"}\n', "json! not valid JSON"),
        (b'{"create":{}}\n{"\xff":1}\n', "json! not valid JSON"),
        (b'{"create":{}}\n{"a":1e999}\n', "json! holds a number that is out of range"),
        (b'{"create":{}}\n{"a":NaN}\n', "json! not valid JSON"),
        (b'{"create":{}}\n{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}\n", "json! nested too deeply"),
        (b'{"create":{}}\n{"message":"m","a":' + b"[" * 40 + b"]" * 40 + b"}\n", "metadata! metadata: may be nested"),
        (b'{"create":{}}\n{"a":' + b"[" * 900 + b"]" * 900 + b"}\n", "metadata! "),
        (b'{"create":{}}\n{"message":"m","a":"%b"}\n' % (b"x" * 70_000), "metadata! metadata: may take 65536 bytes"),
        (b'{"create":{}}\n{"@timestamp":"soon","message":"m"}\n', "timestamp! timestamp: expected ISO 8601"),
        (b'{"create":{}}\n{"@timestamp":"1999-01-01","message":"m"}\n', "timestamp! timestamp: 1999-01-01T00:00:00"),
        (b'{"create":{}}\n{"@timestamp":[],"message":"m"}\n', "timestamp! @timestamp: expected text"),
        (b'{"create":{}}\n\n', "action! the document's line is missing"),
        (b'{"delete":{"_id":"1"}}\n', "action! delete is not supported"),
        (b'{"update":{"_id":"1"}}\n{"doc":{"message":"m"}}\n', "action! update is not supported"),
        (b'{"upsert":{"_id":"1"}}\n{"message":"m"}\n', "action! malformed action line"),
        (b'{"create":[]}\n{"message":"m"}\n', "action! malformed action line"),
        (b'{"create":{},"index":{}}\n{"message":"m"}\n', "action! malformed action line"),
        (b'{}\n{"message":"m"}\n', "action! malformed action line"),
        (b'not JSON\n{"message":"m"}\n', "action! malformed action line"),
        (b"not JSON\n", "action! malformed action line"),
        (b'{"create":{"_index":7}}\n{"message":"m"}\n', "action! malformed action line: expected _index"),
        (
            b'{"create":{"_index":"%b"}}\n{"message":"m"}\n' % (b"i" * 256),
            "action! malformed action line: expected _index",
        ),
        (b'{"create":{"_id":["a"]}}\n{"message":"m"}\n', "action! malformed action line: expected _index"),
        (
            b'{"create":{"_id":"%b"}}\n{"message":"m"}\n' % (b"i" * 513),
            "action! malformed action line: expected _index",
        ),
    ],
)
def test_a_bad_item_costs_no_other(bad: bytes, reason: str) -> None:
    found = outcomes(read(GOOD + bad + GOOD))
    assert len(found) == 3
    assert (found[0], found[2]) == ("good", "good")
    assert found[1].startswith(reason)


def test_a_document_that_is_cut_off_is_the_last_ones_error() -> None:
    assert outcomes(read(GOOD + b'{"create":{}}\n{"message":"cu'))[0] == "good"
    assert outcomes(read(GOOD + b'{"create":{}}'))[1] == "action! the document's line is missing"


@pytest.mark.parametrize(
    "body",
    [
        GOOD + GOOD,
        (GOOD + GOOD).removesuffix(b"\n"),
        (GOOD + GOOD).replace(b"\n", b"\r\n"),
        GOOD + b"\n" + GOOD + b"\n\n",
        b"\xef\xbb\xbf" + GOOD + GOOD,
        GOOD + b' { "index" : { "_id" : 7 } } \n { "message" : "good" }',
    ],
)
def test_lines_may_end_in_any_way(body: bytes) -> None:
    assert outcomes(read(body)) == ["good", "good"]


def test_ids_are_text_and_what_is_none_is_none() -> None:
    heads = [{"_id": "a"}, {"_id": 7}, {"_id": None}, {"_id": ""}, {}]
    body = "".join(f'{{"index":{json.dumps(head)}}}\n{{"message":"m"}}\n' for head in heads)
    assert read(body.encode()).ids == ["a", "7", None, None, None]


@pytest.mark.parametrize("body", [b"", b"\n\n", b" \r\n"])
def test_an_empty_body_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        read(body)


def test_too_many_items_are_refused_before_they_are_read() -> None:
    assert len(read(GOOD * 100).items) == 100
    with pytest.raises(BodyTooLarge, match="a request may hold 100 logs, this one has 101"):
        read(GOOD * 101)
    with pytest.raises(BodyTooLarge):
        read(b"{}\n" * 1_000)
    assert len(read(b'{"delete":{}}\n' * 150).items) == 150, "the service refuses these"


def test_a_nul_becomes_the_replacement_character() -> None:
    body = (
        b'{"create":{"_id":"a\\u0000"}}\n{"message":"a\\u0000b","k\\u0000":"\\u0000","service":{"name":"s\\u0000"}}\n'
    )
    log = to_log(opened(read(body).items[0]), 1, WINDOW, may_hold_nul=True)
    assert not isinstance(log, ItemError)
    assert log.message == "a\ufffdb"
    assert log.service_name == "s_"
    assert log.metadata == {"k\ufffd": "\ufffd", "_id": "a\ufffd", "service.name": "s\ufffd"}


def test_half_a_surrogate_pair_becomes_a_replacement() -> None:
    """What JavaScript writes of a text that was cut inside of an emoji."""
    bad = b'{"create":{}}\n{"message":"cut \\ud83d","a":"\\ud83d\\ude00"}\n'
    items = [opened(item) for item in read(GOOD + bad + GOOD).items]
    assert [item.message for item in items if isinstance(item, Incoming)] == ["good", "cut \ufffd", "good"]
    assert isinstance(items[1], Incoming)
    assert items[1].metadata == {"a": "😀"}


def test_a_body_of_empty_objects_is_refused_before_they_are_made() -> None:
    with pytest.raises(BodyTooLarge, match="objects or arrays"):
        read(GOOD + b'{"create":{}}\n{"a":[' + b"{}," * BRACKETS_MAX + b"{}]}\n")
