"""The benchmark runs from its first line to its report, in the smallest sizes, on both profiles."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from infra.fleet import EMBEDDED, FULL, REPOSITORY

SECTIONS = "floor,throughput,accept,wire,single,client,freshness,live,spread,pages,tiers"
FIGURES = (
    "floor_rows_per_s", "naive_rows_per_s", "accepted_per_s", "accepted_ratio", "stored_per_s", "stored_ratio",
    "accepted_alone_per_s", "accepted_alone_ratio", "single_posts_per_s", "single_posts_keyed_per_s",
    "client_caller_us", "client_logs_per_cpu_s", "client_logs_per_s",
    "freshness_p50_ms", "freshness_p99_ms", "page_p50_ms.newest", "page_p99_ms.rare_word", "page_p99_ms.deep",
    "page_busy_p99_ms.correlation_present", "bytes_per_log.open", "bytes_per_log.finished", "cpu_us_per_log.ingest",
    "cpu_us_per_log.writer", "cpu_us_per_log.database", "peak_mib.ingest", "peak_mib.database",
    "segment_rows_per_cpu_s", "segment_json_ratio", "page_p99_ms.files_id", "segment_scan_ms_per_million_rows",
    "correlation_filters_again_ms", "match_us_per_log", "match_ratio", "tail_cores", "tail_logs_shown_per_s",
    "spread_accepted_ratio.ingests_2", "spread_stored_per_s.writers_1", "spread_cpu_us_per_log.writers_1",
    "wire_ratio.otlp_protobuf", "wire_ratio.otlp_json", "wire_ratio.bulk",
)  # fmt: skip


@pytest.mark.long
@pytest.mark.timeout(900)
@pytest.mark.parametrize("profile", [EMBEDDED, FULL])
def test_the_benchmark_measures_everything(profile: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    if profile == FULL:
        request.getfixturevalue("kafka_bootstrap")
        request.getfixturevalue("timescale_server")
    sizes = ["--quick", "--rows=20000", "--questions=4", "--busy-rate=2000"]
    done = subprocess.run(
        [sys.executable, "-m", "bench", *sizes, f"--profile={profile}", f"--only={SECTIONS}", f"--results={tmp_path}"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    prefix = "embedded_" if profile == EMBEDDED else ""
    written = orjson.loads((tmp_path / "latest.json").read_bytes())
    assert written["errors"] == {}
    for name in FIGURES:
        assert written["figures"][prefix + name] > 0, name
    assert written["series"][f"{prefix}lag_frames"]
    assert "| goal |" in done.stdout
    assert (tmp_path / "latest.svg").read_text().startswith("<svg")


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_minute_of_the_soak_ends_with_a_verdict(kafka_bootstrap: str, timescale_server: str, tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-m", "bench.soak", "--minutes=1", "--rate=2000", f"--results={tmp_path}"],
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "**It holds.**" in done.stdout
    assert "is not to be read off it" in done.stdout, "a minute says nothing of hours"
    written = orjson.loads((tmp_path / "latest.json").read_bytes())
    assert len(written["looks"]) >= 4
    for look in written["looks"][1:]:
        assert {"ingest-0", "ingest-1", "writer-0", "writer-1", "query", "tier", "broker", "database"} <= look[
            "memory_mib"
        ].keys()
        assert min(look["memory_mib"].values()) > 0
        assert look["behind_s"] is not None
        assert look["database_bytes"] > 0
    assert (tmp_path / "latest.svg").read_text().count("<polyline") >= 11
