"""One log a POST, as a program without a batching client sends it: without and with an Idempotency-Key.

The whole chain runs. A POST is answered when its log is durable, so many connections wait at once.
"""

from __future__ import annotations

from bench.figures import ProfileFigures
from bench.load import Load
from bench.options import Options
from bench.progress import progress
from bench.quantiles import percentile
from bench.site import Site
from bench.watch import Store, Watch, cpu_between, opened_store


async def measure(site: Site, options: Options, figures: ProfileFigures) -> None:
    """single_posts_per_s, single_posts_p99_ms, cpu_us_per_post.<role>; the same with `_keyed`."""
    await site.start_pipeline()
    async with opened_store(site.fleet) as store:
        for is_keyed in (False, True):
            await _run(site, options, store, figures, is_keyed=is_keyed)
            await site.drained(store)


async def _run(site: Site, options: Options, store: Store, figures: ProfileFigures, *, is_keyed: bool) -> None:
    name = "single_posts_keyed" if is_keyed else "single_posts"
    load = Load(
        site.ingest_urls,
        connections=options.single_connections,
        logs=1,
        seconds=options.single_s,
        keyed=is_keyed,
        seed=50 + is_keyed,
    )
    async with load, Watch(store, site.roles()) as watch:
        load.go()
        report = await load.report()
        await watch.sample()
    start_s, end_s = watch.samples[0].at_s, watch.samples[-1].at_s
    per_s = report.requests / report.took_s
    figures.put(f"{name}_per_s", per_s)
    figures.put(f"{name}_p50_ms", percentile(report.latencies_ms, 0.5))
    figures.put(f"{name}_p99_ms", percentile(report.latencies_ms, 0.99))
    keyed = "_keyed" if is_keyed else ""
    cpu_us = {role: cpu_between(watch.samples, role, start_s, end_s) / report.requests * 1e6 for role in site.roles()}
    cpu_us["generator"] = report.cpu_s / report.requests * 1e6
    figures.put_each(f"cpu_us_per_post{keyed}", cpu_us)
    progress(
        f"{'keyed' if is_keyed else 'unkeyed'} single POSTs: {per_s:,.0f}/s, ingest {cpu_us['ingest']:.0f} µs each"
    )
