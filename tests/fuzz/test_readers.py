"""Whatever strangers write is read, or refused by an error that is documented (FAULTS: input, tokens, text).

Examples are mutations of the corpus (`corpus/TARGET/`), and bytes by chance. What once broke a reader is kept there under a
name that says what it is, and is read again by each run. Large inputs must not take memory out of proportion.
"""

from __future__ import annotations

import contextlib
import gzip
import random
import secrets
import tracemalloc
from typing import Final

import pytest
import zstandard
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.fuzz.targets import CORPUS, TARGETS

MIB: Final = 1024 * 1024
SIZE: Final = MIB // 16
"""Of a large input."""
_EXAMPLES: Final = 120
_MUTATIONS_LONG: Final = 100_000
_MUTATED_BYTES_MAX: Final = 16 * 1024
_POOL_MAX: Final = 500
_TOKENS: Final = [
    *(
        b"\x00",
        b"\xff\xfe",
        b"\xef\xbb\xbf",
        b"\r\n",
        b"\n\n",
        b"\xed\xa0\x80",
        b"\xe2\x80\xae",
        b"\x1b[2J",
        b"\\u0000",
    ),
    *(
        b"{",
        b"}",
        b"[",
        b"]",
        b'"',
        b"\\",
        b":",
        b",",
        b"(",
        b")",
        b"|",
        b"*",
        b"{1,1000}",
        b"=",
        b"%",
        b"&",
        b"+",
        b"-",
    ),
    *(b"1e400", b"NaN", b"-0", b"9" * 30, b"null", b"true", b"0001-01-01", b"9999-12-31T23:59:59Z", b"now", b"-1h"),
    *("²".encode(), "٣".encode(), "İ".encode(), "ß".encode(), b"NOT ", b" OR ", b"level:", b"lf_", b"Bearer ", b"../"),
]


def seeds(target: str) -> list[bytes]:
    return [path.read_bytes() for path in sorted((CORPUS / target).glob("*"))]


def attempt(target: str, raw: bytes) -> None:
    """Read it. Its documented errors are right; any other fails."""
    found = TARGETS[target]
    with contextlib.suppress(*found.refuses):
        found.run(raw)


def change(raw: bytes, edits: list[tuple[int, int, bytes, int]]) -> bytes:
    """edits: each a place, how many bytes go there, and what comes instead, how often."""
    for place, cut, token, times in edits:
        at = place % (len(raw) + 1)
        raw = raw[:at] + token * times + raw[at + cut :]
    return raw


def mutated(target: str) -> st.SearchStrategy[bytes]:
    seed = st.sampled_from(seeds(target) or [b""])
    edit = st.tuples(
        st.integers(0, 4_000),
        st.integers(0, 12),
        st.sampled_from(_TOKENS) | st.binary(max_size=6),
        st.integers(1, 3) | st.just(40),
    )

    return st.builds(change, seed, st.lists(edit, max_size=6)) | st.binary(max_size=60)


@pytest.mark.parametrize("target", TARGETS)
def test_every_reader_has_a_corpus_and_reads_it(target: str) -> None:
    kept = seeds(target)
    assert kept, f"tests/fuzz/corpus/{target} is empty"
    for raw in kept:
        attempt(target, raw)


def test_every_corpus_has_a_reader() -> None:
    assert {path.name for path in CORPUS.iterdir()} == set(TARGETS)


@pytest.mark.parametrize("target", TARGETS)
def test_only_documented_errors_are_raised(target: str) -> None:
    @given(mutated(target))
    @settings(max_examples=_EXAMPLES, deadline=None, suppress_health_check=list(HealthCheck))
    def read(raw: bytes) -> None:
        attempt(target, raw)

    read()


@pytest.mark.long
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("target", TARGETS)
def test_only_documented_errors_are_raised_by_many_more(target: str) -> None:
    """What was read well is changed further: mutations gather, as no single example of the short form has them."""
    seed = secrets.randbits(32)
    chance = random.Random(seed)
    pool = [*seeds(target), b""]
    for _ in range(_MUTATIONS_LONG):
        edits = [
            (
                chance.randrange(4_001),
                chance.randrange(13),
                chance.choice(_TOKENS) if chance.random() < 0.7 else chance.randbytes(chance.randrange(7)),
                40 if chance.random() < 0.05 else chance.randrange(1, 4),
            )
            for _ in range(chance.randrange(1, 7))
        ]
        raw = change(chance.choice(pool), edits)[:_MUTATED_BYTES_MAX]
        try:
            attempt(target, raw)
        except BaseException as error:
            error.add_note(f"seed {seed}, input: {raw!r}")
            raise
        if chance.random() < 0.01:
            pool.append(raw)
            if len(pool) > _POOL_MAX:
                pool.pop(chance.randrange(len(pool)))


LARGE: Final = {
    "nothing": bytes(SIZE),
    "open brackets": b"[" * SIZE,
    "open braces": b'{"a":' * (SIZE // 5),
    "open parentheses": b"(" * SIZE,
    "line ends": b"\n" * SIZE,
    "quotes": b'"' * SIZE,
    "backslashes": b"\\" * SIZE,
    "digits": b"9" * SIZE,
    "commas": b"[" + b"1," * (SIZE // 2) + b"1]",
    "dots": b"a." * (SIZE // 2),
    "words": b"a " * (SIZE // 2),
    "nots": b"NOT " * (SIZE // 4),
    "stars": b"a*" * (SIZE // 2),
    "choices": b"(a|" * (SIZE // 3),
    "parameters": b"q=a&" * (SIZE // 4),
    "keys": b"{" + b",".join(b'"%d":1' % number for number in range(SIZE // 12)) + b"}",
    "colons": b"a:" * (SIZE // 2),
    "gzip": b"\x00\xff" + gzip.compress(bytes(64 * MIB)),
    "zstd": b"\x01\xff" + zstandard.compress(bytes(64 * MIB)),
    "plain zstd": zstandard.compress(bytes(64 * MIB)),
    "logs": b'{"service_name":"a","message":"b"}\n' * (SIZE // 35),
    "stack": b"java.lang.Error\n" + b"\tat a.b(C.java:1)\n" * (SIZE // 19),
    "spaces": b"2026-01-01 " + b" " * SIZE,
}


@pytest.mark.timeout(300)
@pytest.mark.parametrize("kind", LARGE)
def test_a_large_input_takes_memory_in_proportion(kind: str) -> None:
    raw = LARGE[kind]
    for target, found in TARGETS.items():
        if not found.is_from_strangers:
            continue
        tracemalloc.start()
        try:
            attempt(target, raw)
            _, peak = tracemalloc.get_traced_memory()
        finally:
            tracemalloc.stop()
        assert peak < found.most_bytes + found.grows * len(raw), f"{target} took {peak / MIB:.0f} MiB"
