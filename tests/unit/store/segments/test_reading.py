"""Reader processes die, hang, are busy and are cancelled, and the caller always gets an answer."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from types import SimpleNamespace

import msgspec
import psutil
import pytest

import store.segments.process
import store.segments.reading
from runtime.telemetry import REGISTRY
from search.predicate import ServiceIn
from search.sql import Sql
from search.sql_duckdb import compile_duckdb
from store.segments.format import SegmentDamaged, SegmentMissing, SegmentReaderUnavailable
from store.segments.process import ReaderProcess
from store.segments.reading import SegmentReader, SegmentScanFailed
from store.segments.scans import Found, Open, SegmentFile, SegmentScan, framed
from store.segments.settings import SegmentSettings
from tests.segment_rows import log_at, settings, write

EVER = ((-(2**61), 0), (2**61, 0))
LOGS = [log_at(at, at, service_name=("pay", "auth")[at % 2], correlation_id=str(at)) for at in range(100)]
EVERY = Sql("TRUE")
ENDLESS = Sql("id < (SELECT sum(a.range * b.range) FROM range(10000000) AS a, range(10000000) AS b)")
"""A condition that nobody waits for."""
DEADLINE_S = 60.0


@pytest.fixture
def file(tmp_path: Path) -> SegmentFile:
    (segment,) = write(tmp_path, LOGS, using=settings(row_group_rows=10))
    return SegmentFile(str(segment.path), segment.name, segment.info.row_groups)


@pytest.fixture
async def reader(tmp_path: Path) -> AsyncIterator[SegmentReader]:
    opened = reader_of(tmp_path)
    yield opened
    await opened.close()


def reader_of(directory: Path, *, hang_s: float = 30.0, **values: int) -> SegmentReader:
    return SegmentReader(
        [directory],
        SegmentSettings(**{"readers": 1, "reader_threads": 1, "reader_memory_mib": 128, **values}),
        hang_s=hang_s,
    )


def scan_of(file: SegmentFile, where: Sql = EVERY, *, budget_ms: int = 60_000, wanted: int = 10) -> SegmentScan:
    return SegmentScan((file,), where, *EVER, True, wanted, 10_000, budget_ms)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_S):
        while not condition():  # noqa: ASYNC110  # of another process
            await asyncio.sleep(0.01)


async def answered(reader: SegmentReader, scan: SegmentScan) -> list[int]:
    """Ids of the scan's rows, tried again while readers are unavailable, as a client does."""
    async with asyncio.timeout(DEADLINE_S):
        while True:
            try:
                return [log.id for log in (await reader.scan(scan)).logs]
            except SegmentReaderUnavailable:
                await asyncio.sleep(0.01)


def pid_of(reader: SegmentReader) -> int:
    pid = reader._processes[0].pid
    assert pid is not None
    return pid


async def test_rows_come_through_the_process_as_they_are(reader: SegmentReader, file: SegmentFile) -> None:
    where = compile_duckdb(ServiceIn(frozenset({"pay"})))
    result = await reader.scan(scan_of(file, where, wanted=7))
    assert result.logs == [log for log in LOGS[::-1] if log.service_name == "pay"][:7]
    assert result.looked_to == (result.logs[-1].timestamp, result.logs[-1].id)
    everything = await reader.scan(scan_of(file, wanted=1_000))
    assert (everything.logs, everything.looked_to) == (LOGS[::-1], None)


async def test_readers_can_be_started_ahead(tmp_path: Path, file: SegmentFile) -> None:
    reader = reader_of(tmp_path, readers=2)
    await reader.start()
    pids = {process.pid for process in reader._processes}
    await asyncio.gather(*(reader.scan(scan_of(file)) for _ in range(4)))
    assert {process.pid for process in reader._processes} == pids
    assert None not in pids
    await reader.close()


async def test_a_reader_that_was_killed_is_started_again(reader: SegmentReader, file: SegmentFile) -> None:
    await reader.scan(scan_of(file))
    first = pid_of(reader)
    os.kill(first, signal.SIGKILL)
    assert await answered(reader, scan_of(file)) == [log.id for log in LOGS[:-11:-1]]
    assert pid_of(reader) != first


