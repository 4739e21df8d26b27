"""The common case read quickly: what it takes is what reading log by log would make of it, and it takes what is common."""

from __future__ import annotations

import json
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ingest.parse import Window, decode_batch, decode_one, may_hold_nul, to_log
from ingest.quick import plain_lines, read_plain, read_plain_one
from schemas.record import Log, LogLine

NOW_MS = 1_795_000_000_000
WINDOW = Window.at(NOW_MS, 400)
LOGS_MAX = 50
COMMON = [
    {"service_name": "shop", "message": "paid"},
    {"service_name": "shop", "message": "paid", "level": "warning", "correlation_id": "c-1"},
    {"service_name": "a/b", "message": "zażółć", "level": 17, "timestamp": "2026-11-18T09:30:00.5Z", "metadata": {}},
    {"service_name": "shop", "message": "x", "metadata": {"amount": 12.5, "tags": ["a", "b"], "deep": {"x": [1]}}},
    {"service_name": "shop", "message": "x", "timestamp": NOW_MS, "metadata": {"gruß": "ü", "n": 10**30, "e": 1.5e-7}},
    {"service_name": "shop", "message": "x", "metadata": {"took": 0.0023410320281982422, "at_ns": 1764098766123456789}},
]


def quick(body: bytes, *, logs_max: int = LOGS_MAX) -> list[LogLine] | None:
    logs = read_plain(body, logs_max=logs_max)
    return None if logs is None else plain_lines(logs, range(1, len(logs) + 1), WINDOW)


def exact(text: bytes) -> Any:
    """JSON with every number as the decimal number it is written as: what queries compare."""
    return json.loads(text, parse_float=Decimal, parse_int=Decimal)


def opened(line: LogLine) -> Log:
    """The line as a log; of repeated keys the last counts, as everywhere."""
    metadata = json.loads(bytes(line.metadata))
    return Log(line.id, line.timestamp, line.level, line.service_name, line.message, line.correlation_id, metadata)


def assert_same(body: bytes) -> None:
    """Whatever is read quickly is what the long way makes of it."""
    lines = quick(body)
    if lines is None:
        return
    items = decode_batch(body, logs_max=LOGS_MAX)
    expected = [to_log(item, n, WINDOW, may_hold_nul=may_hold_nul(body)) for n, item in enumerate(items, 1)]
    assert [opened(line) for line in lines] == expected
    for line, log in zip(lines, expected, strict=True):
        assert isinstance(log, Log)
        assert exact(bytes(line.metadata)) == exact(msgspec.json.encode(log.metadata))
    frame = msgspec.json.Encoder().encode_lines(lines)
    assert len(frame.splitlines()) == len(lines)
    assert msgspec.json.Decoder(Log).decode_lines(frame) == expected


@pytest.mark.parametrize("ensure_ascii", [True, False])
@pytest.mark.parametrize("as_array", [True, False])
def test_common_logs_are_read_quickly(ensure_ascii: bool, as_array: bool) -> None:
    lines = [json.dumps(log, ensure_ascii=ensure_ascii) for log in COMMON]
    body = ("[" + ",\r\n".join(lines) + "]" if as_array else "\n".join(lines) + "\n").encode()
    assert quick(body) is not None
    assert_same(body)


def test_one_log_is_read_quickly() -> None:
    for log in COMMON:
        body = b"\xef\xbb\xbf" + json.dumps(log, indent=None).encode()
        logs = read_plain_one(body)
        assert logs is not None
        lines = plain_lines(logs, [1], WINDOW)
        assert lines is not None
        assert opened(lines[0]) == to_log(decode_one(body), 1, WINDOW, may_hold_nul=False)


