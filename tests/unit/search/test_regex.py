"""The written subset of regular expressions: what it is, what it is not, and how it is written out."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from search.letters import fold
from search.match import compile_match
from search.predicate import Matches
from search.regex import PATTERN_CHARS_MAX, Pattern, RegexError, parse_pattern
from search.regex_dialects import required_text, to_postgres, to_re2


class Line:
    """A log with a message only."""

    id, timestamp, level, service_name, correlation_id = 1, 0, 9, "s", None

    def __init__(self, message: str) -> None:
        self.message = message
        self.metadata: dict[str, object] = {}


def matches(pattern: str, message: str, *, ignore_case: bool = False) -> bool:
    return compile_match(Matches(parse_pattern(pattern, ignore_case=ignore_case)))(Line(message))


@pytest.mark.parametrize(
    "pattern, yes, no",
    [
        ("", ["", "x"], []),
        ("abc", ["xabcx"], ["ABC", "ab"]),
        ("a.c", ["abc", "a\nc", "aéc", "a😀c"], ["ac"]),
        ("^abc$", ["abc"], ["abc\n", "\nabc", "xabc"]),
        ("a|^b", ["xa", "b"], ["xb"]),
        ("ab?c", ["ac", "abc"], ["abbc"]),
        ("^ab*?c$", ["ac", "abbc"], ["adc"]),
        ("^a{2}$", ["aa"], ["a", "aaa"]),
        ("^a{2,}$", ["aa", "aaaa"], ["a"]),
        ("^a{1,2}$", ["a", "aa"], ["", "aaa"]),
        ("^a{0}b$", ["b"], ["ab"]),
        ("^(ab)+$", ["abab"], ["aba"]),
        ("^(?:a|bc)*$", ["", "abca"], ["b"]),
        ('{"a":1}', ['{"a":1}'], []),
        ("a{,b}", ["a{,b}"], []),
        ("a{x}", ["a{x}"], ["ax"]),
        ("x{}", ["x{}"], ["x"]),
        (r"^\d+$", ["019"], ["٣", "a"]),
        (r"^\w+$", ["aZ_9"], ["é", "-"]),
        (r"^\s+$", [" \t\n\v\f\r"], ["\u00a0", "\u0085"]),
        (r"^\D\W\S$", ["٣éx"], ["1éx"]),
        (r"\bfoo\b", ["a foo.", "éfooé"], ["food", "_foo"]),
        (r"o\Bo", ["foo"], ["o o"]),
        (r"^[a-c\d_-]+$", ["ab0_-"], ["d"]),
        ("^[]a]+$", ["]a"], ["b"]),
        ("^[^]a]+$", ["b"], ["]"]),
        (r"^[\]\[\\^-]+$", ["][\\^-"], ["a"]),
        ("^[a-]+$", ["a-"], ["b"]),
        ("[^\\n]", ["a"], ["\n"]),
        (r"^\x41\u00e9\t\.$", ["Aé\t."], ["Aé\tx"]),
        ("(?i)straße", ["STRAẞE", "StraßE"], ["STRASSE"]),
        ("(?i)k", ["K", "k"], ["\u212a"]),
        ("(?i)s|x", ["S"], ["\u017f"]),
        ("(?i)[^k]", ["\u212a", "a"], ["k", "K", "kK"]),
        ("(?i)[a-f]+é$", ["BEÉ"], ["G"]),
        (r"\/\-\#\"", ['/-#"'], []),
    ],
)
def test_a_pattern_matches_what_the_page_says(pattern: str, yes: list[str], no: list[str]) -> None:
    assert [message for message in yes if not matches(pattern, message)] == []
    assert [message for message in no if matches(pattern, message)] == []


@pytest.mark.parametrize(
    "pattern, column, words",
    [
        ("a(b", 2, "expected ) to close"),
        ("ab)", 3, "closes nothing"),
        ("a[bc", 2, "expected ] to close"),
        ("[]", 1, "expected ] to close"),
        ("*a", 1, "nothing to repeat"),
        ("a|+", 3, "nothing to repeat"),
        ("({2})", 2, "nothing to repeat"),
        ("a**", 3, "repeated already"),
        ("a+{2}", 3, "repeated already"),
        ("a++", 3, "possessive"),
        ("^*", 2, "match no character"),
        (r"a\b+", 4, "match no character"),
        ("a{2,1}", 2, "wrong order"),
        ("a{256}", 2, "at most 255"),
        ("a{1,99999999999}", 2, "at most 255"),
        ("a{,3}", 2, "{0,3}"),
        ("[b-a]", 3, "wrong order"),
        (r"[a-\d]", 3, "one character on each side"),
        (r"[\d-z]", 4, "one character on each side"),
        ("[[:alpha:]]", 2, "named classes"),
        (r"[\b]", 2, "cannot be in a class"),
        (r"[^\s\S]", 1, "matches no character"),
        ("(?=a)", 1, "no look-around"),
        ("(?<!a)", 1, "no look-around"),
        ("(?P<x>a)", 1, "named groups"),
        ("a(?i)b", 2, "very start"),
        ("(?s)a", 1, "other flags"),
        (r"(a)\1", 4, r"\1 is not supported"),
        (r"\pL", 1, "not supported"),
        (r"\Aa", 1, "not supported"),
        ("\\", 1, "expected a character after the last"),
        (r"\x4", 1, "2 hexadecimal digits"),
        (r"\u12g4", 1, "4 hexadecimal digits"),
        (r"\x00", 1, "does not occur"),
        (r"\ud800", 1, "does not occur"),
        ("a\0", 2, "does not occur"),
        ("a\udfff", 2, "does not occur"),
        ("a" * (PATTERN_CHARS_MAX + 1), PATTERN_CHARS_MAX + 1, "at most 1,000"),
        ("(" * 51 + ")" * 51, 51, "at most 50 groups"),
        ("(a{255}){255}", 1, "65,025 steps"),
        ("((a{100}){100}){100}b", 1, "steps"),
        (r"(a|\b){11}", 1, "word edges"),
        (r"\B" * 6, 1, "word edges"),
    ],
)
def test_anything_else_is_refused_with_its_column(pattern: str, column: int, words: str) -> None:
    with pytest.raises(RegexError) as caught:
        parse_pattern(pattern)
    assert caught.value.column == column, caught.value
    assert words in caught.value.problem
    assert str(caught.value) == f"column {column}: {caught.value.problem}"


@pytest.mark.parametrize(
    "pattern, re2_text, postgres_text",
    [
        ("", "(?:)", "(?:)"),
        ("a b", "a b", "a b"),
        (".+", "(?s:.)+", ".+"),
        ("^a$", r"\Aa\z", r"\Aa\Z"),
        (r"\ba", r"\ba", r"\ya"),
        ("%?", r"\x{25}?", r"\u0025?"),
        ("é😀", r"\x{E9}\x{1F600}", r"\u00E9\U0001F600"),
        ("(a|b)c", "(?:a|b)c", "(?:a|b)c"),
        ("(ab){2,3}?", "(?:ab){2,3}", "(?:ab){2,3}"),
        ("(a*)*", "(?:a*)*", "(?:a*)*"),
        ("(?i)ab", "[Aa][Bb]", "[Aa][Bb]"),
        ("(?i)k|a", r"[\x{0}Kk]|[Aa]", "[Kk]|[Aa]"),
        (r"a\B", r"\A(?s:.)*(?:a\B)", r"a\Y"),
        (r"[^a\-c]", r"[^\x{2D}ac]", r"[^\u002Dac]"),
        (r"[\s\S]", "(?s:.)", "."),
    ],
)
def test_each_dialect_is_written_with_nothing_left_to_defaults(pattern: str, re2_text: str, postgres_text: str) -> None:
    parsed = parse_pattern(pattern)
    assert (to_re2(parsed), to_postgres(parsed)) == (re2_text, postgres_text)


@pytest.mark.parametrize(
    "pattern, text",
    [
        ("error", "error"),
        ("(?i)Error", "error"),
        ("user=\\d+ failed", " failed"),
        ("a|b", ""),
        ("(abc)d*e", "abc"),
        ("abc*", "ab"),
        ("x(?:abc)?y", "x"),
        ("é", ""),
        ("(?i)é", ""),
        (r"[ab]\d", ""),
        ("[Aa]b", "ab"),
        ("[Ab]b", "b"),
    ],
)
def test_text_a_pattern_cannot_do_without_is_found(pattern: str, text: str) -> None:
    assert required_text(parse_pattern(pattern)) == text


@given(
    st.text(st.sampled_from("abAB|()*+?^$[]-\\dwsb.{}12,é "), max_size=25),
    st.text(st.sampled_from("abABé 12-\n"), max_size=12),
)
def test_any_text_is_a_pattern_or_refused_within_itself(pattern: str, message: str) -> None:
    parsed = _parsed(pattern)
    if isinstance(parsed, int):
        assert 1 <= parsed <= len(pattern) + 1
    elif compile_match(Matches(parsed))(Line(message)):
        assert required_text(parsed) in fold(message)


def _parsed(pattern: str) -> Pattern | int:
    """The pattern, or the column of the error."""
    try:
        return parse_pattern(pattern)
    except RegexError as error:
        return error.column


def test_patterns_are_equal_by_meaning_of_their_parts_and_not_by_spelling() -> None:
    assert parse_pattern("(?:ab)") == parse_pattern("ab")
    assert parse_pattern("a*?") == parse_pattern("a*")
    assert parse_pattern("(?i)a") == parse_pattern("[aA]") == parse_pattern("a", ignore_case=True)
    assert parse_pattern("a") != parse_pattern("A")
