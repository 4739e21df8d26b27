"""Names of derived topics: one log per record, for subscribers. Pure.

A service may have characters that a topic may not (`/`), and Kafka takes no two topics that differ only in `.` and `_`, which
its metrics confuse. So each character becomes itself or two characters that begin with `-`, and never `_`. Different services
have different topics, also where `.` and `_` are held for the same; and a service begins with a prefix exactly if its topic
begins with that prefix's encoding, so that a right over `pay/*` is one over a prefix of topics.
"""

from __future__ import annotations

import re
from typing import Final

ERRORS_TOPIC: Final = "logs.errors"
"""ERROR and above of all services."""
SERVICE_TOPICS: Final = "logs.service."
"""What the topics of services begin with."""

_ESCAPED: Final = str.maketrans({"-": "--", "_": "-u", "/": "-s"})
_PLAIN: Final = {spelling: character for character, spelling in (("-", "--"), ("_", "-u"), ("/", "-s"))}
_ESCAPE: Final = re.compile(r"-(.?)", re.DOTALL)
_SERVICE_CHARS: Final = frozenset("abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-/")


def service_topic(service_name: str) -> str:
    """The topic of a service's logs, or what those begin with whose service begins so: at most 213 of Kafka's 249 characters.
    Raises ValueError for what no service's name has in it."""
    if not _SERVICE_CHARS.issuperset(service_name):
        raise ValueError(f"expected letters, digits and . _ - /, got {service_name[:120]!r}")
    return SERVICE_TOPICS + service_name.translate(_ESCAPED)


def service_of(topic: str) -> str | None:
    """The service that a topic is of; None for what is no service's topic."""
    text = topic.removeprefix(SERVICE_TOPICS)
    service = _ESCAPE.sub(lambda escape: _PLAIN.get(escape[0], "\n"), text)
    if topic == text or not service or not _SERVICE_CHARS.issuperset(service) or service_topic(service) != topic:
        return None
    return service
