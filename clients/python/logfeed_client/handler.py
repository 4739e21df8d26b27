"""A `logging.Handler` that hands logs to a sender: `logging.getLogger().addHandler(LogfeedHandler(url, service_name="shop"))`.

A record becomes a line in the thread that logs: nothing of the program's objects is kept, and what they are afterwards does not
matter. Metadata of a log: `logger`, `source` (file:line), `host`, `pid`, `thread` where it is not the main one, fields of
`logfeed_client.bind`, those of `extra`, and `exception` with `type`, `message`, `stack`. `extra={"correlation_id": …}` goes
before the context's.

Measured (bench/client.py, one core): `client_handler_us` of this, `client_caller_us` of the whole `logger.info` with it.
"""

from __future__ import annotations

import logging
import os
import socket
import traceback
from collections.abc import Callable, Mapping
from functools import lru_cache
from itertools import islice
from types import TracebackType
from typing import Final

import httpx

from logfeed_client.fields import SHARED_BYTES_MAX, fragment, joined, plain_tail, quote
from logfeed_client.lines import end_of, head_of, line_of
from logfeed_client.notes import LOGGER, sending
from logfeed_client.sending.limits import SenderLimits
from logfeed_client.sending.sender import ApiKey, Sender
from logfeed_client.sending.stats import SenderStats

_STANDARD: Final = frozenset({*logging.makeLogRecord({}).__dict__, "message", "asctime", "taskName"})
"""What every record has; all else came from `extra`."""
_PLAIN_SIZE: Final = len(logging.makeLogRecord({}).__dict__)
_CORRELATION: Final = "correlation_id"
_NO_FIELDS: Final = _STANDARD | {_CORRELATION}
_MAIN: Final = "MainThread"
_PLACES_MAX: Final = 8_192
_LEVELS: Final = {
    logging.DEBUG: "DEBUG",
    logging.INFO: "INFO",
    logging.WARNING: "WARN",
    logging.ERROR: "ERROR",
    logging.CRITICAL: "FATAL",
}

ExcInfo = tuple[type[BaseException], BaseException, TracebackType | None] | tuple[None, None, None]


