"""Rows become files that hold exactly them, whole or not at all."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from schemas.record import MESSAGE_BYTES_MAX, Log
from store.segments.content import ContentHash
from store.segments.files import UNFINISHED, remove_unfinished
from store.segments.filters import CorrelationFilters
from store.segments.format import SCHEMA
from store.segments.verification import verify
from store.segments.writing import SegmentWriter
from tests.segment_rows import batch_of, in_order, log_at, logs, logs_of, read, settings, write


def files_in(directory: Path) -> set[str]:
    return {path.name for path in directory.iterdir()}


@hypothesis_settings(deadline=None)
@given(logs(), st.integers(1, 5), st.integers(1, 12), st.lists(st.integers(0, 40), max_size=3))
def test_arbitrary_rows_come_back_as_they_were(of: list[Log], group_rows: int, rows_max: int, cuts: list[int]) -> None:
    """However the rows are cut into batches, row groups and files; NULL is not '', and no character is lost."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        writer = SegmentWriter(directory, "s", settings=settings(row_group_rows=group_rows, rows_max=rows_max))
        edges = sorted({0, len(of), *(min(cut, len(of)) for cut in cuts)})
        for start, end in pairwise(edges):
            writer.write(batch_of(of).slice(start, end - start))
        segments = writer.close()
        assert [log for segment in segments for log in read(segment.path)] == of
        assert all(segment.info.rows <= rows_max for segment in segments)
        filters = CorrelationFilters(directory)
        for segment in segments:
            verify(segment.path, segment.info)
            for log in read(segment.path):
                assert log.correlation_id is None or filters.may_hold(segment.name, log.correlation_id)
        filters.close()
        wanted = {segment.name for segment in segments} | {segment.filter_path.name for segment in segments}
        assert files_in(directory) == wanted


def test_metadata_is_the_text_that_was_given(tmp_path: Path) -> None:
    text = '{"b": 1.0, "a": [1e400, "\\u2028"], "long": 12345678901234567890.10}'
    batch = batch_of([log_at(1, 1)])
    batch = batch.set_column(6, SCHEMA.field("metadata"), pa.array([text]))
    writer = SegmentWriter(tmp_path, "s", settings=settings())
    writer.write(batch)
    (segment,) = writer.close()
    assert pq.read_table(segment.path).column("metadata").to_pylist() == [text]


