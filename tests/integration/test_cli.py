"""The commands as a user types them: help that teaches, errors of one line, dead letters and repairs on a real database."""

from __future__ import annotations

import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Protocol

import msgspec
import psycopg
import pytest
import structlog
import typer
from typer.core import TyperGroup
from typer.main import get_command

from cli.main import app, main
from db.migrations import Layout, migrations
from infra.fleet import REPOSITORY
from schemas.record import LogLine
from store.port import DeadLetter, LedgerRow, Outcome, StorePlan
from tests.databases import create_database, drop_database
from tests.store_sites import now_us, postgres_site, prepared

NOWHERE = "postgresql://nobody:word@127.0.0.1:1/nothing"


def in_a_process(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own. environment: settings."""
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("LOGFEED_", "PYTHONDONT"))}
    return subprocess.run(
        [sys.executable, "-m", "cli.main", *arguments],
        cwd=REPOSITORY,
        env={**clean, "COLUMNS": "200", **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=60,
    )


class Typed(Protocol):
    """Types a command and its answers; environment: settings."""

    def __call__(self, *arguments: str, typed: str = "", **environment: str) -> subprocess.CompletedProcess[str]: ...


@pytest.fixture
def logfeed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Iterator[Typed]:
    """`logfeed` by its entry point in this process: a tenth of the time of a new one."""

    def run(*arguments: str, typed: str = "", **environment: str) -> subprocess.CompletedProcess[str]:
        with monkeypatch.context() as patch:
            for name in [name for name in os.environ if name.startswith("LOGFEED_")]:
                patch.delenv(name)
            for name, value in {"COLUMNS": "200", **environment}.items():
                patch.setenv(name, value)
            patch.setattr(sys, "argv", ["logfeed", *arguments])
            patch.setattr(sys, "stdin", io.StringIO(typed))
            code: str | int | None = 0
            try:
                main()
            except SystemExit as ended:
                code = ended.code
        assert isinstance(code, int)
        written = capsys.readouterr()
        return subprocess.CompletedProcess(arguments, code, written.out, written.err)

    yield run
    structlog.reset_defaults()
    structlog.contextvars.clear_contextvars()


def commands(
    group: TyperGroup, path: tuple[str, ...] = ()
) -> Iterator[tuple[tuple[str, ...], typer.core.TyperCommand]]:
    """(words, command) of every command."""
    for name, command in group.commands.items():
        if isinstance(command, TyperGroup):
            yield from commands(command, (*path, name))
        else:
            assert isinstance(command, typer.core.TyperCommand)
            yield (*path, name), command


ROOT_COMMAND = get_command(app)
assert isinstance(ROOT_COMMAND, TyperGroup)
COMMANDS = dict(commands(ROOT_COMMAND))


# Help


def test_help_names_every_command_and_imports_no_service() -> None:
    program = (
        "import sys, cli.main\n"
        "heavy = {'fastapi', 'aiokafka', 'psycopg', 'pydantic', 'uvicorn', 'prometheus_client'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
        "sys.argv = ['logfeed', '--help']\n"
        "cli.main.main()\n"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    for words in COMMANDS:
        assert re.search(rf"\b{words[0]}\b", done.stdout)


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_of_every_command_teaches(words: tuple[str, ...]) -> None:
    command = COMMANDS[words]
    assert command.help
    assert len(command.help) > 15
    for parameter in command.params:
        if parameter.name != "help":
            assert getattr(parameter, "help", None), f"{' '.join(words)}: {parameter.name} is not described"
    with typer.Context(command, info_name=" ".join(("logfeed", *words))) as context:
        shown = command.get_help(context)
    assert shown is not None
    with pytest.raises(SystemExit) as ended:
        app([*words, "--help"])
    assert ended.value.code == 0


def test_unknown_commands_and_options_are_wrong_usage(logfeed: Typed) -> None:
    for arguments in (["upp"], ["up", "--prot", "1"], ["db"], ["up", "--port", "many"]):
        done = logfeed(*arguments)
        assert done.returncode == 2
        assert "Traceback" not in done.stderr


def test_version_is_printed(logfeed: Typed) -> None:
    for argument in ("version", "--version"):
        done = logfeed(argument)
        assert (done.returncode, done.stdout) == (0, version("logfeed") + "\n")


@pytest.mark.parametrize("words", COMMANDS, ids=" ".join)
def test_help_on_a_narrow_terminal_shows_every_option_whole(logfeed: Typed, words: tuple[str, ...]) -> None:
    done = logfeed(*words, "--help", COLUMNS="80")
    assert done.returncode == 0
    for parameter in COMMANDS[words].params:
        for name in parameter.opts:
            assert not name.startswith("--") or re.search(rf"{name}\b", done.stdout), name
    assert "<bool>" not in done.stdout or words[0] == "dead"
    assert max(map(len, done.stdout.splitlines())) <= 80


# Configuration


GOOD = """
profile: full
database: {url: "postgresql://logfeed:hunter2@db/logfeed"}
ingest:
  filters:
    - {type: level, name: quiet, minimum: warn}
    - {type: content, name: secrets, action: mask}
"""


def test_good_file_is_checked_shown_and_keeps_its_secrets(logfeed: Typed, tmp_path: Path) -> None:
    file = tmp_path / "good.yaml"
    file.write_text(GOOD)
    done = logfeed("config", "check", str(file))
    assert (done.returncode, done.stdout) == (0, "ok: profile full, broker kafka, 2 filters\n"), done.stderr
    for arguments, environment in (([str(file)], {}), ([], {"LOGFEED_CONFIG": str(file)})):
        shown = logfeed("config", "show", *arguments, **environment)
        assert shown.returncode == 0
        assert "hunter2" not in shown.stdout
        settings = json.loads(shown.stdout)
        assert settings["database"]["url"] == "**********"
        assert (settings["profile"], settings["broker"]["kind"]) == ("full", "kafka")


def test_no_file_is_a_usable_configuration(logfeed: Typed) -> None:
    assert logfeed("config", "check").stdout == "ok: profile embedded, broker queue, 0 filters\n"


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ("http: {port: 99999}", "http.port: Input should be less than or equal to 65535, got 99999"),
        ("http: {prot: 1}", "http.prot: there is no such setting: did you mean http.port?"),
        ("http: [", "is no readable YAML"),
        ("ingest: {filters: [{type: levle, name: x}]}", "levle"),
        ("ingest: {retention_days: 500}", "must be at most store.retention_days (400)"),
        ("database: {url: 'mysql://user:hunter2@db/x'}", "expected postgresql://user:password@host:port/database"),
    ],
)
def test_bad_file_ends_with_2_and_names_the_field(logfeed: Typed, tmp_path: Path, content: str, expected: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(content)
    done = logfeed("config", "check", str(file))
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("error: ")
    assert expected in done.stderr
    assert str(file) in done.stderr
    assert "Traceback" not in done.stderr
    assert "hunter2" not in done.stderr


def test_every_setting_is_explained(logfeed: Typed) -> None:
    lines = logfeed("config", "explain").stdout
    for expected in ("\nhttp.port = 8080\n    TCP port", "\nwriter.name = the host's name\n", "\ndatabase.url = \n"):
        assert expected in lines
    assert "None" not in lines
    assert all(re.fullmatch(r"[a-z_.]+ = .*|    .{1,106}", line) for line in lines.splitlines())


# Database


@pytest.fixture
def empty_url(embedded_server: str) -> Iterator[str]:
    url = create_database(embedded_server)
    yield url
    drop_database(embedded_server, url)


def test_database_is_migrated_once_and_its_state_is_told(logfeed: Typed, empty_url: str) -> None:
    count = len(migrations(Layout.NATIVE))
    before = logfeed("db", "status", LOGFEED_DATABASE__URL=empty_url)
    assert before.returncode == 1
    assert before.stdout.count("missing migration") == count
    dead = logfeed("dead", "list", LOGFEED_DATABASE__URL=empty_url)
    assert (dead.returncode, dead.stdout) == (2, "")
    assert dead.stderr == f"error: the database lacks {count} migrations: run `logfeed db migrate`\n"
    assert logfeed("db", "migrate", LOGFEED_DATABASE__URL=empty_url).stdout == f"{count} migrations applied\n"
    assert logfeed("db", "migrate", LOGFEED_DATABASE__URL=empty_url).stdout == "the database is up to date\n"
    after = logfeed("db", "status", LOGFEED_DATABASE__URL=empty_url)
    assert (after.returncode, after.stdout) == (0, "the database is up to date; no writer has started on it yet\n")


def test_halted_partition_is_shown_and_resumed(logfeed: Typed, native_url: str) -> None:
    def partition() -> tuple[object, ...] | None:
        with psycopg.connect(native_url) as connection:
            found = connection.execute("SELECT halted, owner, epoch, next_offset, last_frame_id FROM consumer_offsets")
            return found.fetchone()

    with psycopg.connect(native_url) as connection:
        connection.execute(
            "INSERT INTO consumer_offsets (topic, partition, owner, epoch, next_offset, last_frame_id, halted)"
            " VALUES ('logs.v1', 0, 'w', 4, 7, 'f', 'the topic was made again')"
        )
    status = logfeed("db", "status", LOGFEED_DATABASE__URL=native_url)
    assert status.returncode == 1
    assert re.search(r"logs\.v1/0  next offset 7 .* owner w  HALTED: the topic was made again", status.stdout)
    done = logfeed("db", "resume", "0", LOGFEED_DATABASE__URL=native_url)
    assert (done.returncode, done.stdout) == (0, "partition 0 goes on with the next lease (within 10 s)\n")
    assert partition() == (None, None, 5, 7, b"f")
    again = logfeed("db", "resume", "0", LOGFEED_DATABASE__URL=native_url)
    assert again.returncode == 1
    assert again.stderr == "error: partition 0 of logs.v1 is not halted: see `logfeed db status`\n"
    with psycopg.connect(native_url) as connection:
        connection.execute("UPDATE consumer_offsets SET halted = 'gap'")
    assert logfeed("db", "resume", "0", "--next-offset", "30", LOGFEED_DATABASE__URL=native_url).returncode == 0
    assert partition() == (None, None, 6, 30, None)


@pytest.mark.parametrize("arguments", [["db", "status"], ["dead", "drop", "-y", "1"]], ids=" ".join)
def test_database_that_is_away_is_one_line_and_1(arguments: list[str]) -> None:
    done = in_a_process(*arguments, LOGFEED_DATABASE__URL=NOWHERE)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("error: cannot connect to the database: ")
    assert len(done.stderr.splitlines()) == 1
    assert "word" not in done.stderr


def test_command_without_a_database_says_how_to_name_one(logfeed: Typed, tmp_path: Path) -> None:
    done = logfeed("dead", "list", LOGFEED_DATA_DIR=str(tmp_path))
    assert done.returncode == 2
    assert done.stderr.startswith("error: no database: set database.url (LOGFEED_DATABASE__URL=postgresql://…)")


# Dead letters


@dataclass(frozen=True)
class Cemetery:
    """A database with three letters: two that can be stored, one that cannot."""

    url: str
    ids: list[str]
    logfeed: Typed

    def dead(self, *arguments: str, typed: str = "") -> subprocess.CompletedProcess[str]:
        return self.logfeed("dead", *arguments, typed=typed, LOGFEED_DATABASE__URL=self.url)

    def query(self, statement: str) -> list[tuple[object, ...]]:
        with psycopg.connect(self.url) as connection:
            return connection.execute(statement.encode()).fetchall()


@pytest.fixture
async def cemetery(native_url: str, logfeed: Typed) -> Cemetery:
    def line(log_id: int, message: str) -> bytes:
        return msgspec.json.encode(LogLine(log_id, now_us(), 14, "api", message, None, msgspec.Raw(b"{}")))

    async with postgres_site(native_url, Layout.NATIVE) as site:
        await prepared(site)
        lines = [line(1, "first"), line(2, "second"), b"\x1b[31mnot a line"]
        dead = [
            DeadLetter(0, 5, n, "undecodable" if n == 2 else "refused", "why\x1b[31m", "api", 60_000_000, text)
            for n, text in enumerate(lines)
        ]
        ledger = [LedgerRow(60_000_000, "api", 0, Outcome.DEAD, letter.reason, 1) for letter in dead]
        async with site.writer.begin() as batch:
            await batch.commit(StorePlan(dead=dead, ledger=ledger))
        rows = await site.database.fetch_all("SELECT id FROM dead_letters ORDER BY id")
    return Cemetery(native_url, [str(number) for (number,) in rows], logfeed)


def test_letters_are_listed_and_shown_harmlessly(cemetery: Cemetery) -> None:
    first, second, third = cemetery.ids
    listed = cemetery.dead("list")
    assert listed.returncode == 0
    assert [text.split()[0] for text in listed.stdout.splitlines()] == [third, second, first]
    assert "\x1b" not in listed.stdout
    assert "why\\x1b[31m" in listed.stdout
    narrow = cemetery.dead("list", "--reason", "refused", "--service", "api", "--json", "--limit", "1")
    assert json.loads(narrow.stdout)["id"] == int(second)
    older = cemetery.dead("list", "--before", second)
    assert [text.split()[0] for text in older.stdout.splitlines()] == [first]
    none = cemetery.dead("list", "--service", "other")
    assert (none.returncode, none.stdout) == (1, "no dead letters\n")
    shown = cemetery.dead("show", first)
    assert json.loads(json.loads(shown.stdout)["line"])[4] == "first"
    assert "\x1b" not in cemetery.dead("show", third).stdout
    missing = cemetery.dead("show", "999")
    assert (missing.returncode, missing.stderr) == (1, "error: there is no dead letter 999\n")


def test_letters_are_stored_after_all_and_what_is_refused_stays(cemetery: Cemetery) -> None:
    first, second, third = cemetery.ids
    done = cemetery.dead("replay", first, second)
    assert (done.returncode, done.stdout) == (0, f"{first}: stored as log 1\n{second}: stored as log 2\n")
    refused = cemetery.dead("replay", third, "999")
    assert refused.returncode == 1
    assert re.match(
        rf"{third}: dead letter {third} .* and stays: .*\n999: there is no dead letter 999\n$", refused.stdout
    )
    assert cemetery.query("SELECT id, message FROM logs ORDER BY id") == [(1, "first"), (2, "second")]
    assert cemetery.query("SELECT outcome, sum(count)::int FROM ledger GROUP BY 1 ORDER BY 1") == [
        ("dead", 1),
        ("stored", 2),
    ]


def test_letters_are_dropped_only_after_a_yes(cemetery: Cemetery) -> None:
    first, second, _ = cemetery.ids
    no = cemetery.dead("drop", first, typed="n\n")
    assert no.returncode == 1
    assert "Delete 1 dead letters for good?" in no.stdout + no.stderr
    assert len(cemetery.query("SELECT 1 FROM dead_letters")) == 3
    assert cemetery.dead("drop", first, typed="y\n").returncode == 0
    done = cemetery.dead("drop", "--yes", first, second)
    assert (done.returncode, done.stdout) == (1, f"{first}: there is no dead letter {first}\n{second}: dropped\n")
    assert len(cemetery.query("SELECT 1 FROM dead_letters")) == 1
