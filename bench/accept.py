"""How fast logs are accepted while nobody stores them: the broker takes them in, the writers are stopped.

Afterwards the writers store what has gathered, and how fast they do that with nothing else running is a figure too.
"""

from __future__ import annotations

import time

from bench.figures import ProfileFigures
from bench.lines import LOGS_PER_REQUEST
from bench.load import Load
from bench.options import Options
from bench.progress import progress
from bench.quantiles import median
from bench.site import Site
from bench.watch import Store, Watch, cpu_between, opened_store


async def measure(site: Site, options: Options, figures: ProfileFigures) -> None:
    """accepted_alone_per_s, its ratio, cpu_us_per_log.ingest_alone; drained_per_s."""
    await site.start_pipeline()
    async with opened_store(site.fleet) as store:
        await site.drained(store)
        site.stop_writers()
        rates, cpu_us = [], []
        for number in range(options.runs):
            rate, cpu = await _run(site, options, store, seed=30 + number)
            rates.append(rate)
            cpu_us.append(cpu)
            progress(f"accepting alone {number + 1}: {rate:,.0f} logs/s, ingest {cpu:.2f} µs a log")
        waiting = await store.unread_frames()
        await site.start_pipeline()
        began_s = time.monotonic()
        await site.drained(store)
        drained = waiting * LOGS_PER_REQUEST / (time.monotonic() - began_s)
    progress(f"the writers stored the rest at {drained:,.0f} logs/s")
    figures.put("accepted_alone_per_s", median(rates))
    figures.put_ratio("accepted_alone_ratio", median(rates))
    figures.put("cpu_us_per_log.ingest_alone", median(cpu_us))
    figures.put("drained_per_s", drained)
    figures.put_ratio("drained_ratio", drained)


async def _run(site: Site, options: Options, store: Store, *, seed: int) -> tuple[float, float]:
    """(logs accepted a second, ingest's CPU µs a log)."""
    load = Load(site.ingest_urls, connections=options.connections, seconds=options.accept_s, seed=seed)
    async with load, Watch(store, site.roles()) as watch:
        load.go()
        report = await load.report()
        await watch.sample()
    used_s = cpu_between(watch.samples, "ingest", watch.samples[0].at_s, watch.samples[-1].at_s)
    return report.accepted_logs / report.took_s, used_s / report.accepted_logs * 1e6
