"""DuckDB as segments are asked with: in memory, bounded, and blind to all files but those in given directories.

No network, no extensions but those inside, no files beside it, no way to lift any of that from a statement.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import Final

import duckdb

FILES: Final = "read_parquet(?, hive_partitioning = false, filename = true, file_row_number = true)"
"""Rows of files, whose paths are the parameter. Columns are what is in the files: left alone, DuckDB takes `level=1` for one
where that is the name of a directory above them. `filename` and `file_row_number` say where a row lies; they cost nothing where
nobody asks for them."""


def connected(directories: Iterable[Path | str], *, memory_mib: int, threads: int) -> duckdb.DuckDBPyConnection:
    """A database of one's own that reads files below these directories. Sessions speak UTC."""
    connection = duckdb.connect(
        config={
            "threads": threads,
            "memory_limit": f"{memory_mib}MiB",
            "temp_directory": "",
            "autoinstall_known_extensions": False,
            "autoload_known_extensions": False,
            "allow_community_extensions": False,
            "python_enable_replacements": False,
        }
    )
    names = ", ".join("'" + str(directory).replace("'", "''") + "'" for directory in directories)
    for setting in (
        "TimeZone = 'UTC'",
        "parquet_metadata_cache = true",
        "enable_progress_bar = false",
        f"allowed_directories = [{names}]",
        "enable_external_access = false",
        "lock_configuration = true",
    ):
        connection.execute(f"SET {setting}")
    return connection
