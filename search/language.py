"""The query language of the search box and of `query=`: text to predicate.

    query  = or                              timeout OR "connection refused"
    or     = and *("OR" and)                 adjacent terms are joined by AND, which binds tighter than OR
    and    = unary *(["AND"] unary)
    unary  = ("-" / "NOT") unary / "(" or ")" / term
    term   = word / phrase / regex / field   timeout, "two words", /time(d )?out/i, level>=warn, user.id:42
    phrase = DQUOTE *(char / "\\" DQUOTE / "\\\\") DQUOTE
    regex  = "/" *(char / "\\/") "/" ["i"]
    field  = name (":" / ">" / ">=" / "<" / "<=") (word / phrase)

Pure and linear in the query's length. Limits: 4,000 characters, 200 terms, 50 levels. Errors name the column, what was
expected and, where one can be guessed, what to write instead. docs/query-language.md is the user's page.
"""

from __future__ import annotations

import contextlib
import difflib
import re
from collections.abc import Callable
from decimal import Decimal
from typing import Final, Literal, TypeAlias

from patterns.expression import InvalidPattern, parse_id
from schemas.errors import InvalidInput
from schemas.levels import LEVELS, SEVERITY_MAX, band
from schemas.record import CORRELATION_ID_CHARS_MAX, is_service_name
from search.numbers import parse_number
from search.predicate import (
    EVERYTHING,
    ID_MAX,
    NOTHING,
    PATH_PARTS_MAX,
    Comparison,
    Contains,
    CorrelationIs,
    CorrelationPresent,
    FieldPresent,
    IdRange,
    LevelIn,
    Matches,
    MetaCompare,
    MetaEquals,
    MinLevel,
    Predicate,
    ServiceIn,
    all_of,
    any_of,
    negate,
)
from search.regex import RegexError, parse_pattern
from search.template import lines_of

QUERY_CHARS_MAX: Final = 4_000
TERMS_MAX: Final = 200
DEPTH_MAX: Final = 50

Operator: TypeAlias = Comparison | Literal[":"]
TemplateText: TypeAlias = Callable[[int], str | None]
"""The text of the pattern with an id; None when it is not known."""


class QueryError(InvalidInput):
    """The query is not in the query language."""

    def __init__(self, problem: str, *, column: int, length: int = 1, hint: str | None = None) -> None:
        """problem: without the place. column, length: the characters it is about, column 1-based, length at least 1.
        hint: what to write instead."""
        super().__init__(f"column {column}: {problem}" + (f"; {hint}" if hint else ""))
        self.problem, self.column, self.length, self.hint = problem, column, length, hint


def no_template(template_id: int) -> None:
    """For who knows no pattern by its id."""


def pattern_ids(text: str) -> set[int]:
    """The ids that `pattern:ID` terms of a query name, for who has to look their texts up before `parse`. Of a query with a
    mistake, those before it."""
    found: set[int] = set()

    def noted(template_id: int) -> str:
        found.add(template_id)
        return ""

    if "pattern" in text.lower():
        with contextlib.suppress(QueryError):
            parse(text, template_text=noted)
    return found


def parse(text: str, *, template_text: TemplateText = no_template) -> Predicate:
    """The predicate of a query; an empty query is true of everything. Raises QueryError.

    template_text: what `pattern:ID` stands for.
    """
    if len(text) > QUERY_CHARS_MAX:
        problem = f"a query has at most {QUERY_CHARS_MAX:,} characters, this one has {len(text):,}"
        raise QueryError(problem, column=QUERY_CHARS_MAX + 1, length=len(text) - QUERY_CHARS_MAX)
    for index, char in enumerate(text):
        if char == "\0" or "\ud800" <= char <= "\udfff":
            raise QueryError(f"U+{ord(char):04X} does not occur in logs", column=index + 1)
    return _Parser(text, template_text).whole()


def parse_service(text: str) -> ServiceIn | None:
    """One service: a name, or a prefix with * at its end. None when the text is neither."""
    if text.endswith("*") and is_service_name(text[:-1]):
        return ServiceIn(prefixes=frozenset((text[:-1],)))
    return ServiceIn(frozenset((text,))) if is_service_name(text) else None


def level_hint(text: str) -> str:
    """What somebody who wrote this may have meant, or what levels there are."""
    spellings = [name.lower() for name in LEVELS] + ["warning", "critical", "information"]
    close = difflib.get_close_matches(text.lower()[:20], spellings, n=1)
    return f"did you mean {close[0]}?" if close else f"levels are {', '.join(LEVELS)}"


