"""`logfeed import` and `logfeed logs` over real HTTP: each line is stored once, whatever happens on the way."""

from __future__ import annotations

import gzip
import os
import re
import signal
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path
from typing import Any, Final

import orjson
import pytest
import typer
import zstandard
from typer.testing import CliRunner, Result

from cli.importing.command import import_logs
from cli.logs import logs
from tests.integration.recording_server import Deed, RecordingServer

PROGRAM: Final = """
import typer
from cli.importing.command import import_logs
app = typer.Typer(pretty_exceptions_enable=False)
app.command()(import_logs)
app()
"""
LINES: Final = 30_000
"""Six batches."""

REPOSITORY = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _own_state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    monkeypatch.setenv("COLUMNS", "200")


def many_lines(path: Path, count: int = LINES) -> Path:
    path.write_text("".join(f"2026-11-22 10:00:00 INFO line {number}\n" for number in range(count)), encoding="utf-8")
    return path


def arguments(url: str, *more: str) -> list[str]:
    return [*more, "--url", url, "--service", "svc", "--time", "shift"]


def run_import(*arguments: str, stdin: bytes | None = None) -> Result:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(import_logs)
    return CliRunner().invoke(app, arguments)


def start(*arguments: str, in_background: bool = False, **options: Any) -> subprocess.Popen[bytes]:
    """in_background: as a script starts it with `&`, else as a terminal does; whatever started these tests."""
    interrupt = signal.SIG_IGN if in_background else signal.SIG_DFL
    return subprocess.Popen(
        [sys.executable, "-c", PROGRAM, *arguments],
        cwd=REPOSITORY,
        stderr=subprocess.PIPE,
        preexec_fn=lambda: signal.signal(signal.SIGINT, interrupt),
        **options,
    )


def assert_each_line_once(server: RecordingServer, count: int = LINES) -> None:
    assert server.reused == 0
    messages = Counter(log["message"] for log in server.logs())
    assert len(messages) == count
    assert set(messages.values()) == {1}
    assert set(messages) == {f"line {number}" for number in range(count)}


def test_each_line_is_stored_once_and_counted(tmp_path: Path) -> None:
    path = many_lines(tmp_path / "a.log")
    with RecordingServer() as server:
        result = run_import(*arguments(server.url, str(path)))
    assert result.exit_code == 0, result.output
    assert "read 30,000 lines as 30,000 logs: accepted 30,000, filtered 0, rejected 0" in result.output
    assert_each_line_once(server)


@pytest.mark.slow
def test_refusals_and_cut_connections_are_answered_with_the_same_request(tmp_path: Path) -> None:
    path = many_lines(tmp_path / "a.log")

    def script(number: int) -> Deed:
        return {0: Deed.UNAVAILABLE, 1: Deed.TAKE_AND_CUT, 2: Deed.TAKE}[number % 3]

    with RecordingServer(script) as server:
        result = run_import(*arguments(server.url, str(path)))
    assert result.exit_code == 0, result.output
    assert server.requests > 6
    assert_each_line_once(server)


@pytest.mark.parametrize("kill", [signal.SIGKILL, signal.SIGINT], ids=["kill", "interrupt"])
def test_interrupted_import_goes_on_where_it_stopped(tmp_path: Path, kill: signal.Signals) -> None:
    path = many_lines(tmp_path / "a.log")

    def script(number: int) -> Deed:
        return Deed.HOLD if number >= 4 else Deed.TAKE

    with RecordingServer(script) as server:
        process = start(*arguments(server.url, str(path)))
        assert server.held.wait(60)
        process.send_signal(kill)
        _, errors = process.communicate(timeout=60)
        assert process.returncode == (130 if kill is signal.SIGINT else -signal.SIGKILL), errors
        server.released.set()
        server.script = lambda _number: Deed.TAKE
        result = run_import(*arguments(server.url, str(path)))
        assert result.exit_code == 0, result.output
        if kill is signal.SIGINT:
            assert b"repeat the same command to go on" in errors
            assert "goes on after 15,000 lines" in result.output
        assert_each_line_once(server)
        again = run_import(*arguments(server.url, str(path)))
        assert again.exit_code == 0
        assert "was imported before" in again.output
        assert_each_line_once(server)


