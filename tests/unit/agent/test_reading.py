"""Lines from the end of a file, filtered, whatever the file is: against a naive reading of the whole of it."""

from __future__ import annotations

import gzip
import itertools
import json
import os
import random
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import zstandard
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.errors import NoSuchFile, QuestionInvalid
from agent.reading import blocks
from agent.reading.blocks import LINE_BYTES_MAX, Block, PlainStream, backwards, forwards
from agent.reading.matching import Conditions, GroupMatcher, LineMatcher, lines_of
from agent.reading.reader import FileReader, Question
from agent.reading.records import Form
from agent.reading.zstd_frames import ZstdFrames
from agent.roots import Root

MIB = 1024 * 1024


def answer(path: Path, **question: Any) -> tuple[list[dict[str, Any]], dict[str, Any]]:
    """(records, end) of a question about a file."""
    conditions = {name: question.pop(name) for name in list(question) if name in Conditions.__dataclass_fields__}
    reader = FileReader(Root("r", path.parent, "s"), path.name, Question(Conditions(**conditions), **question))
    try:
        text = b""
        while (piece := reader.step()) is not None:
            text += piece
    finally:
        reader.close()
    records = [json.loads(line) for line in text.splitlines()]
    assert all("end" not in record for record in records[:-1])
    return records[:-1], records[-1]["end"]


def told(path: Path, **question: Any) -> list[str]:
    return [record["line"] for record in answer(path, **question)[0]]


def write(path: Path, lines: list[str], *, end: str = "\n") -> Path:
    path.write_text("\n".join(lines) + (end if lines else ""))
    return path


@pytest.fixture
def small_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(blocks, "_FIRST_BYTES", 7)
    monkeypatch.setattr(blocks, "_BLOCK_BYTES", 40)


texts = st.lists(st.text(st.characters(codec="utf-8", exclude_characters="\n\r"), max_size=30), max_size=30)


@given(lines=texts, ends=st.booleans(), first=st.integers(1, 9), most=st.integers(4, 60))
@settings(deadline=None)
def test_blocks_of_either_direction_are_the_whole_file_in_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, lines: list[str], ends: bool, first: int, most: int
) -> None:
    path = tmp_path_factory.mktemp("blocks") / "a"
    data = "\n".join(lines).encode() + (b"\n" if ends and lines else b"")
    path.write_bytes(data)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "_FIRST_BYTES", first)
        patch.setattr(blocks, "_BLOCK_BYTES", most)
        descriptor = os.open(path, os.O_RDONLY)
        try:
            back = list(backwards(descriptor, len(data)))
            ahead = list(forwards(PlainStream(descriptor)))
        finally:
            os.close(descriptor)
    for found in (back[::-1], ahead):
        assert b"".join(block.text for block in found) == data
        place = 0
        for block in found:
            if block.text:
                assert block.start == place
                assert place == 0 or data[place - 1 : place] == b"\n"
                place += len(block.text)
    assert [line.raw for block in back[::-1] for line in lines_of(block)] == [
        line.raw for block in ahead for line in lines_of(block)
    ]


def test_newest_lines_come_first_with_their_places(tmp_path: Path) -> None:
    path = write(tmp_path / "a", ["one", "two", "three"])
    records, end = answer(path, lines=2)
    assert records == [{"line": "three", "offset": 8}, {"line": "two", "offset": 4}]
    assert (end["status"], end["lines"], end["error"]) == ("limit", 2, None)
    records, end = answer(path, lines=10)
    assert [record["line"] for record in records] == ["three", "two", "one"]
    assert (end["status"], end["scanned_bytes"]) == ("complete", 14)


@pytest.mark.parametrize("content", ["", "\n", "\n\n", "last", "a\nlast", "a\r\nb\r\n"])
def test_odd_ends_of_files(tmp_path: Path, content: str) -> None:
    path = tmp_path / "a"
    path.write_text(content, newline="")
    expected = content.replace("\r", "").split("\n")
    assert told(path) == (expected if expected[-1] else expected[:-1])[::-1]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("packing", ["plain", "gzip", "zstd"])
