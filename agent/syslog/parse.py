"""One syslog message: RFC 5424, or RFC 3164 as programs write it. Pure.

No message is refused: text in no known form is a message of `user.notice`, as RFC 3164 (4.3.3) has it. The time of a message
without a year belongs to the nearest past.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from agent.shipping.encoding import FIELDS_LEFT_OUT_KEY, OWN_FIELDS_BYTES_MAX
from formats.plain import SYSLOG_SEVERITIES
from formats.times import ISO, TimeReader
from schemas.record import TRUNCATED_KEY, is_service_name

FACILITIES: Final = (
    *("kern", "user", "mail", "daemon", "auth", "syslog", "lpr", "news", "uucp", "cron", "authpriv", "ftp"),
    *("ntp", "audit", "alert", "clock", "local0", "local1", "local2", "local3", "local4", "local5", "local6", "local7"),
)
_PRIORITY_DEFAULT: Final = 13
"""user.notice"""
SERVICE_DEFAULT: Final = "syslog"
_ELEMENTS_MAX: Final = 50
"""Structured elements, and parameters of all of them, times ten."""

_PRIORITY = re.compile(rb"<(\d{1,3})>")
_NEW = re.compile(r"1 (\S{1,64}) (\S{1,255}) (\S{1,100}) (\S{1,128}) (\S{1,64}) (?=-|\[)")
_OLD_TIME = re.compile(rf"(?:([A-Z][a-z]{{2}} [ \d]\d \d\d:\d\d:\d\d(?:\.\d{{1,9}})?)|({ISO})) ")
_TAG = re.compile(r"([^\s:\[]{1,100})(?:\[([^\]\s]{1,128})\])?:(?: |$)")
_HOST = re.compile(r"([\w.:-]{1,255}) (?=[^\s:\[]{1,100}(?:\[[^\]\s]{1,128}\])?:)")
_ELEMENT = re.compile(r"\[([^\s=\]\"]{1,64})")
_PARAMETER = re.compile(r' ([^\s=\]"]{1,64})="((?:[^"\\\]]|\\.)*)"', re.DOTALL)
_ESCAPE = re.compile(r"\\([\"\\\]])")
_NOT_IN_NAMES = re.compile(r"[^A-Za-z0-9._/-]+")


@dataclass(slots=True)
class Message:
    """What it says. severity: 1..24. time_us: None when it tells none. process: the program's name."""

    text: str
    severity: int
    facility: str
    time_us: int | None = None
    host: str | None = None
    process: str | None = None
    pid: str | None = None
    message_id: str | None = None
    structured: dict[str, dict[str, str]] = field(default_factory=dict)


def parse(raw: bytes, times: TimeReader) -> Message:
    """Read one message, without its frame. Never fails."""
    priority, rest = _PRIORITY_DEFAULT, raw
    if (found := _PRIORITY.match(raw)) and int(found[1]) < 8 * len(FACILITIES):
        priority, rest = int(found[1]), raw[found.end() :]
    text = rest.decode("utf-8", "replace").rstrip("\r\n\0")
    message = Message(text, SYSLOG_SEVERITIES[priority & 7], FACILITIES[priority >> 3])
    if (head := _NEW.match(text)) is not None and _read_new(message, head, times):
        return message
    _read_old(message, times)
    return message


def encode(message: Message, *, service: str | None, now_us: int, peer: str, agent: str, is_cut: bool) -> bytes:
    """A log as it is sent: one line of NDJSON. service: of all messages; None: the program's name."""
    metadata: dict[str, Any] = {
        "host": message.host or peer,
        "agent": agent,
        "facility": message.facility,
    }  # JSON values
    told = {"process": message.process, "pid": message.pid, "message_id": message.message_id}
    metadata |= {name: value for name, value in told.items() if value is not None}
    if message.structured:
        metadata["structured"] = message.structured
    if is_cut:
        metadata[TRUNCATED_KEY] = True
    log = {
        "timestamp": now_us if message.time_us is None else message.time_us,
        "level": message.severity,
        "service_name": service or service_of(message.process),
        "message": message.text,
        "metadata": metadata,
    }
    if len(message.structured) and len(orjson.dumps(metadata)) > OWN_FIELDS_BYTES_MAX:
        del metadata["structured"]
        metadata[FIELDS_LEFT_OUT_KEY] = True
    return orjson.dumps(log, option=orjson.OPT_APPEND_NEWLINE)


def service_of(process: str | None) -> str:
    """A program's name as a service's."""
    name = _NOT_IN_NAMES.sub("_", process or "").strip("_")[:100]
    return name if is_service_name(name) else SERVICE_DEFAULT


def _read_new(message: Message, head: re.Match[str], times: TimeReader) -> bool:
    """The rest of RFC 5424; False when it is not in that form after all."""
    time, host, process, pid, message_id = (None if part == "-" else part for part in head.groups())
    text, place = message.text, head.end()
    structured: dict[str, dict[str, str]] = {}
    if text[place] == "-":
        place += 1
    else:
        parameters = 0
        while element := _ELEMENT.match(text, place):
            place = element.end()
            values = structured.setdefault(element[1], {}) if len(structured) < _ELEMENTS_MAX else {}
            while parameter := _PARAMETER.match(text, place):
                place = parameter.end()
                parameters += 1
                if parameters <= _ELEMENTS_MAX * 10:
                    values[parameter[1]] = _ESCAPE.sub(r"\1", parameter[2])
            if not text.startswith("]", place):
                return False
            place += 1
    if place < len(text) and text[place] != " ":
        return False
    time_us = times.iso(time) if time is not None else None
    message.text = text[place + 1 :].removeprefix("\ufeff")
    message.time_us, message.host, message.process, message.pid = time_us, host, process, pid
    message.message_id, message.structured = message_id, structured
    return True


def _read_old(message: Message, times: TimeReader) -> None:
    text = message.text
    if (time := _OLD_TIME.match(text)) is not None:
        message.time_us = times.syslog(time[1]) if time[1] is not None else times.iso(time[2])
        text = text[time.end() :]
        if (host := _HOST.match(text)) is not None:
            message.host = host[1]
            text = text[host.end() :]
    if (tag := _TAG.match(text)) is not None:
        message.process, message.pid = tag[1], tag[2]
        text = text[tag.end() :]
    message.text = text
