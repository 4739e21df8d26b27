"""The header `traceparent` (W3C Trace Context): passed on as it came, made where none came. Pure but for the system's
randomness."""

from __future__ import annotations

import re
import secrets
from typing import Final

_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-[0-9a-f]{2}(-.*)?")
_CHARS_MAX: Final = 200


def traceparent_of(header: str | None) -> str:
    """What goes on to the next server. A header that is malformed starts a new trace, as the standard has it."""
    if header is not None and len(header) <= _CHARS_MAX and (match := _TRACEPARENT.fullmatch(header)):
        version, trace, parent, more = match.groups()
        is_empty = not trace.strip("0") or not parent.strip("0")
        if version != "ff" and not is_empty and (more is None or (version != "00" and more.isascii())):
            return header
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-00"
