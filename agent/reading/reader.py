"""One answer: the newest lines that are meant, newest first, or the file as it grows. A generator of pieces, taken one
at a time.

Each step reads at most one block, so that whoever takes the steps can look at clocks and at who listens in between; a step that
found nothing gives b"". The last piece is the closing record, whatever happened: errors in the middle are told there.

Memory: a block, its lines, and for what must be turned around (compressed files go forward only; following begins with the
last lines in the file's order) RING_BYTES_MAX of lines.
"""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

from agent.errors import NoSuchFile, QuestionInvalid, ReadFailed
from agent.reading.blocks import LINE_BYTES_MAX, Block, PlainStream, backwards, forwards, open_stream, packing_of
from agent.reading.matching import Conditions, GroupMatcher, Line, LineMatcher
from agent.reading.records import End, Form, Status, write_end, write_lines
from agent.roots import Root

LINES_MAX: Final = 1_000_000
RING_BYTES_MAX: Final = 8 * 1024 * 1024
_PIECE_BYTES: Final = 128 * 1024
_LINE_COST_BYTES: Final = 150
"""Of a held line beside its text."""


@dataclass(frozen=True, slots=True)
class Question:
    """What is asked of a file. lines: at most; of a followed one, those that are there at the beginning."""

    conditions: Conditions = field(default_factory=Conditions)
    lines: int = 100
    follow: bool = False
    form: Form = Form.NDJSON


class FileReader:
    """Answers one question. One thread at a time takes steps; `close` at the end."""

    def __init__(self, root: Root, name: str, question: Question) -> None:
        """name: below the root. Raises NoSuchFile, QuestionInvalid, OSError."""
        self._root, self._name, self._question = root, name, question
        self._matcher(is_backward=True)  # refuses before the file is opened
        self._descriptor = root.open(name)
        try:
            self._packing = packing_of(self._descriptor)
            if self._packing is not None and question.follow:
                raise QuestionInvalid("follow", "nothing is written to a compressed file: ask without follow")
            # What is written once the answer has begun is among the lines that come, whenever the first step is taken.
            self._size = os.fstat(self._descriptor).st_size
        except BaseException:
            self.close()
            raise
        self.lines = self.scanned_bytes = 0
        self.is_idle = False
        """Of a followed file: it had nothing new at the last step."""
        self._is_short = False
        """Not as many lines could be held as were asked for."""
        self._steps = self._run()

    def step(self) -> bytes | None:
        """The next piece; None at the end."""
        return next(self._steps, None)

    def end(self, status: Status, error: str | None = None) -> bytes:
        """The closing record, for whoever ends it before its time."""
        return write_end(End(status, self.lines, self.scanned_bytes, error), self._question.form)

    def close(self) -> None:
        """Close the file. Idempotent."""
        if self._descriptor >= 0:
            os.close(self._descriptor)
            self._descriptor = -1

    def _run(self) -> Iterator[bytes]:
        try:
            if self._question.follow:
                yield from self._follow()
            elif self._packing is None:
                yield from self._newest_first()
            else:
                yield from self._forward()
            status, error = self._ended(), None
        except ReadFailed as failure:
            status, error = Status.ERROR, str(failure)
        except OSError as failure:
            status, error = Status.ERROR, f"the file cannot be read on: {os.strerror(failure.errno or 0)}"
        yield self.end(status, error)

    def _ended(self) -> Status:
        return Status.LIMIT if self.lines >= self._question.lines or self._is_short else Status.COMPLETE

    def _matcher(self, *, is_backward: bool) -> LineMatcher | GroupMatcher:
        conditions = self._question.conditions
        return GroupMatcher(conditions, is_backward=is_backward) if conditions.across_lines else LineMatcher(conditions)

    def _newest_first(self) -> Iterator[bytes]:
        for found in self._found_backwards(self._size):
            yield from self._written(found)
            if self.lines >= self._question.lines:
                return

    def _found_backwards(self, size: int) -> Iterator[list[Line]]:
        """Meant lines of each block, newest first."""
        matcher = self._matcher(is_backward=True)
        for block in backwards(self._descriptor, size):
            self.scanned_bytes = size - block.start
            found = matcher.find(block)
            found.reverse()
            yield found
        if isinstance(matcher, GroupMatcher):
            yield matcher.rest()[::-1]

    def _forward(self) -> Iterator[bytes]:
        ring = _Ring(self._question.lines)
        matcher = self._matcher(is_backward=False)
        failure: ReadFailed | None = None
        try:
            for block in forwards(open_stream(self._descriptor, self._packing)):
                self.scanned_bytes = block.start + len(block.text)
                for line in matcher.find(block):
                    ring.add(line)
                yield b""
        except ReadFailed as error:  # what came before it is told first
            failure = error
        if isinstance(matcher, GroupMatcher):
            for line in matcher.rest():
                ring.add(line)
        yield from self._written(ring.newest_first())
        self._is_short = ring.is_short
        if failure is not None:
            raise failure

    def _follow(self) -> Iterator[bytes]:
        ring = _Ring(self._question.lines)
        end = self._last_line_end(self._size)
        for found in self._found_backwards(end) if self._question.lines else ():
            for line in found:
                if not ring.add_older(line):
                    break
            yield b""
            if ring.is_full:
                break
        yield from self._written(ring.oldest_first(), are_counted=False)
        matcher = self._matcher(is_backward=False)
        position = end
        while True:
            stream = PlainStream(self._descriptor, position)
            for block in forwards(stream, start=position):
                whole = block if block.text.endswith(b"\n") or block.is_cut else Block(block.start, b"")
                self.scanned_bytes += len(whole.text)
                position = stream.offset if block.is_cut else block.start + len(whole.text)
                yield from self._written(matcher.find(whole), are_counted=False)
            if isinstance(matcher, GroupMatcher):
                yield from self._written(matcher.rest(), are_counted=False)
            following = self._following(position)
            if following is not None:
                # The last line of a file that nobody writes to any more may lack its end.
                tail = os.pread(self._descriptor, LINE_BYTES_MAX, position) if following.is_another else b""
                yield from self._written(matcher.find(Block(position, tail)), are_counted=False)
                if following.is_another:
                    self.close()
                    self._descriptor = following.descriptor
                position, matcher = 0, self._matcher(is_backward=False)
            self.is_idle = True
            yield b""
            self.is_idle = False

    def _last_line_end(self, size: int) -> int:
        """Where the last whole line ends: one that is still being written is told when it is whole."""
        for block in backwards(self._descriptor, size):
            if (end := block.text.rfind(b"\n") + 1) or block.start == 0:
                return block.start + end
        return 0

    def _following(self, position: int) -> _Following | None:
        """What is to be read from its beginning next: this file when it was truncated, or another that has its name now,
        once this one has no whole line left. None: read on."""
        ours = os.fstat(self._descriptor)
        if ours.st_size < position:
            return _Following(self._descriptor, is_another=False)
        if ours.st_size > position and b"\n" in os.pread(self._descriptor, LINE_BYTES_MAX, position):
            return None
        try:
            found = self._root.open(self._name)
        except NoSuchFile:
            return None
        theirs = os.fstat(found)
        if (theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino):
            return _Following(found, is_another=True)
        os.close(found)
        return None

    def _written(self, lines: list[Line], *, are_counted: bool = True) -> Iterator[bytes]:
        if are_counted:
            lines = lines[: self._question.lines - self.lines]
        piece: list[Line] = []
        size = 0
        for line in lines:
            piece.append(line)
            size += len(line.raw) + _LINE_COST_BYTES
            if size > _PIECE_BYTES:
                yield self._piece(piece)
                piece, size = [], 0
        yield self._piece(piece)

    def _piece(self, lines: list[Line]) -> bytes:
        self.lines += len(lines)
        return write_lines(lines, self._question.form)


