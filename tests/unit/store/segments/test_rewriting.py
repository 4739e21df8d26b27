"""Segments made of segments hold the rows that were to be kept, each once and in order."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from schemas.record import Log
from search.match import compile_match
from search.predicate import Contains, CorrelationIs, Not, Predicate, ServiceIn
from search.sql import Sql
from search.sql_duckdb import compile_duckdb
from store.segments.exporting import export
from store.segments.format import SegmentDamaged, SegmentMissing
from store.segments.reading import SegmentReader
from store.segments.rewriting import rewrite
from store.segments.scans import SegmentFile, SegmentScan
from store.segments.settings import SegmentSettings
from store.segments.verification import verify
from store.segments.writing import SegmentWriter
from tests.segment_rows import log_at, logs, read, settings, write

PREDICATES: tuple[Predicate, ...] = (
    Not(CorrelationIs("c1")),
    Not(ServiceIn(frozenset({"pay"}))),
    Not(Contains("a")),
)


def file_of(directory: Path, of: list[Log], name: str) -> list[SegmentFile]:
    return [
        SegmentFile(str(segment.path), segment.name, segment.info.row_groups)
        for segment in write(directory, of, name, using=settings(row_group_rows=5))
    ]


@hypothesis_settings(deadline=None, max_examples=60)
@given(of=logs(), owners=st.lists(st.integers(0, 3), min_size=40, max_size=40), keep=st.sampled_from(PREDICATES))
def test_what_is_kept_is_written_once_and_in_order(of: list[Log], owners: list[int], keep: Predicate) -> None:
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        files = [
            file
            for part in range(4)
            for file in file_of(
                directory, [log for log, owner in zip(of, owners, strict=False) if owner == part], f"s{part}"
            )
        ]
        test = compile_match(keep)
        writer = SegmentWriter(directory, "new", settings=settings(row_group_rows=7, rows_max=15))
        segments = rewrite(files, writer, keep=compile_duckdb(keep), memory_mib=256)
        for segment in segments:
            verify(segment.path, segment.info)
        assert [log for segment in segments for log in read(segment.path)] == [log for log in of if test(log)]


def test_content_is_the_same_when_all_is_kept(tmp_path: Path) -> None:
    """Metadata stays the text it was, and NULL stays NULL."""
    of = [log_at(at // 2, at, metadata={"a": [1.5, None]}, correlation_id=[None, "", "x"][at % 3]) for at in range(50)]
    (one,) = write(tmp_path, of, "one")
    file = SegmentFile(str(one.path), one.name, one.info.row_groups)
    (other,) = rewrite([file], SegmentWriter(tmp_path, "other", settings=settings()), memory_mib=256)
    assert other.info.content == one.info.content


def test_a_cancelled_rewrite_leaves_nothing(tmp_path: Path) -> None:
    files = file_of(tmp_path, [log_at(at, at) for at in range(20)], "s")
    before = {path.name for path in tmp_path.iterdir()}
    asked = iter([False, True])
    writer = SegmentWriter(tmp_path, "new", settings=settings(row_group_rows=1))
    assert rewrite(files, writer, is_cancelled=lambda: next(asked), memory_mib=256) == []
    assert {path.name for path in tmp_path.iterdir()} == before


def test_missing_and_damaged_sources_are_named_and_nothing_is_left(tmp_path: Path) -> None:
    files = file_of(tmp_path, [log_at(at, at) for at in range(20)], "s")
    missing = SegmentFile(str(tmp_path / "absent"), "absent", files[0].row_groups)
    with pytest.raises(SegmentMissing, match="absent"):
        rewrite([missing], SegmentWriter(tmp_path, "new", settings=settings()), memory_mib=256)
    with Path(files[0].path).open("r+b") as content:
        content.truncate(500)
    with pytest.raises(SegmentDamaged, match="s-default-0"):
        rewrite(files, SegmentWriter(tmp_path, "new", settings=settings()), memory_mib=256)
    assert not list(tmp_path.glob("new*"))


@pytest.mark.parametrize("newest_first", [True, False])
async def test_an_export_gives_every_row_once(
    tmp_path: Path, newest_first: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("store.segments.exporting.PAGE_ROWS", 7)
    of = [log_at(at // 3, at) for at in range(100)]
    files = tuple(file_of(tmp_path, of[::2], "a") + file_of(tmp_path, of[1::2], "b"))
    reader = SegmentReader([tmp_path], SegmentSettings(reader_threads=1, reader_memory_mib=128))
    scan = SegmentScan(files, Sql("id % 10 <> 3"), (0, 0), (1_000, 0), newest_first, 85, 1_000_000, 60_000)
    pages = [page async for page in export(reader, scan)]
    expected = [log for log in of if log.id % 10 != 3]
    assert [log for page in pages for log in page] == (expected[::-1] if newest_first else expected)[:85]
    assert max(map(len, pages)) == 7
    await reader.close()
