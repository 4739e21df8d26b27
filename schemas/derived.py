"""What the API answers about derived topics: the shapes, for the OpenAPI document. At run time bodies are written directly."""

from __future__ import annotations

from typing import Final, Literal

from pydantic import Field

from schemas.pages import Answer, LogModel, Problem

_PLACE_EXAMPLES: Final = ["0:1250", "0:1250,1:980"]


class PartitionExtent(Answer):
    """What a partition has: offsets first_offset … next_offset - 1."""

    partition: int = Field(ge=0)
    first_offset: int = Field(ge=0, examples=[0])
    """Of the oldest record that is kept."""
    next_offset: int = Field(ge=0, examples=[1250])
    """Of the next one to come."""


class TopicModel(Answer):
    """A derived topic. Its offsets count all of its records, also those of services that you may not see."""

    name: str = Field(examples=["logs.errors"])
    kind: Literal["errors", "service", "route"]
    """ERROR and above of all services; logs of one; what a route of the settings chooses."""
    description: str
    partitions: list[PartitionExtent]


class TopicList(Answer):
    """Topics that you may read, by name."""

    topics: list[TopicModel]


class RecordSource(Answer):
    """Where the log was read: the record of the logs' topic, and the log's place in it."""

    partition: int = Field(ge=0)
    offset: int = Field(ge=0)
    index: int = Field(ge=0)


class TopicRecordModel(Answer):
    """One log. It may come again with the same `log.id`: leave out ids you have."""

    partition: int = Field(ge=0)
    offset: int = Field(ge=0)
    key: str = Field(examples=["checkout"])
    """The log's service: records of one key stay in order."""
    source: RecordSource
    log: LogModel


class TopicRecords(Answer):
    """Records behind a place, in order of each partition."""

    topic: str = Field(examples=["logs.errors"])
    records: list[TopicRecordModel]
    """Empty: none came in time, or none that you may see. Go on from `next` all the same."""
    next: str = Field(examples=_PLACE_EXAMPLES)
    """`after` of the next request."""


class TopicGap(Problem):
    """Records behind this place are not there any more (410)."""

    reason: Literal["expired", "remade"]
    """Past their retention; the topic was made again."""
    next: str = Field(examples=_PLACE_EXAMPLES)
    """`after` that goes on behind the gap."""