class _Following(NamedTuple):
    descriptor: int
    is_another: bool


class _Ring:
    """The newest lines, by number and by bytes."""

    def __init__(self, lines_max: int) -> None:
        self._lines: deque[Line] = deque()
        self._lines_max, self._bytes = lines_max, 0
        self.is_short = False
        """Lines were left out for their bytes."""

    @property
    def is_full(self) -> bool:
        """Nothing older fits."""
        return len(self._lines) >= self._lines_max or self._bytes > RING_BYTES_MAX

    def add(self, line: Line) -> None:
        """One that is newer than all."""
        self._lines.append(line)
        self._bytes += len(line.raw) + _LINE_COST_BYTES
        while len(self._lines) > self._lines_max:
            self._drop()
        while self._bytes > RING_BYTES_MAX and len(self._lines) > 1:
            self.is_short = True
            self._drop()

    def add_older(self, line: Line) -> bool:
        """One that is older than all; False when it does not fit."""
        if self.is_full:
            return False
        self._lines.appendleft(line)
        self._bytes += len(line.raw) + _LINE_COST_BYTES
        return True

    def newest_first(self) -> list[Line]:
        """All."""
        return list(reversed(self._lines))

    def oldest_first(self) -> list[Line]:
        """All."""
        return list(self._lines)

    def _drop(self) -> None:
        self._bytes -= len(self._lines.popleft().raw) + _LINE_COST_BYTES
