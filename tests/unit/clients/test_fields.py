"""Whatever a program logs becomes JSON that Logfeed takes: bounded, and nothing raises."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from enum import IntEnum
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from logfeed_client.fields import FIELDS_BYTES_MAX, fragment, joined, plain_tail

from ingest.parse import Window, decode_batch, to_log
from schemas.record import Log

NOW_US = 1_800_000_000_000_000
WINDOW = Window.at(NOW_US // 1000, 400)

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats()
    | st.text(st.characters())  # half surrogate pairs and NUL too
    | st.binary()
    | st.datetimes()
    | st.complex_numbers()
)
values = st.recursive(
    scalars,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text() | st.integers(), inner, max_size=4),
    max_leaves=8,
)


def taken(metadata: str) -> Log:
    """A line with this metadata, as ingest reads it."""
    line = f'{{"service_name":"shop","message":"m","timestamp":{NOW_US},"metadata":{{{metadata}}}}}'
    (item,) = decode_batch(line.encode("utf-8", "replace"), logs_max=10)
    log = to_log(item, 1, WINDOW, may_hold_nul=True)
    assert isinstance(log, Log), log
    return log


@given(st.dictionaries(st.text(st.characters()), values, max_size=6))
@settings(max_examples=40, deadline=None)
def test_logfeed_takes_any_fields(fields: dict[str, Any]) -> None:
    taken(fragment(fields.items()))


def test_what_json_has_stays_as_it_is() -> None:
    fields = {"a": 1, "b": 'ä\n"x"', "c": None, "d": True, "e": 1.5, "f": [1, {"g": "h"}], "i": 10**30}
    assert json.loads(f"{{{fragment(fields.items())}}}") == fields


def test_what_json_has_not_is_written_as_text() -> None:
    class Colour(IntEnum):
        RED = 1

        def __str__(self) -> str:
            return "red!"

    fields = {
        "time": datetime(2026, 1, 2, tzinfo=UTC),
        "path": Path("/tmp/x"),
        "id": UUID(int=7),
        "nan": math.nan,
        "inf": [math.inf],
        "set": {1},
        "key": {(1, 2): 3},
        "number": Colour.RED,
    }
    assert json.loads(f"{{{fragment(fields.items())}}}") == {
        "time": "2026-01-02T00:00:00+00:00",
        "path": "/tmp/x",
        "id": "00000000-0000-0000-0000-000000000007",
        "nan": "nan",
        "inf": ["inf"],
        "set": [1],
        "key": {"(1, 2)": 3},
        "number": 1,
    }


class Hostile:
    """Fails whatever is asked of it."""

    def __str__(self) -> str:
        raise RuntimeError("no")

    __repr__ = __str__


class Endless(Mapping[str, Any]):
    """Has no end, and lies about its length."""

    def __getitem__(self, key: str) -> Any:
        return self

    def __iter__(self) -> Iterator[str]:
        number = 0
        while True:
            yield str(number)
            number += 1

    def __len__(self) -> int:
        return 1


def test_objects_that_fail_and_values_without_end_are_bounded() -> None:
    circle: list[Any] = []
    circle.append(circle)
    deep: Any = 1
    for _ in range(5_000):
        deep = [deep]
    fields = {"hostile": Hostile(), "in": [Hostile()], "circle": circle, "deep": deep, "long": 10**5_000}
    log = taken(fragment(fields.items()))
    assert set(log.metadata) == set(fields)
    assert "cannot be written" in log.metadata["hostile"]


@pytest.mark.parametrize("value", ["x" * 10**6, "ä" * 10**6, ["y" * 1_000] * 1_000, {str(n): n for n in range(10**5)}])
def test_large_fields_are_cut_and_say_so(value: Any) -> None:
    text = fragment({"first": 1, "large": value, "last": 2}.items())
    assert len(text.encode()) <= FIELDS_BYTES_MAX
    metadata = taken(text).metadata
    assert metadata["first"] == 1
    assert metadata["_truncated"] is True


def test_of_keys_that_come_again_the_last_one_wins() -> None:
    assert taken(joined(fragment([("a", 1), ("b", 1)]), "", fragment([("a", 2)]))).metadata == {"a": 2, "b": 1}


@given(st.dictionaries(st.text(), values, max_size=20), st.integers(0, 20), st.sets(st.text(max_size=1)))
def test_the_quick_way_for_plain_fields_writes_what_the_other_does(
    fields: dict[str, Any], count: int, leave_out: set[str]
) -> None:
    found = plain_tail(fields, min(count, len(fields)), leave_out)
    if found is not None:
        wanted = fragment(list(fields.items())[max(0, len(fields) - count) :], leave_out=leave_out)
        assert found == (f",{wanted}" if wanted else "")


@given(st.dictionaries(st.text(), st.text() | st.integers(-(2**63) + 1, 2**63 - 1), min_size=1, max_size=16))
def test_the_quick_way_takes_texts_and_whole_numbers(fields: dict[str, Any]) -> None:
    assert plain_tail(fields, len(fields), ()) == f",{fragment(fields.items())}"


def test_the_quick_way_leaves_long_fields_to_the_other() -> None:
    assert plain_tail({"a": "x" * FIELDS_BYTES_MAX}, 1, ()) is None
    assert plain_tail({str(number): number for number in range(100)}, 100, ()) is None
