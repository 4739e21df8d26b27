"""The floor: one connection copying ready-made binary blocks into the same kind of table with only (timestamp, id)."""

from __future__ import annotations

import asyncio
import struct
import time

import msgspec

from db.database import Connection, connect
from schemas.record import LogLine
from store.rows import encode_row

_HEADER = b"PGCOPY\n\xff\r\n\0" + struct.pack("!ii", 0, 0)
_TRAILER = struct.pack("!h", -1)
_BLOCK_ROWS = 5_000


def _blocks(bodies: list[bytes]) -> list[bytes]:
    now_us = time.time_ns() // 1000
    rows: list[bytes] = []
    for body in bodies:
        for line in body.splitlines():
            log = msgspec.json.decode(line)
            rows.append(
                encode_row(
                    LogLine(
                        id=len(rows) + 1,
                        timestamp=now_us + len(rows),
                        level=9,
                        service_name=log["service_name"],
                        message=log["message"],
                        correlation_id=log["correlation_id"],
                        metadata=msgspec.Raw(msgspec.json.encode(log["metadata"])),
                    )
                ).copy_bytes
            )
    return [b"".join(rows[start : start + _BLOCK_ROWS]) for start in range(0, len(rows), _BLOCK_ROWS)]


async def _copy(connection: Connection, blocks: list[bytes]) -> None:
    for block in blocks:
        async with connection.cursor() as cursor, cursor.copy("COPY floor FROM STDIN (FORMAT binary)") as copy:
            await copy.write(_HEADER + block + _TRAILER)


async def _measure(url: str, bodies: list[bytes]) -> float:
    blocks = _blocks(bodies)
    rows = sum(len(body.splitlines()) for body in bodies)
    async with await connect(url, application_name="bench floor") as connection:
        await connection.execute("CREATE TABLE floor (LIKE logs)")
        await connection.execute("CREATE INDEX ON floor (timestamp, id)")
        await _copy(connection, blocks[:2])
        began_s = time.monotonic()
        await _copy(connection, blocks)
        took_s = time.monotonic() - began_s
        await connection.execute("DROP TABLE floor")
    return rows / took_s


def rows_per_second(url: str, bodies: list[bytes]) -> float:
    """Rows a second of the floor on this database, in this run."""
    return asyncio.run(_measure(url, bodies))