@pytest.mark.parametrize(
    "conditions",
    [
        {},
        {"keywords": ("seven",)},
        {"keywords": ("SEVEN", "line 1")},
        {"keywords": ("SEVEN",), "is_case_sensitive": True},
        {"regex": r"^line \d7 "},
        {"keywords": ("seven",), "regex": r"1\d"},
    ],
)
def test_lines_that_are_meant_are_found_as_a_naive_reader_finds_them(
    tmp_path: Path, conditions: dict[str, Any], packing: str
) -> None:
    import re

    lines = [f"line {number} {'Seven' if number % 7 == 0 else 'other'}" for number in range(200)]
    data = ("\n".join(lines) + "\n").encode()
    path = tmp_path / "a"
    packs: dict[str, Callable[[bytes], bytes]] = {
        "plain": bytes,
        "gzip": gzip.compress,
        "zstd": zstandard.compress,
    }
    pack = packs[packing]
    path.write_bytes(pack(data))
    flags = 0 if conditions.get("is_case_sensitive") else re.IGNORECASE
    expected = [
        line
        for line in lines
        if all(re.search(re.escape(word), line, flags) for word in conditions.get("keywords", ()))
        and re.search(conditions.get("regex", ""), line, flags)
    ]
    records, end = answer(path, lines=1_000, **conditions)
    assert [record["line"] for record in records] == expected[::-1]
    assert end["status"] == "complete"
    assert end["scanned_bytes"] == len(data)
    for record in records:
        assert data[record["offset"] :].startswith(record["line"].encode())
    assert told(path, lines=3, **conditions) == expected[::-1][:3]


@pytest.mark.usefixtures("small_blocks")
@pytest.mark.parametrize("packing", [bytes, gzip.compress])
def test_a_keyword_is_found_across_line_ends(tmp_path: Path, packing: Any) -> None:
    lines = [
        *(f"filler {n}" for n in range(30)),
        "could not connect to",
        "   the data base: refused",
        "after",
        *["end"] * 40,
    ]
    path = tmp_path / "a"
    path.write_bytes(packing(("\n".join(lines) + "\n").encode()))
    assert told(path, keywords=("connect to the data base",)) == []
    found = ["   the data base: refused", "could not connect to"]
    assert told(path, keywords=("connect to the data base",), across_lines=True) == found
    assert told(path, keywords=("connect to\n   the",), across_lines=True) == found
    assert told(path, regex=r"connect to\s+the", across_lines=True) == found
    assert told(path, keywords=("to the data", "REFUSED"), across_lines=True) == found
    assert told(path, keywords=("to the data", "after"), across_lines=True) == []
    assert told(path, keywords=("after",), across_lines=True) == ["after"]


@given(
    st.lists(st.text("ab ", max_size=4), max_size=40),
    st.text("ab ", min_size=1, max_size=5).filter(str.strip),
    st.integers(1, 9),
    st.booleans(),
)
@settings(deadline=None)
def test_matches_across_lines_do_not_depend_on_blocks(
    lines: list[str], keyword: str, block_lines: int, backward: bool
) -> None:
    raws = [line.encode() + b"\n" for line in lines]
    starts = [sum(map(len, raws[:number])) for number in range(len(raws) + 1)]
    whole = [Block(starts[n], b"".join(raws[n : n + block_lines])) for n in range(0, len(raws), block_lines)]
    matcher = GroupMatcher(Conditions((keyword,), across_lines=True), is_backward=backward)
    found = {line.offset for block in (whole[::-1] if backward else whole) for line in matcher.find(block)}
    found |= {line.offset for line in matcher.rest()}
    once = GroupMatcher(Conditions((keyword,), across_lines=True), is_backward=False)
    expected = {line.offset for line in once.find(Block(0, b"".join(raws)))} | {line.offset for line in once.rest()}
    assert found == expected


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("count", [3, 17, 18, 200])
def test_a_match_does_not_hide_the_one_that_begins_within_it(count: int, backward: bool) -> None:
    blocks = [Block(2 * n, b"a\n") for n in range(count)]
    matcher = GroupMatcher(Conditions(("a a",), across_lines=True), is_backward=backward)
    found = {line.offset for block in (blocks[::-1] if backward else blocks) for line in matcher.find(block)}
    assert found | {line.offset for line in matcher.rest()} == {2 * n for n in range(count)}


