"""Bytes to logs: hostile input gets a reason per item, never an exception, and good neighbours are taken."""

from __future__ import annotations

import json
import time
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.errors import REJECTED_SHOWN_MAX, BodyTooLarge, InvalidFields, ItemError, MalformedBody
from ingest.parse import Window, decode_batch, decode_one, may_hold_nul, to_log
from schemas.record import MESSAGE_BYTES_MAX, Log

NOW_MS = 1_795_000_000_000
WINDOW = Window.at(NOW_MS, 400)
GOOD = b'{"service_name":"shop","message":"paid"}'


def outcome(body: bytes) -> Log | ItemError:
    """The one item of a body of one line."""
    items = decode_batch(body, logs_max=10)
    assert len(items) == 1
    return to_log(items[0], 1, WINDOW, may_hold_nul=may_hold_nul(body))


def log(**fields: Any) -> Log:
    """The log of a valid object."""
    found = outcome(json.dumps({"service_name": "shop", "message": "m", **fields}).encode())
    assert isinstance(found, Log), found
    return found


def rejected(**fields: Any) -> ItemError:
    """The error of an object that is not valid."""
    found = outcome(json.dumps({"service_name": "shop", "message": "m", **fields}).encode())
    assert isinstance(found, ItemError), found
    return found


def test_defaults_are_time_received_info_and_no_metadata() -> None:
    assert log() == Log(1, NOW_MS * 1000, 9, "shop", "m", None, {})


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (b'{"service_name":"a","message":"m","metadata":' + b"[" * 100_000 + b"}", "json"),
        (b'{"service_name":"a","message":"\x00"}', "json"),
        (b'{"service_name":"a","message":"\\ud800"}', "json"),
        (b'{"service_name":"a","message":"\xff"}', "message"),
        (b'{"service_name":"a","message":"m","metadata":{"\xff":1}}', "metadata"),
        (b'{"service_name":"a","message":"m","metadata":{"x":NaN}}', "json"),
        (b'{"service_name":"a","message":"m","metadata":{"x":1e400}}', "metadata"),
        (b'{"service_name":"a","message":"m","timestamp":1e400}', "timestamp"),
        (b'{"service_name":"a","message":"m","metadata":{"x":' + b"9" * 5000 + b"}}", "metadata"),
        (b'{"service_name":"a","message":"m","level":' + b"9" * 5000 + b"}", "level"),
        (b'{"service_name":"a","message":"m"', "json"),
        (b'{"service_name":"a","message":"m"}}', "json"),
        (b"\xff\xfe{\x00}\x00", "json"),
        (b"null", "json"),
        (b"17", "json"),
        (b'"text"', "json"),
        (b"{}", "message"),
        (b'{"service_name":null,"message":"m"}', "service_name"),
        (b'{"service_name":"a b","message":"m"}', "service_name"),
        (b'{"service_name":"","message":"m"}', "service_name"),
        (b'{"service_name":"a\\u0000","message":"m"}', "service_name"),
        (b'{"service_name":"' + b"a" * 101 + b'","message":"m"}', "service_name"),
        (b'{"service_name":"a","message":17}', "message"),
        (b'{"service_name":"a"}', "message"),
        (b'{"service_name":"a","message":"m","level":"loud"}', "level"),
        (b'{"service_name":"a","message":"m","level":0}', "level"),
        (b'{"service_name":"a","message":"m","level":25}', "level"),
        (b'{"service_name":"a","message":"m","level":true}', "level"),
        (b'{"service_name":"a","message":"m","metadata":[]}', "metadata"),
        (b'{"service_name":"a","message":"m","metadata":{"x":' + b"[" * 16 + b"]" * 16 + b"}}", "metadata"),
        (b'{"service_name":"a","message":"m","metadata":{"x":' + b"[" * 900 + b"]" * 900 + b"}}", "metadata"),
        (b'{"service_name":"a","message":"m","metadata":{"x":"' + b"y" * 65_536 + b'"}}', "metadata"),
        (b'{"service_name":"a","message":"m","metadata":{"' + b"k" * 1_000_000 + b'":1}}', "metadata"),
        (b'{"service_name":"a","message":"m","correlation_id":"' + b"c" * 129 + b'"}', "correlation_id"),
        (b'{"service_name":"a","message":"m","correlation_id":17}', "correlation_id"),
        (b'{"service_name":"a","mesage":"m"}', "unknown_field"),
        (b'{"service_name":"a","message":"m","' + b"k" * 1_000_000 + b'":1}', "unknown_field"),
    ],
    ids=lambda value: repr(value)[:60],
)
def test_bad_item_has_a_reason_and_its_neighbours_are_taken(body: bytes, code: str) -> None:
    for text in (GOOD + b"\n" + body + b"\n" + GOOD, b"[" + GOOD + b"," + body + b"," + GOOD + b"]"):
        items = decode_batch_or_none(text)
        if items is None:
            assert text[:1] == b"[", "lines are always told apart"
            continue
        outcomes = [to_log(item, n, WINDOW, may_hold_nul=may_hold_nul(text)) for n, item in enumerate(items)]
        assert isinstance(outcomes[0], Log)
        assert isinstance(outcomes[-1], Log)
        assert len(outcomes) == 3
        error = outcomes[1]
        assert isinstance(error, ItemError)
        assert error.code == code
        assert error.text
        assert len(error.text) < 2000
    single = to_log(decode_one(body), 1, WINDOW, may_hold_nul=True)
    assert isinstance(single, ItemError)
    assert single.code == code


