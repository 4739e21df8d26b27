"""Three real Kafka brokers as processes: what a deployment has, where a broker may die and nothing is lost or waits for long.

Each is broker and controller, so any of them may die; two copies of three acknowledge. A node's process ends with the thread
that started it (see `node`). Not thread-safe.
"""

from collections.abc import Sequence
from pathlib import Path

from infra.native.kafka import KafkaNode, new_cluster_id

BROKERS = 3
IN_SYNC_MIN = 2
CLUSTER_SETTINGS = {
    "default.replication.factor": str(BROKERS),
    "min.insync.replicas": str(IN_SYNC_MIN),
    "offsets.topic.replication.factor": str(BROKERS),
    "transaction.state.log.replication.factor": str(BROKERS),
    "transaction.state.log.min.isr": str(IN_SYNC_MIN),
    "share.coordinator.state.topic.replication.factor": str(BROKERS),
    "share.coordinator.state.topic.min.isr": str(IN_SYNC_MIN),
    # A follower that stopped is out of sync after 30 s by default: acknowledgements would wait for it so long.
    "replica.lag.time.max.ms": "3000",
}


class ClusterNode(KafkaNode):
    """One of three; the others are told by the cluster before the first start."""

    peers: Sequence[KafkaNode] = ()
    """All of the cluster, itself among them."""

    def __init__(self, directory: Path, *, node_id: int, cluster_id: str, die_with_parent: bool = True) -> None:
        """cluster_id: the same for all of them."""
        super().__init__(directory, die_with_parent=die_with_parent, node_id=node_id)
        self._of_cluster = cluster_id

    def _cluster_id_to_join(self) -> str:
        return self._of_cluster

    def _settings(self) -> dict[str, str]:
        voters = ",".join(f"{peer.node_id}@127.0.0.1:{peer.port('controller')}" for peer in self.peers)
        return {**super()._settings(), "controller.quorum.voters": voters, **CLUSTER_SETTINGS}


class KafkaCluster:
    """Three nodes of one cluster in one directory. Clients: `LOGFEED_BROKER__REPLICATION_FACTOR` 3."""

    def __init__(self, directory: Path, *, die_with_parent: bool = True) -> None:
        cluster_id = new_cluster_id()
        self.nodes = tuple(
            ClusterNode(
                directory / f"kafka-{number}",
                node_id=number,
                cluster_id=cluster_id,
                die_with_parent=die_with_parent,
            )
            for number in range(1, BROKERS + 1)
        )
        for node in self.nodes:
            node.peers = self.nodes

    @property
    def bootstrap(self) -> str:
        """host:port of each, for clients."""
        return ",".join(node.bootstrap for node in self.nodes)

    def node(self, node_id: int) -> KafkaNode:
        """The node of this id."""
        return next(node for node in self.nodes if node.node_id == node_id)

    def start(self) -> None:
        """Start those that do not run, at the same time, and wait until all answer. `NodeError` carries a log's tail."""
        for node in self.nodes:
            node.spawn()
        for node in self.nodes:
            node.wait_ready()

    def remove(self) -> None:
        """Kill all, and delete their data."""
        for node in self.nodes:
            node.remove()
