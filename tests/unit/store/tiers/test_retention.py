"""Which class a row is of, and when it is hidden: files and readers must agree on it."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import ValidationError

from schemas.levels import LEVELS
from schemas.record import Log
from search.match import compile_match
from search.predicate import TimeRange
from store.tiers.retention import RetentionPolicy
from store.tiers.settings import RetentionClass, RetentionSettings, TierSettings
from tests.segment_rows import batch_of, log_at, logs

DAY_US = 86_400_000_000
NOW_US = 1_800_000_000_000_000
SERVICES = ["pay", "pay/*", "auth", "a*", "Z", "*"]


def policy(*classes: dict[str, Any], default_days: int = 400) -> RetentionPolicy:
    found = RetentionSettings(classes=tuple(RetentionClass(**each) for each in classes))
    return RetentionPolicy.of(found, default_days=default_days)


@st.composite
def policies(draw: st.DrawFn) -> RetentionPolicy:
    found = []
    for number in range(draw(st.integers(0, 4))):
        least, greatest = sorted(draw(st.tuples(*[st.sampled_from(list(LEVELS.values()))] * 2)))
        names = {severity: name for name, severity in LEVELS.items()}
        found.append(
            {
                "name": f"c{number}",
                "days": draw(st.integers(1, 9)),
                "services": tuple(draw(st.lists(st.sampled_from(SERVICES), max_size=3))),
                "min_level": draw(st.none() | st.just(names[least])),
                "max_level": draw(st.none() | st.just(names[greatest])),
            }
        )
    return policy(*found, default_days=draw(st.integers(1, 9)))


@settings(deadline=None)
@given(policies(), logs(times=st.integers(NOW_US - 10 * DAY_US, NOW_US)))
def test_files_and_readers_agree_on_what_is_past_its_age(found: RetentionPolicy, of: list[Log]) -> None:
    classes = found.classify(batch_of(of)).to_pylist()
    is_hidden = compile_match(found.hidden(NOW_US))
    assert len(classes) == len(of)
    for log, name in zip(of, classes, strict=True):
        assert is_hidden(log) == (log.timestamp < NOW_US - found.age_us(name)), (name, log)
        assert not is_hidden(log) or log.timestamp < found.cutoff_us(NOW_US)


def test_the_first_class_that_matches_counts() -> None:
    found = policy(
        {"name": "audit", "days": 3650, "services": ("audit*", "login")},
        {"name": "debug", "days": 3, "max_level": "debug"},
        {"name": "errors", "days": 800, "min_level": "ERROR"},
    )
    rows = [
        log_at(1, 1, service_name="audit/x", level=5),
        log_at(2, 2, service_name="pay", level=8),
        log_at(3, 3, service_name="pay", level=17),
        log_at(4, 4, service_name="login", level=1),
        log_at(5, 5, service_name="logins", level=9),
    ]
    assert found.classify(batch_of(rows)).to_pylist() == ["audit", "debug", "errors", "audit", "default"]
    assert found.longest_us == 3650 * DAY_US
    assert found.cutoff_us(NOW_US) == NOW_US - 3 * DAY_US
    assert dict(found.ages_us) == {
        name: days * DAY_US for name, days in (("default", 400), ("audit", 3650), ("debug", 3), ("errors", 800))
    }


def test_without_classes_age_alone_decides() -> None:
    found = policy()
    assert found.hidden(NOW_US) == TimeRange(end_us=NOW_US - 400 * DAY_US)
    assert found.classify(batch_of([log_at(1, 1)])).to_pylist() == ["default"]
    assert found.classify(batch_of([])).to_pylist() == []


def test_a_class_that_was_taken_out_of_the_configuration_keeps_its_rows_longest() -> None:
    assert policy({"name": "audit", "days": 3650}).age_us("once") == 3650 * DAY_US


@pytest.mark.parametrize(
    "found, message",
    [
        ({"name": "A b", "days": 1}, "lower-case letters"),
        ({"name": "default", "days": 1}, "store.retention_days"),
        ({"name": "a", "days": 0}, "greater than or equal to 1"),
        ({"name": "a", "days": 1, "services": ["a*b"]}, "beginning and \\*"),
        ({"name": "a", "days": 1, "min_level": "loud"}, "level must be one of"),
        ({"name": "a", "days": 1, "min_level": "error", "max_level": "info"}, "must not be above max_level"),
    ],
)
def test_a_class_that_cannot_be_is_refused(found: dict[str, Any], message: str) -> None:
    with pytest.raises(ValidationError, match=message):
        RetentionSettings.model_validate({"classes": [found]})


def test_two_classes_of_one_name_are_refused() -> None:
    with pytest.raises(ValidationError, match="names must differ, got a more"):
        RetentionSettings.model_validate({"classes": [{"name": "a", "days": 1}, {"name": "a", "days": 2}]})


def test_a_hot_window_of_no_service_is_refused() -> None:
    with pytest.raises(ValidationError, match="name of a service"):
        TierSettings.model_validate({"hot_days_by_service": {"a b": 3}})