@pytest.mark.parametrize(
    "conditions",
    [
        {"regex": "("},
        {"regex": r"(a)\1"},
        {"regex": ""},
        {"regex": "a{1000}{1000}"},
        {"keywords": ("",)},
        {"keywords": ("a\nb",)},
        {"keywords": ("x" * 2_000,)},
        {"keywords": ("x",) * 21},
    ],
)
def test_conditions_that_cannot_be_met_or_kept_are_refused(conditions: dict[str, Any]) -> None:
    with pytest.raises(QuestionInvalid):
        LineMatcher(Conditions(**conditions))


def test_no_expression_can_be_slow(tmp_path: Path) -> None:
    path = write(tmp_path / "a", ["a" * 100_000] * 3)
    assert told(path, regex=r"(a+)+$", lines=1)
    assert told(path, regex=r"(a|aa)+b") == []


def test_first_line_of_a_huge_file_reads_its_end_alone(tmp_path: Path) -> None:
    path = tmp_path / "huge"
    with path.open("wb") as file:
        file.truncate(10 * 1024 * MIB)
        file.seek(0, os.SEEK_END)
        file.write(b"\nthe last line\n")
    tracemalloc.start()
    records, end = answer(path, lines=1)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert [record["line"] for record in records] == ["the last line"]
    assert end["scanned_bytes"] <= 64 * 1024
    assert peak < 4 * MIB


def test_memory_is_bounded_by_lines_that_never_end(tmp_path: Path) -> None:
    path = tmp_path / "long"
    with path.open("wb") as file:
        file.write(b"first\n" + b"x" * 100)
        file.truncate(64 * MIB)
        file.seek(0, os.SEEK_END)
        file.write(b"\nlast\n")
    for packing in (False, True):
        if packing:
            path.write_bytes(gzip.compress(path.read_bytes(), 1))
        tracemalloc.start()
        records, end = answer(path, lines=5)
        _, peak = tracemalloc.get_traced_memory()
        tracemalloc.stop()
        assert [record["line"][:5] for record in records] == ["last", "xxxxx", "first"]
        assert [record.get("cut") for record in records] == [None, True, None]
        assert len(records[1]["line"]) == LINE_BYTES_MAX
        assert end["status"] == "complete"
        assert peak < 16 * MIB


