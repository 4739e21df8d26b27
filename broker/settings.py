"""Settings of the broker, both adapters."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, SecretStr, model_validator

from runtime.settings import Section
from schemas.frames import FRAME_BYTES_MAX
from schemas.topics import LOGS_TOPIC


class BrokerSettings(Section):
    """Where records go between ingest and its readers."""

    kind: Literal["queue", "kafka"] = "queue"
    """Which broker: `queue`, the durable queue in PostgreSQL (default: nothing to install), or `kafka`."""

    topic: str = Field(LOGS_TOPIC, pattern=r"^[a-zA-Z0-9._-]{1,249}$")
    """Name of the topic. Default logs.v1; the characters are those Kafka takes."""

    partitions: int = Field(4, ge=1, le=1024)
    """Partitions of the topic when it is made; an existing topic keeps its own. Default 4: room for four writers."""

    create_topic: bool = True
    """Make the topic when it is missing. Default true; off where somebody else owns the cluster's topics."""

    replication_factor: int = Field(1, ge=1, le=32)
    """Copies of each Kafka partition when the topic is made. Default 1: one broker. 3 survives the loss of a machine."""

    bootstrap: str = "127.0.0.1:9092"
    """Kafka brokers to ask first, host:port, comma separated. Default: this machine."""

    in_flight_bytes_max: int = Field(64 * 1024 * 1024, ge=FRAME_BYTES_MAX)
    """Bytes one producer holds until they are acknowledged; past it publishing is refused. Default 64 MiB: four of the
    largest frames. At least one of them, and with the overhead below Kafka's socket.request.max.bytes."""

    request_timeout_ms: int = Field(30_000, ge=500, le=600_000)
    """Milliseconds until an operation counts as failed. Default 30 s: a broker restart fits in, a client's patience too."""

    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    """How to speak to Kafka. Default PLAINTEXT: the brokers of the compose file are reachable from inside only."""

    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] = "PLAIN"
    """SASL mechanism, with a SASL_ protocol. Default PLAIN, what most clusters offer."""

    sasl_username: str | None = None
    """SASL user. Default none; a SASL_ protocol needs one."""

    sasl_password: SecretStr | None = None
    """SASL password. Default none; a SASL_ protocol needs one."""

    ssl_cafile: str | None = None
    """PEM file with the authorities that Kafka's certificate is checked against. Default: the system's."""

    queue_unread_bytes_max: int = Field(2 * 1024**3, ge=1024)
    """Bytes in the queue that the writers have not stored, past which ingest answers 503. Default 2 GiB of disk: at
    100,000 logs/s some three minutes of a standing database, at 1,000 logs/s five hours."""

    queue_bytes_max: int = Field(1024**3, ge=1024)
    """Bytes in the queue past which stored records go at once, however young. Default 1 GiB of disk."""

    queue_keep_s: float = Field(3600.0, gt=0)
    """Seconds that stored records stay for other readers (tail, alerts) while there is room. Default 1 h."""

    queue_linger_ms: float = Field(0.0, ge=0, le=1000)
    """Milliseconds a producer waits for company before it commits. Default 0: what arrives during one commit shares the
    next, which groups requests under load and costs nothing without."""

    derived_partitions: int = Field(4, ge=1, le=1024)
    """Partitions of a derived topic of Kafka when it is made; logs of one service share one. Default 4: room for four
    consumers of a group. Tables have one."""

    derived_retention_h: float = Field(72.0, gt=0, le=24 * 366)
    """Hours for which records of derived topics are kept at least. Default 72: who is away for a weekend misses nothing.
    Kafka's topics get it when they are made."""

    derived_bytes_max: int = Field(1024**3, ge=64 * 1024)
    """Bytes of all derived topics in tables (without Kafka), past which the oldest records go, however young. Default 1 GiB."""

    @model_validator(mode="after")
    def _sasl_is_complete(self) -> Self:
        if self.security_protocol.startswith("SASL_") and (self.sasl_username is None or self.sasl_password is None):
            raise ValueError(f"security_protocol {self.security_protocol} needs sasl_username and sasl_password")
        return self
