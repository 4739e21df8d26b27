"""Loki's push API: what its bodies mean, in each of their forms, and what a bad entry costs."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cramjam
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.errors import BodyTooLarge, BodyTooSlow, FieldError, ItemError, MalformedBody
from ingest.parse import Incoming, Item, Malformed, Window, to_log
from ingest.problems import refusal_of
from ingest.quick import PlainLog, opened, plain_lines, plain_of
from ingest.receive import NOT_PERMITTED, Received
from ingest.records import BRACKETS_MAX, COMMAS_MAX, Records
from ingest.wire.loki import answers
from ingest.wire.loki.labels import InvalidLabels, level_of_line, parse_labels, stream_of
from ingest.wire.loki.protobuf import PAIRS_MAX
from ingest.wire.loki.read import read_json, read_protobuf
from schemas.levels import parse_level
from schemas.record import Log
from tests.loki_bodies import Entry, Streams, json_push, protobuf_push, varint

NOW_NS = 1_795_000_000_123_456_789
WINDOW = Window.at(NOW_NS // 1_000_000, 400)


def of_json(body: bytes | Any, **options: Any) -> Records:
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    return read_json(raw, **{"default_service": "unknown_service", "logs_max": 1_000, **options})


def of_protobuf(body: bytes, **options: Any) -> Records:
    return read_protobuf(body, **{"default_service": "unknown_service", "logs_max": 1_000, **options})


def items(records: Records) -> list[Item]:
    return [*map(opened, records.logs)]


def logs(records: Records) -> list[Log | ItemError]:
    """As they are stored."""
    found = items(records)
    return [to_log(item, index, WINDOW, may_hold_nul=True) for index, item in enumerate(found, 1)]


def one(labels: dict[str, str], line: str = "m", own: dict[str, str] | None = None) -> Log:
    """A log that was sent in both forms, and came out the same."""
    streams = [(labels, [(NOW_NS, line, own)])]
    (by_json,) = logs(of_json(json_push(streams)))
    (by_protobuf,) = logs(of_protobuf(protobuf_push(streams)))
    assert by_json == by_protobuf
    assert isinstance(by_json, Log)
    return by_json


# What is what


@pytest.mark.parametrize(
    ("labels", "service", "rest"),
    [
        ({"service_name": "a", "app": "b"}, "a", {"app": "b"}),
        ({"job": "varlogs", "filename": "/x"}, "varlogs", {"filename": "/x"}),
        ({"container": "c", "app": "a"}, "a", {"container": "c"}),
        ({"app": "", "job": "j"}, "j", {}),
        ({"env": "prod"}, "unknown_service", {"env": "prod"}),
        ({"app": "my app: ä"}, "my_app___", {"app": "my app: ä"}),
        ({"app": "x" * 120}, "x" * 100, {"app": "x" * 120}),
    ],
)
def test_the_first_label_that_says_a_service_does(labels: dict[str, str], service: str, rest: dict[str, str]) -> None:
    log = one(labels)
    assert (log.service_name, log.metadata) == (service, rest)


def test_a_key_of_one_service_names_the_streams_that_name_none() -> None:
    body = json_push([({"env": "prod"}, [(NOW_NS, "m", None)])])
    (item,) = items(of_json(body, default_service=None))
    assert isinstance(item, Incoming)
    assert item.service_name is None


@pytest.mark.parametrize("name", ["level", "severity", "lvl", "loglevel", "detected_level", "LEVEL", "Severity"])
def test_a_level_is_taken_out_of_labels_and_structured_metadata(name: str) -> None:
    assert one({"app": "a", name: "warning"}).level == parse_level("WARN")
    found = one({"app": "a"}, own={name: "Error"})
    assert (found.level, found.metadata) == (parse_level("ERROR"), {})


def test_names_of_levels_with_dots_are_taken_out_of_structured_metadata() -> None:
    for name in ("log.level", "SeverityText"):
        assert one({"app": "a"}, own={name: "fatal"}).level == parse_level("FATAL")


def test_what_a_log_says_itself_goes_before_what_its_stream_says() -> None:
    found = one({"app": "a", "level": "debug", "trace_id": "s"}, "level=fatal", own={"level": "error", "trace_id": "t"})
    assert (found.level, found.correlation_id, found.metadata) == (parse_level("ERROR"), "t", {})


def test_what_is_no_level_stays_what_it_is() -> None:
    found = one({"app": "a", "level": "loud"})
    assert (found.level, found.metadata) == (parse_level("INFO"), {"level": "loud"})


@pytest.mark.parametrize(
    ("line", "level"),
    [
        ('{"level":"error","msg":"x"}', "ERROR"),
        ('{"ts":1,"log.level": "WARN"}', "WARN"),
        ('ts=1 level=debug msg="x"', "DEBUG"),
        ("lvl=info x", "INFO"),
        ('{"severity":"CRITICAL"}', "FATAL"),
        ("SEVERITY=err", "ERROR"),
        ("the level of water", None),
        ("sealevel=high", None),
        ("level=30", None),
        ("level=errors", None),
        ("x" * 300 + " level=error", None),
        ("", None),
    ],
)
def test_the_beginning_of_a_line_may_say_its_level(line: str, level: str | None) -> None:
    assert level_of_line(line) == (None if level is None else parse_level(level))


@pytest.mark.parametrize("name", ["correlation_id", "trace_id", "traceID", "traceId"])
def test_a_story_is_taken_out_of_labels_and_structured_metadata(name: str) -> None:
    for found in (one({"app": "a", name: "4bf9"}), one({"app": "a"}, own={name: "4bf9", "n": "1"})):
        assert found.correlation_id == "4bf9"
        assert name not in found.metadata


def test_a_story_that_is_too_long_stays_in_the_metadata() -> None:
    found = one({"app": "a"}, own={"trace_id": "x" * 129})
    assert (found.correlation_id, found.metadata) == (None, {"trace_id": "x" * 129})


def test_structured_metadata_go_before_labels_of_the_same_name() -> None:
    assert one({"app": "a", "pod": "p", "zone": "z"}, own={"pod": "q"}).metadata == {"pod": "q", "zone": "z"}


def test_times_are_nanoseconds_to_the_microsecond() -> None:
    assert one({"app": "a"}).timestamp == NOW_NS // 1000


def test_what_promtail_sends_is_read() -> None:
    """Marshalled by grafana/loki's own package pkg/push, compressed by golang/snappy."""
    packed = (Path(__file__).parent / "promtail.snappy").read_bytes()
    records = of_protobuf(bytes(cramjam.snappy.decompress_raw(packed)))
    assert records.have_own_times
    found = logs(records)
    assert [
        (log.service_name, log.level, log.message, log.correlation_id) for log in found if isinstance(log, Log)
    ] == [
        ("web", parse_level("WARN"), "GET /cart 502 in 31ms", None),
        ("web", parse_level("WARN"), 'café "quoted" back\\slash', "4bf92f3577b34da6a3ce929d0e0e4736"),
        ("varlogs", parse_level("ERROR"), 'level=error msg="disk full"', None),
        ("varlogs", parse_level("DEBUG"), '{"level":"debug","msg":"x"}', None),
    ]


