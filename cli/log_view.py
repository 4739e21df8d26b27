"""Logs as lines for people. Whatever a log holds, it takes the lines it is given and commands nothing (cli/terminal.py)."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import typer

from cli.terminal import harmless

_COLOURS: Final = {
    "TRACE": typer.colors.BRIGHT_BLACK,
    "DEBUG": typer.colors.BLUE,
    "INFO": typer.colors.GREEN,
    "WARN": typer.colors.YELLOW,
    "ERROR": typer.colors.RED,
    "FATAL": typer.colors.MAGENTA,
}
_SERVICE_WIDTH_MIN: Final = 8
_SERVICE_WIDTH_MAX: Final = 28
_INDENT: Final = "    "


class LineView:
    """Writes logs as aligned lines; columns widen as services with longer names appear."""

    def __init__(self, *, colour: bool, utc: bool) -> None:
        """colour: with ANSI colours. utc: times in UTC, else in the machine's zone."""
        self._colour, self._utc = colour, utc
        self._service_width = _SERVICE_WIDTH_MIN

    def line(self, log: Mapping[str, Any]) -> str:
        """One log of a page (JSON values): time, level, service, message, then its correlation id and metadata.

        Further lines of the message are indented, so that none looks like a log of its own.
        """
        level = str(log.get("level") or "")
        service = harmless(str(log.get("service_name") or ""))
        self._service_width = min(_SERVICE_WIDTH_MAX, max(self._service_width, len(service)))
        message = harmless(str(log.get("message") or ""), keep_newlines=True).rstrip("\n").replace("\n", "\n" + _INDENT)
        parts = [
            self._dim(self._time(str(log.get("timestamp") or ""))),
            self._style(f"{harmless(level):<5}", fg=_COLOURS.get(level), bold=level in ("ERROR", "FATAL")),
            self._style(f"{service:<{self._service_width}}", fg=typer.colors.CYAN),
            message,
        ]
        if extras := _extras(log):
            parts.append(self._dim(extras))
        return " ".join(parts)

    def _time(self, text: str) -> str:
        try:
            moment = datetime.fromisoformat(text).astimezone(UTC if self._utc else None)
        except (ValueError, OverflowError):  # none, or where the calendar of this zone ends
            return harmless(text)
        return moment.strftime("%Y-%m-%d %H:%M:%S.%f")[:-3] + ("Z" if self._utc else "")

    def _dim(self, text: str) -> str:
        return self._style(text, dim=True)

    def _style(self, text: str, *, fg: str | None = None, bold: bool = False, dim: bool = False) -> str:
        return typer.style(text, fg=fg, bold=bold or None, dim=dim or None) if self._colour else text


def _extras(log: Mapping[str, Any]) -> str:
    metadata = log.get("metadata")
    fields = dict(metadata) if isinstance(metadata, dict) else {}
    if correlation_id := log.get("correlation_id"):
        fields = {"correlation_id": correlation_id} | fields
    return " ".join(f"{harmless(name)}={_value(value)}" for name, value in fields.items())


def _value(value: Any) -> str:  # a JSON value
    if isinstance(value, str) and value and " " not in value:
        return harmless(value)
    # Not orjson: what is at a server's address may send half of a surrogate pair, which that refuses.
    return harmless(json.dumps(value, ensure_ascii=False, separators=(",", ":")))
