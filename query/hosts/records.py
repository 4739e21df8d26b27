"""What an agent answers, read before anybody is given it: pure.

Of a file: one JSON record a line, `{"line": …, "offset": …}`, and as the last one `{"end": …}`. Records go on as they came,
each whole and well-formed; an answer that stops without its end was cut, and who reads is told so. Of a list of files: those
whose service may be read, whatever the agent says.
Memory: one record, RECORD_BYTES_MAX at most.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Any, Final

import msgspec

from runtime.harmless import harmless
from schemas.errors import LogfeedError
from schemas.hosts import FILES_MAX
from schemas.scope import ServiceScope

RECORD_BYTES_MAX: Final = 4 * 1024 * 1024
LIST_BYTES_MAX: Final = 8 * 1024 * 1024
SCOPE_CHARS_MAX: Final = 4_000
"""Of the scope's JSON: servers take a request line of some 8 KiB."""

_ERRORS_MAX: Final = 100
_SHOWN_CHARS_MAX: Final = 300
_TEXT_END: Final = "#logfeed end"


class AnswerFaulty(LogfeedError):
    """What the agent answers is not what an agent answers."""


class Form(StrEnum):
    """How a file's lines are written."""

    NDJSON = "ndjson"
    TEXT = "text"

    @property
    def media_type(self) -> str:
        """With its charset."""
        return "application/x-ndjson" if self is Form.NDJSON else "text/plain; charset=utf-8"


class EndStatus(StrEnum):
    """Why an answer ends."""

    COMPLETE = "complete"
    """All of the file was looked at."""
    LIMIT = "limit"
    """As many lines as were asked for, or as are passed on; there may be more."""
    ERROR = "error"
    DEADLINE = "deadline"


class End(msgspec.Struct, frozen=True):
    """The last record."""

    status: EndStatus
    lines: int
    scanned_bytes: int | None = None
    error: str | None = None
    """For people."""

    def written(self, form: Form) -> bytes:
        """As it is sent."""
        if form is Form.NDJSON:
            return msgspec.json.encode({"end": self}) + b"\n"
        error = "" if self.error is None else f" error={json.dumps(self.error)}"
        return f"{_TEXT_END} status={self.status} lines={self.lines}{error}\n".encode()


class _Record(msgspec.Struct):
    line: str | msgspec.UnsetType = msgspec.UNSET
    offset: int | msgspec.UnsetType = msgspec.UNSET
    end: End | msgspec.UnsetType = msgspec.UNSET


_record_decoder: Final = msgspec.json.Decoder(_Record)


class Records:
    """The records of one answer, in pieces of any size."""

    def __init__(self, form: Form) -> None:
        """form: what is given back."""
        self._form = form
        self._rest = bytearray()
        self.lines = 0
        """That were given back."""
        self.end: End | None = None
        """What the agent said at last; whatever comes after it counts for nothing."""

    def feed(self, piece: bytes) -> bytes:
        """The lines that are whole now, as they are sent; may be empty. Raises AnswerFaulty."""
        head, newline, rest = piece.rpartition(b"\n")
        if not newline:
            self._rest += rest
            if len(self._rest) > RECORD_BYTES_MAX:
                raise AnswerFaulty(f"a record is longer than {RECORD_BYTES_MAX} bytes")
            return b""
        whole, self._rest = bytes(self._rest) + head, bytearray(rest)
        found = []
        for line in whole.split(b"\n"):
            if self.end is not None:
                break
            if line.strip():
                found.append(self._read(line))
        return b"".join(found)

    def _read(self, line: bytes) -> bytes:
        try:
            record = _record_decoder.decode(line)
        except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
            raise AnswerFaulty(f"a record cannot be read: {str(error)[:_SHOWN_CHARS_MAX]}") from error
        if record.end is not msgspec.UNSET:
            self.end = msgspec.structs.replace(record.end, error=_shown(record.end.error))
            return b""
        if record.line is msgspec.UNSET or record.offset is msgspec.UNSET:
            raise AnswerFaulty("a record has neither a line and its offset nor an end")
        self.lines += 1
        if self._form is Form.NDJSON:
            return line + b"\n"
        # A line that looks like the end must not be taken for it.
        escape = " " if record.line.startswith(_TEXT_END) else ""
        return (escape + record.line).encode("utf-8", "replace") + b"\n"


class _File(msgspec.Struct):
    name: str
    service_name: str
    bytes: int
    modified_at: str
    compressed: str | None = None
    rotated: bool = False


class _Files(msgspec.Struct):
    files: list[_File]
    next_cursor: str | None = None
    errors: list[Any] = []
    """Any JSON values."""


class FileList(msgspec.Struct, frozen=True):
    """Files that may be read."""

    files: list[_File]
    next_cursor: str | None
    errors: list[str]


_files_decoder: Final = msgspec.json.Decoder(_Files)


def read_files(body: bytes, allowed: ServiceScope) -> FileList:
    """The list in an agent's answer. Raises AnswerFaulty."""
    try:
        found = _files_decoder.decode(body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        raise AnswerFaulty(f"the list of files cannot be read: {str(error)[:_SHOWN_CHARS_MAX]}") from error
    if len(found.files) > FILES_MAX:
        raise AnswerFaulty(f"the list has more than {FILES_MAX} files")
    texts = (each if isinstance(each, str) else msgspec.json.encode(each).decode() for each in found.errors)
    return FileList(
        [file for file in found.files if allowed.permits(file.service_name)],
        found.next_cursor,
        [_shown(text) or "" for text, _ in zip(texts, range(_ERRORS_MAX), strict=False)],
    )


def scope_json(allowed: ServiceScope, services: Sequence[str]) -> str:
    """What the agent is told of which services may be read. services: of the host, as it said; where rights are very many,
    those of them that may be read are all that is asked for."""
    excluded = {"excluded": sorted(allowed.excluded)} if allowed.excluded else {}
    if allowed.everything:
        return _json({"all": True, **excluded})
    text = _json({"names": sorted(allowed.names), "prefixes": sorted(allowed.prefixes), **excluded})
    if len(text) <= SCOPE_CHARS_MAX:
        return text
    there = [service for service in services if allowed.permits(service)]
    while len(text := _json({"names": there, "prefixes": []})) > SCOPE_CHARS_MAX:
        there.pop()
    return text


def _json(content: Mapping[str, object]) -> str:
    return msgspec.json.encode(content).decode()


def _shown(text: str | None) -> str | None:
    return None if text is None else harmless(text)[:_SHOWN_CHARS_MAX]