def test_entries_without_a_time_are_of_now_and_no_key_is_implied() -> None:
    records = of_protobuf(protobuf_push([({"app": "a"}, [(None, "m", None)])]))
    assert not records.have_own_times
    (log,) = logs(records)
    assert isinstance(log, Log)
    assert log.timestamp == WINDOW.received_us
    assert of_protobuf(protobuf_push([({"app": "a"}, [(NOW_NS, "m", None)])])).have_own_times


def test_the_older_form_of_json_is_read() -> None:
    entries = [{"ts": "2026-11-18T11:06:40.5Z", "line": "old"}]
    (log,) = logs(of_json({"streams": [{"labels": '{job="j", level="warn"}', "entries": entries}]}))
    assert isinstance(log, Log)
    assert (log.service_name, log.level, log.message) == ("j", parse_level("WARN"), "old")


# Labels as text


@pytest.mark.parametrize(
    ("text", "labels"),
    [
        ("{}", {}),
        ('{a="b"}', {"a": "b"}),
        ('{ a = "b" , c="d", }', {"a": "b", "c": "d"}),
        (r'{a="q\"x\\y\n\u00e9\x41"}', {"a": 'q"x\\y\né' + "A"}),
        ("{a=`raw\\n`}", {"a": "raw\\n"}),
        ('{a="b=c,d}"}', {"a": "b=c,d}"}),
        ('{a=""}', {"a": ""}),
    ],
)
def test_labels_are_read(text: str, labels: dict[str, str]) -> None:
    assert parse_labels(text) == labels


@pytest.mark.parametrize(
    "text", ["", "a", '{a="b"', "{a=b}", '{="b"}', '{a="b" c="d"}', r'{a="\q"}', r'{a="\ud800"}', "{a}"]
)
def test_labels_that_are_none_are_refused(text: str) -> None:
    with pytest.raises(InvalidLabels):
        parse_labels(text)


