"""Records and batches partition the file; a resume, from wherever it begins, makes the same requests again."""

from __future__ import annotations

import io
import random
from datetime import UTC
from pathlib import Path

import orjson
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from cli.importing import batches as batches_module
from cli.importing import records as records_module
from cli.importing.batches import Batch, Region, Rules, cut, key_of, logs_of
from cli.importing.records import Record, read_records
from cli.importing.sources import Fingerprint
from cli.importing.state import OPEN_END, Extent, ImportState, Options, StateError, default_path, load, save
from cli.importing.timeline import TimeMode, Times
from formats.lines import Format, LineParser
from ingest.parse import Window, decode_batch, to_log
from schemas.record import MESSAGE_BYTES_MAX, TRUNCATED_KEY, Log

NOW_US = 1_795_000_000_000_000
PARSER = LineParser(Format.PLAIN, pattern=None, zone=UTC, now_us=NOW_US, correlation_pattern=None)
RULES = Rules("svc", {}, join=True)
TIMES = Times(TimeMode.KEEP, NOW_US, 0)

lines = st.one_of(
    st.sampled_from(
        [
            b"2026-11-01 10:00:00 INFO hello\n",
            b"2026-11-01 10:00:01 WARN long " + b"x" * 300 + b"\n",
            b"  indented\n",
            b"\n",
            b" \r\n",
            b"\r\n",
            b"Caused by: it\n",
            b"no time\r\n",
            b"\xff\xfe broken\n",
            b"\xef\xbb\xbf2026-11-01 10:00:02 bom\n",
        ]
    ),
    st.binary(max_size=40).map(lambda raw: raw.replace(b"\n", b"") + b"\n"),
)
files = st.tuples(st.lists(lines, max_size=60), st.sampled_from([b"", b"last line without end", b"  "])).map(
    lambda parts: b"".join(parts[0]) + parts[1]
)


def records_of(content: bytes, *, join: bool = True) -> list[Record]:
    return list(
        read_records(
            io.BytesIO(content),
            start=0,
            end=len(content),
            lines_before=0,
            continues=PARSER.continues if join else None,
        )
    )


@given(content=files, join=st.booleans())
def test_records_leave_no_byte_out_and_no_line_with_text(content: bytes, join: bool) -> None:
    records = records_of(content, join=join)
    ends = [0, *(record.end for record in records)]
    assert [record.start for record in records] == ends[:-1]
    assert ends[-1] == len(content)
    physical = [text for raw in content.split(b"\n") if (text := records_module.decode(raw)).strip()]
    assert [line for record in records if record.text for line in record.text.split("\n")] == physical
    if records:
        assert records[-1].last_line == content.count(b"\n") + (not content.endswith(b"\n"))
    if not join:
        assert len([record for record in records if record.text]) == len(physical)


def new_state(size: int, *, time: TimeMode = TimeMode.KEEP, shift_us: int = 0) -> ImportState:
    options = Options("svc", time, "UTC", "auto", True, None, {})
    return ImportState(
        file="f",
        url="http://x",
        fingerprint=Fingerprint("ab", 2, size),
        options=options,
        format="plain",
        pattern=None,
        salt="",
        extents=[Extent(size, NOW_US)],
        shift_us=shift_us,
    )


def cut_regions(content: bytes, state: ImportState) -> list[tuple[str, Batch]]:
    """What a run would send, as run.py does it."""
    made: list[tuple[str, Batch]] = []
    for region in state.regions():
        if made and made[-1][1].end == region.start:
            region = region._replace(lines_before=made[-1][1].lines_end, last_us=made[-1][1].last_us)
        stream = io.BytesIO(content)
        stream.seek(region.start)
        times = state.times(region.now_us)
        made += [
            (key_of(state.identity(region.now_us), batch), batch)
            for batch in cut(stream, region, parser=PARSER, times=times, rules=RULES)
        ]
    return made


@pytest.fixture(autouse=True)
def _small_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches_module, "LOGS_MAX", 7)
    monkeypatch.setattr(batches_module, "SOURCE_BYTES_MAX", 700)
    monkeypatch.setattr(batches_module, "BODY_BYTES_MAX", 1500)


