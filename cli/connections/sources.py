"""What is to be imported: connections named by a manifest, or by the names of files in a directory.

A manifest is JSON lines: `{"connection_id", "username", "ip", "version", "last_updated", "server", "client"}`; a side is a path
(beside the manifest where it is relative), an http(s) or s3 address, or null. Without a manifest `server1001.txt` and
`client1001.txt` are the logs of 1001; who was connected is not known then, and the newest of both files says when.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import orjson

from schemas.errors import InvalidInput

MANIFEST: Final = "manifest.jsonl"
SIDES: Final = ("server", "client")
MANIFEST_BYTES_MAX: Final = 256 * 1024 * 1024
CONNECTIONS_MAX: Final = 1_000_000
_FILE: Final = re.compile(r"(server|client)[-_]?([A-Za-z0-9][A-Za-z0-9._:-]{0,127}?)\.(?:txt|log)")
_FIELDS: Final = ("username", "ip", "version", "last_updated")


@dataclass(frozen=True, slots=True)
class Wanted:
    """One connection to import."""

    connection_id: str
    details: dict[str, str]
    """schemas.connections.ConnectionIn."""
    texts: dict[str, str]
    """Side -> path or address."""


def is_address(text: str) -> bool:
    """Whether it is fetched, not opened."""
    return text.startswith(("http://", "https://", "s3://"))


def find_connections(source: Path) -> list[Wanted]:
    """The connections of a directory or of a manifest. Raises InvalidInput."""
    try:
        if not source.is_dir():
            return list(_of_manifest(source))
        if (source / MANIFEST).is_file():
            return list(_of_manifest(source / MANIFEST))
        found = list(_of_names(source))
    except OSError as error:
        raise InvalidInput(f"{source}: {error.strerror}") from error
    if not found:
        raise InvalidInput(f"{source}: has no {MANIFEST}, and no files such as server1001.txt or client1001.txt")
    return found


def _of_manifest(path: Path) -> Iterator[Wanted]:
    if path.stat().st_size > MANIFEST_BYTES_MAX:
        raise InvalidInput(f"{path}: is larger than {MANIFEST_BYTES_MAX} bytes: split it")
    seen: set[str] = set()
    with path.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                wanted = _of_line(orjson.loads(line), path.parent)
            except (ValueError, InvalidInput) as error:
                raise InvalidInput(f"{path}:{number}: {error}") from error
            if wanted.connection_id in seen:
                raise InvalidInput(f"{path}:{number}: connection {wanted.connection_id} is named twice")
            if len(seen) >= CONNECTIONS_MAX:
                raise InvalidInput(f"{path}: names more than {CONNECTIONS_MAX} connections: split it")
            seen.add(wanted.connection_id)
            yield wanted


def _of_line(entry: Any, directory: Path) -> Wanted:  # JSON
    from schemas.connections import ID_PATTERN, ConnectionIn  # with pydantic: other commands do without

    if not isinstance(entry, dict):
        raise InvalidInput("expected a JSON object")
    connection_id = entry.get("connection_id")
    if isinstance(connection_id, int) and not isinstance(connection_id, bool):
        connection_id = str(connection_id)
    if not isinstance(connection_id, str) or re.fullmatch(ID_PATTERN, connection_id) is None:
        raise InvalidInput(f"connection_id: expected {ID_PATTERN}, got {connection_id!r}")
    details = ConnectionIn.model_validate({name: entry[name] for name in _FIELDS if entry.get(name) is not None})
    texts = {}
    for side in SIDES:
        place = entry.get(side)
        if place is None:
            continue
        if not isinstance(place, str) or not place:
            raise InvalidInput(f"{side}: expected a path, an address or null, got {place!r}")
        texts[side] = place if is_address(place) else str(directory / place)
    return Wanted(connection_id, details.model_dump(), texts)


def _of_names(directory: Path) -> Iterator[Wanted]:
    texts: dict[str, dict[str, str]] = {}
    newest: dict[str, float] = {}
    for path in sorted(directory.iterdir()):
        match = _FILE.fullmatch(path.name)
        if match is None or not path.is_file():
            continue
        side, connection_id = match[1], match[2]
        if side in texts.setdefault(connection_id, {}):
            raise InvalidInput(f"{path}: the {side}'s log of {connection_id} is there twice")
        texts[connection_id][side] = str(path)
        newest[connection_id] = max(newest.get(connection_id, 0.0), path.stat().st_mtime)
    for connection_id, found in texts.items():
        moment = datetime.fromtimestamp(newest[connection_id], UTC).isoformat()
        yield Wanted(connection_id, {"username": "", "ip": "", "version": "", "last_updated": moment}, found)
