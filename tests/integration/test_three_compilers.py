"""The promise of package search: PostgreSQL, DuckDB and Python give the same answer for every predicate and log.

One table of a few hundred odd logs in real engines, and as a segment's file, made of PostgreSQL's rows; each example is a
random predicate judged on all of them at once.
"""

from __future__ import annotations

import asyncio
import json
import random
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, TypeVar

import duckdb
import msgspec
import psycopg
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from schemas.record import Log
from search.language import parse
from search.letters import VARIANTS, fold
from search.match import compile_match
from search.predicate import (
    EVERYTHING,
    NOTHING,
    And,
    Contains,
    CorrelationIs,
    CorrelationPresent,
    FieldPresent,
    IdRange,
    LevelIn,
    Matches,
    MetaCompare,
    MetaEquals,
    MinLevel,
    Not,
    Or,
    Predicate,
    ServiceIn,
    TimeRange,
)
from search.regex import RegexError, literal_pattern, parse_pattern
from search.sql import Columns, Sql, joined
from search.sql_duckdb import compile_duckdb
from search.sql_postgres import compile_postgres, indexable_metadata
from store.scan_windows import BEYOND, LEAST
from store.segments.format import SCHEMA
from store.segments.reading import SegmentReader
from store.segments.scans import SegmentFile, SegmentScan
from store.segments.settings import SegmentSettings
from store.segments.writing import WrittenSegment
from tests.segment_rows import batch_of, in_order, write_batch

T = TypeVar("T")
ODD_CHARS = (
    "aAbBiIkKsSxX019_-.%^$\\'\" \n\r\t\v{}İı\u212a\u212b" + "ſßẞéÉe\u0301ΣσςÅåǅǆµμ\u00a0漢😀\u10d0\u1c90\ua7dc\u019b"
)
MESSAGES = (
    "",
    "Connection RESET by peer",
    "100% done_now",
    "a\\b",
    "K \u212a k",
    "İstanbul istanbul ISTANBUL ıstanbul",
    "STRASSE straße STRAẞE",
    "ΟΔΟΣ οδος οδοσ",
    "line one\nline two\n",
    "\n",
    "{\"user\": \"x\"}",
    "cafe\u0301 café CAFÉ",
)  # fmt: skip
METADATA: tuple[Any, ...] = (
    {},
    {"a": 1},
    {"a": 1.0},
    {"a": "1"},
    {"a": "1.0"},
    {"a": True},
    {"a": "true"},
    {"a": False},
    {"a": None},
    {"a": [1]},
    {"a": {"b": 1}},
    {"a.b": 2},
    {"a": {"b": 1}, "a.b": 2},
    {"a": {"b": {"c": "x"}}},
    {"a": {"b.c": "x"}},
    {"a.b": {"c": "x"}},
    {"a.b.c": "X"},
    {"a": [{"b": 1}], "a.0": 5},
    {"a": {"0": 5}},
    {"a": 2**63},
    {"a": 2**63 + 1},
    {"a": -(2**70)},
    {"a": 10**400},
    {"a": -(10**400) - 1},
    {"a": 1e300},
    {"a": 5e-324},
    {"a": 1e22},
    {"a": 1e23},
    {"a": 0.1},
    {"a": 0.30000000000000004},
    {"a": -0.0},
    {"a": 0},
    {"a": -1.5},
    {"a": 1e-7},
    {"a": 12.5},
    {"a": 9007199254740993},
    {"a": 9007199254740992.0},
    {"a": "12.5"},
    {"a": ""},
    {"a": "it's \"quoted\" \\ back"},
    {"é": "É", "quote\"d": "q", "back\\slash": "s", "it's": 1, "$": 2, "0": 3, "sp ace": 4},
)  # fmt: skip
SERVICES = ("pay", "payments", "pay-2", "auth", "Auth", "a.b_c/d")
CORRELATIONS = (None, "", "c1", "C1", "c'2", "%")
PATHS = (
    ("a",), ("a", "b"), ("a", "b", "c"), ("a.b", "c"), ("a", "0"), ("é",), ('quote"d',), ("back\\slash",), ("it's",),
    ("$",), ("0",), ("sp ace",), ("missing",), ("a", "b", "c", "d", "e", "f", "g", "h"),
)  # fmt: skip
NUMBERS = (
    "0", "-0", "0.0", "1", "1.0", "1e0", "10e-1", "1e3", "-1.5", "0.1", "0.10", "0.10000000000000001", "12.5", "1e-7",
    "0.30000000000000004", "0.3", "9007199254740993", "9007199254740992", "9223372036854775808", "9223372036854775809",
    "9223372036854775807", "-1180591620717411303424", "1e22", "1e23", "99999999999999991611392", "1e300", "1e400", "-1e400",
    "1e1000", "-1e1000", "1e-1000", "-1e-1000", "5e-324", "4.9406564584124654e-324",
)  # fmt: skip
TEXTS = ("true", "false", "null", "x", "X", "", "É", "q", "s", 'it\'s "quoted" \\ back', "[1]")
TIMES = (0, 1, -1, 1_700_000_000_000_000, 1_700_000_000_000_001, 1_699_999_999_999_999, -62_135_596_800_000_000)


