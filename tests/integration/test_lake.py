"""The lake: what is published is what the segments hold, whoever reads it and whatever happens to the publisher."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from db.database import Database
from schemas.errors import ConfigurationError
from schemas.record import Log
from store.lake.leftovers import remove_leftovers
from store.lake.publishing import Lake
from store.lake.settings import LakeSettings
from store.objects.settings import ObjectSettings
from store.tiers.segments import SegmentState
from tests.lake_site import LakeSite
from tests.s3_server import S3Server
from tests.segment_rows import in_order, log_at

REPOSITORY = Path(__file__).resolve().parents[2]
DAY_US = 86_400_000_000
TODAY_US = 20_500 * DAY_US


def day(number: int, count: int = 20) -> list[Log]:
    """Logs of one day, all of different kinds."""
    return [
        log_at(
            TODAY_US + number * DAY_US + index * 1_000_003,
            (number + 100) * 1_000_000 + index,
            level=1 + index % 24,
            service_name=("pay", "auth/a", "Z.z")[index % 3],
            message=f'line {index}, "quoted" é\n',
            correlation_id=None if index % 4 else f"c-{index}",
            metadata={"n": index, "nested": {"t": "é"}},
        )
        for index in range(count)
    ]


def damage(url: str) -> None:
    """As after a power cut."""
    Path(url.removeprefix("file://")).write_text("{")


@pytest.fixture
async def database(native_url: str) -> AsyncIterator[Database]:
    opened = Database(native_url, application_name="test", connections_max=8)
    await opened.open()
    yield opened
    await opened.close()


@pytest.fixture
def site(database: Database, tmp_path: Path) -> LakeSite:
    return LakeSite(database, tmp_path / "segments")


async def test_table_has_the_rows_of_the_segments_for_every_reader(site: LakeSite) -> None:
    await site.add("a", day(0))
    await site.add("b", day(1), state=SegmentState.WRITTEN)
    published = await site.lake.publish()
    assert (published.files, published.rows, published.added, published.removed) == (2, 40, 2, 0)
    expected = day(0) + day(1)
    assert site.logs() == expected
    assert site.logs_by_duckdb() == expected
    assert site.table().scan().count() == 40


async def test_publishing_twice_leaves_the_snapshot(site: LakeSite) -> None:
    await site.add("a", day(0))
    first = await site.lake.publish()
    metadata = site.table().metadata_location
    second = await site.lake.publish()
    assert first.snapshot_id is not None
    assert (second.snapshot_id, second.added, second.removed) == (first.snapshot_id, 0, 0)
    assert site.table().metadata_location == metadata


async def test_table_without_segments_is_empty(site: LakeSite) -> None:
    assert await site.lake.status() is None
    published = await site.lake.publish()
    assert (published.snapshot_id, published.files) == (None, 0)
    assert site.logs() == []


async def test_written_segment_waits_until_its_whole_table_is_in_segments(site: LakeSite) -> None:
    await site.add("a", day(0), state=SegmentState.WRITTEN, segmented=False)
    assert (await site.lake.publish()).files == 0
    await site.database.execute("UPDATE catalogue SET segmented_at = clock_timestamp() WHERE table_name = 'chunk_a'")
    await site.lake.publish()
    assert site.logs() == day(0)


async def test_retired_segments_leave_and_merged_ones_enter_in_one_commit(site: LakeSite) -> None:
    """Also rows of a day that stays: each row is once in every snapshot."""
    old = await site.add("a", day(0)[:10]) + await site.add("b", day(0)[10:])
    await site.add("c", day(1))
    await site.lake.publish()
    await site.set(old, SegmentState.RETIRED)
    await site.add("m", day(0), sources=old)
    status = await site.lake.status()
    assert status is not None
    assert (status.to_add, status.to_remove) == (1, 2)
    published = await site.lake.publish()
    assert (published.added, published.removed) == (1, 2)
    assert site.logs() == day(0) + day(1)
    table = site.table()
    for snapshot in table.metadata.snapshots:
        assert table.scan(snapshot_id=snapshot.snapshot_id).count() == 40
    assert not any(name in url for name in old for url in site.planned())


async def test_everything_may_leave(site: LakeSite) -> None:
    names = await site.add("a", day(0))
    await site.lake.publish()
    await site.set(names, SegmentState.RETIRED)
    await site.lake.publish()
    assert site.logs() == []


async def test_days_prune_and_files_of_late_rows_lose_no_row(site: LakeSite) -> None:
    late = in_order(
        log_at(TODAY_US + number * DAY_US + 5, 7_000_000 + number, message="late") for number in range(-3, 3)
    )
    await site.add("a", day(0))
    await site.add("b", day(1))
    late_names = await site.add("late", late)
    await site.lake.publish()
    assert site.logs() == in_order([*day(0), *day(1), *late])
    begin = TODAY_US + DAY_US
    asked = f"timestamp >= '{_iso(begin)}' and timestamp < '{_iso(begin + DAY_US)}'"
    assert site.logs(asked) == [log for log in in_order([*day(1), *late]) if begin <= log.timestamp < begin + DAY_US]
    plan = [task.file.file_path for task in site.table().scan(row_filter=asked).plan_files()]
    assert sorted(url.rpartition("/")[2][0] for url in plan) == ["b", "l"]
    assert site.table().spec().fields[0].name == "timestamp_day"
    await site.set(late_names, SegmentState.RETIRED)
    await site.add("late2", late[:2])
    await site.lake.publish()
    assert site.logs() == in_order([*day(0), *day(1), *late[:2]])


async def test_segment_that_became_cold_is_read_from_object_storage(
    database: Database, tmp_path: Path, s3_server: S3Server, aws_credentials: None
) -> None:
    bucket = s3_server.make_bucket()
    objects = ObjectSettings(url=f"s3://{bucket}/some/place", endpoint=s3_server.endpoint, region="us-east-1")
    site = LakeSite(database, tmp_path / "segments", objects=objects)
    cold = await site.add("a", day(0))
    await site.add("b", day(1))
    await site.lake.publish()
    assert site.table().metadata_location.startswith(f"s3://{bucket}/some/place/lake/")
    await site.make_cold(cold)
    published = await site.lake.publish()
    assert (published.added, published.removed) == (1, 1)
    assert [url.partition(":")[0] for url in site.planned()] == ["file", "s3"]
    assert site.logs() == day(0) + day(1)


async def test_readers_may_see_the_files_under_another_path(database: Database, tmp_path: Path) -> None:
    (tmp_path / "mounted").symlink_to(tmp_path / "segments")
    settings = LakeSettings(
        segments=f"file://{tmp_path}/mounted", warehouse=f"file://{tmp_path}/w", catalog="ours", table="lines"
    )
    site = LakeSite(database, tmp_path / "segments", settings=settings)
    await site.add("a", day(0))
    await site.lake.publish()
    assert all(url.startswith(f"file://{tmp_path}/mounted/") for url in site.planned())
    assert site.table().metadata_location.startswith(f"file://{tmp_path}/w/")
    assert site.logs() == day(0)


async def test_wrong_directory_is_refused_before_anything_is_published(site: LakeSite) -> None:
    names = await site.add("a", day(0))
    (site.directory / names[0]).unlink()
    with pytest.raises(ConfigurationError, match=r"tiers\.directory"):
        await site.lake.publish()
    assert site.planned() == []


async def test_two_publishers_at_once_do_no_harm(site: LakeSite) -> None:
    await site.add("a", day(0))
    others = [Lake(site.database, site.settings, site.objects, site.locations) for _ in range(3)]
    results = await asyncio.gather(*(lake.publish() for lake in others))
    assert {result.snapshot_id for result in results} == {results[0].snapshot_id}
    assert sorted(result.added for result in results) == [0, 0, 1]
    assert site.logs() == day(0)


async def test_commit_on_what_another_program_changed_is_made_anew(
    site: LakeSite, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As when the database took the lock's connection away while its publisher went on."""
    import store.lake.publishing as publishing

    await site.add("a", day(0))
    commit = publishing._commit
    interrupted = 0

    def late_commit(table, added, removed):  # type: ignore[no-untyped-def]  # as _commit
        nonlocal interrupted
        if not interrupted:
            interrupted = 1
            commit(site.table(), added, removed)
        commit(table, added, removed)

    monkeypatch.setattr(publishing, "_commit", late_commit)
    published = await site.lake.publish()
    assert interrupted
    assert (published.added, len(site.planned())) == (0, 1)
    assert site.logs() == day(0)