@given(content=files)
def test_batches_partition_the_file_exactly(content: bytes) -> None:
    made = [batch for _, batch in cut_regions(content, new_state(len(content)))]
    ends = [0, *(batch.end for batch in made)]
    assert [batch.start for batch in made] == ends[:-1]
    assert ends[-1] == len(content)
    assert all(len(batch.lines) <= 7 and len(logs_of(batch)) == len(batch.lines) for batch in made)
    assert sum(len(batch.lines) for batch in made) == sum(bool(record.text) for record in records_of(content))
    numbers = [line for batch in made for line in batch.lines]
    assert numbers == sorted(set(numbers))


@given(content=files, data=st.data(), mode=st.sampled_from(TimeMode))
@settings(max_examples=200)
def test_resume_from_any_acknowledged_ranges_makes_the_same_requests(
    content: bytes, data: st.DataObject, mode: TimeMode
) -> None:
    state = new_state(len(content), time=mode, shift_us=77 if mode is TimeMode.SHIFT else 0)
    first = cut_regions(content, state)
    flags = data.draw(st.lists(st.booleans(), min_size=len(first), max_size=len(first)))
    done = [pair for pair, flag in zip(first, flags, strict=True) if flag]
    random.Random(1).shuffle(done)
    for _, batch in done:
        state.acknowledge(batch)
    assert state.done_bytes == sum(batch.end - batch.start for _, batch in done)
    rest = cut_regions(content, state)
    assert rest == [pair for pair, flag in zip(first, flags, strict=True) if not flag]
    for _, batch in rest:
        state.acknowledge(batch)
    assert state.is_finished
    assert len(state.acknowledged) <= 1


@given(before=files, after=files)
def test_growth_is_sent_after_what_was_there_and_leaves_its_keys(before: bytes, after: bytes) -> None:
    state = new_state(len(before))
    first = cut_regions(before, state)
    state.grow(len(before + after), NOW_US + 5)
    both = cut_regions(before + after, state)
    assert both[: len(first)] == first
    for _, batch in first:
        state.acknowledge(batch)
    assert cut_regions(before + after, state) == both[len(first) :]


