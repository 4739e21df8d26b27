"""Whatever becomes different in a segment is found."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from store.segments.format import SegmentDamaged, SegmentInfo, SegmentMissing
from store.segments.verification import verify, verify_file
from store.segments.writing import WrittenSegment
from tests.segment_rows import log_at, settings, write

LOGS = [
    log_at(at, at, service_name="pay" if at % 2 else "auth", correlation_id=None if at % 3 else str(at))
    for at in range(60)
]


@pytest.fixture(scope="module")
def segment(tmp_path_factory: pytest.TempPathFactory) -> WrittenSegment:
    (written,) = write(tmp_path_factory.mktemp("segments"), LOGS, using=settings(row_group_rows=25))
    return written


def test_info_goes_through_json(segment: WrittenSegment) -> None:
    text = msgspec.json.encode(segment.info)
    assert msgspec.json.decode(text, type=SegmentInfo) == segment.info


@hypothesis_settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_any_flipped_bit_is_found(segment: WrittenSegment, data: st.DataObject) -> None:
    content = bytearray(segment.path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    damaged = segment.path.with_name("damaged.parquet")
    damaged.write_bytes(content)
    for check in (verify, verify_file):
        with pytest.raises(SegmentDamaged, match="sha256"):
            check(damaged, segment.info)


def test_a_cut_file_and_an_absent_one_are_found(segment: WrittenSegment) -> None:
    cut = segment.path.with_name("cut.parquet")
    cut.write_bytes(segment.path.read_bytes()[:-1])
    with pytest.raises(SegmentDamaged, match="bytes"):
        verify(cut, segment.info)
    with pytest.raises(SegmentMissing):
        verify(segment.path.with_name("absent.parquet"), segment.info)


@pytest.mark.parametrize(
    "changed",
    [
        {"rows": 59},
        {"first_us": 1},
        {"last_us": 1},
        {"id_min": 1},
        {"id_max": 1},
        {"services": {"pay": 60}},
        {"levels": {9: 59}},
        {"row_groups": ()},
        {"content": "0" * 64},
    ],
)
def test_what_was_written_wrongly_is_found(segment: WrittenSegment, changed: dict[str, Any]) -> None:
    """The checksum of the file is right; its rows are not those that were read from the database. Any: fields' types."""
    with pytest.raises(SegmentDamaged, match=next(iter(changed))):
        verify(segment.path, msgspec.structs.replace(segment.info, **changed))


def test_a_file_of_other_columns_is_refused(segment: WrittenSegment, tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"id": [1]}), other)
    import hashlib

    info = msgspec.structs.replace(
        segment.info, bytes=other.stat().st_size, sha256=hashlib.sha256(other.read_bytes()).hexdigest()
    )
    with pytest.raises(SegmentDamaged, match="columns"):
        verify(other, info)


def test_a_file_that_is_no_parquet_is_refused(segment: WrittenSegment, tmp_path: Path) -> None:
    import hashlib

    other = tmp_path / "other.parquet"
    other.write_bytes(b"PAR1 nothing PAR1")
    info = msgspec.structs.replace(segment.info, bytes=17, sha256=hashlib.sha256(other.read_bytes()).hexdigest())
    with pytest.raises(SegmentDamaged, match="decoded"):
        verify(other, info)
