"""Who follows the broker shows what the writer stores, whatever lies in a record."""

from __future__ import annotations

from typing import Any

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from broker.port import Delivered
from live.frames import read_lines
from schemas.frames import FrameError, ServiceCounts, decode_headers, encode_headers
from schemas.lines import FUTURE_US_MAX, LINES_MAX, RECEIVED_MS_APART_MAX
from tests.unit.writer.builders import NOON_MS, frame, header, log
from writer.decode import decode_frame

_GOOD = b'[%d,%d,9,"%s","m",null,{"n":%d}]'
_LINES = st.one_of(
    st.builds(
        lambda number, timestamp_us, service: _GOOD % (number, timestamp_us, service, number),
        st.integers(-1, 5) | st.just(2**63 - 1) | st.just(2**63),
        st.sampled_from(
            [NOON_MS * 1000, -1, NOON_MS * 1000 + FUTURE_US_MAX, NOON_MS * 1000 + FUTURE_US_MAX + 1, 10**17]
        ),
        st.sampled_from([b"shop", b"mail"]),
    ),
    st.sampled_from(
        [
            b"",
            b"  \t",
            b"\xff",
            b"[1,2",
            b'[1,%d,25,"shop","m",null,{}]' % (NOON_MS * 1000),
            b'[1,%d,0,"shop","m",null,{}]' % (NOON_MS * 1000),
            b'[1,%d,9,"shop","m",null,{}] ' % (NOON_MS * 1000),
            b'[1,%d,9,"shop","m",null,{}][]' % (NOON_MS * 1000),
            b'[1,%d,9,"shop","m",null,{"a":%s}]' % (NOON_MS * 1000, b"[" * 30 + b"]" * 30),
            b'[1,%d,9,"shop","m",null,{"a":1},1]' % (NOON_MS * 1000),
            b'{"id":1}',
        ]
    ),
)


def shown(record: Delivered) -> list[int]:
    try:
        return [log.id for log in read_lines(record, decode_headers(record.headers)).logs]
    except FrameError:
        return []


@given(
    lines=st.lists(_LINES, max_size=5),
    counted=st.fixed_dictionaries({"shop": st.integers(0, 3), "mail": st.integers(0, 2)}),
    is_counted_right=st.booleans(),
    apart_ms=st.sampled_from([0, 0, RECEIVED_MS_APART_MAX, RECEIVED_MS_APART_MAX + 1]),
    value=st.sampled_from(["zstd", "zstd", "zstd", "plain"]),
)
def test_the_same_logs_are_shown_as_are_stored(
    lines: list[bytes], counted: dict[str, int], is_counted_right: bool, apart_ms: int, value: str
) -> None:
    head = header([], received_ms=NOON_MS - apart_ms)
    if is_counted_right:
        text = [line for line in lines if line.strip()]
        mail = sum(b'"mail"' in line for line in text)
        counted = {"shop": len(text) - mail, "mail": mail}
    head.counts.update({service: ServiceCounts(received=number) for service, number in counted.items()})
    ndjson = b"\n".join(lines)
    record = Delivered(0, 0, NOON_MS, encode_headers(head), zstandard.compress(ndjson) if value == "zstd" else ndjson)
    assert shown(record) == [row.id for row in decode_frame(record).rows]


def test_a_frame_as_ingest_writes_it_is_shown_whole() -> None:
    logs = [log(number, service=service) for number, service in ((1, "shop"), (2, "mail"), (3, "shop"))]
    record = frame(logs)
    lines = read_lines(record, decode_headers(record.headers))
    assert lines.logs == logs
    assert lines.skipped == 0
    assert lines.size_bytes == len(zstandard.decompress(record.value))


def test_lines_that_are_left_out_are_counted() -> None:
    head = header([log(1)])
    head.counts["shop"] = ServiceCounts(received=3)
    text = b'[1,%d,9,"shop","m",null,{}]\n[broken\n[2,-1,9,"shop","m",null,{}]\n' % (NOON_MS * 1000)
    record = Delivered(0, 0, NOON_MS, encode_headers(head), zstandard.compress(text))
    lines = read_lines(record, decode_headers(record.headers))
    assert ([one.id for one in lines.logs], lines.skipped) == ([1], 2)


@pytest.mark.parametrize("value", [zstandard.compress(b"\n" * (LINES_MAX + 1)), b"no zstd"])
def test_what_is_no_frame_is_refused(value: bytes) -> None:
    record: Any = Delivered(0, 0, NOON_MS, encode_headers(header([])), value)
    with pytest.raises(FrameError):
        read_lines(record, decode_headers(record.headers))
