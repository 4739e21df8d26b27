"""A filter never says no to an id, or to a text of metadata, that is there, whatever happens to its file."""

from __future__ import annotations

import json
import random
import struct
import zlib
from pathlib import Path

import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from store.segments.bloom import BLOCK_BYTES, block_holds, block_of, build, hash_of, xxh64
from store.segments.filters import (
    FALSE_POSITIVES,
    SUFFIX,
    CorrelationFilters,
    FilterUnreadable,
    is_asked,
    texts_of,
    verify_filter,
    write_filter,
)

PAGE = 4_096


def ids(count: int, seed: int = 1) -> list[str]:
    chance = random.Random(seed)
    return [f"{chance.getrandbits(128):032x}" for _ in range(count)]


def written(directory: Path, name: str, values: list[str | None]) -> Path:
    path = directory / f"{name}{SUFFIX}"
    write_filter(path, [pa.array(values, pa.string())])
    return path


@pytest.mark.parametrize(
    "text, expected",
    [
        ("", 0xEF46DB3751D8E999),
        ("a", 0xD24EC4F1A98C6E5B),
        ("abc", 0x44BC2CF5AD770999),
        ("Nobody inspects the spammish repetition", 0xFBCEA83C8A378BF1),
    ],
)
def test_the_hash_is_the_published_one(text: str, expected: int) -> None:
    assert xxh64(text.encode()) == expected


@hypothesis_settings(deadline=None)
@given(st.lists(st.text(max_size=140), min_size=1, max_size=50))
def test_values_of_any_length_are_found_in_the_filter_that_parquet_made(values: list[str]) -> None:
    """Every bit of the hash takes part: one that differs would not be found in a filter that is nearly empty."""
    blocks = build([pa.array(values, pa.string())], false_positives=0.0001)
    for value in values:
        place = block_of(hash_of(value), len(blocks) // BLOCK_BYTES) * BLOCK_BYTES
        assert block_holds(blocks[place : place + BLOCK_BYTES], hash_of(value))


@pytest.mark.parametrize("count", [1, 127, 5_000, 65_000, 70_000])
def test_every_id_is_found_and_hardly_any_other(tmp_path: Path, count: int) -> None:
    values = ids(count)
    written(tmp_path, "s", [*values, None, values[0]])
    filters = CorrelationFilters(tmp_path)
    assert all(filters.may_hold("s", value) for value in values[:5_000])
    others = ids(10_000, seed=2)
    assert sum(filters.may_hold("s", value) for value in others) <= 1.5 * FALSE_POSITIVES * len(others)
    assert filters.unreadable == 0
    filters.close()


def test_a_segment_without_correlation_ids_holds_none(tmp_path: Path) -> None:
    written(tmp_path, "s", [None, None])
    filters = CorrelationFilters(tmp_path)
    assert not filters.may_hold("s", "")
    assert not filters.may_hold("s", "x")
    filters.close()


@hypothesis_settings(deadline=None)
@given(data=st.data())
def test_a_damaged_filter_never_hides_an_id(tmp_path_factory: pytest.TempPathFactory, data: st.DataObject) -> None:
    directory = tmp_path_factory.mktemp("filters")
    values = ids(300)
    path = written(directory, "s", list(values))
    content = bytearray(path.read_bytes())
    place = data.draw(st.integers(0, len(content) - 1))
    content[place] ^= 1 << data.draw(st.integers(0, 7))
    if data.draw(st.booleans()):
        del content[place:]
    path.write_bytes(content)
    filters = CorrelationFilters(directory)
    assert all(filters.may_hold("s", value) for value in values)
    filters.close()
    with pytest.raises(FilterUnreadable):
        verify_filter(path)


def test_a_missing_filter_says_may_hold_and_is_counted(tmp_path: Path) -> None:
    filters = CorrelationFilters(tmp_path)
    assert filters.may_hold("absent", "x")
    assert filters.unreadable == 1


def test_a_filter_of_another_version_says_may_hold(tmp_path: Path) -> None:
    (tmp_path / f"s{SUFFIX}").write_bytes(b"\0" * PAGE)
    filters = CorrelationFilters(tmp_path)
    assert filters.may_hold("s", "x")
    assert filters.unreadable == 1


def test_what_was_written_verifies(tmp_path: Path) -> None:
    path = written(tmp_path, "s", list(ids(10_000)))
    verify_filter(path)
    with path.open("ab") as file:
        file.write(b"more")
    with pytest.raises(FilterUnreadable):
        verify_filter(path)


def test_few_files_are_kept_open(tmp_path: Path) -> None:
    values = ids(20)
    for number, value in enumerate(values):
        written(tmp_path, str(number), [value])
    before = open_files()
    filters = CorrelationFilters(tmp_path, files_open_max=5)
    for _ in range(2):
        assert [number for number in range(20) if filters.may_hold(str(number), values[7])] == [7]
        assert open_files() - before == 5
    filters.forget("19")
    assert open_files() - before == 4
    filters.close()
    assert open_files() == before


async def test_candidates_are_those_that_may_hold(tmp_path: Path) -> None:
    values = ids(50)
    for number, value in enumerate(values):
        written(tmp_path, str(number), [value, "everywhere"])
    filters = CorrelationFilters(tmp_path)
    names = [str(number) for number in range(50)]
    assert await filters.candidates(names, "everywhere") == dict.fromkeys(names, ())
    assert await filters.candidates(names, values[31]) == {"31": ()}
    assert await filters.candidates([], "everywhere") == {}
    filters.close()


def metadata_of(*values: str) -> pa.Array:
    return pa.array([json.dumps({"user": value, "n": 1}, ensure_ascii=False) for value in values])


async def test_row_groups_without_a_text_are_named(tmp_path: Path) -> None:
    """And a segment with none that has it is no candidate."""
    groups = [metadata_of("ann", "bob"), metadata_of("bob", "cy"), metadata_of("dora")]
    write_filter(tmp_path / f"s{SUFFIX}", [pa.array(["id"])], [texts_of(group) for group in groups])
    verify_filter(tmp_path / f"s{SUFFIX}")
    filters = CorrelationFilters(tmp_path)
    assert filters.row_groups_without("s", ["bob"]) == ((2,), False)
    assert filters.row_groups_without("s", ["ann", "bob"]) == ((1, 2), False)
    assert filters.row_groups_without("s", ["nobody"]) == ((0, 1, 2), True)
    assert await filters.candidates(["s"], None, ["cy"]) == {"s": (0, 2)}
    assert await filters.candidates(["s"], "id", ["nobody"]) == {}
    assert await filters.candidates(["s"], "another", ["cy"]) == {}
    filters.close()


_TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=140) | st.text('a,: "\\{}[]', max_size=6)


