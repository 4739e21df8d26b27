"""One log as the line that Logfeed takes: pure. See docs/sending.md of Logfeed for the record.

A line is put together from texts that are JSON already: those of a program, of a request and of a logger were made once.
"""

from __future__ import annotations

from typing import Final

from logfeed_client.context import current, id_text
from logfeed_client.fields import quote

MESSAGE_CHARS_MAX: Final = 256 * 1024
"""Of a message; Logfeed cuts at 256 KiB and says so."""
STACK_CHARS_MAX: Final = 8 * 1024
"""Of a stack: its end, where the error is."""


def head_of(service_name: str) -> str:
    """The begin of each line of a service."""
    return f'{{"service_name":{quote(service_name)},"timestamp":'


def line_of(
    head: str, created_us: int, level: str, message: str, fields: str, correlation_id: object | None = None
) -> bytes:
    """head: of `head_of`. created_us: microseconds since 1970. level: a name that needs no quoting. fields: a fragment, not
    empty, besides those that are bound. correlation_id: None is that of the context."""
    context = current()
    found = context.id_text if correlation_id is None else id_text(str(correlation_id))
    if len(message) > MESSAGE_CHARS_MAX:
        message = message[:MESSAGE_CHARS_MAX]
    return (
        f'{head}{created_us},"level":"{level}","message":{quote(message)},{found}"metadata":{{{context.bound}{fields}}}}}\n'
    ).encode("utf-8", "replace")  # half a surrogate pair is no UTF-8


def end_of(stack: str) -> str:
    """A stack's last lines, as many as are kept."""
    return stack if len(stack) <= STACK_CHARS_MAX else f"…{stack[-STACK_CHARS_MAX:]}"
