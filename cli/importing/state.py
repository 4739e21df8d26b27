"""What an import remembers: which file, with which options, and what the server has acknowledged.

Pure but for `load` and `save`. The file is written whole beside its place and renamed, so it is always one state or the
next. Lost state costs nothing but time: ranges are sent again under the same keys (in the modes shift and now, a lost state
means a new moment, hence new keys and a second copy).
Growth: bytes that a file has gained since the last run are an extent of their own, with the moment of the run that saw them.
"""

from __future__ import annotations

import bisect
import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import msgspec

from cli.importing.batches import CUT_VERSION, Batch, Region
from cli.importing.sources import Fingerprint
from cli.importing.timeline import TimeMode, Times
from schemas.errors import LogfeedError

STATE_VERSION: Final = 1
OPEN_END: Final = (1 << 63) - 1
"""The end of bytes whose number is not known before they are read (compressed files, standard input)."""


class StateError(LogfeedError):
    """The state file does not fit this import."""


class Options(msgspec.Struct, frozen=True):
    """What the user chose and every body depends on. zone: IANA name, or UTC."""

    service: str | None
    time: TimeMode
    zone: str
    format: str
    join: bool
    correlation_pattern: str | None
    metadata: dict[str, str]


class Extent(msgspec.Struct):
    """Bytes up to `end` (exclusive) were first seen at now_us."""

    end: int
    now_us: int


class Acknowledged(msgspec.Struct):
    """Bytes start..end-1 are with the server. lines, last_us: what comes after them carries on (see Region)."""

    start: int
    end: int
    lines: int
    last_us: int | None


class Counts(msgspec.Struct):
    """Over the whole import, earlier runs included. lines: of the file; the rest counts logs."""

    lines: int = 0
    read: int = 0
    accepted: int = 0
    filtered: int = 0
    rejected: int = 0


class ImportState(msgspec.Struct):
    """The state file. salt: not empty after --restart, so that the import is a new one to the server as well."""

    file: str
    url: str
    fingerprint: Fingerprint
    options: Options
    format: str
    pattern: str | None
    salt: str
    extents: list[Extent]
    shift_us: int = 0
    acknowledged: list[Acknowledged] = []
    counts: Counts = msgspec.field(default_factory=Counts)
    ended_at: int | None = None
    version: int = STATE_VERSION

    def times(self, now_us: int) -> Times:
        """The rule for times in a region of that moment."""
        return Times(self.options.time, now_us, self.shift_us)

    def identity(self, now_us: int) -> bytes:
        """Everything but the range that a body depends on, as a hash. Kept times do not depend on the moment."""
        anchor = {TimeMode.KEEP: 0, TimeMode.SHIFT: self.shift_us, TimeMode.NOW: now_us}[self.options.time]
        parts = (CUT_VERSION, self.fingerprint, self.options, self.format, self.pattern, self.salt, anchor)
        return hashlib.sha256(msgspec.json.encode(parts, order="deterministic")).digest()

    def regions(self) -> list[Region]:
        """What is still to be sent, in order."""
        found: list[Region] = []
        begin = 0
        for extent in self.extents:
            found += self._gaps(begin, extent)
            begin = extent.end
        return found

    def acknowledge(self, batch: Batch) -> None:
        """The server has these bytes. Neighbours merge, so the list stays as short as there are requests in flight."""
        place = bisect.bisect_left(self.acknowledged, batch.start, key=lambda range_: range_.start)
        self.acknowledged.insert(place, Acknowledged(batch.start, batch.end, batch.lines_end, batch.last_us))
        for left in (place, place - 1):
            if (
                0 <= left < len(self.acknowledged) - 1
                and self.acknowledged[left].end == self.acknowledged[left + 1].start
            ):
                right = self.acknowledged.pop(left + 1)
                right.start = self.acknowledged[left].start
                self.acknowledged[left] = right

    def grow(self, size: int, now_us: int) -> None:
        """Bytes beyond the last extent become one of their own. size: of the file now."""
        if size > self.extents[-1].end:
            self.extents.append(Extent(size, now_us))

    def end_stream(self, end: int) -> None:
        """The bytes of an open end are now known to be this many."""
        self.extents[-1].end = self.ended_at = end

    @property
    def done_bytes(self) -> int:
        """Bytes acknowledged."""
        return sum(range_.end - range_.start for range_ in self.acknowledged)

    @property
    def is_finished(self) -> bool:
        """Whether every byte that was seen is acknowledged."""
        return not self.regions()

    def _gaps(self, begin: int, extent: Extent) -> list[Region]:
        gaps: list[Region] = []
        lines, last_us = 0, None
        for range_ in self.acknowledged:
            if range_.start >= extent.end:
                break
            if range_.end <= begin:
                lines, last_us = range_.lines, range_.last_us
                continue
            if range_.start > begin:
                gaps.append(Region(begin, range_.start, lines, last_us, extent.now_us))
            begin, lines, last_us = range_.end, range_.lines, range_.last_us
        if begin < extent.end:
            gaps.append(Region(begin, extent.end, lines, last_us, extent.now_us))
        return gaps


def load(path: Path) -> ImportState | None:
    """The state kept there; None when there is none. Raises StateError when it cannot be read."""
    try:
        state = msgspec.json.decode(path.read_bytes(), type=ImportState)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StateError(f"{path}: cannot be read: {error.strerror}") from error
    except msgspec.MsgspecError as error:
        raise StateError(f"{path}: is no state of an import ({error}); --restart begins anew") from error
    if state.version != STATE_VERSION:
        raise StateError(
            f"{path}: is of version {state.version}, this program reads {STATE_VERSION}; --restart begins anew"
        )
    return state


def save(path: Path, state: ImportState) -> None:
    """Write the state, durably, in one step. Raises StateError."""
    beside = path.with_name(f"{path.name}.{os.getpid()}.new")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with beside.open("wb") as file:
            file.write(msgspec.json.format(msgspec.json.encode(state), indent=1))
            file.flush()
            os.fsync(file.fileno())
        beside.replace(path)
    except OSError as error:
        raise StateError(
            f"{path}: the state cannot be written: {error.strerror}; --state FILE names another place"
        ) from error


def default_path(file: Path, url: str, service: str | None, environment: Mapping[str, str]) -> Path:
    """One file for each (file, server, service) in the user's state directory (XDG base directories)."""
    root = environment.get("XDG_STATE_HOME") or str(
        Path(environment.get("HOME", "~")).expanduser() / ".local" / "state"
    )
    name = hashlib.sha256("\0".join((str(file.resolve()), url, service or "")).encode()).hexdigest()[:16]
    return Path(root) / "logfeed" / "import" / f"{file.name}-{name}.json"