def parse_path(name: str) -> tuple[str, ...]:
    """The parts of a metadata field's dotted name. Raises ValueError with a message for people."""
    FieldPresent(path := tuple(name.split(".")))  # checks
    return path


_SPACE: Final = re.compile(r"\s*")
_KEYWORD: Final = re.compile(r"(OR|AND|NOT)(?=[\s()\"]|\Z)")
# `::` (std::vector) and `://` (https://…) belong to text, not to a field.
_FIELD: Final = re.compile(r"([A-Za-z_@](?:[A-Za-z0-9_@./-]*[A-Za-z0-9_@])?)(:(?!:|//)(?:>=|<=|>|<)?|>=|<=|>|<)")
_NEGATION: Final = re.compile(r"-(?=[\w(\"/@])")
_QUOTE_HINT: Final = 'to search for this text, put it in "quotes"'


class _Parser:
    """Recursive descent over one text; `at` is the 0-based index of the next character."""

    def __init__(self, text: str, template_text: TemplateText) -> None:
        self.text, self.at, self.terms, self.depth = text, 0, 0, 0
        self.template_text = template_text

    def whole(self) -> Predicate:
        self.skip_space()
        if self.at == len(self.text):
            return EVERYTHING
        predicate = self.either()
        if self.at < len(self.text):
            raise self.error("this ) closes nothing", self.at, hint=_QUOTE_HINT)
        return predicate

    def either(self) -> Predicate:
        branches = [self.both()]
        while self.keyword("OR"):
            branches.append(self.both())
        return any_of(*branches)

    def both(self) -> Predicate:
        parts = [self.unary()]
        while True:
            self.skip_space()
            if self.keyword("AND"):
                parts.append(self.unary())
            elif self.at == len(self.text) or self.text[self.at] == ")" or self.next_keyword() == "OR":
                return all_of(*parts)
            else:
                parts.append(self.unary())

    def unary(self) -> Predicate:
        self.skip_space()
        start = self.at
        if (word := self.next_keyword()) in ("OR", "AND"):
            raise self.error(
                f"expected a term before {word}", start, len(word), f'to search for the word, write "{word}"'
            )
        if start == len(self.text):
            raise self.error("expected a term here", start)
        char = self.text[start]
        if char == ")":
            raise self.error("expected a term before this )", start)
        if self.keyword("NOT"):
            return negate(self.deeper(start))
        if _NEGATION.match(self.text, start):
            self.at += 1
            return negate(self.deeper(start))
        if char == "(":
            return self.group(start)
        return self.term(start)

    def deeper(self, start: int) -> Predicate:
        self.enter(start)
        predicate = self.unary()
        self.depth -= 1
        return predicate

    def group(self, start: int) -> Predicate:
        self.enter(start)
        self.at += 1
        predicate = self.either()
        if self.text[self.at : self.at + 1] != ")":
            raise self.error("expected ) to close this (", start)
        self.at += 1
        self.depth -= 1
        return predicate

    def enter(self, start: int) -> None:
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise self.error(f"at most {DEPTH_MAX} brackets and negations inside one another", start)

    def term(self, start: int) -> Predicate:
        self.terms += 1
        if self.terms > TERMS_MAX:
            raise self.error(f"a query has at most {TERMS_MAX} terms", start)
        if self.text[start] == '"':
            return Contains(self.phrase_of_text())
        if self.text[start] == "/":
            return self.regex()
        if (match := _FIELD.match(self.text, start)) is not None:
            self.at = match.end()
            operator = match[2] if len(match[2]) == 1 else match[2].lstrip(":")
            return self.field(match[1], operator, start)
        return Contains(self.word())

    def field(self, name: str, operator: str, start: int) -> Predicate:
        """The value after a field's name and operator; `at` is where it begins."""
        reader = _Field(self, name, operator, start)
        match name.lower():
            case "level":
                return reader.level()
            case "service" | "service_name":
                return reader.service()
            case "correlation" | "correlation_id":
                return reader.correlation()
            case "id":
                return reader.log_id()
            case "message":
                return reader.message()
            case "pattern":
                return reader.pattern()
            case "timestamp":
                hint = "use start_time and end_time; a metadata field of this name is metadata.timestamp"
                raise self.error("times are not part of a query", start, len(name), hint)
        return reader.metadata()

    def word(self) -> str:
        """Characters to the next space, or to a ) whose ( is not in the word."""
        start, opened = self.at, 0
        while self.at < len(self.text) and not (char := self.text[self.at]).isspace():
            opened += (char == "(") - (char == ")")
            if opened < 0:
                break
            self.at += 1
        return self.text[start : self.at]

    def phrase(self) -> str:
        start, chars = self.at, []
        self.at += 1
        while self.text[self.at : self.at + 1] != '"':
            if self.at >= len(self.text):
                raise self.error('expected " to close this phrase', start)
            if self.text[self.at] == "\\" and self.text[self.at + 1 : self.at + 2] in ('"', "\\"):
                self.at += 1
            chars.append(self.text[self.at])
            self.at += 1
        self.at += 1
        self.expect_end_of_term('write \\" for a quotation mark inside a phrase')
        return "".join(chars)

    def phrase_of_text(self) -> str:
        start = self.at
        text = self.phrase()
        if text == "":
            raise self.error("expected text between the quotation marks", start, 2)
        return text

    def regex(self) -> Predicate:
        start = self.at
        hint = 'to search for text that begins with /, put it in "quotes"'
        end = start + 1
        while self.text[end : end + 1] != "/":
            if end >= len(self.text):
                raise self.error("expected / to close this regular expression", start, hint=hint)
            end += 2 if self.text[end] == "\\" else 1
        source = self.text[start + 1 : end]
        if source == "":
            raise self.error("expected a regular expression between the two /", start, 2, hint)
        self.at = end + 1
        ignore_case = self.text[self.at : self.at + 1] == "i"
        self.at += ignore_case
        self.expect_end_of_term(f"write \\/ for a / inside a regular expression; {hint}")
        try:
            return Matches(parse_pattern(source, ignore_case=ignore_case))
        except RegexError as error:
            problem = f"in the regular expression: {error.problem}"
            raise QueryError(problem, column=start + 1 + error.column) from error

    def expect_end_of_term(self, hint: str) -> None:
        if self.at < len(self.text) and not (self.text[self.at].isspace() or self.text[self.at] == ")"):
            raise self.error("expected a space after the term", self.at, hint=hint)

    def skip_space(self) -> None:
        if (match := _SPACE.match(self.text, self.at)) is not None:
            self.at = match.end()

    def next_keyword(self) -> str | None:
        match = _KEYWORD.match(self.text, self.at)
        return None if match is None else match[1]

    def keyword(self, word: str) -> bool:
        """Step over the keyword when it is next."""
        self.skip_space()
        if self.next_keyword() != word:
            return False
        self.at += len(word)
        return True

    def error(self, problem: str, start: int, length: int = 1, hint: str | None = None) -> QueryError:
        return QueryError(problem, column=start + 1, length=max(length, 1), hint=hint)


