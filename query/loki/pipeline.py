"""What a query makes of logs: the part that records can answer as one predicate, the rest log by log. Pure.

Line filters, and conditions on labels that are fields of records, become the predicate, so that indexes and files answer them.
What is left is asked of each log's labels: conditions on what `json` and `logfmt` take out of lines, numbers, and regular
expressions over fields. The lines never change, so the order of filters does not matter.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

import msgspec

from query.loki.labels import (
    LEVEL,
    SERVICE,
    Regex,
    asks_for_services,
    flatten,
    is_level,
    label_name,
    looked_up,
    metadata_of,
    predicate_of,
    stream_of,
)
from query.loki.logql import parse_bytes, parse_duration_s
from query.loki.syntax import (
    AllOf,
    AnyOf,
    Compare,
    Condition,
    Keep,
    LineFilter,
    LogQLError,
    LogQuery,
    Parse,
    Parser,
)
from schemas.levels import level_name, parse_level
from schemas.record import Log
from search.predicate import EVERYTHING, Matches, Predicate, all_of, any_of, negate
from search.regex import RegexError, parse_pattern

LINE_CHARS_MAX: Final = 64 * 1024
"""Labels are taken out of shorter lines alone."""
PARSED_MAX: Final = 200
"""Labels taken out of one line."""
ERROR: Final = "__error__"
_ERRORS: Final = frozenset({ERROR, "__error_details__"})
"""Labels that records have not."""
_LOGFMT: Final = re.compile(r'([^\s="]+)(?:=(?:"((?:[^"\\]|\\.)*+)"|([^\s"]*)))?', re.DOTALL)
_PUNCTUATION: Final = re.compile(r"[!-/:-@\[-`{-~]")
_object: Final = msgspec.json.Decoder(dict)
Test = Callable[[dict[str, str]], bool]


@dataclass(frozen=True, slots=True)
class Labelled:
    """A log as Loki shows it."""

    log: Log
    stream: dict[str, str]
    metadata: dict[str, str]
    parsed: dict[str, str]

    @property
    def all(self) -> dict[str, str]:
        """Its labels in one."""
        return {**self.stream, **self.metadata, **self.parsed}


@dataclass(frozen=True, slots=True)
class Plan:
    """A compiled query for logs."""

    predicate: Predicate
    steps: tuple[Parser | Test | Keep, ...]
    """What is asked of each log's labels, in order."""

    @property
    def is_exact(self) -> bool:
        """Whether every log that matches the predicate is one of the result."""
        return not any(callable(step) and not isinstance(step, (Parser, Keep)) for step in self.steps)

    @property
    def has_parsers(self) -> bool:
        """Whether labels come out of lines."""
        return any(isinstance(step, Parser) for step in self.steps)

    @property
    def keeps_streams(self) -> bool:
        """Whether every log still has the labels of its stream."""
        keeps = [step for step in self.steps if isinstance(step, Keep)]
        return not any((name in keep.names) == keep.is_negated for keep in keeps for name in (LEVEL, SERVICE))

    def labelled(self, log: Log) -> Labelled | None:
        """The log with its labels; None: it is none of the result."""
        found = Labelled(log, stream_of(log), metadata_of(log), {})
        for step in self.steps:
            if isinstance(step, Parser):
                _parse(step, found)
            elif isinstance(step, Keep):
                _keep(step, found)
            elif not step(found.all):
                return None
        return found


def needs_services(query: LogQuery) -> bool:
    """Whether `plan` has to know which services there are."""
    conditions = [stage for stage in query.stages if isinstance(stage, (Compare, AllOf, AnyOf))]
    return any(map(_needs_services, [*query.matchers, *conditions]))


def _needs_services(condition: Condition) -> bool:
    if isinstance(condition, Compare):
        return asks_for_services(condition)
    return any(map(_needs_services, condition.parts))


def plan(query: LogQuery, services: Sequence[str] = ()) -> Plan:
    """services: that may be read, where `needs_services`. Raises LogQLError."""
    predicates: list[Predicate] = []
    steps: list[Parser | Test | Keep] = []
    is_parsed = is_dropped = False

    def add(condition: Condition) -> None:
        predicate = None if is_dropped else _pushed(condition, services, is_parsed=is_parsed)
        if predicate is None:
            steps.append(_test(condition))
        else:
            predicates.append(predicate)

    for matcher in query.matchers:
        add(matcher)
    for stage in query.stages:
        match stage:
            case LineFilter():
                predicates.append(_line(stage))
            case Parse(parser):
                steps.append(parser)
                is_parsed = True
            case Keep():
                steps.append(stage)
                is_dropped = is_dropped or not stage.is_negated or bool(stage.names - _ERRORS)
            case _:
                add(stage)
    return Plan(all_of(*predicates), tuple(steps))


