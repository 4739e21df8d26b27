"""The rights that `logfeed topics acl` prints, in force on a real Kafka that refuses all else.

The commands' own program is a package of its own; what they say is read here as strictly as it does, and sent to the broker.
"""

from __future__ import annotations

import argparse
import shlex
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, NoReturn

import pytest
from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, TopicPartition
from aiokafka.admin import AIOKafkaAdminClient, NewTopic
from aiokafka.errors import GroupAuthorizationFailedError, KafkaError, TopicAuthorizationFailedError
from aiokafka.protocol.admin import CreateAclsRequest

from broker.kafka import KafkaBroker
from broker.kafka_topics import KafkaTopics
from broker.port import Record
from broker.settings import BrokerSettings
from broker.topic_names import ERRORS_TOPIC, service_topic
from broker.topics import Extent, TopicRecord
from infra.native import KafkaNode
from schemas.errors import LogfeedError
from schemas.scope import AUDIT_SERVICE
from schemas.topics import LOGS_TOPIC, WRITER_GROUP
from tests.commands import logfeed

pytestmark = pytest.mark.kafka

USERS = ("ingest", "writer", "query", "alert", "route", "ann", "bob", "stranger")
SERVICES = ("pay", "pay/api", "pay/web", "pay_api", "pay-api", "payroll", "shop", AUDIT_SERVICE)
# https://kafka.apache.org/protocol, org.apache.kafka.common.resource.ResourceType, PatternType, acl.AclOperation
RESOURCES = {"topic": 2, "group": 3, "cluster": 4}
OPERATIONS = {"All": 2, "Read": 3, "Write": 4, "Create": 5, "Describe": 8, "DescribeConfigs": 10}
DENY, ALLOW = 2, 3
LITERAL, PREFIXED = 3, 4


class GuardedKafka(KafkaNode):
    """A second listener asks for a password; nobody but the first, which is the administrator's, may do anything."""

    @property
    def guarded(self) -> str:
        """host:port of that listener."""
        return f"127.0.0.1:{self.port('guarded')}"

    def _settings(self) -> dict[str, str]:
        settings = super()._settings()
        for name in ("listeners", "advertised.listeners"):
            settings[name] += f",GUARDED://{self.guarded}"
        passwords = " ".join(f'user_{user}="{user}"' for user in USERS)
        return settings | {
            "listener.security.protocol.map": settings["listener.security.protocol.map"] + ",GUARDED:SASL_PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
            "listener.name.guarded.sasl.enabled.mechanisms": "PLAIN",
            "listener.name.guarded.plain.sasl.jaas.config": (
                f"org.apache.kafka.common.security.plain.PlainLoginModule required {passwords};"
            ),
            "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
            "super.users": "User:ANONYMOUS",
        }


@pytest.fixture(scope="module")
def node(kafka_bootstrap: str) -> Iterator[GuardedKafka]:
    """kafka_bootstrap: where there is none, there cannot be this one either."""
    with tempfile.TemporaryDirectory(prefix="logfeed-acls-") as directory:
        Path(directory).chmod(0o711)
        made = GuardedKafka(Path(directory) / "kafka")
        try:
            made.start()
            yield made
        finally:
            made.remove()


@pytest.fixture
async def admin(node: GuardedKafka) -> AsyncIterator[AIOKafkaAdminClient]:
    client = AIOKafkaAdminClient(bootstrap_servers=node.bootstrap)
    await client.start()
    yield client
    await client.close()


class _Options(argparse.ArgumentParser):
    """Of kafka-acls.sh, those that are used; no abbreviations, no repetition of what it takes once."""

    def __init__(self) -> None:
        super().__init__(prog="kafka-acls.sh", allow_abbrev=False)
        for name in ("--bootstrap-server", "--allow-principal", "--deny-principal", "--topic", "--group"):
            self.add_argument(name)
        self.add_argument("--operation", action="append", choices=list(OPERATIONS), required=True)
        self.add_argument("--resource-pattern-type", choices=["literal", "prefixed"], default="literal")
        self.add_argument("--cluster", action="store_true")
        self.add_argument("--add", action="store_true", required=True)

    def error(self, message: str) -> NoReturn:
        raise AssertionError(message)