class _Field:
    """Reads one field's value and makes its predicate."""

    def __init__(self, parser: _Parser, name: str, operator: str, start: int) -> None:
        self.parser, self.name, self.operator, self.start = parser, name, operator, start
        self.value_at = parser.at
        self.quoted = parser.text[parser.at : parser.at + 1] == '"'

    def level(self) -> Predicate:
        value = self.value()
        if self.is_star(value):
            return EVERYTHING
        if self.operator == ":":
            return LevelIn(tuple(self.band(piece, offset) for piece, offset in self.pieces(value)))
        least, greatest = self.band(value, 0)
        match self.operator:
            case ">=":
                return MinLevel(least)
            case ">":
                return MinLevel(greatest + 1) if greatest < SEVERITY_MAX else NOTHING
            case "<":
                return LevelIn(((1, least - 1),)) if least > 1 else NOTHING
        return LevelIn(((1, greatest),))

    def service(self) -> Predicate:
        self.only_colon()
        value = self.value()
        if self.is_star(value):
            return EVERYTHING
        names: frozenset[str] = frozenset()
        prefixes: frozenset[str] = frozenset()
        for piece, offset in self.pieces(value):
            if (services := parse_service(piece)) is None:
                hint = "a service name is 1 to 100 of A-Z a-z 0-9 . _ - /, a prefix has one * at its end"
                raise self.error(f"{piece!r} is not a service name", offset, len(piece), hint)
            names, prefixes = names | services.names, prefixes | services.prefixes
        return ServiceIn(names, prefixes)

    def correlation(self) -> Predicate:
        self.only_colon()
        value = self.value()
        if self.is_star(value):
            return CorrelationPresent()
        if len(value) > CORRELATION_ID_CHARS_MAX:
            raise self.error(f"a correlation id has at most {CORRELATION_ID_CHARS_MAX} characters", 0, len(value))
        return CorrelationIs(value)

    def log_id(self) -> Predicate:
        value = self.value()
        if not (value.isascii() and value.isdigit() and len(value) <= 19 and int(value) <= ID_MAX):
            raise self.error(f"expected an id, a whole number up to {ID_MAX}", 0, len(value))
        number = int(value)
        match self.operator:
            case ":":
                return IdRange(number, number)
            case ">=":
                return IdRange(first=number)
            case ">":
                return IdRange(first=number + 1) if number < ID_MAX else NOTHING
            case "<":
                return IdRange(last=number - 1) if number > 0 else NOTHING
        return IdRange(last=number)

    def message(self) -> Predicate:
        self.only_colon()
        if self.parser.text[self.value_at : self.value_at + 1] == "/":
            return self.parser.regex()
        if self.quoted:
            return Contains(self.parser.phrase_of_text())
        value = self.value()
        return EVERYTHING if self.is_star(value) else Contains(value)

    def pattern(self) -> Predicate:
        self.only_colon()
        value = self.value()
        if self.is_star(value):
            return EVERYTHING
        template_id = None if self.quoted else parse_id(value)
        text = value if template_id is None else self.parser.template_text(template_id)
        if text is None:
            hint = 'write its text instead: pattern:"job <num> done"'
            raise self.error(f"no pattern with the id {value} is known", 0, len(value), hint)
        try:
            return lines_of(text)
        except InvalidPattern as error:
            raise self.error(str(error), 0, len(value)) from error

    def metadata(self) -> Predicate:
        name = self.name.removeprefix("metadata.")
        try:
            path = parse_path(name)
        except ValueError as error:
            hint = f"a field name is up to {PATH_PARTS_MAX} parts with dots between; {_QUOTE_HINT}"
            raise self.parser.error(str(error), self.start, len(self.name), hint) from error
        value = self.value()
        if self.operator == ":":
            if self.is_star(value):
                return FieldPresent(path)
            if value.endswith("*") and not self.quoted:
                hint = f'to look for the character, write {self.name}:"{value}"'
                raise self.error("a prefix with * works for service only", len(value) - 1, 1, hint)
            return MetaEquals(path, value)
        return MetaCompare(path, self.comparison(), self.number(value))

    def value(self) -> str:
        if self.quoted:
            return self.parser.phrase()
        value = self.parser.word()
        if value == "":
            written = self.parser.text[self.start : self.value_at]
            raise self.parser.error(f"expected a value after {written!r}", self.value_at, 1, f"{_QUOTE_HINT}")
        return value

    def pieces(self, value: str) -> list[tuple[str, int]]:
        """The parts between commas, each with its offset in the value."""
        pieces, offset = [], 0
        for piece in value.split(","):
            if piece == "":
                raise self.error("expected a value on each side of the comma", offset)
            pieces.append((piece, offset))
            offset += len(piece) + 1
        return pieces

    def band(self, text: str, offset: int) -> tuple[int, int]:
        try:
            return band(text)
        except ValueError as error:
            raise self.error(f"{text!r} is not a level", offset, len(text), level_hint(text)) from error

    def number(self, value: str) -> Decimal:
        number = parse_number(value)
        if number is None:
            raise self.error(f"expected a number after {self.operator!r}", 0, len(value), _QUOTE_HINT)
        return number

    def comparison(self) -> Comparison:
        match self.operator:
            case ">" | ">=" | "<" | "<=":
                return self.operator
        raise AssertionError(f"not a comparison: {self.operator}")

    def only_colon(self) -> None:
        if self.operator != ":":
            raise self.parser.error(
                f"{self.name} cannot be compared with {self.operator}; write {self.name}:value",
                self.start,
                self.value_at - self.start,
            )

    def is_star(self, value: str) -> bool:
        return value == "*" and not self.quoted and self.operator == ":"

    def error(self, problem: str, offset: int, length: int = 1, hint: str | None = None) -> QueryError:
        """An error at an offset in the value."""
        return self.parser.error(problem, self.value_at + self.quoted + offset, length, hint)