@hypothesis_settings(deadline=None)
@given(
    values=st.lists(_TEXTS, min_size=1, max_size=20), between=st.lists(st.sampled_from([",", ", ", " , "]), min_size=2)
)
def test_a_text_that_is_asked_for_is_found_beside_whatever_is_escaped(
    tmp_path_factory: pytest.TempPathFactory, values: list[str], between: list[str]
) -> None:
    """Fields and items, written with and without spaces."""
    directory = tmp_path_factory.mktemp("filters")
    fields = {str(number): value for number, value in enumerate(values)}
    documents = [
        json.dumps(document, ensure_ascii=False, separators=(between[row % 2], ":"))
        for row, document in enumerate([*({"user": value} for value in values), fields, {"list": values}])
    ]
    write_filter(directory / f"s{SUFFIX}", [], [texts_of(pa.array(documents))])
    filters = CorrelationFilters(directory)
    for value in filter(is_asked, values):
        assert filters.row_groups_without("s", [value]) == ((), False)
    filters.close()


def test_a_row_group_of_nothing_but_different_texts_may_hold_anything(tmp_path: Path) -> None:
    rows = pa.array([json.dumps([f"{row}-{number}" for number in range(30)]) for row in range(50)])
    assert texts_of(rows) is None
    write_filter(tmp_path / f"s{SUFFIX}", [], [None, texts_of(metadata_of("ann"))])
    filters = CorrelationFilters(tmp_path)
    assert filters.row_groups_without("s", ["nobody"]) == ((1,), False)
    assert filters.unreadable == 0
    filters.close()


@pytest.mark.parametrize("count", [0, 1, 5_000])
def test_filters_of_the_first_version_are_read(tmp_path: Path, count: int) -> None:
    """They know nothing of metadata."""
    values = ids(count)
    content = build([pa.array(values, pa.string())], false_positives=0.001) if values else b""
    blocks = len(content) // BLOCK_BYTES
    with (tmp_path / f"s{SUFFIX}").open("wb") as file:
        for number in range(max(1, -(-blocks // 127))):
            page = content[number * 4_064 : (number + 1) * 4_064].ljust(4_064, b"\0")
            page += struct.pack("<4sIQQI", b"LFCF", 1, number, blocks, 0)
            file.write(page + struct.pack("<I", zlib.crc32(page)))
    verify_filter(tmp_path / f"s{SUFFIX}")
    filters = CorrelationFilters(tmp_path)
    assert all(filters.may_hold("s", value) for value in values)
    assert sum(filters.may_hold("s", value) for value in ids(1_000, seed=2)) < 10
    assert filters.row_groups_without("s", ["ann"]) == ((), False)
    assert filters.unreadable == 0
    filters.close()


def open_files() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))
