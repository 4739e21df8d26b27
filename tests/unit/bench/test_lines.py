"""Lines: realistic, of the shares they promise, and never twice the same."""

from __future__ import annotations

import re
from collections import Counter
from itertools import islice

import orjson
import pytest

from bench import lines
from bench.lines import Form, Mould, bodies, moulds, single_lines
from schemas.frames import decode_lines
from schemas.levels import parse_level
from schemas.record import is_service_name


@pytest.fixture(scope="module")
def made() -> list[Mould]:
    return moulds(20, seed=7)


def test_no_line_is_ever_repeated(made: list[Mould]) -> None:
    seen = [line for body in islice(bodies(made[:3]), 30) for line in body.split(b"\n")]
    assert len(seen) == 30_000
    assert len(set(seen)) == len(seen)


def test_correlation_ids_are_random_and_have_128_bits(made: list[Mould]) -> None:
    ids = [orjson.loads(line)["correlation_id"] for line in islice(single_lines(made), 5_000)]
    assert all(re.fullmatch("[0-9a-f]{32}", each) for each in ids)
    assert len(set(ids)) == len(ids)


def test_two_in_a_hundred_are_errors_and_above(made: list[Mould]) -> None:
    levels = Counter(orjson.loads(line)["level"] for mould in made for line in mould.body().split(b"\n"))
    assert set(levels) == set(lines.LEVEL_WEIGHTS)
    assert 0.016 < (levels["ERROR"] + levels["FATAL"]) / levels.total() < 0.024


def test_a_line_has_about_350_bytes(made: list[Mould]) -> None:
    assert 310 <= sum(mould.size_bytes for mould in made) / (1_000 * len(made)) <= 390


def test_all_services_are_there_and_may_be(made: list[Mould]) -> None:
    found = {orjson.loads(line)["service_name"] for line in islice(single_lines(made), 5_000)}
    assert found == set(lines.SERVICES)
    assert len(found) == 45
    assert all(is_service_name(name) for name in found)


def test_the_length_of_a_body_never_changes(made: list[Mould]) -> None:
    assert {len(made[0].body()) for _ in range(20)} == {made[0].size_bytes}
    assert made[0].body().count(b"\n") == made[0].logs - 1


def test_order_numbers_are_equally_frequent(made: list[Mould]) -> None:
    orders = Counter(orjson.loads(line)["metadata"][lines.ORDER_KEY] for line in islice(single_lines(made), 40_000))
    assert all(re.fullmatch(r"o-\d{4}", each) for each in orders)
    assert len(orders) > 0.97 * lines.ORDER_VALUES
    assert max(orders.values()) < 20


def test_the_same_seed_gives_the_same_moulds() -> None:
    def shape(seed: int) -> list[str]:
        return [re.sub("[0-9a-f]", "0", line.decode()) for line in moulds(1, logs=50, seed=seed)[0].body().split(b"\n")]

    assert shape(3) == shape(3)
    assert shape(3) != shape(4)


def test_frame_form_is_what_frames_hold() -> None:
    decoded = decode_lines(moulds(1, logs=200, form=Form.FRAME)[0].body())
    assert len(decoded) == 200
    assert {line.level for line in decoded} <= {parse_level(name) for name in lines.LEVEL_WEIGHTS}
    assert all(isinstance(orjson.loads(bytes(line.metadata)), dict) for line in decoded)


def test_every_common_word_is_in_the_messages(made: list[Mould]) -> None:
    text = b"".join(mould.body() for mould in made[:5]).lower()
    for word in lines.COMMON_WORDS:
        assert text.count(word.encode()) > 20, word


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("nothing varies", "nothing varies"),
        ("port 8 and 80", "port 8 and 8{d1}"),
        ("size 67108864 from 10.251.7.9", "size 6{d7} from 1{d1}.2{d2}.7.9"),
        ("instance 96abccce8d1f to go", "instance {h12} to go"),
    ],
)
def test_numbers_of_real_lines_become_holes(content: str, expected: str) -> None:
    assert lines._with_holes(content) == expected