def decode_batch_or_none(text: bytes) -> list[Any] | None:
    """None when the brackets of an array do not match, so that its items cannot be told apart."""
    try:
        return decode_batch(text, logs_max=10)
    except MalformedBody:
        return None


@pytest.mark.parametrize(
    "body",
    [
        b'[{"service_name":"a","message":"\\ud800"},' + GOOD + b"]",
        b'[{"service_name":"a","message":"m","metadata":{"x":NaN, "y":"],[\\"}"}},' + GOOD + b" ]\n",
        b'[ {"service_name":"a","message":"m" x},\r\n' + GOOD + b"]",
        b"[oops," + GOOD + b"]",
        b'[{"a":' + b"[" * 100_000 + b"]" * 100_000 + b"}," + GOOD + b"]",
    ],
    ids=["surrogate", "nan", "syntax", "word", "depth"],
)
def test_items_of_an_array_that_is_no_valid_json_are_told_apart(body: bytes) -> None:
    items = decode_batch(body, logs_max=10)
    first, second = (to_log(item, 1, WINDOW, may_hold_nul=False) for item in items)
    assert isinstance(first, ItemError)
    assert first.code == "json"
    assert isinstance(second, Log)


@pytest.mark.parametrize(
    "body", [b"[" + GOOD, b"[" + GOOD + b",", b'[{"service_name":"a', b"[]]", b"[" + GOOD + b"]]", b"[" * 100_000]
)
def test_array_that_is_cut_off_is_refused_whole(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        decode_batch(body, logs_max=10)


@pytest.mark.parametrize("body", [b"", b"\n \r\n", b"[]", b" [ ] ", b"\xef\xbb\xbf"])
def test_empty_batch_is_refused(body: bytes) -> None:
    with pytest.raises(InvalidFields, match="at least one log"):
        decode_batch(body, logs_max=10)


def test_byte_order_mark_crlf_and_blank_lines_are_accepted() -> None:
    body = b"\xef\xbb\xbf" + GOOD + b"\r\n\r\n  \n" + GOOD + b"\r\n"
    assert len(decode_batch(body, logs_max=10)) == 2
    assert len(decode_batch(body + b'{"cut', logs_max=10)) == 3


def test_one_object_written_over_several_lines_is_one_item() -> None:
    body = json.dumps({"service_name": "a", "message": "m", "metadata": {"x": [1, 2]}}, indent=2).encode()
    assert isinstance(outcome(body), Log)
    wrong = json.dumps({"service_name": "a", "message": "m", "levl": 1}, indent=2).encode()
    found = outcome(wrong)
    assert isinstance(found, ItemError)
    assert found.code == "unknown_field"


def test_too_many_logs_are_refused() -> None:
    for body in (b"\n".join([GOOD] * 11), b"[" + b",".join([GOOD] * 11) + b"]", b"x\n" * 11):
        with pytest.raises(BodyTooLarge, match="10 logs"):
            decode_batch(body, logs_max=10)
    assert len(decode_batch(b"\n\n".join([GOOD] * 10) + b"\n\n", logs_max=10)) == 10


def test_of_repeated_keys_the_last_wins() -> None:
    found = outcome(b'{"service_name":"a","message":"first","message":"last","metadata":{"x":1,"x":2}}')
    assert isinstance(found, Log)
    assert (found.message, found.metadata) == ("last", {"x": 2})


def test_integers_of_any_size_are_kept_exactly() -> None:
    metadata = {"big": 2**64, "bigger": -(10**300), "id": 391824718239461376}
    found = log(metadata=metadata)
    assert msgspec.json.decode(msgspec.json.encode(found.metadata)) == metadata


def test_nul_becomes_replacement_character_everywhere() -> None:
    found = log(message="a\0b", correlation_id="c\0", metadata={"k\0": ["v\0", {"deep\0": "w\0"}]})
    assert found.message == "a\ufffdb"
    assert found.correlation_id == "c\ufffd"
    assert found.metadata == {"k\ufffd": ["v\ufffd", {"deep\ufffd": "w\ufffd"}]}
    assert log(metadata={"experiment_id": "e\0"}).correlation_id == "e\ufffd"


def test_depth_of_sixteen_is_taken() -> None:
    value: Any = 1
    for _ in range(15):
        value = [value]
    assert log(metadata={"x": value}).metadata == {"x": value}
    assert rejected(metadata={"x": [value]}).code == "metadata"


def test_ten_thousand_keys_are_taken_within_the_size() -> None:
    assert len(log(metadata={str(n): 1 for n in range(6_000)}).metadata) == 6_000
    assert rejected(metadata={str(n): 1 for n in range(10_000)}).code == "metadata"


@pytest.mark.parametrize("char", ["x", "é", "€", "😀"])
def test_long_message_is_cut_at_a_character_and_flagged(char: str) -> None:
    size = len(char.encode())
    exact = char * (MESSAGE_BYTES_MAX // size)
    assert log(message=exact).metadata == {}
    cut = log(message="y" + exact + char, metadata={"k": 1})
    assert len(cut.message.encode()) <= MESSAGE_BYTES_MAX
    assert len(cut.message.encode()) > MESSAGE_BYTES_MAX - size
    assert cut.metadata == {"k": 1, "_truncated": True}


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        ({"experiment_id": "e1", "connection_id": "c1"}, "e1"),
        ({"connection_id": "c1"}, "c1"),
        ({"experiment_id": 17}, "17"),
        ({"experiment_id": "", "connection_id": 3}, "3"),
        ({"experiment_id": True, "connection_id": 1.5}, None),
        ({"experiment_id": "x" * 129}, None),
        ({}, None),
    ],
)
def test_story_stands_in_for_a_missing_correlation_id(metadata: dict[str, Any], expected: str | None) -> None:
    assert log(metadata=metadata).correlation_id == expected
    assert log(metadata=metadata, correlation_id="").correlation_id == expected
    assert log(metadata=metadata, correlation_id="own").correlation_id == "own"


