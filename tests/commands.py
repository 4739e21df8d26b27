"""`logfeed` as people type it, in a process of its own that need not import first (infra/warm.py).

What a start itself promises, and what a fresh interpreter imports, is tested with `python -m cli.main` instead.
"""

from __future__ import annotations

import os
import subprocess

from infra import warm


def logfeed(*arguments: str, stdin: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
    """Run it to its end, on a wide terminal. environment: all the settings there are, and what else it is to see."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LOGFEED_")}
    return warm.run(*arguments, environment={**clean, "COLUMNS": "200", **environment}, stdin=stdin)
