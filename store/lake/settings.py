"""Settings of the open lake: what the table is called and where its metadata and files are, as other engines see them."""

from __future__ import annotations

import re
from typing import Annotated, Final

from pydantic import AfterValidator, Field

from runtime.settings import Section

_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,62}")
_URL: Final = re.compile(r"(?:s3://[a-z0-9][a-z0-9.-]{1,61}[a-z0-9]|file://(?=/))(?:/[^?#%\s]*)?")


def _is_name(name: str) -> str:
    if not _NAME.fullmatch(name):
        raise ValueError("expected a lower-case letter, then at most 62 of a-z 0-9 _")
    return name


def _is_place(url: str) -> str:
    if not _URL.fullmatch(url):
        raise ValueError("expected s3://bucket/prefix or file:///directory, without spaces and any of ? # %")
    return url.rstrip("/")


Name = Annotated[str, AfterValidator(_is_name)]
Place = Annotated[str, AfterValidator(_is_place)]


class LakeSettings(Section):
    """The segments as a table of Apache Iceberg (`logfeed lake`)."""

    catalog: Name = "lake"
    """Name of the catalog: what other engines must call it, since one database may hold several. Default lake."""

    namespace: Name = "logfeed"
    """Namespace of the table: its database, as some engines say. Default logfeed."""

    table: Name = "logs"
    """Name of the table. Default logs."""

    database_schema: Name = "lake"
    """Schema of PostgreSQL that has the catalog's own tables, so that a role may be allowed these alone. Default lake."""

    warehouse: Place | None = None
    """Where metadata is written: s3://bucket/prefix or file:///directory, the same for all who read. Default: `lake` below
    objects.url where that is set, else beside the directory of segments."""

    segments: Place | None = None
    """Where readers find the directory of segments: file:///directory, when they see it under another path. Default: its own
    path."""

    snapshots_hours: int = Field(default=24, ge=1, le=8_760)
    """Hours that old snapshots are kept, for questions that run while something is published. What one names may be gone: files
    of a retired segment go in minutes. Default 24."""