async def test_table_whose_metadata_is_lost_is_made_anew(site: LakeSite) -> None:
    from store.lake.catalog import LakeUnreadable

    await site.add("a", day(0))
    await site.lake.publish()
    damage(site.table().metadata_location)
    with pytest.raises(LakeUnreadable, match="--anew"):
        await site.lake.publish()
    await site.lake.publish(anew=True)
    assert site.logs() == day(0)


async def test_leftovers_go_and_nothing_else_does(site: LakeSite) -> None:
    names = await site.add("a", day(0))
    await site.lake.publish()
    metadata = Path(site.table().location().removeprefix("file://")) / "metadata"
    left = metadata / "00009-of-a-killed-publisher.metadata.json"
    left.write_text("{}")
    assert remove_leftovers(site.table()) == 0, "it is young: somebody may be about to commit it"
    assert remove_leftovers(site.table(), age_s=-60) >= 1
    assert not left.exists()
    assert site.logs() == day(0)
    assert (site.directory / names[0]).exists()


async def test_statistics_of_other_engines_stay(site: LakeSite) -> None:
    from pyiceberg.table.statistics import StatisticsFile

    await site.add("a", day(0))
    await site.lake.publish()
    table = site.table()
    snapshot = table.current_snapshot()
    assert snapshot is not None
    statistics = Path(table.location().removeprefix("file://")) / "metadata" / "of-an-engine.stats"
    statistics.write_bytes(b"PFA1")
    described = {"snapshot-id": snapshot.snapshot_id, "statistics-path": f"file://{statistics}", "blob-metadata": []}
    sizes = {"file-size-in-bytes": 4, "file-footer-size-in-bytes": 0}
    with table.update_statistics() as update:
        update.set_statistics(StatisticsFile.model_validate(described | sizes))
    remove_leftovers(site.table(), age_s=-60)
    assert statistics.exists()


