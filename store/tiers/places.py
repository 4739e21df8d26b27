"""Where the file of a segment lies: in the directory of segments, its filter below that, its object under a key.

Keys tell readers of object storage what is in a file before they open it, as Hive does: class and day are in the path.
"""

from __future__ import annotations

import secrets
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final

from store.objects.keys import check_key
from store.segments.files import fsync_directory
from store.segments.filters import SUFFIX
from store.tiers.segments import Segment

OBJECT_PREFIX: Final = "segments"
"""Of the keys of segments. What else is below it is taken for what a killed process left there."""
MARKER: Final = "INSTALLATION"
"""File in the directory, and key of an object: whose place it is (installation.py)."""
FILE_SUFFIX: Final = ".parquet"
"""Of the names of segments."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Places:
    """Of one directory of segments."""

    def __init__(self, directory: Path) -> None:
        """directory: made by `prepare`, see Installation."""
        self.directory = directory
        self.filters = directory / "filters"
        self.marker = directory / MARKER
        self.strays = directory / "strays"

    def prepare(self) -> None:
        """Make the directories, durably. Raises OSError."""
        for directory in (self.directory, self.filters):
            if not directory.is_dir():
                directory.mkdir(parents=True, exist_ok=True)
                fsync_directory(directory.parent)

    def file_of(self, name: str) -> Path:
        """A segment's file, while it is warm."""
        return self.directory / name

    def filter_of(self, name: str) -> Path:
        """A segment's correlation filter: always here, whatever its tier."""
        return self.filters / f"{name}{SUFFIX}"


def key_of(segment: Segment) -> str:
    """The key of a segment's object."""
    day = (_EPOCH + timedelta(microseconds=segment.start_us)).date().isoformat()
    return check_key(f"{OBJECT_PREFIX}/class={segment.retention_class}/day={day}/{segment.name}")


def name_of(key: str) -> str:
    """The segment whose object has this key."""
    return key.rpartition("/")[2]


def fresh_name(start_us: int) -> str:
    """What the names of a table's, or a day's, new files begin with: never given before."""
    return f"{_EPOCH + timedelta(microseconds=start_us):%Y%m%dT%H%M}-{secrets.token_hex(8)}"
