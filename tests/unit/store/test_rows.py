"""Rows are what PostgreSQL's COPY reads; the database's own reading is in tests/contract/test_store_writing.py."""

from __future__ import annotations

import struct

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas.record import LogLine
from store.rows import COLUMNS, COPY_HEADER, COPY_TRAILER, encode_row, encode_rows

POSTGRES_EPOCH_US = 946_684_800_000_000
texts = st.text(st.characters(exclude_categories=["Cs"]), max_size=50)
lines = st.builds(
    LogLine,
    id=st.integers(0, (1 << 63) - 1),
    timestamp=st.integers(-62_135_596_800_000_000, 253_402_300_799_999_999),
    level=st.integers(1, 24),
    service_name=texts,
    message=texts,
    correlation_id=st.none() | texts,
    metadata=st.dictionaries(texts, st.integers() | texts, max_size=3).map(
        lambda value: msgspec.Raw(msgspec.json.encode(value))
    ),
)


def fields_of(row: bytes) -> list[bytes | None]:
    """The fields of one binary COPY tuple, which must be all of it."""
    (count,) = struct.unpack_from("!h", row)
    fields: list[bytes | None] = []
    at = 2
    for _ in range(count):
        (length,) = struct.unpack_from("!i", row, at)
        at += 4
        fields.append(None if length == -1 else row[at : at + length])
        at += max(length, 0)
    assert at == len(row)
    return fields


@given(lines)
def test_row_holds_every_field_of_the_line(line: LogLine) -> None:
    row = encode_row(line)
    assert (row.timestamp_us, row.id) == (line.timestamp, line.id)
    assert fields_of(row.copy_bytes) == [
        struct.pack("!q", line.timestamp - POSTGRES_EPOCH_US),
        struct.pack("!q", line.id),
        struct.pack("!h", line.level),
        line.service_name.encode(),
        None if line.correlation_id is None else line.correlation_id.encode(),
        line.message.encode(),
        b"\x01" + bytes(line.metadata),
    ]
    assert len(fields_of(row.copy_bytes)) == len(COLUMNS.split(", "))


@given(st.lists(lines, max_size=5))
def test_rows_keep_the_order_of_the_lines(several: list[LogLine]) -> None:
    assert encode_rows(several) == [encode_row(line) for line in several]


def line_with(**changes: object) -> LogLine:
    fields: dict[str, object] = {
        "id": 1,
        "timestamp": 0,
        "level": 9,
        "service_name": "api",
        "message": "",
        "correlation_id": None,
        "metadata": msgspec.Raw(b""),
    }
    return LogLine(**(fields | changes))  # type: ignore[arg-type]  # the fields are spelled above


def test_empty_metadata_is_an_empty_object() -> None:
    assert fields_of(encode_row(line_with()).copy_bytes)[-1] == b"\x01{}"


def test_empty_correlation_id_is_not_a_missing_one() -> None:
    assert fields_of(encode_row(line_with(correlation_id="")).copy_bytes)[4] == b""


@pytest.mark.parametrize("field, value", [("id", 1 << 63), ("level", 1 << 15), ("timestamp", 1 << 64)])
def test_number_that_no_column_holds_is_a_value_error(field: str, value: int) -> None:
    with pytest.raises(ValueError, match="does not fit its column"):
        encode_row(line_with(**{field: value}))


def test_text_that_is_no_unicode_is_a_value_error() -> None:
    with pytest.raises(ValueError, match="surrogates"):
        encode_row(line_with(message="\ud800"))


def test_header_and_trailer_are_those_of_the_format() -> None:
    assert bytes.fromhex("5047434f50590aff0d0a00 00000000 00000000") == COPY_HEADER
    assert COPY_TRAILER == b"\xff\xff"
