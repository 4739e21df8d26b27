"""Clients from npm, as their lock has them, in a cache directory of this machine: installed at the first need, and whenever the
lock changes. Where Node.js or the registry is missing the tests that need them fail."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path

_INSTALL_S_MAX = 300


def installed(directory: Path) -> Path:
    """A copy of the directory (package.json, its lock, scripts) with its packages beside it."""
    files = sorted(path for path in directory.iterdir() if path.is_file())
    digest = hashlib.sha256()
    for path in files:
        digest.update(path.name.encode() + b"\0" + path.read_bytes() + b"\0")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "logfeed" / "shippers"
    place = cache / f"{directory.name}-{digest.hexdigest()[:16]}"
    cache.mkdir(parents=True, exist_ok=True)
    with (cache / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)  # workers come at the same time
        if not (place / ".installed").exists():
            shutil.rmtree(place, ignore_errors=True)
            place.mkdir()
            for path in files:
                shutil.copy(path, place)
            done = subprocess.run(
                ["npm", "ci", "--ignore-scripts", "--silent"],
                cwd=place,
                capture_output=True,
                text=True,
                timeout=_INSTALL_S_MAX,
                check=False,
            )
            assert done.returncode == 0, f"npm ci of {directory.name}: {done.stdout}{done.stderr}"
            (place / ".installed").touch()
    return place
