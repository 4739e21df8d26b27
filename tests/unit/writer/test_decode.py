"""Frames of foreign producers: however they lay out their lines, a log's text stays with the log, and no frame is an error."""

from __future__ import annotations

import tracemalloc
from collections import Counter

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from schemas.frames import FRAME_DECODED_BYTES_MAX, ServiceCounts, decode_line
from tests.unit.writer.builders import NOON_MS, delivered, header
from writer.decode import DecodedFrame, all_dead, decode_frame, without_rows


def line(number: int, *, timestamp_us: int = NOON_MS * 1000, metadata: str = "{}") -> bytes:
    return b'[%d,%d,9,"shop","m",null,%s]' % (number, timestamp_us, metadata.encode())


def decoded(ndjson: bytes, *, counted: int) -> DecodedFrame:
    """The frame whose headers count so many logs."""
    head = header([])
    head.counts["shop"] = ServiceCounts(received=counted)
    return decode_frame(delivered(head, zstandard.compress(ndjson)))


def letters_of_all(frame: DecodedFrame) -> dict[int | None, bytes]:
    """log id -> text, when every row becomes a letter, in each way that it may."""
    reused, _ = all_dead(frame, "key_reused", "another body")
    refused = without_rows(frame, dict.fromkeys(range(len(frame.rows)), "no")).dead
    assert [(one.log_id, one.line) for one in reused] == [(one.log_id, one.line) for one in refused]
    return {one.log_id: one.line for one in reused}


@pytest.mark.parametrize("counted", [2, 3])
@pytest.mark.parametrize(
    "ndjson",
    [
        line(1) + b"\n" + line(2),
        line(1) + b"\n" + line(2) + b"\n",
        b"\n\n" + line(1) + b"\n \t\n\r\n" + line(2) + b"\n\n",
        line(1) + b"\r\n" + line(2) + b"\r\n",
        b"  " + line(1) + b" \n\t" + line(2),
    ],
)
def test_blank_lines_and_spaces_are_no_logs_and_move_no_text(ndjson: bytes, counted: int) -> None:
    frame = decoded(ndjson, counted=counted)
    assert [row.id for row in frame.rows] == ([1, 2] if counted == 2 else [])
    assert frame.dead_counts == ({} if counted == 2 else {"mismatch": {"shop": 2}, "missing": {"shop": 1}})
    texts = letters_of_all(frame)
    assert {texts[number].strip() for number in (1, 2)} == {line(1), line(2)}
    assert {decode_line(texts[number]).id for number in (1, 2)} == {1, 2}
    for index, letter in zip(frame.line_indexes, all_dead(frame, "key_reused", "")[0], strict=False):
        assert ndjson.split(b"\n")[index] == letter.line


@pytest.mark.parametrize(
    "ndjson",
    [
        line(1) + line(2),
        line(1) + b" " + line(2) + b"\n\n" + line(3) + b"\n",
        b"\n" + line(1) + line(2) + b"\n",
        line(1).replace(b",", b",\n") + b"\n" + line(2),
        line(1).replace(b",", b",\n") + line(2) + line(3),
        line(1, metadata='{\n"a":1}') + b"\n" + line(2),
        line(1) + b"\r" + line(2),
    ],
)
@pytest.mark.parametrize("counted", [1, 2, 3])
def test_several_logs_on_a_line_and_one_on_several_are_put_aside_with_their_text(ndjson: bytes, counted: int) -> None:
    frame = decoded(ndjson, counted=counted)
    lines = [text for text in ndjson.split(b"\n") if text.strip()]
    letters, _ = all_dead(frame, "key_reused", "another body")
    texts = [one.line for one in letters if one.reason != "missing"]
    assert sorted(texts) == sorted(lines)
    kept = sum(number for services in frame.dead_counts.values() for number in services.values()) + len(frame.rows)
    assert kept == frame.counts["shop"].received + frame.counts.get("", ServiceCounts()).received


def test_log_with_a_wrong_time_keeps_its_text_behind_a_blank_line() -> None:
    wrong = line(1, timestamp_us=-5)
    frame = decoded(b"\n" + wrong + b"\n\n" + line(2) + b"\n", counted=2)
    assert [(one.reason, one.line_index, one.line) for one in frame.dead] == [("timestamp", 1, wrong)]
    assert [row.id for row in frame.rows] == [2]
    assert letters_of_all(frame) == {1: wrong, 2: line(2)}


@given(
    st.lists(st.sampled_from([b"[1", b"\n", b"\r", b" ", line(1), line(2), line(3, timestamp_us=-1), b"\n[7,\n"])),
    st.integers(0, 4),
)
def test_no_layout_of_a_frame_is_an_error_or_loses_a_byte_of_text(pieces: list[bytes], counted: int) -> None:
    ndjson = b"".join(pieces)
    frame = decoded(ndjson, counted=counted)
    letters, _ = all_dead(frame, "key_reused", "another body")
    texts = Counter(one.line for one in letters if one.reason != "missing")
    assert texts == Counter(text for text in ndjson.split(b"\n") if text.strip())
    letters_of_all(frame)


@pytest.mark.parametrize("filler", [b"\r", b"\n", b" ", b"\r\n"])
def test_frame_of_nothing_but_line_ends_costs_little(filler: bytes) -> None:
    ndjson = filler * (FRAME_DECODED_BYTES_MAX // len(filler))
    tracemalloc.start()
    try:
        frame = decoded(ndjson, counted=1)
        _, peak_bytes = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak_bytes < 4 * FRAME_DECODED_BYTES_MAX, "lines are not listed before they are counted"
    assert not frame.rows
    assert len(frame.dead) == 1
