"""What our PostgreSQL servers are set to, wherever we start one: the embedded server, native TimescaleDB, the compose file.

A server of one's own choice works with its defaults too; docs/operating.md says what each setting is for.
"""

from __future__ import annotations

from typing import Final

SERVER_SETTINGS: Final = {
    # Rows arrive by COPY: the open chunk's pages and its one btree stay in memory, and WAL goes out in large writes.
    "shared_buffers": "512MB",
    "wal_buffers": "32MB",
    # A checkpoint makes every page's next change a full page in WAL: seldom is cheaper, and a crash costs seconds more.
    "max_wal_size": "4GB",
    "checkpoint_timeout": "15min",
    # Statements are short and planned anew each time; compiling them costs more than it saves.
    "jit": "off",
    # A query may lock each of some hundred chunks and their indexes.
    "max_locks_per_transaction": "512",
    "max_connections": "200",
    "timezone": "UTC",
}
"""name -> value. Durability (fsync, synchronous_commit, full_page_writes) stays at PostgreSQL's defaults: on."""
