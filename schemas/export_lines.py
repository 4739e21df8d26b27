"""Logs as text for people who take them elsewhere: NDJSON as the API writes them, or CSV (RFC 4180). Pure.

Both have the same fields in the same order, `COLUMNS`. A CSV is opened in spreadsheets, which take a field that begins with
`=`, `+`, `-`, `@` or white space of control for a formula, and anybody may send a log: such a field gets a `'` before it.
Whoever needs the exact text exports NDJSON or Parquet. In CSV a missing correlation id is an empty field, metadata is JSON
text, records end with CRLF, and a field is quoted where it has a comma, a quote or a line end; quotes in it are doubled.
"""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Sequence
from typing import Final

import msgspec

from schemas.ids import received_ms
from schemas.levels import level_name
from schemas.record import Log
from schemas.times import time_text


class PageLog(msgspec.Struct, gc=False):
    """A log as the API writes it (schemas/pages.py, LogModel), in the API's order. Metadata stays the text that the server
    sent, with numbers of any size.
    """

    id: str
    timestamp: str
    received_at: str
    level: str
    severity: int
    service_name: str
    message: str
    correlation_id: str | None
    metadata: msgspec.Raw


COLUMNS: Final = PageLog.__struct_fields__
"""Of every format; more may come behind them."""

Lines = Callable[[Sequence[PageLog]], bytes]

_FORMULA_STARTS: Final = frozenset("=+-@\t\r\n\uff1d\uff0b\uff0d\uff20")
"""With the fullwidth ones, which some spreadsheets take for the same."""
_encoder: Final = msgspec.json.Encoder()


def page_log(log: Log) -> PageLog:
    """A stored log as the API writes it. Measured: 3 µs."""
    return PageLog(
        str(log.id),
        time_text(log.timestamp),
        time_text(received_ms(log.id) * 1000),
        level_name(log.level),
        log.level,
        log.service_name,
        log.message,
        log.correlation_id,
        msgspec.Raw(_encoder.encode(log.metadata)),
    )


def ndjson(logs: Sequence[PageLog]) -> bytes:
    """One JSON object a line. Measured: 0.2 µs a log of 457 bytes."""
    return _encoder.encode_lines(logs)


def csv_records(logs: Sequence[PageLog]) -> bytes:
    """A record a log, without the header. Measured: 4.5 µs a log."""
    text = io.StringIO()
    csv.writer(text).writerows(
        (
            log.id,
            log.timestamp,
            log.received_at,
            log.level,
            log.severity,
            _no_formula(log.service_name),
            _no_formula(log.message),
            None if log.correlation_id is None else _no_formula(log.correlation_id),
            bytes(log.metadata).decode(),
        )
        for log in logs
    )
    return text.getvalue().encode()


def csv_header() -> bytes:
    """The first record: the names of the columns."""
    return (",".join(COLUMNS) + "\r\n").encode()


def _no_formula(text: str) -> str:
    return f"'{text}" if text[:1] in _FORMULA_STARTS else text
