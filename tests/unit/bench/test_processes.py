"""CPU time and memory of trees of processes, and what is made of samples of them."""

from __future__ import annotations

import os
import subprocess
import sys
import time

import pytest

from bench.processes import peak_mib, usage, usage_of
from bench.watch import Sample, cpu_between, peaks_mib, stored_points


def test_a_tree_counts_its_children_also_when_they_have_ended() -> None:
    burn = "import time\nwhile time.process_time() < 0.3: pass"
    parent = f"import subprocess, sys, time; subprocess.run([sys.executable, '-c', {burn!r}]); time.sleep(60)"
    process = subprocess.Popen([sys.executable, "-c", parent])
    try:
        deadline_s = time.monotonic() + 30
        while usage([process.pid]).cpu_s < 0.3:
            assert time.monotonic() < deadline_s
            time.sleep(0.02)
    finally:
        process.kill()
        process.wait()
    assert usage([process.pid]).cpu_s == 0.0
    assert usage_of({"gone": [process.pid], "here": [os.getpid()]}).keys() == {"here"}


def test_memory_of_one_process_is_its_own() -> None:
    # Not this process: it may have servers for children.
    waits = "content = bytearray(50_000_000); print(len(content), flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", waits], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline()
        used = usage([process.pid])
        assert 48 < used.memory_mib <= used.peak_mib * 1.01
        assert used.peak_mib == pytest.approx(peak_mib(process.pid), rel=0.05)
        process.kill()


def _sample(at_s: float, frames: int, cpu_s: float, mib: float) -> Sample:
    return Sample(at_s, frames, 3, {"writer": cpu_s}, {"writer": mib}, {"writer": mib})


def test_samples_give_growth_cpu_and_peaks() -> None:
    samples = [_sample(100.0, 10, 1.0, 50.0), _sample(101.0, 30, 1.5, 70.0), _sample(102.0, 30, 1.6, 60.0)]
    assert stored_points(samples) == [(100.0, 0.0), (101.0, 20.0), (102.0, 20.0)]
    assert cpu_between(samples, "writer", 100.5, 101.0) == pytest.approx(0.25)
    assert peaks_mib(samples) == {"writer": 70.0}
