"""`make soak`: whether it holds for hours. A steady load, everything running, a look each ten seconds, a verdict.

    python -m bench.soak [--minutes 60] [--rate 20000] [--profile full|embedded] [--results DIRECTORY]

Two ingests, two writers, query, tier, the broker and the database run as processes; a generator sends `rate` logs a second in
an open loop. Each look takes the memory of each process, what is accepted and not stored, how far pages see
(`visible_through`), the bytes of the database and of files. Nothing is kept but the looks: an hour is 360 of them.

The verdict is over the looks after the first tenth, in which caches fill: the slope of each process's memory, by least squares,
and that of the lag, both as what they would add in an hour. It holds when at the end everything accepted is stored and booked,
no request was refused, lag does not grow, and no process's memory grows by more than a twentieth of itself and 16 MiB an hour.
That of database and broker is shown and not judged: buffers and heap fill up to what they were given. Exit code 1 where it does
not hold.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Final

import httpx
import msgspec

from bench import machine, plot
from bench.figures import Figures, Points, ProfileFigures
from bench.generator import GeneratorReport
from bench.load import Load
from bench.options import Options
from bench.processes import usage_of
from bench.progress import progress
from bench.site import Site, running_site
from bench.soak_verdict import Look, Verdict, judge
from bench.watch import Store, opened_store
from infra.fleet import EMBEDDED, FULL
from runtime.telemetry import configure_logging

LOOK_EVERY_S: Final = 10.0
RESULTS: Final = Path(__file__).parent / "results" / "soak"
_BYTES: Final = "SELECT pg_database_size(current_database())"


@dataclass(frozen=True, slots=True)
class Task:
    """What one invocation does."""

    minutes: float = 60.0
    rate: float = 20_000.0
    """Logs a second."""
    profile: str = FULL
    results: Path = RESULTS
    look_every_s: float = LOOK_EVERY_S


async def soak(site: Site, task: Task) -> tuple[list[Look], Verdict, GeneratorReport]:
    """Load, look, judge."""
    await site.start_pipeline()
    await site.start_query()
    site.start_tier()
    key = {"authorization": f"Bearer {site.read_key}"}
    async with opened_store(site.fleet) as store, httpx.AsyncClient(trust_env=False, timeout=30, headers=key) as client:
        booked_before = await store.booked_logs()
        load = Load(site.ingest_urls, connections=8, rate=task.rate, seconds=task.minutes * 60, seed=90)
        looks: list[Look] = []
        async with load:
            began_s = time.monotonic()
            load.go()
            reporting = asyncio.create_task(load.report())
            while not reporting.done():
                looks.append(await _look(site, store, client, began_s))
                site.check()
                progress(_shown(looks[-1]))
                await asyncio.wait({reporting}, timeout=task.look_every_s)
            sent = await reporting
        await site.drained(store)
        booked = await store.booked_logs() - booked_before
    return looks, judge(looks, accepted=sent.accepted_logs, booked=booked, refused=sum(sent.retried.values())), sent


async def _look(site: Site, store: Store, client: httpx.AsyncClient, began_s: float) -> Look:
    answer = await client.get(f"{site.fleet.url('query')}/api/v1/logs", params={"limit": 1, "start_time": "-1m"})
    visible = answer.json()["visible_through"] if answer.status_code == 200 else None
    behind_s = None if visible is None else time.time() - datetime.fromisoformat(visible).timestamp()
    files = site.fleet.directory / "segments"
    return Look(
        at_s=time.monotonic() - began_s,
        memory_mib={role: used.memory_mib for role, used in usage_of(site.processes()).items()},
        lag_frames=await store.unread_frames(),
        behind_s=behind_s,
        database_bytes=await store.number(_BYTES),
        files_bytes=sum(each.stat().st_size for each in files.rglob("*") if each.is_file()) if files.exists() else 0,
    )


def _shown(look: Look) -> str:
    memory = ", ".join(f"{role} {mib:.0f}" for role, mib in sorted(look.memory_mib.items()))
    behind = "–" if look.behind_s is None else f"{look.behind_s:.1f} s"
    return f"{look.at_s:.0f} s: lag {look.lag_frames}, pages {behind} behind, {look.stored_mib:,.0f} MiB stored; MiB: {memory}"


def series_of(looks: Sequence[Look]) -> dict[str, Points]:
    """Lines of the plot, under the names that bench.plot draws."""
    series: dict[str, Points] = {
        "lag_frames": [(look.at_s, float(look.lag_frames)) for look in looks],
        "behind_s": [(look.at_s, look.behind_s) for look in looks if look.behind_s is not None],
        "stored_mib": [(look.at_s, look.stored_mib) for look in looks],
    }
    for role in looks[0].memory_mib:
        series[f"memory_mib.{role}"] = [(look.at_s, look.memory_mib[role]) for look in looks if role in look.memory_mib]
    return series


def written(
    task: Task, looks: Sequence[Look], verdict: Verdict, sent: GeneratorReport, facts: Mapping[str, str | float]
) -> str:
    """Write latest.json (all looks), latest.md (the verdict) and latest.svg; returns the Markdown."""
    figures = Figures()
    of_profile = ProfileFigures(figures, "")
    for name, points in series_of(looks).items():
        of_profile.put_series(name, points)
    task.results.mkdir(parents=True, exist_ok=True)
    about = {"minutes": task.minutes, "rate": task.rate, "profile": task.profile, "machine": dict(facts)}
    content = {"task": about, "verdict": verdict, "looks": looks}
    (task.results / "latest.json").write_bytes(msgspec.json.format(msgspec.json.encode(content)) + b"\n")
    picture = plot.picture(figures)
    if picture is not None:
        (task.results / "latest.svg").write_text(picture)
    lines = [
        "; ".join(f"{name.replace('_', ' ')}: {value}" for name, value in facts.items()),
        "",
        f"{task.minutes:g} minutes at {task.rate:,.0f} logs/s, {task.profile} profile:"
        f" {sent.accepted_logs:,} accepted, {sent.accepted_logs / sent.took_s:,.0f} a second",
        "",
        "| | at first | at most | at last | a hour adds |",
        "|---|---:|---:|---:|---:|",
        *(
            f"| {trend.name} | {trend.first:,.1f} | {trend.most:,.1f} | {trend.last:,.1f} | {trend.per_hour:+,.1f} |"
            for trend in verdict.trends
        ),
        "",
        "**It holds.**" if verdict.holds else "**It does not hold:** " + "; ".join(verdict.problems),
    ]
    if verdict.is_short:
        lines += ["", "So short a run shows that the measure works; what an hour adds is not to be read off it."]
    text = "\n".join(lines) + "\n"
    (task.results / "latest.md").write_text(text)
    return text


def parse_arguments(arguments: Sequence[str] | None = None) -> Task:
    """What a command line asks for."""
    task = Task()
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--minutes", type=float, default=task.minutes, help="how long (default 60)")
    parser.add_argument("--rate", type=float, default=task.rate, help="logs a second (default 20,000)")
    parser.add_argument("--profile", choices=[FULL, EMBEDDED], default=task.profile)
    parser.add_argument("--results", type=Path, default=task.results, help="directory (bench/results/soak)")
    given = parser.parse_args(arguments)
    if given.minutes <= 0 or given.rate <= 0:
        parser.error("--minutes and --rate must be above 0")
    return replace(task, minutes=given.minutes, rate=given.rate, profile=given.profile, results=given.results)


def main() -> None:
    """Run; exit code 1 where it does not hold."""
    configure_logging(level="warning")
    task = parse_arguments()
    with running_site(task.profile, replace(Options(), ingests=2, writers=2)) as site:
        looks, verdict, sent = asyncio.run(soak(site, task))
    print(written(task, looks, verdict, sent, machine.facts()))
    print(f"written to {task.results}")
    sys.exit(0 if verdict.holds else 1)


if __name__ == "__main__":
    main()
