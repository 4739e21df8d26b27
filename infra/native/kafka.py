"""A real Kafka broker, KRaft, broker and controller in one process, on loopback; further brokers can join it.

One broker acknowledges from the page cache: what it acknowledged survives kill -9, not a power cut (replication 3 with
two in-sync replicas does). `BROKER_SETTINGS` are the settings that the product relies on; the containers use them too.
"""

import base64
import hashlib
import os
import signal
import socket
import struct
import tempfile
from contextlib import suppress
from pathlib import Path

from infra.native.errors import NodeError
from infra.native.install import KAFKA_FILES, KAFKA_VERSION, install_kafka, java, say
from infra.native.node import Node
from infra.native.places import cache_root, locked, open_to_all, remove_tree, server_account

MESSAGE_BYTES_MAX = 17 * 1024 * 1024  # a frame of 16 MiB and its headers
HEAP_MIB = 512
# For brokers of a few cores: the optimising compiler and a parallel collector took half of the broker's CPU time in its first
# minutes and gained nothing in these (1.7 against 3.5 µs a log, 2 million logs, two cores).
JVM_OPTIONS = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")

BROKER_SETTINGS = {
    "auto.create.topics.enable": "false",
    "message.max.bytes": str(MESSAGE_BYTES_MAX),
    "replica.fetch.max.bytes": str(MESSAGE_BYTES_MAX),
    "log.message.timestamp.type": "LogAppendTime",
    "unclean.leader.election.enable": "false",
    "num.partitions": "1",
    "default.replication.factor": "1",
    "offsets.topic.replication.factor": "1",
    "offsets.topic.num.partitions": "4",
    "transaction.state.log.replication.factor": "1",
    "transaction.state.log.min.isr": "1",
    "share.coordinator.state.topic.replication.factor": "1",
    "share.coordinator.state.topic.min.isr": "1",
    "group.initial.rebalance.delay.ms": "0",
    "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
}
# A killed broker's registration is refused to its successor until the session ends: 9 s would be the default.
FAST_RESTART_SETTINGS = {"broker.session.timeout.ms": "2000", "broker.heartbeat.interval.ms": "500"}


class KafkaNode(Node):
    """One Kafka broker whose topics live in its directory."""

    name = "kafka"
    death_signal = signal.SIGKILL  # SIGTERM would let it outlive the tests by seconds
    stop_signal = signal.SIGTERM

    def __init__(
        self,
        directory: Path,
        *,
        die_with_parent: bool = True,
        controller: "KafkaNode | None" = None,
        node_id: int = 1,
    ) -> None:
        """controller: the node whose cluster this one joins as a broker, under another node_id; start it first, and keep
        it running: it is the only controller. Without one this node is a cluster of its own."""
        super().__init__(directory, die_with_parent=die_with_parent)
        self._controller = controller
        self._archive_options: tuple[str, ...] = ()
        self.node_id = node_id

    @property
    def bootstrap(self) -> str:
        """host:port for clients."""
        return f"127.0.0.1:{self.port()}"

    @property
    def cluster_id(self) -> str:
        """Of the cluster that this directory was made for; the node has been started before."""
        lines = (self._topics / "meta.properties").read_text().splitlines()
        return next(line.partition("=")[2] for line in lines if line.startswith("cluster.id="))

    def prepare(self) -> None:
        install_kafka()
        self._archive_options = self._class_archive_options()
        remove_tree(self._scratch)
        for directory in (self._topics, self._scratch):
            open_to_all(directory)
            self.own(directory)
        self._properties.write_text("".join(f"{key}={value}\n" for key, value in self._settings().items()))
        if not (self._topics / "meta.properties").exists():
            cluster_id = self._cluster_id_to_join()
            tool = ["kafka.tools.StorageTool", "format", "-t", cluster_id, "-c", str(self._properties)]
            self.run_as_server([*self._java("-Xmx128m", *JVM_OPTIONS), *tool])

    def command(self) -> list[str]:
        options = (f"-Xmx{HEAP_MIB}m", "-Xms128m", *JVM_OPTIONS)
        return [*self._java(*options), "kafka.Kafka", str(self._properties)]

    def answers(self) -> bool:
        return broker_answers("127.0.0.1", self.port())

    def _java(self, *options: str) -> list[str]:
        return [
            str(java()),
            *options,
            *self._archive_options,
            "-XX:+PerfDisableSharedMem",
            "-XX:+ExitOnOutOfMemoryError",
            "-Djava.awt.headless=true",
            f"-Djava.io.tmpdir={self._scratch}",
            f"-Dlog4j2.configurationFile={self._log_settings}",
            "-cp",
            f"{install_kafka()}/libs/*",
        ]

    def _cluster_id_to_join(self) -> str:
        return new_cluster_id() if self._controller is None else self._controller.cluster_id

    def _class_archive_options(self) -> tuple[str, ...]:
        archive = class_archive()
        return () if archive is None else (f"-XX:SharedArchiveFile={archive}",)

    def _settings(self) -> dict[str, str]:
        quorum = self._controller or self
        controller = f"127.0.0.1:{quorum.port('controller')}"
        own = {
            "process.roles": "broker,controller",
            "listeners": f"PLAINTEXT://{self.bootstrap},CONTROLLER://{controller}",
        }
        joining = {"process.roles": "broker", "listeners": f"PLAINTEXT://{self.bootstrap}"}
        return {
            **(own if self._controller is None else joining),
            "node.id": str(self.node_id),
            "controller.quorum.voters": f"{quorum.node_id}@{controller}",
            "controller.listener.names": "CONTROLLER",
            "advertised.listeners": f"PLAINTEXT://{self.bootstrap}",
            "listener.security.protocol.map": "PLAINTEXT:PLAINTEXT,CONTROLLER:PLAINTEXT",
            "log.dirs": str(self._topics),
            **BROKER_SETTINGS,
            **FAST_RESTART_SETTINGS,
        }

    @property
    def _log_settings(self) -> Path:
        """A copy that the server's account can read, wherever the checkout is."""
        copy = self.directory / "log4j2.properties"
        copy.write_text((KAFKA_FILES / "log4j2.properties").read_text())
        return copy

    @property
    def _topics(self) -> Path:
        return self.directory / "topics"

    @property
    def _scratch(self) -> Path:
        return self.directory / "tmp"

    @property
    def _properties(self) -> Path:
        return self.directory / "server.properties"