class LogfeedHandler(logging.Handler):
    """Raises nothing into the program, and waits for nothing but `block_s`. Any thread may log."""

    def __init__(
        self,
        url: str | None = None,
        *,
        service_name: str | None = None,
        api_key: ApiKey | None = None,
        spool_dir: str | os.PathLike[str] | None = None,
        block_s: float = 0.0,
        metadata: Mapping[str, object] | None = None,
        level: int | str = logging.NOTSET,
        sender: Sender | None = None,
        limits: SenderLimits | None = None,
        make_client: Callable[[], httpx.Client] | None = None,
    ) -> None:
        """Either a sender, which is closed by whoever made it or with the program, or what one is made of: url, service_name,
        api_key, spool_dir, block_s, limits, make_client as `Sender` takes them. service_name: None is the sender's. metadata:
        of each log, besides `host`. Raises ValueError."""
        super().__init__(level)
        if sender is None:
            if service_name is None:
                raise ValueError("service_name is needed: whose logs are these?")
            sender = Sender(
                url,
                service_name=service_name,
                api_key=api_key,
                spool_dir=spool_dir,
                block_s=block_s,
                limits=limits,
                make_client=make_client,
            )
            self._owned: Sender | None = sender
        else:
            self._owned = None
        self.sender: Final = sender
        self._head = head_of(service_name or sender.service_name)
        self._fields = program_fields(metadata)
        self._places: dict[tuple[str, int, str, int | None], str] = {}
        """Of a line of the program that logs: what its logs have in common."""

    def setFormatter(self, fmt: logging.Formatter | None) -> None:
        """A formatter makes the message. The one that `logging.basicConfig` gives to handlers without one is none: level and
        logger are fields of their own."""
        is_basic = fmt is not None and type(fmt) is logging.Formatter and fmt._fmt == logging.BASIC_FORMAT
        super().setFormatter(None if is_basic else fmt)

    def handle(self, record: logging.LogRecord) -> bool:
        """As `logging.Handler`, without its lock: nobody waits here because another thread does."""
        if self.filters:
            found: object = self.filter(record)  # a bool, or from Python 3.12 on a record instead of this one
            if not found:
                return False
            record = found if isinstance(found, logging.LogRecord) else record
        self.emit(record)
        return True

    def emit(self, record: logging.LogRecord) -> None:
        """Send it. Raises nothing."""
        try:
            # The path is the same object each time, unlike the file's name.
            place = self._places.get((record.pathname, record.lineno, record.name, record.process))
            if place is None:
                place = self._place(record)
            if place and not sending.is_on:
                self.sender.put(self._line(record, place))
        except Exception as error:  # whatever the program's own objects and formatters raise
            self.sender.failed(error)

    def flush(self) -> None:
        """Wait until what was logged before is stored or spooled, `limits.close_s` at most."""
        self.sender.flush()

    def close(self) -> None:
        """Close the sender, if it was made here; see `Sender.close`."""
        if self._owned is not None:
            self._owned.close()
        super().close()

    def stats(self) -> SenderStats:
        """Of the sender."""
        return self.sender.stats()

    def _line(self, record: logging.LogRecord, fields: str) -> bytes:
        """fields: those of its place."""
        correlation_id = None
        values = record.__dict__
        thread = record.threadName
        if thread != _MAIN and thread is not None:
            fields = f'{fields},"thread":{quote(thread)}'
        more = len(values) - _PLAIN_SIZE
        if more > 0:
            # What came from `extra` stands behind what each record is made with.
            correlation_id = values.get(_CORRELATION)
            found = plain_tail(values, more, _NO_FIELDS)
            if found is None:
                found = fragment(list(islice(reversed(values.items()), more))[::-1], leave_out=_NO_FIELDS)
                found = f",{found}" if found else ""
            fields += found
        if record.exc_info or record.exc_text or record.stack_info:
            fields = joined(fields, fragment(_trouble(record).items()))
        try:
            if self.formatter is not None:
                message = self.formatter.format(record)
            elif (
                type(record) is logging.LogRecord and type(record.msg) is str
            ):  # what its getMessage does, without the call
                message = record.msg % record.args if record.args else record.msg
            else:
                message = record.getMessage()
        except Exception:  # "%d" of a text, a __str__ that fails
            message = f"{record.msg!s} (its arguments do not fit)"
        level = _LEVELS.get(record.levelno) or level_name(record.levelno)
        return line_of(self._head, int(record.created * 1e6), level, message, fields, correlation_id)

    def _place(self, record: logging.LogRecord) -> str:
        """A fragment, kept for the next time; empty for the client's own."""
        place, name = "", str(record.name)
        if not name.startswith(LOGGER):
            source = quote(f"{record.filename}:{record.lineno}")
            place = f'"logger":{quote(name)},"source":{source},"pid":{record.process or "null"},{self._fields}'
        if len(self._places) >= _PLACES_MAX:
            self._places.clear()
        self._places[record.pathname, record.lineno, record.name, record.process] = place
        return place


@lru_cache(maxsize=64)
def level_name(number: int) -> str:
    """Of Logfeed, for a number of `logging`'s."""
    if number >= logging.CRITICAL:
        return "FATAL"
    if number >= logging.ERROR:
        return "ERROR"
    if number >= logging.WARNING:
        return "WARN"
    if number >= logging.INFO:
        return "INFO"
    return "DEBUG" if number >= logging.DEBUG else "TRACE"


def program_fields(metadata: Mapping[str, object] | None) -> str:
    """A fragment: the host, then what the program names."""
    return fragment({"host": socket.gethostname(), **(metadata or {})}.items(), bytes_max=SHARED_BYTES_MAX)


def exception_fields(error: BaseException) -> dict[str, object]:
    """`type`, `message`, `stack` of an exception. Raises nothing."""
    kind = type(error)
    name = kind.__qualname__ if kind.__module__ == "builtins" else f"{kind.__module__}.{kind.__qualname__}"
    try:
        message = str(error)[:2_000]
    except Exception:  # an exception that cannot tell itself
        message = ""
    try:
        stack = "".join(traceback.format_exception(error))
    except Exception:  # the same, within its causes
        stack = ""
    return {"type": name, "message": message, "stack": end_of(stack)}


def _trouble(record: logging.LogRecord) -> dict[str, object]:
    found: dict[str, object] = {}
    error = record.exc_info[1] if isinstance(record.exc_info, tuple) else None
    if error is not None:
        found["exception"] = exception_fields(error)
    elif record.exc_text:
        found["exception"] = {"stack": end_of(record.exc_text)}
    if record.stack_info:
        found["stack"] = end_of(record.stack_info)
    return found
