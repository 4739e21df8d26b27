"""What one transaction changes, decided without a database."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import pytest
import zstandard
from hypothesis import given
from hypothesis import strategies as st

from broker.port import Delivered
from schemas.frames import ServiceCounts, UnknownRecordVersion, encode_lines
from schemas.lines import LINES_MAX
from store.port import Border, Outcome, StorePlan
from tests.unit.writer.builders import NOON_MS, delivered, frame, header, log
from writer.bisect import refused_rows
from writer.dead_window import DeadWindow
from writer.decode import DecodedFrame, decode_frame, without_rows
from writer.plan import TooManyDeadLetters, check_dead_lines, judged_lines, plan_batch

OPEN_BORDER = Border(closed_before_us=0, late_generation=1)


def plan(
    frames: list[DecodedFrame], known: dict[bytes, bytes] | None = None, border: Border = OPEN_BORDER
) -> StorePlan:
    """Plan with epoch 7 everywhere."""
    return plan_batch(frames, epochs={one.partition: 7 for one in frames}, known=known or {}, border=border)


def window(*, dead_min: int) -> DeadWindow:
    """An empty window that accepts so many dead lines, or a tenth."""
    return DeadWindow(seconds=600, lines_max=10_000, dead_min=dead_min, ratio_max=0.1)


def sums(result: StorePlan) -> Counter[Outcome]:
    """Logs by outcome."""
    counted: Counter[Outcome] = Counter()
    for row in result.ledger:
        counted[row.outcome] += row.count
    return counted


def assert_balanced(result: StorePlan) -> None:
    """INV-1 per minute and service."""
    balance: Counter[tuple[int, str]] = Counter()
    for row in result.ledger:
        balance[row.minute_us, row.service_name] += row.count if row.outcome is Outcome.RECEIVED else -row.count
    assert set(balance.values()) <= {0}


def test_rows_of_a_frame_are_stored_and_booked_by_service_and_level() -> None:
    result = plan([decode_frame(frame([log(1), log(2, level=17), log(3, service="mail")]))])
    assert [row.id for row in result.hot] == [1, 2, 3]
    stored = {(row.service_name, row.level): row.count for row in result.ledger if row.outcome is Outcome.STORED}
    assert stored == {("shop", 9): 1, ("shop", 17): 1, ("mail", 9): 1}
    assert_balanced(result)


def test_rows_before_the_border_are_late() -> None:
    border = Border(closed_before_us=NOON_MS * 1000, late_generation=3)
    result = plan([decode_frame(frame([log(1, timestamp_us=NOON_MS * 1000 - 1), log(2)]))], border=border)
    assert [row.id for row in result.late] == [1]
    assert [row.id for row in result.hot] == [2]


def test_copy_of_a_key_in_the_same_batch_is_a_duplicate() -> None:
    frames = [decode_frame(frame([log(1)], offset=offset, key="k", body="b")) for offset in range(3)]
    result = plan(frames)
    assert [row.id for row in result.hot] == [1]
    assert sums(result)[Outcome.DUPLICATE] == 2
    assert len(result.keys) == 1
    assert result.moves[0].next_offset == 3
    assert_balanced(result)


def test_copy_of_a_stored_key_is_a_duplicate_whatever_its_counts() -> None:
    decoded = decode_frame(frame([log(1)], key="k", body="b"))
    assert decoded.key_hash is not None
    assert decoded.body_sha256 is not None
    result = plan([decoded], known={decoded.key_hash: decoded.body_sha256})
    assert not result.hot
    assert not result.keys
    assert sums(result) == {Outcome.RECEIVED: 1, Outcome.DUPLICATE: 1}


def test_reused_key_with_another_body_goes_to_dead_letters() -> None:
    frames = [
        decode_frame(frame([log(1)], offset=0, key="k", body="one")),
        decode_frame(frame([log(2), log(3)], offset=1, key="k", body="two")),
    ]
    result = plan(frames)
    assert [row.id for row in result.hot] == [1]
    assert [(letter.reason, letter.log_id) for letter in result.dead] == [("key_reused", 2), ("key_reused", 3)]
    assert_balanced(result)


def test_filtered_and_rejected_counts_are_booked() -> None:
    head = header([log(1)])
    head.counts["shop"].received += 5
    head.counts["shop"].filtered["debug"] = 3
    head.counts["shop"].rejected["timestamp"] = 2
    head.counts[""] = ServiceCounts(received=4, rejected={"json": 4})
    result = plan([decode_frame(delivered(head, encode_lines([log(1)])))])
    assert sums(result) == {Outcome.RECEIVED: 10, Outcome.STORED: 1, Outcome.FILTERED: 3, Outcome.REJECTED: 6}
    assert_balanced(result)


def test_counts_only_frame_moves_the_offset() -> None:
    head = header([])
    head.counts["shop"] = ServiceCounts(received=2, filtered={"debug": 2})
    result = plan([decode_frame(delivered(head, b""))])
    assert not result.hot
    assert result.moves[0].next_offset == 1
    assert_balanced(result)


def test_one_bad_line_becomes_a_dead_letter_and_the_rest_is_stored() -> None:
    good = [log(1), log(2)]
    lines = zstandard.decompress(encode_lines(good)).splitlines()
    head = header([*good, log(3)])
    value = zstandard.compress(b"\n".join([lines[0], b'["not", "a log"]', lines[1]]))
    result = plan([decode_frame(delivered(head, value))])
    assert [row.id for row in result.hot] == [1, 2]
    assert [(letter.reason, letter.line_index, letter.service_name) for letter in result.dead] == [
        ("undecodable", 1, "shop")
    ]
    assert_balanced(result)


def letters(result: StorePlan) -> list[tuple[str, int, str, int | None]]:
    """(reason, line, service, log id) of the dead letters."""
    return [(one.reason, one.line_index, one.service_name, one.log_id) for one in result.dead]


def ledger(result: StorePlan) -> dict[tuple[str, str, str], int]:
    """(service, outcome, reason) -> logs."""
    return {(row.service_name, row.outcome.value, row.reason): row.count for row in result.ledger}


def test_record_that_is_no_frame_is_one_dead_letter() -> None:
    result = plan([decode_frame(delivered(header([log(1), log(2, service="mail")]), b"no zstd at all"))])
    assert letters(result) == [("no_frame", 0, "", None)]
    assert result.dead[0].line == b"no zstd at all"
    assert ledger(result) == {
        ("shop", "received", ""): 1,
        ("mail", "received", ""): 1,
        ("shop", "dead", "no_frame"): 1,
        ("mail", "dead", "no_frame"): 1,
    }
    assert_balanced(result)


def test_frame_of_too_many_lines_is_not_taken_apart() -> None:
    result = plan([decode_frame(delivered(header([log(1)]), zstandard.compress(b"\n" * (LINES_MAX + 1))))])
    assert letters(result) == [("no_frame", 0, "", None)]
    assert_balanced(result)


def test_lines_beyond_what_the_headers_count_are_put_aside_one_by_one_and_received() -> None:
    value = encode_lines([log(1), log(2), log(3, service="mail")])
    result = plan([decode_frame(delivered(header([log(1)]), value))])
    assert letters(result) == [
        ("mismatch", 0, "shop", 1),
        ("mismatch", 1, "shop", 2),
        ("mismatch", 2, "mail", 3),
    ]
    assert result.dead[2].line == zstandard.decompress(value).splitlines()[2]
    assert "headers count 1 kept logs, 3 are there" in result.dead[0].detail
    assert ledger(result) == {
        ("shop", "received", ""): 2,
        ("shop", "dead", "mismatch"): 2,
        ("mail", "received", ""): 1,
        ("mail", "dead", "mismatch"): 1,
    }
    assert_balanced(result)


def test_logs_that_the_headers_count_and_the_frame_lacks_are_dead_without_a_line() -> None:
    head = header([log(1), log(2), log(3), log(4, service="mail")])
    result = plan([decode_frame(delivered(head, encode_lines([log(1)])))])
    assert letters(result) == [("mismatch", 0, "shop", 1), ("missing", 1, "mail", None), ("missing", 1, "shop", None)]
    assert [one.line for one in result.dead[1:]] == [b"", b""]
    assert sums(result) == {Outcome.RECEIVED: 4, Outcome.DEAD: 4}
    assert_balanced(result)


def test_lines_of_other_services_than_the_headers_count_are_put_aside_under_their_own() -> None:
    result = plan([decode_frame(delivered(header([log(1), log(2)]), encode_lines([log(1), log(2, service="mail")])))])
    assert letters(result) == [("mismatch", 0, "shop", 1), ("mismatch", 1, "mail", 2), ("missing", 2, "shop", None)]
    assert_balanced(result)


def test_unreadable_lines_of_a_contradictory_frame_take_the_places_that_are_open() -> None:
    value = zstandard.compress(b"\n".join([b"[1", b"{}", zstandard.decompress(encode_lines([log(7)])).strip()]))
    result = plan([decode_frame(delivered(header([log(1), log(2)]), value))])
    assert letters(result) == [
        ("mismatch", 2, "shop", 7),
        ("undecodable", 0, "shop", None),
        ("undecodable", 1, "", None),
    ]
    assert_balanced(result)


def test_frame_received_at_an_impossible_time_is_booked_when_it_was_appended() -> None:
    head = header([log(1), log(2)], received_ms=NOON_MS - 3 * 24 * 3_600_000)
    result = plan([decode_frame(delivered(head, encode_lines([log(1), log(2)])))])
    assert letters(result) == [("mismatch", 0, "shop", 1), ("mismatch", 1, "shop", 2)]
    assert "more than a day apart" in result.dead[0].detail
    assert {row.minute_us for row in result.ledger} == {NOON_MS * 1000}
    assert_balanced(result)


@given(
    st.dictionaries(st.sampled_from(["shop", "mail", ""]), st.integers(0, 5)),
    st.lists(st.sampled_from([b"shop", b"mail", b"other", b"bad"]), max_size=8),
    st.booleans(),
)
def test_every_line_of_a_frame_is_booked_whatever_its_headers_say(
    kept: dict[str, int], lines: list[bytes], is_late: bool
) -> None:
    """INV-1; and each line is stored or in a letter of its own."""
    head = header([], received_ms=NOON_MS - is_late * 2 * 24 * 3_600_000)
    for service, number in kept.items():
        head.counts[service] = ServiceCounts(received=number + 1, filtered={"debug": 1})
    raw = [
        b"[" if text == b"bad" else b'[%d,%d,9,"%s","m",null,{}]' % (n + 1, NOON_MS * 1000, text)
        for n, text in enumerate(lines)
    ]
    result = plan([decode_frame(delivered(head, zstandard.compress(b"\n".join(raw))))])
    assert_balanced(result)
    assert len(result.hot) + sum(one.reason != "missing" for one in result.dead) == len(lines)
    dead = sum(row.count for row in result.ledger if row.outcome is Outcome.DEAD)
    assert dead + len(result.hot) >= max(len(lines), sum(kept.values()))
    assert {one.line for one in result.dead if one.reason != "missing"} <= set(raw)


def test_record_without_headers_is_one_dead_letter() -> None:
    result = plan(
        [decode_frame(Delivered(partition=0, offset=5, append_ms=NOON_MS, headers=[("v", b"1")], value=b"x"))]
    )
    assert letters(result) == [("no_frame", 0, "", None)]
    assert_balanced(result)


def test_unknown_version_is_not_judged() -> None:
    head = header([log(1)])
    record = delivered(head, b"")
    newer = [(name, b"2" if name == "v" else value) for name, value in record.headers]
    with pytest.raises(UnknownRecordVersion):
        decode_frame(replace(record, headers=newer))


def test_timestamp_that_no_chunk_will_take_is_a_dead_letter() -> None:
    far = (NOON_MS + 12 * 3_600_000) * 1000
    result = plan([decode_frame(frame([log(1, timestamp_us=far), log(2, timestamp_us=-1), log(3)]))])
    assert [row.id for row in result.hot] == [3]
    assert [letter.reason for letter in result.dead] == ["timestamp", "timestamp"]
    assert_balanced(result)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("received_ms", b"100000000000000000"),
        ("received_ms", b"soon"),
        ("counts", b'{"shop":{"received":1000000000000000000000000000000}}'),
        ("counts", b'{"shop":{"received":-1}}'),
        ("counts", b'{"shop":{"received":1,"filtered":{"a":-1,"b":1}}}'),
        ("counts", b'{"shop":{"received":1,"filtered":{"a":2}}}'),
        ("counts", b"[]"),
        ("frame", b"short"),
    ],
)
def test_header_that_cannot_be_true_is_one_dead_letter_that_the_store_can_book(name: str, value: bytes) -> None:
    record = frame([log(1)])
    headers = [(header_name, value if header_name == name else old) for header_name, old in record.headers]
    result = plan([decode_frame(replace(record, headers=headers))])
    assert not result.hot
    assert len(result.dead) == 1
    assert all(0 < row.count < 2**31 and abs(row.minute_us - NOON_MS * 1000) < 60_000_000 for row in result.ledger)
    assert_balanced(result)


def test_logs_of_unreadable_frames_count_against_the_limit() -> None:
    head = header([log(number) for number in range(1, 201)])
    result = plan([decode_frame(delivered(head, b"no zstd at all"))])
    assert len(result.dead) == 1
    with pytest.raises(TooManyDeadLetters, match="200 of 200 lines"):
        check_dead_lines(result, window(dead_min=100), 0.0)


async def test_bisect_gives_up_when_too_many_rows_are_refused() -> None:
    decoded = decode_frame(frame([log(number) for number in range(1, 101)]))
    questions = 0

    async def refusal(rows: object) -> str | None:
        nonlocal questions
        questions += 1
        return "no"

    with pytest.raises(TooManyDeadLetters):
        await refused_rows([decoded], refusal, give_up_after=10)
    assert questions < 40


def test_all_poison_is_refused_as_a_whole() -> None:
    head = header([log(number) for number in range(1, 201)])
    poison = decode_frame(delivered(head, zstandard.compress(b"\n".join([b"[]"] * 200))))
    result = plan([poison])
    with pytest.raises(TooManyDeadLetters, match="200 of 200 lines"):
        check_dead_lines(result, window(dead_min=100), 0.0)
    check_dead_lines(result, window(dead_min=200), 0.0)


def test_reused_keys_do_not_count_against_the_limit() -> None:
    frames = [
        decode_frame(frame([log(1)], offset=0, key="k", body="one")),
        decode_frame(frame([log(number) for number in range(2, 302)], offset=1, key="k", body="two")),
    ]
    result = plan(frames)
    assert judged_lines(result) == (1, 0)
    check_dead_lines(result, window(dead_min=0), 0.0)


def test_refusal_names_the_record_and_counts_what_was_put_aside_before() -> None:
    before = window(dead_min=100)
    before.note(90, 90, 0.0)
    result = plan([decode_frame(delivered(header([log(number) for number in range(1, 21)]), b"no zstd", offset=7))])
    with pytest.raises(TooManyDeadLetters, match=r"110 of 110 lines .* 90 of them put aside before .*offset 7"):
        check_dead_lines(result, before, 0.0)


async def test_bisect_finds_exactly_the_refused_rows() -> None:
    decoded = decode_frame(frame([log(number) for number in range(1, 101)]))
    poison = {7, 50, 51, 100}
    questions = 0

    async def refusal(rows: object) -> str | None:
        nonlocal questions
        questions += 1
        assert isinstance(rows, list)
        return "no" if any(row.id in poison for row in rows) else None

    (mended,) = await refused_rows([decoded], refusal, give_up_after=4)
    assert {letter.log_id for letter in mended.dead} == poison
    assert {row.id for row in mended.rows} == set(range(1, 101)) - poison
    assert questions < 60
    assert_balanced(plan([mended]))


@given(
    st.lists(
        st.tuples(
            st.integers(0, 2),  # partition
            st.sampled_from([None, "a", "b", "c"]),  # key
            st.sampled_from(["x", "y"]),  # body
            st.integers(0, 4),  # logs
            st.sets(st.integers(0, 3)),  # refused rows
        ),
        max_size=20,
    ),
    st.integers(-2, 2),
)
def test_every_received_log_is_booked_once(
    requests: list[tuple[int, str | None, str, int, set[int]]], border_offset: int
) -> None:
    offsets: Counter[int] = Counter()
    frames = []
    number = 0
    for partition, key, body, count, refused in requests:
        logs = []
        for _ in range(count):
            number += 1
            logs.append(log(number, service=f"s{number % 3}", timestamp_us=NOON_MS * 1000 + number % 5 - 2))
        decoded = decode_frame(frame(logs, partition=partition, offset=offsets[partition], key=key, body=body))
        offsets[partition] += 1
        frames.append(without_rows(decoded, {index: "no" for index in refused if index < count}))
    result = plan(frames, border=Border(NOON_MS * 1000 + border_offset, 1))
    assert_balanced(result)
    counted = sums(result)
    assert counted[Outcome.RECEIVED] == number
    assert counted[Outcome.STORED] == len(result.hot) + len(result.late)
    assert counted[Outcome.DEAD] == len(result.dead)
    assert {move.partition: move.next_offset for move in result.moves} == {p: n for p, n in offsets.items() if n}
    assert len({row.id for row in result.hot} | {row.id for row in result.late}) == counted[Outcome.STORED]