async def test_old_snapshots_are_forgotten(site: LakeSite) -> None:
    from store.lake.publishing import _expire

    names = await site.add("a", day(0))
    await site.lake.publish()
    await site.set(names, SegmentState.RETIRED)
    await site.add("b", day(1))
    await site.lake.publish()
    _expire(site.table(), timedelta(days=1))
    assert len(site.table().metadata.snapshots) == 2
    _expire(site.table(), timedelta(seconds=-60))
    assert len(site.table().metadata.snapshots) == 1
    assert site.logs() == day(1)


# The command, as people and timers run it


def _command(site: LakeSite, *arguments: str) -> subprocess.Popen[str]:
    environment = {
        **os.environ,
        "LOGFEED_DATABASE__URL": site.database.url,
        "LOGFEED_TIERS__DIRECTORY": str(site.directory),
        "LOGFEED_LOG__LEVEL": "warning",
    }
    return subprocess.Popen(
        [sys.executable, "-m", "cli.main", "lake", *arguments],
        cwd=REPOSITORY,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def _run(site: LakeSite, *arguments: str) -> tuple[int, str]:
    process = _command(site, *arguments)
    output, _ = process.communicate(timeout=90)
    return process.returncode, output


def test_command_says_what_to_install_where_it_is_not() -> None:
    program = (
        "import sys; sys.modules['pyiceberg'] = None; sys.argv = ['logfeed', 'lake', 'status']\n"
        "from cli.main import main; main()"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 2, done.stderr
    assert "make install-lake" in done.stderr


async def test_command_publishes_and_tells(site: LakeSite) -> None:
    await site.add("a", day(0))
    code, output = await asyncio.to_thread(_run, site, "status")
    assert (code, output) == (1, "never published: run `logfeed lake publish`\n")
    code, output = await asyncio.to_thread(_run, site, "publish")
    assert (code, output) == (0, "1 files entered, 0 taken out; the table has 1 files with 20 logs\n")
    code, output = await asyncio.to_thread(_run, site, "status")
    assert code == 0, output
    assert "lake.logfeed.logs" in output
    assert "1 with 20 logs" in output
    assert "0 files to enter, 0 to take out" in output


@pytest.mark.slow
@pytest.mark.timeout(300)
async def test_killed_publisher_leaves_a_table_that_the_next_one_makes_right(site: LakeSite) -> None:
    """Killed when it has the lock, and after each file of metadata it writes: two manifests, their list, the new metadata."""
    await site.add("kept", day(0))
    retired = await site.add("r0", day(1))
    await site.lake.publish()
    metadata = Path(site.table().location().removeprefix("file://")) / "metadata"
    for round_number, files in enumerate((0, 1, 2, 3, 4, 5), start=1):
        await site.set(retired, SegmentState.RETIRED)
        retired = await site.add(f"r{round_number}", day(1 + round_number))
        before, names = site.logs(), set(os.listdir(metadata))
        process = _command(site, "publish", "--every", "60")
        await _until(process, partial(_has_come, site, metadata, names, files))
        process.send_signal(signal.SIGKILL)
        await asyncio.to_thread(process.communicate)
        after = in_order([*day(0), *day(1 + round_number)])
        assert site.logs() in (before, after), f"killed after {files} files"
        if round_number % 2:
            await site.lake.publish()
            assert site.logs() == after
    await site.lake.publish()
    assert site.logs() == after


async def _has_come(site: LakeSite, metadata: Path, names: set[str], files: int) -> bool:
    """Whether a publisher has the lock and has written so many files; five: it is done, too."""
    if files == 5:
        status = await site.lake.status()
        return status is not None and status.to_add == status.to_remove == 0
    held = "SELECT FROM pg_locks WHERE locktype = 'advisory' AND objid = 7420 AND granted AND database = "
    own = "(SELECT oid FROM pg_database WHERE datname = current_database())"
    if files == 0:
        return await site.database.fetch_one(held + own) is not None
    return len(set(os.listdir(metadata)) - names) >= files


async def _until(process: subprocess.Popen[str], condition: Callable[[], Awaitable[bool]]) -> None:
    deadline_s = time.monotonic() + 60
    while not await condition():
        assert process.poll() is None, process.communicate()[0]
        assert time.monotonic() < deadline_s
        await asyncio.sleep(0.001)


def _iso(us: int) -> str:
    from schemas.times import time_text

    return time_text(us).replace("Z", "+00:00")