@given(st.dictionaries(st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True), st.text(max_size=20), max_size=5))
def test_any_values_of_labels_come_through(labels: dict[str, str]) -> None:
    text = ", ".join(f"{name}={json.dumps(value, ensure_ascii=False)}" for name, value in labels.items())
    if not any("\ud800" <= char <= "\udfff" for char in text):
        assert parse_labels(f"{{{text}}}") == {name: value.replace("\0", "\ufffd") for name, value in labels.items()}


@pytest.mark.parametrize("escape", [r"\x00", r"\000", r"\u0000", r"\U00000000"])
def test_a_nul_that_labels_write_as_an_escape_is_replaced(escape: str) -> None:
    """Nothing else of the body tells that there is one, and no database takes it."""
    text = r'{app="a", pod="p@", trace_id="t@"}'.replace("@", escape)
    streams = [({"app": "a", "pod": "p", "trace_id": "t"}, [(NOW_NS, "m", None)])]
    sent = protobuf_push(streams)
    written = b'{app="a", pod="p", trace_id="t"}'
    assert written in sent
    entry = sent[sent.index(written) + len(written) :]
    stream = b"\x0a" + varint(len(text)) + text.encode() + entry
    by_protobuf = of_protobuf(b"\x0a" + varint(len(stream)) + stream)
    entries = [{"ts": str(NOW_NS), "line": "m"}]
    for records in (by_protobuf, of_json({"streams": [{"labels": text, "entries": entries}]})):
        (log,) = records.logs
        assert log == PlainLog("m", "a", log.timestamp, None, "t\ufffd", log.metadata)  # type: ignore[union-attr]
        assert json.loads(bytes(log.metadata)) == {"pod": "p\ufffd"}


# Both forms, both ways

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
NAMES = st.sampled_from(["level", "pod", "trace_id", "experiment_id", "x", "severity"])
ENTRIES = st.tuples(
    st.integers(NOW_NS - 10**15, NOW_NS + 10**15), TEXTS, st.none() | st.dictionaries(NAMES, TEXTS, max_size=3)
)
STREAMS = st.lists(
    st.tuples(
        st.dictionaries(st.sampled_from(["app", "job", "level", "env", "traceID"]), TEXTS),
        st.lists(ENTRIES, max_size=4),
    ),
    max_size=3,
)


@given(STREAMS)
def test_json_and_protobuf_and_the_quick_way_mean_the_same(streams: list[tuple[dict[str, str], list[Entry]]]) -> None:
    by_json, by_protobuf = of_json(json_push(streams)), of_protobuf(protobuf_push(streams))
    expected = logs(by_json)
    assert logs(by_protobuf) == expected
    assert by_json.have_own_times
    for records in (by_json, by_protobuf):
        plain = plain_of(records.logs)
        if plain is not None:
            lines = plain_lines(plain, range(1, len(plain) + 1), WINDOW)
            if lines is not None:
                found = [
                    msgspec.convert([*msgspec.structs.astuple(line)[:6], json.loads(bytes(line.metadata))], Log)
                    for line in lines
                ]
                assert found == expected


def test_common_bodies_are_read_the_quick_way() -> None:
    streams = [({"app": "a", "pod": "p"}, [(NOW_NS, "line é", None), (NOW_NS, "another", {"trace_id": "t", "n": "1"})])]
    for records in (of_json(json_push(streams)), of_protobuf(protobuf_push(streams))):
        plain = plain_of(records.logs)
        assert plain is not None
        assert len(plain) == 2


# What is wrong costs itself alone

GOOD = [str(NOW_NS), "good"]


@pytest.mark.parametrize(
    ("value", "code"),
    [
        ([NOW_NS, "number"], "json"),
        (["soon", "m"], "timestamp"),
        (["1e18", "m"], "timestamp"),
        (["-5", "m"], "timestamp"),
        ([str(NOW_NS)], "json"),
        ([str(NOW_NS), 7], "json"),
        ([str(NOW_NS), None], "json"),
        ([str(NOW_NS), "m", {"n": 1}], "json"),
        ([str(NOW_NS), "m", "x"], "json"),
        ({"ts": "x"}, "json"),
        ("x", "json"),
        (None, "json"),
    ],
)
def test_an_entry_that_is_not_right_costs_no_other(value: Any, code: str) -> None:
    first, bad, last = items(of_json({"streams": [{"stream": {"app": "a"}, "values": [GOOD, value, GOOD]}]}))
    assert isinstance(first, Incoming)
    assert first == last
    assert isinstance(bad, Malformed)
    assert bad.code == code
    assert bad.rest.service_name == "a"


