"""Levels: six names over OpenTelemetry's severity numbers 1..24.

Stored as the severity number, so that OTLP's finer grades survive; shown by the name of the band it falls in
(1-4 TRACE, 5-8 DEBUG, 9-12 INFO, 13-16 WARN, 17-20 ERROR, 21-24 FATAL).
Source: OpenTelemetry logs data model, "Severity Fields".
"""

from __future__ import annotations

from typing import Final

LEVELS: Final[dict[str, int]] = {"TRACE": 1, "DEBUG": 5, "INFO": 9, "WARN": 13, "ERROR": 17, "FATAL": 21}
"""Name of each band -> the severity number a log gets that names only the band."""

SEVERITY_MAX: Final = 24

_ALIASES: Final[dict[str, str]] = {
    "trc": "TRACE",
    "finest": "TRACE",
    "verbose": "TRACE",
    "dbg": "DEBUG",
    "fine": "DEBUG",
    "information": "INFO",
    "informational": "INFO",
    "inf": "INFO",
    "notice": "INFO",
    "warning": "WARN",
    "wrn": "WARN",
    "err": "ERROR",
    "eror": "ERROR",
    "severe": "ERROR",
    "critical": "FATAL",
    "crit": "FATAL",
    "alert": "FATAL",
    "emerg": "FATAL",
    "emergency": "FATAL",
    "panic": "FATAL",
}
_BAND_NAMES: Final = tuple(name for name in LEVELS for _ in range(4))
_BY_NAME: Final[dict[str, int]] = {
    spelling: severity
    for name, severity in (
        *((name.lower(), severity) for name, severity in LEVELS.items()),
        *((alias, LEVELS[name]) for alias, name in _ALIASES.items()),
    )
    for spelling in (name, name.upper(), name.capitalize())
}


def level_spellings() -> dict[str, int]:
    """Every name and alias in lower, upper and capitalised case -> its severity number; `parse_level` knows more cases."""
    return dict(_BY_NAME)


def parse_level(text: str) -> int:
    """The severity number (1..24) of a level's name or alias, in any case.

    Raises ValueError with a message for people when the text is no level.
    """
    severity = _BY_NAME.get(text)
    if severity is None:
        severity = _BY_NAME.get(text.strip().lower())
    if severity is None:
        raise ValueError(f"level must be one of {', '.join(LEVELS)} (or an alias such as warning, err), got {text!r}")
    return severity


def level_name(severity: int) -> str:
    """The band's name of a severity number. Raises ValueError outside 1..24."""
    if not 1 <= severity <= SEVERITY_MAX:
        raise ValueError(f"severity must be 1..{SEVERITY_MAX}, got {severity}")
    return _BAND_NAMES[severity - 1]


def band(name: str) -> tuple[int, int]:
    """The least and greatest severity number (both inclusive) of the band a level's name or alias means."""
    least = parse_level(name)
    return least, least + 3
