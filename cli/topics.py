"""`logfeed topics`: derived topics and their records, by the API; rights over Kafka's topics, as commands to look at and to
run."""

from __future__ import annotations

from typing import Annotated

import typer

from cli.database import ConfigOption
from cli.terminal import harmless
from cli.topic_records import list_topics, read_topic
from cli.usage import Command, group

app = group(help="Derived topics: which there are, their records; rights over Kafka's topics.")


@app.callback()
def topics() -> None:
    """Derived topics, and rights over Kafka's topics."""


app.command("list", cls=Command)(list_topics)
app.command("read", cls=Command)(read_topic)


@app.command(cls=Command)
def acl(
    ingest: Annotated[
        str | None, typer.Option("--ingest", metavar="PRINCIPAL", help="Of `logfeed ingest`: User:ingest.")
    ] = None,
    writer: Annotated[str | None, typer.Option("--writer", metavar="PRINCIPAL", help="Of `logfeed write`.")] = None,
    query: Annotated[str | None, typer.Option("--query", metavar="PRINCIPAL", help="Of `logfeed query`.")] = None,
    alert: Annotated[str | None, typer.Option("--alert", metavar="PRINCIPAL", help="Of `logfeed alert`.")] = None,
    route: Annotated[str | None, typer.Option("--route", metavar="PRINCIPAL", help="Of `logfeed route`.")] = None,
    subscriber: Annotated[
        str | None, typer.Option("--subscriber", metavar="PRINCIPAL", help="Who reads derived topics.")
    ] = None,
    read: Annotated[
        list[str] | None,
        typer.Option("--read", metavar="SERVICE", help="The subscriber's: a name, a prefix with *, or *; repeatable."),
    ] = None,
    group_prefix: Annotated[
        str | None,
        typer.Option("--group-prefix", metavar="TEXT", help="What the subscriber's consumer groups begin with."),
    ] = None,
    bootstrap: Annotated[
        str | None, typer.Option("--bootstrap", metavar="HOST:PORT", help="Default: broker.bootstrap.")
    ] = None,
    command_config: Annotated[
        str | None, typer.Option("--command-config", metavar="FILE", help="How kafka-acls.sh logs in.")
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Print the kafka-acls.sh commands that give these rights. Nothing is changed, Kafka is not asked.

    [bold]Examples[/bold]
      logfeed topics acl --ingest User:ingest --writer User:writer --query User:query --alert User:alert --route User:route
      logfeed topics acl --subscriber User:payments --read 'pay/*' --group-prefix payments-
    """
    from access.grants import Permission, check_grants, grant, principal_of
    from alerts.settings import TopicSettings
    from broker.acls import Role, command, role_acls, subscriber_acls
    from cli.settings import load_settings
    from routes.settings import derived_topics
    from schemas.errors import InvalidInput
    from schemas.topics import WRITER_GROUP

    named = {Role.INGEST: ingest, Role.WRITER: writer, Role.QUERY: query, Role.ALERT: alert, Role.ROUTE: route}
    principals = {role: principal for role, principal in named.items() if principal is not None}
    if not principals and subscriber is None:
        raise InvalidInput("whose rights? expected --ingest, --writer, --query, --alert, --route or --subscriber")
    if (subscriber is None) != (group_prefix is None) or (subscriber is None and read):
        raise InvalidInput("--subscriber, --read and --group-prefix belong together")
    settings = load_settings(config)
    broker, channels = settings.broker, settings.alerts.channels.values()
    found = role_acls(
        principals,
        topic=broker.topic,
        group=WRITER_GROUP,
        create_topic=broker.create_topic,
        alert_topics=[channel.topic for channel in channels if isinstance(channel, TopicSettings)],
        route_topics=[info.name for info in derived_topics(settings.routes, settings.routing)],
    )
    if subscriber is not None and group_prefix is not None:
        scope = principal_of("", "", check_grants(grant(Permission.READ, each) for each in read or ())).may_read
        found += subscriber_acls(subscriber, scope, group_prefix=group_prefix)
    for each in found:
        print(harmless(command(each, bootstrap=bootstrap or broker.bootstrap, command_config=command_config)))
