"""What files of rows cost, and how fast they are asked: the role moves the older days of the filled store, questions go there.

The store is that of the pages (bench/fill.py). `logfeed tier run --now` writes every finished table to segments, reads them
back, and lets those past HOT_DAYS serve alone; its processor time and the server's are taken for the rows it moved. Then a real
query process is asked for what lies in files only, over HTTP, and for a text that is nowhere.
"""

from __future__ import annotations

import asyncio
import random
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from itertools import islice
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlencode

import pyarrow as pa

from bench.figures import ProfileFigures
from bench.fill import Filled, filled_once
from bench.lines import COMMON_WORDS, ORDER_KEY, ORDER_VALUES, SERVICES, Form, bodies, moulds
from bench.options import Options
from bench.processes import usage
from bench.progress import progress
from bench.quantiles import percentile
from bench.questions import Asker, Question
from bench.site import Site
from db.database import connect
from infra.fleet import REPOSITORY
from schemas.times import time_text
from store.segments.filters import SUFFIX, CorrelationFilters, write_filter

HOT_DAYS: Final = 2
FILTERS: Final = 2_000
"""Files of some years; as many correlation filters are asked."""
FIRST_MATCH_ROWS: Final = 100_000
_FILTER_IDS: Final = 20_000
_PATH: Final = "/api/v1/logs"
_NOWHERE: Final = "zqxzqxzqx"
_SAMPLE_LINES: Final = 5_000
_ROLE_S_MAX: Final = 3_600.0
_TOTALS: Final = """
    SELECT sum(rows)::bigint, sum(bytes)::bigint, count(*), sum(rows) FILTER (WHERE state = 'serving')::bigint,
        (extract(epoch FROM max(range_end) FILTER (WHERE state = 'serving')) * 1000000)::bigint
    FROM segments WHERE state <> 'retired'"""


async def measure(site: Site, options: Options, figures: ProfileFigures) -> None:
    """segment_rows_per_cpu_s, cpu_us_per_log.tier and .tier_database, bytes_per_log.segment, segment_json_ratio;
    page_p50_ms.files_<kind> and p99 (first_match: the one row with a word, behind FIRST_MATCH_ROWS others);
    segment_scan_ms_per_million_rows; correlation_filters_first_ms and _again_ms."""
    filled = await filled_once(site, options)
    await _move(site, figures)
    rows, size, files, served, end_us = await _totals(site)
    figures.put("segment_files", files)
    figures.put("bytes_per_log.segment", size / rows)
    figures.put("segment_json_ratio", size / rows / _json_bytes())
    progress(f"{files} files of {size / rows:.1f} bytes a row; {served:,} rows are in files alone")
    await site.start_query()
    asker = Asker(site.query_url)
    try:
        for kind, each in _questions(filled, end_us, options.questions).items():
            answers = [await asker.ask(question) for question in each]
            times_ms = [answer.took_ms for answer in answers]
            figures.put_latencies("page", f"files_{kind}", times_ms)
            progress(
                f"files, {kind}: {percentile(times_ms, 0.5):,.1f} ms (p50), {percentile(times_ms, 0.99):,.1f} (p99)"
            )
        nowhere = Question(
            "nowhere", f"{_PATH}?{urlencode({'q': _NOWHERE, 'end_time': time_text(end_us), 'limit': 1})}"
        )
        took_ms = percentile([(await asker.ask(nowhere)).took_ms for _ in range(3)], 0.5)
        figures.put("segment_scan_ms_per_million_rows", took_ms / served * 1e6)
        progress(f"a text that is nowhere: {took_ms / served * 1e6:,.1f} ms a million rows")
    finally:
        asker.close()
    first_ms, again_ms = await asyncio.to_thread(_ask_filters)
    figures.put("correlation_filters_first_ms", first_ms)
    figures.put("correlation_filters_again_ms", again_ms)
    progress(f"{FILTERS:,} correlation filters: {first_ms:,.0f} ms first, {again_ms:,.0f} ms again")


