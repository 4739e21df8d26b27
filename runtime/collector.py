"""The cyclic garbage collector of a long-running role.

Logs and rows are freed by reference counts; looking for cycles among them found none and cost a third of ingest's CPU time
at 700 allocations a look (the default) and a seventh of a writer's. Cycles that do arise (errors with their tracebacks,
tasks) wait until 50,000 objects have been made since the last look: some 10 MiB. Importing makes objects that stay:
looking at them was a tenth of a role's start.
"""

from __future__ import annotations

import gc
from typing import Final

_ALLOCATIONS: Final = 50_000
_YOUNG_LOOKS: Final = 20
_OLD_LOOKS: Final = 50


def look_seldom() -> None:
    """Call first, before most is imported."""
    gc.set_threshold(_ALLOCATIONS, _YOUNG_LOOKS, _OLD_LOOKS)


def keep_what_exists() -> None:
    """Call once, when everything is imported: what exists by then is never looked at again."""
    gc.collect()
    gc.freeze()
