"""Levels: six names, their aliases in any case, OpenTelemetry's 24 grades in bands of four."""

from __future__ import annotations

import pytest

from schemas.levels import LEVELS, SEVERITY_MAX, band, level_name, parse_level

ALIASES = {
    "TRACE": ["trace", "trc", "finest", "verbose"],
    "DEBUG": ["debug", "dbg", "fine"],
    "INFO": ["info", "information", "informational", "inf", "notice"],
    "WARN": ["warn", "warning", "wrn"],
    "ERROR": ["error", "err", "eror", "severe"],
    "FATAL": ["fatal", "critical", "crit", "alert", "emerg", "emergency", "panic"],
}


@pytest.mark.parametrize(("name", "spelling"), [(name, text) for name, texts in ALIASES.items() for text in texts])
def test_aliases_are_understood_in_any_case(name: str, spelling: str) -> None:
    odd = "".join(letter.upper() if index % 2 else letter for index, letter in enumerate(spelling))
    for text in (spelling, spelling.upper(), spelling.capitalize(), odd, f"  {spelling}\t"):
        assert parse_level(text) == LEVELS[name]


@pytest.mark.parametrize("text", ["", " ", "loud", "warnin", "13", "info!", "ınfo", "\0"])
def test_what_is_no_level_is_refused_with_the_names(text: str) -> None:
    with pytest.raises(ValueError, match="level must be one of TRACE, DEBUG, INFO, WARN, ERROR, FATAL") as caught:
        parse_level(text)
    assert repr(text) in str(caught.value)


def test_each_severity_belongs_to_the_band_of_its_name() -> None:
    assert [level_name(severity) for severity in range(1, SEVERITY_MAX + 1)] == [
        name for name in LEVELS for _ in range(4)
    ]
    for name in LEVELS:
        least, greatest = band(name.lower())
        assert (least, greatest) == (LEVELS[name], LEVELS[name] + 3)
        assert {level_name(severity) for severity in range(least, greatest + 1)} == {name}


def test_bands_cover_every_severity_once() -> None:
    covered = [severity for name in LEVELS for severity in range(band(name)[0], band(name)[1] + 1)]
    assert covered == list(range(1, SEVERITY_MAX + 1))


@pytest.mark.parametrize("severity", [-1, 0, 25, 1000])
def test_severity_outside_the_scale_has_no_name(severity: int) -> None:
    with pytest.raises(ValueError, match=rf"severity must be 1\.\.24, got {severity}"):
        level_name(severity)
