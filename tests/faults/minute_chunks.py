"""`logfeed` whose hour of a chunk is a minute: an outage of minutes then spans ends of chunks at any time of the day.

Arguments and environment are those of `logfeed`.
"""

from __future__ import annotations

from cli.main import main
from store import upkeep

if __name__ == "__main__":
    upkeep._HOUR_US = 60 * 1_000_000  # type: ignore[misc]  # a constant of the program, and another one here
    main()
