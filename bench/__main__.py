"""`make bench`: how fast it is, measured on this machine with everything running at once.

    python -m bench [--quick] [--profile full|embedded] [--only SECTION,…] [--minutes M] [--rows N] [--runs R] …

Sections: floor, throughput, accept, wire, single, client, freshness, live, pages, tiers, patterns, agent, peers, spread.
Absolute figures belong to the machine and the minute; ratios to the floor of the same run are what may be compared. One
section's failure is recorded and the others go on; the exit code is then 1. No figure ever fails a run.
"""

from __future__ import annotations

import argparse
import asyncio
import sys
import traceback
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from bench import (
    accept,
    agent,
    client,
    floor,
    freshness,
    live,
    machine,
    pages,
    patterns,
    peers,
    plot,
    report,
    single,
    spread,
    throughput,
    tiers,
    wire_ratios,
)
from bench.figures import Figures, ProfileFigures
from bench.options import BY_DEFAULT, SECTIONS, Options, quick
from bench.progress import progress
from bench.site import Site, running_site
from infra.fleet import EMBEDDED, FULL
from runtime.telemetry import configure_logging

Measure = Callable[[Site, Options, ProfileFigures], Awaitable[None]]

_ON_ONE_SITE: tuple[dict[str, Measure], ...] = (
    {
        "floor": floor.measure,
        "throughput": throughput.measure,
        "accept": accept.measure,
        "wire": wire_ratios.measure,
        "single": single.measure,
        "client": client.measure,
        "freshness": freshness.measure,
        "live": live.measure,
        "spread": spread.measure,
    },
    {"pages": pages.measure, "tiers": tiers.measure},
)
"""Sections that share servers, in the order they run. Pages want an empty store, tiers move what pages
were asked of."""


@dataclass(frozen=True, slots=True)
class Task:
    """What one invocation measures."""

    profiles: tuple[str, ...]
    sections: tuple[str, ...] | None
    """None: a profile's own by default."""
    options: Options
    results: Path = report.RESULTS
    """Directory that the report goes to."""

    def sections_of(self, profile: str) -> tuple[str, ...]:
        """In the order they run."""
        if self.sections is not None:
            return self.sections
        return BY_DEFAULT[profile] if len(self.profiles) > 1 else SECTIONS


def run(task: Task, figures: Figures) -> None:
    """Measure everything asked for."""
    for profile in task.profiles:
        sections = task.sections_of(profile)
        for together in _ON_ONE_SITE:
            wanted = {name: measure for name, measure in together.items() if name in sections}
            if wanted:
                _run_on_site(profile, wanted, task.options, figures)
    if any("patterns" in task.sections_of(profile) for profile in task.profiles):
        progress("patterns")
        _attempt("patterns", patterns.measure(task.options, figures.of(FULL)), task.options, figures)
    if any("agent" in task.sections_of(profile) for profile in task.profiles):
        progress("agent")
        _attempt("agent", agent.measure(task.options, figures.of(FULL)), task.options, figures)
    if any("peers" in task.sections_of(profile) for profile in task.profiles):
        progress("peers")
        _attempt("peers", peers.measure(task.options, figures.of(FULL)), task.options, figures)


def _run_on_site(profile: str, sections: Mapping[str, Measure], options: Options, figures: Figures) -> None:
    progress(f"{profile}: starting the servers")
    try:
        with running_site(profile, options) as site:
            for name, measure in sections.items():
                progress(f"{profile}: {name}")
                section = measure(site, options, figures.of(profile))
                if not _attempt(f"{profile}.{name}", section, options, figures):
                    print(site.fleet.failures(), file=sys.stderr)
    except Exception as error:
        _note(f"{profile}.servers", error, figures)


def _attempt(name: str, section: Awaitable[None], options: Options, figures: Figures) -> bool:
    """Run a section; its failure is noted and does not lose the others' figures."""
    try:
        asyncio.run(_bounded(section, options))
    except Exception as error:
        _note(name, error, figures)
        return False
    return True


async def _bounded(section: Awaitable[None], options: Options) -> None:
    async with asyncio.timeout(options.section_deadline_s):
        await section


def _note(name: str, error: BaseException, figures: Figures) -> None:
    if isinstance(error, Exception):
        traceback.print_exception(error, file=sys.stderr)
    figures.errors[name] = f"{type(error).__name__}: {error}"
    progress(f"{name} failed: {type(error).__name__}")


def parse_arguments(arguments: Sequence[str] | None = None) -> Task:
    """What a command line asks for. Ends the process with exit code 2 for one that is wrong."""
    defaults = Options()
    parser = argparse.ArgumentParser(prog="python -m bench", description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="small sizes: whether it runs, not how fast it is")
    parser.add_argument("--profile", choices=[FULL, EMBEDDED], action="append", help="only this one (may repeat)")
    parser.add_argument("--only", metavar="SECTION,…", help=f"of {', '.join(SECTIONS)}")
    parser.add_argument("--minutes", type=float, help="length of the sustained run (default half a minute)")
    parser.add_argument("--rows", type=int, help=f"rows for the pages (default {defaults.rows:,})")
    parser.add_argument("--runs", type=int, help=f"sustained runs (default {defaults.runs})")
    parser.add_argument("--ingests", type=int, help=f"ingest processes (default {defaults.ingests})")
    parser.add_argument("--writers", type=int, help=f"writer processes (default {defaults.writers})")
    parser.add_argument("--connections", type=int, help=f"requests at once (default {defaults.connections})")
    parser.add_argument("--partitions", type=int, help=f"of the topic (default {defaults.partitions})")
    parser.add_argument(
        "--lag-frames", type=int, help=f"bound of the sustained run's lag (default {defaults.lag_frames})"
    )
    parser.add_argument("--questions", type=int, help=f"questions of each kind (default {defaults.questions})")
    parser.add_argument("--busy-rate", type=float, help=f"logs/s beside the pages (default {defaults.busy_rate:,.0f})")
    parser.add_argument("--results", type=Path, default=report.RESULTS, help="directory for the report (bench/results)")
    given = parser.parse_args(arguments)
    sections = None if given.only is None else tuple(given.only.split(","))
    for name in sections or ():
        if name not in SECTIONS:
            parser.error(f"--only: expected one of {', '.join(SECTIONS)}, got {name!r}")
    options = quick(defaults) if given.quick else defaults
    names = (
        "rows", "runs", "ingests", "writers", "connections", "partitions", "lag_frames", "questions", "busy_rate",
    )  # fmt: skip
    changed = {name: getattr(given, name) for name in names if getattr(given, name) is not None}
    if given.minutes is not None:
        changed["run_s"] = given.minutes * 60
    return Task(tuple(given.profile or (FULL, EMBEDDED)), sections, replace(options, **changed), given.results)


def main() -> None:
    """Run, write the report, print its table; exit code 1 when a section failed."""
    configure_logging(level="warning")
    task = parse_arguments()
    facts = machine.facts()
    figures = Figures()
    try:
        run(task, figures)
    except KeyboardInterrupt as interrupt:
        _note("everything after it was interrupted", interrupt, figures)
    print(report.write(task.results, figures, facts, task.options, plot=plot.picture(figures)))
    print(f"written to {task.results}")
    sys.exit(1 if figures.errors else 0)


if __name__ == "__main__":
    main()
