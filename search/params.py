"""Builds a predicate from URL parameters, and times from text.

Pure: the caller has split the query string and knows which parameters it takes; `now` is an argument. All parameters are
joined by AND, the values of a repeated one by OR (metadata fields by AND).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from typing import Final

from schemas.errors import InvalidInput
from schemas.levels import band
from schemas.record import CORRELATION_ID_CHARS_MAX
from search.language import (
    QUERY_CHARS_MAX,
    QueryError,
    TemplateText,
    level_hint,
    no_template,
    parse,
    parse_path,
    parse_service,
)
from search.predicate import (
    EVERYTHING,
    TIMESTAMP_MAX_US,
    TIMESTAMP_MIN_US,
    Contains,
    CorrelationIs,
    LevelIn,
    Matches,
    MetaEquals,
    MinLevel,
    Predicate,
    ServiceIn,
    all_of,
)
from search.regex import RegexError, parse_pattern

METADATA_PARAMETERS_MAX: Final = 50
LIST_VALUES_MAX: Final = 200


class ParameterError(InvalidInput):
    """A parameter has a value that it cannot have."""

    def __init__(self, parameter: str, message: str, *, column: int | None = None) -> None:
        """parameter: its name in the URL. message: without the name. column: 1-based place in the value, if known."""
        super().__init__(f"{parameter}: {message}")
        self.parameter, self.message, self.column = parameter, message, column


def from_params(
    *,
    service_name: Sequence[str] = (),
    level: Sequence[str] = (),
    min_level: str | None = None,
    correlation_id: str | None = None,
    q: str | None = None,
    regex: str | None = None,
    query: str | None = None,
    metadata: Iterable[tuple[str, str]] = (),
    template_text: TemplateText = no_template,
) -> Predicate:
    """The predicate of a request. Raises ParameterError.

    service_name: names, or prefixes with * at the end. level: names or aliases. q: literal text, as a whole. regex: a
    regular expression. query: the query language. metadata: (key without `metadata.`, text) pairs. q, regex and query
    may be empty, as an empty search box sends them; the others must not be. template_text: see search.language.parse.
    """
    return all_of(
        _services(service_name),
        _levels(level),
        EVERYTHING if min_level is None else MinLevel(_band("min_level", min_level)[0]),
        EVERYTHING if correlation_id is None else _correlation(correlation_id),
        Contains(_text("q", q)) if q else EVERYTHING,
        _regex(regex) if regex else EVERYTHING,
        _query(query, template_text) if query else EVERYTHING,
        *_metadata(metadata),
    )


def parse_time(text: str, now_us: int, *, parameter: str = "time") -> int:
    """Microseconds since the Unix epoch of `now`, `-15m` (ms s m h d w before now) or an ISO 8601 date or date and time.

    Without a zone a time is UTC, a date is its first moment. Digits past the microsecond are cut off. Raises
    ParameterError, which names `parameter`.
    """
    if text == "now":
        return now_us
    if (relative := _RELATIVE.fullmatch(text)) is not None:
        return _within_years(parameter, text, now_us - int(relative[1]) * _UNIT_US[relative[2]])
    match = _ISO.fullmatch(text)
    if match is None:
        hint = "; a + in a URL must be written %2B" if re.search(r"\d \d\d:?\d\d$", text) and "T" in text else ""
        examples = "a time such as 2026-01-31T12:00:00Z, -15m, -2h, -7d or now"
        raise ParameterError(parameter, f"expected {examples}, got {text[:60]!r}{hint}")
    try:
        moment = _moment(match)
    except ValueError as error:
        raise ParameterError(parameter, f"{text!r} is no time: {error}") from error
    return _within_years(parameter, text, (moment - _EPOCH) // timedelta(microseconds=1))


def _within_years(parameter: str, text: str, moment_us: int) -> int:
    if not TIMESTAMP_MIN_US <= moment_us <= TIMESTAMP_MAX_US:
        raise ParameterError(parameter, f"{text!r} is not in the years 1..9999")
    return moment_us


_RELATIVE: Final = re.compile(r"-([0-9]{1,9})(ms|s|m|h|d|w)")
_UNIT_US: Final = {
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
    "w": 604_800_000_000,
}
_ISO: Final = re.compile(
    r"([0-9]{4})-([0-9]{2})-([0-9]{2})"
    r"(?:[Tt ]([0-9]{2}):([0-9]{2})(?::([0-9]{2})(?:[.,]([0-9]{1,9}))?)?(?:([Zz])|([+-])([0-9]{2}):?([0-9]{2}))?)?"
)
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def _moment(match: re.Match[str]) -> datetime:
    year, month, day, hour, minute, second = (int(part or 0) for part in match.groups()[:6])
    fraction_us = int((match[7] or "").ljust(6, "0")[:6])
    zone = UTC
    if match[9] is not None:
        hours, minutes = int(match[10]), int(match[11])
        if minutes > 59:
            raise ValueError("zone minutes must be in 0..59")
        offset = timedelta(hours=hours, minutes=minutes)
        zone = timezone(-offset if match[9] == "-" else offset)
    return datetime(year, month, day, hour, minute, second, fraction_us, zone)


def _services(values: Sequence[str]) -> Predicate:
    _check_count("service_name", len(values), LIST_VALUES_MAX)
    names: frozenset[str] = frozenset()
    prefixes: frozenset[str] = frozenset()
    for value in values:
        if (one := parse_service(value)) is None:
            expected = "1 to 100 of A-Z a-z 0-9 . _ - /, or a prefix with * at its end"
            raise ParameterError("service_name", f"expected {expected}, got {value[:120]!r}")
        names, prefixes = names | one.names, prefixes | one.prefixes
    return ServiceIn(names, prefixes) if values else EVERYTHING


def _levels(values: Sequence[str]) -> Predicate:
    _check_count("level", len(values), LIST_VALUES_MAX)
    return LevelIn(tuple(_band("level", value) for value in values)) if values else EVERYTHING


def _band(parameter: str, text: str) -> tuple[int, int]:
    try:
        return band(text)
    except ValueError as error:
        raise ParameterError(parameter, f"{text[:60]!r} is not a level; {level_hint(text)}") from error


def _correlation(text: str) -> Predicate:
    if not 1 <= len(text) <= CORRELATION_ID_CHARS_MAX:
        raise ParameterError("correlation_id", f"expected 1..{CORRELATION_ID_CHARS_MAX} characters, got {len(text):,}")
    try:
        return CorrelationIs(text)
    except ValueError as error:
        raise ParameterError("correlation_id", str(error)) from error


def _text(parameter: str, text: str) -> str:
    if len(text) > QUERY_CHARS_MAX:
        raise ParameterError(parameter, f"expected at most {QUERY_CHARS_MAX:,} characters, got {len(text):,}")
    try:
        return Contains(text).text
    except ValueError as error:
        raise ParameterError(parameter, str(error)) from error


def _regex(text: str) -> Predicate:
    try:
        return Matches(parse_pattern(text))
    except RegexError as error:
        raise ParameterError("regex", str(error), column=error.column) from error


def _query(text: str, template_text: TemplateText) -> Predicate:
    try:
        return parse(text, template_text=template_text)
    except QueryError as error:
        raise ParameterError("query", str(error), column=error.column) from error


def _metadata(pairs: Iterable[tuple[str, str]]) -> list[Predicate]:
    predicates: list[Predicate] = []
    for key, text in pairs:
        parameter = f"metadata.{key[:100]}"
        try:
            predicates.append(MetaEquals(parse_path(key), _text(parameter, text)))
        except ValueError as error:
            raise ParameterError(parameter, str(error)) from error
    _check_count("metadata", len(predicates), METADATA_PARAMETERS_MAX)
    return predicates


def _check_count(parameter: str, count: int, most: int) -> None:
    if count > most:
        raise ParameterError(parameter, f"expected at most {most} values, got {count}")