@dataclass
class Engines:
    """The same logs in three places."""

    logs: list[Log]
    postgres: psycopg.Connection
    duck: duckdb.DuckDBPyConnection
    segments: list[WrittenSegment]
    reader: SegmentReader
    loop: asyncio.Runner
    """In which the reader lives."""

    def ids_in_python(self, predicate: Predicate) -> set[int]:
        test = compile_match(predicate)
        return {log.id for log in self.logs if test(log)}

    def ids_in_postgres(self, predicate: Predicate) -> set[int]:
        sql = compile_postgres(predicate)
        return _ids(self.postgres.execute(f"SELECT id, {sql.text} FROM logs".encode(), sql.params).fetchall())

    def ids_in_segment(self, predicate: Predicate) -> set[int]:
        """With the condition as a filter of the files, where statistics and Bloom filters take part."""
        sql, paths = compile_duckdb(predicate), [str(segment.path) for segment in self.segments]
        text = f"SELECT id FROM read_parquet(?) WHERE {sql.text}"
        return {log_id for (log_id,) in self.duck.execute(text, [paths, *sql.params]).fetchall()}

    def ids_by_reader(self, predicate: Predicate) -> set[int]:
        """As pages ask the files: by a reader process, slice by slice. The rows that come back are those that were stored."""
        files = tuple(SegmentFile(str(each.path), each.name, each.info.row_groups) for each in self.segments)
        scan = SegmentScan(
            files, compile_duckdb(predicate), LEAST, BEYOND, True, len(self.logs) + 1, 1 << 30, budget_ms=60_000
        )
        found = self.loop.run(self.reader.scan(scan))
        assert found.looked_to is None
        by_id = {log.id: log for log in self.logs}
        assert [_exact(log) for log in found.logs] == [_exact(by_id[log.id]) for log in found.logs]
        return {log.id for log in found.logs}

    def ids_in_duckdb(self, predicate: Predicate) -> tuple[set[int], set[int]]:
        """With metadata as the frames have it, and as PostgreSQL writes its jsonb."""
        ours, theirs = (
            compile_duckdb(predicate, Columns(metadata=name)) for name in ("metadata", "metadata_from_jsonb")
        )
        text = f"SELECT id, {ours.text}, {theirs.text} FROM logs"
        rows = self.duck.execute(text, [*ours.params, *theirs.params]).fetchall()
        return _ids([(row[0], row[1]) for row in rows]), _ids([(row[0], row[2]) for row in rows])

    def assert_agreement(self, predicate: Predicate) -> set[int]:
        """All engines must select the same logs; returns their ids."""
        expected = self.ids_in_python(predicate)
        assert self._shown(self.ids_in_postgres(predicate) ^ expected) == []
        for found in self.ids_in_duckdb(predicate):
            assert self._shown(found ^ expected) == []
        assert self._shown(self.ids_in_segment(predicate) ^ expected) == []
        assert self._shown(self.ids_by_index(predicate) ^ expected) == []
        return expected

    def ids_by_index(self, predicate: Predicate) -> set[int]:
        """What is found by the GIN index on metadata, where that can be asked."""
        terms = indexable_metadata(predicate)
        if terms is None:
            return self.ids_in_python(predicate)
        sql = joined("AND", [terms, compile_postgres(predicate)])
        query = f"SELECT id FROM logs WHERE {sql.text}".encode()
        plan = self.postgres.execute(b"EXPLAIN " + query, sql.params).fetchall()
        if not any("One-Time Filter: false" in line for (line,) in plan):  # the planner knows that nothing matches
            assert any("Index Cond: " in line and "metadata @>" in line for (line,) in plan), plan
        return {log_id for (log_id,) in self.postgres.execute(query, sql.params).fetchall()}

    def _shown(self, ids: set[int]) -> list[Log]:
        return [log for log in self.logs if log.id in ids]