def _pushed(condition: Condition, services: Sequence[str], *, is_parsed: bool) -> Predicate | None:
    """As a condition on records; None: only labels can tell."""
    match condition:
        case Compare(name):
            # What a parser finds under these names gets another one.
            if is_parsed and name not in (LEVEL, SERVICE):
                return None
            return predicate_of(condition, services)
        case AllOf(parts) | AnyOf(parts):
            pushed = [_pushed(part, services, is_parsed=is_parsed) for part in parts]
            known = [part for part in pushed if part is not None]
            if len(known) < len(pushed):
                return None
            return all_of(*known) if isinstance(condition, AllOf) else any_of(*known)


def _line(stage: LineFilter) -> Predicate:
    """Case counts, so a text is an expression: the search's own texts are found in either case."""
    choices: list[Predicate] = []
    for text in stage.texts:
        if text == "" or (stage.is_regex and text in (".*", ".+")):
            choices.append(EVERYTHING)
            continue
        try:
            choices.append(Matches(parse_pattern(text if stage.is_regex else _escaped(text))))
        except RegexError as error:
            raise LogQLError(f"in the line filter, {error}", stage.column) from error
    found = any_of(*choices)
    return negate(found) if stage.is_negated else found


def _escaped(text: str) -> str:
    return _PUNCTUATION.sub(r"\\\g<0>", text)


# --- labels of lines ----------------------------------------------------------------------------------------------


def _parse(parser: Parser, found: Labelled) -> None:
    """Add what the line says. A label that the stream has already gets `_extracted` behind its name."""
    line = found.log.message
    taken: dict[str, str] = {}
    if len(line) > LINE_CHARS_MAX:
        found.parsed.setdefault(ERROR, "LineTooLong")
        return
    if parser is Parser.JSON:
        try:
            flatten(_object.decode(line), taken)
        except (msgspec.MsgspecError, ValueError, RecursionError):
            found.parsed.setdefault(ERROR, "JSONParserErr")
    else:
        for pair in _LOGFMT.finditer(line):
            if len(taken) >= PARSED_MAX:
                break
            quoted, plain = pair[2], pair[3]
            value = plain if quoted is None else quoted.replace('\\"', '"').replace("\\\\", "\\")
            if value:
                taken.setdefault(label_name(pair[1]), value)
    for name, value in taken.items():
        if name in found.stream or name in found.metadata:
            name = f"{name}_extracted"
        found.parsed.setdefault(name, value)


def _keep(step: Keep, found: Labelled) -> None:
    for labels in (found.stream, found.metadata, found.parsed):
        for name in list(labels):
            if (name in step.names) == step.is_negated:
                del labels[name]


# --- conditions on labels -----------------------------------------------------------------------------------------


def _test(condition: Condition) -> Test:
    match condition:
        case Compare():
            return _compares(condition)
        case AllOf(parts):
            tests = [_test(part) for part in parts]
            return lambda labels: all(test(labels) for test in tests)
        case AnyOf(parts):
            tests = [_test(part) for part in parts]
            return lambda labels: any(test(labels) for test in tests)


def _compares(compare: Compare) -> Test:
    name, value = compare.name, compare.value
    if isinstance(value, str):
        if compare.op in ("=~", "!~"):
            regex = Regex(compare)
            is_wanted = compare.op == "=~"
            return lambda labels: regex.matches(looked_up(labels, name)) == is_wanted
        wanted = _level_name(value) if is_level(name) else value
        is_equal = compare.op == "="
        return lambda labels: (looked_up(labels, name) == wanted) == is_equal
    number = value
    tests: dict[str, Callable[[float], bool]] = {
        "=": lambda found: found == number,
        "!=": lambda found: found != number,
        ">": lambda found: found > number,
        ">=": lambda found: found >= number,
        "<": lambda found: found < number,
        "<=": lambda found: found <= number,
    }
    holds = tests[compare.op]

    def test(labels: dict[str, str]) -> bool:
        found = _quantity(looked_up(labels, name))
        return found is not None and holds(found)

    return test


def _level_name(text: str) -> str:
    try:
        return level_name(parse_level(text)).lower()
    except ValueError:
        return text


def _quantity(text: str) -> float | None:
    """A number, or seconds, or bytes."""
    if not text or len(text) > 40:
        return None
    try:
        return float(text)
    except ValueError:
        seconds = parse_duration_s(text)
        return seconds if seconds is not None else parse_bytes(text)


# --- groups -------------------------------------------------------------------------------------------------------


def grouped(labels: dict[str, str], names: Sequence[str]) -> tuple[tuple[str, str], ...]:
    """The labels that a sum keeps; those that a log lacks are left out."""
    return tuple((name, value) for name in names if (value := looked_up(labels, name)))


def is_of_stream(name: str) -> bool:
    """Whether the label is one of the stream's."""
    return is_level(name) or name == SERVICE
