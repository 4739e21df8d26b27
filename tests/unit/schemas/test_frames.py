"""Frames: what is encoded is decoded, and every record that is no frame is refused with a reason."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from schemas import frames
from schemas.errors import RecordTooLarge
from schemas.frames import (
    FRAME_DECODED_BYTES_MAX,
    RECORD_VERSION,
    FrameError,
    FrameHeader,
    Headers,
    ServiceCounts,
    UnknownRecordVersion,
    decode_headers,
    decode_line,
    decode_lines,
    decompress,
    encode_headers,
    encode_lines,
    metadata_of,
)
from schemas.record import Log, LogLine

HEADER = FrameHeader(
    frame_id=bytes(range(16)),
    received_ms=1_767_225_600_000,
    counts={
        "api": ServiceCounts(received=10, filtered={"debug": 3}, rejected={"timestamp": 1}),
        "": ServiceCounts(received=2, rejected={"json": 2}),
    },
    key_hash=b"k" * 32,
    body_sha256=b"b" * 32,
)
TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)
JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63) | st.floats(allow_nan=False, allow_infinity=False) | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
LOGS = st.builds(
    Log,
    id=st.integers(0, 2**63 - 1),
    timestamp=st.integers(0, 2**52),
    level=st.integers(1, 24),
    service_name=st.from_regex(r"[A-Za-z0-9._/-]{1,20}", fullmatch=True),
    message=TEXT,
    correlation_id=st.none() | TEXT,
    metadata=st.dictionaries(TEXT, JSON, max_size=4),
)


@given(st.lists(LOGS, max_size=8))
def test_lines_come_back_as_they_were(logs: list[Log]) -> None:
    ndjson = decompress(encode_lines(logs))
    lines = decode_lines(ndjson)
    assert [
        (line.id, line.timestamp, line.level, line.service_name, line.message, line.correlation_id) for line in lines
    ] == [(log.id, log.timestamp, log.level, log.service_name, log.message, log.correlation_id) for log in logs]
    assert [metadata_of(line) for line in lines] == [log.metadata for log in logs]
    assert [decode_line(text) for text in ndjson.splitlines()] == lines
    assert decompress(encode_lines(lines)) == ndjson, "a line has the same bytes in both forms"


def test_frame_without_logs_has_no_value() -> None:
    assert encode_lines([]) == b""
    assert decode_lines(decompress(b"")) == []


@pytest.mark.parametrize(
    "header",
    [HEADER, FrameHeader(frame_id=b"0" * 16, received_ms=0, counts={}), msgspec.structs.replace(HEADER, key_hash=None)],
)
def test_headers_come_back_as_they_were(header: FrameHeader) -> None:
    assert decode_headers(encode_headers(header)) == header
    assert decode_headers(encode_headers(header)[::-1]) == header, "order does not matter"
    assert decode_headers([*encode_headers(header), ("trace", b"later")]) == header, "later versions may add some"


def test_kept_is_received_less_filtered_and_rejected() -> None:
    assert [counts.kept for counts in HEADER.counts.values()] == [6, 0]


def test_the_same_header_has_the_same_bytes() -> None:
    turned = FrameHeader(
        frame_id=HEADER.frame_id,
        received_ms=HEADER.received_ms,
        counts=dict(reversed(HEADER.counts.items())),
        key_hash=HEADER.key_hash,
        body_sha256=HEADER.body_sha256,
    )
    assert encode_headers(turned) == encode_headers(HEADER)


def changed(**fields: bytes | None) -> Headers:
    """The headers with some replaced, None: left out."""
    return [(name, text) for name, text in {**dict(encode_headers(HEADER)), **fields}.items() if text is not None]


@pytest.mark.parametrize(
    ("headers", "reason"),
    [
        ([], "no readable version header"),
        (changed(v=None), "no readable version header"),
        (changed(v=b"one"), "no readable version header"),
        (changed(v=b"\xff"), "no readable version header"),
        (changed(frame=None), "cannot be read: 'frame'"),
        (changed(frame=b"short"), "frame id has 5 bytes, expected 16"),
        (changed(received_ms=None), "cannot be read: 'received_ms'"),
        (changed(received_ms=b"today"), "cannot be read: invalid literal"),
        (changed(counts=None), "cannot be read: 'counts'"),
        (changed(counts=b"{"), "cannot be read: Input data was truncated"),
        (changed(counts=b'{"api":{"received":"many"}}'), "cannot be read: Expected `int`"),
        (changed(counts=b"[]"), "cannot be read: Expected `object`"),
    ],
)
def test_headers_of_no_frame_are_refused_with_the_reason(headers: Headers, reason: str) -> None:
    with pytest.raises(FrameError, match=reason) as caught:
        decode_headers(headers)
    assert not isinstance(caught.value, UnknownRecordVersion)


def test_newer_version_is_told_apart() -> None:
    with pytest.raises(UnknownRecordVersion, match=f"record version 2, this program reads {RECORD_VERSION}: upgrade"):
        decode_headers(changed(v=b"2"))


@pytest.mark.parametrize("value", [b"no zstd", zstandard.compress(b"x" * 1000)[:-5], b"\x28\xb5\x2f\xfd"])
def test_value_that_is_no_zstd_is_refused(value: bytes) -> None:
    with pytest.raises(FrameError, match="no readable zstd"):
        decompress(value)


def test_value_that_grows_past_the_limit_is_refused_unread() -> None:
    """INV-4: also when the value does not say how large it will be."""
    bomb = bytes(FRAME_DECODED_BYTES_MAX + 1)
    with pytest.raises(FrameError, match=f"frame would hold {FRAME_DECODED_BYTES_MAX + 1} bytes, at most"):
        decompress(zstandard.compress(bomb))
    with pytest.raises(FrameError):
        decompress(zstandard.ZstdCompressor(write_content_size=False).compress(bomb))


def test_lines_past_the_limit_are_refused_before_they_are_a_value(monkeypatch: pytest.MonkeyPatch) -> None:
    """However well they compress: nobody could read them again."""
    logs = [Log(1, 2, 9, "shop", "x" * 100, None, {})] * 10
    size = len(decompress(encode_lines(logs)))
    monkeypatch.setattr(frames, "FRAME_DECODED_BYTES_MAX", size)
    assert decompress(encode_lines(logs))
    monkeypatch.setattr(frames, "FRAME_DECODED_BYTES_MAX", size - 1)
    with pytest.raises(RecordTooLarge, match="send fewer"):
        encode_lines(logs)


def test_value_at_the_limit_is_read(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(frames, "FRAME_DECODED_BYTES_MAX", 1000)
    assert decompress(zstandard.compress(b"x" * 1000)) == b"x" * 1000


LINE = [1, 2, 9, "api", "m", None, {}]


@pytest.mark.parametrize(
    "line",
    [
        *(LINE[:length] for length in range(len(LINE))),
        [*LINE, "more"],
        ["1", *LINE[1:]],
        [*LINE[:4], None, *LINE[5:]],
        [*LINE[:5], 7, {}],
        {"id": 1},
        None,
    ],
)
def test_bad_line_is_an_error_and_spoils_no_other(line: Any) -> None:
    bad, good = json.dumps(line).encode(), json.dumps(LINE).encode()
    for decode in (decode_line, decode_lines):
        with pytest.raises(msgspec.MsgspecError):
            decode(bad)
    with pytest.raises(msgspec.MsgspecError):
        decode_lines(good + b"\n" + bad)
    assert decode_line(good) == LogLine(1, 2, 9, "api", "m", None, msgspec.Raw(b"{}"))


def test_a_trace_travels_beside_the_frame_and_is_never_a_reason_to_refuse_it() -> None:
    traced = msgspec.structs.replace(HEADER, traceparent=f"00-{'a' * 32}-{'b' * 16}-01")
    headers = encode_headers(traced)
    assert decode_headers(headers) == traced
    # A program from before it sees one header more, which it does not look at, and the same version.
    assert headers[:-1] == encode_headers(HEADER)
    for odd in (b"", b"00-zz", b"\xff" * 55, b"a" * 100_000):
        assert decode_headers([*headers[:-1], ("traceparent", odd)]) == HEADER
