"""What an agent answers is passed on whole, ends as it says, and counts for nothing where it is not an agent's."""

from __future__ import annotations

import json

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from query.hosts.records import (
    RECORD_BYTES_MAX,
    SCOPE_CHARS_MAX,
    AnswerFaulty,
    End,
    EndStatus,
    Form,
    Records,
    read_files,
    scope_json,
)
from schemas.hosts import FILES_MAX
from schemas.scope import ALL_SERVICES, AUDIT_SERVICE, ServiceScope

END = b'{"end":{"status":"complete","lines":2,"scanned_bytes":9,"error":null}}\n'


def answer(*lines: str) -> bytes:
    return b"".join(json.dumps({"line": line, "offset": n}).encode() + b"\n" for n, line in enumerate(lines))


@given(
    st.lists(st.text(st.characters(exclude_categories=["Cs"]), max_size=20), max_size=8),
    st.lists(st.integers(1, 40), min_size=1),
)
def test_records_come_out_whole_whatever_the_pieces(lines: list[str], sizes: list[int]) -> None:
    content, records, found = answer(*lines) + END, Records(Form.NDJSON), b""
    place = 0
    while place < len(content):
        size = sizes[place % len(sizes)]
        found += records.feed(content[place : place + size])
        assert not found or found.endswith(b"\n")
        place += size
    assert found == answer(*lines)
    assert records.lines == len(lines)
    assert records.end == End(EndStatus.COMPLETE, 2, 9, None)


def test_what_comes_after_the_end_counts_for_nothing() -> None:
    records = Records(Form.NDJSON)
    assert records.feed(answer("a") + END + answer("b") + b"nonsense\n") == answer("a")
    assert records.feed(answer("c")) == b""
    assert records.lines == 1


def test_an_answer_without_an_end_has_none() -> None:
    records = Records(Form.NDJSON)
    assert records.feed(answer("a", "b")[:-5]) == answer("a")
    assert records.end is None


def test_lines_as_text_end_with_one_that_says_how() -> None:
    records = Records(Form.TEXT)
    assert records.feed(answer('say "ä"', "b") + END) == 'say "ä"\nb\n'.encode()
    assert records.end is not None
    assert records.end.written(Form.TEXT) == b"#logfeed end status=complete lines=2\n"
    assert Records(Form.TEXT).feed(answer("#logfeed end status=complete lines=2")).startswith(b" #logfeed end ")
    cut = End(EndStatus.ERROR, 1, None, 'it was "cut"\n')
    assert cut.written(Form.TEXT) == b'#logfeed end status=error lines=1 error="it was \\"cut\\"\\n"\n'
    assert json.loads(cut.written(Form.NDJSON)) == {
        "end": {"status": "error", "lines": 1, "scanned_bytes": None, "error": 'it was "cut"\n'}
    }


@pytest.mark.parametrize(
    "record",
    [
        *(b"<html>", b"[]", b"{}", b"null", b'{"line":1,"offset":2}', b'{"line":"a"}', b'{"offset":1}', b"\xff\xfe"),
        *(b'{"end":{}}', b'{"end":{"status":"fine","lines":1}}', b'{"end":null}', b"[" * 100_000, b'{"line":"\xff"}'),
    ],
)
def test_what_is_no_record_is_refused(record: bytes) -> None:
    with pytest.raises(AnswerFaulty):
        Records(Form.NDJSON).feed(record + b"\n")


def test_a_record_without_end_is_refused_before_it_fills_the_memory() -> None:
    records = Records(Form.NDJSON)
    for _ in range(RECORD_BYTES_MAX // 65_536):
        assert records.feed(b"x" * 65_536) == b""
    with pytest.raises(AnswerFaulty, match="longer than"):
        records.feed(b"x")


def test_what_the_agent_says_of_its_end_commands_no_terminal() -> None:
    records = Records(Form.NDJSON)
    records.feed(
        json.dumps({"end": {"status": "error", "lines": 0, "error": "\x1b[31m" + "x" * 1000}}).encode() + b"\n"
    )
    assert records.end is not None
    assert records.end.error is not None
    assert records.end.error.startswith("\\x1b[31m")
    assert len(records.end.error) == 300


FILE = {"name": "a/b", "service_name": "shop", "bytes": 1, "modified_at": "2026-01-01T00:00:00Z"}


def test_files_of_services_that_may_not_be_read_are_left_out_whatever_the_agent_says() -> None:
    body = json.dumps(
        {
            "files": [FILE, {**FILE, "service_name": "secret"}, {**FILE, "service_name": AUDIT_SERVICE}],
            "next_cursor": "x",
            "errors": ["no access to /root\x1b[31m", {"name": "b"}],
            "more": 1,
        }
    ).encode()
    found = read_files(body, ServiceScope(names=frozenset({"shop"})))
    assert msgspec.to_builtins(found) == {
        "files": [{**FILE, "compressed": None, "rotated": False}],
        "next_cursor": "x",
        "errors": ["no access to /root\\x1b[31m", '{"name":"b"}'],
    }
    everything = read_files(body, ServiceScope(everything=True, excluded=frozenset({AUDIT_SERVICE})))
    assert [file.service_name for file in everything.files] == ["shop", "secret"]


@pytest.mark.parametrize("body", [b"", b"[]", b'{"files":[{}]}', b'{"files":[{"name":1}]}', b"\xff", b"[" * 100_000])
def test_what_is_no_list_of_files_is_refused(body: bytes) -> None:
    with pytest.raises(AnswerFaulty):
        read_files(body, ALL_SERVICES)


def test_a_list_of_files_has_an_end() -> None:
    with pytest.raises(AnswerFaulty, match="more than"):
        read_files(json.dumps({"files": [FILE] * (FILES_MAX + 1)}).encode(), ALL_SERVICES)


def test_the_scope_is_what_may_be_read_and_never_more_than_an_address_takes() -> None:
    assert json.loads(scope_json(ALL_SERVICES, ["a"])) == {"all": True}
    most = ServiceScope(everything=True, excluded=frozenset({AUDIT_SERVICE}))
    assert json.loads(scope_json(most, [])) == {"all": True, "excluded": [AUDIT_SERVICE]}
    some = ServiceScope(names=frozenset({"b", "a"}), prefixes=frozenset({"pay/"}))
    assert json.loads(scope_json(some, ["x"])) == {"names": ["a", "b"], "prefixes": ["pay/"]}
    many = ServiceScope(names=frozenset(f"service-number-{n}" for n in range(1_000)), prefixes=frozenset({"pay/"}))
    there = ["pay/a", "other", "service-number-7"]
    assert json.loads(scope_json(many, there)) == {"names": ["pay/a", "service-number-7"], "prefixes": []}
    assert len(scope_json(many, sorted(many.names))) <= SCOPE_CHARS_MAX
