"""Correlation ids in HTTP headers, both ways: pure.

An id comes from `traceparent` (W3C Trace Context, level 1: its trace id), else from `X-Correlation-ID`, else from
`X-Request-ID`. What strangers send is checked before it is believed: it goes into logs, answers and other services' requests.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

CORRELATION_HEADER: Final = "X-Correlation-ID"
REQUEST_HEADER: Final = "X-Request-ID"
TRACE_HEADER: Final = "traceparent"
STATE_HEADER: Final = "tracestate"
ID_CHARS_MAX: Final = 128
"""Of a correlation id, as Logfeed takes it."""
_STATE_CHARS_MAX: Final = 512

# version-traceid-parentid-flags; a later version may have more after a further dash.
_TRACEPARENT: Final = re.compile(r"([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(-.*)?", re.ASCII)
_TRACE_ID: Final = re.compile(r"(?!0{32})[0-9a-f]{32}", re.ASCII)
_ID: Final = re.compile(rf"[\x21-\x7e]{{1,{ID_CHARS_MAX}}}", re.ASCII)
_STATE: Final = re.compile(rf"[\x20-\x7e]{{1,{_STATE_CHARS_MAX}}}", re.ASCII)

Get = Callable[[str], str | None]
"""Value of a header, by its name in lower case."""


@dataclass(frozen=True, slots=True)
class Incoming:
    """Who asks, as headers say it."""

    correlation_id: str
    flags: str = "01"
    """Of the trace, two hexadecimal digits."""
    state: str | None = None
    """`tracestate`, handed on as it came."""


def new_correlation_id() -> str:
    """32 hexadecimal digits: a trace id of W3C Trace Context too."""
    return secrets.token_hex(16)


def parse_traceparent(text: str | None) -> tuple[str, str] | None:
    """(trace id, flags) of a `traceparent`; None where it is not valid."""
    match = None if text is None else _TRACEPARENT.fullmatch(text.strip(" \t"))
    if match is None:
        return None
    version, trace_id, parent_id, flags, more = match.groups()
    if version == "ff" or (version == "00" and more is not None):
        return None
    if set(trace_id) == {"0"} or set(parent_id) == {"0"}:
        return None
    return trace_id, flags


def parse_id(text: str | None) -> str | None:
    """A correlation id as a header has it; None where it is not 1..128 visible ASCII characters."""
    stripped = None if text is None else text.strip(" \t")
    return stripped if stripped is not None and _ID.fullmatch(stripped) else None


def incoming(get: Get) -> Incoming:
    """Of a request; with an id of its own making where it brings none."""
    trace = parse_traceparent(get(TRACE_HEADER))
    if trace is not None:
        state = get(STATE_HEADER)
        return Incoming(*trace, state if state is not None and _STATE.fullmatch(state) else None)
    found = parse_id(get(CORRELATION_HEADER.lower())) or parse_id(get(REQUEST_HEADER.lower()))
    return Incoming(found or new_correlation_id())


def outgoing(correlation_id: str, *, flags: str = "01", state: str | None = None) -> dict[str, str]:
    """Headers of a request to another service. `traceparent`, with a new parent id, only where the id is a trace id; an id
    that is no header's value (one of the program's own making) goes with none."""
    if not _ID.fullmatch(correlation_id):
        return {}
    headers = {CORRELATION_HEADER: correlation_id}
    if _TRACE_ID.fullmatch(correlation_id):
        headers[TRACE_HEADER] = f"00-{correlation_id}-{secrets.token_hex(8)}-{flags}"
        if state is not None:
            headers[STATE_HEADER] = state
    return headers