def _ids(rows: Sequence[tuple[int, bool | None]]) -> set[int]:
    assert all(judged is not None for _, judged in rows), "a NULL leaked"
    return {row_id for row_id, judged in rows if judged}


def _logs() -> list[Log]:
    chance = random.Random(20240101)
    logs = []
    for index in range(300):
        message = (
            MESSAGES[index] if index < len(MESSAGES) else "".join(chance.choices(ODD_CHARS, k=chance.randrange(12)))
        )
        logs.append(
            Log(
                id=index + 1,
                timestamp=chance.choice(TIMES),
                level=index % 24 + 1,
                service_name=chance.choice(SERVICES),
                message=message,
                correlation_id=chance.choice(CORRELATIONS),
                metadata=METADATA[index % len(METADATA)],
            )
        )
    return msgspec.json.decode(msgspec.json.encode(logs), type=list[Log])


@pytest.fixture(scope="module")
def engines(postgres_url: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Engines]:
    logs = _logs()
    rows = [
        (
            log.id,
            log.timestamp,
            log.level,
            log.service_name,
            log.message,
            log.correlation_id,
            msgspec.json.encode(log.metadata).decode(),
        )
        for log in logs
    ]
    with psycopg.connect(postgres_url, autocommit=True) as postgres, duckdb.connect() as duck:
        duck.execute("SET threads = 1")  # the other tests want the cores too
        duck.execute(
            "CREATE TABLE logs(id BIGINT, timestamp TIMESTAMPTZ, level SMALLINT, service_name VARCHAR, message VARCHAR, "
            "correlation_id VARCHAR, metadata VARCHAR, metadata_from_jsonb JSON)"
        )
        postgres.execute(
            "CREATE TEMP TABLE logs(id bigint, timestamp timestamptz, level smallint, service_name text, message text, "
            "correlation_id text, metadata jsonb)"
        )
        with postgres.cursor() as cursor:
            cursor.executemany(
                "INSERT INTO logs VALUES (%s, 'epoch'::timestamptz + %s * interval '1 microsecond', %s, %s, %s, %s, %s)",
                rows,
            )
        postgres.execute("CREATE INDEX ON logs USING gin (metadata jsonb_path_ops)")
        postgres.execute("SET enable_seqscan = off")
        from_jsonb: dict[int, str] = dict(postgres.execute("SELECT id, metadata::text FROM logs").fetchall())
        duck.executemany(
            "INSERT INTO logs VALUES (?, make_timestamptz(?::BIGINT), ?, ?, ?, ?, ?, ?)",
            [[*row, from_jsonb[row[0]]] for row in rows],
        )
        segments = _segments(logs, from_jsonb, tmp_path_factory.mktemp("segments"))
        with asyncio.Runner() as loop:
            reader = loop.run(_reader(segments[0].path.parent))
            yield Engines(logs, postgres, duck, segments, reader, loop)
            loop.run(reader.close())