def test_import_that_a_script_put_into_the_background_does_not_end_with_the_script(tmp_path: Path) -> None:
    path = many_lines(tmp_path / "a.log")
    with RecordingServer(lambda number: Deed.HOLD if number == 3 else Deed.TAKE) as server:
        process = start(*arguments(server.url, str(path)), in_background=True)
        assert server.held.wait(60)
        process.send_signal(signal.SIGINT)
        server.released.set()
        _, errors = process.communicate(timeout=60)
        assert process.returncode == 0, errors
    assert_each_line_once(server)


def test_server_that_stays_away_ends_with_3_and_the_import_goes_on_later(tmp_path: Path) -> None:
    path = many_lines(tmp_path / "a.log")
    with RecordingServer(lambda number: Deed.TAKE if number <= 3 else Deed.UNAVAILABLE) as server:
        stopped = run_import(*arguments(server.url, str(path), "--give-up-after", "0.3"))
        assert stopped.exit_code == 3, stopped.output
        assert "gave up after" in stopped.output
        server.script = lambda _number: Deed.TAKE
        assert run_import(*arguments(server.url, str(path))).exit_code == 0
    assert_each_line_once(server)


def test_grown_file_sends_only_what_is_new(tmp_path: Path) -> None:
    path = many_lines(tmp_path / "a.log", 6_000)
    with RecordingServer() as server:
        assert run_import(*arguments(server.url, str(path))).exit_code == 0
        with path.open("a", encoding="utf-8") as file:
            file.writelines(f"2026-11-22 10:00:00 INFO line {number}\n" for number in range(6_000, 7_000))
        result = run_import(*arguments(server.url, str(path)))
        assert result.exit_code == 0, result.output
        assert "6,000 of the lines in earlier runs" in result.output
    assert_each_line_once(server, 7_000)


def test_changed_file_is_refused_until_restart(tmp_path: Path) -> None:
    path = many_lines(tmp_path / "a.log", 100)
    with RecordingServer() as server:
        assert run_import(*arguments(server.url, str(path))).exit_code == 0
        path.write_text("2026-11-22 10:00:00 INFO other\n", encoding="utf-8")
        refused = run_import(*arguments(server.url, str(path)))
        assert refused.exit_code == 2
        assert "--restart" in refused.output
        assert run_import(*arguments(server.url, str(path), "--restart")).exit_code == 0
    assert len(server.logs()) == 101


def test_rejected_lines_are_named_and_kept(tmp_path: Path) -> None:
    path = many_lines(tmp_path / "a.log", 7_000)
    rejects = tmp_path / "rejects.jsonl"
    with RecordingServer() as server:
        server.reject = lambda log: "bad" if log["message"] == "line 6001" else None
        result = run_import(*arguments(server.url, str(path), "--rejects", str(rejects)))
    assert result.exit_code == 1
    assert "a.log:6002: rejected: bad" in result.output
    assert "accepted 6,999, filtered 0, rejected 1" in result.output
    (kept,) = [orjson.loads(line) for line in rejects.read_bytes().splitlines()]
    assert (kept["line"], kept["error"], kept["log"]["message"]) == (6002, "bad", "line 6001")


def test_many_rejected_lines_do_not_flood_the_screen(tmp_path: Path) -> None:
    path = many_lines(tmp_path / "a.log", 1_000)
    with RecordingServer() as server:
        server.reject = lambda _log: "bad"
        result = run_import(*arguments(server.url, str(path)))
    assert result.exit_code == 1
    assert "rejected 1,000" in result.output
    assert result.output.count(": rejected: ") == 20


@pytest.mark.parametrize("kind", ["gz", "zst"])
def test_compressed_files_are_read_and_resumed(tmp_path: Path, kind: str) -> None:
    plain = many_lines(tmp_path / "a.log").read_bytes()
    path = tmp_path / f"a.log.{kind}"
    path.write_bytes(gzip.compress(plain) if kind == "gz" else zstandard.ZstdCompressor().compress(plain))
    with RecordingServer(lambda number: Deed.TAKE if number <= 3 else Deed.UNAVAILABLE) as server:
        assert run_import(*arguments(server.url, str(path), "--give-up-after", "0.2")).exit_code == 3
        server.script = lambda _number: Deed.TAKE
        assert run_import(*arguments(server.url, str(path))).exit_code == 0
        again = run_import(*arguments(server.url, str(path)))
        assert "was imported before" in again.output
    assert_each_line_once(server)