@pytest.mark.parametrize(
    ("level", "severity"), [("info", 9), ("WARNING", 13), ("crit", 21), (" Error ", 17), (1, 1), (24, 24), (None, 9)]
)
def test_levels_are_names_aliases_or_severity_numbers(level: object, severity: int) -> None:
    assert log(level=level).level == severity


def test_every_bad_field_is_named() -> None:
    found = rejected(service_name="a b", level=99, timestamp="soon", correlation_id=1, mesage="x")
    assert {error.field for error in found.errors} == {"service_name", "level", "timestamp", "correlation_id", "mesage"}
    assert "did you mean 'message'?" in found.text


def unknown_fields(items: int) -> bytes:
    return b"\n".join(
        json.dumps({**{f"mes{n}sage{k}": 1 for k in range(10)}, "service_name": "shop", "message": "m"}).encode()
        for n in range(items)
    )


def test_as_many_items_as_an_answer_lists_are_explained_and_all_have_code_and_service() -> None:
    body = GOOD + b"\n" + unknown_fields(REJECTED_SHOWN_MAX + 50)
    good, *outcomes = (to_log(item, 1, WINDOW, may_hold_nul=False) for item in decode_batch(body, logs_max=1000))
    assert isinstance(good, Log)
    errors = [each for each in outcomes if isinstance(each, ItemError)]
    assert {(error.code, error.service_name) for error in errors} == {("unknown_field", "shop")}
    assert len(errors) == REJECTED_SHOWN_MAX + 50
    shown, others = errors[:REJECTED_SHOWN_MAX], errors[REJECTED_SHOWN_MAX:]
    assert all(len(error.errors) == 10 and "did you mean 'message'?" in error.text for error in shown)
    assert all(len(error.errors) == 1 and "did you mean" not in error.text for error in others)


