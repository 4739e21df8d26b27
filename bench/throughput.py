"""Stored = accepted: the whole chain at once, generator, ingest, broker, writers and database on this machine.

The generator sends as fast as it is answered, but only while fewer than `lag_frames` requests are accepted and not stored.
So what is accepted over the window is what is stored over it, and both are the rate that the chain keeps up for ever; where
storing is the faster part, the limit is never met. Credit is renewed with every sample. Stored logs are counted by the
store's own offsets over the window, and at the end the ledger must have booked exactly what was acknowledged.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from bench.figures import Points, ProfileFigures
from bench.generator import GeneratorReport
from bench.lines import LOGS_PER_REQUEST
from bench.load import Load
from bench.options import Options
from bench.progress import progress
from bench.quantiles import median, rate
from bench.site import Site
from bench.watch import Sample, Store, Watch, cpu_between, opened_store, peaks_mib, stored_points

_ACCEPTING = ("ingest", "broker", "generator")
"""Roles whose work is per accepted log; that of the others is per stored log."""


@dataclass(frozen=True, slots=True)
class Run:
    """One sustained run."""

    accepted_per_s: float
    stored_per_s: float
    cpu_us_per_log: dict[str, float]
    peak_mib: dict[str, float]
    report: GeneratorReport
    samples: list[Sample]


async def measure(site: Site, options: Options, figures: ProfileFigures) -> None:
    """accepted_per_s, stored_per_s, their ratios to the floor, cpu_us_per_log.<role>, cpu_bound_per_s, peak_mib.<role>,
    lag_frames_max, retried_requests; and series."""
    await site.start_pipeline()
    runs: list[Run] = []
    async with opened_store(site.fleet) as store:
        for number in range(options.runs):
            runs.append(await _run(site, options, store, seed=10 + number))
            progress(
                f"sustained {number + 1}: {runs[-1].accepted_per_s:,.0f} accepted/s,"
                f" {runs[-1].stored_per_s:,.0f} stored/s; µs a log: {_shown(runs[-1].cpu_us_per_log)}"
            )
    _put(runs, figures)


async def _run(site: Site, options: Options, store: Store, *, seed: int) -> Run:
    booked_before = await store.booked_logs()
    total_s = options.warm_up_s + options.run_s
    load = Load(
        site.ingest_urls,
        connections=options.connections,
        seconds=total_s,
        seed=seed,
        credit=options.lag_frames > 0,
    )
    async with load:
        roles = {**site.roles(), "generator": [load.pid]}
        watch = Watch(store, roles)
        async with watch:
            frames_before = watch.samples[0].stored_frames
            watch.on_sample = lambda sample: load.grant(sample.stored_frames - frames_before + options.lag_frames)
            load.go()
            watch.on_sample(watch.samples[0])
            report = await load.report()
            await watch.sample()
        await site.drained(store)
    booked = await store.booked_logs() - booked_before
    if booked != report.accepted_logs:
        raise RuntimeError(f"{report.accepted_logs} logs were acknowledged, the ledger booked {booked} as stored")
    return _judged(report, watch.samples, options)


def _judged(report: GeneratorReport, samples: list[Sample], options: Options) -> Run:
    start_s = report.began_s + options.warm_up_s
    end_s = start_s + options.run_s
    stored = [(when, frames * LOGS_PER_REQUEST) for when, frames in stored_points(samples)]
    accepted_per_s = rate(report.accepted_points(), start_s, end_s)
    stored_per_s = rate(stored, start_s, end_s)
    cpu_us = {}
    for role in samples[0].cpu_s:
        used_s = cpu_between(samples, role, start_s, end_s)
        logs = (accepted_per_s if role in _ACCEPTING else stored_per_s) * options.run_s
        cpu_us[role] = used_s / logs * 1e6 if logs else float("nan")
    # It has ended by the last samples, and its own account is exact.
    cpu_us["generator"] = report.cpu_s / report.accepted_logs * 1e6
    return Run(accepted_per_s, stored_per_s, cpu_us, peaks_mib(samples), report, samples)


def _put(runs: list[Run], figures: ProfileFigures) -> None:
    accepted = median([run.accepted_per_s for run in runs])
    stored = median([run.stored_per_s for run in runs])
    figures.put("accepted_per_s", accepted)
    figures.put_ratio("accepted_ratio", accepted)
    figures.put("stored_per_s", stored)
    figures.put_ratio("stored_ratio", stored)
    figures.put_ratio("stored_sustained_ratio", stored, of="floor_sustained_rows_per_s")
    for role in runs[0].cpu_us_per_log:
        figures.put(f"cpu_us_per_log.{role}", median([run.cpu_us_per_log[role] for run in runs]))
        figures.put(f"peak_mib.{role}", max(run.peak_mib[role] for run in runs))
    cpu_us = median([sum(run.cpu_us_per_log.values()) for run in runs])
    figures.put("cpu_us_per_log.all", cpu_us)
    # What these cores could store with nothing else to do: the figure to compare where the machine was shared.
    figures.put("cpu_bound_per_s", (os.cpu_count() or 1) * 1e6 / cpu_us)
    figures.put("retried_requests", sum(sum(run.report.retried.values()) for run in runs))
    figures.put("lag_frames_max", max(sample.unread_frames for run in runs for sample in run.samples))
    shown = min(runs, key=lambda run: abs(run.stored_per_s - stored))
    for name, points in _series(shown).items():
        figures.put_series(name, points)


def _series(run: Run) -> dict[str, Points]:
    """Of the run nearest to the median: logs a second, lag, memory, against seconds since its beginning."""
    began_s = run.report.began_s
    stored = [(when - began_s, frames * LOGS_PER_REQUEST) for when, frames in stored_points(run.samples)]
    series: dict[str, Points] = {
        "accepted_per_s": [
            (second + 0.5, float(logs)) for second, logs in enumerate(run.report.accepted_by_second[:-1])
        ],
        "stored_per_s": [
            ((start[0] + end[0]) / 2, (end[1] - start[1]) / (end[0] - start[0]))
            for start, end in zip(stored[:-2:2], stored[2::2], strict=False)
        ],
        "lag_frames": [(sample.at_s - began_s, float(sample.unread_frames)) for sample in run.samples],
    }
    for role in run.samples[0].memory_mib:
        series[f"memory_mib.{role}"] = [
            (sample.at_s - began_s, sample.memory_mib[role]) for sample in run.samples if sample.memory_mib.get(role)
        ]
    return series


def _shown(cpu_us: dict[str, float]) -> str:
    return ", ".join(f"{role} {used:.2f}" for role, used in cpu_us.items())
