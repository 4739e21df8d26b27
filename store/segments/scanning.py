"""Answers one question with DuckDB, slice by slice (slices.py). Runs in the reader process.

A slice is asked for positions first: only the columns of the condition are read, and nothing but positions is held. The rows
are fetched by their places in the files, so that pages of a column without one are not unpacked, and from so few row groups at
a time that their values fit into memory whatever they are. The budget ends a scan between slices, or in one (`interrupt`);
what that slice had found is forgotten, so that an answer is always all there is up to where it says it looked. Only the first
slice may run over, so that each scan gets on.

Measured on row groups of 131,072 rows, one core: positions of the newest 100 12 ms, rows of those 55 ms; a rare text 0.2 µs a
row, a correlation id 1 ms a row group that its Bloom filter rules out. Rows by places and not by ids: 0.7 of the time where
100 rows lie in four row groups with pages of 1 MiB, 0.9 with pages of 4 MiB.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final, NamedTuple

import duckdb

from runtime.clock import Clock
from store.port import Position
from store.segments.duck import FILES
from store.segments.format import SegmentDamaged, SegmentMissing
from store.segments.scans import TURN_MS, Counted, CountQuestion, Found, Question, Row, SegmentFile, bytes_of
from store.segments.slices import Pace, Slice, Walk

_FETCH_BYTES: Final = 128 * 1024 * 1024
_LISTED_ROWS_MAX: Final = 2_000
"""So many places stand in a statement as they are, which the files' reader looks at before it unpacks; more are joined."""
_NOT_THE_FILES: Final = (duckdb.InterruptException, duckdb.OutOfMemoryException, duckdb.PermissionException)
"""Errors that say nothing of what is in the files."""


class _Place(NamedTuple):
    """Where a row that matches lies."""

    position: Position
    path: str
    row: int
    """Its number in the file."""


class ScanCancelled(Exception):
    """Nobody waits for it."""


class ScanGotNowhere(Exception):
    """The budget ended before anything was looked at."""