def printed(*arguments: str, environment: Mapping[str, str] | None = None) -> list[str]:
    done = logfeed("topics", "acl", *arguments, **(environment or {}))
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


async def give(admin: AIOKafkaAdminClient, *arguments: str, environment: Mapping[str, str] | None = None) -> None:
    """What the commands that are printed say."""
    for line in printed(*arguments, environment=environment):
        program, *words = shlex.split(line)
        assert program == "kafka-acls.sh"
        options = _Options().parse_args(words)
        (kind, name), *others = [
            each
            for each in (("topic", options.topic), ("group", options.group), ("cluster", options.cluster))
            if each[1]
        ]
        assert not others
        principal, permission = (
            (options.deny_principal, DENY) if options.deny_principal else (options.allow_principal, ALLOW)
        )
        pattern = PREFIXED if options.resource_pattern_type == "prefixed" else LITERAL
        for operation in options.operation:
            request = CreateAclsRequest(
                RESOURCES[kind],
                "kafka-cluster" if kind == "cluster" else name,
                pattern,
                principal,
                "*",
                OPERATIONS[operation],
                permission,
            )
            response: Any = await admin._send_request(request)  # of the protocol's tables, without types
            assert [code for code, _ in response.creation_responses] == [0], line


def login(node: GuardedKafka, user: str) -> dict[str, Any]:
    """Any: arguments of aiokafka's clients."""
    return {
        "bootstrap_servers": node.guarded,
        "security_protocol": "SASL_PLAINTEXT",
        "sasl_mechanism": "PLAIN",
        "sasl_plain_username": user,
        "sasl_plain_password": user,
    }


async def test_roles_do_their_work_and_no_other(node: GuardedKafka, admin: AIOKafkaAdminClient) -> None:
    await give(admin, "--ingest", "User:ingest", "--writer", "User:writer", "--query", "User:query")
    channels = {"LOGFEED_ALERTS__CHANNELS": '{"ops": {"type": "topic", "topic": "alerts"}}'}
    await give(admin, "--alert", "User:alert", environment=channels)
    async with AsyncExitStack() as stack:

        def broker(user: str, topic: str = LOGS_TOPIC) -> KafkaBroker:
            settings = BrokerSettings(
                kind="kafka",
                bootstrap=node.guarded,
                topic=topic,
                partitions=1,
                request_timeout_ms=20_000,
                security_protocol="SASL_PLAINTEXT",
                sasl_username=user,
                sasl_password=user,
            )
            made = KafkaBroker(settings)
            stack.push_async_callback(made.close)
            return made

        ingest, writer, query = broker("ingest"), broker("writer"), broker("query")
        await ingest.open()  # makes the topic, and looks how it and the brokers are set
        for user in (ingest, query):
            await user.open()
            producer = await user.producer()
            stack.push_async_callback(producer.close)
            await producer.publish(Record(value=b"v", headers=[]), partition_key=None)
        await writer.open()
        reader = await writer.reader(group=WRITER_GROUP)
        stack.push_async_callback(reader.close)
        await reader.seek({0: 0})
        found = 0
        while found < 2:
            found += len(await reader.poll(max_bytes=1 << 20, wait_ms=500))
        await writer.commit_group(WRITER_GROUP, {0: 2})
        assert await ingest.group_offsets(WRITER_GROUP) == {0: 2}
        assert await ingest.retention_risk(WRITER_GROUP) == 0.0
        unread = await query.reader(group=WRITER_GROUP)
        stack.push_async_callback(unread.close)
        assert await unread.end_offsets([0]) == {0: 2}
        alert, told = broker("alert"), broker("alert", "alerts")
        await alert.open()
        for follower in (query, alert):
            live = await follower.reader(group="live")
            stack.push_async_callback(live.close)
            await live.seek({0: 0})
            found = 0
            while found < 2:
                found += len(await live.poll(max_bytes=1 << 20, wait_ms=500))
        await told.open()
        teller = await told.producer()
        stack.push_async_callback(teller.close)
        await teller.publish(Record(value=b"v", headers=[]), partition_key=None)

        for other in (ingest, query):
            with pytest.raises((LogfeedError, KafkaError)):
                await other.commit_group(WRITER_GROUP, {0: 1})
        assert await writer.group_offsets(WRITER_GROUP) == {0: 2}
        with pytest.raises((LogfeedError, KafkaError)):
            await broker("stranger").open()
    thief = AIOKafkaConsumer(**login(node, "ingest"), group_id=None)
    await thief.start()
    try:
        thief.assign([TopicPartition(LOGS_TOPIC, 0)])
        with pytest.raises(TopicAuthorizationFailedError):
            await thief.getone()
    finally:
        await thief.stop()


