"""Which ACLs Kafka needs: for Logfeed's own roles, and for subscribers of derived topics. Pure: nothing is asked or changed.

Kafka refuses what no ACL allows (StandardAuthorizer, allow.everyone.if.no.acl.found left at false), and a Deny wins over every
Allow. Operations: https://kafka.apache.org/documentation/#operations_resources_and_protocols
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass
from enum import StrEnum
from typing import Final

from broker.topic_names import ERRORS_TOPIC, SERVICE_TOPICS, service_topic
from schemas.errors import InvalidInput
from schemas.scope import RESERVED_SERVICES, ServiceScope

_PRINCIPAL: Final = re.compile(r"[A-Za-z]{1,50}:[^\x00-\x1f\x7f]{1,200}")
_GROUP: Final = re.compile(r"[A-Za-z0-9._-]{1,200}")


class Role(StrEnum):
    """Of Logfeed, as it speaks to Kafka."""

    INGEST = "ingest"
    WRITER = "writer"
    QUERY = "query"
    ALERT = "alert"
    ROUTE = "route"


@dataclass(frozen=True, slots=True)
class Acl:
    """One binding for one resource."""

    principal: str
    resource: tuple[str, str]
    """("topic" | "group", name), or ("cluster", "")."""
    operations: tuple[str, ...]
    prefixed: bool = False
    """The name is what names begin with."""
    deny: bool = False

    @property
    def arguments(self) -> list[str]:
        """Of kafka-acls.sh, behind --bootstrap-server and --command-config."""
        kind, name = self.resource
        arguments = ["--add", "--deny-principal" if self.deny else "--allow-principal", self.principal]
        for operation in self.operations:
            arguments += ["--operation", operation]
        arguments += [f"--{kind}"] if kind == "cluster" else [f"--{kind}", name]
        return arguments + (["--resource-pattern-type", "prefixed"] if self.prefixed else [])


_OPERATIONS: Final = {
    Role.INGEST: ("Write",),
    Role.WRITER: ("Read",),
    Role.QUERY: ("Read", "Write"),  # tails; the audit log
    Role.ALERT: ("Read",),
    Role.ROUTE: ("Read",),
}
"""On the logs."""


def role_acls(
    principals: Mapping[Role, str],
    *,
    topic: str,
    group: str,
    create_topic: bool,
    alert_topics: Collection[str] = (),
    route_topics: Collection[str] = (),
) -> list[Acl]:
    """What each role needs under its principal. group: of the writers. create_topic: whether roles make the topic where it is
    missing. alert_topics: that alerts are told to. route_topics: derived topics besides those of services. Raises
    InvalidInput."""
    found = []
    for role, principal in principals.items():
        _check(principal)
        # Each checks, before it begins, that topic and brokers are set so that nothing is lost.
        looks = ("Describe", "DescribeConfigs", *(["Create"] if create_topic else []))
        found += [
            Acl(principal, ("topic", topic), (*looks, *_OPERATIONS[role])),
            Acl(principal, ("cluster", ""), ("DescribeConfigs",)),
        ]
        if role is Role.WRITER:
            found.append(Acl(principal, ("group", group), ("Read",)))
        elif role is Role.INGEST:
            found.append(Acl(principal, ("group", group), ("Describe",)))
        elif role is Role.ALERT:
            found += [Acl(principal, ("topic", name), (*looks, "Write")) for name in sorted({*alert_topics})]
        elif role is Role.ROUTE:
            found += [Acl(principal, ("topic", name), (*looks, "Write")) for name in sorted({*route_topics})]
            found.append(Acl(principal, ("topic", SERVICE_TOPICS), (*looks, "Write"), prefixed=True))
        elif role is Role.QUERY:  # derived topics over HTTP
            found += [Acl(principal, ("topic", name), ("Describe", "Read")) for name in sorted({*route_topics})]
            found.append(Acl(principal, ("topic", SERVICE_TOPICS), ("Describe", "Read"), prefixed=True))
    return found


def subscriber_acls(principal: str, scope: ServiceScope, *, group_prefix: str) -> list[Acl]:
    """What lets a subscriber read the topics of its services, under consumer groups that begin so. The topic of all errors is
    for those alone who may read all services. Raises InvalidInput."""
    _check(principal)
    if not _GROUP.fullmatch(group_prefix):
        raise InvalidInput(
            f"expected 1..200 letters, digits and . _ - for the groups' prefix, got {group_prefix[:120]!r}"
        )
    read = ("Read", "Describe")
    topics = [*_topics(scope)]
    if not topics:
        raise InvalidInput("no service to read: name one, a prefix with * behind it, or *")
    found = [Acl(principal, ("topic", name), read, prefixed) for name, prefixed in topics]
    # All of them: what nobody reads by his *, he reads by no prefix either.
    found += [Acl(principal, ("topic", service_topic(name)), ("All",), deny=True) for name in sorted(RESERVED_SERVICES)]
    return [*found, Acl(principal, ("group", group_prefix), ("Read",), prefixed=True)]


def command(acl: Acl, *, bootstrap: str, command_config: str | None) -> str:
    """For a shell."""
    config = [] if command_config is None else ["--command-config", command_config]
    return shlex.join(["kafka-acls.sh", "--bootstrap-server", bootstrap, *config, *acl.arguments])


def _topics(scope: ServiceScope) -> Iterator[tuple[str, bool]]:
    if scope.everything:
        yield ERRORS_TOPIC, False
        yield SERVICE_TOPICS, True
    for name in sorted(scope.names - scope.excluded):
        yield service_topic(name), False
    for prefix in sorted(scope.prefixes):
        yield service_topic(prefix), True


def _check(principal: str) -> None:
    if not _PRINCIPAL.fullmatch(principal) or principal.endswith(":*"):
        raise InvalidInput(f"expected a principal as Kafka writes it, such as User:payments, got {principal[:120]!r}")