class Scanner:
    """Scans, one at a time. `is_late` and `is_cancelled` are asked between statements; who sets them interrupts as well."""

    def __init__(self, connection: duckdb.DuckDBPyConnection, clock: Clock) -> None:
        """connection: its own, in UTC or any other zone."""
        self._connection = connection
        self._clock = clock

    def run(
        self,
        question: Question,
        *,
        is_cancelled: Callable[[], bool],
        gives_way: Callable[[], bool],
        got_on: Callable[[], None],
    ) -> Found:
        """gives_way: whether others wait; got_on: called once a slice was looked at; from then on it may be interrupted at the
        end of the budget.

        Raises ScanCancelled; where nothing was looked at before: SegmentDamaged, SegmentMissing, ScanGotNowhere, and
        duckdb.Error for everything else.
        """
        begins_s = self._clock.monotonic_s()
        ends_s = begins_s + question.budget_ms / 1000
        walk = Walk(question.files, question.low, question.high, newest_first=question.newest_first)
        pace = Pace()
        rows: list[Row] = []
        bytes_left = question.bytes_max
        has_got_on = False
        while (piece := walk.next(pace.row_groups)) is not None:
            began_s = self._clock.monotonic_s()
            if is_cancelled():
                raise ScanCancelled
            if has_got_on and began_s >= ends_s:
                break
            try:
                places = self._places(question, piece, question.wanted - len(rows))
                found, bytes_left, is_cut = self._rows(question, piece, places, bytes_left)
            except duckdb.InterruptException:
                if is_cancelled():
                    raise ScanCancelled from None
                if not has_got_on:
                    raise ScanGotNowhere from None
                break
            except (SegmentDamaged, SegmentMissing, duckdb.Error):
                # What was found before it counts; who goes on from there is told.
                if not has_got_on:
                    raise
                break
            rows += found
            if is_cut or len(rows) == question.wanted:
                return Found(question.number, rows, (rows[-1][1], rows[-1][0]))
            walk.done(piece)
            has_got_on = True
            got_on()
            now_s = self._clock.monotonic_s()
            pace.took(piece.row_groups, (now_s - began_s) * 1000, (ends_s - now_s) * 1000)
            if gives_way() and now_s - begins_s >= TURN_MS / 1000 and walk.looked_to is not None:
                return Found(question.number, rows, walk.looked_to, gave_way=True)
        return Found(question.number, rows, walk.looked_to)

    def count(
        self,
        question: CountQuestion,
        *,
        is_cancelled: Callable[[], bool],
        gives_way: Callable[[], bool],
        got_on: Callable[[], None],
    ) -> Counted:
        """As `run`, for numbers of rows: only the columns of the condition, timestamps and levels are read. Raises
        as `run` does."""
        begins_s = self._clock.monotonic_s()
        ends_s = begins_s + question.budget_ms / 1000
        walk = Walk(question.files, question.low, question.high, newest_first=True)
        pace = Pace()
        rows: Counter[tuple[int, int]] = Counter()
        has_got_on = False
        while (piece := walk.next(pace.row_groups)) is not None:
            began_s = self._clock.monotonic_s()
            if is_cancelled():
                raise ScanCancelled
            if has_got_on and began_s >= ends_s:
                break
            try:
                rows.update(self._counted(question, piece))
            except duckdb.InterruptException:
                if is_cancelled():
                    raise ScanCancelled from None
                if not has_got_on:
                    raise ScanGotNowhere from None
                break
            except (SegmentDamaged, SegmentMissing, duckdb.Error):
                if not has_got_on:
                    raise
                break
            walk.done(piece)
            has_got_on = True
            got_on()
            now_s = self._clock.monotonic_s()
            pace.took(piece.row_groups, (now_s - began_s) * 1000, (ends_s - now_s) * 1000)
            if gives_way() and now_s - begins_s >= TURN_MS / 1000 and walk.looked_to is not None:
                return Counted(question.number, _listed(rows), walk.looked_to, gave_way=True)
        return Counted(question.number, _listed(rows), walk.looked_to)

    def _counted(self, question: CountQuestion, piece: Slice) -> dict[tuple[int, int], int]:
        """Of one slice."""
        bounds, params = bounds_of(piece.low, piece.high)
        text = (
            f"SELECT (epoch_us(timestamp) - ?::BIGINT) // ?::BIGINT, level, count(*) FROM (SELECT timestamp, level FROM {FILES}"
            f" WHERE {bounds} AND ({question.where})) GROUP BY ALL"
        )
        grid = [question.base_us, question.width_us]
        found = self._asked(piece.files, text, [*params, *question.params], before=grid)
        return {(question.base_us + number * question.width_us, level): rows for number, level, rows in found}

    def _places(self, question: Question, piece: Slice, wanted: int) -> list[_Place]:
        """Of the slice's first matching rows, in order."""
        bounds, params = bounds_of(piece.low, piece.high)
        order = "timestamp DESC, id DESC" if question.newest_first else "timestamp, id"
        text = (
            f"SELECT epoch_us(timestamp), id, filename, file_row_number FROM {FILES} WHERE {bounds} AND ({question.where})"
            f" ORDER BY {order} LIMIT {wanted:d}"
        )
        found = self._asked(piece.files, text, [*params, *question.params])
        return [_Place((time_us, log_id), path, row) for time_us, log_id, path, row in found]

    def _rows(
        self, question: Question, piece: Slice, places: list[_Place], bytes_left: int
    ) -> tuple[list[Row], int, bool]:
        """The rows at these places, in order, until bytes_left are used up; what is left; whether that cut them."""
        rows: list[Row] = []
        for group in _groups(places, piece.files):
            for row in self._fetched(piece, group, newest_first=question.newest_first):
                rows.append(row)
                bytes_left -= bytes_of(row)
                if bytes_left <= 0:
                    return rows, bytes_left, True
        return rows, bytes_left, False

    def _fetched(self, piece: Slice, places: Sequence[_Place], *, newest_first: bool) -> list[Row]:
        wanted = {place.position for place in places}
        least, most = min(wanted), max(wanted)
        bounds, params = bounds_of((least[0], 0), (most[0] + 1, 0))
        rows: list[Row] = []
        for file in piece.files:
            numbers = [place.row for place in places if place.path == file.path]
            if not numbers:
                continue
            listed = len(numbers) <= _LISTED_ROWS_MAX
            text = (
                f"SELECT id, epoch_us(timestamp), level, service_name, message, correlation_id, metadata FROM {FILES}"
                f" WHERE {bounds} AND file_row_number IN"
                f" ({', '.join(map(str, numbers)) if listed else 'SELECT unnest(?::BIGINT[])'})"
            )
            found = self._asked([file], text, params if listed else [*params, numbers])
            rows += [row for row in found if (row[1], row[0]) in wanted]
        if len(rows) != len(places):
            raise duckdb.InternalException(f"{len(places)} rows were to be fetched, {len(rows)} were found")
        return sorted(rows, key=lambda row: (row[1], row[0]), reverse=newest_first)

    def _asked(
        self, files: Sequence[SegmentFile], text: str, params: Sequence[Any], *, before: Sequence[Any] = ()
    ) -> list[Any]:
        """A statement's rows; its first parameter, but for those `before`, is the files. Any: of the statement's types."""
        if not files:
            return []
        try:
            return self._connection.execute(text, [*before, [file.path for file in files], *params]).fetchall()
        except _NOT_THE_FILES:
            raise
        except duckdb.Error:
            self._blame(files, text, params, before)
            raise

    def _blame(self, files: Sequence[SegmentFile], text: str, params: Sequence[Any], before: Sequence[Any]) -> None:
        """Raise for the file that cannot be read, if it is one: the statement does not say which."""
        for file in files:
            if not Path(file.path).exists():
                raise SegmentMissing(file.name)
        for file in files:
            try:
                self._connection.execute(text, [*before, [file.path], *params]).fetchall()
            except _NOT_THE_FILES:
                raise
            except duckdb.Error as error:
                if self._is_readable(file):
                    continue
                raise SegmentDamaged(file.name, f"{error}".splitlines()[0]) from error

    def _is_readable(self, file: SegmentFile) -> bool:
        """Whether every value of it can be decoded; if so, the condition is what fails."""
        try:
            self._connection.execute(f"SELECT max(hash(COLUMNS(*))) FROM {FILES}", [[file.path]]).fetchall()
        except _NOT_THE_FILES:
            raise
        except duckdb.Error:
            return False
        return True


