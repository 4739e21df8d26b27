"""What a release applied to databases never changes: they would be refused for ever."""

from __future__ import annotations

import gzip
import re
from pathlib import Path

from db.migrations import Layout, migrations

DATABASE = Path(__file__).resolve().parents[2] / "data/embedded-0.1.0.sql.gz"


def test_what_0_1_0_applied_is_here_as_it_was() -> None:
    dump = gzip.decompress(DATABASE.read_bytes()).decode()
    ((rows),) = re.findall(r"^COPY public\.schema_migrations .*?\n(.*?)^\\\.$", dump, re.MULTILINE | re.DOTALL)
    applied = [row.split("\t") for row in rows.splitlines()]
    known = {migration.version: migration.sha256 for migration in migrations(Layout.NATIVE)}
    assert [int(version) for version, *_ in applied] == [1, 2, 3, 4]
    assert {int(version): sha256 for version, _, _, sha256, _ in applied}.items() <= known.items()
