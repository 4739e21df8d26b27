"""Reads every file and object again, whole, and says which are not what was written.

Needs no lease and changes nothing. One file at a time, with rests as tiering has (pace.py); an object comes to the local disk
for as long as it is read.
"""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from typing import NamedTuple

from db.database import Database
from schemas.errors import LogfeedError
from store.objects.files import in_thread
from store.segments.filters import FilterUnreadable, verify_filter
from store.segments.verification import verify
from store.tiers.cold import ObjectFiles
from store.tiers.pace import Pace
from store.tiers.places import Places
from store.tiers.segments import SEGMENTS, Segment, Tier, segments_of


class Verdict(NamedTuple):
    """On one segment."""

    segment: Segment
    problem: str | None
    """What is wrong with it; None: all its rows are as they were written."""
    filter_problem: str | None
    """What is wrong with its correlation filter: nothing is lost, but every search by correlation id reads the segment."""


async def segments_to_verify(database: Database) -> list[Segment]:
    """Every segment that anybody may still ask, by time. Raises DatabaseUnavailable."""
    return [*segments_of(await database.fetch_all(SEGMENTS.format("state <> 'retired'")))]


async def verified(
    segments: list[Segment], places: Places, objects: ObjectFiles | None, pace: Pace
) -> AsyncIterator[Verdict]:
    """A verdict on each, in order, with rests between them. A disk or storage that does not answer is a problem of the segment,
    too. Raises DatabaseUnavailable."""
    for segment in segments:
        began_s = time.monotonic()
        verdict = Verdict(segment, await _problem(segment, places, objects), await _filter_problem(segment, places))
        yield verdict
        await pace.rest(time.monotonic() - began_s)


async def _problem(segment: Segment, places: Places, objects: ObjectFiles | None) -> str | None:
    try:
        if segment.tier is Tier.WARM:
            await in_thread(verify, places.file_of(segment.name), segment.info)
        elif objects is None:
            return "it is cold, and objects.url names no storage"
        else:
            await objects.check(segment, every_value=True)
    except (LogfeedError, OSError) as error:
        return str(error)
    return None


async def _filter_problem(segment: Segment, places: Places) -> str | None:
    try:
        await in_thread(verify_filter, places.filter_of(segment.name))
    except (FilterUnreadable, OSError) as error:
        return str(error)
    return None
