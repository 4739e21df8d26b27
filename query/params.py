"""The parameters of every question: declared once, for parsing and for the OpenAPI document.

Nothing is ignored: a parameter that is not declared, or given twice where once is meant, is refused by name. What the values
mean is defined in search/.
"""

from __future__ import annotations

import difflib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from patterns.expression import parse_id
from query.facets import KEYS_SHOWN, LEVEL, SERVICE, Field, metadata_field
from query.histogram import bucket_width_us
from query.overview import FacetQuestion, HistogramQuestion
from query.page import Around, Question
from schemas.experiments import ExperimentStatus
from schemas.ids import ID_MAX
from schemas.levels import LEVELS
from schemas.record import CORRELATION_ID_CHARS_MAX, is_service_name
from search.language import TemplateText, no_template
from search.language import pattern_ids as ids_of_query
from search.params import LIST_VALUES_MAX, ParameterError, from_params, parse_time
from search.predicate import TIMESTAMP_MIN_US, MinLevel, Predicate, canonical
from store.patterns.reading import Sort
from store.port import Order

LIMIT_MAX: Final = 1_000
LIMIT_DEFAULT: Final = 100
CONTEXT_MAX: Final = 100
CONTEXT_DEFAULT: Final = 10
PATTERNS_MAX: Final = 500
PATTERNS_DEFAULT: Final = 50
PATTERNS_SPAN_DAYS_MAX: Final = 400
PARAMETERS_MAX: Final = 1_000
BUCKETS_MAX: Final = 400
BUCKETS_DEFAULT: Final = 60
FIELDS_MAX: Final = 20
TOP_MAX: Final = 50
TOP_DEFAULT: Final = 10
METADATA_PREFIX: Final = "metadata."

