"""What most lines take is the same as what every line could take: shortcuts against the ways that they shorten."""

from __future__ import annotations

import json
from datetime import UTC

import pytest
from hypothesis import given
from hypothesis import strategies as st

from agent.shipping import joining
from agent.shipping.encoding import LogEncoder, write_logs
from agent.shipping.joining import JoinRules, Split, split
from formats.entry import Entry
from formats.lines import BEGINS, Format, LineParser

NOW_US = 1_795_000_000_000_000


def parser() -> LineParser:
    return LineParser(Format.PLAIN, pattern="time-level", zone=UTC, now_us=NOW_US, correlation_pattern=None)


LINES = st.lists(
    st.one_of(
        st.sampled_from(
            ["", " ", "\r", "2026 a", "[x] b", "  File x", "Caused by: y", "\u00a0", "\u00a0x", "é", "1\r", "{}"]
        ),
        st.text(st.characters(codec="utf-8", exclude_characters="\n"), max_size=5),
    ),
    max_size=12,
)


def slowly(piece: bytes, rules: JoinRules, **options: bool | int) -> Split:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(joining, "_each_line_a_log", lambda *_, **__: None)
        return split(piece, rules, **options)  # type: ignore[arg-type]  # of these names


@given(
    lines=LINES,
    end=st.sampled_from([b"", b"\n", b"\xff\n"]),
    joins=st.booleans(),
    is_final=st.booleans(),
    takes_unfinished=st.booleans(),
    logs_max=st.integers(1, 8),
)
def test_pieces_are_cut_as_line_by_line(
    lines: list[str], end: bytes, joins: bool, is_final: bool, takes_unfinished: bool, logs_max: int
) -> None:
    rules = JoinRules(parser().continues, BEGINS) if joins else JoinRules()
    piece = "\n".join(lines).encode() + end
    given_options = {"is_final": is_final, "takes_unfinished": takes_unfinished, "logs_max": logs_max}
    assert split(piece, rules, **given_options) == slowly(piece, rules, **given_options)  # type: ignore[arg-type]


NAMES = ["trace_id=", "request_id: ", "traceid ", "xtrace_id=", "correlation-id = ", 'trace_id="', "Request-ID:"]
VALUES = ["abc1", "null", "none", "nullable", "ab", "", "req-0", "a" * 130, "4f-a:b.c", "é123", '"abcd"', "NONE"]
PARTS = st.one_of(
    st.sampled_from([*NAMES, *VALUES, " ", "id=", "req-12345678-1234-1234-1234-123456789abc", "İd", "_", "ID:", "x"]),
    st.builds(lambda name, value: f" {name}{value} ", st.sampled_from(NAMES), st.sampled_from(VALUES)),
)


@given(st.lists(st.lists(PARTS, max_size=6).map("".join), min_size=1, max_size=8))
def test_the_id_behind_the_last_ones_name_is_the_one_that_a_search_finds(lines: list[str]) -> None:
    learning = parser()
    for line in lines:
        assert learning.parse(line).correlation_id == parser().parse(line).correlation_id


def test_what_is_no_json_for_the_server_is_replaced_and_costs_no_other_log() -> None:
    encoder = LogEncoder(service="shop", metadata={"host": "web-1"})
    entries = [
        Entry("whole", 1, 9, "c-1", None, {"n": 1}),
        Entry("half \ud800", 2, 9, "c-\ud800", "of its own", {"k": "half \ud800"}),
        Entry("last", 3, None, None, "mail/out", {}),
    ]
    logs = [encoder.log(entry, entry.time_us or 0, text="", is_cut=False) for entry in entries]
    found = [json.loads(line) for line in write_logs(logs).splitlines()]
    assert [log["message"] for log in found] == ["whole", "half ?", "last"]
    assert [log["service_name"] for log in found] == ["shop", "shop", "mail/out"]
    assert found[0] == {
        "timestamp": 1,
        "level": 9,
        "service_name": "shop",
        "correlation_id": "c-1",
        "message": "whole",
        "metadata": {"host": "web-1", "n": 1},
    }
    assert "correlation_id" not in found[2]
    assert found[2]["metadata"] == {"host": "web-1"}
