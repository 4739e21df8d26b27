"""The filter chain as configuration: a list of named filters, checked completely before the first log is taken.

    filters:
      - {type: level, name: no-debug, minimum: INFO}
      - {type: content, name: secrets, action: mask}

An unknown type or field is an error with the nearest known name; errors name the path of the field.
"""

from __future__ import annotations

import random as random_module
from collections.abc import Callable, Iterator
from typing import Annotated, Any, Final, Literal, cast

from pydantic import BeforeValidator, Field, TypeAdapter, ValidationError, field_validator, model_validator

from ingest.buckets import Rate
from ingest.filters.chain import Chain
from ingest.filters.composite import Composite, Mode
from ingest.filters.content import Content
from ingest.filters.level import Level
from ingest.filters.rate_limit import RateLimit
from ingest.filters.sampling import Sampling
from ingest.filters.secrets import BUILT_IN, SecretRule, custom_rule
from ingest.filters.service import Service, scope_of
from ingest.filters.verdicts import AnyLog, Filter
from ingest.filters.where import Where
from ingest.spelling import suggestion
from runtime.settings import Section
from schemas.errors import ConfigurationError, InvalidInput
from schemas.levels import level_name, parse_level
from search.language import parse
from search.match import compile_match
from search.predicate import reads_metadata

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9._-]{1,64}$")]
ServicePattern = Annotated[str, Field(pattern=r"^(?:[A-Za-z0-9._/-]{1,100}\*?|\*)$")]
LogsPerSecond = Annotated[float, Field(gt=0.0, le=10_000_000.0)]
Burst = Annotated[float, Field(ge=1.0, le=100_000_000.0)]
ServicesMax = Annotated[int, Field(ge=1, le=1_000_000)]

FILTERS_MAX: Final = 100
PATTERNS_MAX: Final = 50
SERVICE_RATES_MAX: Final = 1_000
SERVICE_RATES: Final = "service_rates"
"""The name under which ingest.service_rates refuses."""


class _Named(Section):
    name: Name
    """Name under which drops are counted, 1..64 of letters, digits and `. _ -`; different for each filter of the chain."""


class LevelConfig(_Named):
    """Drops logs below a level."""

    type: Literal["level"]
    """`level`."""
    minimum: str
    """Least level that passes: a name or an alias (`WARN`, `warning`)."""

    @field_validator("minimum")
    @classmethod
    def _is_level(cls, text: str) -> str:
        return level_name(parse_level(text))


class ServiceConfig(_Named):
    """Drops logs of services that are denied or not allowed. Denying wins."""

    type: Literal["service"]
    """`service`."""
    allow: tuple[ServicePattern, ...] = ("*",)
    """Services that pass: exact names, prefixes as `name*`, or `*` for all."""
    deny: tuple[ServicePattern, ...] = ()
    """Services that are dropped, in the same spelling."""


class ServiceRate(Section):
    """What one service may send."""

    logs_per_second: LogsPerSecond
    """Logs per second that each such service may send on average."""
    burst: Burst | None = None
    """Logs that may come at once after a pause; default: one second's worth, at least 1."""


ServiceRateTable = Annotated[dict[ServicePattern, ServiceRate], Field(max_length=SERVICE_RATES_MAX)]


class ServiceRates(Section):
    """What each service may send, before any filter drops some of it: a rate_limit that refuses, at the head of the chain."""

    logs_per_second: LogsPerSecond | None = None
    """Logs per second that each service may send on average, in each ingest process; none: no limit."""
    burst: Burst | None = None
    """Logs that may come at once after a pause; default: one second's worth, at least 1."""
    services: ServiceRateTable = Field(default_factory=dict)
    """Services with a rate of their own: exact name, or prefix as `name*`, to logs_per_second and burst."""
    services_max: ServicesMax = 10_000
    """Most services counted separately (about 300 bytes each); further ones share a bucket."""


class RateLimitConfig(_Named):
    """Limits the logs per second of each service."""

    type: Literal["rate_limit"]
    """`rate_limit`."""
    logs_per_second: LogsPerSecond
    """Logs per second that each service may send on average."""
    burst: Burst | None = None
    """Logs that may come at once after a pause; default: one second's worth, at least 1."""
    services: ServiceRateTable = Field(default_factory=dict)
    """Services with a rate of their own: exact name, or prefix as `name*`, to logs_per_second and burst."""
    on_exceed: Literal["drop", "refuse"] = "drop"
    """`drop` the logs above the limit, or `refuse` the whole request (429). Keyed requests are always refused as a whole."""
    services_max: ServicesMax = 10_000
    """Most services counted separately (about 300 bytes each); further ones share a bucket."""


