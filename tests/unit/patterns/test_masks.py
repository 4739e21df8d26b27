"""What of a single message is variable, and how little of a large one is looked at."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from patterns.masks import CHARS_MAX, TEXT_BYTES_MAX, TOKEN_BYTES_MAX, TOKENS_MAX, Masker, shape_of
from tests.unit.patterns.hostile import messages


def masked(message: str) -> str:
    tokens = Masker().tokens(shape_of(message), cut=len(message) > CHARS_MAX)
    return b" ".join(tokens).decode()


@pytest.mark.parametrize(
    "message, expected",
    [
        ("took 12 ms, -3.5 left", "took <num> ms, <num> left"),
        ("took 1,234.5ms for 7%", "took <num>ms for <num>%"),
        ("jobs-7 and node_-12", "jobs-<num> and node_<num>"),
        ("from 10.0.0.1:8080 to /10.1.2.3", "from <ip>:<num> to /<ip>"),
        ("from fe80::1:22ff to ::1", "from <ip> to <ip>"),
        ("std::vector is no address", "std::vector is no address"),
        ("at 2026-01-31T12:00:00.123Z", "at <time>"),
        ("at 2026-01-31 12:00:00,5", "at <time> <time>"),
        ("id 550e8400-e29b-41d4-a716-446655440000.", "id <uuid>."),
        ("zxid 0x14ed and 96abccce8d1f", "zxid <hex> and <hex>"),
        ("mac 00:1a:2b:3c:4d:5e deadbeef", "mac <hex> deadbeef"),
        ("open /var/log/app.log: no (/tmp/x)", "open <path>: no (<path>)"),
        (r"open C:\Users\ann\x.txt", "open <path>"),
        ("get https://example.org:80/a?b=c now", "get <url> now"),
        ('1.2.3.4 "GET /v2/x?y=1 HTTP/1.1" 200', '<ip> "GET <path> HTTP/<num>" <num>'),
        ('unknown name "Ada Lovelace" in "x"', 'unknown name "<str>" in "<str>"'),
        ('{"name":"Ada Lovelace","n":1}', '{"name":"<str>","n":<num>}'),
        ("no file 'a-b', can't go on", "no file '<*>', can't go on"),
        ("a half \"quote", 'a half "quote'),
        ("what <num> and <*> look like", "what <*> and <*> look like"),
        ("<memory:10240, vCores:-17>", "<memory:<num>, vCores:<num>>"),
        ("Łódź 漢字 é1", "Łódź 漢字 é<num>"),
        ("a\tb  c\r", "a b c"),
        ("a\u00a0b", "a\u00a0b"),
        ("nul\0in it", "nul<*>in it"),
        ("", ""),
        (" \n\t ", ""),
        ("\n\nValueError: x\n  at f()\n  at g()", "ValueError: x <...>"),
        ("one line\n \n", "one line"),
        ("x" * 101, "<*>"),
        ("x" * 5_000, "<...>"),
        ('a="' + "b " * 400 + '" c', 'a="<str>" c'),
    ],
)  # fmt: skip
def test_variables_become_wildcards(message: str, expected: str) -> None:
    assert masked(message) == expected


def test_the_end_of_a_cut_message_is_not_taken_for_a_word() -> None:
    start = "word " * 20
    assert masked(start + "x" * CHARS_MAX) == start + "<...>"
    assert masked("first line\n" + "x" * CHARS_MAX) == "first line <...>"
    assert masked("\n\n" + start + "x" * CHARS_MAX) == start + "<...>"


def test_many_tokens_and_long_texts_end_with_the_rest() -> None:
    many = masked("w " * TOKENS_MAX).split(" ")
    assert many == ["w"] * TOKENS_MAX
    assert masked("w " * (TOKENS_MAX + 1)).split(" ") == ["w"] * TOKENS_MAX + ["<...>"]
    long = masked(("w" * 40 + " ") * 20)
    assert long.endswith("w <...>")
    assert len(long) <= TEXT_BYTES_MAX


@settings(deadline=None)
@given(messages())
def test_what_is_looked_at_is_bounded_and_digits_do_not_matter(message: str) -> None:
    tokens = Masker().tokens(shape_of(message), cut=len(message) > CHARS_MAX)
    assert sum(map(len, tokens)) + len(tokens) <= TEXT_BYTES_MAX
    assert len(tokens) <= TOKENS_MAX + 1
    assert all(0 < len(token) <= TOKEN_BYTES_MAX for token in tokens)
    other = message.translate(str.maketrans("0123456789", "7340918265"))
    assert Masker().tokens(shape_of(other), cut=len(message) > CHARS_MAX) == tokens


@settings(deadline=None, max_examples=30)
@given(st.lists(messages(), max_size=5))
def test_what_was_seen_before_changes_nothing(earlier: list[str]) -> None:
    masker = Masker()
    for message in [*earlier, *earlier]:
        cut = len(message) > CHARS_MAX
        assert masker.tokens(shape_of(message), cut=cut) == Masker().tokens(shape_of(message), cut=cut)
