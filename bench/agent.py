"""The agent on a host: how much it sends for each second of a core, how much memory it takes meanwhile, and how long the
last line of a huge file takes. Over HTTP, in a process of its own, against a server that only takes.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import httpx
import orjson
import yaml

from bench.figures import ProfileFigures
from bench.lines import moulds, single_lines
from bench.options import Options
from bench.processes import peak_mib
from bench.progress import progress
from bench.quantiles import percentile
from bench.sink import Sink
from infra.fleet import REPOSITORY

_MiB: Final = 1024 * 1024
_HUGE_BYTES: Final = 10 * 1024 * _MiB
_QUESTIONS: Final = 20
_DEADLINE_S: Final = 300.0


async def measure(options: Options, figures: ProfileFigures) -> None:
    """agent_mib_per_s, agent_json_mib_per_s: of files, for each second of a core; agent_memory_mib: most of them;
    agent_first_line_ms: p50."""
    memory_mib = []
    for name, is_json in (("agent_mib_per_s", False), ("agent_json_mib_per_s", True)):
        with tempfile.TemporaryDirectory() as made, Sink() as sink:
            folder = Path(made)
            (folder / "logs").mkdir()
            lines, size = _write(folder / "app.log", options.agent_mib * _MiB, is_json=is_json)
            with _agent(folder, sink) as process:
                _until(lambda sink=sink: bool(sink.heartbeat), process)  # type: ignore[misc]  # of this turn
                begun_cpu_s = _cpu_s(process.pid)
                (folder / "app.log").rename(folder / "logs" / "app.log")
                _until(lambda lines=lines, sink=sink: sink.logs >= lines, process)  # type: ignore[misc]  # of this turn
                cpu_s = _cpu_s(process.pid) - begun_cpu_s
                memory_mib.append(peak_mib(process.pid))
            figures.put(name, size / _MiB / cpu_s)
            progress(f"agent: {size / _MiB / cpu_s:.1f} MiB a core-second{' of JSON' if is_json else ''}")
    figures.put("agent_memory_mib", max(memory_mib))
    figures.put("agent_first_line_ms", _first_line_ms())


def _first_line_ms() -> float:
    with tempfile.TemporaryDirectory() as made, Sink() as sink:
        folder = Path(made)
        (folder / "logs").mkdir()
        with (folder / "logs" / "huge.log").open("wb") as file:
            file.truncate(_HUGE_BYTES)
            file.seek(0, os.SEEK_END)
            file.write(b"\nthe last line\n")
        with _agent(folder, sink, ship=False) as process:
            _until(lambda: bool(sink.heartbeat), process)
            headers = {"Authorization": f"Bearer {sink.heartbeat['token']}"}
            with httpx.Client(base_url=sink.heartbeat["address"], headers=headers, trust_env=False) as client:
                took_ms = []
                for _ in range(_QUESTIONS):
                    begun_s = time.perf_counter()
                    answer = client.get("/files/app/huge.log", params={"scope": '{"all":true}', "n": "1"})
                    took_ms.append((time.perf_counter() - begun_s) * 1000)
                    assert json.loads(answer.text.splitlines()[0])["line"] == "the last line"
    return percentile(took_ms, 0.5)


def _write(path: Path, size: int, *, is_json: bool) -> tuple[int, int]:
    """(lines, bytes) of a file of lines as programs write them."""
    written = lines = 0
    now = datetime.now(UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")
    with path.open("wb") as file:
        for raw in single_lines(moulds(8)):
            log = orjson.loads(raw)
            if is_json:
                log["time"] = now
                line = orjson.dumps(log, option=orjson.OPT_APPEND_NEWLINE)
            else:
                message = log["message"].replace("\n", " ")
                level = log.get("level", "INFO")
                line = f"{now} {level} [{log['service_name']}] trace_id={log['correlation_id']} {message}\n".encode()
            written += file.write(line)
            lines += 1
            if written >= size:
                return lines, written
    raise AssertionError("lines end")


@contextmanager
def _agent(folder: Path, sink: Sink, *, ship: bool = True) -> Iterator[subprocess.Popen[bytes]]:
    settings = {
        "name": "bench",
        "url": f"http://127.0.0.1:{sink.port}",
        "port": 0,
        "state_dir": str(folder / "state"),
        "roots": {"app": {"path": str(folder / "logs"), "service": "app", "ship": ship}},
    }
    (folder / "agent.yml").write_text(yaml.safe_dump({"agent": settings}))
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LOGFEED_")}
    process = subprocess.Popen(
        [sys.executable, "-m", "cli.main", "agent", "--config", str(folder / "agent.yml")],
        cwd=REPOSITORY,
        env=environment,
        stderr=subprocess.DEVNULL,
    )
    try:
        yield process
    finally:
        process.terminate()
        process.wait(60)


def _until(condition: Callable[[], bool], process: subprocess.Popen[bytes]) -> None:
    ends_s = time.monotonic() + _DEADLINE_S
    while not condition():
        assert process.poll() is None, "the agent ended"
        assert time.monotonic() < ends_s, "the agent is not done in time"
        time.sleep(0.02)


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")
