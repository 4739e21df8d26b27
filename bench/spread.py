"""What more processes do: one and two ingests while nobody stores, then one, two and four writers over what has gathered.

On a machine that has fewer cores than processes their rates say little. What does say something is the CPU time of a log: where
it stays the same, processes do not get in each other's way, and more cores are what they wait for; where it grows, the growth
is the price of being many (leases, smaller batches, locks, the same chunk). docs/scale.md computes with it, and says so.
"""

from __future__ import annotations

import asyncio
from typing import Final

from bench.figures import ProfileFigures
from bench.lines import LOGS_PER_REQUEST
from bench.load import Load
from bench.options import Options
from bench.progress import progress
from bench.site import Site
from bench.watch import Sample, Store, Watch, cpu_between, opened_store

INGESTS: Final = (1, 2)
WRITERS: Final = (1, 2, 4)
_STORING: Final = ("writer", "database", "broker")
_POLL_S: Final = 0.05


async def measure(site: Site, options: Options, figures: ProfileFigures) -> None:
    """spread_accepted_per_s.ingests_N, spread_stored_per_s.writers_N, their ratios to one process, CPU µs a log of each."""
    await site.start_pipeline()
    async with opened_store(site.fleet) as store:
        await site.drained(store)
        await site.run_writers(0)
        for count in INGESTS:
            await site.run_ingests(count)
            await _accept(site, options, store, count, figures)
        for count in WRITERS:
            await _fill(site, options, store, seed=80 + count)
            await _store(site, store, count, figures)


async def _accept(site: Site, options: Options, store: Store, count: int, figures: ProfileFigures) -> None:
    load = Load(
        site.ingest_urls[:count], connections=options.connections * count, seconds=options.spread_s, seed=70 + count
    )
    async with load, Watch(store, site.roles()) as watch:
        load.go()
        report = await load.report()
        await watch.sample()
    rate = report.accepted_logs / report.took_s
    cpu_us = _cpu_us(watch.samples, "ingest", report.accepted_logs)
    figures.put(f"spread_accepted_per_s.ingests_{count}", rate)
    figures.put(f"spread_cpu_us_per_log.ingests_{count}", cpu_us)
    figures.put_ratio(f"spread_accepted_ratio.ingests_{count}", rate, of="spread_accepted_per_s.ingests_1")
    progress(f"{count} ingests accept {rate:,.0f} logs/s, {cpu_us:.2f} µs a log")


async def _fill(site: Site, options: Options, store: Store, *, seed: int) -> None:
    """So much waits that the writers have to do for some seconds."""
    missing = options.spread_logs // LOGS_PER_REQUEST - await store.unread_frames()
    if missing > 0:
        load = Load(site.ingest_urls, connections=options.connections, requests=missing, seed=seed)
        async with load:
            load.go()
            await load.report()


async def _store(site: Site, store: Store, count: int, figures: ProfileFigures) -> None:
    await site.run_writers(count)
    # The watch alone asks the broker what waits: its reader is one task's.
    async with Watch(store, site.roles()) as watch:
        while watch.samples[-1].unread_frames:
            site.check_ingests()
            await asyncio.sleep(_POLL_S)
        began, ended = watch.samples[0], watch.samples[-1]
    stored = (ended.stored_frames - began.stored_frames) * LOGS_PER_REQUEST
    took_s = ended.at_s - began.at_s
    await site.run_writers(0)
    if not stored or not took_s:
        # The first is through before the last has started: a small backlog says nothing of many.
        progress(f"{count} writers were through before all were ready: nothing to say of so small a backlog")
        return
    rate = stored / took_s
    figures.put(f"spread_stored_per_s.writers_{count}", rate)
    figures.put_ratio(f"spread_stored_ratio.writers_{count}", rate, of="spread_stored_per_s.writers_1")
    for role in _STORING:
        if role in watch.samples[0].cpu_s:
            figures.put(f"spread_cpu_us_per_log.{role}_of_{count}", _cpu_us(watch.samples, role, stored))
    cpu_us = sum(_cpu_us(watch.samples, role, stored) for role in _STORING if role in watch.samples[0].cpu_s)
    figures.put(f"spread_cpu_us_per_log.writers_{count}", cpu_us)
    progress(f"{count} writers store {rate:,.0f} logs/s, {cpu_us:.2f} µs a log with database and broker")


def _cpu_us(samples: list[Sample], role: str, logs: int) -> float:
    return cpu_between(samples, role, samples[0].at_s, samples[-1].at_s) / logs * 1e6
