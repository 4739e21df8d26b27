"""Which bytes are one log does not depend on the pieces that they come in, and every byte is taken once."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from agent.shipping import joining
from agent.shipping.joining import JoinRules, Text, continuation_rule, split, start_rule

INDENTED = continuation_rule(re.compile(r"^\s"))
SEPARATE = JoinRules()


def all_texts(data: bytes, rules: JoinRules, sizes: list[int]) -> tuple[list[Text], int]:
    """(texts, bytes taken) when the data is seen in growing pieces, and at last is over."""
    texts: list[Text] = []
    place, seen, is_skipping = 0, 0, False
    for size in [*sizes, len(data)]:
        seen = min(len(data), seen + size)
        is_over = seen == len(data)
        while True:
            found = split(
                data[place:seen], rules, is_skipping=is_skipping, is_final=is_over, takes_unfinished=is_over, logs_max=3
            )
            assert len(found.texts) <= 3
            texts += found.texts
            place, is_skipping = place + found.taken, found.is_skipping
            if not found.taken:
                break
    return texts, place


lines = st.lists(st.sampled_from([b"a", b" b", b"", b"\tc d", b"e\r", b"\xff", b"longer text"]), max_size=30)


@given(lines, st.booleans(), st.lists(st.integers(1, 20), max_size=20), st.sampled_from([INDENTED, SEPARATE]))
@settings(deadline=None)
def test_logs_do_not_depend_on_pieces(some: list[bytes], ends: bool, sizes: list[int], rules: JoinRules) -> None:
    data = b"\n".join(some) + (b"\n" if ends and some else b"")
    pieces, taken = all_texts(data, rules, sizes)
    once, taken_once = all_texts(data, rules, [])
    assert pieces == once
    assert taken == taken_once == len(data)


def test_lines_are_joined_by_either_rule() -> None:
    data = b"ERROR a\n  at x\n  at y\nINFO b\n"
    joined = [("ERROR a\n  at x\n  at y", False), ("INFO b", False)]
    assert split(data, INDENTED, is_final=True).texts == joined
    assert split(data, start_rule(re.compile("ERROR|INFO")), is_final=True).texts == joined
    assert len(split(data, SEPARATE).texts) == 4


def test_a_log_that_may_go_on_waits_for_its_next_line() -> None:
    found = split(b"a\nb\n", INDENTED)
    assert found == ([("a", False)], 2, False)
    assert split(b"b\n", INDENTED, is_final=True) == ([("b", False)], 2, False)


def test_an_unfinished_line_waits_unless_it_is_taken() -> None:
    assert split(b"a\nb", SEPARATE) == ([("a", False)], 2, False)
    assert split(b"b", SEPARATE, takes_unfinished=True) == ([("b", False)], 1, False)


@pytest.mark.parametrize("rules", [INDENTED, SEPARATE])
def test_a_line_past_the_bound_is_cut_and_its_rest_left_out(rules: JoinRules, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "LINE_BYTES_MAX", 10)
    monkeypatch.setattr(joining, "PIECE_BYTES_MIN", 30)
    data = b"short\n" + b"x" * 100 + b"\nafter\n"
    for sizes in ([], [3] * 50, [40]):
        texts, taken = all_texts(data, rules, sizes)
        assert texts == [("short", False), ("x" * 10, True), ("after", False)]
        assert taken == len(data)


def test_joined_text_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(joining, "MESSAGE_BYTES_MAX", 20)
    texts, _ = all_texts(b"first\n" + b" more\n" * 10, INDENTED, [])
    assert all(len(text) <= 20 for text, _ in texts)
    assert "".join(text.replace("\n", "") for text, _ in texts) == "first" + " more" * 10


def test_endless_blank_lines_are_taken() -> None:
    data = b"a\n" + b"\n" * 100_000
    texts, taken = all_texts(data, INDENTED, [])
    assert texts == [("a", False)]
    assert taken == len(data)
