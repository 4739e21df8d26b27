"""The import of one file: batches out of a reading thread, a few tasks that send them, the state after each answer.

Tasks share nothing but the reading thread and the state, which only the event loop touches. In flight: one batch a task, plus
the one being made. The state is written after answers, at most every half second, and always before `run` returns or raises;
what was answered but not yet written is sent again by a resume, under the same key.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple, TextIO

import orjson

from cli.importing.batches import Batch, Rules, cut, key_of, logs_of
from cli.importing.prepare import Job, parser_of
from cli.importing.progress import Screen
from cli.importing.reading import BackgroundIterator
from cli.importing.sending import Outcome, Sender
from cli.importing.sources import Kind, SourceError
from cli.importing.state import OPEN_END, save
from runtime.clock import Clock

_SAVE_EVERY_S: Final = 0.5
_SHOWN_MAX: Final = 20


class _Piece(NamedTuple):
    batch: Batch
    key: str
    disk_position: int


class Rejects:
    """Where rejected logs are named: the first twenty to the screen, those the server names to a file."""

    def __init__(self, screen: Screen, path: Path | None) -> None:
        """path: appended to, one JSON object a log. Raises SourceError."""
        self._screen, self._shown = screen, 0
        self._file: TextIO | None = None
        if path is not None:
            try:
                self._file = path.open("a", encoding="utf-8")
            except OSError as error:
                raise SourceError(f"--rejects {path}: {error.strerror}") from error

    def add(self, name: str, batch: Batch, outcome: Outcome) -> None:
        """Name a batch's rejected logs by line."""
        if not outcome.rejected:
            return
        logs = logs_of(batch) if self._file else []
        for place, error in outcome.rejections:
            line = batch.lines[place] if 0 <= place < len(batch.lines) else 0
            self._show(f"{name}:{line}: rejected: {error}")
            if self._file and 0 <= place < len(logs):
                self._write({"file": name, "line": line, "error": error, "log": orjson.loads(logs[place])})
        if unnamed := outcome.rejected - len(outcome.rejections):
            lines = f"{batch.lines[0]}..{batch.lines[-1]}"
            self._show(f"{name}: rejected: {unnamed:,} more in lines {lines} that the server does not name one by one")
            if self._file:
                self._write(
                    {"file": name, "lines": lines, "error": f"{unnamed} more rejected, not named by the server"}
                )

    def close(self) -> None:
        """Close the file."""
        if self._file:
            self._file.close()

    def _show(self, text: str) -> None:
        self._shown += 1
        if self._shown <= _SHOWN_MAX:
            self._screen.warn(text)
        elif self._shown == _SHOWN_MAX + 1:
            self._screen.warn("further rejections are not shown here" + (" but are in the file" if self._file else ""))

    def _write(self, entry: dict[str, object]) -> None:
        assert self._file is not None
        self._file.write(orjson.dumps(entry).decode() + "\n")


class FileImport:
    """One file on its way to the server."""

    def __init__(
        self, job: Job, *, sender: Sender, screen: Screen, rejects: Rejects, clock: Clock, parallel: int
    ) -> None:
        """parallel: requests in flight."""
        self._job, self._state = job, job.state
        self._sender, self._rejects, self._clock = sender, rejects, clock
        self._parallel = parallel
        self._regions = job.state.regions()
        self._stream_end: int | None = None
        self._saved_s = clock.monotonic_s()
        self._begun_s, self._lines_at_begin = self._saved_s, job.state.counts.lines
        is_file = job.source.kind is Kind.FILE
        self._position = job.state.done_bytes if is_file else 0
        self._bar = screen.bar(job.source.name, total=job.source.size or None, done=self._position)

    async def run(self) -> None:
        """Send what the state says is left. Raises Unreachable, Refused, SourceError or StateError; the state is kept."""
        self._save()
        batches = BackgroundIterator(self._read)
        tasks = [asyncio.create_task(self._work(batches)) for _ in range(self._parallel)]
        try:
            done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_EXCEPTION)
            for task in done:
                task.result()
            if self._stream_end is not None:
                self._state.end_stream(self._stream_end)
        finally:
            batches.close()
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            self._save()
            self._bar.close()
        if not self._state.is_finished:
            raise SourceError(f"{self._job.source.name}: became shorter while it was read")

    def _read(self) -> Iterator[_Piece]:
        """Runs in the reading thread; looks only at what does not change meanwhile, and at regions taken at its start."""
        source, state = self._job.source, self._state
        rules = Rules(state.options.service, state.options.metadata, state.options.join)
        reader = source.open()
        try:
            last: Batch | None = None
            for region in self._regions:
                if last is not None and last.end == region.start:
                    region = region._replace(lines_before=last.lines_end, last_us=last.last_us)
                reader.go_to(region.start)
                parser, identity = parser_of(state, region.now_us), state.identity(region.now_us)
                for last in cut(reader, region, parser=parser, times=state.times(region.now_us), rules=rules):
                    yield _Piece(last, key_of(identity, last), reader.disk_position())
                if region.end == OPEN_END:
                    self._stream_end = reader.offset
        finally:
            reader.close()

    async def _work(self, batches: BackgroundIterator[_Piece]) -> None:
        while (piece := await batches.next()) is not None:
            outcome = await self._sender.send(piece.batch, piece.key)
            self._book(piece, outcome)

    def _book(self, piece: _Piece, outcome: Outcome) -> None:
        batch, counts = piece.batch, self._state.counts
        self._rejects.add(self._job.source.name, batch, outcome)
        self._state.acknowledge(batch)
        counts.lines += batch.lines_end - batch.lines_before
        counts.read += len(batch.lines)
        counts.accepted += outcome.accepted
        counts.filtered += outcome.filtered
        counts.rejected += outcome.rejected
        now_s = self._clock.monotonic_s()
        is_file = self._job.source.kind is Kind.FILE
        self._position = self._state.done_bytes if is_file else max(self._position, piece.disk_position)
        rate = (counts.lines - self._lines_at_begin) / max(now_s - self._begun_s, 0.001)
        self._bar.show(done=self._position, lines=f"{rate:,.0f} lines/s")
        if now_s - self._saved_s >= _SAVE_EVERY_S:
            self._save()

    def _save(self) -> None:
        if self._job.state_path is not None:
            save(self._job.state_path, self._state)
        self._saved_s = self._clock.monotonic_s()
