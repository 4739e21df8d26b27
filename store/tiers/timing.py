"""What time it is for a step: the earlier of this host's clock and the database's.

Both decide what is past its age, so one clock that stepped forward must not. What cannot be taken back is not done at all
while they disagree, as in the sealer: which of them is right nobody here can say.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from typing import Final

import structlog

from db.database import Database
from runtime.clock import CLOCKS_APART_US_MAX, Clock
from schemas.errors import Overloaded
from store.steps import clock_us
from store.tiers import cold, collecting
from store.tiers.metrics import STEP_FAILURES

log = structlog.get_logger(__name__)

FINAL: Final = frozenset({"expire", cold.STEP, collecting.STEP})
"""Steps that cannot be taken back."""


class ClocksDisagree(Overloaded):
    """The clocks of this host and of the database disagree; nothing is done that cannot be taken back."""


async def now_for(step: str, database: Database, clock: Clock) -> int:
    """The time for a step of this name, in microseconds since 1970. Raises ClocksDisagree, DatabaseUnavailable."""
    async with database.connection() as connection:
        theirs_us = await clock_us(connection)
    own_us = clock.now_us()
    if step in FINAL and abs(own_us - theirs_us) > CLOCKS_APART_US_MAX:
        raise ClocksDisagree(
            f"step {step} refused: this host's clock is {(own_us - theirs_us) / 1e6:+.0f} s from the database's,"
            f" {CLOCKS_APART_US_MAX // 1_000_000} s are tolerated: set the wrong one right"
        )
    return min(own_us, theirs_us)


async def do_all(
    steps: Mapping[str, Callable[[int], Awaitable[int]]], database: Database, clock: Clock
) -> tuple[dict[str, int], int]:
    """Every step once: step -> how many pieces were done; how many steps the clocks kept from being done. Raises as they do,
    DatabaseUnavailable."""
    done, refused = {}, 0
    for name, step in steps.items():
        try:
            now_us = await now_for(name, database, clock)
        except ClocksDisagree as error:
            refused += 1
            STEP_FAILURES.labels(name).inc()
            log.error("not done", step=name, error=str(error))
            continue
        done[name] = await step(now_us)
    return done, refused
