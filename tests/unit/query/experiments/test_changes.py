"""What becomes of an experiment, decided without a database."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from query.errors import ExperimentConflict
from query.experiments.changes import Change, begun, changed, is_experiment_id, read_change
from query.experiments.tally import AGENTS_MAX, tally
from schemas.experiments import ExperimentChange, ExperimentStatus
from schemas.record import Log
from search.params import ParameterError
from store.experiments import Experiment

T0 = 1_800_000_000_000_000
RUNNING, PAUSED, COMPLETED = ExperimentStatus.RUNNING, ExperimentStatus.PAUSED, ExperimentStatus.COMPLETED
statuses = st.sampled_from(list(ExperimentStatus))


def experiment(*later: ExperimentStatus) -> Experiment:
    """One that has stood so, a second each."""
    found = begun("e", Change(later[0]), "shop", now_us=T0)
    for number, status in enumerate(later[1:], 1):
        found = changed(found, Change(status), now_us=T0 + number * 1_000_000)
    return found


def test_it_starts_at_the_first_running_and_ends_at_the_first_end() -> None:
    queued = experiment(ExperimentStatus.QUEUED)
    assert (queued.started_us, queued.ended_us) == (None, None)
    ended = experiment(ExperimentStatus.QUEUED, RUNNING, PAUSED, RUNNING, COMPLETED, COMPLETED)
    assert (ended.started_us, ended.ended_us) == (T0 + 1_000_000, T0 + 4_000_000)
    assert ended.updated_us == T0 + 4_000_000, "the last one changed nothing"


def test_what_goes_on_has_no_end() -> None:
    again = experiment(RUNNING, COMPLETED, RUNNING)
    assert (again.started_us, again.ended_us) == (T0, None)


def test_given_times_count() -> None:
    change = Change(COMPLETED, started_us=T0 - 50, ended_us=T0 - 7)
    assert changed(experiment(RUNNING), change, now_us=T0).ended_us == T0 - 7
    with pytest.raises(ParameterError, match="ended_at: must not be before started_at"):
        changed(experiment(RUNNING), Change(COMPLETED, ended_us=T0 - 1), now_us=T0)
    assert experiment(COMPLETED).started_us is None, "nobody said that it ran"


def test_it_keeps_its_service() -> None:
    assert changed(experiment(RUNNING), Change(PAUSED, service_name="shop"), now_us=T0).service_name == "shop"
    with pytest.raises(ExperimentConflict, match="keeps its service"):
        changed(experiment(RUNNING), Change(RUNNING, service_name="mail"), now_us=T0)


@given(
    st.lists(
        st.builds(
            Change,
            statuses,
            name=st.none() | st.text(max_size=3),
            started_us=st.none() | st.integers(T0 - 100, T0 - 50),
            ended_us=st.none() | st.integers(T0 + 50, T0 + 100),
            metadata=st.none() | st.sampled_from([b"{}", b'{"a":1}']),
        ),
        min_size=1,
        max_size=8,
    )
)
def test_any_change_again_changes_nothing_and_what_is_left_out_stays(changes: list[Change]) -> None:
    now_us = T0
    found = begun("e", changes[0], "shop", now_us=now_us)
    for change in changes:
        now_us += 1
        before, found = found, changed(found, change, now_us=now_us)
        assert changed(found, change, now_us=now_us + 1_000) == found
        assert found.status is change.status
        assert found.name == (before.name if change.name is None else change.name)
        assert found.metadata == (before.metadata if change.metadata is None else change.metadata)
        assert found.created_us == T0
        assert found.updated_us == (
            now_us if replace(found, updated_us=before.updated_us) != before else before.updated_us
        )
        assert (found.ended_us is not None) == (change.status.is_end or change.ended_us is not None)
        if found.status is RUNNING:
            assert found.started_us is not None
        if before.started_us is not None and change.started_us is None:
            assert found.started_us == before.started_us


@pytest.mark.parametrize(
    ("field", "document"),
    [
        ("service_name", {"service_name": "a b"}),
        ("name", {"name": "a\0"}),
        ("started_at", {"started_at": "soon"}),
        ("ended_at", {"ended_at": "2026-13-01"}),
        ("metadata", {"metadata": {"a": "x" * 17_000}}),
        ("metadata", {"metadata": {"a": {"b": ["\0"]}}}),
        ("metadata", {"metadata": {"\0": 1}}),
    ],
)
def test_what_cannot_be_is_named(field: str, document: dict[str, object]) -> None:
    with pytest.raises(ParameterError, match=f"^{field}: "):
        read_change(ExperimentChange.model_validate({"status": "running", **document}), now_us=T0)


def test_metadata_may_be_nested_sixteen_deep() -> None:
    fields: dict[str, object] = {"x": 1}
    for _ in range(15):
        fields = {"x": fields}
    assert read_change(ExperimentChange(status=RUNNING, metadata=fields), now_us=T0).metadata is not None
    with pytest.raises(ParameterError, match="nested"):
        read_change(ExperimentChange(status=RUNNING, metadata={"x": fields}), now_us=T0)


@pytest.mark.parametrize("text", ["", ".", "..", "events", "a/b", "a b", "-a", "a" * 129, "é", "a\n"])
def test_what_would_be_another_path_is_no_id(text: str) -> None:
    assert not is_experiment_id(text)


def test_ids_as_people_make_them_are() -> None:
    assert all(map(is_experiment_id, ("exp-42", "7", "2026-01-01T00:00:00", "a.b_c", "a" * 128)))


# --- counts ---


def log(number: int, level: int, **metadata: object) -> Log:
    return Log(number, T0 + number, level, "shop", "m", None, metadata)


def test_logs_are_counted_by_agent_and_level() -> None:
    found = tally(
        [
            log(1, 9, agent_id="b"),
            log(2, 17, agent_id="b"),
            log(3, 10, agent_id=7),
            log(4, 13),
            log(5, 9, agent_id=None),
        ]
    )
    assert found["logs"] == 5
    assert found["by_level"] == {"INFO": 3, "WARN": 1, "ERROR": 1}
    assert [(each["agent_id"], each["logs"], each["by_level"]) for each in found["agents"]] == [
        ("7", 1, {"INFO": 1}),
        ("b", 2, {"INFO": 1, "ERROR": 1}),
    ]
    assert found["agents"][1]["last_at"] == "2027-01-15T08:00:00.000002Z"


def test_agents_are_bounded() -> None:
    found = tally(log(number, 9, agent_id=str(number)) for number in range(AGENTS_MAX + 5))
    assert (len(found["agents"]), found["logs"]) == (AGENTS_MAX, AGENTS_MAX + 5)