async def test_readers_that_cannot_be_killed_are_counted_and_no_more_are_started(
    tmp_path: Path, file: SegmentFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As those are that wait for a disk which hangs: here they stand still, and what should kill them does nothing."""
    reader = reader_of(tmp_path, readers=2, hang_s=0.0)
    await reader.start()
    processes = [process for process in psutil.Process().children() if "store.segments.reader" in process.cmdline()]
    stuck = REGISTRY.get_sample_value("logfeed_segment_readers_stuck") or 0.0
    monkeypatch.setattr(store.segments.process, "_KILL_S", 0.01)
    monkeypatch.setattr(ReaderProcess, "end", lambda self: None)
    for process in processes:
        process.suspend()
    for _ in processes:
        with pytest.raises(SegmentReaderUnavailable, match="did not answer"):
            await reader.scan(scan_of(file, budget_ms=100))
    await until(lambda: all(process.is_stuck for process in reader._processes))
    assert REGISTRY.get_sample_value("logfeed_segment_readers_stuck") == stuck + 2
    for _ in range(5):
        with pytest.raises(SegmentReaderUnavailable, match="hangs and cannot be ended"):
            await reader.scan(scan_of(file))
    alive = [process for process in psutil.Process().children() if "store.segments.reader" in process.cmdline()]
    assert {*alive} == {*processes}

    monkeypatch.undo()
    for process in processes:
        process.kill()
    assert await answered(reader, scan_of(file)) == [log.id for log in LOGS[:-11:-1]]
    assert REGISTRY.get_sample_value("logfeed_segment_readers_stuck") == stuck
    await reader.close()


async def test_the_service_stops_although_a_reader_cannot_be_killed(
    tmp_path: Path, file: SegmentFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store.segments.reading, "_CLOSE_S", 0.1)
    reader = reader_of(tmp_path)
    await reader.scan(scan_of(file))
    process = psutil.Process(pid_of(reader))
    with monkeypatch.context() as patched:
        patched.setattr(ReaderProcess, "end", lambda self: None)
        process.suspend()
        async with asyncio.timeout(DEADLINE_S):
            await reader.close()
    process.kill()
    await reader._processes[0].kill()


async def test_a_reader_killed_during_a_scan_gives_a_retriable_error(reader: SegmentReader, file: SegmentFile) -> None:
    await reader.scan(scan_of(file))
    under_way = asyncio.create_task(reader.scan(scan_of(file, ENDLESS)))
    await until(lambda: psutil.Process(pid_of(reader)).cpu_percent(0.1) > 0)
    os.kill(pid_of(reader), signal.SIGKILL)
    with pytest.raises(SegmentReaderUnavailable) as caught:
        await under_way
    assert caught.value.retriable
    assert len(await answered(reader, scan_of(file))) == 10


async def test_a_reader_that_hangs_is_killed_and_started_again(tmp_path: Path, file: SegmentFile) -> None:
    reader = reader_of(tmp_path, hang_s=0.2)
    await answered(reader, scan_of(file))
    first = pid_of(reader)
    os.kill(first, signal.SIGSTOP)
    with pytest.raises(SegmentReaderUnavailable, match="in time"):
        await reader.scan(scan_of(file, budget_ms=1))
    await until(lambda: not psutil.pid_exists(first))
    assert len(await answered(reader, scan_of(file))) == 10
    await reader.close()


async def test_a_scan_that_gets_nowhere_in_its_budget_is_interrupted(reader: SegmentReader, file: SegmentFile) -> None:
    await reader.scan(scan_of(file))
    first = pid_of(reader)
    with pytest.raises(SegmentReaderUnavailable, match="nowhere"):
        await reader.scan(scan_of(file, ENDLESS, budget_ms=20))
    assert len((await reader.scan(scan_of(file))).logs) == 10
    assert pid_of(reader) == first, "it answered: there was no reason to kill it"


async def test_a_cancelled_scan_makes_room_at_once(reader: SegmentReader, file: SegmentFile) -> None:
    await reader.scan(scan_of(file))
    first = pid_of(reader)
    under_way = asyncio.create_task(reader.scan(scan_of(file, ENDLESS)))
    await until(reader._free.locked)
    under_way.cancel()
    with pytest.raises(asyncio.CancelledError):
        await under_way
    assert len((await reader.scan(scan_of(file))).logs) == 10
    assert pid_of(reader) == first


async def test_a_scan_cancelled_while_its_reader_starts_loses_no_reader(
    reader: SegmentReader, file: SegmentFile
) -> None:
    for _ in range(3):
        starting = asyncio.create_task(reader.scan(scan_of(file)))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
    assert len((await reader.scan(scan_of(file))).logs) == 10


async def test_scans_wait_in_order_and_too_many_are_refused(tmp_path: Path, file: SegmentFile) -> None:
    reader = reader_of(tmp_path, scans_waiting_max=3)
    under_way = asyncio.create_task(reader.scan(scan_of(file, ENDLESS)))
    await until(reader._free.locked)
    order: list[int] = []

    async def ask(number: int) -> None:
        await reader.scan(scan_of(file))
        order.append(number)

    waiting = [asyncio.create_task(ask(number)) for number in range(3)]
    await until(lambda: reader._waiting == 3)
    with pytest.raises(SegmentReaderUnavailable, match="3 scans"):
        await reader.scan(scan_of(file))
    under_way.cancel()
    await asyncio.gather(*waiting)
    assert order == [0, 1, 2]
    await reader.close()


async def test_nobody_waits_longer_than_the_budget(reader: SegmentReader, file: SegmentFile) -> None:
    under_way = asyncio.create_task(reader.scan(scan_of(file, ENDLESS)))
    await until(reader._free.locked)
    with pytest.raises(SegmentReaderUnavailable, match="busy"):
        await reader.scan(scan_of(file, budget_ms=30))
    under_way.cancel()
    await asyncio.gather(under_way, return_exceptions=True)


async def test_missing_and_damaged_files_are_named_and_harm_nobody(
    reader: SegmentReader, file: SegmentFile, tmp_path: Path
) -> None:
    with pytest.raises(SegmentMissing) as missing:
        await reader.scan(scan_of(msgspec.structs.replace(file, path=str(tmp_path / "absent"), name="absent")))
    assert missing.value.segment == "absent"
    (written,) = write(tmp_path, LOGS, "damaged")
    damaged = written.path
    with damaged.open("r+b") as content:
        content.truncate(1_000)
    with pytest.raises(SegmentDamaged) as caught:
        await reader.scan(scan_of(msgspec.structs.replace(file, path=str(damaged), name="damaged")))
    assert caught.value.segment == "damaged"
    assert len((await reader.scan(scan_of(file))).logs) == 10


async def test_files_elsewhere_are_not_readable(
    reader: SegmentReader, file: SegmentFile, tmp_path_factory: pytest.TempPathFactory
) -> None:
    (elsewhere,) = write(tmp_path_factory.mktemp("elsewhere"), LOGS)
    with pytest.raises(SegmentScanFailed, match="Permission"):
        await reader.scan(scan_of(msgspec.structs.replace(file, path=str(elsewhere.path))))
    for where in (
        "(SELECT count(*) FROM read_text('/etc/hostname')) > 0",
        "(SELECT 1 FROM 'https://x.invalid/a.csv') = 1",
    ):
        with pytest.raises(SegmentScanFailed):
            await reader.scan(scan_of(file, Sql(where)))
    with pytest.raises(SegmentScanFailed):
        await reader.scan(scan_of(file, Sql("(SELECT 1 FROM (LOAD httpfs)) = 1")))


async def test_a_scan_that_wants_too_much_memory_is_refused(reader: SegmentReader, file: SegmentFile) -> None:
    where = Sql("id < (SELECT len(list(range::VARCHAR || 'some text that takes room')) FROM range(1000000000))")
    with pytest.raises(SegmentReaderUnavailable, match="memory"):
        await reader.scan(scan_of(file, where))
    assert len((await reader.scan(scan_of(file))).logs) == 10


async def test_a_process_that_grows_past_its_limit_ends_itself(reader: SegmentReader, file: SegmentFile) -> None:
    process = reader._processes[0]
    process._opening = msgspec.structs.replace(process._opening, process_mib=1)
    with pytest.raises(SegmentReaderUnavailable, match="ended"):
        await reader.scan(scan_of(file, ENDLESS))


async def test_what_cannot_be_sent_loses_no_reader(reader: SegmentReader, file: SegmentFile) -> None:
    with pytest.raises(TypeError):
        await reader.scan(scan_of(file, Sql("? IS NULL", (object(),))))
    assert len((await reader.scan(scan_of(file))).logs) == 10


async def test_closing_ends_processes_and_scans(tmp_path: Path, file: SegmentFile) -> None:
    reader = reader_of(tmp_path)
    await reader.scan(scan_of(file))
    pid = pid_of(reader)
    under_way = asyncio.create_task(reader.scan(scan_of(file, ENDLESS)))
    await until(reader._free.locked)
    await reader.close()
    with pytest.raises(SegmentReaderUnavailable):
        await under_way
    assert not psutil.pid_exists(pid)
    with pytest.raises(SegmentReaderUnavailable, match="stopping"):
        await reader.scan(scan_of(file))


async def test_a_reader_whose_parent_has_gone_ends(reader: SegmentReader, file: SegmentFile) -> None:
    await reader.scan(scan_of(file))
    pid = pid_of(reader)
    process = reader._processes[0]._process
    assert process is not None
    assert process.stdin is not None
    process.stdin.close()
    await until(lambda: not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)


async def test_readers_that_start_beside_a_scan_are_started_once_and_end_with_it(
    tmp_path: Path, file: SegmentFile
) -> None:
    before = {child.pid for child in psutil.Process().children()}
    reader = reader_of(tmp_path, readers=1)
    _, result, _ = await asyncio.gather(reader.start(), reader.scan(scan_of(file)), reader.start())
    assert len(result.logs) == 10
    await reader.start()
    assert len({child.pid for child in psutil.Process().children()} - before) == 1
    await reader.close()
    assert {child.pid for child in psutil.Process().children()} <= before


async def test_closing_while_readers_start_leaves_none_behind(tmp_path: Path, file: SegmentFile) -> None:
    before = {child.pid for child in psutil.Process().children()}
    for turns in range(6):
        reader = reader_of(tmp_path, readers=2)
        starting = asyncio.create_task(reader.start())
        scanning = asyncio.create_task(reader.scan(scan_of(file)))
        for _ in range(turns):
            await asyncio.sleep(0)
        await reader.close()
        await starting
        with pytest.raises(SegmentReaderUnavailable):
            await scanning
    assert {child.pid for child in psutil.Process().children()} <= before


async def test_a_scan_has_what_is_left_of_its_budget_after_waiting(
    reader: SegmentReader, file: SegmentFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    await reader.scan(scan_of(file))
    budgets: list[int] = []
    send = ReaderProcess.send

    def noted(self: ReaderProcess, scan: SegmentScan) -> int:
        budgets.append(scan.budget_ms)
        return send(self, scan)

    monkeypatch.setattr(ReaderProcess, "send", noted)
    under_way = asyncio.create_task(reader.scan(scan_of(file, ENDLESS)))
    await until(reader._free.locked)
    now_s = asyncio.get_running_loop().time
    began_s = now_s()
    waiting = asyncio.create_task(reader.scan(scan_of(file)))
    await until(lambda: reader._waiting == 1)
    await until(lambda: now_s() - began_s > 0.3)
    under_way.cancel()
    await waiting
    assert budgets[-1] <= 60_000 - 300


async def test_nobody_waits_for_a_reader_to_start_longer_than_the_budget(
    tmp_path: Path, file: SegmentFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It starts all the same, and the next scan has it."""
    reader = reader_of(tmp_path, readers=1)
    may_start, start = asyncio.Event(), ReaderProcess.start

    async def slowly(self: ReaderProcess) -> None:
        await may_start.wait()
        await start(self)

    with monkeypatch.context() as patch:
        patch.setattr(ReaderProcess, "start", slowly)
        with pytest.raises(SegmentReaderUnavailable, match="being started"):
            await reader.scan(scan_of(file, budget_ms=30))
        may_start.set()
        assert len((await reader.scan(scan_of(file))).logs) == 10
    await reader.close()


@pytest.mark.parametrize("newest_first", [True, False])
async def test_a_long_scan_gives_way_to_others_and_loses_nothing(tmp_path: Path, *, newest_first: bool) -> None:
    (written,) = write(tmp_path, LOGS, using=settings(row_group_rows=20))
    file = SegmentFile(str(written.path), written.name, written.info.row_groups)
    reader = reader_of(tmp_path, readers=1)
    await reader.start()
    slow = Sql("(SELECT sum(a.range + b.range) FROM range(10000) AS a, range(20000) AS b) > 0")
    long = SegmentScan((file,), slow, *EVER, newest_first, 1_000, 10_000, 60_000)
    under_way = asyncio.create_task(reader.scan(long))
    await until(reader._free.locked)
    page = await reader.scan(scan_of(file))
    assert len(page.logs) == 10
    assert not under_way.done(), "the page was kept out until the search had ended"
    result = await under_way
    assert result.logs == (LOGS[::-1] if newest_first else LOGS)
    assert result.looked_to is None
    await reader.close()


async def test_an_answer_whose_reading_was_cut_short_is_passed_over_whole() -> None:
    process = ReaderProcess(Open((), memory_mib=1, process_mib=1, threads=1))
    stream = asyncio.StreamReader()
    process._process = SimpleNamespace(stdout=stream)  # type: ignore[assignment]  # all that is read from
    first, second = framed(Found(1, [], None)), framed(Found(2, [], (1, 2)))
    stream.feed_data(first[:6])
    asked = asyncio.create_task(process.answer(1))
    await asyncio.sleep(0)
    asked.cancel()
    await asyncio.wait([asked])
    stream.feed_data(first[6:] + second)
    assert await process.answer(2) == Found(2, [], (1, 2))
