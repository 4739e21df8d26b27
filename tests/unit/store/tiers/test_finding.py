"""What rules a segment out without its file, and what is read of the list of segments."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

import msgspec
import pytest

from schemas.record import Log
from search.bounds import id_bounds
from search.match import compile_match
from search.predicate import (
    EVERYTHING,
    NOTHING,
    Contains,
    CorrelationIs,
    IdRange,
    LevelIn,
    MinLevel,
    Not,
    Predicate,
    ServiceIn,
    all_of,
    any_of,
)
from store.segments.format import SegmentInfo
from store.tiers.finding import Segments, Wanted
from store.tiers.segments import Segment, SegmentState, Tier

LOGS = [Log(n, n * 10, 9 + n % 5, ("pay", "pay/cards")[n % 2], "m", f"c{n}", {}) for n in range(20, 30)]
INFO = SegmentInfo(10, 99, 200, 290, 20, 29, {"pay": 5, "pay/cards": 5}, {9: 2, 13: 8}, (), "", "")


def segment(name: str, **changes: Any) -> Segment:
    plain = Segment(name, SegmentState.SERVING, Tier.WARM, "default", ("logs_1",), 200, 291, INFO)
    return msgspec.structs.replace(plain, **changes)


@pytest.mark.parametrize(
    "predicate, may",
    [
        (EVERYTHING, True),
        (NOTHING, False),
        (ServiceIn(frozenset({"pay"})), True),
        (ServiceIn(prefixes=frozenset({"pa"})), True),
        (ServiceIn(frozenset({"pa", "cards"})), False),
        (Not(ServiceIn(frozenset({"pay"}))), True),
        (MinLevel(13), True),
        (MinLevel(14), False),
        (LevelIn(((1, 8), (17, 20))), True),
        (IdRange(29, 40), True),
        (IdRange(30, 40), False),
        (IdRange(None, 19), False),
        (all_of(IdRange(None, 25), IdRange(26, None)), True),
        (any_of(IdRange(30, None), Contains("m")), True),
        (all_of(ServiceIn(frozenset({"mail"})), Contains("m")), False),
        (CorrelationIs("c20"), True),
    ],
)
def test_figures_rule_out_only_what_cannot_match(predicate: Predicate, may: bool) -> None:
    assert Wanted.of(predicate).may_be_in(segment("s")) is may
    if not may:
        assert not any(map(compile_match(predicate), LOGS))


def test_bounds_of_ids_are_those_of_all_parts_together() -> None:
    assert id_bounds(all_of(IdRange(3, None), IdRange(5, 9), IdRange(None, 7), Contains("x"))) == IdRange(5, 7)
    assert id_bounds(Not(IdRange(3, 4))) == id_bounds(any_of(IdRange(3, 4), Contains("x"))) == IdRange()


def test_serving_segments_alone_have_rows_of_a_time() -> None:
    segments = Segments(
        [
            segment("b", start_us=300, end_us=400),
            segment("a", start_us=100, end_us=200),
            segment("w", state=SegmentState.WRITTEN, start_us=900, end_us=990),
        ]
    )
    assert [each.name for each in segments.serving] == ["a", "b"]
    assert (segments.oldest_us, segments.newest_us, len(segments)) == (100, 400, 3)
    assert not segments.reach((400, 0), (2_000, 0))
    assert not segments.reach((0, 0), (100, 0))
    assert segments.reach((399, 5), (2_000, 0))
    assert segments.reach((0, 0), (100, 1))
    assert not Segments().reach((0, 0), (2_000, 0))
    assert [each.name for each in segments.instead_of(["logs_1", "logs_2"])] == ["w"]
    assert segments.instead_of(["logs_2"]) == ()


def test_an_id_is_sought_in_warm_files_first_then_in_the_newest() -> None:
    found = Segments(
        [
            segment("old", end_us=300),
            segment("cold", tier=Tier.COLD, end_us=900),
            segment("new", end_us=400),
            segment("other", info=msgspec.structs.replace(INFO, id_min=1, id_max=2)),
            segment("w", state=SegmentState.WRITTEN),
        ]
    ).with_id(25)
    assert [each.name for each in found] == ["new", "old", "cold"]


class Rows:
    """A list of segments as the database answers for it, and for which names all was asked."""

    def __init__(self, *segments: Segment) -> None:
        self.segments = {each.name: each for each in segments}
        self.asked_for: list[str] = []

    async def rows(self, text: str, params: Sequence[Any]) -> list[tuple[Any, ...]]:
        if not params:
            return [(each.name, each.state.value, each.tier.value) for each in self.segments.values()]
        (names,) = params
        self.asked_for += names
        return [
            (
                *(each.name, each.state.value, each.tier.value, each.retention_class, list(each.sources)),
                *(each.start_us, each.end_us, msgspec.json.encode(each.info).decode()),
            )
            for each in map(self.segments.__getitem__, names)
        ]


async def test_what_is_known_of_a_segment_is_read_once() -> None:
    first, second = segment("first"), segment("second", state=SegmentState.WRITTEN)
    database = Rows(first, second)
    known = await Segments.read(database, Segments())
    assert sorted(database.asked_for) == ["first", "second"]
    assert known.serving == (first,)
    moved, third = msgspec.structs.replace(first, tier=Tier.COLD), segment("third", start_us=0)
    database = Rows(moved, msgspec.structs.replace(second, state=SegmentState.SERVING), third)
    later = await Segments.read(database, known)
    assert database.asked_for == ["third"]
    assert {each.name: (each.tier, each.state) for each in later.serving} == {
        "first": (Tier.COLD, SegmentState.SERVING),
        "second": (Tier.WARM, SegmentState.SERVING),
        "third": (Tier.WARM, SegmentState.SERVING),
    }
    database = Rows(third)
    assert len(await Segments.read(database, later)) == 1
    assert database.asked_for == []


def test_services_of_thousands_of_files_are_soon_compared() -> None:
    """With nothing else to do for the event loop. Compared one by one, these take some ten seconds."""
    services = dict.fromkeys((f"team/service-{n:03}" for n in range(200)), 1)
    segments = [segment(f"s{n}", info=msgspec.structs.replace(INFO, services=dict(services))) for n in range(3_000)]
    wanted = Wanted.of(ServiceIn(prefixes=frozenset(f"x{n:03}" for n in range(200))))
    began_s = time.thread_time()
    assert not any(map(wanted.may_be_in, segments))
    assert time.thread_time() - began_s < 1.0
    assert wanted.may_be_in(segment("t", info=msgspec.structs.replace(INFO, services={**services, "x0000": 1})))