async def _reader(directory: Path) -> SegmentReader:
    """Bound to the loop that runs this."""
    return SegmentReader([directory], SegmentSettings(reader_threads=1, reader_memory_mib=512))


def _exact(log: Log) -> tuple[Any, ...]:
    """All that every engine keeps exactly: of metadata's numbers only the values."""
    return log.id, log.timestamp, log.level, log.service_name, log.message, log.correlation_id


def _segments(logs: list[Log], metadata: dict[int, str], directory: Path) -> list[WrittenSegment]:
    """Files with the logs in many row groups, metadata as PostgreSQL prints it."""
    batch = batch_of(in_order(logs))
    texts = pa.array([metadata[log_id] for log_id in batch.column("id").to_pylist()])
    return write_batch(directory, batch.set_column(6, SCHEMA.field("metadata"), texts), row_group_rows=20)


def _patterns() -> st.SearchStrategy[Matches]:
    """Regular expressions grown from odd parts; those past a limit are left out."""
    chars = st.sampled_from(ODD_CHARS).map(
        lambda c: c if c.isalnum() or not c.isascii() or c in "\n\r\t\v" else f"\\{c}"
    )
    space = st.just(r"\x20")
    classes = st.lists(
        st.sampled_from(["a", "k", "s", "É", r"\d", r"\W", "a-c", "K-Z", r"\n", "σ", r"\s", "à-ÿ", r"\]", "-"]),
        min_size=1,
        max_size=3,
    ).flatmap(lambda parts: st.sampled_from([f"[{''.join(parts)}]", f"[^{''.join(parts)}]"]))
    shorthand = st.sampled_from([r"\d", r"\D", r"\w", r"\W", r"\s", r"\S", "."])
    places = st.sampled_from(["^", "$", r"\b", r"\B"])

    def grow(inner: st.SearchStrategy[str]) -> st.SearchStrategy[str]:
        groups = inner.map(lambda text: f"({text})") | inner.map(lambda text: f"(?:{text})")
        atoms = chars | space | classes | shorthand | groups
        bounds = st.sampled_from(["*", "+", "?", "{2}", "{0,2}", "{1,}", "{0}", "*?", "{2,3}?"])
        items = atoms | places | st.builds(str.__add__, atoms, bounds)
        sequences = st.lists(items, max_size=4).map("".join)
        return st.lists(sequences, min_size=1, max_size=3).map("|".join)

    texts = st.recursive(chars, grow, max_leaves=6)
    return (
        st.builds(lambda flag, text: flag + text, st.sampled_from(["", "(?i)"]), texts)
        .filter(_parses)
        .map(lambda text: Matches(parse_pattern(text)))
    )


def _parses(text: str) -> bool:
    try:
        parse_pattern(text)
    except RegexError:
        return False
    return True


def _pieces_of_messages() -> st.SearchStrategy[str]:
    piece = st.builds(
        lambda text, start, length: text[start : start + length],
        st.sampled_from(MESSAGES),
        st.integers(0, 20),
        st.integers(1, 8),
    )
    odd = st.text(ODD_CHARS, max_size=3)
    return st.one_of(piece, odd).flatmap(lambda text: st.sampled_from([text, text.upper(), text.lower()]))


def _few(elements: st.SearchStrategy[T]) -> st.SearchStrategy[frozenset[T]]:
    return st.frozensets(elements, max_size=2)


