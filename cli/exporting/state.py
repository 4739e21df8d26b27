"""How far an export came: kept beside the unfinished file, so that the same command goes on after an interruption.

`FILE.tmp` is the file until it is whole; `FILE.resume` says how many of its bytes are settled, and behind which page. What
lies behind these bytes is cut off when the export goes on. The walk is the one that was begun: its cursor keeps the times and
the snapshot of the first page, so that the file is what it would have been without the interruption.
"""

from __future__ import annotations

from pathlib import Path
from typing import Final

import msgspec

from cli.exporting.output import Compression, Format
from cli.pages import Parameters
from schemas.errors import InvalidInput
from store.segments.files import unfinished_path, written_whole

SUFFIX: Final = ".resume"


class ExportState(msgspec.Struct):
    """What the file holds."""

    url: str
    parameters: Parameters
    format: Format
    compression: Compression
    cursor: str | None = None
    """Of the next page; None: of the first."""
    bytes: int = 0
    logs: int = 0
    first: str | None = None
    """Timestamp of the first log."""
    reached: str | None = None
    """Timestamp of the last log."""

    def is_of(self, other: ExportState) -> bool:
        """Whether both were asked for in the same words."""
        return (self.url, self.parameters, self.format, self.compression) == (
            other.url,
            other.parameters,
            other.format,
            other.compression,
        )


def state_path(path: Path) -> Path:
    """Where the state of an export into this file is."""
    return path.with_name(path.name + SUFFIX)


def load(path: Path, asked: ExportState) -> ExportState | None:
    """The state to go on from; None when there is none. Raises InvalidInput for one of another export, OSError."""
    place = state_path(path)
    try:
        found = msgspec.json.decode(place.read_bytes(), type=ExportState)
        has_file = unfinished_path(path).stat().st_size >= found.bytes
    except FileNotFoundError:
        return None
    except msgspec.MsgspecError as error:
        raise InvalidInput(f"{place}: is no state of an export ({error}); --restart begins anew") from error
    if not has_file:
        return None
    if not found.is_of(asked):
        raise InvalidInput(
            f"{path}: an export that was begun into it asked in other words ({place});"
            " repeat that command to go on, or begin anew with --restart"
        )
    return found


def save(path: Path, state: ExportState) -> None:
    """Durably, in one step. Raises OSError."""
    with written_whole(state_path(path)) as file:
        file.write(msgspec.json.encode(state))


def forget(path: Path) -> None:
    """Raises OSError."""
    state_path(path).unlink(missing_ok=True)
