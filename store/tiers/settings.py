"""Settings of tiers: how long rows stay where, how long they stay at all, and what moving them may cost."""

from __future__ import annotations

import re
import socket
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import AfterValidator, Field, model_validator

from runtime.settings import Section
from schemas.levels import LEVELS, parse_level

DEFAULT_CLASS: Final = "default"
"""The class of rows that no other one takes."""

_CLASS_NAME: Final = re.compile(r"[a-z0-9_]{1,40}")
_PATTERN: Final = re.compile(r"[A-Za-z0-9._/-]{1,100}\*?|\*")
_CLASSES_MAX: Final = 20


def _host_name() -> str:
    return socket.gethostname() or "tier"


def _is_pattern(pattern: str) -> str:
    if not _PATTERN.fullmatch(pattern):
        raise ValueError("expected the name of a service (letters, digits, . _ - /), or its beginning and *")
    return pattern


def _is_level(name: str) -> str:
    parse_level(name)
    return name


ServicePattern = Annotated[str, AfterValidator(_is_pattern)]
"""Name of a service; with * at its end all that begin so."""
LevelName = Annotated[str, AfterValidator(_is_level)]
Days = Annotated[int, Field(ge=1, le=36_500)]


class RetentionClass(Section):
    """Logs that are kept for a time of their own."""

    name: str
    """Lower-case letters, digits and _, at most 40; stands in the names of files. `default` is that of all other logs."""

    days: Days
    """Days after a log's timestamp until nobody finds it any more."""

    services: Annotated[tuple[ServicePattern, ...], Field(max_length=1_000)] = ()
    """Services of this class: names, or beginnings with * at the end. Default: every service."""

    min_level: LevelName | None = None
    """Least level of this class. Default: no least."""

    max_level: LevelName | None = None
    """Greatest level of this class. Default: no greatest."""

    @model_validator(mode="after")
    def _can_hold_something(self) -> Self:
        if not _CLASS_NAME.fullmatch(self.name):
            raise ValueError(f"name must be 1..40 lower-case letters, digits and _, got {self.name!r:.100}")
        if self.name == DEFAULT_CLASS:
            raise ValueError(
                "the class `default` is that of all logs of no other class: set store.retention_days instead"
            )
        least, greatest = (parse_level(level or name) for level, name in self._levels())
        if least > greatest:
            raise ValueError(f"min_level ({self.min_level}) must not be above max_level ({self.max_level})")
        return self

    def _levels(self) -> tuple[tuple[str | None, str], tuple[str | None, str]]:
        names = list(LEVELS)
        return (self.min_level, names[0]), (self.max_level, names[-1])


class RetentionSettings(Section):
    """How long which logs are kept."""

    classes: Annotated[tuple[RetentionClass, ...], Field(max_length=_CLASSES_MAX)] = ()
    """Classes in the order in which they are tried: a log is of the first one that it matches; one of none is kept for
    store.retention_days. A list of {name, days, services, min_level, max_level}. Other days count for all logs of a class at
    once; what becomes of logs that lie in files when the classes change: docs/operating.md. Default: none."""

    def longest_days(self, default_days: int) -> int:
        """Days past which no log is kept. default_days: store.retention_days."""
        return max(default_days, *(found.days for found in self.classes), 0)

    @model_validator(mode="after")
    def _names_differ(self) -> Self:
        names = [found.name for found in self.classes]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"classes: names must differ, got {', '.join(twice)} more than once")
        return self


class TierSettings(Section):
    """Where rows lie: hot in tables, warm in files on the local disk, cold in object storage."""

    enabled: bool = True
    """Move rows from tables to files. Off: rows stay in tables until they expire, and what lies in files stays
    there until it does."""

    name: str = Field(default_factory=_host_name, min_length=1, max_length=200)
    """Stable name of this process; default: the host's name. One process at a time moves rows; a restart under the same name
    goes on at once, so two processes must never share one."""

    directory: Path | None = None
    """Directory of the files. Every process that moves or reads rows sees the same one. Default: <data_dir>/segments in the
    embedded profile, else none, and the role refuses to start."""

    hot_days: int = Field(default=7, ge=0, le=36_500)
    """Days that rows stay in tables, where single logs are found fastest, counted from the end of their table. 7: what people
    look at most is from this week."""

    hot_days_by_service: dict[ServicePattern, Annotated[int, Field(ge=0, le=36_500)]] = Field(default={})
    """Other hot windows: name of a service, or its beginning with *, to days; the first that matches counts. A table with rows
    of several services stays as long as the longest of theirs says. Default: none."""

    cold_days: int = Field(default=90, ge=1, le=36_500)
    """Days after which a file moves to object storage, where objects.url names one. 90: a quarter is at hand."""

    merge_files_min: int = Field(default=4, ge=0, le=1_000)
    """So many small files of one day and class are made into one. 4: the chunks of a day. 0: never."""

    strays_kept_days: int = Field(default=14, ge=1, le=36_500)
    """Days that files and objects which the database does not know are kept: files in <directory>/strays. 14: time to find
    out that a restored database knows less than there is."""

    disk_free_bytes_min: int = Field(default=1024**3, ge=0)
    """Bytes that stay free on the disk of `directory`: nothing is written, merged or brought back there that would leave less,
    until there is room again. 1 GiB: a database beside it goes on, and there is time to look."""

    busy_share: float = Field(default=0.5, gt=0, le=1)
    """Most of the time that moving rows may be at work, about: after a second of work at 0.5 it rests for one. While writers
    are behind it rests anyway. Reading,
    writing and verifying take about 6 µs a row, so 0.5 keeps up with 80,000 rows a second."""

    round_s: float = Field(default=60.0, ge=0.1, le=3_600)
    """Seconds between two looks at what is due."""

    health_host: str = "127.0.0.1"
    """Address of the listener below."""

    health_port: int = Field(default=0, ge=0, le=65535)
    """TCP port for /livez, /readyz and /metrics of this process; 0: none."""
