"""A pattern's text and its expression: both find the lines that the miner found alike."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import lru_cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patterns.expression import InvalidPattern, canonical, covers, expression_of, parse_id, shown_id
from patterns.families import id_of
from patterns.masks import TEXT_BYTES_MAX, WILDCARDS
from patterns.miner import Limits, Miner
from search.match import Test, compile_match
from search.regex import PATTERN_CHARS_MAX, parse_pattern
from search.template import lines_of
from tests.unit.patterns.hostile import messages, streams


@dataclass
class Line:
    """A log with a message only."""

    message: str
    id: int = 1
    timestamp: int = 0
    level: int = 9
    service_name: str = "s"
    correlation_id: str | None = None
    metadata: dict[str, object] = field(default_factory=dict)


def finds(text: str, message: str) -> bool:
    return _test_of(text)(Line(message))


@lru_cache(100)
def _test_of(text: str) -> Test:
    return compile_match(lines_of(text))


@pytest.mark.parametrize(
    "text, yes, no",
    [
        (
            "Connection from <ip> closed after <num> ms",
            ["Connection from 10.0.0.1 closed after 12 ms", "  Connection  from ::1 closed\tafter -1.5 ms\n"],
            ["connection from 10.0.0.1 closed after 12 ms", "Connection from 10.0.0.1 closed after 12 ms."],
        ),
        ("user <*> left", ["user ann left", "user <*> left"], ["user left", "user ann b left", "x user ann left"]),
        ("a.b (c) [d] {2} $x ^|\\", ["a.b (c) [d] {2} $x ^|\\"], ["aXb (c) [d] {2} $x ^|\\"]),
        ("ValueError: <...>", ["ValueError: x", "ValueError: \n at f()"], ["ValueError:", "ValueError:x"]),
        ("<...>", ["", "anything\nat all"], []),
        ("", ["", " \n"], ["x"]),
        ("<foo> <NUM>", ["<foo> <NUM>"], ["x 1"]),
        ('said "<str>"', ['said "a b"', 'said ""'], ["said a"]),
    ],
)
def test_a_text_finds_its_lines(text: str, yes: list[str], no: list[str]) -> None:
    assert [message for message in yes if not finds(text, message)] == []
    assert [message for message in no if finds(text, message)] == []


@settings(deadline=None, max_examples=40)
@given(streams())
def test_every_line_is_found_by_the_expression_of_its_template(stream: list[str]) -> None:
    miner = Miner(Limits(templates=40, service_templates=30, services=2))
    for message in stream:
        assert finds(miner.template_of("s", message).text, message)
    for message in stream:  # and when the families have become as general as they will
        assert finds(miner.template_of("s", message).text, message)


@settings(deadline=None)
@given(messages())
def test_every_message_is_found_by_its_own_template(message: str) -> None:
    assert finds(Miner().template_of("s", message).text, message)


@settings(deadline=None)
@given(messages())
def test_templates_are_written_as_the_miner_writes_them(message: str) -> None:
    template = Miner().template_of("s", message)
    assert canonical(template.text) == template.text
    assert template.id == id_of(template.text)
    assert parse_id(shown_id(template.id)) == template.id


@pytest.mark.parametrize(
    "piece",
    [*(f"<{name}>" for name in WILDCARDS if name != "..."), *(f"<{name}>," for name in WILDCARDS if name != "..."),
     ".", "a", ". ", "é", "<num> ", "<time> ", "<time>- "],
)  # fmt: skip
def test_the_longest_texts_keep_the_limits_of_expressions(piece: str) -> None:
    text = (piece * TEXT_BYTES_MAX).encode()[:TEXT_BYTES_MAX].decode(errors="ignore")
    text = " ".join(text.split()[:49])
    assert len(expression_of(text)) <= PATTERN_CHARS_MAX
    parse_pattern(expression_of(text))  # raises where a limit is passed


@settings(deadline=None)
@given(
    st.lists(st.sampled_from(["<", ">", "*", "num", ".", "...", " ", "a", "\\", "(", "é", "\n"]), max_size=60).map(
        "".join
    )
)
def test_any_text_has_an_expression_or_is_refused(text: str) -> None:
    try:
        expression = expression_of(text)
    except InvalidPattern:
        return
    parse_pattern(expression)


@pytest.mark.parametrize(
    "text, words",
    [
        ("x" * 401, "at most 400 bytes"),
        ("x " * 50, "at most 48 words"),
        ("a <...> b", "alone at the end"),
        ("a<...>", "alone at the end"),
        ("a\0b", "U+0000"),
    ],
)
def test_what_no_pattern_is_is_refused(text: str, words: str) -> None:
    with pytest.raises(InvalidPattern, match=words.replace("+", r"\+")):
        expression_of(text)


@pytest.mark.parametrize("text", ["", "abc", "0" * 15, "0" * 17, "G" * 16, "f" * 16, "AB" * 8])
def test_other_texts_are_no_ids(text: str) -> None:
    assert parse_id(text) is None


@pytest.mark.parametrize(
    "general, special, covered",
    [
        ("user <*> left", "user ann left", True),
        ("user <*> left", "user <num> left", True),
        ("user=<*>, <ip>", "user=ann, <ip>", True),
        ("user=<*>", "user=", False),
        ("user=<*>", "name=ann", False),
        ("user <num> left", "user <*> left", False),
        ("user <*> left", "user ann left now", False),
        ("<*>", '"<str>"', False),
        ("a <*>", "a <...>", False),
        ("a <...>", "a <...>", True),
        ("", "", True),
    ],
)
def test_which_text_says_all_that_another_says(general: str, special: str, covered: bool) -> None:
    assert covers(general, special) is covered
