"""What the figures ought to be. Beside the figures in the report; a missed goal is said, it never fails a run."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from bench.wire_formats import FORMATS


@dataclass(frozen=True, slots=True)
class Goal:
    """A bound of one figure."""

    figure: str
    text: str
    """For people."""
    at_least: float | None = None
    at_most: float | None = None
    than: str | None = None
    """The bound is so many times this figure."""

    def is_met(self, numbers: Mapping[str, float]) -> bool | None:
        """None when a figure it needs was not measured."""
        value = numbers.get(self.figure)
        unit = 1.0 if self.than is None else numbers.get(self.than)
        if value is None or unit is None:
            return None
        return (self.at_least is None or value >= self.at_least * unit) and (
            self.at_most is None or value <= self.at_most * unit
        )


_PAGES: Final = (
    ("newest", "no filter"),
    ("service", "one of 45 services"),
    ("errors", "ERROR and above (2%)"),
    ("metadata", "metadata equality (1 of 10,000)"),
    ("common_word", "a common word"),
)
_LOOK_UPS: Final = (
    ("id_present", "an id", 10),
    ("id_absent", "an id that does not exist", 10),
    ("correlation_present", "a correlation id, no time given", 20),
    ("correlation_absent", "a correlation id that does not exist", 20),
)

GOALS: Final = (
    Goal("stored_ratio", "stored with everything on: 0.4 of the floor", at_least=0.4),
    Goal("stored_sustained_ratio", "the same for minutes: 0.4 of the floor for minutes", at_least=0.4),
    Goal("stored_ratio", "stored with everything on: half of the floor", at_least=0.5),
    Goal("stored_per_s", "stored with everything on: 100,000 logs/s", at_least=100_000),
    Goal("accepted_alone_ratio", "accepted while writers are stopped: 0.7 of the floor", at_least=0.7),
    *(Goal(f"wire_ratio.{name}", f"accepted as {name}: half of our own format", at_least=0.5) for name in FORMATS),
    Goal("embedded_stored_ratio", "stored in the embedded profile: 0.2 of the floor", at_least=0.2),
    Goal("cpu_us_per_post.ingest", "single POSTs: 4,000/s a core of ingest", at_most=250),
    Goal("cpu_us_per_post_keyed.ingest", "single POSTs with keys: 1,000/s a core of ingest", at_most=1_000),
    Goal("client_caller_us", "a log through the Python client: 10 µs for its caller", at_most=10),
    Goal("client_logs_per_cpu_s", "logs through the Python client: 50,000/s a core", at_least=50_000),
    Goal("peak_mib.ingest", "memory of ingest: 300 MB", at_most=286),
    Goal("peak_mib.writer", "memory of a writer: 500 MB", at_most=477),
    Goal("freshness_p50_ms", "visible at 10,000 logs/s, p50: 250 ms after its POST", at_most=250),
    Goal("match_us_per_log", "1,000 predicates, a tenth of them of the log's service: 10 µs a log", at_most=10),
    Goal("tail_cores", "1,000 tails, 100 questions, 5,000 logs/s: one core of query", at_most=1.0),
    Goal("freshness_p99_ms", "visible at 10,000 logs/s, p99: 1 s after its POST", at_most=1_000),
    *(Goal(f"page_p50_ms.{kind}", f"page, {what}, p50: 10 ms", at_most=10) for kind, what in _PAGES),
    *(Goal(f"page_p99_ms.{kind}", f"page, {what}, p99: 50 ms", at_most=50) for kind, what in _PAGES),
    *(Goal(f"page_p50_ms.{kind}", f"{what}, p50: {ms} ms", at_most=ms) for kind, what, ms in _LOOK_UPS),
    Goal("page_p50_ms.deep", "page 1,000 deep, p50: as fast as page 1 (1.25)", at_most=1.25, than="page_p50_ms.newest"),
    Goal("page_rare_word_ms_per_million_rows", "a rare word: 300 ms a million rows looked at", at_most=300),
    Goal("segment_json_ratio", "bytes in files: 0.14 of the JSON text", at_most=0.14),
    Goal("segment_rows_per_cpu_s", "rows to files, verified: 300,000/s a core", at_least=300_000),
    *(Goal(f"page_p50_ms.files_{kind}", f"page in files, {what}: 100 ms", at_most=100) for kind, what in _PAGES),
    Goal("page_p50_ms.files_first_match", "a rare text among the newest in files, first match: 1 s", at_most=1_000),
    Goal("segment_scan_ms_per_million_rows", "a text that is nowhere, in files: 120 ms a million rows", at_most=120),
    Goal("correlation_filters_first_ms", "a correlation id over 2,000 files, first: 500 ms", at_most=500),
    Goal("correlation_filters_again_ms", "a correlation id over 2,000 files, again: 50 ms", at_most=50),
    Goal("patterns_accuracy_mean", "patterns: grouping accuracy over six systems: 0.9", at_least=0.9),
    Goal("agent_mib_per_s", "the agent sends 20 MiB of lines a core-second", at_least=20),
    Goal("agent_memory_mib", "memory of the agent: 60 MB", at_most=57.2),
    Goal("agent_first_line_ms", "the last line of 10 GB, over HTTP: 50 ms", at_most=50),
    Goal("patterns_lines_per_cpu_s", "patterns: 100,000 lines/s a core", at_least=100_000),
    *(
        Goal(f"page_busy_p99_ms.{kind}", f"page, {what}, while logs come in, p99: 200 ms", at_most=200)
        for kind, what in _PAGES
    ),
)
"""In the order of the report."""