def test_damaged_archive_stores_what_is_readable_and_says_so(tmp_path: Path) -> None:
    path = tmp_path / "a.log.gz"
    path.write_bytes(gzip.compress(many_lines(tmp_path / "a.log").read_bytes())[:-20])
    with RecordingServer() as server:
        result = run_import(*arguments(server.url, str(path)), "--time", "now")
    assert result.exit_code == 3
    assert "cannot be read past byte" in result.output
    assert len(server.logs()) >= 25_000


def test_standard_input_is_stored_once_even_through_refusals(tmp_path: Path) -> None:
    content = many_lines(tmp_path / "a.log").read_bytes()
    with RecordingServer(lambda number: Deed.TAKE_AND_CUT if number % 2 else Deed.TAKE) as server:
        process = start("-", "--url", server.url, "--service", "svc", "--time", "now", stdin=subprocess.PIPE)
        _, errors = process.communicate(content, timeout=60)
        assert process.returncode == 0, errors
    assert b"accepted 30,000" in errors
    assert_each_line_once(server)


def test_interrupt_while_standard_input_is_silent_ends_at_once() -> None:
    with RecordingServer(lambda _number: Deed.TAKE) as server:
        process = start("-", "--url", server.url, "--service", "svc", "--time", "now", stdin=subprocess.PIPE)
        assert process.stdin is not None
        assert process.stderr is not None
        process.stdin.write(b"first\n" * 6_000)
        process.stdin.flush()
        while not server.requests:
            assert process.poll() is None
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=20) == 130
        assert b"cannot go on" in process.stderr.read()
        process.stdin.close()
        process.stderr.close()


@pytest.mark.parametrize("system", ["Apache", "HDFS", "Hadoop", "OpenSSH", "OpenStack", "Zookeeper"])
def test_real_logs_arrive_as_two_thousand(shared_data: Path, system: str) -> None:
    path = shared_data / f"{system}_2k.log"
    with RecordingServer() as server:
        result = run_import(*arguments(server.url, str(path)))
        assert result.exit_code == 0, result.output
        kept = run_import(str(path), "--url", server.url, "--service", "svc", "--state", "/dev/null/none")
    arrived = server.logs()
    assert len(arrived) == 2000
    newest = max(log["timestamp"] for log in arrived)
    assert re.match(r"\d{4}-\d\d-\d\dT", newest)
    assert kept.exit_code == 2


@pytest.mark.parametrize(
    ("more", "problem"),
    [
        (["--service", "no good"], "--service must be"),
        (["--tz", "Mars/Phobos"], "there is no time zone"),
        (["--correlation-pattern", "("], "--correlation-pattern"),
        (["--metadata", "novalue"], "KEY=VALUE"),
        (["--url", "nowhere"], "--url"),
        (["--time", "keep"], "ingest.retention_days"),
    ],
)
def test_wrong_usage_ends_with_2_and_sends_nothing(tmp_path: Path, more: list[str], problem: str) -> None:
    path = tmp_path / "a.log"
    path.write_text("2005-12-04 04:47:44 INFO old\n", encoding="utf-8")
    with RecordingServer() as server:
        result = run_import(*arguments(server.url, str(path)), *more)
    assert result.exit_code == 2
    assert problem in result.output
    assert server.requests == 0


class CountingServer(RecordingServer):
    """Keeps no bodies: for more than fits in memory."""

    counted = 0

    def __enter__(self) -> CountingServer:
        super().__enter__()
        return self

    def take(self, key: str, body: bytes) -> tuple[int, Any]:
        """See RecordingServer."""
        logs = body.count(b"\n")
        self.counted += logs
        return 201, {"accepted": logs, "filtered": {}, "rejected": []}


@pytest.mark.long
def test_memory_stays_flat_over_hundreds_of_megabytes(tmp_path: Path) -> None:
    path = tmp_path / "large.log"
    block = "".join(
        f"2026-11-22 10:00:00 INFO [main] a.B: request {number} took 12 ms\n" for number in range(20_000)
    ).encode()
    blocks = 300_000_000 // len(block)
    with path.open("wb") as file:
        for _ in range(blocks):
            file.write(block)
    with CountingServer() as server:
        process = start(*arguments(server.url, str(path)))
        assert process.stderr is not None
        with process.stderr:
            errors = process.stderr.read()
        _, status, used = os.wait4(process.pid, 0)  # of this process alone: other tests had children too
        process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0, errors
    assert server.counted == blocks * 20_000
    assert used.ru_maxrss < 250 * 1024


