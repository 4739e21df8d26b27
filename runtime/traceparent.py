"""The header `traceparent` (W3C Trace Context): read, passed on as it came, made where none came. Pure but for the system's
randomness."""

from __future__ import annotations

import re
import secrets
from typing import Final

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?")
_CHARS_MAX: Final = 200


def read_traceparent(header: str | None) -> tuple[str, str, int] | None:
    """(trace id, id of the span above, flags; 1: it is kept); None for a header that is malformed."""
    if header is None or len(header) > _CHARS_MAX or (match := _TRACEPARENT.fullmatch(header)) is None:
        return None
    version, trace, parent, flags, more = match.groups()
    is_empty = not trace.strip("0") or not parent.strip("0")
    if version == "ff" or is_empty or not (more is None or (version != "00" and more.isascii())):
        return None
    return trace, parent, int(flags, 16)


def traceparent_of(header: str | None) -> str:
    """What goes on to the next server. A header that is malformed starts a new trace, as the standard has it."""
    if header is not None and read_traceparent(header) is not None:
        return header
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"