def test_ten_thousand_bad_items_do_not_keep_the_event_loop() -> None:
    body = unknown_fields(10_000)
    started_s = time.process_time()
    for item in decode_batch(body, logs_max=10_000):
        assert isinstance(to_log(item, 1, WINDOW, may_hold_nul=False), ItemError)
    assert time.process_time() - started_s < 1.0


def test_long_unknown_name_gets_no_suggestion() -> None:
    assert "did you mean" in rejected(mesage=1).text
    assert "did you mean" not in rejected(**{"message" * 10: 1}).text


def test_service_of_a_rejected_item_is_counted_where_it_is_readable() -> None:
    assert rejected(timestamp="soon").service_name == "shop"
    assert rejected(message=1).service_name == "shop"
    assert rejected(service_name="a b").service_name == ""


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
fields = st.sampled_from(["service_name", "message", "timestamp", "level", "correlation_id", "metadata", "own"])


@given(
    items=st.lists(
        st.one_of(
            st.dictionaries(fields, json_values, max_size=6),
            st.builds(
                lambda own: {"service_name": "shop", "message": "m", "metadata": own},
                st.dictionaries(st.text(max_size=3), json_values, max_size=3),
            ),
        ),
        min_size=1,
        max_size=6,
    )
)
def test_array_and_lines_give_the_same_outcome_for_each_item(items: list[dict[str, Any]]) -> None:
    texts = [json.dumps(item).encode() for item in items]
    bodies = [b"[" + b",".join(texts) + b"]", b"\n".join(texts), b"[" + b",".join([*texts, b"?"]) + b"]"]
    outcomes = [
        [to_log(item, 1, WINDOW, may_hold_nul=may_hold_nul(body)) for item in decode_batch(body, logs_max=10)]
        for body in bodies
    ]
    assert outcomes[0] == outcomes[1] == outcomes[2][:-1]
    assert outcomes[0] == [to_log(decode_one(text), 1, WINDOW, may_hold_nul=True) for text in texts]


@given(body=st.binary(max_size=200))
def test_any_bytes_give_items_or_a_refusal(body: bytes) -> None:
    try:
        items = decode_batch(body, logs_max=1000)
    except (InvalidFields, MalformedBody):
        return
    for item in items:
        assert isinstance(to_log(item, 1, WINDOW, may_hold_nul=may_hold_nul(body)), (Log, ItemError))
