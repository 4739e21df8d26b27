"""Keeps repeated log lines apart: what goes on is said once a minute, what changes at once. `Sparing` decides and is pure.

Whoever logs within a loop that tries again, or once per request, asks here first; how many lines were left out is told
with the next one. Bounded: of more kinds of lines than `KINDS_MAX` the one said longest ago is forgotten.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Final

EVERY_S: Final = 60.0
KINDS_MAX: Final = 100


@dataclass(slots=True)
class _Said:
    at_s: float
    left_out: int = 0


class Sparing:
    """Which lines are due. Times are of any monotonic clock, the same for every call."""

    def __init__(self, *, every_s: float = EVERY_S) -> None:
        """every_s: between two lines that say the same."""
        self._every_s = every_s
        self._said: dict[Hashable, _Said] = {}

    def due(self, what: Hashable, now_s: float) -> int | None:
        """None: leave the line out. Else write it, and with it how many were left out since the last one.

        what: all that makes one line different from another, as its text.
        """
        said = self._said.get(what)
        if said is not None and now_s - said.at_s < self._every_s:
            said.left_out += 1
            return None
        self._said.pop(what, None)
        self._said[what] = _Said(now_s)
        if len(self._said) > KINDS_MAX:
            del self._said[next(iter(self._said))]
        return 0 if said is None else said.left_out


class SparingLog:
    """A logger of ours behind `Sparing`. One line differs from another by its event and its error."""

    def __init__(self, log: Any) -> None:
        """log: of structlog. Any: its loggers have no type before they are configured."""
        self._log = log
        self._sparing = Sparing()

    def info(self, event: str, **values: object) -> None:
        """Something that happens as often as others bring it about."""
        self._write("info", event, event, values)

    def warning(self, event: str, *, error: str, kind: Hashable = None, **values: object) -> None:
        """error: what is going on, for people; kind: instead of it where its text is another each time."""
        self._write("warning", (event, error if kind is None else kind), event, {"error": error, **values})

    def exception(self, event: str, error: BaseException, **values: object) -> None:
        """With the traceback."""
        self._write("error", (event, repr(error)), event, {"exc_info": error, **values})

    def _write(self, level: str, what: Hashable, event: str, values: Mapping[str, object]) -> None:
        left_out = self._sparing.due(what, time.monotonic())
        if left_out is not None:
            getattr(self._log, level)(event, **values, left_out=left_out)


class SparingFilter(logging.Filter):
    """The same for what libraries log: aiokafka complains ten times a second of a broker that is away, uvicorn of every
    request that it cannot read. One line differs from another by its text, and by its error's kind and place."""

    def __init__(self) -> None:
        """For one handler."""
        super().__init__()
        self._sparing = Sparing()

    def filter(self, record: logging.LogRecord) -> bool:
        """True when the record is due; it tells how many were left out."""
        kind, _, trace = record.exc_info or (None, None, None)
        place = None
        while trace is not None:
            place, trace = (trace.tb_frame.f_code.co_filename, trace.tb_lineno), trace.tb_next
        text = record.getMessage()
        left_out = self._sparing.due((record.name, text, kind, place), time.monotonic())
        if left_out:
            record.msg, record.args = f"{text} ({left_out} more like this were left out)", None
        return left_out is not None