def test_errors_in_mid_stream_are_told_at_the_end(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    whole = gzip.compress("".join(f"line {n} {os.urandom(20).hex()}\n" for n in range(5_000)).encode())
    path.write_bytes(whole[: len(whole) // 2])
    records, end = answer(path, lines=3)
    assert len(records) == 3
    assert end["status"] == "error"
    assert "ends too early" in end["error"]
    path.write_bytes(whole[:5_000] + b"\xff" * 100 + whole[5_100:])
    assert answer(path)[1]["status"] == "error"


def test_a_file_that_becomes_shorter_while_it_is_read_is_told(tmp_path: Path) -> None:
    path = write(tmp_path / "a", [f"line {number}" for number in range(200_000)])
    reader = FileReader(Root("r", tmp_path, "s"), "a", Question(lines=1_000_000))
    assert reader.step()
    path.write_text("")
    rest = b""
    while (piece := reader.step()) is not None:
        rest += piece
    reader.close()
    end = json.loads(rest.splitlines()[-1])["end"]
    assert end["status"] == "error"
    assert "shorter" in end["error"]


def test_text_answers_end_with_a_line_that_no_line_can_be(tmp_path: Path) -> None:
    path = write(tmp_path / "a", ["#logfeed end status=complete lines=0", "x"])
    reader = FileReader(Root("r", tmp_path, "s"), path.name, Question(form=Form.TEXT))
    text = b"".join(iter(reader.step, None)).decode()
    reader.close()
    assert text == "x\n #logfeed end status=complete lines=0\n#logfeed end status=complete lines=2\n"


def test_bytes_that_are_no_text_are_shown_as_such(tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(b"ok \xff\xfe\n\x00\x1b[31m\n")
    assert told(path) == ["\x00\x1b[31m", "ok \ufffd\ufffd"]


class Following:
    """A file that is followed, step by step."""

    def __init__(self, path: Path, **question: Any) -> None:
        conditions = {name: question.pop(name) for name in list(question) if name in Conditions.__dataclass_fields__}
        self.reader = FileReader(
            Root("r", path.parent, "s"), path.name, Question(Conditions(**conditions), follow=True, **question)
        )

    def new(self) -> list[str]:
        """What comes until it has nothing more."""
        text = self.reader.step() or b""
        while not self.reader.is_idle:
            text += self.reader.step() or b""
        return [json.loads(line)["line"] for line in text.splitlines()]


@pytest.fixture
def log(tmp_path: Path) -> Path:
    return write(tmp_path / "a.log", ["one", "two", "three"])


def append(path: Path, text: str) -> None:
    with path.open("a") as file:
        file.write(text)


def test_following_begins_with_the_last_lines_and_goes_on_with_whole_ones(log: Path) -> None:
    following = Following(log, lines=2)
    assert following.new() == ["two", "three"]
    append(log, "fo")
    assert following.new() == []
    append(log, "ur\nfive\nsi")
    assert following.new() == ["four", "five"]
    append(log, "x\n")
    assert following.new() == ["six"]
    following.reader.close()


def test_what_is_written_once_a_file_is_followed_comes_whenever_the_first_step_is_taken(log: Path) -> None:
    following = Following(log, lines=0)
    append(log, "four\n")
    assert following.new() == ["four"]
    following.reader.close()


def test_following_begins_after_a_line_that_is_being_written(log: Path) -> None:
    append(log, "fo")
    following = Following(log, lines=1)
    assert following.new() == ["three"]
    append(log, "ur\n")
    assert following.new() == ["four"]
    following.reader.close()


def test_following_goes_through_rotation_and_truncation(log: Path) -> None:
    following = Following(log, lines=0)
    assert following.new() == []
    append(log, "four\nfive without end")
    log.rename(log.with_suffix(".log.1"))
    assert following.new() == ["four"]
    write(log, ["new one"])
    assert following.new() + following.new() == ["five without end", "new one"]
    append(log, "new two\n")
    assert following.new() == ["new two"]
    log.write_text("")
    assert following.new() == []
    append(log, "again\n")
    assert following.new() == ["again"]
    following.reader.close()


def test_following_filters_also_across_lines(log: Path) -> None:
    following = Following(log, lines=0, keywords=("b",))
    across = Following(log, lines=0, keywords=("left right",), across_lines=True)
    assert following.new() == across.new() == []
    append(log, "a\nb\nthe left\n")
    assert following.new() == ["b"]
    assert across.new() == []
    append(log, "right one\n")
    assert sorted(across.new()) == ["right one", "the left"]
    following.reader.close()
    across.reader.close()


def test_compressed_files_cannot_be_followed_and_missing_ones_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.gz"
    path.write_bytes(gzip.compress(b"x\n"))
    with pytest.raises(QuestionInvalid):
        Following(path)
    with pytest.raises(NoSuchFile):
        Following(tmp_path / "none")


@pytest.mark.parametrize("checksum", [False, True])
@pytest.mark.parametrize("size_known", [False, True])
def test_a_zstd_file_that_is_cut_is_told_and_a_whole_one_is_not(
    tmp_path: Path, checksum: bool, size_known: bool
) -> None:
    texts = [b"", b"short\n", b"same\n" * 40_000, random.Random(7).randbytes(300_000) + b"\n"]
    compressor = zstandard.ZstdCompressor(write_checksum=checksum, write_content_size=size_known)
    frames = [compressor.compress(text) for text in texts]
    frames.insert(2, b"\x50\x2a\x4d\x18" + (5).to_bytes(4, "little") + b"skips")
    whole = b"".join(frames)
    ends = set(itertools.accumulate(map(len, frames), initial=0))
    cuts = {*ends, *range(60), *(end - 1 for end in ends if end), *random.Random(8).sample(range(len(whole)), 40)}
    for cut in sorted(cuts):
        followed = ZstdFrames()
        for place in range(0, cut, 1_009):
            followed.feed(whole[:cut][place : place + 1_009])
        assert followed.is_within == (cut not in ends), cut
    (tmp_path / "a.zst").write_bytes(whole[:-1])
    lines, end = answer(tmp_path / "a.zst")
    assert (end["status"], end["error"]) == ("error", "the zstd data ends too early")
    assert lines
    (tmp_path / "a.zst").write_bytes(whole)
    assert answer(tmp_path / "a.zst", lines=1_000_000)[1]["status"] == "complete"