_MINUTE_US: Final = 60_000_000
_HOUR_US: Final = 60 * _MINUTE_US
_TEXT_CHARS_MAX: Final = 200
Items = Iterable[tuple[str, str]]


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of the query string."""

    name: str
    description: str
    schema: Mapping[str, Any] = field(default_factory=lambda: {"type": "string"})
    """JSON Schema of one value."""
    is_list: bool = False
    example: str | None = None

    def openapi(self) -> dict[str, Any]:
        """The parameter object of OpenAPI 3.1. The example is part of the description: as `example`, pages that try requests
        fill all of them in at once, and such a question finds nothing."""
        schema = {"type": "array", "items": dict(self.schema)} if self.is_list else dict(self.schema)
        shown: dict[str, Any] = {"name": self.name, "in": "query", "required": False, "schema": schema}
        if self.is_list:
            shown |= {"style": "form", "explode": True}
        example = "" if self.example is None else f" Example: `{self.example}`."
        return {**shown, "description": self.description + example}


def _limit(most: int, default: int, *, least: int = 1) -> Mapping[str, Any]:
    return {"type": "integer", "minimum": least, "maximum": most, "default": default}


_TIME: Final = "ISO 8601 (UTC without a zone), `now`, or a time before now such as `-15m` (ms s m h d w)."
_CURSOR: Final = Parameter("cursor", "`next_cursor` or `prev_cursor` of a page of the same question.")
_LIMIT: Final = Parameter("limit", "Most logs in the page.", _limit(LIMIT_MAX, LIMIT_DEFAULT))
_SERVICES: Final = Parameter(
    "service_name",
    "Service, or a prefix with `*` at its end. Several: any of them.",
    is_list=True,
    example="checkout",
)
FIND: Final = (
    _SERVICES,
    Parameter(
        "level",
        f"{', '.join(LEVELS)} or an alias such as `warning`. Several: any of them.",
        is_list=True,
        example="ERROR",
    ),
    Parameter("min_level", "This level and above.", example="WARN"),
    Parameter("start_time", f"Inclusive. {_TIME}"),
    Parameter("end_time", f"Exclusive. {_TIME} Without it: up to the newest log at the first page."),
    Parameter("correlation_id", "Exactly this correlation id."),
    Parameter("q", "The message contains this text, letters in either case; nothing in it is special."),
    Parameter("regex", "The message matches this regular expression somewhere.", example="time(d )?out"),
    Parameter("query", "The query language.", example='level>=warn "connection refused" -service:mail'),
    Parameter(
        f"{METADATA_PREFIX}KEY", "The metadata field KEY (dots go deeper) equals this text. Several: all of them."
    ),
    Parameter("order", "`desc`: newest first. `asc`: oldest first.", {"type": "string", "enum": ["desc", "asc"]}),
    Parameter(
        "around",
        "Where the first page begins: the id of a log, or a time. `prev_cursor` leads to what comes before it in `order`. "
        + _TIME,
    ),
    _LIMIT,
    _CURSOR,
)
_NOT_IN_TAIL: Final = ("end_time", "order", "around", "limit", "cursor")
TAIL: Final = (
    *(parameter for parameter in FIND if parameter.name not in _NOT_IN_TAIL),
    Parameter(
        "from",
        "`now`, or where to go on: `tail` of a first page of the same question, or the token of a frame.",
        {"type": "string", "default": "now"},
    ),
)
_FILTERS: Final = tuple(
    parameter
    for parameter in FIND
    if parameter.name not in ("start_time", "end_time", "order", "around", "limit", "cursor")
)
_SPAN: Final = (
    Parameter("start_time", f"Inclusive; one hour before the end by default. {_TIME}"),
    Parameter("end_time", f"Exclusive; now by default. {_TIME}"),
)
HISTOGRAM: Final = (
    *_FILTERS,
    *_SPAN,
    Parameter(
        "buckets",
        "Most buckets. Their width is the least of 1, 2, 5, 10, 15, 30 seconds or minutes, 1, 2, 3, 6, 12 hours, 1 or 7 days,"
        " or more weeks, with which there are no more.",
        _limit(BUCKETS_MAX, BUCKETS_DEFAULT),
    ),
)
FACETS: Final = (
    *_FILTERS,
    *_SPAN,
    Parameter(
        "field",
        f"`{SERVICE}`, `{LEVEL}` or `{METADATA_PREFIX}KEY`. Several: each. Without it: {SERVICE}, {LEVEL} and the {KEYS_SHOWN}"
        " commonest metadata keys.",
        is_list=True,
        example="level",
    ),
    Parameter("top", "Most values of each field.", _limit(TOP_MAX, TOP_DEFAULT)),
)
CONTEXT: Final = (
    Parameter("before", "Most logs before it.", _limit(CONTEXT_MAX, CONTEXT_DEFAULT, least=0)),
    Parameter("after", "Most logs after it.", _limit(CONTEXT_MAX, CONTEXT_DEFAULT, least=0)),
)
CORRELATION: Final = (_LIMIT, _CURSOR)
LIST_MAX: Final = 500
EXPERIMENTS: Final = (
    Parameter(
        "status",
        f"{', '.join(ExperimentStatus)}. Several: any of them.",
        {"type": "string", "enum": [status.value for status in ExperimentStatus]},
        is_list=True,
    ),
    Parameter("q", "Id or name contain this text, letters in either case."),
    Parameter("limit", "Most experiments in the page.", _limit(LIST_MAX, LIMIT_DEFAULT)),
    _CURSOR,
)
SERIES_POINTS_MAX: Final = 10_000
SERIES_POINTS_DEFAULT: Final = 500
_SIDES: Final = ("server", "client")
_SIDE_SCHEMA: Final = {"type": "string", "enum": [*_SIDES]}
CONNECTIONS: Final = (
    Parameter("username", "The user's name contains this text, letters in either case.", example="ada@"),
    Parameter("has_errors", "Only with lines of ERROR and above, or only without.", {"type": "boolean"}),
    Parameter("limit", "Most connections in the page.", _limit(LIST_MAX, LIMIT_DEFAULT)),
    _CURSOR,
)
CONNECTION_LOGS: Final = (Parameter("side", "Only this log.", _SIDE_SCHEMA), _LIMIT, _CURSOR)
CONNECTION_SERIES: Final = (
    Parameter("metric", "`latency`, `decode_time`, `encode_time`, `encode_size`, or one of the settings'; needed."),
    Parameter("side", "In this log. Without it: where the metric is; of both the client's.", _SIDE_SCHEMA),
    Parameter("max_points", "Most points.", _limit(SERIES_POINTS_MAX, SERIES_POINTS_DEFAULT, least=4)),
)
EXPERIMENT_LOGS: Final = (
    Parameter("level", f"{', '.join(LEVELS)} or an alias such as `warning`. Several: any of them.", is_list=True),
    Parameter("agent_id", "Logs of this agent (`metadata.agent_id`). Several: any of them.", is_list=True),
    Parameter("start_time", f"Inclusive. {_TIME}"),
    Parameter("end_time", f"Exclusive. {_TIME} Without it: up to the newest log at the first page."),
    _LIMIT,
    _CURSOR,
)
LEDGER: Final = (
    Parameter("start_time", f"Inclusive, cut to its minute; one hour before the end by default. {_TIME}"),
    Parameter("end_time", f"Exclusive, raised to a whole minute; now by default. {_TIME}"),
    Parameter("service_name", "Exactly this service. Several: any of them.", is_list=True),
)
_PATTERN_SPAN: Final = (
    Parameter("start_time", f"Inclusive, cut to its minute; one hour before the end by default. {_TIME}"),
    Parameter("end_time", f"Exclusive, raised to a whole minute; now by default. {_TIME}"),
    _SERVICES,
    Parameter("min_level", "Lines of this level and above.", example="WARN"),
)
PATTERNS: Final = (
    *_PATTERN_SPAN,
    Parameter(
        "sort",
        "`count`: most lines first. `errors`: those with errors, most of these first. `new`: those first seen in the span."
        " `gone`: those with lines in the span before, and none in it.",
        {"type": "string", "enum": [sort.value for sort in Sort], "default": Sort.COUNT.value},
    ),
    Parameter("limit", "Most patterns.", _limit(PATTERNS_MAX, PATTERNS_DEFAULT)),
)
ONE_PATTERN: Final = _PATTERN_SPAN
NONE: Final[tuple[Parameter, ...]] = ()


class Values:
    """The query string, checked against what is declared."""

    def __init__(self, items: Items, declared: tuple[Parameter, ...]) -> None:
        """items: decoded (name, value) pairs in order. Raises ParameterError for what is not declared or repeated."""
        self._lists: dict[str, list[str]] = defaultdict(list)
        self.metadata: list[tuple[str, str]] = []
        names = {parameter.name: parameter for parameter in declared}
        takes_metadata = f"{METADATA_PREFIX}KEY" in names
        for count, (name, value) in enumerate(items):
            if count >= PARAMETERS_MAX:
                raise ParameterError("query string", f"expected at most {PARAMETERS_MAX} parameters")
            if takes_metadata and name.startswith(METADATA_PREFIX):
                self.metadata.append((name.removeprefix(METADATA_PREFIX), value))
                continue
            if name not in names:
                raise ParameterError(name[:100], f"there is no such parameter{_advice(name[:100], names)}")
            if not names[name].is_list and name in self._lists:
                raise ParameterError(name, "is given twice: give it once")
            self._lists[name].append(value)

    def all(self, name: str) -> list[str]:
        """Every value of a parameter."""
        return self._lists.get(name, [])

    def one(self, name: str) -> str | None:
        """The value of a parameter, None when it is not given."""
        values = self._lists.get(name)
        return values[0] if values else None

    def whole_number(self, name: str, *, least: int, most: int, default: int) -> int:
        """A number within its bounds. Raises ParameterError."""
        text = self.one(name)
        if text is None:
            return default
        is_number = text.isascii() and text.removeprefix("-").isdecimal() and len(text) <= 20
        if not is_number or not least <= int(text) <= most:
            raise ParameterError(name, f"expected {least}..{most}, got {text[:40]!r}")
        return int(text)

    def token(self) -> str | None:
        """The cursor."""
        text = self.one("cursor")
        if text == "":
            raise ParameterError("cursor", "is empty: leave it out for the first page")
        return text


@dataclass(frozen=True, slots=True)
class TailQuestion:
    """What a tail is to show."""

    predicate: Predicate
    canonical: str
    """Everything that must stay the same from one token to the next, in one spelling."""
    start_us: int | None
    """Inclusive; resolved at this request."""
    token: str | None
    """Where to go on; None from now on."""
    items: tuple[tuple[str, str], ...]
    """The parameters as sent, without `from`."""


def parse_tail(
    items: Items, *, now_us: int, last_event_id: str | None = None, template_text: TemplateText = no_template
) -> TailQuestion:
    """The question of `/api/v1/tail`. last_event_id: what a client that reconnects has seen last; it goes before `from`.
    template_text: see search.language.parse. Raises ParameterError."""
    sent = list(items)
    values = Values(sent, TAIL)
    predicate, start_text = _predicate(values, template_text), values.one("start_time")
    begins = last_event_id or values.one("from") or "now"
    return TailQuestion(
        predicate=predicate,
        canonical=tail_canonical(predicate, start_text),
        start_us=None if start_text is None else parse_time(start_text, now_us, parameter="start_time"),
        token=None if begins == "now" else begins,
        items=tuple((name, value) for name, value in sent if name != "from"),
    )


def tail_canonical(predicate: Predicate, start_text: str | None) -> str:
    """Of the tail that goes on from pages with this predicate and start."""
    return json.dumps(["tail", canonical(predicate).decode(), start_text])


def pattern_ids(items: Items) -> set[int]:
    """The patterns that the parameters name by their ids."""
    found: set[int] = set()
    for name, value in items:
        if name == "query":
            found |= ids_of_query(value)
    return found


def _predicate(values: Values, template_text: TemplateText) -> Predicate:
    return from_params(
        service_name=values.all("service_name"),
        level=values.all("level"),
        min_level=values.one("min_level"),
        correlation_id=values.one("correlation_id"),
        q=values.one("q"),
        regex=values.one("regex"),
        query=values.one("query"),
        metadata=values.metadata,
        template_text=template_text,
    )


def parse_find(items: Items, *, now_us: int, template_text: TemplateText = no_template) -> Question:
    """The question of `GET /api/v1/logs`. template_text: see search.language.parse. Raises ParameterError."""
    values = Values(items, FIND)
    return find_question(
        values,
        now_us=now_us,
        template_text=template_text,
        limit=values.whole_number("limit", least=1, most=LIMIT_MAX, default=LIMIT_DEFAULT),
        token=values.token(),
    )


def find_question(
    values: Values, *, now_us: int, template_text: TemplateText, limit: int, token: str | None = None
) -> Question:
    """The question of a walk, by the filters, times, order and place of FIND. Raises ParameterError."""
    predicate = _predicate(values, template_text)
    order = values.one("order") or Order.NEWEST_FIRST.value
    if order not in (Order.NEWEST_FIRST.value, Order.OLDEST_FIRST.value):
        raise ParameterError("order", f"expected desc or asc, got {order[:40]!r}")
    start_text, end_text = values.one("start_time"), values.one("end_time")
    start_us = None if start_text is None else parse_time(start_text, now_us, parameter="start_time")
    end_us = None if end_text is None else parse_time(end_text, now_us, parameter="end_time")
    if token is None and start_us is not None and end_us is not None and start_us >= end_us:
        raise ParameterError("start_time", f"must be before end_time, got {start_text} and {end_text}")
    around_text = values.one("around")
    asked = ["find", canonical(predicate).decode(), order, start_text, end_text]
    return Question(
        predicate=predicate,
        canonical=json.dumps(asked if around_text is None else [*asked, around_text]),
        order=Order(order),
        limit=limit,
        start_us=start_us,
        end_us=end_us,
        token=token,
        around=None if around_text is None else _around(around_text, now_us),
        tail_canonical=tail_canonical(predicate, start_text) if end_text is None and around_text is None else None,
    )


def _around(text: str, now_us: int) -> Around:
    if text.isascii() and text.isdecimal():
        try:
            return Around(log_id=parse_log_id(text))
        except ParameterError as error:
            raise ParameterError("around", error.message) from error
    return Around(us=parse_time(text, now_us, parameter="around"))


def parse_histogram(items: Items, *, now_us: int, template_text: TemplateText = no_template) -> HistogramQuestion:
    """The question of `GET /api/v1/histogram`. template_text: see search.language.parse. Raises ParameterError."""
    values = Values(items, HISTOGRAM)
    predicate = _predicate(values, template_text)
    start_us, end_us = _span(values, now_us)
    buckets = values.whole_number("buckets", least=1, most=BUCKETS_MAX, default=BUCKETS_DEFAULT)
    return HistogramQuestion(predicate, start_us, end_us, bucket_width_us(start_us, end_us, buckets_max=buckets))


def parse_facets(items: Items, *, now_us: int, template_text: TemplateText = no_template) -> FacetQuestion:
    """The question of `GET /api/v1/facets`. template_text: see search.language.parse. Raises ParameterError."""
    values = Values(items, FACETS)
    predicate = _predicate(values, template_text)
    start_us, end_us = _span(values, now_us)
    names = list(dict.fromkeys(values.all("field")))
    if len(names) > FIELDS_MAX:
        raise ParameterError("field", f"expected at most {FIELDS_MAX} fields, got {len(names)}")
    return FacetQuestion(
        predicate,
        start_us,
        end_us,
        tuple(map(_facet_field, names)),
        values.whole_number("top", least=1, most=TOP_MAX, default=TOP_DEFAULT),
    )


def _span(values: Values, now_us: int) -> tuple[int, int]:
    """[start, end) of what is summed up."""
    end_text, start_text = values.one("end_time") or "now", values.one("start_time")
    end_us = parse_time(end_text, now_us, parameter="end_time")
    if start_text is None:
        start_us = max(min(end_us, now_us) - _HOUR_US, TIMESTAMP_MIN_US)
    else:
        start_us = parse_time(start_text, now_us, parameter="start_time")
    if start_us >= end_us:
        raise ParameterError(
            "start_time", f"must be before end_time, got {(start_text or '-1h')[:40]} and {end_text[:40]}"
        )
    return start_us, end_us


def _facet_field(name: str) -> Field:
    if name in (SERVICE, LEVEL):
        return Field(name)
    key = name.removeprefix(METADATA_PREFIX)
    if key == name:
        raise ParameterError("field", f"expected {SERVICE}, {LEVEL} or {METADATA_PREFIX}KEY, got {name[:60]!r}")
    try:
        return metadata_field(key)
    except ValueError as error:
        raise ParameterError("field", str(error)) from error


def parse_experiments(items: Items) -> tuple[tuple[str, ...], str, int, str | None]:
    """(statuses, part of id or name, limit, cursor) of `GET /api/v1/experiments`. Raises ParameterError."""
    values = Values(items, EXPERIMENTS)
    statuses = tuple(values.all("status"))
    for status in statuses:
        if status not in list(ExperimentStatus):
            raise ParameterError("status", f"expected {', '.join(ExperimentStatus)}, got {status[:40]!r}")
    text = values.one("q") or ""
    _check_plain("q", text)
    limit = values.whole_number("limit", least=1, most=LIST_MAX, default=LIMIT_DEFAULT)
    return statuses, text, limit, values.token()


def parse_experiment_logs(items: Items, experiment_id: str, *, now_us: int) -> Question:
    """The question of `GET /api/v1/experiments/{id}/logs`: that of `GET /api/v1/logs` with `metadata.experiment_id`, and
    for agents `query=metadata.agent_id:"A" OR …`, so that a tail of these goes on from its pages. Raises ParameterError."""
    values = Values(items, EXPERIMENT_LOGS)
    agents = values.all("agent_id")
    if len(agents) > LIST_VALUES_MAX:
        raise ParameterError("agent_id", f"expected at most {LIST_VALUES_MAX} values, got {len(agents)}")
    for agent in agents:
        if not agent:
            raise ParameterError("agent_id", "is empty: leave it out for the logs of all agents")
        _check_plain("agent_id", agent)
    story = [(f"{METADATA_PREFIX}experiment_id", experiment_id)]
    if agents:
        story.append(("query", " OR ".join(f"{METADATA_PREFIX}agent_id:{_quoted(agent)}" for agent in agents)))
    others = (
        (name, value) for name in ("level", "start_time", "end_time", "limit", "cursor") for value in values.all(name)
    )
    try:
        return parse_find([*story, *others], now_us=now_us)
    except ParameterError as error:
        if error.parameter != "query":
            raise
        raise ParameterError("agent_id", "these are too many or too long: ask for fewer at a time") from error


def _quoted(text: str) -> str:
    """A phrase of the query language."""
    escaped = text.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _check_plain(name: str, text: str) -> None:
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise ParameterError(name, "cannot have U+0000 or half a surrogate pair in it")
    if len(text) > _TEXT_CHARS_MAX:
        raise ParameterError(name, f"expected at most {_TEXT_CHARS_MAX} characters, got {len(text)}")


def parse_connections(items: Items) -> tuple[str, bool | None, int, str | None]:
    """(part of the user's name, has errors, limit, cursor) of `GET /api/v1/connections`. Raises ParameterError."""
    values = Values(items, CONNECTIONS)
    username = values.one("username") or ""
    _check_plain("username", username)
    errors = values.one("has_errors")
    if errors not in (None, "true", "false"):
        raise ParameterError("has_errors", f"expected true or false, got {errors[:40]!r}")
    limit = values.whole_number("limit", least=1, most=LIST_MAX, default=LIMIT_DEFAULT)
    return username, None if errors is None else errors == "true", limit, values.token()


def parse_connection_logs(items: Items) -> tuple[str | None, int, str | None]:
    """(side, limit, cursor) of `GET /api/v1/connections/{id}/logs`. Raises ParameterError."""
    values = Values(items, CONNECTION_LOGS)
    limit = values.whole_number("limit", least=1, most=LIMIT_MAX, default=LIMIT_DEFAULT)
    return _side(values), limit, values.token()


def parse_series(items: Items) -> tuple[str, str | None, int]:
    """(metric, side, most points) of `GET /api/v1/connections/{id}/series`. Raises ParameterError."""
    values = Values(items, CONNECTION_SERIES)
    metric = values.one("metric")
    if metric is None:
        raise ParameterError("metric", "is needed: which metric?")
    most = values.whole_number("max_points", least=4, most=SERIES_POINTS_MAX, default=SERIES_POINTS_DEFAULT)
    return metric, _side(values), most


def _side(values: Values) -> str | None:
    side = values.one("side")
    if side is not None and side not in _SIDES:
        raise ParameterError("side", f"expected server or client, got {side[:40]!r}")
    return side


def parse_context(items: Items) -> tuple[int, int]:
    """(before, after) of `GET /api/v1/logs/{log_id}/context`. Raises ParameterError."""
    values = Values(items, CONTEXT)
    before, after = (
        values.whole_number(name, least=0, most=CONTEXT_MAX, default=CONTEXT_DEFAULT) for name in ("before", "after")
    )
    return before, after


def parse_correlation(items: Items) -> tuple[int, str | None]:
    """(limit, cursor) of `GET /api/v1/correlations/{correlation_id}/logs`. Raises ParameterError."""
    values = Values(items, CORRELATION)
    return values.whole_number("limit", least=1, most=LIMIT_MAX, default=LIMIT_DEFAULT), values.token()


def parse_ledger(items: Items, *, now_us: int, minutes_max: int) -> tuple[int, int, tuple[str, ...]]:
    """(start_us, end_us, services) of `GET /api/v1/ledger`, on whole minutes. Raises ParameterError."""
    values = Values(items, LEDGER)
    end_us = parse_time(values.one("end_time") or "now", now_us, parameter="end_time")
    start_us = parse_time(values.one("start_time") or "-1h", min(end_us, now_us), parameter="start_time")
    start_us -= start_us % _MINUTE_US
    end_us += -end_us % _MINUTE_US
    if start_us >= end_us:
        raise ParameterError("start_time", "must be before end_time")
    if end_us - start_us > minutes_max * _MINUTE_US:
        raise ParameterError("start_time", f"expected at most {minutes_max} minutes before end_time: ask in parts")
    names = values.all("service_name")
    if len(names) > LIST_VALUES_MAX:
        raise ParameterError("service_name", f"expected at most {LIST_VALUES_MAX} values, got {len(names)}")
    for name in names:
        if not is_service_name(name):
            raise ParameterError("service_name", f"expected 1 to 100 of A-Z a-z 0-9 . _ - /, got {name[:120]!r}")
    return start_us, end_us, tuple(names)


@dataclass(frozen=True, slots=True)
class PatternQuestion:
    """Patterns of which lines, and which of these."""

    start_us: int
    end_us: int
    """Exclusive, after start_us."""
    services: Predicate
    min_level: int
    """Severity number; 0: all levels."""
    sort: Sort
    limit: int


def parse_patterns(items: Items, declared: tuple[Parameter, ...], *, now_us: int) -> PatternQuestion:
    """The question of `GET /api/v1/patterns` (PATTERNS) or of one of them (ONE_PATTERN). Raises ParameterError."""
    values = Values(items, declared)
    end_us = parse_time(values.one("end_time") or "now", now_us, parameter="end_time")
    start_us = parse_time(values.one("start_time") or "-1h", min(end_us, now_us), parameter="start_time")
    if start_us >= end_us:
        raise ParameterError("start_time", "must be before end_time")
    if end_us - start_us > PATTERNS_SPAN_DAYS_MAX * 86_400_000_000:
        raise ParameterError("start_time", f"expected at most {PATTERNS_SPAN_DAYS_MAX} days before end_time")
    sort = values.one("sort") or Sort.COUNT.value
    if sort not in list(Sort):
        raise ParameterError("sort", f"expected {', '.join(Sort)}, got {sort[:40]!r}")
    min_level = from_params(min_level=values.one("min_level"))
    return PatternQuestion(
        start_us,
        end_us,
        from_params(service_name=values.all("service_name")),
        min_level.severity if isinstance(min_level, MinLevel) else 0,
        Sort(sort),
        values.whole_number("limit", least=1, most=PATTERNS_MAX, default=PATTERNS_DEFAULT),
    )


def parse_pattern_id(text: str) -> int:
    """The id in a path. Raises ParameterError."""
    pattern_id = parse_id(text)
    if pattern_id is None:
        raise ParameterError("pattern_id", f"expected 16 hexadecimal digits, got {text[:40]!r}")
    return pattern_id


def parse_none(items: Items) -> None:
    """For questions without parameters. Raises ParameterError."""
    Values(items, NONE)


def parse_log_id(text: str) -> int:
    """The id in a path. Raises ParameterError."""
    if not (text.isascii() and text.isdecimal() and len(text) <= 19 and int(text) <= ID_MAX):
        raise ParameterError("log_id", f"expected a decimal number up to {ID_MAX}, got {text[:40]!r}")
    return int(text)


def parse_correlation_id(text: str) -> str:
    """The correlation id in a path. Raises ParameterError."""
    if not 1 <= len(text) <= CORRELATION_ID_CHARS_MAX:
        raise ParameterError("correlation_id", f"expected 1..{CORRELATION_ID_CHARS_MAX} characters, got {len(text)}")
    from_params(correlation_id=text)
    return text


def _advice(name: str, known: Iterable[str]) -> str:
    names = [each for each in known if not each.startswith(METADATA_PREFIX)]
    near = difflib.get_close_matches(name.lower(), names, n=1)
    if near:
        return f": did you mean `{near[0]}`?"
    return f"; there are {', '.join(names)}" if names else "; this question has none"