def _listed(rows: Counter[tuple[int, int]]) -> list[tuple[int, int, int]]:
    return [(start_us, level, count) for (start_us, level), count in rows.items()]


def _groups(places: Sequence[_Place], files: Sequence[SegmentFile]) -> Iterator[list[_Place]]:
    """The places in order, in groups: the row groups that may hold those of one have few bytes together, or it has one."""
    row_groups = [group for file in files for group in file.row_groups]
    if places and sum(group.bytes for group in row_groups) <= _FETCH_BYTES:
        yield list(places)
        return
    group: list[_Place] = []
    held: set[int] = set()
    held_bytes = 0
    for place in places:
        time_us = place.position[0]
        touched = {
            number
            for number, row_group in enumerate(row_groups)
            if row_group.first_us <= time_us <= row_group.last_us and number not in held
        }
        touched_bytes = sum(row_groups[number].bytes for number in touched)
        if group and held_bytes + touched_bytes > _FETCH_BYTES and touched:
            yield group
            group, held, held_bytes = [], set(), 0
        group.append(place)
        held |= touched
        held_bytes += touched_bytes
    if group:
        yield group


def bounds_of(low: Position, high: Position) -> tuple[str, list[Any]]:
    """low <= (timestamp, id) < high; comparisons of the time alone, so that statistics exclude row groups."""
    moment = "make_timestamptz(?::BIGINT)"
    parts, params = [f"timestamp >= {moment}"], [low[0]]
    if low[1] > 0:
        parts.append(f"(timestamp > {moment} OR id >= ?::BIGINT)")
        params += [low[0], low[1]]
    if high[1] > 0:
        parts.append(f"timestamp <= {moment} AND (timestamp < {moment} OR id < ?::BIGINT)")
        params += [high[0], high[0], high[1]]
    else:
        parts.append(f"timestamp < {moment}")
        params.append(high[0])
    return " AND ".join(parts), params
