"""What is said and answered of experiments, as the API's document describes it."""

from __future__ import annotations

from enum import StrEnum
from typing import Any, Final

from pydantic import BaseModel, ConfigDict, Field, StrictStr

ID_PATTERN: Final = r"^[A-Za-z0-9][A-Za-z0-9._:-]{0,127}$"
NAME_CHARS_MAX: Final = 200


class ExperimentStatus(StrEnum):
    """How an experiment stands."""

    QUEUED = "queued"
    RUNNING = "running"
    PAUSED = "paused"
    CANCELED = "canceled"
    ERRORED = "errored"
    COMPLETED = "completed"

    @property
    def is_end(self) -> bool:
        """Whether nothing goes on any more."""
        return self in (self.CANCELED, self.ERRORED, self.COMPLETED)


class ExperimentChange(BaseModel):
    """What is new of an experiment. What is left out, or null, stays."""

    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)

    status: ExperimentStatus = Field(examples=["running"])
    name: StrictStr | None = Field(default=None, max_length=NAME_CHARS_MAX, examples=["learning rate 0.1"])
    """For people."""
    service_name: StrictStr | None = Field(default=None, examples=["training"])
    """Whoever may read or write its logs may see or change the experiment. May be left out for an experiment that exists, and
    by a key that may write exactly one service. It never changes."""
    started_at: StrictStr | None = Field(default=None, examples=["2026-11-22T12:34:56Z"])
    """ISO 8601. Left out: the first time the status is `running`."""
    ended_at: StrictStr | None = Field(default=None, examples=["2026-11-22T13:00:00Z"])
    """ISO 8601. Left out: when the status becomes `canceled`, `errored` or `completed`; none again when it goes on."""
    metadata: dict[str, Any] | None = Field(default=None, examples=[{"seed": 7}])
    """Own fields, 16 KiB of JSON at most, nested at most 16 deep. Takes the place of what was there."""


class _Answer(BaseModel):
    model_config = ConfigDict(extra="forbid", use_attribute_docstrings=True)


class ExperimentChanged(_Answer):
    """It is kept."""

    id: str = Field(examples=["exp-42"])
    service_name: str = Field(examples=["training"])
    status: ExperimentStatus
    updated_at: str = Field(examples=["2026-11-22T12:34:56.123456Z"])
    """Of the last change that changed anything."""


class ExperimentModel(_Answer):
    """One experiment."""

    id: str = Field(examples=["exp-42"])
    """What its logs have as `metadata.experiment_id`."""
    name: str = Field(examples=["learning rate 0.1"])
    service_name: str = Field(examples=["training"])
    status: ExperimentStatus
    created_at: str = Field(examples=["2026-11-22T12:34:50.000000Z"])
    """When it was first heard of."""
    updated_at: str = Field(examples=["2026-11-22T12:34:56.123456Z"])
    started_at: str | None
    ended_at: str | None
    metadata: dict[str, Any] = Field(examples=[{"seed": 7}])


class ExperimentList(_Answer):
    """Experiments, newest first."""

    experiments: list[ExperimentModel]
    next_cursor: str | None
    """Goes on; null when nothing follows."""


class AgentModel(_Answer):
    """One agent of an experiment, among the logs that were counted."""

    agent_id: str = Field(examples=["agent-1"])
    """`metadata.agent_id` of its logs."""
    logs: int
    by_level: dict[str, int] = Field(examples=[{"INFO": 40, "ERROR": 1}])
    last_at: str
    """Timestamp of its newest log."""


class ExperimentDetails(ExperimentModel):
    """One experiment, and its logs counted."""

    agents: list[AgentModel]
    """By id."""
    logs: int
    by_level: dict[str, int] = Field(examples=[{"INFO": 80, "ERROR": 2}])
    is_estimated: bool
    """True: it has more logs than were counted, or may have: the figures are those of the newest."""


class ExperimentEvent(_Answer):
    """One experiment has changed, or is new."""

    experiment: ExperimentModel
