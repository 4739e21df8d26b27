"""The core: every item is counted once, in the right place, and the same input gives the same frame."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from idgen.snowflake import ids_from
from ingest.errors import BodyTooLarge
from ingest.filters.config import build_chain, parse_chain
from ingest.filters.verdicts import Occasion
from ingest.parse import Window, decode_batch
from ingest.receive import SERVICES_MAX, Answer, Received, batch_answer, frame_value, receive, single_answer
from schemas.frames import decode_lines, decompress
from schemas.scope import ALL_SERVICES, ServiceScope

WINDOW = Window.at(1_795_000_000_000, 400)
SCOPE = ServiceScope(names=frozenset({"shop", "auth"}))
CHAIN = [
    {"type": "level", "name": "min", "minimum": "INFO"},
    {"type": "sampling", "name": "half", "rate": 0.5},
    {"type": "rate_limit", "name": "limit", "logs_per_second": 1, "burst": 20, "on_exceed": "drop"},
]
items = st.lists(
    st.fixed_dictionaries(
        {"service_name": st.sampled_from(["shop", "auth", "other", "not valid"]), "message": st.just("m")},
        optional={"level": st.sampled_from(["DEBUG", "ERROR", "loud"]), "own": st.just(1)},
    ),
    min_size=1,
    max_size=60,
)


def judge(batch: list[dict[str, Any]], *, key: bytes | None = None) -> tuple[Received, list[int]]:
    body = json.dumps(batch).encode()
    ids = ids_from(1 << 40, len(batch))
    received = receive(
        decode_batch(body, logs_max=1000),
        ids,
        window=WINDOW,
        may_hold_nul=False,
        may_write=SCOPE,
        chain=build_chain(parse_chain(CHAIN)),
        occasion=Occasion(0.0, key=key),
    )
    return received, ids


@given(batch=items)
def test_received_is_kept_filtered_and_rejected_for_each_service(batch: list[dict[str, Any]]) -> None:
    received, _ = judge(batch)
    counts = received.counts()
    assert sum(count.received for count in counts.values()) == len(batch)
    assert {name for name, count in counts.items() if count.kept} == {log.service_name for log in received.kept}
    for name, count in counts.items():
        assert count.kept == sum(log.service_name == name for log in received.kept)
    assert counts.keys() <= {"", "shop", "auth"}, "nobody adds to the counts of a service that is not theirs"
    assert "" not in counts or counts[""].kept == 0


@given(batch=items)
def test_keyed_request_gives_the_same_frame_and_answer_again(batch: list[dict[str, Any]]) -> None:
    (first, ids), (second, _) = judge(batch, key=b"k"), judge(batch, key=b"k")
    assert frame_value(first.kept) == frame_value(second.kept)
    assert first.counts() == second.counts()
    if first.kept:
        assert batch_answer(first, ids, return_ids=True) == batch_answer(second, ids, return_ids=True)


@given(batch=items)
def test_answer_adds_up_and_ids_are_aligned_with_the_input(batch: list[dict[str, Any]]) -> None:
    received, ids = judge(batch)
    answer = json.loads(batch_answer(received, ids, return_ids=True).body)
    assert answer["accepted"] + sum(answer["filtered"].values()) + answer["rejected_count"] == len(batch)
    assert [i for i in answer["ids"] if i] == [str(log.id) for log in received.kept]
    assert len(answer["ids"]) == len(batch)
    assert all(answer["ids"][each["index"]] is None for each in answer["rejected"])
    lines = decode_lines(decompress(frame_value(received.kept)))
    assert [line.id for line in lines] == [log.id for log in received.kept]


def test_rejected_items_in_an_answer_are_bounded() -> None:
    received, ids = judge([{"service_name": "shop", "message": "m", "level": "ERROR"}] + [{}] * 500)
    answer = json.loads(batch_answer(received, ids, return_ids=False).body)
    assert answer["rejected_count"] == 500
    assert len(answer["rejected"]) == 100
    assert "ids" not in answer


def test_services_of_one_request_are_bounded_before_any_filter_is_asked() -> None:
    def batch(services: int, **fields: Any) -> Received:
        body = json.dumps([{"service_name": f"s{n}", "message": "m", **fields} for n in range(services)]).encode()
        return receive(
            decode_batch(body, logs_max=2000),
            ids_from(1 << 40, services),
            window=WINDOW,
            may_hold_nul=False,
            may_write=ALL_SERVICES,
            chain=build_chain(parse_chain(CHAIN)),
            occasion=Occasion(0.0, key=None),
        )

    for fields in ({}, {"level": "loud"}, {"own": 1}):
        assert len(batch(SERVICES_MAX, **fields).counts()) == SERVICES_MAX
        with pytest.raises(BodyTooLarge, match="may name 1000 services, these name 1001"):
            batch(SERVICES_MAX + 1, **fields)


def test_answer_survives_its_reservation() -> None:
    received, _ = judge([{"service_name": "shop", "message": "m", "level": "DEBUG"}])
    answer = single_answer(received)
    assert answer.status == 200
    assert json.loads(answer.body) == {"log_id": None, "filtered_by": "min"}
    assert Answer.unpack(answer.pack()) == answer
    assert Answer.unpack(b"%d\n%b" % (answer.status, answer.body)) == answer  # as the first releases kept it
