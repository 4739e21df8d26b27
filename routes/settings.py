"""Settings of routes, and of the role that follows them."""

from __future__ import annotations

import re
import socket
from collections.abc import Mapping
from typing import Final, Literal

from pydantic import Field, field_validator

from broker.topic_names import ERRORS_TOPIC, SERVICE_TOPICS
from runtime.settings import Section
from schemas.record import SERVICE_NAME_PATTERN
from schemas.scope import RESERVED_SERVICES, ServiceScope
from schemas.topics import TopicInfo, TopicKind
from search.language import QueryError, parse
from search.predicate import Predicate

KiB = 1024
ROUTES_MAX: Final = 100
ROUTE_NAME: Final = re.compile(r"[a-z0-9][a-z0-9._-]{0,99}")
_SERVICES: Final = re.compile(r"[A-Za-z0-9._/-]{0,99}\*")


class RouteSettings(Section):
    """One route: which logs, and into which topic."""

    query: str = Field(max_length=4_000)
    """Which logs, in the query language: `service:pay/* level>=warn`. Empty: all."""

    topic: str = Field(pattern=r"^[a-zA-Z0-9._-]{1,249}$")
    """Name of its topic, of characters that Kafka takes; no other route's."""

    description: str = Field(default="", max_length=500)
    """For people who look for a topic."""

    @field_validator("query")
    @classmethod
    def _is_query(cls, query: str) -> str:
        try:
            parse(query)
        except QueryError as error:
            raise ValueError(str(error)) from error
        return query

    @field_validator("topic")
    @classmethod
    def _is_free(cls, topic: str) -> str:
        if topic in (".", ".."):
            raise ValueError("Kafka takes no topic of this name")
        if _as_kafka_holds(topic) == _as_kafka_holds(ERRORS_TOPIC) or topic.startswith(SERVICE_TOPICS):
            raise ValueError(f"{topic} is Logfeed's own: {ERRORS_TOPIC}, and what begins with {SERVICE_TOPICS}")
        return topic

    @property
    def predicate(self) -> Predicate:
        """The query's."""
        return parse(self.query)


class RoutingSettings(Section):
    """The role `route`: fills derived topics."""

    errors: bool = True
    """Fill logs.errors, ERROR and above of all services. Default true."""

    services: tuple[str, ...] = Field(default=(), max_length=1_000)
    """Services that have a topic each: names, prefixes (pay/*), or * for all. Default none: each costs a copy of its logs."""

    service_topics_max: int = Field(default=200, ge=1, le=10_000)
    """Topics of services at most; logs of further ones go without, and are counted. Default 200: a topic costs Kafka files and
    memory, and names of services come from outside."""

    begin: Literal["oldest", "now"] = "oldest"
    """Where the first router of an installation begins: with the oldest logs that the broker has (default: nothing is missing
    from the moment ingest began), or with those that come."""

    piece_bytes_max: int = Field(default=2048 * KiB, ge=64 * KiB, le=64 * 1024 * KiB)
    """Bytes of records that are published together, and come again when the router is killed meanwhile. Default 2 MiB: 4,000
    logs."""

    save_s: float = Field(default=2.0, gt=0, le=60)
    """Seconds between two savings of how far it read while nothing has to be published. Default 2."""

    name: str = Field(default_factory=socket.gethostname, min_length=1, max_length=200)
    """Stable name of this process: a restart under it leads again at once. Default: the host's name."""

    health_host: str = "127.0.0.1"
    """Address of health and metrics of `logfeed route`."""

    health_port: int = Field(default=0, ge=0, le=65_535)
    """Its port; 0 (default) listens nowhere."""

    @field_validator("services")
    @classmethod
    def _are_services(cls, services: tuple[str, ...]) -> tuple[str, ...]:
        for text in services:
            if text in RESERVED_SERVICES:
                raise ValueError(f"{text} is Logfeed's own and goes into no topic")
            if not SERVICE_NAME_PATTERN.fullmatch(text) and not _SERVICES.fullmatch(text):
                raise ValueError(f"expected a service's name, a prefix with * behind it, or *, got {text[:120]!r}")
        return services

    @property
    def service_scope(self) -> ServiceScope:
        """The services that have a topic each."""
        return ServiceScope(
            everything="*" in self.services,
            names=frozenset(text for text in self.services if not text.endswith("*")),
            prefixes=frozenset(text[:-1] for text in self.services if text.endswith("*") and text != "*"),
            excluded=RESERVED_SERVICES,
        )


def check_routes(routes: Mapping[str, RouteSettings], *, logs_topic: str) -> None:
    """What no route can see of itself. logs_topic: the router's input. Raises ValueError."""
    if len(routes) > ROUTES_MAX:
        raise ValueError(f"expected at most {ROUTES_MAX} routes, got {len(routes)}")
    taken = {_as_kafka_holds(logs_topic): "broker.topic"}
    for name, route in routes.items():
        if not ROUTE_NAME.fullmatch(name):
            raise ValueError(f"a route's name is lower case letters, digits and . _ -, got {name[:120]!r}")
        topic = _as_kafka_holds(route.topic)
        if topic in taken:
            raise ValueError(
                f"routes.{name}.topic: {route.topic} is the same topic for Kafka as that of {taken[topic]}"
            )
        taken[topic] = f"routes.{name}"


def derived_topics(routes: Mapping[str, RouteSettings], routing: RoutingSettings) -> list[TopicInfo]:
    """The topics that the settings name; those of services are known by their names."""
    found = []
    if routing.errors:
        found.append(TopicInfo(ERRORS_TOPIC, TopicKind.ERRORS, "ERROR and above of all services"))
    for name, route in sorted(routes.items()):
        found.append(TopicInfo(route.topic, TopicKind.ROUTE, route.description or f"route {name}"))
    return found


def _as_kafka_holds(topic: str) -> str:
    """Kafka takes no two topics that differ in . and _ only."""
    return topic.replace("_", ".")
