"""Reads LogQL's subset: text to `query.loki.syntax`. docs/grafana.md is the user's page.

    query    = logs / metric / constant
    logs     = "{" [matcher *("," matcher)] "}" *stage
    matcher  = label ("=" / "!=" / "=~" / "!~") string
    stage    = ("|=" / "!=" / "|~" / "!~") string *("or" string)
             / "|" ("json" / "logfmt" / ("drop" / "keep") label *("," label) / condition)
    metric   = measure "(" logs "[" duration "]" ["offset" duration] ")" / "sum" [by] "(" metric ")" [by]
    by       = "by" "(" [label *("," label)] ")"
    constant = number / "vector" "(" number ")", joined by + - * /

Pure and linear in the query's length. Everything else of LogQL is refused with the column, and where it helps with what to do
instead. Source: grafana/loki, pkg/logql/syntax.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Final, NamedTuple, cast

from query.loki.syntax import (
    AllOf,
    AnyOf,
    Compare,
    Condition,
    Constant,
    Keep,
    LineFilter,
    LogQLError,
    LogQuery,
    Measure,
    MetricQuery,
    Op,
    Parse,
    Parser,
    Query,
    Stage,
)

QUERY_CHARS_MAX: Final = 8_000
TERMS_MAX: Final = 200
DEPTH_MAX: Final = 50
RANGE_DAYS_MAX: Final = 400

_TOKEN: Final = re.compile(
    r"""(?P<space>(?:\s+|\#[^\n]*)+)
    |(?P<string>"(?:[^"\\\n]|\\.)*+"|`[^`]*+`)
    |(?P<number>[0-9][0-9A-Za-z.µ]*)
    |(?P<name>[A-Za-z_][A-Za-z0-9_:]*)
    |(?P<sign>\|=|\|~|\|>|!=|!~|!>|=~|==|>=|<=|[|=<>{}()\[\],+*/%^-])""",
    re.VERBOSE,
)
_ESCAPE: Final = re.compile(r"\\(?:x([0-9a-fA-F]{2})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|([0-7]{3})|(.))", re.DOTALL)
_ESCAPED: Final = {
    "n": "\n",
    "t": "\t",
    "r": "\r",
    "a": "\a",
    "b": "\b",
    "f": "\f",
    "v": "\v",
    "\\": "\\",
    '"': '"',
    "'": "'",
}
_DURATION: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)(ns|us|µs|ms|s|m|h|d|w|y)")
_UNIT_S: Final = {
    "ns": 1e-9,
    "us": 1e-6,
    "µs": 1e-6,
    "ms": 1e-3,
    "s": 1.0,
    "m": 60.0,
    "h": 3_600.0,
    "d": 86_400.0,
    "w": 604_800.0,
    "y": 31_536_000.0,
}
_BYTES: Final = re.compile(r"([0-9]{1,15}(?:\.[0-9]{1,15})?)([kmgtp]?i?b)", re.IGNORECASE)
_POWERS: Final = "bkmgtp"
_NUMBER: Final = re.compile(r"[0-9]{1,30}(?:\.[0-9]{1,30})?(?:[eE][0-9]{1,2})?")
_LINE_OPS: Final = ("|=", "!=", "|~", "!~")
_LABEL_OPS: Final = ("=", "==", "!=", "=~", "!~", ">", ">=", "<", "<=")
_UNSUPPORTED_STAGES: Final = frozenset(
    {
        "pattern",
        "regexp",
        "unpack",
        "line_format",
        "label_format",
        "unwrap",
        "decolorize",
        "distinct",
    }
)
_UNSUPPORTED: Final = "is not supported here: docs/grafana.md lists what is"
_MEASURES: Final = {measure.value: measure for measure in Measure}


class _Token(NamedTuple):
    kind: str
    text: str
    at: int
    """0-based."""


def parse(text: str) -> Query:
    """The query. Raises LogQLError."""
    if len(text) > QUERY_CHARS_MAX:
        raise LogQLError(f"a query has at most {QUERY_CHARS_MAX:,} characters", QUERY_CHARS_MAX + 1)
    return _Reader(text, _tokens(text)).whole()


def parse_logs(text: str) -> LogQuery:
    """A query for logs. Raises LogQLError, also for other queries."""
    query = parse(text)
    if not isinstance(query, LogQuery):
        raise LogQLError('expected a query for logs, such as {app="shop"}', 1)
    return query


def parse_duration_s(text: str) -> float | None:
    """Seconds of `5m`, `1h30m`, `250ms`; None: it is no duration."""
    at, seconds = 0, 0.0
    while at < len(text):
        found = _DURATION.match(text, at)
        if found is None:
            return None
        seconds += float(found[1]) * _UNIT_S[found[2]]
        at = found.end()
    return seconds if text else None


def _tokens(text: str) -> list[_Token]:
    tokens: list[_Token] = []
    at = 0
    while at < len(text):
        found = _TOKEN.match(text, at)
        if found is None:
            what = "this string never ends" if text[at] in '"`' else f"{text[at]!r} means nothing here"
            raise LogQLError(what, at + 1)
        kind = found.lastgroup or ""
        if kind != "space":
            tokens.append(_Token(kind, found.group(), at))
        at = found.end()
    tokens.append(_Token("end", "", len(text)))
    return tokens


class _Reader:
    """Recursive descent over the tokens of one query."""

    def __init__(self, text: str, tokens: list[_Token]) -> None:
        self.text, self.tokens, self.place = text, tokens, 0
        self.terms = self.depth = 0

    # --- tokens ---

    @property
    def next(self) -> _Token:
        return self.tokens[self.place]

    def take(self) -> _Token:
        token = self.next
        self.place += token.kind != "end"
        return token

    def is_at(self, *texts: str) -> bool:
        return self.next.kind in ("sign", "name") and self.next.text in texts

    def accept(self, *texts: str) -> _Token | None:
        return self.take() if self.is_at(*texts) else None

    def expect(self, text: str, why: str = "") -> _Token:
        found = self.accept(text)
        if found is None:
            raise self.error(f"expected {text}{why}")
        return found

    def error(self, problem: str, token: _Token | None = None) -> LogQLError:
        token = token or self.next
        found = "" if token.kind == "end" else f", got {token.text[:40]!r}"
        return LogQLError(problem + (found if problem.startswith("expected") else ""), token.at + 1)

    def deeper(self) -> None:
        self.depth += 1
        if self.depth > DEPTH_MAX:
            raise self.error(f"brackets are nested more than {DEPTH_MAX} deep")

    def term(self) -> None:
        self.terms += 1
        if self.terms > TERMS_MAX:
            raise self.error(f"a query has at most {TERMS_MAX} conditions")

    # --- queries ---

    def whole(self) -> Query:
        if self.next.kind == "end":
            raise self.error('the query is empty: {service_name="shop"} asks for logs of a service')
        query = self.sum()
        if self.next.kind != "end":
            raise self.error("expected the query to end here")
        return query

    def sum(self) -> Query:
        return self.joined(self.product, "+", "-")

    def product(self) -> Query:
        return self.joined(self.primary, "*", "/")

    def joined(self, part: Callable[[], Query], *signs: str) -> Query:
        found = part()
        while sign := self.accept(*signs):
            other = part()
            if not isinstance(found, Constant) or not isinstance(other, Constant):
                raise self.error(f"to join results by {sign.text} {_UNSUPPORTED}", sign)
            found = Constant(_calculated(sign.text, found.value, other.value), found.is_vector or other.is_vector)
        return found

    def primary(self) -> Query:
        token = self.next
        if token.kind == "number":
            self.take()
            return Constant(self.number(token), False)
        if self.is_at("{"):
            return self.logs()
        if self.accept("("):
            self.deeper()
            query = self.sum()
            self.expect(")", " to close this bracket")
            self.depth -= 1
            return LogQuery(query.matchers, query.stages + self.stages()) if isinstance(query, LogQuery) else query
        if token.kind != "name":
            raise self.error('expected {label="value"} or a function such as count_over_time')
        self.take()
        if token.text == "vector":
            self.expect("(")
            value = self.number(self.take())
            self.expect(")")
            return Constant(value, True)
        if token.text == "sum":
            return self.summed(token)
        measure = _MEASURES.get(token.text)
        if measure is None:
            raise LogQLError(f"{token.text} {_UNSUPPORTED}", token.at + 1)
        return self.measured(measure)

    def number(self, token: _Token) -> float:
        if token.kind != "number" or _NUMBER.fullmatch(token.text) is None:
            raise self.error("expected a number", token)
        return float(token.text)

    def summed(self, token: _Token) -> MetricQuery:
        by = self.by()
        self.expect("(", " after sum")
        self.deeper()
        inner = self.sum()
        self.depth -= 1
        self.expect(")", " to close sum")
        by = by if by is not None else self.by()
        if not isinstance(inner, MetricQuery) or inner.by is not None:
            raise LogQLError(f"sum of this {_UNSUPPORTED}: sum (count_over_time({{…}}[5m])) is", token.at + 1)
        return MetricQuery(inner.measure, inner.logs, inner.range_us, inner.offset_us, by or ())

    def by(self) -> tuple[str, ...] | None:
        if self.is_at("without"):
            raise self.error(f"without {_UNSUPPORTED}: say by which labels")
        if not self.accept("by"):
            return None
        self.expect("(", " after by")
        names: list[str] = []
        while not self.accept(")"):
            if names:
                self.expect(",")
            names.append(self.name())
        return tuple(dict.fromkeys(names))

    def name(self) -> str:
        token = self.take()
        if token.kind != "name":
            raise self.error("expected a label's name", token)
        self.term()
        return token.text

    def measured(self, measure: Measure) -> MetricQuery:
        self.expect("(")
        self.deeper()
        selected = self.logs_in_brackets()
        begin = self.expect("[", " with a range, such as [5m]")
        range_us = self.duration_us(begin)
        self.expect("]")
        stages = selected.stages + self.stages()
        offset_us = self.duration_us(self.next) if self.accept("offset") else 0
        self.depth -= 1
        self.expect(")", f" to close {measure.value}")
        if self.is_at("by", "without"):
            raise self.error(
                f"{self.next.text} of {measure.value} {_UNSUPPORTED}: write sum by (…) ({measure.value}(…))"
            )
        return MetricQuery(measure, LogQuery(selected.matchers, stages), range_us, offset_us)

    def logs_in_brackets(self) -> LogQuery:
        if self.accept("("):
            self.deeper()
            query = self.logs_in_brackets()
            self.expect(")")
            self.depth -= 1
            return LogQuery(query.matchers, query.stages + self.stages())
        return self.logs()

    def duration_us(self, place: _Token) -> int:
        token = self.take()
        seconds = parse_duration_s(token.text) if token.kind == "number" else None
        if seconds is None:
            raise self.error("expected a duration such as 5m", token)
        us = round(seconds * 1e6)
        if not 1_000 <= us <= RANGE_DAYS_MAX * 86_400_000_000:
            raise LogQLError(f"a duration is 1ms to {RANGE_DAYS_MAX}d", place.at + 1)
        return us

    # --- logs ---

    def logs(self) -> LogQuery:
        self.expect("{", ' such as {service_name="shop"}')
        matchers: list[Compare] = []
        while not self.accept("}"):
            if matchers:
                self.expect(",", " or }")
                if self.accept("}"):
                    break
            token = self.next
            name = self.name()
            op = self.take()
            if op.text not in ("=", "!=", "=~", "!~") or op.kind != "sign":
                raise self.error("expected = != =~ or !~", op)
            matchers.append(Compare(name, cast(Op, op.text), self.string(), token.at + 1))
        return LogQuery(tuple(matchers), self.stages())

    def stages(self) -> tuple[Stage, ...]:
        stages: list[Stage] = []
        while True:
            if self.is_at(*_LINE_OPS):
                stages.append(self.line_filter())
            elif self.is_at("|>", "!>"):
                raise self.error(f"{self.next.text} {_UNSUPPORTED}")
            elif self.accept("|"):
                stages.append(self.stage())
            else:
                return tuple(stages)

    def line_filter(self) -> LineFilter:
        op = self.take()
        if self.is_at("ip"):
            raise self.error(f"ip() {_UNSUPPORTED}")
        texts = [self.string()]
        while self.accept("or"):
            texts.append(self.string())
        return LineFilter(op.text[1] == "~", op.text[0] == "!", tuple(texts), op.at + 1)

    def stage(self) -> Stage:
        token = self.next
        following = self.tokens[min(self.place + 1, len(self.tokens) - 1)]
        is_condition = following.kind == "sign" and following.text in _LABEL_OPS
        # `| json != "x"` is a parser and a line filter; a label called json is none that anybody compares like that.
        if token.kind == "name" and (not is_condition or token.text in ("json", "logfmt")):
            if token.text in ("json", "logfmt"):
                self.take()
                if self.next.kind == "name" or self.is_at("-"):
                    raise self.error(
                        f"expressions and flags of {token.text} are not supported here: all fields are taken"
                    )
                return Parse(Parser(token.text))
            if token.text in ("drop", "keep"):
                self.take()
                return self.kept(is_negated=token.text == "drop")
            if token.text in _UNSUPPORTED_STAGES:
                raise self.error(f"{token.text} {_UNSUPPORTED}")
        return self.either()

    def kept(self, *, is_negated: bool) -> Keep:
        names = {self.name()}
        while True:
            if self.is_at(*_LABEL_OPS) and not self.is_at("!=", "!~"):
                raise self.error("drop and keep take names alone here, no values")
            if not self.accept(","):
                return Keep(frozenset(names), is_negated)
            names.add(self.name())

    # --- conditions ---

    def either(self) -> Condition:
        parts = [self.both()]
        while self.accept("or"):
            parts.append(self.both())
        return parts[0] if len(parts) == 1 else AnyOf(tuple(parts))

    def both(self) -> Condition:
        parts = [self.condition()]
        while (
            self.accept("and", ",") or (self.next.kind == "name" and not self.is_at("or", "offset")) or self.is_at("(")
        ):
            parts.append(self.condition())
        return parts[0] if len(parts) == 1 else AllOf(tuple(parts))

    def condition(self) -> Condition:
        if self.accept("("):
            self.deeper()
            found = self.either()
            self.expect(")", " to close this bracket")
            self.depth -= 1
            return found
        token = self.next
        name = self.name()
        op = self.take()
        if op.kind != "sign" or op.text not in _LABEL_OPS:
            raise self.error("expected a comparison such as = or >=", op)
        sign = cast(Op, "=" if op.text == "==" else op.text)
        if self.next.kind == "string":
            if sign in (">", ">=", "<", "<="):
                raise self.error(f"expected a number after {sign}")
            return Compare(name, sign, self.string(), token.at + 1)
        if self.is_at("ip"):
            raise self.error(f"ip() {_UNSUPPORTED}")
        if sign in ("=~", "!~"):
            raise self.error("expected a string")
        minus = -1.0 if self.accept("-") else 1.0
        return Compare(name, sign, minus * self.quantity(), token.at + 1)

    def quantity(self) -> float:
        token = self.take()
        if token.kind == "number":
            if _NUMBER.fullmatch(token.text):
                return float(token.text)
            if (seconds := parse_duration_s(token.text)) is not None:
                return seconds
            if (size := parse_bytes(token.text)) is not None:
                return size
        raise self.error("expected a string, a number, a duration such as 250ms or a size such as 20kb", token)

    def string(self) -> str:
        token = self.take()
        if token.kind != "string":
            raise self.error("expected a string in quotes", token)
        self.term()
        inner = token.text[1:-1]
        if token.text[0] == '"' and "\\" in inner:
            inner = _ESCAPE.sub(lambda found: _character(found, token), inner)
        for char in inner:
            if char == "\0" or "\ud800" <= char <= "\udfff":
                raise LogQLError(f"U+{ord(char):04X} does not occur in logs", token.at + 1)
        return inner


def parse_bytes(text: str) -> float | None:
    """Bytes of `20kb` (1,000 each) and `20KiB` (1,024 each); None: it is no size."""
    found = _BYTES.fullmatch(text)
    if found is None:
        return None
    unit = found[2].lower()
    base = 1_024 if "i" in unit else 1_000
    power = _POWERS.index(unit[0]) if len(unit) > 1 else 0
    return float(found[1]) * float(base**power)


def _character(found: re.Match[str], token: _Token) -> str:
    for digits, base in ((found[1], 16), (found[2], 16), (found[3], 16), (found[4], 8)):
        if digits is not None:
            number = int(digits, base)
            if number <= 0x10FFFF:
                return chr(number)
            break
    plain = _ESCAPED.get(found[5] or "")
    if plain is None:
        raise LogQLError(f"{found[0]!r} is no escape: write \\\\ for a backslash, or use `…`", token.at + 1)
    return plain


def _calculated(sign: str, left: float, right: float) -> float:
    if sign == "+":
        return left + right
    if sign == "-":
        return left - right
    if sign == "*":
        return left * right
    if right == 0:
        return float("nan") if left == 0 else float("inf") if left > 0 else float("-inf")
    return left / right
