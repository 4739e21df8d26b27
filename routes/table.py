"""From a log to its topics, and to the record that goes there. Pure.

Every route is a predicate among many (search/many.py), so a log is looked at once however many routes there are, and its JSON
is written once however many topics it goes to. Logs of Logfeed's own services go nowhere: who may read them is not for
topics to say.

1 µs a log that matches nothing, 10 µs one that does, most of it JSON (CPython 3.11, `bench live`).
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

import orjson

from broker.topic_names import ERRORS_TOPIC, service_topic
from broker.topics import TopicRecord
from live.events import Batch
from routes.settings import RouteSettings, RoutingSettings
from schemas.levels import LEVELS
from schemas.pages import log_json
from schemas.record import Log
from schemas.scope import RESERVED_SERVICES, ServiceScope
from schemas.topics import Source, record_headers
from search.many import ManyMatcher
from search.predicate import MinLevel


class RouteTable:
    """Which topics each log goes to."""

    def __init__(
        self, routes: Mapping[str, RouteSettings], routing: RoutingSettings, *, known: Sequence[str] = ()
    ) -> None:
        """known: topics of services that are there already; they count."""
        wanted = [(route.topic, route.predicate) for route in routes.values()]
        if routing.errors:
            wanted.append((ERRORS_TOPIC, MinLevel(LEVELS["ERROR"])))
        self.fixed = [topic for topic, _ in wanted]
        """Topics that are there from the beginning."""
        self._matcher = ManyMatcher(predicate for _, predicate in wanted)
        self._services: ServiceScope = routing.service_scope
        self._service_topics_max = routing.service_topics_max
        self._known = set(known)
        self._of_service: dict[str, str | None] = {}
        self.unrouted = 0
        """Logs whose service got no topic since the table was made."""

    def topics(self, log: Log) -> list[str]:
        """The topics a log goes to, each once."""
        if log.service_name in RESERVED_SERVICES:
            return []
        topics = [self.fixed[number] for number in self._matcher.matches(log)]
        try:
            topic = self._of_service[log.service_name]
        except KeyError:
            topic = self._topic_of(log.service_name)
        if topic == "":
            self.unrouted += 1
        elif topic is not None:
            topics.append(topic)
        return topics

    def records(self, batch: Batch) -> Iterator[list[TopicRecord]]:
        """Records of each log of a batch, in order; [] for a log that goes nowhere."""
        for index, log in enumerate(batch.logs):
            topics = self.topics(log)
            if not topics:
                yield []
                continue
            key, value = log.service_name.encode(), orjson.dumps(log_json(log))
            headers = record_headers(log.id, Source(batch.partition, batch.offset, index))
            yield [TopicRecord(topic, key, value, headers) for topic in topics]

    def _topic_of(self, service: str) -> str | None:
        """None: it has none. '': it would have one, but there are too many. Services that have none are not remembered past
        a bound: their names come from outside."""
        topic: str | None = None
        if self._services.permits(service):
            topic = service_topic(service)
            if topic not in self._known:
                if len(self._known) >= self._service_topics_max:
                    topic = ""
                else:
                    self._known.add(topic)
        if len(self._of_service) >= 10 * self._service_topics_max:
            self._of_service.clear()
        self._of_service[service] = topic
        return topic
