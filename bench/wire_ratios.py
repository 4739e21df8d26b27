"""How fast logs are accepted in the formats of other shippers, as parts of how fast they are in our own.

As in `accept`: the broker takes them in, nobody stores them. Our own format and the others take turns, so that what the machine
does besides meets all of them.
"""

from __future__ import annotations

from collections import defaultdict
from typing import Final

from bench.figures import ProfileFigures
from bench.load import Load
from bench.options import Options
from bench.progress import progress
from bench.quantiles import median
from bench.site import Site
from bench.watch import Store, Watch, cpu_between, opened_store
from bench.wire_formats import FORMATS

_OWN: Final = "own"


async def measure(site: Site, options: Options, figures: ProfileFigures) -> None:
    """wire_per_s, cpu_us_per_log.wire, wire_ratio: each by the name of the format."""
    await site.start_pipeline()
    rates: dict[str, list[float]] = defaultdict(list)
    cpu_us: dict[str, list[float]] = defaultdict(list)
    async with opened_store(site.fleet) as store:
        await site.drained(store)
        site.stop_writers()
        for number in range(options.runs):
            for name in (_OWN, *FORMATS):
                rate, cpu = await _run(site, options, store, None if name == _OWN else name, seed=50 + number)
                rates[name].append(rate)
                cpu_us[name].append(cpu)
                progress(f"accepting {name} {number + 1}: {rate:,.0f} logs/s, ingest {cpu:.2f} µs a log")
        await site.start_pipeline()
        await site.drained(store)
    for name in rates:
        figures.put(f"wire_per_s.{name}", median(rates[name]))
        figures.put(f"cpu_us_per_log.wire_{name}", median(cpu_us[name]))
    for name in FORMATS:
        ratios = [rate / own for rate, own in zip(rates[name], rates[_OWN], strict=True)]
        figures.put(f"wire_ratio.{name}", median(ratios))


async def _run(site: Site, options: Options, store: Store, name: str | None, *, seed: int) -> tuple[float, float]:
    """(logs accepted a second, ingest's CPU µs a log)."""
    load = Load(site.ingest_urls, connections=options.connections, seconds=options.wire_s, seed=seed, format=name)
    async with load, Watch(store, site.roles()) as watch:
        load.go()
        report = await load.report()
        await watch.sample()
    used_s = cpu_between(watch.samples, "ingest", watch.samples[0].at_s, watch.samples[-1].at_s)
    return report.accepted_logs / report.took_s, used_s / report.accepted_logs * 1e6
