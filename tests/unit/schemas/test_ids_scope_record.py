"""Ids tell their time, scopes name services, errors speak for themselves."""

from __future__ import annotations

import inspect

import pytest
from hypothesis import given
from hypothesis import strategies as st

from schemas import errors
from schemas.errors import DatabaseUnavailable, LogfeedError, OffsetOutOfRange, Overloaded
from schemas.ids import (
    EPOCH_MS,
    ID_MAX,
    SEQUENCE_BITS,
    SEQUENCES,
    TIME_SHIFT,
    WORKER_BITS,
    WORKERS,
    first_id_at,
    received_ms,
)
from schemas.record import is_service_name
from schemas.scope import ALL_SERVICES, NO_SERVICES, ServiceScope

CLASSES = [item for _, item in inspect.getmembers(errors, inspect.isclass) if issubclass(item, LogfeedError)]


@given(st.integers(EPOCH_MS, EPOCH_MS + 2**41 - 1), st.integers(0, WORKERS - 1), st.integers(0, SEQUENCES - 1))
def test_id_tells_when_its_log_was_received(at_ms: int, worker: int, sequence: int) -> None:
    log_id = ((at_ms - EPOCH_MS) << TIME_SHIFT) | (worker << SEQUENCE_BITS) | sequence
    assert 0 <= log_id <= ID_MAX
    assert received_ms(log_id) == at_ms
    assert first_id_at(at_ms) <= log_id < first_id_at(at_ms + 1)


def test_layout_of_ids_never_changes() -> None:
    assert (EPOCH_MS, WORKER_BITS, SEQUENCE_BITS, ID_MAX) == (1_704_067_200_000, 10, 12, 2**63 - 1)
    assert received_ms(382_110_771_345_817_600) == 1_795_169_507_163


def test_no_id_is_older_than_the_epoch() -> None:
    assert first_id_at(0) == first_id_at(EPOCH_MS) == 0
    assert received_ms(0) == EPOCH_MS


@pytest.mark.parametrize(
    ("scope", "permitted", "refused"),
    [
        (ALL_SERVICES, ["api", "web/1", ""], []),
        (NO_SERVICES, [], ["api", ""]),
        (ServiceScope(names=frozenset({"api"})), ["api"], ["api2", "ap", "API", ""]),
        (ServiceScope(prefixes=frozenset({"web-", "db"})), ["web-", "web-1", "db", "dbx"], ["web", "xdb", ""]),
        (ServiceScope(names=frozenset({"a"}), prefixes=frozenset({"b."})), ["a", "b.c"], ["a.b", "b"]),
    ],
)
def test_scope_permits_what_it_names_and_nothing_else(
    scope: ServiceScope, permitted: list[str], refused: list[str]
) -> None:
    """INV-5."""
    assert all(map(scope.permits, permitted))
    assert not any(map(scope.permits, refused))
    assert scope.is_empty == (scope == NO_SERVICES)


@pytest.mark.parametrize("name", ["a", "api", "Web-1.eu/blue_2", "x" * 100, "-", "."])
def test_service_names(name: str) -> None:
    assert is_service_name(name)


@pytest.mark.parametrize("name", ["", "x" * 101, "two words", "ä", "a\n", "a:b", "a*", "\0", "\u0661"])
def test_no_service_names(name: str) -> None:
    assert not is_service_name(name)


@pytest.mark.parametrize("kind", [item for item in CLASSES if item is not OffsetOutOfRange])
def test_error_without_words_has_those_of_its_class(kind: type[LogfeedError]) -> None:
    assert str(kind()) == inspect.cleandoc(kind.__doc__ or "").splitlines()[0]
    assert str(kind("what happened")) == "what happened"


def test_only_overload_is_worth_a_retry() -> None:
    assert [kind for kind in CLASSES if kind.retriable] == [kind for kind in CLASSES if issubclass(kind, Overloaded)]
    assert DatabaseUnavailable(retry_after_s=5).retry_after_s == 5


def test_missing_offset_says_what_there_is() -> None:
    error = OffsetOutOfRange(partition=3, wanted=7, first=10, end=20)
    assert str(error) == "partition 3: offset 7 was asked for, the broker has 10..19"