_severities = st.integers(1, 24)
_paths = st.sampled_from(PATHS)
_leaves: st.SearchStrategy[Predicate] = st.one_of(
    st.sampled_from([EVERYTHING, NOTHING, CorrelationPresent()]),
    st.builds(ServiceIn, _few(st.sampled_from(SERVICES)), _few(st.sampled_from(["", "pa", "pay", "a.", "%"]))),
    st.builds(LevelIn, _few(st.tuples(_severities, _severities).map(lambda pair: (min(pair), max(pair)))).map(tuple)),
    st.builds(MinLevel, _severities),
    st.builds(TimeRange, st.none() | st.sampled_from(TIMES), st.none() | st.sampled_from(TIMES)),
    st.builds(IdRange, st.none() | st.integers(0, 320), st.none() | st.integers(0, 2**63 - 1)),
    st.builds(CorrelationIs, st.sampled_from([text for text in CORRELATIONS if text is not None])),
    st.builds(Contains, _pieces_of_messages()),
    _patterns(),
    st.builds(FieldPresent, _paths),
    st.builds(MetaEquals, _paths, st.sampled_from([*NUMBERS, *TEXTS])),
    st.builds(MetaCompare, _paths, st.sampled_from([">", ">=", "<", "<="]), st.sampled_from(NUMBERS).map(Decimal)),
)  # fmt: skip
_predicates = st.recursive(
    _leaves,
    lambda inner: st.one_of(
        st.builds(Not, inner),
        st.builds(And, st.lists(inner, max_size=4).map(tuple)),
        st.builds(Or, st.lists(inner, max_size=4).map(tuple)),
    ),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None, suppress_health_check=list(HealthCheck))
@given(predicate=_predicates)
@example(predicate=Not(CorrelationIs("c1")))
@example(predicate=Matches(parse_pattern("(?i)\r|k")))
@example(predicate=Matches(parse_pattern(r"\B")))
def test_three_compilers_agree(engines: Engines, predicate: Predicate) -> None:
    assert engines.ids_by_reader(predicate) == engines.assert_agreement(predicate)


@settings(max_examples=150, deadline=None, suppress_health_check=list(HealthCheck))
@given(predicate=_patterns())
def test_three_engines_agree_on_regular_expressions(engines: Engines, predicate: Predicate) -> None:
    engines.assert_agreement(predicate)


@pytest.mark.slow
def test_the_index_on_metadata_finds_every_value_there_is(engines: Engines) -> None:
    """However a field is nested, and whatever its value: each is found by the index, among others that it is not."""
    for path in PATHS:
        for text in (*NUMBERS, *TEXTS):
            engines.assert_agreement(MetaEquals(path, text))
    for log in engines.logs:
        for key, value in log.metadata.items():
            text = value if isinstance(value, str) else json.dumps(value)
            if "." not in key and not isinstance(value, (dict, list)) and value is not None and len(text) < 300:
                assert log.id in engines.ids_by_index(MetaEquals((key,), text))


def test_three_compilers_agree_on_every_number(engines: Engines) -> None:
    for text in NUMBERS:
        engines.assert_agreement(MetaEquals(("a",), text))
        for op in (">", ">=", "<", "<="):
            engines.assert_agreement(MetaCompare(("a",), op, Decimal(text)))


@pytest.mark.parametrize(
    "predicate, messages",
    [
        (Contains("reset BY"), {"Connection RESET by peer"}),
        (Contains("0% d"), {"100% done_now"}),
        (Contains("e_n"), {"100% done_now"}),
        (Contains("a\\b"), {"a\\b"}),
        (Contains("straße"), {"STRASSE straße STRAẞE"}),
        (Contains("οδος"), {"ΟΔΟΣ οδος οδοσ"}),
        (Contains("ΟΔΟΣ"), {"ΟΔΟΣ οδος οδοσ"}),
        (Contains("ISTANBUL"), {"İstanbul istanbul ISTANBUL ıstanbul"}),
        (Contains("CAFÉ"), {"cafe\u0301 café CAFÉ"}),
        (Matches(parse_pattern("one.line")), {"line one\nline two\n"}),
        (Matches(parse_pattern("^line two")), set()),
        (Matches(parse_pattern("two$")), set()),
        (Matches(parse_pattern(r"two\s$")), {"line one\nline two\n"}),
        (Matches(parse_pattern(r"^\{.*\}$")), {'{"user": "x"}'}),
    ],
)
def test_text_search_finds_what_a_user_expects(engines: Engines, predicate: Predicate, messages: set[str]) -> None:
    ids = engines.assert_agreement(predicate)
    assert {log.message for log in engines.logs if log.id in ids} & set(MESSAGES) == messages


