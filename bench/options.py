"""What is measured, and how long: one configuration for all figures of a report."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Final

from infra.fleet import EMBEDDED, FULL

SECTIONS: Final = (
    "floor",
    "throughput",
    "accept",
    "wire",
    "single",
    "client",
    "freshness",
    "live",
    "pages",
    "tiers",
    "patterns",
    "agent",
    "peers",
    "spread",
)
BY_DEFAULT: Final[dict[str, tuple[str, ...]]] = {
    FULL: SECTIONS,
    # The same code on the other broker and layout: how much of the floor it stores is what differs.
    EMBEDDED: ("floor", "throughput"),
}
"""Profile -> sections of a run that names neither."""


@dataclass(frozen=True, slots=True)
class Options:
    """Sizes of everything. Seconds are of the measured stretch, without warm-up and draining."""

    ingests: int = 1
    """Ingest processes."""
    writers: int = 2
    """Writer processes."""
    partitions: int = 4
    """Partitions of the topic."""
    connections: int = 4
    """Requests under way at once from the generator of batches."""
    lag_frames: int = 400
    """The sustained run sends only while fewer requests than this are accepted and not stored; 0: without a limit."""
    runs: int = 3
    """Repetitions of the sustained run and of accepting alone; the report has their medians."""
    warm_up_s: float = 6.0
    run_s: float = 30.0
    accept_s: float = 12.0
    wire_s: float = 6.0
    """Of one format of another shipper."""
    single_s: float = 8.0
    single_connections: int = 64
    """Enough that ingest is never without a request: what one costs is asked, not how long one takes."""
    client_logs: int = 400_000
    """That a program sends through the Python client."""
    floor_s: float = 3.0
    """Of one repetition."""
    floor_repetitions: int = 5
    naive_s: float = 6.0
    freshness_rate: float = 10_000.0
    """Logs a second beside the markers."""
    markers: int = 240
    tail_clients: int = 1_000
    tail_rate: float = 5_000.0
    """Logs a second while clients tail."""
    tail_s: float = 20.0
    rows: int = 20_000_000
    """Rows of the store that pages are asked of, over seven days; the newest fifth in the open chunk."""
    questions: int = 60
    """Questions of each kind."""
    deep_pages: int = 1_000
    """Which page of a walk is the deep one."""
    busy_rate: float = 50_000.0
    """Logs a second that come in while the questions are asked again; 0 leaves that out."""
    agent_mib: int = 64
    """MiB of lines that the agent sends."""
    pattern_lines: int = 100_000
    """Lines that the template miner gets at a time."""
    peer_s: float = 20.0
    spread_logs: int = 1_500_000
    """That wait for the writers each time, when their number changes."""
    spread_s: float = 8.0
    """Of accepting by a number of ingest processes."""
    section_deadline_s: float = 3_600.0


def quick(options: Options) -> Options:
    """The same in a few minutes: whether it runs, not how fast it is."""
    return replace(
        options,
        runs=1,
        warm_up_s=2.0,
        run_s=5.0,
        accept_s=3.0,
        wire_s=1.5,
        single_s=2.0,
        client_logs=20_000,
        floor_s=0.7,
        floor_repetitions=3,
        naive_s=1.5,
        markers=30,
        tail_clients=50,
        tail_rate=1_000.0,
        tail_s=4.0,
        rows=200_000,
        questions=10,
        deep_pages=100,
        busy_rate=10_000.0,
        agent_mib=4,
        pattern_lines=20_000,
        peer_s=4.0,
        spread_logs=300_000,
        spread_s=2.0,
    )
