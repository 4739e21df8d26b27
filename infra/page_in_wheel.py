"""Puts the web page into the wheel: hatchling runs this at each build.

Where npm is, the page is built from its locked sources first; where it is not, a page that was built before is taken, and
without one the wheel is built all the same: then the page's place says what is missing. An editable install takes nothing,
since it serves web/dist itself.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from hatchling.builders.hooks.plugin.interface import BuildHookInterface


class PageInWheel(BuildHookInterface):  # type: ignore[type-arg]  # its configuration is none of ours
    """See hatchling."""

    def initialize(self, version: str, build_data: dict[str, Any]) -> None:
        """version: `standard` or `editable`."""
        if version == "editable":
            return
        web = Path(self.root) / "web"
        npm = shutil.which("npm")
        if npm is not None and (web / "package.json").is_file():
            for arguments in (("ci", "--ignore-scripts"), ("run", "build")):
                done = subprocess.run([npm, *arguments], cwd=web, capture_output=True, text=True)
                if done.returncode != 0:
                    reason = done.stderr.strip()[-2_000:]
                    print(f"the page was not built: npm {arguments[0]} failed\n{reason}", file=sys.stderr)
                    break
        if (web / "dist" / "index.html").is_file():
            build_data["force_include"]["web/dist"] = "cli/page_files"
