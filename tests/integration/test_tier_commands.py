"""`logfeed tier` as people have it: the role as a process, and the commands beside it."""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import pytest

from cli.tier import parse_range
from db.migrations import Layout
from infra.fleet import Role, free_port
from schemas.errors import InvalidInput
from store.objects.factory import make_object_store
from store.objects.settings import ObjectSettings
from store.settings import StoreSettings
from tests import commands
from tests.store_sites import HOUR_US, now_us, row
from tests.tier_sites import DAY_US, TierSite, tier_site

pytestmark = pytest.mark.timeout(240)
ROWS = 30


@pytest.fixture
async def site(native_url: str, tmp_path: Path) -> AsyncIterator[TierSite]:
    """With a finished table whose rows are a hundred days old."""
    store = make_object_store(ObjectSettings(url=f"file://{tmp_path}/objects"))
    settings = StoreSettings(late_rows_max=ROWS)
    async with tier_site(native_url, Layout.NATIVE, tmp_path / "segments", settings, store=store) as made:
        old_us = now_us() - 100 * DAY_US
        await made.store_rows([], [row(1 + n, old_us + n, f"m{n}") for n in range(ROWS)])
        await made.database.execute("ANALYZE")
        writer = made.hot.process()
        leases = await writer.claim("a", want=3, ttl_s=60)
        await made.hot.see(now_us())
        await made.hot.upkeep.close_due(now_us=now_us() + 25 * HOUR_US)
        await made.hot.upkeep.finish_closed()
        await writer.release("a", leases)  # `verify` would rest for a writer that lags
        yield made


def settings(site: TierSite, **more: str) -> dict[str, str]:
    return {
        "LOGFEED_DATABASE__URL": site.database.url,
        "LOGFEED_TIERS__DIRECTORY": str(site.directory),
        "LOGFEED_OBJECTS__URL": f"file://{site.directory.parent}/objects",
        **more,
    }


def logfeed(site: TierSite, *arguments: str, **more: str) -> subprocess.CompletedProcess[str]:
    return commands.logfeed("tier", *arguments, **settings(site, **more))


def running(site: TierSite, log_path: Path, *arguments: str, **more: str) -> Role:
    """The role as a process."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith("LOGFEED_")}
    role = Role(["tier", *arguments], {**clean, **settings(site, **more)}, log_path)
    role.start()
    return role


def until(condition: Callable[[], bool], what: str, timeout_s: float = 90.0) -> None:
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(0.1)


async def test_one_round_by_hand_and_what_there_is_to_see_of_it(site: TierSite) -> None:
    before = json.loads(logfeed(site, "status", "--json").stdout)
    assert (before["tables_to_write"], before["rows_to_write"]) == (1, ROWS)
    assert [stock["tier"] for stock in before["stocks"]] == ["hot"]
    ran = logfeed(site, "run", "--now")
    assert ran.returncode == 0, ran.stderr
    assert ran.stdout.splitlines()[:3] == [
        "1 tables written",
        "1 tables let go",
        "1 files moved to object storage",
    ]
    assert await site.states() == {("serving", "cold"): 1}
    shown = logfeed(site, "status").stdout
    assert "cold  default" in shown
    assert "due: nothing" in shown
    assert "leads: nobody" in shown
    assert logfeed(site, "run").stdout == "nothing was due\n"

    restored = logfeed(site, "restore", "--days", "3", "--", "-200d/-50d")
    assert restored.stdout == "1 files are on the local disk for 3 days\n", restored.stderr
    assert await site.states() == {("serving", "warm"): 1}
    assert logfeed(site, "run").stdout == "nothing was due\n"

    (site.directory / "strays").mkdir()
    (site.directory / "strays" / "x.parquet").write_bytes(b"x")
    assert "unknown to the database, kept for 14 days: 1 files (1 byte)" in logfeed(site, "status").stdout

    good = logfeed(site, "verify")
    assert (good.returncode, good.stdout) == (0, "1 segments read, all as they were written\n")
    (segment,) = await site.all_segments()
    path = site.directory / segment.name
    path.write_bytes(path.read_bytes()[:-1] + b"x")
    bad = logfeed(site, "verify")
    assert bad.returncode == 1
    assert segment.name in bad.stdout
    assert bad.stdout.endswith("1 segments read, 1 damaged\n")


async def test_the_role_moves_rows_by_itself_and_gives_way_to_a_command(site: TierSite, tmp_path: Path) -> None:
    port = free_port()
    often = {"LOGFEED_TIERS__ROUND_S": "0.2", "LOGFEED_TIERS__HEALTH_PORT": str(port)}
    role = running(site, tmp_path / "role.log", "--name", "the-role", **often)
    try:

        def metrics() -> str:
            try:
                return httpx.get(f"http://127.0.0.1:{port}/metrics", trust_env=False).text
            except httpx.HTTPError:
                assert role.alive, role.log_text()
                return ""

        until(lambda: 'logfeed_tier_segments{state="serving",tier="warm"} 1.0' in metrics(), "the file serves")
        assert f'logfeed_tier_written_rows_total{{source="table"}} {ROWS}.0' in metrics()
        assert await site.ids() == [*range(1, ROWS + 1)]
        assert json.loads(logfeed(site, "status", "--json").stdout)["leader"] == "the-role"
        refused = logfeed(site, "run")
        assert refused.returncode == 1
        assert "the-role moves rows now: take over with --now" in refused.stderr
        assert logfeed(site, "run", "--now").returncode == 0
        until(lambda: "logfeed_tier_leading 1.0" in metrics(), "the role leads again")
        # By itself it would wait a week for others to merge the small file with.
        until(lambda: 'logfeed_tier_segments{state="serving",tier="cold"} 1.0' in metrics(), "the file is cold")
        assert role.stop() == 0, role.log_text()
    finally:
        role.kill()
    assert json.loads(logfeed(site, "status", "--json").stdout)["leader"] is None


async def test_rows_stay_in_tables_where_tiers_are_off(site: TierSite) -> None:
    assert logfeed(site, "run", LOGFEED_TIERS__ENABLED="false").stdout == "nothing was due\n"
    assert await site.states() == {}


def test_a_role_that_was_not_told_where_files_are_to_lie_says_so() -> None:
    nowhere = "postgresql://nobody:word@127.0.0.1:1/nothing"
    ended = commands.logfeed("tier", LOGFEED_PROFILE="full", LOGFEED_DATABASE__URL=nowhere)
    assert ended.returncode == 2
    assert "set tiers.directory" in ended.stderr


def test_a_range_is_two_times_or_a_day() -> None:
    now = 1_800_000_000_000_000
    assert parse_range("-2d/-1d", now) == (now - 2 * DAY_US, now - DAY_US)
    start_us, end_us = parse_range("2026-01-31", now)
    assert end_us - start_us == DAY_US
    for wrong in ("", "yesterday", "2026-01-31/2026-01-30", "now/now", "2026-01-31/"):
        with pytest.raises(InvalidInput):
            parse_range(wrong, now)
