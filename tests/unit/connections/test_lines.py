"""The text of a connection, read: no line is lost, and a text is read in parts as it is read whole."""

from __future__ import annotations

import io
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connections.lines import JOINED_BYTES_MAX, LINE_BYTES_MAX, Line, Place, read_lines

HEAD = "2020-07-30 22:31:05.468 | INFO | "
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def read(text: bytes, place: Place | None = None) -> list[Line]:
    place = place or Place()
    return list(read_lines(io.BytesIO(text[place.offset :]).readline, place))


def messages(text: str) -> list[str]:
    return [line.message for line in read(text.encode())]


def test_a_line_has_time_level_and_message() -> None:
    text = HEAD + "RenderVideo | Rendered frame ID 61033\r\n2020-07-30T22:31:06,5+02:00|warning|late\n"
    first, second = read(text.encode())
    moment = (datetime(2020, 7, 30, 22, 31, 5, 468_000, UTC) - EPOCH) // timedelta(microseconds=1)
    assert (first.number, first.time_us, first.level, first.message) == (
        1,
        moment,
        9,
        "RenderVideo | Rendered frame ID 61033",
    )
    assert (second.number, second.time_us, second.level, second.message) == (
        2,
        moment + 1_032_000 - 7_200_000_000,
        13,
        "late",
    )
    assert second.end == len(text)


@pytest.mark.parametrize(
    "line",
    [
        "no head",
        "2020-07-30 22:31:05.468 | LOUD | level that is none",
        "2020-13-30 22:31:05.468 | INFO | month that is none",
        "2020-07-30 22:31:05.468 | INFO",
        "0001-01-01 00:00:00+14:00 | INFO | before the first year",
        "9999-12-31 23:59:59-14:00 | INFO | after the last year",
        "| INFO | m",
        "  at Frame.run(Frame.java:7)",
    ],
)
def test_what_is_no_line_of_its_own_belongs_to_the_one_before(line: str) -> None:
    assert messages(f"{HEAD}a\n{line}\n{HEAD}b\n") == [f"a\n{line}", "b"]
    assert messages(f"\n{line}\nmore\n{HEAD}a\n") == [f"{line}\nmore", "a"], "there is none before it"
    first = read(f"{line}\n".encode())[0]
    assert (first.time_us, first.level) == (None, 9)


def test_blank_lines_are_no_logs_and_stay_within_one() -> None:
    assert messages(f"\n\n{HEAD}a\n\n \n  b\n\n\n{HEAD}c\n\n") == ["a\n\n\n  b", "c"]
    assert messages("\n \n\t\n") == []
    assert [line.number for line in read(f"\n\n{HEAD}a\n\nb\n{HEAD}c".encode())] == [3, 6]


def test_a_line_without_words_is_a_log_all_the_same() -> None:
    assert messages(HEAD + "\n") == [HEAD]


def test_long_lines_are_several_logs_and_lose_nothing() -> None:
    for char in ("a", "é", "€", "😀"):
        text = HEAD + char * (LINE_BYTES_MAX // len(char.encode()) * 2) + "z\n" + HEAD + "b\n"
        found = read(text.encode())
        assert [line.number for line in found][-1] == 2
        assert "".join(line.message for line in found[:-1]) == text.splitlines()[0].removeprefix(HEAD)
        assert "\ufffd" not in "".join(line.message for line in found)


def test_what_belongs_together_is_bounded() -> None:
    trace = "  at x\n" * (JOINED_BYTES_MAX // 7 * 2)
    found = read((HEAD + "a\n" + trace).encode())
    assert len(found) == 3
    assert all(len(line.message) <= JOINED_BYTES_MAX for line in found)
    assert "\n".join(line.message for line in found).count("at x") == trace.count("at x")


def test_bytes_that_are_no_utf8_are_shown() -> None:
    assert [line.message for line in read(b"\xef\xbb\xbf" + HEAD.encode() + b"a\xff\xe2\x82")] == ["a\ufffd\ufffd"]


LINES = st.sampled_from(
    [
        HEAD + "a",
        HEAD + "é€😀",
        "2021-01-01 00:00:00 | ERROR | x | y",
        " at trace",
        "",
        " ",
        "word",
        "x" * 40,
        HEAD,
        "\r",
    ]
)
TEXTS = st.tuples(st.lists(LINES, max_size=12), st.sampled_from(["\n", "\r\n"]), st.booleans()).map(
    lambda parts: (parts[1].join(parts[0]) + (parts[1] if parts[2] else "")).encode()
)


def words(text: bytes) -> list[str]:
    lines = (line.rstrip("\r") for line in text.decode().split("\n"))
    return [line for line in lines if line.strip()]


@given(TEXTS)
def test_no_line_is_lost_and_none_is_made(text: bytes) -> None:
    shown = [part for line in read(text) for part in line.message.split("\n") if part.strip()]
    said = words(text)
    assert len(shown) == len(said)
    assert all(line.endswith(part) for part, line in zip(shown, said, strict=True))
    numbers = [line.number for line in read(text)]
    assert numbers == sorted(set(numbers))


@given(TEXTS, st.data())
def test_who_goes_on_where_a_log_ended_finds_the_same_logs(text: bytes, data: st.DataObject) -> None:
    whole = read(text)
    if not whole:
        return
    done = data.draw(st.integers(1, len(whole)))
    last = whole[done - 1]
    is_within = not text[: last.end].endswith(b"\n")
    assert last.lines == text[: last.end].count(b"\n")
    assert read(text, Place(last.end, last.lines, is_within)) == whole[done:]


@given(TEXTS, TEXTS)
def test_a_text_that_grows_keeps_what_it_had(text: bytes, more: bytes) -> None:
    """What is added begins logs of its own, the rest of a line that had no end included."""
    place = Place(len(text), text.count(b"\n"), bool(text) and not text.endswith(b"\n"))
    added = read(text + more, place)
    shown = [part for line in (*read(text), *added) for part in line.message.split("\n") if part.strip()]
    assert len("".join("".join(shown).split())) <= len("".join((text + more).decode().split()))
    assert sum(len(line.message) > 0 for line in added) == len(added)
    heads = sum(HEAD in line for line in more.decode().split("\n")[1:])
    assert sum(line.time_us is not None for line in added) >= heads


def test_real_texts_are_read_line_by_line(shared_data: Path) -> None:
    for path in sorted((shared_data / "connections").glob("*.txt")):
        text = path.read_bytes()
        found = read(text)
        assert len(found) == text.count(b"\n")
        assert [line.number for line in found] == list(range(1, len(found) + 1))
        assert all(line.time_us is not None for line in found)
