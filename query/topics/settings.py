"""Settings of reading derived topics over HTTP."""

from __future__ import annotations

from pydantic import Field, model_validator

from runtime.settings import Section

KiB = 1024
MiB = 1024 * KiB


class TopicReadSettings(Section):
    """Records of derived topics, over HTTP."""

    reads_max: int = Field(default=200, ge=1, le=10_000)
    """Requests for records that one process answers or keeps waiting at once; more get 503. Default 200."""

    subject_reads_max: int = Field(default=20, ge=1)
    """The same of one key or user; more get 429. Default 20."""

    fetches_max: int = Field(default=2, ge=1, le=50)
    """Of these, how many read records at once; others wait for their turn. Default 2: each may take a connection of the
    database, and Kafka's client reads 34 MiB ahead."""

    wait_s_max: float = Field(default=30.0, ge=0, le=300)
    """Seconds for which a request may wait for records. Default 30 s: below most proxies' timeouts."""

    answer_bytes_max: int = Field(default=4 * MiB, ge=64 * KiB, le=64 * MiB)
    """Bytes of records read for one answer, those that its reader may not see included. Default 4 MiB."""

    check_s: float = Field(default=1.0, gt=0, le=60)
    """Seconds between two looks whether who waits still may. Default 1 s: what is revoked is refused within two."""

    @model_validator(mode="after")
    def _limits_fit(self) -> TopicReadSettings:
        if self.reads_max < self.subject_reads_max:
            raise ValueError("reads_max must be at least subject_reads_max: one subject could never have it")
        return self
