"""What is answered, record by record: lines, and at last how it ended. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import Final

import orjson

from agent.reading.matching import Line

_TEXT_END: Final = "#logfeed end"


class Form(StrEnum):
    """How records are written."""

    NDJSON = "ndjson"
    TEXT = "text"


MEDIA_TYPES: Final = {Form.NDJSON: "application/x-ndjson", Form.TEXT: "text/plain; charset=utf-8"}


class Status(StrEnum):
    """How it ended."""

    COMPLETE = "complete"
    """Everything there is was looked at."""
    LIMIT = "limit"
    """As many lines as were asked for, or as may be held; there may be more."""
    DEADLINE = "deadline"
    ERROR = "error"


@dataclass(frozen=True, slots=True)
class End:
    """The closing record. scanned_bytes: of the text. error: for people, of Status.ERROR."""

    status: Status
    lines: int
    scanned_bytes: int
    error: str | None = None


def write_lines(lines: list[Line], form: Form) -> bytes:
    """Lines as records. Bytes that are no UTF-8 become U+FFFD."""
    if form is Form.TEXT:
        return b"".join(_text(line) for line in lines)
    return b"".join(_json(line) for line in lines)


def write_end(end: End, form: Form) -> bytes:
    """The last record: an answer without it was cut off."""
    if form is Form.TEXT:
        error = "" if end.error is None else f" error={orjson.dumps(end.error).decode()}"
        return f"{_TEXT_END} status={end.status} lines={end.lines}{error}\n".encode()
    document = {
        "status": end.status,
        "lines": end.lines,
        "scanned_bytes": end.scanned_bytes,
        "error": end.error,
    }
    return orjson.dumps({"end": document}, option=orjson.OPT_APPEND_NEWLINE)


def _json(line: Line) -> bytes:
    record: dict[str, object] = {"line": line.raw.decode("utf-8", "replace"), "offset": line.offset}
    if line.is_cut:
        record["cut"] = True
    return orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE)


def _text(line: Line) -> bytes:
    # A line that looks like the closing record must not be taken for it.
    text = line.raw.decode("utf-8", "replace").encode()
    escape = b" " if text.startswith(_TEXT_END.encode()) else b""
    return escape + text + (" …[cut]\n".encode() if line.is_cut else b"\n")
