"""From which pages a browser may open a WebSocket here: those that this server served, and those that the settings name.

A browser says whose page it acts for (`Origin`), and no script can change that; but it opens WebSockets to anywhere. Programs
that are no browser send no such header.
"""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit


def is_allowed_origin(origin: str | None, host: str | None, allowed: Collection[str]) -> bool:
    """Whether a page of this origin may. origin, host: the headers, None where there is none. allowed: origins beside our own,
    like https://logs.example."""
    if origin is None:
        return True
    if origin.lower() in {each.lower().rstrip("/") for each in allowed}:
        return True
    parts = urlsplit(origin)
    return parts.scheme in ("http", "https") and host is not None and parts.netloc.lower() == host.lower() != ""