def test_a_line_that_is_no_utf8_costs_no_other() -> None:
    streams: Streams = [({"app": "a"}, [(NOW_NS, "good", None), (NOW_NS, b"caf\xe9", None), (NOW_NS, "good", None)])]
    first, bad, last = logs(of_protobuf(protobuf_push(streams)))
    assert isinstance(first, Log)
    assert isinstance(last, Log)
    assert isinstance(bad, ItemError)
    assert (bad.code, bad.service_name) == ("message", "a")
    assert "not valid UTF-8" in bad.text
    body = b'{"streams":[{"stream":{"app":"a"},"values":[["%d","good"],["%d","caf\xe9"]]}]}' % (NOW_NS, NOW_NS)
    good, bad = logs(of_json(body))
    assert isinstance(good, Log)
    assert isinstance(bad, ItemError)


@pytest.mark.parametrize("labels", [{"app": 1}, ["app"], "app", {"app": {"x": "y"}}])
def test_a_stream_with_bad_labels_costs_no_other(labels: Any) -> None:
    body = {"streams": [{"stream": labels, "values": [GOOD, GOOD]}, {"stream": {"app": "a"}, "values": [GOOD]}]}
    found = items(of_json(body))
    assert [isinstance(item, Malformed) for item in found] == [True, True, False]
    two = [({"app": "a"}, [(NOW_NS, "m", None)])] * 2
    broken = protobuf_push(two).replace(b'{app="a"}', b"{app=[a]}", 1)
    assert [isinstance(item, Malformed) for item in items(of_protobuf(broken))] == [True, False]


def test_a_nul_is_replaced_as_everywhere() -> None:
    found = one({"app": "a", "pod": "p\0"}, "a\0b", {"n": "\0"})
    assert (found.message, found.metadata) == ("a\ufffdb", {"pod": "p\ufffd", "n": "\ufffd"})


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"x",
        b"[]",
        b"{}",
        b'{"streams":{}}',
        b'{"streams":[',
        b'{"streams":[1]}',
        b"[" * 100_000,
        b'{"streams":null}',
    ],
)
def test_a_body_that_is_no_push_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        of_json(body)


def test_nothing_to_push_is_nothing() -> None:
    assert not items(of_json({"streams": []}))
    assert not items(of_json({"streams": [{"stream": {"app": "a"}, "values": []}]}))
    assert not items(of_protobuf(b""))


def test_more_entries_than_a_request_may_hold_are_refused() -> None:
    streams = [({"app": "a"}, [(NOW_NS, "m", None)] * 11)]
    for read, body in ((of_json, json_push(streams)), (of_protobuf, protobuf_push(streams))):
        with pytest.raises(BodyTooLarge):
            read(body, logs_max=10)
        assert len(items(read(body, logs_max=11))) == 11
    with pytest.raises(BodyTooLarge):
        of_protobuf(b"\x0a\x00" * 11, logs_max=10)


def test_what_labels_take_in_every_log_is_counted() -> None:
    streams = [({"app": "a", "pod": "p" * 1_000}, [(NOW_NS, "m", None)] * 10)]
    for records in (of_json(json_push(streams)), of_protobuf(protobuf_push(streams))):
        assert 9_000 < records.expanded_bytes < 12_000


def test_labels_past_what_metadata_may_take_cost_their_stream_alone() -> None:
    streams: Streams = [
        ({"app": "a", "pod": "p" * 70_000}, [(NOW_NS, "m", None)] * 900),
        ({"app": "b"}, [(NOW_NS, "good", None)]),
    ]
    for records in (of_json(json_push(streams)), of_protobuf(protobuf_push(streams))):
        found = items(records)
        assert [isinstance(item, Malformed) for item in found] == [True] * 900 + [False]
        assert records.expanded_bytes < 1_000


def test_what_labels_take_in_all_logs_together_is_bounded() -> None:
    """413, since it would be as much each time it is sent."""
    streams: Streams = [({"app": "a", "pod": "p" * 60_000}, [(NOW_NS, "m", None)] * 600)]
    for read, body in ((of_json, json_push(streams)), (of_protobuf, protobuf_push(streams))):
        with pytest.raises(BodyTooLarge, match="labels"):
            read(body)


@pytest.mark.parametrize(
    "body",
    [
        b'{"streams":[' + b"{}," * BRACKETS_MAX + b"{}]}",
        b'{"streams":[{"values":[' + b"[]," * BRACKETS_MAX + b"[]]}]}",
        b'{"streams":[{"values":[' + b"1," * (COMMAS_MAX + 1) + b"1]}]}",
    ],
    ids=["streams", "values", "no values"],
)
def test_a_body_of_nothing_much_is_refused_before_it_is_made(body: bytes) -> None:
    with pytest.raises(BodyTooLarge):
        of_json(body)


