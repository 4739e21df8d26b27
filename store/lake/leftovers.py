"""Removes metadata that nothing names: of publishers that were killed, of commits that lost, of snapshots that expired.

Only below the table's own directory `metadata`, only what is older than a day (a commit under way has written files that
nothing names yet), and never a file of rows, which are not there.
"""

from __future__ import annotations

import time
from typing import Final

from pyarrow import fs
from pyiceberg.io.pyarrow import PyArrowFileIO
from pyiceberg.table import Table

_AGE_S: Final = 86_400.0


def remove_leftovers(table: Table, *, age_s: float = _AGE_S) -> int:
    """Returns how many files. Raises OSError."""
    io = table.io
    assert isinstance(io, PyArrowFileIO), "the catalog asks for it"
    location = f"{table.location()}/metadata"
    scheme, netloc, path = PyArrowFileIO.parse_location(location, io.properties)
    file_system = io.fs_by_scheme(scheme, netloc)
    before_s = time.time() - age_s
    old = [
        info
        for info in file_system.get_file_info(fs.FileSelector(path, allow_not_found=True))
        if info.type == fs.FileType.File and info.mtime is not None and info.mtime.timestamp() < before_s
    ]
    if not old:
        return 0
    named = {url.rpartition("/")[2] for url in _named(table)}
    leftovers = [info for info in old if info.base_name not in named]
    for info in leftovers:
        file_system.delete_file(info.path)
    return len(leftovers)


def _named(table: Table) -> set[str]:
    """URLs of all metadata that the table's newest metadata leads to."""
    found = {table.metadata_location, *(entry.metadata_file for entry in table.metadata.metadata_log)}
    for snapshot in table.metadata.snapshots:
        found.add(snapshot.manifest_list)
        found |= {manifest.manifest_path for manifest in snapshot.manifests(table.io)}
    # Other engines write statistics there and enter them in a commit of their own.
    found |= {file.statistics_path for file in (*table.metadata.statistics, *table.metadata.partition_statistics)}
    return found