UNCOMMON = [
    b'{"service_name":"s","message":"m","metadata":null}',
    b'{"service_name":"s","message":"m","metadata":[]}',
    b'{"service_name":"s","message":"m","metadata":"x"}',
    b'{"service_name":"s","message":"m","metadata":{"x":1e400}}',
    b'{"service_name":"s","message":"m","metadata":{"x": -1E-999}}',
    b'{"service_name":"s","message":"m","metadata":{"x":[1,' + b"9" * 400 + b"]}}",
    b'{"service_name":"s","message":"m","metadata":{"x":0.' + b"1" * 30 + b"}}",
    b'{"service_name":"s","message":"m","metadata":{"x":1769990400.123456789}}',
    b'{"service_name":"s","message":"m","metadata":{"x":0.100000000000000006}}',
    b'{"service_name":"s","message":"m","metadata":{"x":9007199254740993.0}}',
    b'{"service_name":"s","message":"m","metadata":{"x":[12345678901234567890.0]}}',
    b'{"service_name":"s","message":"m","metadata":{"x":12345678901234567891e3}}',
    b'{"service_name":"s","message":"m","metadata":{"x":[' + b"1e15," * 13_000 + b"1]}}",
    b'{"service_name":"s","message":"m","metadata":{"x":"\xff"}}',
    b'{"service_name":"s","message":"m","metadata":{"x":"\xed\xa0\x80"}}',
    b'{"service_name":"s","message":"m","metadata":{"x":"\\u0000"}}',
    b'{"service_name":"s","message":"m","metadata":{"x":"\\udc00"}}',
    b'{"service_name":"s","message":"m","metadata":{"connection_id":"c-1"}}',
    b'{"service_name":"s","message":"m","metadata":{"\\u0063onnection_id":"c-1"}}',
    b'{"service_name":"s","message":"m","metadata":' + b'{"x":' * 17 + b"1" + b"}" * 17 + b"}",
    b'{"service_name":"s","message":"m","metadata":{"x":"' + b"y" * 70_000 + b'"}}',
    b'{"service_name":"s","message":"\\u0000"}',
    b'{"service_name":"s","message":"' + b"y" * 300_000 + b'"}',
    b'{"service_name":"s","message":"m","correlation_id":"' + b"y" * 129 + b'"}',
    b'{"service_name":"no name","message":"m"}',
    b'{"service_name":"","message":"m"}',
    b'{"service_name":"s","message":"m","level":"loud"}',
    b'{"service_name":"s","message":"m","level":25}',
    b'{"service_name":"s","message":"m","level":0}',
    b'{"service_name":"s","message":"m","timestamp":"yesterday"}',
    b'{"service_name":"s","message":"m","timestamp":5}',
    b'{"service_name":"s","message":"m","other":5}',
    b'{"service_name":"s"}',
    b"",
    b"\n\n",
    b"[]",
    b"nonsense",
    b"\n".join([b'{"service_name":"s","message":"m"}'] * (LOGS_MAX + 1)),
    b"[" + b",".join([b'{"service_name":"s","message":"m"}'] * (LOGS_MAX + 1)) + b"]",
]


@pytest.mark.parametrize("body", UNCOMMON, ids=lambda body: repr(body[:70]))
def test_whatever_needs_a_closer_look_is_left_to_it(body: bytes) -> None:
    assert quick(body) is None
    assert quick(b"\n".join([b'{"service_name":"s","message":"m"}', body]) if body[:1] == b"{" else body) is None


def test_metadata_written_over_several_lines_are_left_to_the_long_way() -> None:
    """A frame holds one log a line."""
    body = b'[{"service_name":"s","message":"m","metadata":{\n"x":1}}]'
    assert quick(body) is None
    assert quick(body.replace(b"\n", b"\r")) is None
    assert quick(body.replace(b"\n", b" ")) is not None


texts = st.text(max_size=8) | st.sampled_from(["experiment_id", "1e999", "a\nb", "{[", "\0", "9" * 50])
values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)
logs = st.fixed_dictionaries(
    {"service_name": st.sampled_from(["shop", "a/b", "ü", "x" * 101]), "message": texts},
    optional={
        "level": st.sampled_from(["INFO", "wArn", "err", 9, 24, 25, None, "loud"]),
        "correlation_id": st.none() | texts,
        "metadata": st.none() | st.dictionaries(texts, values, max_size=4),
        "timestamp": st.none() | st.sampled_from([NOW_MS, NOW_MS / 1000, "2026-11-18T10:00:00+02:00", "never", 1]),
    },
)


@given(
    st.lists(logs, min_size=1, max_size=4),
    st.booleans(),
    st.booleans(),
    st.lists(st.tuples(st.integers(0, 400), st.sampled_from(b'{}[]",:\\0123456789eE.-+unl \n\r\xff')), max_size=2),
)
@example([{"service_name": "s", "message": "m", "metadata": {"x": 1}}], True, False, [(45, ord("e")), (46, ord("9"))])
def test_whatever_is_read_quickly_is_read_right(
    found: list[dict[str, Any]], ensure_ascii: bool, as_array: bool, damage: list[tuple[int, int]]
) -> None:
    lines = [json.dumps(log, ensure_ascii=ensure_ascii) for log in found]
    body = bytearray((f"[{','.join(lines)}]" if as_array else "\n".join(lines)).encode("utf-8", "surrogatepass"))
    for place, byte in damage:
        body[place % len(body)] = byte
    assert_same(bytes(body))
