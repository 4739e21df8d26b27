"""`logfeed export` over real HTTP: a file is whole or not there, and what is in it can be imported again."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import duckdb
import msgspec
import orjson
import pyarrow.parquet as pq
import pytest
import typer
import zstandard
from typer.testing import CliRunner, Result

from cli.exporting.command import export
from cli.importing.command import import_logs
from schemas.export_lines import COLUMNS
from schemas.pages import LogModel, log_json
from schemas.record import Log
from store.export_file import SCHEMA
from tests.commands import logfeed
from tests.integration.recording_server import RecordingServer
from tests.integration.test_up import Up, until

REPOSITORY = Path(__file__).resolve().parents[2]
MESSAGES = (
    "plain",
    'comma, "quote" and \\ backslash',
    "two\nlines\r\nand more",
    " leading and trailing \n",
    "=SUM(A1)",
    "é \u2028 \ufeff \U0001f600 \x01 \t",
    '{"message": "an object", "level": "error"}',
    "2026-11-22 10:00:00 ERROR looks like a line",
)
METADATA: tuple[dict[str, Any], ...] = (
    {},
    {"n": 1, "deep": {"list": [1, None, True, "x"]}, "text": "a\nb"},
    {"timestamp": "yesterday", "level": "x", "message": "y", "service": "z", "id": 5, "log": {"level": "q"}},
    {"big": 2**70, "small": -1.5e-7},
)


def some_logs(count: int, *, begin: datetime = datetime(2026, 11, 22, 10, tzinfo=UTC), big: bool = True) -> list[Log]:
    first_us = int(begin.timestamp()) * 1_000_000
    kinds = METADATA if big else METADATA[:3]
    return [
        Log(
            id=(1 << 60) + number,
            timestamp=first_us + number * 1_234_567,
            level=1 + number % 24,
            service_name=("pay", "auth/a", "Z.z_-")[number % 3],
            message=f"{MESSAGES[number % len(MESSAGES)]}",
            correlation_id=None if number % 3 else f"c:{number}",
            metadata=kinds[number % len(kinds)],
        )
        for number in range(count)
    ]


def pages_of(logs: list[Log], size: int) -> list[tuple[int, Any]]:
    """Answers that walk over these logs, the last one empty."""
    parts = [logs[at : at + size] for at in range(0, len(logs), size)] + [[]]
    last = len(parts) - 1
    return [
        (200, {"logs": [_wire(log) for log in part], "next_cursor": None if number == last else f"cursor-{number}"})
        for number, part in enumerate(parts)
    ]


def _wire(log: Log) -> Any:
    """As the server writes it; orjson has no integers past 64 bits, so they are text here and put back by `serve`."""
    document = log_json(log)
    document["metadata"] = orjson.Fragment(json.dumps(log.metadata, ensure_ascii=False))
    return document


def run(*arguments: str) -> Result:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(export)
    return CliRunner().invoke(app, arguments)


def told(log: Log) -> tuple[Any, ...]:
    return (
        log.timestamp,
        log.level,
        log.service_name,
        log.message,
        log.correlation_id,
        json.dumps(log.metadata, sort_keys=True),
    )


def read_ndjson(text: str) -> list[Log]:
    return [_log(json.loads(line)) for line in text.split("\n")[:-1]]


def _log(fields: dict[str, Any]) -> Log:
    moment = datetime.fromisoformat(fields["timestamp"])
    metadata = fields["metadata"] if isinstance(fields["metadata"], dict) else json.loads(fields["metadata"])
    return Log(
        id=int(fields["id"]),
        timestamp=(moment - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1),
        level=int(fields["severity"]),
        service_name=fields["service_name"],
        message=fields["message"],
        correlation_id=fields["correlation_id"] or None,
        metadata=metadata,
    )


def decompressed(path: Path) -> str:
    raw = path.read_bytes()
    if path.suffix == ".gz":
        raw = gzip.decompress(raw)
    elif path.suffix == ".zst":
        raw = zstandard.ZstdDecompressor().stream_reader(io.BytesIO(raw), read_across_frames=True).read()
    return raw.decode()


def meant(field: str) -> str:
    """A field of a CSV without what keeps spreadsheets from taking it for a formula."""
    return field[1:] if field[:2] in ("'=", "'+", "'-", "'@") else field


def read_file(path: Path) -> list[Log]:
    """The logs of an export, by tools that are not ours."""
    if path.suffix == ".parquet":
        rows = pq.read_table(path).to_pylist()
        return [_log({**row, "timestamp": row["timestamp"].isoformat()}) for row in rows]
    text = decompressed(path)
    if ".csv" in path.name:
        return [
            _log({**row, "message": meant(row["message"])}) for row in csv.DictReader(io.StringIO(text, newline=""))
        ]
    return read_ndjson(text)


def test_columns_are_the_fields_of_the_api_in_its_order() -> None:
    assert COLUMNS == tuple(LogModel.model_fields) == tuple(SCHEMA.names)


@pytest.mark.parametrize(
    "name", ["a.ndjson", "a.jsonl.gz", "a.ndjson.zst", "a.csv", "a.csv.gz", "a.csv.zst", "a.parquet"]
)
def test_file_has_every_log_of_every_page_exactly(tmp_path: Path, name: str) -> None:
    logs, path = some_logs(250), tmp_path / name
    with RecordingServer() as server:
        server.pages = [(503, {"title": "busy", "detail": "later"}), *pages_of(logs, 60)]
        result = run("--url", server.url, "-o", str(path), "--query", "x", "--from", "-1h", "-s", "pay")
    assert result.exit_code == 0, result.output
    assert read_file(path) == logs
    assert [item.name for item in tmp_path.iterdir()] == [name]
    assert dict(server.questions[1]) == {
        "query": "x",
        "start_time": "-1h",
        "service_name": "pay",
        "order": "asc",
        "limit": "1000",
    }
    assert [dict(question).get("cursor") for question in server.questions[2:]] == [f"cursor-{n}" for n in range(5)]
    assert "250 logs" in result.output


@pytest.mark.parametrize("name", ["a.ndjson", "a.ndjson.gz", "a.ndjson.zst", "a.csv", "a.csv.gz", "a.parquet"])
def test_nothing_found_is_a_file_of_its_kind_without_logs(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    with RecordingServer() as server:
        server.pages = pages_of([], 1)
        result = run("--url", server.url, "-o", str(path))
    assert result.exit_code == 0, result.output
    assert read_file(path) == []
    if ".csv" in name:
        assert decompressed(path) == ",".join(COLUMNS) + "\r\n"


def test_duckdb_reads_the_files_as_they_are(tmp_path: Path) -> None:
    logs = some_logs(100)
    for name in ("a.csv.gz", "a.parquet"):
        path = tmp_path / name
        with RecordingServer() as server:
            server.pages = pages_of(logs, 30)
            assert run("--url", server.url, "-o", str(path)).exit_code == 0
        rows = duckdb.connect().execute(f"SELECT id, message, metadata FROM '{path}' ORDER BY id").fetchall()
        assert [(int(row[0]), meant(row[1]), json.loads(row[2])) for row in rows] == [
            (log.id, log.message, log.metadata) for log in logs
        ]


def test_standard_output_gets_the_bytes_of_the_file(tmp_path: Path) -> None:
    logs = some_logs(20)
    for format in ("ndjson", "csv", "parquet"):
        with RecordingServer() as server:
            server.pages = pages_of(logs, 7)
            done = subprocess.run(
                [sys.executable, "-m", "cli.main", "export", "--url", server.url, "--format", format],
                cwd=REPOSITORY,
                capture_output=True,
                timeout=60,
            )
        assert done.returncode == 0, done.stderr
        path = tmp_path / f"a.{format}"
        path.write_bytes(done.stdout)
        assert read_file(path) == logs


@pytest.mark.parametrize("name", ["a.ndjson", "a.csv.gz", "a.ndjson.zst"])
def test_export_that_was_stopped_goes_on_with_its_cursor(tmp_path: Path, name: str) -> None:
    logs, path = some_logs(250), tmp_path / name
    pages = pages_of(logs, 60)
    arguments = ["-o", str(path), "--give-up-after", "0"]
    with RecordingServer() as server:
        server.pages = [*pages[:2], (503, {"title": "busy", "detail": "later"})]
        stopped = run("--url", server.url, *arguments)
        assert stopped.exit_code == 3, stopped.output
        assert "120 logs are written: repeat the same command to go on" in stopped.output
        assert not path.exists()
        other = run("--url", server.url, *arguments, "--query", "other")
        assert (other.exit_code, "--restart" in other.output) == (2, True)
        # What another process had written behind what is settled does not count.
        with path.with_name(name + ".tmp").open("ab") as unfinished:
            unfinished.write(b"half a li")
        server.questions.clear()
        server.pages = pages[2:]
        result = run("--url", server.url, *arguments)
        assert result.exit_code == 0, result.output
        assert "goes on after 120 logs" in result.output
        assert dict(server.questions[0])["cursor"] == "cursor-1"
    assert read_file(path) == logs
    assert [item.name for item in tmp_path.iterdir()] == [name]


def test_parquet_export_that_was_stopped_leaves_nothing_and_begins_anew(tmp_path: Path) -> None:
    logs, path = some_logs(100), tmp_path / "a.parquet"
    pages = pages_of(logs, 30)
    with RecordingServer() as server:
        server.pages = [*pages[:2], (503, {"title": "busy", "detail": "later"})]
        stopped = run("--url", server.url, "-o", str(path), "--give-up-after", "0")
        assert (stopped.exit_code, list(tmp_path.iterdir())) == (3, [])
        assert "begin anew" in stopped.output
        server.pages = pages
        assert run("--url", server.url, "-o", str(path)).exit_code == 0
    assert read_file(path) == logs


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT], ids=["kill", "interrupt"])
def test_killed_export_never_bears_the_file_name_and_can_be_repeated(tmp_path: Path, kill: signal.Signals) -> None:
    logs, path = some_logs(200), tmp_path / "a.ndjson.gz"
    pages = pages_of(logs, 40)
    with RecordingServer() as server:
        # Behind three pages the server is busy until somebody ends the export.
        server.pages = [*pages[:3], *[(503, {"title": "busy", "detail": "later"})] * 10_000]
        process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "export", "--url", server.url, "-o", str(path)],
            cwd=REPOSITORY,
            stderr=subprocess.PIPE,
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        until(lambda: len(server.questions) > 4, "three pages were fetched")
        process.send_signal(kill)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == (130 if kill is signal.SIGINT else -signal.SIGKILL), errors
        assert not path.exists()
        with server.lock:
            server.pages = pages[3:] if kill is signal.SIGINT else pages
        result = run("--url", server.url, "-o", str(path))
        assert result.exit_code == 0, result.output
    assert read_file(path) == logs


def test_wrong_usage_is_told_before_anything_is_asked(tmp_path: Path) -> None:
    there = tmp_path / "there.csv"
    there.write_text("mine")
    with RecordingServer() as server:
        for arguments, word in (
            (["-o", str(there)], "--force"),
            (["-o", str(tmp_path / "no" / "a.csv")], "cannot be a file"),
            (["-o", str(tmp_path / "a.parquet.gz")], "compressed in itself"),
            (["-m", "novalue"], "KEY=VALUE"),
            (["--url", "ftp://x"], "--url"),
        ):
            result = run("--url", server.url, *arguments)
            assert (result.exit_code, word in result.output) == (2, True), result.output
        assert server.questions == []
        server.pages = pages_of(some_logs(3), 2)
        assert run("--url", server.url, "-o", str(there), "--force").exit_code == 0
        server.pages = [(422, {"title": "t", "detail": "what is level:x", "errors": []})]
        refused = run("--url", server.url, "--query", "level:x")
        assert (refused.exit_code, "what is level:x" in refused.output) == (2, True)
    assert len(read_file(there)) == 3


def test_output_that_cannot_be_written_ends_with_1() -> None:
    with RecordingServer() as server:
        server.pages = pages_of(some_logs(2_000), 900)
        done = subprocess.run(
            f"{sys.executable} -m cli.main export --url {server.url} > /dev/full",
            shell=True,
            cwd=REPOSITORY,
            stderr=subprocess.PIPE,
            timeout=60,
        )
    assert done.returncode == 1, done.stderr
    assert b"No space left" in done.stderr


@pytest.mark.parametrize("name", ["a.ndjson", "a.csv.gz", "a.parquet"])
def test_a_full_disk_is_told_and_nothing_half_is_left(tmp_path: Path, name: str) -> None:
    """On a real file system of 256 KiB, where the tests may mount one."""
    mount = ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(tmp_path)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        pytest.skip("no right to mount a small file system")
    try:
        with RecordingServer() as server:
            noise = [msgspec.structs.replace(log, message=os.urandom(1_000).hex()) for log in some_logs(1_000)]
            server.pages = pages_of(noise, 100)
            result = run("--url", server.url, "-o", str(tmp_path / name))
        assert result.exit_code == 1, result.output
        assert "No space left" in result.output
        assert os.listdir(tmp_path) == []
    finally:
        subprocess.run(["umount", "--lazy", str(tmp_path)], check=True)


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", ["a.ndjson.zst", "a.csv", "a.parquet"])
def test_memory_does_not_grow_with_the_export(tmp_path: Path, name: str) -> None:
    """Two exports, the second ten times as long: 80 MB."""
    program = (
        "import resource, sys\nfrom cli.main import app\ntry:\n    app()\n"
        "finally:\n    print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    )
    logs = [_wire(log) | {"message": f"{log.id}" * 75} for log in some_logs(1_000)]
    peaks = []
    for pages in (5, 50):
        path = tmp_path / f"{pages}-{name}"
        with RecordingServer() as server:
            server.pages = [(200, {"logs": logs, "next_cursor": "more"})] * (pages - 1)
            server.pages.append((200, {"logs": logs, "next_cursor": None}))
            done = subprocess.run(
                [sys.executable, "-c", program, "export", "--url", server.url, "-o", str(path)],
                cwd=REPOSITORY,
                capture_output=True,
                text=True,
                timeout=280,
            )
        assert done.returncode == 0, done.stderr
        assert f"{pages * 1_000:,} logs" in done.stderr
        peaks.append(int(done.stdout.split()[-1]))
    # A row group of Parquet is gathered, and the first export does not fill one.
    assert peaks[1] - peaks[0] < (200 if name == "a.parquet" else 24) * 1024


@pytest.mark.parametrize("name", ["a.ndjson", "a.ndjson.gz", "a.ndjson.zst"])
def test_exported_file_imported_again_gives_the_same_logs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    logs, path = some_logs(100, big=False), tmp_path / name
    with RecordingServer() as server:
        server.pages = pages_of(logs, 30)
        assert run("--url", server.url, "-o", str(path)).exit_code == 0
        app = typer.Typer(pretty_exceptions_enable=False)
        app.command()(import_logs)
        result = CliRunner().invoke(app, ["--url", server.url, "--retention-days", "30000", str(path)])
        assert result.exit_code == 0, result.output
        sent = [
            (
                datetime.fromisoformat(log["timestamp"]),
                log["level"],
                log["service_name"],
                log["message"],
                log.get("correlation_id"),
                log.get("metadata", {}),
            )
            for log in server.logs()
        ]
    assert sorted(sent, key=str) == sorted(
        (
            (
                datetime.fromisoformat(log_json(log)["timestamp"]),
                log.level,
                log.service_name,
                log.message,
                log.correlation_id,
                log.metadata,
            )
            for log in logs
        ),
        key=str,
    )


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_what_a_real_server_exports_it_takes_again(tmp_path: Path) -> None:
    """Import, export in every format, import the export: each log twice, to the microsecond."""
    begin = datetime.now(UTC) - timedelta(hours=2)
    logs = some_logs(2_500, begin=begin, big=False)
    original = tmp_path / "original.ndjson"
    original.write_bytes(b"".join(orjson.dumps(log_json(log)) + b"\n" for log in logs))
    server = Up(tmp_path / "data").ready()

    def command(*arguments: str) -> str:
        places = {"XDG_STATE_HOME": str(tmp_path / "state"), "LOGFEED_DATA_DIR": str(tmp_path / "data")}
        done = logfeed(*arguments, "--url", server.url, NO_PROXY="127.0.0.1", **places)
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    def stored(count: int) -> list[Log]:
        """What an export has, once so many logs are visible."""
        deadline = time.monotonic() + 60
        while len(found := read_ndjson(command("export", "--from", "-1d"))) < count:
            assert time.monotonic() < deadline
        return found

    try:
        command("import", str(original))
        first = stored(len(logs))
        assert Counter(map(told, first)) == Counter(map(told, logs))
        for name in ("a.ndjson.zst", "a.csv.gz", "a.parquet"):
            command("export", "--from", "-1d", "-o", str(tmp_path / name))
            assert read_file(tmp_path / name) == first
        command("import", str(tmp_path / "a.ndjson.zst"))
        twice = Counter(map(told, stored(2 * len(logs))))
        assert twice == Counter({log: 2 * count for log, count in Counter(map(told, logs)).items()})
        errors = read_ndjson(command("export", "--query", "level:error", "--from", "-1d"))
        assert len(errors) == 2 * sum(17 <= log.level <= 20 for log in logs)
    finally:
        server.process.send_signal(signal.SIGTERM)
        server.process.wait(60)