async def _move(site: Site, figures: ProfileFigures) -> None:
    """Run the role until nothing is due."""
    database_s, began_s, cpu_s = usage([site.database_pid]).cpu_s, time.monotonic(), _children_s()
    done = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "cli.main", "tier", "run", "--now"],
        cwd=REPOSITORY,
        env=site.fleet.environment(LOGFEED_TIERS__HOT_DAYS=str(HOT_DAYS)),
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=_ROLE_S_MAX,
    )
    if done.returncode != 0:
        raise RuntimeError(f"`logfeed tier run --now` failed:\n{done.stdout}{done.stderr}")
    cpu_s = _children_s() - cpu_s
    rows, *_ = await _totals(site)
    figures.put("segment_rows_per_cpu_s", rows / cpu_s)
    figures.put("cpu_us_per_log.tier", cpu_s / rows * 1e6)
    figures.put("cpu_us_per_log.tier_database", (usage([site.database_pid]).cpu_s - database_s) / rows * 1e6)
    progress(
        f"{rows:,} rows to files in {time.monotonic() - began_s:.0f} s: {rows / cpu_s:,.0f} rows a second of a core"
    )


def _children_s() -> float:
    """Processor time of this process's children that have ended."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


async def _totals(site: Site) -> tuple[int, int, int, int, int]:
    """Rows, bytes and number of files; rows in files alone, and the end of these."""
    async with await connect(site.fleet.database_url, application_name="bench tiers") as connection:
        row = await (await connection.execute(_TOTALS)).fetchone()
    if row is None or row[3] is None:
        raise RuntimeError("nothing lies in files alone: the store is too small or too young")
    rows, size, files, served, end_us = map(int, row)
    return rows, size, files, served, end_us


def _json_bytes() -> float:
    """Of a log as producers send it, on average."""
    lines = (line for body in bodies(moulds(16, form=Form.HTTP)) for line in body.splitlines())
    return statistics.fmean(len(line) for line in islice(lines, _SAMPLE_LINES))


def _questions(filled: Filled, end_us: int, how_many: int) -> dict[str, list[Question]]:
    """Kind -> questions whose answers lie in files alone."""
    chance = random.Random(7)
    old = [row for row in filled.known if row.timestamp_us < end_us]
    searches: dict[str, list[dict[str, Any]]] = {  # Any: text or number
        "newest": [{} for _ in range(how_many)],
        "service": [{"service_name": SERVICES[number % len(SERVICES)]} for number in range(how_many)],
        "errors": [{"min_level": "ERROR"} for _ in range(how_many)],
        "metadata": [{f"metadata.{ORDER_KEY}": f"o-{chance.randrange(ORDER_VALUES):04}"} for _ in range(how_many)],
        "common_word": [{"q": COMMON_WORDS[number % len(COMMON_WORDS)]} for number in range(how_many)],
    }
    asked = {
        kind: [
            Question(
                kind, f"{_PATH}?{urlencode({**values, 'end_time': _moment(filled, end_us, chance), 'limit': 100})}"
            )
            for values in each
        ]
        for kind, each in searches.items()
    }
    behind_us = (filled.end_us - filled.start_us) * FIRST_MATCH_ROWS // filled.rows
    asked["first_match"] = [
        Question(
            "first_match",
            f"{_PATH}?{urlencode({'q': each.word, 'end_time': time_text(each.timestamp_us + behind_us), 'limit': 1})}",
            rows_wanted=1,
        )
        for each in filled.old_needles
        if each.timestamp_us + behind_us < end_us
    ]
    known = [chance.choice(old) for _ in range(how_many)]
    asked["id"] = [Question("id", f"{_PATH}/{row.log_id}") for row in known]
    asked["correlation"] = [
        Question("correlation", f"/api/v1/correlations/{row.correlation_id}/logs?limit=100") for row in known
    ]
    return asked


def _moment(filled: Filled, end_us: int, chance: random.Random) -> str:
    return time_text(chance.randrange(filled.start_us + (end_us - filled.start_us) // 4, end_us))


def _ask_filters() -> tuple[float, float]:
    """ms that an id which is nowhere takes over FILTERS filters: the first time, and again."""
    chance = random.Random(1)
    with tempfile.TemporaryDirectory(prefix="logfeed-filters-") as name:
        for number in range(FILTERS):
            ids = [f"{chance.getrandbits(128):032x}" for _ in range(_FILTER_IDS)]
            write_filter(Path(name) / f"{number}{SUFFIX}", [pa.array(ids)])
        filters = CorrelationFilters(Path(name))
        took_ms = []
        for _ in range(3):
            began_s = time.perf_counter()
            asyncio.run(
                filters.candidates([str(number) for number in range(FILTERS)], f"{chance.getrandbits(128):032x}")
            )
            took_ms.append((time.perf_counter() - began_s) * 1e3)
        filters.close()
    return took_ms[0], min(took_ms[1:])