def run_logs(*arguments: str) -> Result:
    app = typer.Typer(pretty_exceptions_enable=False)
    app.command()(logs)
    return CliRunner().invoke(app, arguments)


def page(*messages: str, cursor: str | None = None) -> tuple[int, Any]:
    found: list[dict[str, Any]] = [
        {
            "id": "1",
            "timestamp": "2026-11-22T12:34:56.123456Z",
            "level": "INFO",
            "service_name": "shop",
            "message": message,
            "correlation_id": None,
            "metadata": {},
        }
        for message in messages
    ]
    return 200, {"logs": found, "count": len(found), "next_cursor": cursor, "prev_cursor": None, "scanned_to": None}


def test_logs_follows_cursors_through_empty_pages_and_busy_answers() -> None:
    with RecordingServer() as server:
        server.pages = [page("a", cursor="1"), (503, {"title": "busy"}), page(cursor="2"), page("b")]
        result = run_logs(
            "--url", server.url, "--all", "level:error", "-s", "shop", "-s", "mail", "-m", "k=v", "--json"
        )
    assert result.exit_code == 0, result.output
    assert [orjson.loads(line)["message"] for line in result.stdout.splitlines()] == ["a", "b"]
    asked = [("query", "level:error"), ("service_name", "shop"), ("service_name", "mail"), ("order", "desc")]
    asked += [("metadata.k", "v"), ("limit", "1000")]
    assert server.questions[0] == asked
    assert server.questions[-1] == [*asked, ("cursor", "2")]


def test_logs_stops_at_the_limit() -> None:
    with RecordingServer() as server:
        server.pages = [page("a", "b", cursor="1"), page("c", cursor="2")]
        result = run_logs("--url", server.url, "--limit", "3", "--utc")
    assert result.stdout.splitlines() == [f"2026-11-22 12:34:56.123Z INFO  shop     {name}" for name in "abc"]
    assert [dict(question)["limit"] for question in server.questions] == ["3", "1"]


@pytest.mark.parametrize(
    ("answer", "code", "shown"),
    [
        (page(), 1, ""),
        (
            (422, {"title": "T", "detail": "expected a level", "errors": [{"field": "query", "column": 7}]}),
            2,
            "level:x\n        ^",
        ),
        ((400, {"title": "T", "detail": "cursor was changed"}), 2, "cursor was changed"),
        ((404, {"title": "Not Found"}), 3, "Not Found (HTTP 404)"),
        ((200, ["other"]), 3, "not as a Logfeed server does"),
    ],
)
def test_logs_has_exit_codes_for_scripts(answer: tuple[int, Any], code: int, shown: str) -> None:
    with RecordingServer() as server:
        server.pages = [answer]
        result = run_logs("--url", server.url, "level:x")
    assert (result.exit_code, result.stdout) == (code, "")
    assert shown in result.stderr


def test_logs_says_on_a_terminal_that_there_are_none(monkeypatch: pytest.MonkeyPatch) -> None:
    for shown, forced in (("", None), ("no logs found", "1")):
        if forced:
            monkeypatch.setenv("FORCE_COLOR", forced)
        with RecordingServer() as server:
            server.pages = [page()]
            result = run_logs("--url", server.url, "level:x")
        assert (result.exit_code, result.stdout) == (1, "")
        assert (shown in result.stderr) if shown else (result.stderr == "")


def test_logs_without_a_server_ends_with_3() -> None:
    result = run_logs("--url", "http://127.0.0.1:9", "--give-up-after", "0.1")
    assert result.exit_code == 3
    assert "logfeed up" in result.stderr


def test_logs_into_a_closed_pipe_ends_quietly() -> None:
    program = PROGRAM.replace("importing.command", "logs").replace("import_logs", "logs")
    read, write = os.pipe()
    os.close(read)
    with RecordingServer() as server:
        server.pages = [page(*["x" * 100] * 1000, cursor="1"), page(*["x" * 100] * 1000)]
        ended = subprocess.run(
            [sys.executable, "-c", program, "--url", server.url, "--all"],
            cwd=REPOSITORY,
            stdout=write,
            stderr=subprocess.PIPE,
            timeout=60,
            check=False,
        )
    os.close(write)
    assert (ended.returncode, ended.stderr) == (0, b"")