@given(content=files, time=st.sampled_from([TimeMode.KEEP, TimeMode.NOW]))
def test_every_body_is_one_that_ingest_takes(content: bytes, time: TimeMode) -> None:
    window = Window.at(NOW_US // 1000, retention_days=36_500)
    for _, batch in cut_regions(content, new_state(len(content), time=time)):
        if batch.body:
            items = decode_batch(b"\n".join(logs_of(batch)), logs_max=10_000)
            taken = [to_log(item, 1, window, may_hold_nul=True) for item in items]
            assert len(taken) == len(batch.lines)
            assert all(isinstance(log, Log) for log in taken)


def test_keys_differ_by_everything_a_body_depends_on() -> None:
    batch = Batch(0, 10, b"", [], 0, 1, None)
    states = [
        new_state(10),
        new_state(11),
        new_state(10, time=TimeMode.NOW),
        new_state(10, time=TimeMode.SHIFT, shift_us=1),
    ]
    keys = {key_of(state.identity(NOW_US), batch) for state in states}
    keys |= {key_of(states[0].identity(NOW_US), batch._replace(end=9)), key_of(states[2].identity(NOW_US + 1), batch)}
    assert len(keys) == 6
    assert key_of(states[0].identity(1), batch) == key_of(states[0].identity(2), batch), "kept times need no moment"


def test_stack_trace_is_one_log_and_no_join_makes_it_many() -> None:
    content = (
        b"2026-11-01 10:00:00 ERROR boom\nTraceback (most recent call last):\n"
        b'  File "a.py", line 1, in f\n\nValueError: no\n2026-11-01 10:00:01 INFO next\n'
    )
    joined = records_of(content)
    assert [record.line for record in joined] == [1, 6]
    assert joined[0].text.splitlines()[-1] == "ValueError: no"
    assert len(records_of(content, join=False)) == 5


def test_joined_text_stays_under_the_bound_of_a_message() -> None:
    content = b"2026-11-01 10:00:00 ERROR boom\n" + b"  at something\n" * 30_000
    records = records_of(content)
    assert len(records) > 1
    assert all(len(record.text.encode()) <= MESSAGE_BYTES_MAX for record in records)
    assert records[-1].end == len(content)


def test_line_without_end_keeps_its_first_mebibyte_and_is_marked() -> None:
    content = b"2026-11-01 10:00:00 INFO " + b"x" * 5_000_000 + b"\n2026-11-01 10:00:01 INFO next\n"
    records = records_of(content)
    assert [record.cut for record in records] == [True, False]
    (_, first), (_, _) = cut_regions(content, new_state(len(content)))
    log = orjson.loads(logs_of(first)[0])
    assert len(log["message"].encode()) == MESSAGE_BYTES_MAX
    assert log["metadata"][TRUNCATED_KEY] is True


def test_line_without_time_has_the_time_before_it_also_across_ranges() -> None:
    content = b"first\n2026-11-01 10:00:00 INFO a\n" + b"no time\n" * 20
    stamps = [
        orjson.loads(log)["timestamp"]
        for _, batch in cut_regions(content, new_state(len(content)))
        for log in logs_of(batch)
    ]
    assert stamps == ["2026-11-18T11:06:40Z", *["2026-11-01T10:00:00Z"] * 21]


def test_now_keeps_the_order_of_lines() -> None:
    content = b"a\nb\nc\n"
    made = cut_regions(content, new_state(len(content), time=TimeMode.NOW))
    stamps = [orjson.loads(log)["timestamp"] for _, batch in made for log in logs_of(batch)]
    assert stamps == [f"2026-11-18T11:06:40.00000{n}Z" for n in (1, 2, 3)]


def test_log_on_the_wire_has_the_record_s_fields_and_no_others() -> None:
    content = b"2026-11-01 10:00:00,5 WARN [main] a.B: slow trace_id=abcd1234\n"
    rules = Rules("svc", {"host": "h", "thread": "theirs"}, join=True)
    region = Region(0, len(content), 0, None, NOW_US)
    (batch,) = cut(io.BytesIO(content), region, parser=PARSER, times=TIMES, rules=rules)
    assert orjson.loads(logs_of(batch)[0]) == {
        "timestamp": "2026-11-01T10:00:00.500000Z",
        "level": 13,
        "service_name": "svc",
        "message": "slow trace_id=abcd1234",
        "correlation_id": "abcd1234",
        "metadata": {"host": "h", "thread": "main", "logger": "a.B"},
    }


def test_stream_s_end_is_known_after_reading_it() -> None:
    state = new_state(OPEN_END)
    content = b"a\nb\n"
    made = cut_regions(content, state)
    for _, batch in made:
        state.acknowledge(batch)
    assert not state.is_finished
    state.end_stream(len(content))
    assert state.is_finished


def test_state_survives_writing_and_reading(tmp_path: Path) -> None:
    state = new_state(100)
    state.acknowledge(Batch(0, 40, b"", [1, 2], 0, 2, 5))
    path = tmp_path / "deep" / "s.json"
    assert load(path) is None
    save(path, state)
    assert load(path) == state
    assert [each.name for each in path.parent.iterdir()] == ["s.json"]


def test_state_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    path = tmp_path / "s.json"
    path.write_text("{}")
    with pytest.raises(StateError, match=r"s\.json: is no state of an import"):
        load(path)


def test_each_file_server_and_service_has_a_state_of_its_own(tmp_path: Path) -> None:
    environment = {"XDG_STATE_HOME": str(tmp_path)}
    places = {
        default_path(Path(name), url, service, environment)
        for name in ("a.log", "b.log")
        for url in ("http://x", "http://y")
        for service in (None, "s")
    }
    assert len(places) == 8
    assert all(place.is_relative_to(tmp_path / "logfeed" / "import") for place in places)