async def test_the_router_fills_derived_topics_that_query_reads(node: GuardedKafka, admin: AIOKafkaAdminClient) -> None:
    routes = {"LOGFEED_ROUTES": '{"cards": {"query": "card", "topic": "team.cards"}}'}
    await give(admin, "--route", "User:route", "--query", "User:query", environment=routes)
    names = ["team.cards", service_topic("routed/api")]  # logs.errors is another test's
    async with AsyncExitStack() as stack:

        def topics(user: str) -> KafkaTopics:
            settings = BrokerSettings(
                kind="kafka",
                bootstrap=node.guarded,
                derived_partitions=1,
                request_timeout_ms=20_000,
                security_protocol="SASL_PLAINTEXT",
                sasl_username=user,
                sasl_password=user,
            )
            made = KafkaTopics(settings)
            stack.push_async_callback(made.close)
            return made

        router, query = topics("route"), topics("query")
        await router.ensure(names)
        await router.publish([TopicRecord(name, b"k", b"v", []) for name in names])
        for name in names:
            extents = (await query.extents([name]))[name]
            assert extents == {0: Extent(0, 1)}
            reader = await query.reader(name)
            stack.push_async_callback(reader.close)
            await reader.seek({0: 0})
            assert [record.value for record in await reader.poll(max_bytes=1 << 20, wait_ms=20_000)] == [b"v"]
        for user, name in (("query", "team.cards"), ("route", "team.others"), ("stranger", "team.cards")):
            with pytest.raises((LogfeedError, KafkaError)):
                await topics(user).publish([TopicRecord(name, b"k", b"v", [])])
        with pytest.raises(LogfeedError):
            await router.ensure(["team.others"])


async def _read(node: GuardedKafka, user: str, topic: str, *, group: str | None = None) -> bytes:
    consumer = AIOKafkaConsumer(topic, **login(node, user), group_id=group, auto_offset_reset="earliest")
    try:
        await consumer.start()
        return bytes((await consumer.getone()).value)
    finally:
        await consumer.stop()


async def test_a_subscriber_reads_its_services_under_its_groups(node: GuardedKafka, admin: AIOKafkaAdminClient) -> None:
    topics = {name: service_topic(name) for name in SERVICES} | {"": ERRORS_TOPIC}
    made: Any = await admin.create_topics([NewTopic(topic, 1, 1) for topic in topics.values()])
    assert [code for _, code, *_ in made.topic_errors] == [0] * len(topics), "no two of them collide"
    producer = AIOKafkaProducer(bootstrap_servers=node.bootstrap)
    await producer.start()
    for name, topic in topics.items():
        await producer.send_and_wait(topic, name.encode() or b"errors")
    await producer.stop()
    await give(admin, "--subscriber", "User:ann", "--read", "pay/*", "--read", "shop", "--group-prefix", "payments-")
    await give(admin, "--subscriber", "User:bob", "--read", "*", "--group-prefix", "bob")
    for user, services in (
        ("ann", {"pay/api", "pay/web", "shop"}),
        ("bob", {*SERVICES, ""} - {AUDIT_SERVICE}),
        ("stranger", set[str]()),
    ):
        for name, topic in topics.items():
            if name in services:
                assert await _read(node, user, topic) == (name.encode() or b"errors"), (user, name)
            else:
                with pytest.raises(TopicAuthorizationFailedError):
                    await _read(node, user, topic)
    assert await _read(node, "ann", topics["shop"], group="payments-one") == b"shop"
    with pytest.raises(GroupAuthorizationFailedError):
        await _read(node, "ann", topics["shop"], group="logfeed-writer")
