"""How soon a log can be seen: from its POST being sent to its being in a page, while 10,000 logs/s come in.

Markers are single logs of a service of their own, one after the other at random moments, so that they meet the writers'
batches anywhere. After each POST its service's newest page is asked until the marker is in it. The time includes the POST,
its acknowledgement, and the page that showed it; it is measured to the length of one poll, which is a figure too.
"""

from __future__ import annotations

import asyncio
import random
import time
from typing import Final

import orjson

from bench.figures import ProfileFigures
from bench.generator import SINGLE_PATH
from bench.lines import marked_lines
from bench.load import Load
from bench.options import Options
from bench.progress import progress
from bench.quantiles import median, percentile
from bench.site import Site
from bench.wire import HttpConnection, Target

_SERVICE: Final = "bench/markers"
_LOGS_PER_REQUEST: Final = 100
_POLL_PAUSE_S: Final = 0.002
_PAUSE_S_MAX: Final = 0.1
_WARM_UP_MARKERS: Final = 5
_DEADLINE_S: Final = 60.0
_PATH: Final = f"/api/v1/logs?service_name={_SERVICE}&start_time=-1m&limit=1"


async def measure(site: Site, options: Options, figures: ProfileFigures) -> None:
    """freshness_p50_ms, freshness_p99_ms, freshness_poll_ms (median of one poll)."""
    await site.start_pipeline()
    await site.start_query()
    load = Load(
        site.ingest_urls,
        connections=options.connections,
        logs=_LOGS_PER_REQUEST,
        rate=options.freshness_rate,
        seed=70,
    )
    async with load:
        load.go()
        seen_ms, polls_ms = await _send_markers(site, options.markers)
        load.stop()
        report = await load.report()
    figures.put("freshness_p50_ms", percentile(seen_ms, 0.5))
    figures.put("freshness_p99_ms", percentile(seen_ms, 0.99))
    figures.put("freshness_poll_ms", median(polls_ms))
    figures.put("freshness_beside_per_s", report.accepted_logs / report.took_s)
    progress(
        f"visible after {percentile(seen_ms, 0.5):.0f} ms (p50), {percentile(seen_ms, 0.99):.0f} ms (p99)"
        f" beside {report.accepted_logs / report.took_s:,.0f} logs/s"
    )


async def _send_markers(site: Site, markers: int) -> tuple[list[float], list[float]]:
    """(ms until each was visible, ms of each poll)."""
    target = Target.of(site.ingest_urls[0], SINGLE_PATH)
    post_head, poll_head = target.post_head("application/json"), Target.of(site.query_url).get_head(_PATH)
    sending, asking = HttpConnection(target), HttpConnection(Target.of(site.query_url))
    lines = marked_lines(f"marker-{time.time_ns()}", service_name=_SERVICE)
    chance = random.Random(1)
    seen_ms: list[float] = []
    polls_ms: list[float] = []
    for number in range(_WARM_UP_MARKERS + markers):
        await asyncio.sleep(chance.random() * _PAUSE_S_MAX)
        body = next(lines)
        sent_s = time.monotonic()
        answer = await sending.request(b"%b%d\r\n\r\n" % (post_head, len(body)), body)
        if answer.status != 201:
            raise RuntimeError(f"a marker was answered {answer.status}: {answer.body[:300]!r}")
        polls = await _until_visible(asking, poll_head, orjson.loads(body)["correlation_id"])
        if number >= _WARM_UP_MARKERS:
            seen_ms.append((time.monotonic() - sent_s) * 1000)
            polls_ms += polls
    sending.close()
    asking.close()
    return seen_ms, polls_ms


async def _until_visible(asking: HttpConnection, head: bytes, marker: str) -> list[float]:
    """ms of each poll until the marker was in the page."""
    polls_ms: list[float] = []
    deadline_s = time.monotonic() + _DEADLINE_S
    while True:
        began_s = time.monotonic()
        answer = await asking.request(head)
        if answer.status == 200:
            polls_ms.append((time.monotonic() - began_s) * 1000)
            logs = orjson.loads(answer.body)["logs"]
            if logs and logs[0]["correlation_id"] == marker:
                return polls_ms
        elif answer.status != 503:
            raise RuntimeError(f"the page was answered {answer.status}: {answer.body[:300]!r}")
        if time.monotonic() > deadline_s:
            raise RuntimeError(f"a marker was not visible after {_DEADLINE_S:.0f} s")
        await asyncio.sleep(_POLL_PAUSE_S)