def test_the_largest_messages_are_kept_in_bounded_row_groups(tmp_path: Path) -> None:
    of = [log_at(at, at, message="€" * (MESSAGE_BYTES_MAX // 3)) for at in range(40)]
    (segment,) = write(tmp_path, of, using=settings(row_group_bytes=1024 * 1024))
    assert read(segment.path) == of
    assert max(group.bytes for group in segment.info.row_groups) < 1.5 * 1024 * 1024
    verify(segment.path, segment.info)


def test_row_groups_are_slices_of_time_sorted_by_service(tmp_path: Path) -> None:
    of = [log_at(at // 3, at, service_name="pay" if at % 2 else "auth") for at in range(100)]
    (segment,) = write(tmp_path, of, using=settings(row_group_rows=7))
    file = pq.ParquetFile(segment.path)
    assert file.num_row_groups == len(segment.info.row_groups) == 15
    last = (-1, -1)
    for number, group in enumerate(segment.info.row_groups):
        found = logs_of(file.read_row_group(number))
        assert [(log.service_name, log.timestamp, log.id) for log in found] == sorted(
            (log.service_name, log.timestamp, log.id) for log in found
        )
        positions = sorted((log.timestamp, log.id) for log in found)
        assert positions[0] > last
        assert (len(found), positions[0][0], positions[-1][0]) == (group.rows, group.first_us, group.last_us)
        last = positions[-1]


def test_a_segments_info_says_what_is_in_it(tmp_path: Path) -> None:
    of = [log_at(at, 1000 - at, level=at % 24 + 1, service_name="pay" if at % 3 else "auth") for at in range(50)]
    (segment,) = write(tmp_path, of)
    info = segment.info
    assert (info.rows, info.first_us, info.last_us, info.id_min, info.id_max) == (50, 0, 49, 951, 1000)
    assert info.services == Counter(log.service_name for log in of)
    assert info.levels == Counter(log.level for log in of)
    assert info.bytes == segment.path.stat().st_size
    content = ContentHash()
    content.update(batch_of(of))
    assert info.content == content.hexdigest()


def test_content_does_not_depend_on_how_rows_are_laid_down(tmp_path: Path) -> None:
    of = [log_at(at, at, service_name="pay" if at % 2 else "auth", correlation_id=str(at)) for at in range(30)]
    contents = {
        write(tmp_path, of, str(rows), using=settings(row_group_rows=rows))[0].info.content for rows in (1, 4, 30)
    }
    assert len(contents) == 1


@pytest.mark.parametrize("field", ["level", "service_name", "correlation_id", "message", "metadata"])
def test_content_tells_of_any_value(tmp_path: Path, field: str) -> None:
    other = {"level": 10, "service_name": "pax", "correlation_id": "", "message": "", "metadata": {"a": 1}}
    contents = set()
    for name, values in (("a", {}), ("b", {field: other[field]})):
        contents.add(write(tmp_path, [log_at(1, 1, **values), log_at(2, 2)], name)[0].info.content)
    assert len(contents) == 2


def test_content_tells_where_a_text_ends(tmp_path: Path) -> None:
    one = write(tmp_path, [log_at(1, 1, message="ab"), log_at(2, 2, message="c")], "a")
    other = write(tmp_path, [log_at(1, 1, message="a"), log_at(2, 2, message="bc")], "b")
    assert one[0].info.content != other[0].info.content


def test_each_retention_class_has_files_of_its_own(tmp_path: Path) -> None:
    of = [log_at(at, at, level=17 if at % 5 == 0 else 9) for at in range(100)]

    def classify(batch: pa.RecordBatch) -> pa.Array:
        return pa.array(["long" if level >= 17 else "short" for level in batch.column("level").to_pylist()])

    using = settings(row_group_rows=8, rows_max=50)
    segments = write(tmp_path, of, using=using, classify=classify)
    assert [segment.name for segment in segments] == [
        "s-long-0.parquet",
        "s-short-0.parquet",
        "s-short-1.parquet",
    ]
    for segment in segments:
        verify(segment.path, segment.info)
        assert all((log.level >= 17) is (segment.retention_class == "long") for log in read(segment.path))
    assert in_order(log for segment in segments for log in read(segment.path)) == of


def test_what_many_classes_gather_is_bounded(tmp_path: Path) -> None:
    of = [log_at(at, at, message="x" * 1_000) for at in range(400)]

    def classify(batch: pa.RecordBatch) -> pa.Array:
        return pa.array([f"c{log_id % 8}" for log_id in batch.column("id").to_pylist()])

    writer = SegmentWriter(tmp_path, "s", settings=settings(gathered_bytes_max=50_000), classify=classify)
    for at in range(0, 400, 20):
        writer.write(batch_of(of[at : at + 20]))
        assert sum(file.gathered_bytes for file in writer._files.values()) <= 50_000
    segments = writer.close()
    assert in_order(log for segment in segments for log in read(segment.path)) == of


@pytest.mark.parametrize("second", [(5, 5), (5, 4), (4, 9)])
def test_rows_out_of_order_are_refused(tmp_path: Path, second: tuple[int, int]) -> None:
    writer = SegmentWriter(tmp_path, "s", settings=settings())
    with pytest.raises(ValueError, match="order"):
        writer.write(batch_of([log_at(5, 5), log_at(*second)]))
    writer.write(batch_of([log_at(5, 5)]))
    with pytest.raises(ValueError, match="order"):
        writer.write(batch_of([log_at(*second)]))
    writer.abort()


def test_nothing_is_under_its_name_before_it_is_whole(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, "s", settings=settings(row_group_rows=2))
    writer.write(batch_of([log_at(at, at) for at in range(9)]))
    assert files_in(tmp_path) == {f"s-default-0.parquet{UNFINISHED}"}
    writer.abort()
    assert files_in(tmp_path) == set()


def test_a_killed_writer_leaves_nothing_under_a_name(tmp_path: Path) -> None:
    (segment,) = write(tmp_path, [log_at(1, 1)])
    program = (
        "import sys; from pathlib import Path; from tests.segment_rows import *\n"
        "writer = SegmentWriter(Path(sys.argv[1]), 'killed', settings=settings(row_group_rows=2))\n"
        "writer.write(batch_of([log_at(at, at) for at in range(99)])); print('half', flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "half\n"
        process.kill()
    whole = {segment.name, segment.filter_path.name}
    assert files_in(tmp_path) == whole | {f"killed-default-0.parquet{UNFINISHED}"}
    assert remove_unfinished(tmp_path) == 1
    assert files_in(tmp_path) == whole


def test_a_class_that_is_no_name_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="retention class"):
        write(tmp_path, [log_at(1, 1)], classify=lambda batch: pa.array(["../elsewhere"] * len(batch)))
    assert files_in(tmp_path) == set()


def test_an_error_of_the_disk_leaves_nothing_under_the_name(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, "s", settings=settings(row_group_rows=2), filter_directory=tmp_path / "absent")
    writer.write(batch_of([log_at(at, at) for at in range(9)]))
    with pytest.raises(FileNotFoundError):
        writer.close()
    writer.abort()
    assert files_in(tmp_path) == set()


def test_writing_again_replaces_what_was_there(tmp_path: Path) -> None:
    write(tmp_path, [log_at(1, 1)])
    (segment,) = write(tmp_path, [log_at(2, 2)])
    assert read(segment.path) == [log_at(2, 2)]


def test_no_rows_make_no_file(tmp_path: Path) -> None:
    assert write(tmp_path, []) == []
    assert files_in(tmp_path) == set()


def test_files_end_at_midnight(tmp_path: Path) -> None:
    """A few old rows do not stretch a file over all the days between."""
    day_us = 86_400_000_000
    times = [-1, 0, day_us - 1, day_us, day_us, 365 * day_us + 7]
    of = [log_at(time, number, level=17 if number == 4 else 9) for number, time in enumerate(times)]

    def classify(batch: pa.RecordBatch) -> pa.Array:
        return pa.array(["long" if level >= 17 else "short" for level in batch.column("level").to_pylist()])

    segments = write(tmp_path, of, classify=classify)
    assert [(segment.retention_class, segment.info.rows) for segment in segments] == [
        ("long", 1),
        ("short", 1),
        ("short", 2),
        ("short", 1),
        ("short", 1),
    ]
    assert all(segment.info.first_us // day_us == segment.info.last_us // day_us for segment in segments)
    assert in_order(log for segment in segments for log in read(segment.path)) == of
    assert {segment.filter_path.stat().st_size for segment in segments} == {8_192}


def test_an_aborted_writer_leaves_no_finished_files_either(tmp_path: Path) -> None:
    writer = SegmentWriter(tmp_path, "s", settings=settings())
    writer.write(batch_of([log_at(day * 86_400_000_000, day) for day in range(3)]))
    assert {"s-default-0.parquet", "s-default-1.parquet"} <= files_in(tmp_path)
    writer.abort()
    assert files_in(tmp_path) == set()
