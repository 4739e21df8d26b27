"""Real Kafka and real TimescaleDB as plain processes, for machines without Docker.

`install` fetches both into a cache through the machine's own Maven and apt, without changing the system. `KafkaNode` and
`TimescaleNode` run one server each, `KafkaCluster` three brokers. Only the standard library is imported, so that all of this
works before the project's environment exists.
"""

from infra.native.cluster import KafkaCluster
from infra.native.kafka import KafkaNode
from infra.native.timescale import TimescaleNode

__all__ = ["KafkaCluster", "KafkaNode", "TimescaleNode"]