@pytest.mark.parametrize(
    "text", ["0% DONE", "100%", '": "X', "é CAFÉ", "e\u0301 CAF", '{"', "漢😀", "00% done_NOW", "\n", ""]
)
def test_what_has_no_case_is_found_alone_and_beside_letters(engines: Engines, text: str) -> None:
    """PostgreSQL looks for the characters without case first, in the message as it is."""
    assert engines.assert_agreement(Contains(text)) == engines.assert_agreement(Contains(text.swapcase()))


def test_every_letter_is_found_by_its_other_case_in_all_engines(engines: Engines) -> None:
    """All 2,855 letters with two cases at once: one log each, sought by the other spelling, in texts of ten letters."""
    letters = [chr(point) for point in sorted(VARIANTS)]
    for at in range(0, len(letters), 10):
        text = "".join(letters[at : at + 10])
        other = "".join(
            chr(VARIANTS[ord(char)][0] if VARIANTS[ord(char)][-1] == ord(char) else VARIANTS[ord(char)][-1])
            for char in text
        )
        assert fold(text) == fold(other)
        for predicate in (Contains(other), Contains(f"{other} 100% ")):
            log = Log(1, 0, 9, "s", f"{text} 100% ", None, {})
            assert compile_match(predicate)(log)
            assert _judge_postgres(engines, compile_postgres(predicate), log.message)
        predicate = Contains(other)
        log = Log(1, 0, 9, "s", text, None, {})
        assert compile_match(predicate)(log)
        assert _judge_postgres(engines, compile_postgres(predicate), text)
        assert _judge_duckdb(engines, compile_duckdb(predicate), text)


def test_an_ascii_letter_is_found_as_no_letter_outside_ascii(engines: Engines) -> None:
    """Over every character there is: the Kelvin sign is not k, the dotted İ is not i, the long s is not s."""
    others = "".join(chr(point) for point in range(0x80, 0x110000) if not 0xD800 <= point <= 0xDFFF)
    for letter in "abcdefghijklmnopqrstuvwxyz":
        for predicate in (
            Contains(letter),
            Contains(letter.upper()),
            Matches(parse_pattern(f"(?i){letter}|{letter}0")),
        ):
            assert not compile_match(predicate)(Log(1, 0, 9, "s", others, None, {}))
    for letter in "iks":
        for predicate in (Contains(letter), Matches(parse_pattern(f"(?i){letter}|{letter}0"))):
            assert not _judge_postgres(engines, compile_postgres(predicate), others)
            assert not _judge_duckdb(engines, compile_duckdb(predicate), others)


@pytest.mark.parametrize("shorthand", [r"\d", r"\w", r"\s", r"\b\D", "(?i)[k-s]", "[^é]", "(?i)[à-ÿ]"])
def test_classes_mean_the_same_characters_in_all_engines(engines: Engines, shorthand: str) -> None:
    """Each character of the Basic Multilingual Plane on its own, by one statement an engine."""
    predicate = Matches(
        parse_pattern(f"^(?:{shorthand})$" if not shorthand.startswith("(?i)") else f"(?i)^{shorthand[4:]}$")
    )
    points = [point for point in range(1, 0x10000) if not 0xD800 <= point <= 0xDFFF]
    test = compile_match(predicate)
    expected = {point for point in points if test(Log(1, 0, 9, "s", chr(point), None, {}))}
    sql = compile_postgres(predicate, Columns(message="chr(n)"))
    source = "FROM generate_series(1, 65535) AS g(n) WHERE n NOT BETWEEN 55296 AND 57343"
    rows = engines.postgres.execute(f"SELECT n {source} AND {sql.text}".encode(), sql.params).fetchall()
    assert {row[0] for row in rows} == expected
    sql = compile_duckdb(predicate, Columns(message="chr(n::INTEGER)"))
    source = "FROM range(1, 65536) AS g(n) WHERE n NOT BETWEEN 55296 AND 57343"
    assert {
        row[0] for row in engines.duck.execute(f"SELECT n {source} AND {sql.text}", [*sql.params]).fetchall()
    } == expected


