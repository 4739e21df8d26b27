"""An older version of Logfeed, taken out of the repository's history, and a database as it left it.

`python -m tests.old_program` writes that database into tests/data anew: what 0.1.0 stored and what it had accepted and not
stored yet. It needs the history and the embedded server; tests need neither for reading it.
"""

from __future__ import annotations

import asyncio
import gzip
import io
import json
import subprocess
import tarfile
import tempfile
from pathlib import Path
from typing import Final

from db.embedded import POSTGRES_BIN
from infra.fleet import EMBEDDED, REPOSITORY, Fleet, Role, until
from tests.databases import create_database
from tests.faults.producers import Producers, fetch_all

COMMIT_OF: Final = {"0.1.0": "56d01043f3cdbba1eaccd205a2fed6694144ea7b"}
"""Version -> the commit that its release was made of; no tag names it."""
DATABASE: Final = REPOSITORY / "tests/data/embedded-0.1.0.sql.gz"
"""pg_dump of an embedded database that 0.1.0 filled."""
ABOUT: Final = REPOSITORY / "tests/data/embedded-0.1.0.json"
"""What was sent to it, and the names that settings must repeat."""
_STORED: Final = {"producers": 3, "requests": 8, "logs_per_request": 25}
_UNREAD: Final = {"producers": 2, "requests": 4, "logs_per_request": 10}


def program_of(version: str, directory: Path) -> Path | None:
    """The version's packages below a new directory; None where the history does not reach so far."""
    made = subprocess.run(["git", "archive", COMMIT_OF[version]], cwd=REPOSITORY, capture_output=True)
    if made.returncode != 0:
        return None
    with tarfile.open(fileobj=io.BytesIO(made.stdout)) as archive:
        archive.extractall(directory, filter="data")
    return directory


def old_role(fleet: Fleet, program: Path, name: str, label: str) -> Role:
    """Start a role of an older program, which knows no access control."""
    return fleet.role_of(program, name, label=label, LOGFEED_ACCESS__ENABLED="")


async def _fill(fleet: Fleet, program: Path) -> dict[str, object]:
    producers = Producers(lambda: fleet.url("ingest"))
    old_role(fleet, program, "ingest", "ingest")
    writer = old_role(fleet, program, "write", "write")
    old_role(fleet, program, "query", "query")
    await fleet.ready("ingest", "query")
    await producers.run(**_STORED)
    stored = len(producers.acked)

    async def are_stored() -> bool:
        return len(await fetch_all(fleet.url("query"))) == stored

    await until(are_stored, what="all are stored", timeout_s=300)
    assert await asyncio.to_thread(writer.stop) == 0
    producers.seed = 2
    await producers.run(**_UNREAD)
    for role in fleet.roles:
        if role.alive:
            assert await asyncio.to_thread(role.stop) == 0
    return {
        "commit": COMMIT_OF["0.1.0"],
        "topic": fleet.topic,
        "partitions": fleet.partitions,
        "stored": stored,
        "acknowledged": sorted(producers.acked),
    }


def main() -> None:
    """Write the files."""
    with tempfile.TemporaryDirectory() as place:
        Path(place).chmod(0o711)  # under root the server runs as another account and must pass through
        program = program_of("0.1.0", Path(place) / "program")
        if program is None:
            raise SystemExit("the history does not reach to 0.1.0")
        fleet = Fleet(EMBEDDED, Path(place) / "fleet")
        fleet.directory.chmod(0o711)
        fleet.start_servers()
        try:
            fleet.database_url = create_database(fleet.servers.url)
            migrate_with(program, fleet)
            about = asyncio.run(_fill(fleet, program))
            dump = [str(POSTGRES_BIN / "pg_dump"), "--no-owner", "--dbname", fleet.database_url]
            made = subprocess.run(dump, capture_output=True, check=True)
            DATABASE.write_bytes(gzip.compress(made.stdout, 9, mtime=0))
            ABOUT.write_text(json.dumps(about) + "\n")
        finally:
            print(fleet.failures()[-2000:])
            fleet.stop_everything()
    print(f"{DATABASE}: {DATABASE.stat().st_size} bytes")


def migrate_with(program: Path, fleet: Fleet) -> None:
    """`logfeed db migrate` of an older program."""
    role = Role(["db", "migrate"], fleet.environment(LOGFEED_ACCESS__ENABLED=""), fleet.directory / "db.log", program)
    role.start()
    assert role.process is not None
    assert role.process.wait(120) == 0, role.log_text()


if __name__ == "__main__":
    main()
