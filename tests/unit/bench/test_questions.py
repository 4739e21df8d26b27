"""What is put into the store and what is asked of it fit together."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from urllib.parse import parse_qsl, urlsplit

import pytest

from bench.fill import Filled, Known, Needle, _parts, needles
from bench.questions import ROWS_WANTED, Question, questions, with_cursor
from query.params import parse_find
from schemas.ids import ID_MAX, first_id_at, received_ms

NOW_US = 1_800_000_000_000_000
WEEK_US = 7 * 86_400_000_000
KINDS = (
    *("newest", "service", "errors", "metadata", "common_word", "id_present", "id_absent"),
    *("correlation_present", "correlation_absent", "rare_word"),
)


@pytest.fixture
def filled() -> Filled:
    made = Filled(rows=1_000, open_rows=200, start_us=NOW_US - WEEK_US, end_us=NOW_US)
    for number in range(100):
        time_us = made.start_us + number * WEEK_US // 100
        made.known.append(Known(time_us, first_id_at(time_us // 1000) + 5, f"{number:032x}"))
    made.needles = needles(1_000, 60)
    return made


def test_there_are_so_many_questions_of_each_kind(filled: Filled) -> None:
    assert {kind: len(each) for kind, each in questions(filled, 60).items()} == dict.fromkeys(KINDS, 60)


def test_every_search_is_one_that_the_api_takes(filled: Filled) -> None:
    for each in questions(filled, 60).values():
        for question in each:
            path = urlsplit(question.path)
            if path.path == "/api/v1/logs":
                parsed = parse_find(parse_qsl(path.query), now_us=NOW_US)
                assert parsed.limit in (1, ROWS_WANTED)


@pytest.mark.parametrize("kind", ["service", "metadata", "id_present", "id_absent", "correlation_absent", "rare_word"])
def test_values_vary(filled: Filled, kind: str) -> None:
    assert len({question.path for question in questions(filled, 60)[kind]}) > 30


def test_ids_are_of_old_and_new_rows_and_absent_ones_of_the_same_moments(filled: Filled) -> None:
    def ids(each: Sequence[Question]) -> list[int]:
        return [int(question.path.rpartition("/")[2]) for question in each]

    asked = questions(filled, 60)
    present, absent = ids(asked["id_present"]), ids(asked["id_absent"])
    border_ms = (NOW_US - WEEK_US // 5) // 1000
    assert sum(received_ms(each) >= border_ms for each in present) == 30
    known = {row.log_id for row in filled.known}
    assert known.issuperset(present)
    assert known.isdisjoint(absent)
    assert [received_ms(each) for each in absent] == [received_ms(each) for each in present]
    assert max(absent) <= ID_MAX


def test_needles_lie_at_even_depths_and_have_words_of_their_own() -> None:
    made = needles(10_000_000, 50)
    assert [made[0].depth_rows, made[-1].depth_rows] == [99_999, 1_999_999]
    assert len({needle.word for needle in made}) == 50
    assert not any(a.word in b.word for a in made for b in made if a is not b)
    assert needles(100, 1) == [Needle("needle-0000x", 4)]


@pytest.mark.parametrize("rows", [0, 1, 19_999, 20_000, 50_001])
def test_parts_cover_their_stretch(rows: int) -> None:
    parts = list(_parts(1_000, 9_000_000, rows))
    assert sum(count for _, _, count in parts) == rows
    if rows:
        assert parts[0][0] == 1_000
        assert parts[-1][1] == 9_000_000
        assert all(before[1] == after[0] for before, after in pairwise(parts))


def test_a_cursor_is_added_to_any_path() -> None:
    assert with_cursor("/a", "x=y") == "/a?cursor=x%3Dy"
    assert with_cursor("/a?b=1", "x") == "/a?b=1&cursor=x"
