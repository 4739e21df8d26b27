"""What `GET /api/v1/status` answers, as the OpenAPI document describes it."""

from __future__ import annotations

from schemas.pages import Answer


class StockModel(Answer):
    """What one tier has of one retention class. Tables are hot and of all classes."""

    tier: str
    """hot: tables; copied: files whose tables are there too; warm: files; cold: object storage."""
    retention_class: str
    pieces: int
    """Tables or files."""
    rows: int
    """Of tables that are still written: about."""
    bytes: int
    oldest: str | None
    newest: str | None


class DueModel(Answer):
    """What is to be moved."""

    tables_to_write: int
    rows_to_write: int
    tables_to_switch: int
    segments_to_cool: int
    segments_past_age: int
    segments_to_remove: int


class PartitionModel(Answer):
    """How far the writers are in one partition of the broker."""

    partition: int
    writer: str | None
    """Process that has it now; null: nobody."""
    stored_offset: int
    """The first record that is not stored yet."""
    end_offset: int | None
    """What the next record gets; null: the broker does not say now."""
    lag_records: int | None
    """Records that are accepted and not stored yet."""
    stored_to: str | None
    """Everything appended before is stored."""
    halted: str | None
    """Why it stands still, where it does."""


class RoleModel(Answer):
    """A role that one process has at a time."""

    name: str
    leader: str | None
    """null: nobody."""


class DeadLetterSum(Answer):
    """Lines that could not be stored, of one reason and service."""

    reason: str
    service_name: str
    count: int
    newest: str
    newest_id: str
    """`logfeed dead show` shows it."""


class ReplicaModel(Answer):
    """A replica of the database, as the process that answers sees it."""

    server: str
    """host:port."""
    problem: str | None
    """Why it is left out; null: it answers questions."""
    behind_s: float | None
    """Everything that the primary had so many seconds ago is there; null: not known."""


class StatusAnswer(Answer):
    """How the installation stands."""

    tiers: list[StockModel]
    due: DueModel
    partitions: list[PartitionModel]
    writers: list[str]
    """Processes that store, by name."""
    roles: list[RoleModel]
    dead_letters: list[DeadLetterSum]
    """The most first; the newest 100,000 are counted."""
    replicas: list[ReplicaModel]
    """In the order of the settings."""