def class_archive() -> Path | None:
    """The broker's classes as the JVM keeps them when they are loaded (AppCDS): half of the CPU of each start.

    Made at the first start with this Java and this Kafka, by a broker that starts and stops. None where that failed, which an
    empty file remembers, and where the file is not what was made: a JVM dies of one that is cut off. A broker starts without,
    too."""
    program = java().resolve()
    status = program.stat()
    java_digest = _digest(f"{program}:{status.st_size}:{status.st_mtime_ns}".encode())
    root = cache_root(server_account())
    name = f"kafka-{KAFKA_VERSION}-classes"
    with locked(root / f".{name}.lock"):
        archive = next(root.glob(f"{name}-{java_digest}-*.jsa"), None)
        if archive is None:
            for old in root.glob(f"{name}-*.jsa"):  # of another Java
                old.unlink()
            archive = _make_class_archive(root, f"{name}-{java_digest}")
        content = archive.read_bytes()  # 50 MB, 60 ms
        if archive.stem.endswith(f"-{_digest(content)}"):
            return archive if content else None
        say(f"{archive} is not what was made; the next start makes it anew")
        archive.unlink()
        return None


def _digest(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()[:16]


def _make_class_archive(root: Path, name: str) -> Path:
    """Its own name ends with its digest. The lock is the caller's."""
    for left_over in root.glob(f".{name}.build-*"):  # of a process that died
        remove_tree(left_over)
    say(f"keeping Kafka's classes in {root} (once; some ten seconds)")
    work = Path(tempfile.mkdtemp(prefix=f".{name}.build-", dir=root))
    work.chmod(0o711)
    content = b""
    node = _ClassArchiver(work / "node")
    try:
        node.start()
        node.stop()
        content = node.written.read_bytes()
    except (NodeError, OSError) as error:
        say(f"Kafka's classes could not be kept, so each start takes longer: {error}")
    finally:
        node.kill()
    product = work / "product"
    product.write_bytes(content)
    product.chmod(0o444)
    archive = root / f"{name}-{_digest(content)}.jsa"
    product.rename(archive)
    remove_tree(work)
    return archive


class _ClassArchiver(KafkaNode):
    """A broker that writes down its classes when it ends."""

    @property
    def written(self) -> Path:
        return self._scratch / "classes.jsa"

    def command(self) -> list[str]:
        program, *arguments = super().command()
        return [program, f"-XX:ArchiveClassesAtExit={self.written}", *arguments]

    def _class_archive_options(self) -> tuple[str, ...]:
        return ()


def new_cluster_id() -> str:
    """A name that no other cluster has."""
    return base64.urlsafe_b64encode(b"L" + os.urandom(15)).decode().rstrip("=")


def broker_answers(host: str, port: int, timeout_seconds: float = 2.0) -> bool:
    """Whether a broker answers a Metadata request and counts itself among the brokers that take part.

    Metadata version 1, https://kafka.apache.org/protocol: asked for no topics; the answer begins with the brokers.
    """
    client = b"logfeed"
    header = struct.pack(">hhih", 3, 1, 1, len(client)) + client
    request = header + struct.pack(">i", 0)
    with suppress(OSError, struct.error), socket.create_connection((host, port), timeout_seconds) as connection:
        connection.settimeout(timeout_seconds)
        connection.sendall(struct.pack(">i", len(request)) + request)
        answer = _exactly(connection, struct.unpack(">i", _exactly(connection, 4))[0])
        correlation, brokers = struct.unpack_from(">ii", answer)
        return correlation == 1 and port in _ports(answer, brokers)
    return False


def _exactly(connection: socket.socket, size: int) -> bytes:
    data = b""
    while len(data) < size:
        piece = connection.recv(size - len(data))
        if not piece:
            raise ConnectionResetError("the broker closed the connection")
        data += piece
    return data


def _ports(answer: bytes, brokers: int) -> list[int]:
    """Ports of the brokers in a Metadata answer: each is an id, a host, a port and a rack that may be null."""
    ports = []
    at = 8
    for _ in range(brokers):
        (host_bytes,) = struct.unpack_from(">h", answer, at + 4)
        at += 6 + host_bytes
        ports.append(struct.unpack_from(">i", answer, at)[0])
        (rack_bytes,) = struct.unpack_from(">h", answer, at + 4)
        at += 6 + max(rack_bytes, 0)
    return ports
