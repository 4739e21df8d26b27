"""A scan of real files is a plain filter, sort and limit, wherever it stops and however often it goes on."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Callable, Iterator
from itertools import pairwise
from pathlib import Path

import duckdb
import msgspec
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from runtime.clock import ManualClock
from schemas.record import Log
from search.bounds import metadata_texts
from search.match import compile_match
from search.predicate import (
    EVERYTHING,
    Contains,
    CorrelationIs,
    CorrelationPresent,
    MetaEquals,
    MinLevel,
    Not,
    Predicate,
    ServiceIn,
)
from search.sql import Sql
from search.sql_duckdb import compile_duckdb
from store.port import Position
from store.segments.duck import connected
from store.segments.filters import CorrelationFilters, is_asked
from store.segments.format import RowGroup, SegmentDamaged, SegmentMissing
from store.segments.scanning import ScanCancelled, Scanner
from store.segments.scans import SegmentFile, SegmentResult, SegmentScan, question_of, result_of
from store.segments.slices import ID_MAX, Walk
from tests.segment_rows import batch_of, log_at, logs, settings, write

EVER = ((-(2**61), 0), (2**61, 0))
NEVER_LATE_MS = 10**9
PREDICATES: tuple[Predicate, ...] = (
    EVERYTHING,
    ServiceIn(frozenset({"pay"})),
    MinLevel(13),
    CorrelationPresent(),
    CorrelationIs("c1"),
    Not(CorrelationIs("c1")),
    Contains("a"),
)


class TickingClock(ManualClock):
    """Each look at it takes a millisecond: a budget ends after so many statements, on any machine."""

    def monotonic_s(self) -> float:
        """See Clock."""
        self.advance(0.001)
        return super().monotonic_s()


@pytest.fixture(scope="module")
def directory() -> Iterator[Path]:
    path = Path(tempfile.mkdtemp())
    yield path
    shutil.rmtree(path)


@pytest.fixture(scope="module")
def connection(directory: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    opened = connected([directory], memory_mib=256, threads=1)
    yield opened
    opened.close()


def size_of(log: Log) -> int:
    return len(log.message.encode()) + len(text_of_metadata(log))


def text_of_metadata(log: Log) -> bytes:
    text: str = batch_of([log]).column("metadata")[0].as_py()
    return text.encode()


def expected(of: list[Log], scan: SegmentScan, predicate: Predicate) -> list[Log]:
    """By a plain filter, sort and limit."""
    test = compile_match(predicate)
    matching = [log for log in of if scan.low <= (log.timestamp, log.id) < scan.high and test(log)]
    matching.sort(key=lambda log: (log.timestamp, log.id), reverse=scan.newest_first)
    found: list[Log] = []
    for log in matching[: scan.wanted]:
        found.append(log)
        if sum(map(size_of, found)) >= scan.bytes_max:
            break
    return found


def run(connection: duckdb.DuckDBPyConnection, scan: SegmentScan) -> SegmentResult:
    scanner = Scanner(connection, TickingClock(0))
    return result_of(
        scanner.run(question_of(1, scan), is_cancelled=lambda: False, gives_way=lambda: False, got_on=lambda: None)
    )


def files_of(directory: Path, parts: list[list[Log]], row_group_rows: int) -> tuple[SegmentFile, ...]:
    found: list[SegmentFile] = []
    for number, part in enumerate(parts):
        segments = write(directory, part, f"s{number}", using=settings(row_group_rows=row_group_rows))
        found += [SegmentFile(str(segment.path), segment.name, segment.info.row_groups) for segment in segments]
    return tuple(found)


@st.composite
def bounds(draw: st.DrawFn, of: list[Log]) -> tuple[Position, Position]:
    """Anything, and often the position of a log or one beside it."""
    near = [(log.timestamp, log.id + step) for log in of for step in (0, 1) if log.id < ID_MAX]
    anything = st.tuples(st.integers(-5, 25), st.integers(0, ID_MAX))
    position = st.sampled_from([*near, *EVER]) | anything if near else anything
    low, high = draw(position), draw(position)
    return (low, high) if draw(st.booleans()) else EVER


@hypothesis_settings(deadline=None, max_examples=120)
@given(data=st.data(), of=logs(times=st.integers(0, 20), max_size=30))
def test_a_scan_is_a_plain_filter_sort_and_limit(
    directory: Path, connection: duckdb.DuckDBPyConnection, data: st.DataObject, of: list[Log]
) -> None:
    """Over files that overlap; then again in pieces, as far as any budget and any limit lets each of them come."""
    place = Path(tempfile.mkdtemp(dir=directory))
    owner = [data.draw(st.integers(0, 2)) for _ in of]
    parts = [[log for log, number in zip(of, owner, strict=True) if number == part] for part in range(3)]
    files = files_of(place, parts, data.draw(st.integers(1, 6)))
    low, high = data.draw(bounds(of))
    predicate = data.draw(st.sampled_from(PREDICATES))
    newest_first = data.draw(st.booleans())
    wanted, bytes_max = data.draw(st.integers(1, 40)), data.draw(st.integers(1, 40) | st.just(10_000))
    where = compile_duckdb(predicate)
    scan = SegmentScan(files, where, low, high, newest_first, wanted, bytes_max, NEVER_LATE_MS)

    result = run(connection, scan)
    assert result.logs == expected(of, scan, predicate)
    if result.looked_to is not None:
        assert result.looked_to == (result.logs[-1].timestamp, result.logs[-1].id)

    budgets = st.integers(0, 30)
    seen: list[Log] = []
    looked_to: Position | None = None
    for _ in range(100):
        after = looked_to
        if after is not None and newest_first:
            high = after
        elif after is not None:
            low = (after[0], after[1] + 1) if after[1] < ID_MAX else (after[0] + 1, 0)
        piece = SegmentScan(files, where, low, high, newest_first, wanted, bytes_max, data.draw(budgets))
        found = run(connection, piece)
        assert found.logs == expected(of, piece, predicate)[: len(found.logs)]
        seen += found.logs
        looked_to = found.looked_to
        if looked_to is None:
            break
        assert after is None or (looked_to < after if newest_first else looked_to > after)
    assert looked_to is None
    everything = SegmentScan(files, where, scan.low, scan.high, newest_first, 10**6, 10**9, 0)
    assert seen == expected(of, everything, predicate)
    shutil.rmtree(place)


@hypothesis_settings(deadline=None, max_examples=60)
@given(data=st.data(), of=logs(times=st.integers(0, 20), max_size=30))
def test_row_groups_that_filters_rule_out_change_no_answer(
    directory: Path, connection: duckdb.DuckDBPyConnection, data: st.DataObject, of: list[Log]
) -> None:
    place = Path(tempfile.mkdtemp(dir=directory))
    users = [data.draw(st.sampled_from(["ann", "bob", "cy", 'd"d', "1"])) for _ in of]
    of = [
        msgspec.structs.replace(log, metadata={"user": user, **log.metadata})
        for log, user in zip(of, users, strict=True)
    ]
    files = files_of(place, [of[::2], of[1::2]], data.draw(st.integers(1, 4)))
    predicate: Predicate = MetaEquals(("user",), data.draw(st.sampled_from(["ann", "bob", 'd"d', "1", "nobody"])))
    texts = [text for text in metadata_texts(predicate) if is_asked(text)]
    filters = CorrelationFilters(place)
    files = tuple(
        msgspec.structs.replace(file, skipped=filters.row_groups_without(file.name, texts)[0]) for file in files
    )
    filters.close()
    low, high = data.draw(bounds(of))
    scan = SegmentScan(
        files,
        compile_duckdb(predicate),
        low,
        high,
        data.draw(st.booleans()),
        data.draw(st.integers(1, 40)),
        10**6,
        10**9,
    )
    assert run(connection, scan).logs == expected(of, scan, predicate)
    shutil.rmtree(place)


@pytest.mark.parametrize("newest_first", [True, False])
def test_row_groups_without_a_match_are_in_no_slice(newest_first: bool) -> None:
    groups = tuple(RowGroup(1, start, start + 9, 1) for start in range(0, 80, 10))
    files = [SegmentFile("", "one", groups, (0, 1, 4, 5, 7)), SegmentFile("", "other", groups, tuple(range(8)))]
    walk = Walk(files, *EVER, newest_first=newest_first)
    spans = []
    while (piece := walk.next(100)) is not None:
        spans.append((piece.low[0], piece.high[0]))
        walk.done(piece)
    assert sorted(spans) == [(20, 40), (60, 70)]
    assert walk.looked_to is None


@given(
    st.lists(
        st.lists(st.tuples(st.integers(0, 30), st.integers(0, 9)), min_size=1, max_size=6), min_size=1, max_size=4
    ),
    st.integers(1, 5),
    st.booleans(),
    st.tuples(st.integers(-3, 40), st.integers(0, 2)),
    st.tuples(st.integers(-3, 40), st.integers(0, 2)),
)
def test_slices_cover_the_interval_once(
    spans: list[list[tuple[int, int]]], row_groups: int, newest_first: bool, low: Position, high: Position
) -> None:
    """And each names all files that may hold a row of it."""
    files = [
        SegmentFile("", str(number), tuple(RowGroup(1, start, start + length, 1) for start, length in sorted(span)))
        for number, span in enumerate(spans)
    ]
    walk = Walk(files, low, high, newest_first=newest_first)
    slices = []
    while (piece := walk.next(row_groups)) is not None:
        slices.append(piece)
        walk.done(piece)
    assert walk.looked_to is None
    ordered = slices[::-1] if newest_first else slices
    for one, other in pairwise(ordered):
        assert one.low < one.high == other.low
    for time in range(-3, 45):
        for log_id in range(3):
            position = (time, log_id)
            holders = {
                file.name for file in files if file.row_groups[0].first_us <= time <= file.row_groups[-1].last_us
            }
            named = [{file.name for file in piece.files} for piece in slices if piece.low <= position < piece.high]
            if low <= position < high and holders:
                assert len(named) == 1
                assert holders <= named[0]
            assert len(named) <= 1


def test_the_newest_match_is_found_without_looking_further(
    directory: Path, connection: duckdb.DuckDBPyConnection
) -> None:
    files = files_of(directory, [[log_at(at, at) for at in range(100)]], 10)
    asked: list[str] = []

    class Watched:
        def execute(self, text: str, params: list[object]) -> object:
            asked.append(text)
            return connection.execute(text, params)

    scanner = Scanner(Watched(), TickingClock(0))  # type: ignore[arg-type]  # what of a connection is used
    scan = SegmentScan(files, Sql("TRUE"), *EVER, True, 5, 10_000, NEVER_LATE_MS)
    scanner.run(question_of(1, scan), is_cancelled=lambda: False, gives_way=lambda: False, got_on=lambda: None)
    assert len(asked) == 2, "positions of one slice, and their rows"


def test_large_rows_are_fetched_a_few_at_a_time(directory: Path, connection: duckdb.DuckDBPyConnection) -> None:
    """Row groups that say they are large: no two are fetched at once, and none past the limit of bytes."""
    of = [log_at(at, at, message="x" * 100) for at in range(20)]
    (file,) = files_of(directory, [of], 2)
    large = tuple(RowGroup(group.rows, group.first_us, group.last_us, 100 << 20) for group in file.row_groups)
    scan = SegmentScan((SegmentFile(file.path, file.name, large),), Sql("TRUE"), *EVER, True, 15, 1_000, NEVER_LATE_MS)
    found = run(connection, scan)
    assert found.logs == of[::-1][:10]
    assert found.looked_to == (10, 10)


def damage(path: Path, how: Callable[[bytearray], object]) -> None:
    content = bytearray(path.read_bytes())
    how(content)
    path.write_bytes(content)


def zero_the_data(content: bytearray) -> None:
    content[4:-2_000] = bytes(len(content) - 2_004)


def cut(content: bytearray) -> None:
    del content[len(content) // 2 :]


@pytest.mark.parametrize("how", [zero_the_data, cut])
def test_a_damaged_file_is_named(
    directory: Path, connection: duckdb.DuckDBPyConnection, how: Callable[[bytearray], object]
) -> None:
    place = Path(tempfile.mkdtemp(dir=directory))
    parts = [[log_at(at, at * 3 + part, message="text" * at) for at in range(400)] for part in range(3)]
    files = files_of(place, parts, 5_000)
    damage(Path(files[1].path), how)
    scan = SegmentScan(files, Sql("message <> ''"), *EVER, True, 5, 10_000, NEVER_LATE_MS)
    with pytest.raises(SegmentDamaged, match="s1-default-0"):
        run(connection, scan)


def test_a_missing_file_is_named(directory: Path, connection: duckdb.DuckDBPyConnection) -> None:
    place = Path(tempfile.mkdtemp(dir=directory))
    files = files_of(place, [[log_at(1, 1)], [log_at(2, 2)]], 5)
    Path(files[0].path).unlink()
    with pytest.raises(SegmentMissing, match="s0-default-0"):
        run(connection, SegmentScan(files, Sql("TRUE"), *EVER, False, 5, 10_000, NEVER_LATE_MS))


@pytest.mark.parametrize("is_there", [True, False])
def test_rows_before_a_file_that_cannot_be_read_are_given(
    directory: Path, connection: duckdb.DuckDBPyConnection, *, is_there: bool
) -> None:
    place = Path(tempfile.mkdtemp(dir=directory))
    files = files_of(place, [[log_at(1, 1)], [log_at(2, 2)]], 5)
    Path(files[0].path).unlink()
    if is_there:
        Path(files[0].path).write_bytes(b"PAR1 and no more")
    scan = SegmentScan(files, Sql("TRUE"), *EVER, True, 5, 10_000, NEVER_LATE_MS)
    found = run(connection, scan)
    assert found.logs == [log_at(2, 2)]
    assert found.looked_to is not None
    with pytest.raises(SegmentDamaged if is_there else SegmentMissing, match="s0-default-0"):
        run(connection, msgspec.structs.replace(scan, high=found.looked_to))


def test_a_condition_that_fails_is_nobodys_file(directory: Path, connection: duckdb.DuckDBPyConnection) -> None:
    place = Path(tempfile.mkdtemp(dir=directory))
    files = files_of(place, [[log_at(1, 1, message="no number")]], 5)
    with pytest.raises(duckdb.ConversionException):
        run(connection, SegmentScan(files, Sql("message::INTEGER > 3"), *EVER, True, 5, 10_000, NEVER_LATE_MS))


def test_a_cancelled_scan_stops_between_statements(directory: Path, connection: duckdb.DuckDBPyConnection) -> None:
    files = files_of(directory, [[log_at(1, 1)]], 5)
    scan = SegmentScan(files, Sql("TRUE"), *EVER, True, 5, 10_000, NEVER_LATE_MS)
    with pytest.raises(ScanCancelled):
        Scanner(connection, TickingClock(0)).run(
            question_of(1, scan), is_cancelled=lambda: True, gives_way=lambda: False, got_on=lambda: None
        )


def test_names_with_signs_of_patterns_are_taken_as_they_are(
    directory: Path, connection: duckdb.DuckDBPyConnection
) -> None:
    place = directory / "odd [ab]* {c} 'q'?"
    place.mkdir()
    files = files_of(place, [[log_at(1, 1)]], 5)
    found = run(connection, SegmentScan(files, Sql("TRUE"), *EVER, True, 5, 10_000, NEVER_LATE_MS))
    assert found.logs == [log_at(1, 1)]


@pytest.mark.parametrize("name", ["service_name=auth", "level=17", "timestamp=2020-01-01", "a[b]c*"])
def test_names_of_directories_are_no_columns(tmp_path: Path, name: str) -> None:
    place, of = tmp_path / name, [log_at(n, n) for n in range(3)]
    place.mkdir()
    scan = SegmentScan(
        files_of(place, [of], 2),
        compile_duckdb(ServiceIn(frozenset({"pay"}))),
        *EVER,
        newest_first=False,
        wanted=9,
        bytes_max=1_000,
        budget_ms=NEVER_LATE_MS,
    )
    with connected([place], memory_mib=128, threads=1) as opened:
        assert run(opened, scan).logs == of
