"""Settings of our own logs, the same for every role."""

from __future__ import annotations

from typing import Literal

from runtime.settings import Section


class LogSettings(Section):
    """Logfeed's own logs, written to standard error."""

    level: Literal["debug", "info", "warning", "error"] = "info"
    """Least level that is written."""

    json_lines: bool | None = None
    """JSON lines (true), coloured text (false), or by whether standard error is a terminal (empty)."""
