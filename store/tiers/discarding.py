"""Removes files that were written and are not wanted after all.

After an error nobody knows whether the catalogue names them: a COMMIT whose client has gone may wait for seconds and succeed
then. Files that are taken away too early are rows that are nowhere; files that stay too long are strays, which go after an hour
(collecting.py). So they go only where it is certain that nothing will ever name them.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import structlog

from store.objects.files import in_thread
from store.segments.writing import WrittenSegment
from store.tiers.catalogue import SegmentCatalogue

log = structlog.get_logger(__name__)


async def discard_unless_recorded(catalogue: SegmentCatalogue, written: Sequence[WrittenSegment]) -> None:
    """After an error of whatever was to record them. Waits up to 10 s for a transaction under way. Raises nothing but
    CancelledError: where there is doubt, the files stay."""
    names = [each.name for each in written]
    try:
        if not {*names} & await catalogue.settled_names():
            await in_thread(discard, written)
    except Exception as error:
        log.warning("new files stay: nobody knows whether they are recorded", files=names, error=str(error))


def discard(written: Iterable[WrittenSegment]) -> None:
    """Remove files that nobody will ever name. Raises OSError."""
    for each in written:
        each.path.unlink(missing_ok=True)
        each.filter_path.unlink(missing_ok=True)
