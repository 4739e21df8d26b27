"""The tally of a sample: what each value is called, that it finds the logs it counts, and its bounds."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from query.facets import KEYS_SHOWN, VALUE_CHARS_MAX, Field, Tally, metadata_field
from schemas.overview import Facet
from schemas.record import Log
from search.match import compile_match
from search.predicate import MetaEquals

texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="\0"), max_size=6)
values = (
    st.none()
    | st.booleans()
    | st.integers(-(10**30), 10**30)
    | st.floats(allow_nan=False, allow_infinity=False)
    | texts
)


def a_log(number: int = 1, *, level: int = 9, service: str = "shop", **metadata: Any) -> Log:
    return log_of(metadata, number, level=level, service=service)


def log_of(metadata: dict[str, Any], number: int = 1, *, level: int = 9, service: str = "shop") -> Log:
    return Log(number, number, level, service, "m", None, metadata)


def tallied(logs: list[Log], *fields: Field, top: int = 10) -> dict[str, dict[str, Any]]:
    tally = Tally(fields)
    tally.add(logs)
    assert tally.rows == len(logs)
    facets = tally.facets(top=top)
    for facet in facets:
        Facet.model_validate(facet)
    return {facet["field"]: facet for facet in facets}


def test_the_commonest_values_come_first_and_the_others_are_summed() -> None:
    logs = [a_log(n, service=name) for n, name in enumerate(["b"] * 3 + ["a"] * 3 + ["c"] * 2 + ["d"])]
    assert tallied(logs, Field("service_name"), top=2)["service_name"] == {
        "field": "service_name",
        "values": [{"value": "a", "count": 3}, {"value": "b", "count": 3}],
        "others": 3,
    }


def test_finer_grades_of_a_level_are_one_value() -> None:
    found = tallied([a_log(level=17), a_log(level=18), a_log(level=9)], Field("level"))
    assert found["level"]["values"] == [{"value": "ERROR", "count": 2}, {"value": "INFO", "count": 1}]


def test_without_fields_the_commonest_keys_are_shown() -> None:
    logs = [log_of({f"k{k}": "v" for k in range(20 - n)}) for n in range(20)]
    assert [*tallied(logs)] == ["service_name", "level", *(f"metadata.k{k}" for k in range(KEYS_SHOWN))]


def test_keys_whose_values_hardly_come_again_are_shown_to_who_asks_for_them_only() -> None:
    logs = [a_log(n, line=n // 2, zone=n % 3) for n in range(400)]
    assert [*tallied(logs)] == ["service_name", "level", "metadata.zone"]
    assert tallied(logs, metadata_field("line"), top=1)["metadata.line"]["others"] == 398


def test_what_is_no_value_is_not_counted() -> None:
    found = tallied([a_log(k=None), a_log(k=[1]), a_log(k={"a": 1}), a_log(), a_log(k="")], metadata_field("k"))
    assert found["metadata.k"] == {"field": "metadata.k", "values": [{"value": "", "count": 1}], "others": 0}


def test_long_values_are_among_the_others() -> None:
    logs = [a_log(k="x" * VALUE_CHARS_MAX), a_log(k="x" * (VALUE_CHARS_MAX + 1)), a_log(k=10**VALUE_CHARS_MAX)]
    found = tallied(logs, metadata_field("k"))
    assert [each["count"] for each in found["metadata.k"]["values"]] == [1]
    assert found["metadata.k"]["others"] == 1


def test_dots_go_deeper_however_the_producer_nested() -> None:
    logs = [a_log(user={"id": 7}), log_of({"user.id": "7"}), a_log(user="7")]
    assert tallied(logs, metadata_field("user.id"))["metadata.user.id"]["values"] == [{"value": "7", "count": 2}]


@settings(deadline=None)
@given(st.lists(values, min_size=1, max_size=20))
def test_a_value_finds_the_logs_that_it_counts(of: list[Any]) -> None:
    logs = [a_log(n, k=value) for n, value in enumerate(of)]
    for each in tallied(logs, metadata_field("k"), top=50)["metadata.k"]["values"]:
        matches = compile_match(MetaEquals(("k",), each["value"]))
        assert sum(map(matches, logs)) >= each["count"]


@pytest.mark.parametrize("key", ["", "a..b", "*", ".".join("abcdefghi"), "\0"])
def test_what_cannot_be_asked_for_is_no_field(key: str) -> None:
    with pytest.raises(ValueError, match="field name"):
        metadata_field(key)
    assert f"metadata.{key}" not in tallied([log_of({key: "v"})])
