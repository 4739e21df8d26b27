"""Messages that are like logs in places and like nothing else in others."""

from __future__ import annotations

import random

from hypothesis import strategies as st

_PIECES = (
    "user", "ann", "bob", "state", "OPEN", "CLOSED", "=", ":", ",", "(", ")", "[", "]", "/", "\\", '"', "'", "-", ".", "_",
    " ", "  ", "\t", "\n", "\r\n", "\v", "\x1c", "\x85", "\u00a0", "\u2028", "1", "23", "4567", "-8", "9.5", "1x2f", "0x3a",
    "10.0.0.1", "fe80::1", "::", "a:b:c", "12:30:45", "2026-01-31", "T", "Z", "550e8400-e29b-41d4-a716-446655440000",
    "96abccce8d1f", "https://a.b/c", "/var/log/x", "GET /x HTTP/1.1", "<*>", "<num>", "<str>", "<...>", "<", ">", "é", "漢",
    "😀", "\x01", "*", "+", "?", "{2}", "$", "^", "|", "%", "w" * 99, "w" * 120, "7" * 300,
)  # fmt: skip


def messages() -> st.SearchStrategy[str]:
    """Messages without NUL and lone surrogates, as they are stored; some longer than what is looked at."""
    pieces = st.lists(
        st.sampled_from(_PIECES)
        | st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=3),
        max_size=40,
    )
    return st.builds(lambda parts, glue: glue.join(parts), pieces, st.sampled_from(["", " "]))


def streams() -> st.SearchStrategy[list[str]]:
    """Messages of which many are alike: a few skeletons with other words in some places, odd messages between."""
    return st.builds(_stream, st.integers(0, 2**32), st.lists(messages(), max_size=4))


_WORDS = (
    "ann", "bob", "cy", "dee", "eve", "fay", "gus", "7", "a=1", "a=b", "x.y.org", "z.y.org", '"a b"', "<*>", "é", "/a/b",
    "w\nv",
)  # fmt: skip
_PARTS = ("user", "is", "{}", "user={}", "({})", "at", "end.", "{}:80")


def _stream(seed: int, odd: list[str]) -> list[str]:
    chance = random.Random(seed)
    stream = list(odd)
    for _ in range(chance.randrange(1, 4)):
        skeleton = " ".join(chance.choices(_PARTS, k=chance.randrange(1, 8)))
        words = chance.sample(_WORDS, chance.randrange(1, len(_WORDS)))
        holes = skeleton.count("{}")
        stream += [skeleton.format(*chance.choices(words, k=holes)) for _ in range(chance.randrange(1, 25))]
    return stream
