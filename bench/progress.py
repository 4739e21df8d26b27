"""What the benchmark is doing, on standard error: figures alone go to standard output."""

from __future__ import annotations

import sys
import time

_began_s = time.monotonic()


def progress(text: str) -> None:
    """One line, with the time since the start."""
    minutes, seconds = divmod(int(time.monotonic() - _began_s), 60)
    print(f"[{minutes:02}:{seconds:02}] {text}", file=sys.stderr, flush=True)
