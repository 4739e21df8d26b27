"""Names of derived topics, and the rights that are printed for them."""

from __future__ import annotations

import re
import shlex

import pytest
from hypothesis import given
from hypothesis import strategies as st

from broker.acls import Acl, Role, command, role_acls, subscriber_acls
from broker.topic_names import SERVICE_TOPICS, service_topic
from schemas.errors import InvalidInput
from schemas.scope import ALL_SERVICES, AUDIT_SERVICE, NO_SERVICES, ServiceScope

NAMES = st.text("ab.-_/su", min_size=1, max_size=12)
PAYMENTS = ServiceScope(names=frozenset({"shop"}), prefixes=frozenset({"pay/"}))


@given(NAMES, NAMES)
def test_topics_of_services_never_meet_even_where_kafka_takes_dots_for_underscores(one: str, other: str) -> None:
    topics = [service_topic(name).replace(".", "_") for name in (one, other)]
    assert (topics[0] == topics[1]) == (one == other)


@given(NAMES, NAMES)
def test_a_prefix_of_services_is_a_prefix_of_topics_and_no_other(name: str, prefix: str) -> None:
    assert service_topic(name).startswith(service_topic(prefix)) == name.startswith(prefix)


@pytest.mark.parametrize("char", [*"aZ09._-/"])
def test_the_longest_names_are_names_that_kafka_takes(char: str) -> None:
    topic = service_topic(char * 100)
    assert re.fullmatch(r"[a-zA-Z0-9._-]{1,249}", topic)
    assert topic.startswith(SERVICE_TOPICS)


@pytest.mark.parametrize("name", ["a b", "ä", "a\n", "*", "a:b", 'a"'])
def test_what_is_no_name_of_a_service_has_no_topic(name: str) -> None:
    with pytest.raises(ValueError, match="expected letters"):
        service_topic(name)


def test_topic_names_are_these() -> None:
    assert service_topic("pay/api") == "logs.service.pay-sapi"
    assert service_topic("a-b_c.d") == "logs.service.a--b-uc.d"


def test_a_subscriber_reads_the_topics_of_its_services_only() -> None:
    topics = {
        (acl.resource[1], acl.prefixed)
        for acl in subscriber_acls("User:ann", PAYMENTS, group_prefix="pay-")
        if acl.resource[0] == "topic" and not acl.deny
    }
    assert topics == {("logs.service.shop", False), ("logs.service.pay-s", True)}


def test_errors_of_all_services_are_for_who_may_read_all() -> None:
    acls = subscriber_acls("User:ann", ALL_SERVICES, group_prefix="g")
    assert ("topic", "logs.errors") in {acl.resource for acl in acls}


def test_nobody_subscribes_to_the_audit_log() -> None:
    for scope in (ALL_SERVICES, PAYMENTS, ServiceScope(prefixes=frozenset({"logfeed/"}))):
        denied = [acl for acl in subscriber_acls("User:ann", scope, group_prefix="g") if acl.deny]
        assert [acl.resource for acl in denied] == [("topic", service_topic(AUDIT_SERVICE))]


@pytest.mark.parametrize("principal", ["ann", "User:", "User:*", ":ann", "User:a\nb", "User:" + "a" * 201])
def test_what_is_no_principal_is_refused(principal: str) -> None:
    with pytest.raises(InvalidInput):
        role_acls({Role.INGEST: principal}, topic="t", group="g", create_topic=True)
    with pytest.raises(InvalidInput):
        subscriber_acls(principal, PAYMENTS, group_prefix="g")


def test_who_tells_alerts_reads_logs_and_writes_to_the_topics_it_tells_alone() -> None:
    acls = role_acls({Role.ALERT: "User:a"}, topic="logs", group="g", create_topic=False, alert_topics=["b", "a", "b"])
    looks = {"Describe", "DescribeConfigs"}
    rights = {acl.resource[1]: {*acl.operations} - looks for acl in acls if acl.resource[0] == "topic"}
    assert rights == {"logs": {"Read"}, "a": {"Write"}, "b": {"Write"}}


def test_a_subscriber_without_services_or_a_group_is_refused() -> None:
    with pytest.raises(InvalidInput):
        subscriber_acls("User:ann", NO_SERVICES, group_prefix="g")
    for group in ("", "*", "a b", "g\n"):
        with pytest.raises(InvalidInput):
            subscriber_acls("User:ann", PAYMENTS, group_prefix=group)


def test_commands_are_safe_in_a_shell() -> None:
    acl = Acl("User:CN=a b; rm -rf ~,O='x'", ("topic", "t"), ("Read",))
    text = command(acl, bootstrap="127.0.0.1:9092", command_config="/etc/my file")
    words = shlex.split(text)
    assert words[:5] == ["kafka-acls.sh", "--bootstrap-server", "127.0.0.1:9092", "--command-config", "/etc/my file"]
    assert words[words.index("--allow-principal") + 1] == acl.principal