@pytest.mark.parametrize(
    "pattern",
    [
        ".{255}.{255}.{255}.{230}", r"(\w{1,10}){1,90}", r"(a|b|\b){1,10}", r"\b\B\b\B\b\B\b", "(?i)(k|é|σ){1,250}",
        r".*a.{250}b",
        "^(a{0,31}){0,31}$", "(a?){250}a{250}", "(a+)+$", "((a{1,9}){1,10}){1,10}", "(?:(?:a|\\b)b?)*" * 5, "((((a*)*)*)*)*b",
        r"[\u00e9-\uabcd]{250}[^\u0100-\uffff]{250}.{250}", "(.*){1,30}(.*){1,30}x", "(" * 50 + "a" + ")" * 50, "a" * 1000,
    ],
)  # fmt: skip
def test_the_largest_patterns_stay_within_each_engines_limits(engines: Engines, pattern: str) -> None:
    """Neither "too complex" nor "out of memory" may reach a user after a pattern was accepted."""
    engines.assert_agreement(Matches(parse_pattern(pattern)))
    long_message = "a" * 20_000 + "é" * 1_000
    predicate = Matches(parse_pattern(pattern))
    expected = compile_match(predicate)(Log(1, 0, 9, "s", long_message, None, {}))
    assert _judge_postgres(engines, compile_postgres(predicate), long_message) is expected
    assert _judge_duckdb(engines, compile_duckdb(predicate), long_message) is expected


def test_a_literal_pattern_matches_as_contains_does(engines: Engines) -> None:
    for text in (*MESSAGES, *ODD_CHARS):
        assert engines.assert_agreement(Matches(literal_pattern(text))) == engines.ids_in_python(Contains(text))


_TEMPLATES = (
    "", "<...>", "<*>", "Connection RESET by <*>", "<num>% done_now", "<*> <hex> <*>", 'line <...>', '{"user": "<str>"}',
    "a\\b", "<*> café <*>", "<*> " * 48, "<num>," * 66, "<*>x<ip>y<time>z<uuid><path><url>", ".*+?()[]{}|^$ <*>",
)  # fmt: skip


@pytest.mark.parametrize("text", _TEMPLATES)
def test_lines_of_a_pattern_are_the_same_in_all_engines(engines: Engines, text: str) -> None:
    """A pattern finds its own lines, the odd logs alike everywhere, and no long message makes an engine slow or fail."""
    predicate = parse(f"pattern:{json.dumps(text, ensure_ascii=False)}")
    engines.assert_agreement(predicate)
    samples = {
        "num": "-1,0",
        "hex": "0xaf",
        "ip": "::1",
        "time": "12:00:00",
        "uuid": "a-0",
        "str": "two words",
        "...": "\n…",
    }
    line = re.sub(r"<([a-z.*]+)>", lambda wildcard: samples.get(wildcard[1], "/x"), text)
    for message in (line, f" {line}", f"{line}x x", "1,-x " * 20_000, "a" * 100_000, f"{line} " * 500):
        expected = compile_match(predicate)(Log(1, 0, 9, "s", message, None, {}))
        assert message != line or expected
        assert _judge_postgres(engines, compile_postgres(predicate), message) is expected
        assert _judge_duckdb(engines, compile_duckdb(predicate), message) is expected


def _judge_postgres(engines: Engines, sql: Sql, message: str) -> bool:
    text = f"SELECT {sql.text} FROM (SELECT %s::text AS message) AS one"
    row = engines.postgres.execute(text.encode(), (*sql.params, message)).fetchone()
    assert row is not None
    return bool(row[0])


def _judge_duckdb(engines: Engines, sql: Sql, message: str) -> bool:
    row = engines.duck.execute(
        f"SELECT {sql.text} FROM (SELECT ?::VARCHAR AS message) AS one", [*sql.params, message]
    ).fetchone()
    assert row is not None
    return bool(row[0])
