"""From settings to a broker."""

from __future__ import annotations

from broker.port import Broker
from broker.settings import BrokerSettings
from broker.topics import Topics
from db.database import Database
from schemas.errors import ConfigurationError


def make_broker(settings: BrokerSettings, database: Database | None) -> Broker:
    """The broker that the settings name, not yet open. database: opened by the caller; only the queue needs it.

    Raises ConfigurationError for a queue without a database.
    """
    if settings.kind == "kafka":
        # Imported here: the embedded profile never loads a Kafka client.
        from broker.kafka import KafkaBroker

        return KafkaBroker(settings)
    if database is None:
        raise ConfigurationError("broker.kind is queue, which lives in the database: configure one, or kind kafka")
    from broker.queue import QueueBroker

    return QueueBroker(database, settings)


def make_topics(settings: BrokerSettings, database: Database | None) -> Topics:
    """Derived topics where the settings put records: topics of Kafka, or tables. Closed by the caller; nothing is connected
    yet. Raises ConfigurationError for tables without a database."""
    if settings.kind == "kafka":
        from broker.kafka_topics import KafkaTopics

        return KafkaTopics(settings)
    if database is None:
        raise ConfigurationError("broker.kind is queue, which lives in the database: configure one, or kind kafka")
    from broker.topic_table import TableTopics

    return TableTopics(database, settings)
