"""What becomes of an experiment with a change: pure.

Any status may follow any other: whoever runs an experiment knows better. The same change again changes nothing, so that a PUT
may be repeated at will, and is told to nobody.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Final

import msgspec

from query.errors import ExperimentConflict
from schemas.experiments import ID_PATTERN, ExperimentChange, ExperimentStatus
from schemas.record import METADATA_DEPTH_MAX, is_service_name
from search.params import ParameterError, parse_time
from store.experiments import Experiment

METADATA_BYTES_MAX: Final = 16 * 1024
RESERVED_IDS: Final = frozenset({"events"})
"""Paths of their own."""
_ID: Final = re.compile(ID_PATTERN.removeprefix("^").removesuffix("$"))
_encoder: Final = msgspec.json.Encoder()


@dataclass(frozen=True, slots=True)
class Change:
    """A change that was checked. None: stays."""

    status: ExperimentStatus
    name: str | None = None
    service_name: str | None = None
    started_us: int | None = None
    ended_us: int | None = None
    metadata: bytes | None = None
    """JSON."""


def is_experiment_id(text: str) -> bool:
    """Whether an experiment can be called so."""
    return _ID.fullmatch(text) is not None and text not in RESERVED_IDS


def read_change(document: ExperimentChange, *, now_us: int) -> Change:
    """The change that a document says. Raises ParameterError."""
    if document.service_name is not None and not is_service_name(document.service_name):
        raise ParameterError("service_name", "expected 1 to 100 of A-Z a-z 0-9 . _ - /")
    if document.name is not None:
        _check_text("name", document.name)
    started, ended = document.started_at, document.ended_at
    return Change(
        status=document.status,
        name=document.name,
        service_name=document.service_name,
        started_us=None if started is None else parse_time(started, now_us, parameter="started_at"),
        ended_us=None if ended is None else parse_time(ended, now_us, parameter="ended_at"),
        metadata=None if document.metadata is None else _metadata(document.metadata),
    )


def begun(experiment_id: str, change: Change, service_name: str, *, now_us: int) -> Experiment:
    """A new experiment. Raises ParameterError."""
    first = Experiment(
        experiment_id=experiment_id,
        name="",
        service_name=service_name,
        status=change.status,
        created_us=now_us,
        updated_us=now_us,
        started_us=None,
        ended_us=None,
        metadata=b"{}",
    )
    return changed(first, change, now_us=now_us)


def changed(experiment: Experiment, change: Change, *, now_us: int) -> Experiment:
    """The experiment after the change; the same one, `updated_us` included, when nothing is new. Raises ExperimentConflict for
    another service, ParameterError for an end before the start."""
    if change.service_name not in (None, experiment.service_name):
        raise ExperimentConflict(
            f"experiment {experiment.experiment_id} is one of {experiment.service_name}: an experiment keeps its service"
        )
    started_us = experiment.started_us if change.started_us is None else change.started_us
    if started_us is None and change.status is ExperimentStatus.RUNNING:
        started_us = now_us
    ended_us = change.ended_us
    if ended_us is None and change.status.is_end:
        ended_us = now_us if experiment.ended_us is None else experiment.ended_us
    if started_us is not None and ended_us is not None and ended_us < started_us:
        if change.ended_us is not None or change.started_us is not None:
            raise ParameterError("ended_at", "must not be before started_at")
        ended_us = started_us  # a start that lies ahead, or clocks that are apart
    after = replace(
        experiment,
        name=experiment.name if change.name is None else change.name,
        status=change.status,
        started_us=started_us,
        ended_us=ended_us,
        metadata=experiment.metadata if change.metadata is None else change.metadata,
    )
    return after if after == experiment else replace(after, updated_us=now_us)


def _metadata(fields: dict[str, Any]) -> bytes:
    """Sorted, so that the same fields are the same bytes. Raises ParameterError."""
    _check_metadata(fields, METADATA_DEPTH_MAX)
    text = msgspec.json.encode(fields, order="sorted")
    if len(text) > METADATA_BYTES_MAX:
        raise ParameterError("metadata", f"expected at most {METADATA_BYTES_MAX} bytes of JSON, got {len(text)}")
    return text


def _check_metadata(value: Any, depth: int) -> None:  # any JSON value
    if isinstance(value, str):
        _check_text("metadata", value)
    if not isinstance(value, (dict, list)):
        return
    if not depth:
        raise ParameterError("metadata", f"may be nested {METADATA_DEPTH_MAX} deep")
    for key, member in value.items() if isinstance(value, dict) else (("", each) for each in value):
        _check_text("metadata", key)
        _check_metadata(member, depth - 1)


def _check_text(field: str, text: str) -> None:
    if "\0" in text or any("\ud800" <= char <= "\udfff" for char in text):
        raise ParameterError(field, "cannot have U+0000 or half a surrogate pair in it")