class SamplingConfig(_Named):
    """Keeps a share of the logs."""

    type: Literal["sampling"]
    """`sampling`."""
    rate: Share = 1.0
    """Share kept of logs that neither table below names, 0..1."""
    levels: dict[str, Share] = Field(default_factory=dict)
    """Share kept by level."""
    services: dict[str, Share] = Field(default_factory=dict)
    """Share kept by exact service name; goes before `levels`."""

    @field_validator("levels")
    @classmethod
    def _are_levels(cls, levels: dict[str, float]) -> dict[str, float]:
        return {level_name(parse_level(text)): rate for text, rate in levels.items()}


class PatternConfig(Section):
    """A secret of one's own."""

    name: Annotated[str, Field(pattern=r"^[a-z0-9_]{1,32}$")]
    """What the mask says: `[masked:NAME]`."""
    pattern: Annotated[str, Field(min_length=1, max_length=1000)]
    """Regular expression (RE2)."""

    @model_validator(mode="after")
    def _compiles(self) -> PatternConfig:
        custom_rule(self.name, self.pattern)
        if self.name in BUILT_IN:
            raise ValueError(f"name {self.name!r} is the name of a built-in kind")
        return self


class ContentConfig(_Named):
    """Masks secrets, or drops logs that hold one."""

    type: Literal["content"]
    """`content`."""
    action: Literal["mask", "block"] = "mask"
    """`mask` puts `[masked:KIND]` in the secret's place; `block` drops the log."""
    secrets: tuple[str, ...] = tuple(BUILT_IN)
    """Built-in kinds to look for: card, email, bearer, aws_key, github_token, private_key, password (default: all)."""
    patterns: Annotated[tuple[PatternConfig, ...], Field(max_length=PATTERNS_MAX)] = ()
    """Kinds of one's own."""

    @field_validator("secrets")
    @classmethod
    def _are_known(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in BUILT_IN:
                raise ValueError(f"there is no kind of secret {name!r}{suggestion(name, BUILT_IN)}")
        return names

    @model_validator(mode="after")
    def _finds_something(self) -> ContentConfig:
        if not self.secrets and not self.patterns:
            raise ValueError("secrets and patterns are both empty: the filter would find nothing")
        return self


class WhereConfig(_Named):
    """Drops by a predicate of the query language."""

    type: Literal["where"]
    """`where`."""
    query: Annotated[str, Field(min_length=1, max_length=10_000)]
    """Predicate, as in the search box: `level:debug service:checkout*`."""
    drop: Literal["matching", "not_matching"] = "matching"
    """Whether logs that match are dropped, or those that do not."""

    @field_validator("query")
    @classmethod
    def _parses(cls, text: str) -> str:
        try:
            compile_match(parse(text))
        except InvalidInput as error:
            raise ValueError(str(error)) from error
        return text


class CompositeConfig(_Named):
    """Combines filters as conditions; a child's condition holds when the child would drop the log."""

    type: Literal["composite"]
    """`composite`."""
    mode: Mode
    """`all_of` (AND), `any_of` (OR), `none_of` (NOT): drop when all, any, none of the children would drop."""
    filters: Annotated[tuple[FilterConfig, ...], Field(min_length=1, max_length=FILTERS_MAX)]
    """The children: level, service, sampling, where, content with `action: block`, composite."""

    @model_validator(mode="after")
    def _children_are_conditions(self) -> CompositeConfig:
        for child in self.filters:
            if isinstance(child, RateLimitConfig):
                raise ValueError(f"{child.name}: a rate_limit counts what it is asked and cannot stand in a composite")
            if isinstance(child, ContentConfig) and child.action == "mask":
                raise ValueError(f"{child.name}: a content filter in a composite needs action: block")
        return self


FilterConfig = Annotated[
    LevelConfig | ServiceConfig | RateLimitConfig | SamplingConfig | ContentConfig | WhereConfig | CompositeConfig,
    Field(discriminator="type"),
]
_CLASSES: Final[dict[str, type[_Named]]] = {
    "level": LevelConfig,
    "service": ServiceConfig,
    "rate_limit": RateLimitConfig,
    "sampling": SamplingConfig,
    "content": ContentConfig,
    "where": WhereConfig,
    "composite": CompositeConfig,
}
CompositeConfig.model_rebuild()


def _check_spelling(value: Any) -> Any:  # what somebody wrote in a file: anything
    """Unknown types and fields, with the nearest known name; everything else is left to the models."""
    problems = list(_misspelt(value, "filters"))
    if problems:
        raise ValueError("; ".join(problems))
    return value


def _misspelt(value: Any, path: str) -> Iterator[str]:
    if not isinstance(value, (list, tuple)):
        return
    for index, item in enumerate(value):
        here = f"{path}.{index}"
        if not isinstance(item, dict):
            continue
        kind = item.get("type")
        if not isinstance(kind, str) or kind not in _CLASSES:
            found = "is missing" if kind is None else f"{kind!r} is not known{suggestion(str(kind), _CLASSES)}"
            yield f"{here}.type {found} (one of {', '.join(_CLASSES)})"
            continue
        known = _CLASSES[kind].model_fields
        for field in item:
            if field not in known:
                yield f"{here}.{field}: a {kind} filter has no such field{suggestion(str(field), known)}"
        if kind == "composite":
            yield from _misspelt(item.get("filters"), f"{here}.filters")


ChainConfig = Annotated[
    tuple[FilterConfig, ...],
    Field(max_length=FILTERS_MAX),
    BeforeValidator(_check_spelling),
]
"""Type of the setting that holds the chain."""
_adapter: Final = TypeAdapter(ChainConfig)


def parse_chain(value: object) -> tuple[FilterConfig, ...]:
    """The configuration of a chain from plain data. Raises ConfigurationError, one line per problem with its path."""
    try:
        return _adapter.validate_python(value)
    except ValidationError as error:
        lines = []
        for problem in error.errors():
            where = ".".join(str(part) for part in problem["loc"] if part not in _CLASSES)
            lines.append(f"filters{'.' if where else ''}{where}: {problem['msg']}")
        raise ConfigurationError("the filters are not valid:\n  " + "\n  ".join(lines)) from error
    except UnicodeEncodeError as error:
        raise ConfigurationError("the filters are not valid: a text in them has half a surrogate pair") from error


def build_chain(
    filters: tuple[FilterConfig, ...],
    *,
    rates: ServiceRates | None = None,
    random: Callable[[], float] = random_module.random,
) -> Chain:
    """The chain. rates: what each service may send, asked first. random: uniform in [0, 1), for sampling. Raises
    ConfigurationError when two filters share a name."""
    first: list[Filter] = []
    if rates is not None and (rates.logs_per_second is not None or rates.services):
        own = None if rates.logs_per_second is None else _rate(rates.logs_per_second, rates.burst)
        table = _rates(rates.services)
        first.append(
            RateLimit(SERVICE_RATES, rate=own, services=table, on_exceed="refuse", services_max=rates.services_max)
        )
    names = [*(rule.name for rule in first), *(config.name for config in filters)]
    for name in names:
        if names.count(name) > 1:
            raise ConfigurationError(f"two filters are called {name!r}: drops are counted by name")
    return Chain([*first, *(_build(config, config.name, random) for config in filters)])


def _rate(logs_per_second: float, burst: float | None) -> Rate:
    return Rate(logs_per_second, max(1.0, logs_per_second if burst is None else burst))


def _rates(services: dict[str, ServiceRate]) -> dict[str, Rate]:
    return {pattern: _rate(rate.logs_per_second, rate.burst) for pattern, rate in services.items()}


def _build(config: FilterConfig, name: str, random: Callable[[], float]) -> Filter:
    match config:
        case LevelConfig():
            return Level(name, minimum=parse_level(config.minimum))
        case ServiceConfig():
            return Service(name, allow=scope_of(config.allow), deny=scope_of(config.deny))
        case RateLimitConfig():
            return RateLimit(
                name,
                rate=_rate(config.logs_per_second, config.burst),
                services=_rates(config.services),
                on_exceed=config.on_exceed,
                services_max=config.services_max,
            )
        case SamplingConfig():
            return Sampling(name, rate=config.rate, by_level=config.levels, by_service=config.services, random=random)
        case ContentConfig():
            rules: list[SecretRule] = [rule for rule in BUILT_IN.values() if rule.name in config.secrets]
            rules.extend(custom_rule(own.name, own.pattern) for own in config.patterns)
            return Content(name, rules=rules, action=config.action)
        case WhereConfig():
            predicate = parse(config.query)
            return Where(
                name,
                # A test that reads no metadata takes logs in either form.
                matches=cast("Callable[[AnyLog], bool]", compile_match(predicate)),
                drop_matching=config.drop == "matching",
                reads_metadata=reads_metadata(predicate),
            )
        case CompositeConfig():
            children = [_build(child, f"{name}/{child.name}", random) for child in config.filters]
            return Composite(name, mode=config.mode, children=children)
