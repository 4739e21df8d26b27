"""The log with an id, in segments: a few files at a time, those on the local disk first, then the newest."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Final

from runtime.clock import Clock
from schemas.record import Log
from schemas.scope import ServiceScope
from search.predicate import IdRange, all_of, within
from store.scan_windows import BEYOND, LEAST
from store.segments.format import SegmentReaderUnavailable
from store.tiers.access import SegmentAccess, SegmentsUnreachable
from store.tiers.finding import Segments, Wanted
from store.tiers.segments import Segment, Tier

_FILES: Final = 64
_COLD_FILES: Final = 4
"""Of one step, where files may have to be fetched first."""


async def log_with_id(
    log_id: int,
    segments: Segments,
    access: SegmentAccess | None,
    *,
    allowed: ServiceScope,
    budget_ms: int,
    clock: Clock,
) -> Log | None:
    """The log, or None when no serving segment has it or it is not allowed. access: None where files cannot be read.

    Raises what SegmentAccess.scan does, and Overloaded errors when it was neither found nor ruled out in budget_ms.
    """
    predicate = all_of(IdRange(log_id, log_id), within(allowed))
    wanted = Wanted.of(predicate)
    found = [segment for segment in segments.with_id(log_id) if wanted.may_be_in(segment)]
    if not found:
        return None
    if access is None:
        raise SegmentsUnreachable(
            "the log may lie in files, which this host cannot read: set tiers.directory to where they are"
        )
    ends_s = clock.monotonic_s() + budget_ms / 1000
    for some in _steps(found):
        high = BEYOND
        while True:
            left_ms = (ends_s - clock.monotonic_s()) * 1000
            if left_ms <= 0:
                raise SegmentReaderUnavailable(
                    "the log was not found in time among the files of rows; try again shortly"
                )
            result = await access.scan(
                some,
                predicate,
                low=LEAST,
                high=high,
                newest_first=True,
                wanted=1,
                bytes_max=1,
                budget_ms=max(1, int(left_ms)),
            )
            if result.logs:
                return result.logs[0]
            if result.looked_to is None:
                break
            high = result.looked_to
    return None


def _steps(segments: Sequence[Segment]) -> Iterator[Sequence[Segment]]:
    """In their order, warm ones first."""
    warm = sum(segment.tier is Tier.WARM for segment in segments)
    for start in range(0, warm, _FILES):
        yield segments[start : min(start + _FILES, warm)]
    for start in range(warm, len(segments), _COLD_FILES):
        yield segments[start : start + _COLD_FILES]
