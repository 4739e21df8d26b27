"""Settings of experiments."""

from __future__ import annotations

from pydantic import Field, model_validator

from runtime.settings import Section


class ExperimentSettings(Section):
    """Experiments and their changes, over HTTP."""

    kept_max: int = Field(default=100_000, ge=1, le=10_000_000)
    """Experiments that are kept; a new one past it is refused (409). Those that nothing has changed for `store.retention_days`
    go, as their logs do. Default 100,000: a list is found among them in some ten milliseconds."""

    counted_logs_max: int = Field(default=10_000, ge=100, le=100_000)
    """Newest logs of an experiment that are counted for its agents and levels; with more the answer says that it is an
    estimate.
    Default 10,000: a quarter of a second."""

    watchers_max: int = Field(default=500, ge=1, le=100_000)
    """Streams of changes of one process; more get 503. Default 500."""

    subject_watchers_max: int = Field(default=20, ge=1)
    """The same of one key or user; more get 429. Default 20."""

    poll_ms: int = Field(default=500, ge=50, le=10_000)
    """Milliseconds between two looks for changes that another process made, while anybody watches. Default 500: with the 250
    between two events of one client a change is shown within a second."""

    heartbeat_s: float = Field(default=15.0, gt=0, le=600)
    """Seconds without a change after which a comment shows that the stream lives. Default 15 s: below most proxies'
    timeouts."""

    check_s: float = Field(default=2.0, gt=0, le=60)
    """Seconds between two looks whether who watches still may. Default 2 s, as fast as changes act elsewhere."""

    @model_validator(mode="after")
    def _limits_fit(self) -> ExperimentSettings:
        if self.watchers_max < self.subject_watchers_max:
            raise ValueError("watchers_max must be at least subject_watchers_max: one subject could never have it")
        return self