def test_half_a_surrogate_pair_becomes_a_replacement() -> None:
    """What JavaScript writes of a text that was cut inside of an emoji."""
    body = b'{"streams":[{"stream":{"app":"a","x":"\\ud83d"},"values":[["%d","cut \\ud83d"],["%d","\\ud83d\\ude00"]]}]}'
    found = items(of_json(body % (NOW_NS, NOW_NS)))
    assert [(item.message, item.metadata) for item in found if isinstance(item, Incoming)] == [
        ("cut \ufffd", {"x": "\ufffd"}),
        ("😀", {"x": "\ufffd"}),
    ]


# Protobuf's own


def test_unknown_fields_are_passed_over() -> None:
    plain = protobuf_push([({"app": "a"}, [(NOW_NS, "m", {"n": "1"})])])
    strange = b"\x18" + varint(1 << 40) + b"\x21" + bytes(8) + b"\x2a\x03abc" + b"\x35" + bytes(4)
    assert items(of_protobuf(strange + plain + strange)) == items(of_protobuf(plain))


def test_an_entry_that_is_broken_or_has_too_many_fields_costs_no_other() -> None:
    many = {f"n{n}": "x" * 20 for n in range(PAIRS_MAX + 1)}
    body = protobuf_push([({"app": "a"}, [(NOW_NS, "good", None), (NOW_NS, "m", many), (NOW_NS, "good", None)])])
    assert [isinstance(item, Malformed) for item in items(of_protobuf(body))] == [False, True, False]
    body = protobuf_push([({"app": "a"}, [(NOW_NS, "good", None), (NOW_NS, "mmmmmm", None)])])
    first, bad = items(of_protobuf(body.replace(b"\x12\x06mmmmmm", b"\x12\x07mmmmmm")))
    assert isinstance(first, Incoming)
    assert isinstance(bad, Malformed)


@pytest.mark.parametrize(
    "body", [b"\x0a", b"\x0a\x05abc", b"\x0a\x02\x12\x05", b"\x00\x00", b"\x0b", b"\xff" * 20, b"\x09\x00"]
)
def test_protobuf_that_is_cut_or_none_is_refused(body: bytes) -> None:
    with pytest.raises(MalformedBody):
        of_protobuf(body)


@given(st.binary(max_size=200))
def test_any_bytes_are_read_or_refused(body: bytes) -> None:
    try:
        of_protobuf(body)
    except (MalformedBody, BodyTooLarge):
        return


# Answers


def _received(kept: int, errors: list[ItemError]) -> Received:
    log = Log(1, 1, 9, "a", "m", None, {})
    return Received(kept=[log] * kept, rejected=list(enumerate(errors)))


def test_everything_taken_is_204_without_a_body() -> None:
    found = answers.answer(_received(2, []))
    assert (found.status, found.body, found.accepted) == (204, b"", 2)
    assert answers.respond(found).body == b""


def test_what_was_not_taken_is_said_in_a_sentence() -> None:
    error = ItemError("timestamp", (FieldError("timestamp", "is too old"),), "a")
    found = answers.answer(_received(2, [error]))
    assert (found.status, found.accepted) == (400, 2)
    assert found.body == b"1 of 3 entries were not taken, the others were; the first, number 1: timestamp: is too old\n"
    assert answers.respond(found).headers["content-type"] == "text/plain; charset=utf-8"


def test_a_key_that_may_write_none_of_it_gets_403() -> None:
    error = ItemError(NOT_PERMITTED, (FieldError("service_name", "no"),))
    assert answers.answer(_received(0, [error])).status == 403
    assert answers.answer(_received(1, [error])).status == 400


def test_a_body_that_came_too_slowly_is_sent_again() -> None:
    """Promtail and Alloy drop what was answered 408."""
    response = answers.refuse(refusal_of(BodyTooSlow("the body did not arrive within 30 s")))
    assert (response.status_code, response.headers["retry-after"]) == (503, "1")


def test_labels_without_values_are_none() -> None:
    assert bytes(stream_of({"app": "", "env": None}).raw) == b"{}"
    body = {"streams": [{"stream": {"job": None, "app": "a"}, "values": [[str(NOW_NS), "m", {"n": None, "o": ""}]]}]}
    (log,) = logs(of_json(body))
    assert isinstance(log, Log)
    assert (log.service_name, log.metadata) == ("a", {})
