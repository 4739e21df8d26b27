"""The embedded server: keeps data, port and password over every kind of end, and lets nobody else in."""

from __future__ import annotations

import json
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

from db.embedded import EmbeddedPostgres, recorded_url
from infra.fleet import free_port
from schemas.errors import ConfigurationError, DatabaseUnavailable


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A directory with a cluster, stopped: making one takes a second."""
    directory = _passable(tmp_path_factory.mktemp("made")) / "data"
    server = EmbeddedPostgres(directory)
    server.start()
    server.stop()
    return directory


@pytest.fixture
def directory(made: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of it, on a port of its own."""
    copy = _passable(tmp_path_factory.mktemp("data")) / "data"
    shutil.copytree(made, copy)
    facts = json.loads((copy / "postgres.json").read_text())
    (copy / "postgres.json").write_text(json.dumps({**facts, "port": free_port()}))
    return copy


@pytest.fixture
def server(directory: Path) -> Iterator[EmbeddedPostgres]:
    server = EmbeddedPostgres(directory)
    yield server
    server.kill()


def _passable(path: Path) -> Path:
    """Under root the server runs as another user, who must pass through pytest's private directories."""
    for parent in (path, *path.parents):
        if parent.stat().st_uid == 0 and parent.stat().st_mode & 0o011 != 0o011:
            parent.chmod(parent.stat().st_mode | 0o011)
    return path


def test_start_stop_kill_start_keeps_data_port_and_password(server: EmbeddedPostgres) -> None:
    url = server.start()
    assert server.running()
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("CREATE TABLE kept (n int)")
        connection.execute("INSERT INTO kept VALUES (1)")
    server.stop()
    server.stop()
    assert not server.running()
    assert server.start() == url
    with psycopg.connect(url, autocommit=True) as connection:
        connection.execute("INSERT INTO kept VALUES (2)")
    server.kill()
    server.kill()
    assert not server.running()
    again = EmbeddedPostgres(server.data_dir)
    try:
        assert again.start() == url
        with psycopg.connect(url) as connection:
            assert connection.execute("SELECT n FROM kept ORDER BY n").fetchall() == [(1,), (2,)]
    finally:
        again.kill()


def test_commit_is_an_acknowledgement(server: EmbeddedPostgres) -> None:
    """INV-3: nobody may have turned it off."""
    with psycopg.connect(server.start()) as connection:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert connection.execute(f"SHOW {setting}".encode()).fetchone() == ("on",)
        assert connection.execute("SHOW listen_addresses").fetchone() == ("127.0.0.1",)
        assert connection.execute("SHOW timezone").fetchone() == ("UTC",)


def test_stop_ends_open_connections(server: EmbeddedPostgres) -> None:
    with psycopg.connect(server.start()) as connection:
        connection.execute("SELECT 1")
        server.stop()
        with pytest.raises(psycopg.OperationalError):
            connection.execute("SELECT 1")


def test_only_the_password_opens_it_and_only_the_owner_reads_that(server: EmbeddedPostgres) -> None:
    url = server.start()
    assert stat.S_IMODE((server.data_dir / "postgres.json").stat().st_mode) == 0o600
    password = json.loads((server.data_dir / "postgres.json").read_text())["password"]
    assert len(password) >= 32
    for wrong in (url.replace(password, "wrong"), url.replace(f":{password}", "")):
        with pytest.raises(psycopg.OperationalError, match="password"):
            psycopg.connect(wrong, passfile="/nonexistent")
    assert password not in (server.data_dir / "postgres.log").read_text()
    assert stat.S_IMODE((server.data_dir / "postgres").stat().st_mode) == 0o700


def test_recorded_url_is_that_of_the_last_server(server: EmbeddedPostgres, tmp_path: Path) -> None:
    assert recorded_url(tmp_path) is None
    url = server.start()
    assert recorded_url(server.data_dir) == url
    server.stop()
    assert recorded_url(server.data_dir) == url
    for content in ("{", "[]", "{}", '{"port": 1}'):
        (tmp_path / "postgres.json").write_text(content)
        with pytest.raises(ConfigurationError, match=r"postgres\.json cannot be read"):
            recorded_url(tmp_path)


def test_directory_of_another_version_is_refused(server: EmbeddedPostgres) -> None:
    (server.data_dir / "postgres" / "PG_VERSION").write_text("16\n")
    with pytest.raises(ConfigurationError, match="was made by PostgreSQL 16, expected 18"):
        server.start()
    assert not server.running()


def test_second_server_over_the_same_directory_is_refused_and_the_first_goes_on(server: EmbeddedPostgres) -> None:
    url = server.start()
    second = EmbeddedPostgres(server.data_dir)
    with pytest.raises(DatabaseUnavailable, match=r"PostgreSQL did not start, see .*postgres\.log"):
        second.start()
    second.kill()
    assert recorded_url(server.data_dir) == url, "who asks for the running server must find it"
    with psycopg.connect(url) as connection:
        assert connection.execute("SELECT 1").fetchone() == (1,)


def test_port_that_is_taken_is_not_waited_for(server: EmbeddedPostgres, directory: Path) -> None:
    first = EmbeddedPostgres(directory.parent / "other")
    try:
        taken = int(first.start().rsplit(":", 1)[1].split("/")[0])
        facts = json.loads((directory / "postgres.json").read_text())
        (directory / "postgres.json").write_text(json.dumps({**facts, "port": taken}))
        with psycopg.connect(server.start()) as connection:
            assert connection.info.port != taken
    finally:
        first.kill()


def test_directory_that_cannot_be_used_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(ConfigurationError, match="file"):
        EmbeddedPostgres(tmp_path / "file" / "data").start()


def test_facts_that_cannot_be_read_are_named_and_kept(server: EmbeddedPostgres) -> None:
    """Making a new password would lock the user out of the cluster."""
    facts = server.data_dir / "postgres.json"
    facts.write_text('{"port": 54')
    with pytest.raises(ConfigurationError, match=r"postgres\.json cannot be read"):
        server.start()
    assert facts.read_text() == '{"port": 54'


def test_lost_password_is_said_at_once(server: EmbeddedPostgres) -> None:
    (server.data_dir / "postgres.json").unlink()
    with pytest.raises(ConfigurationError, match=r"postgres\.json is missing: without the password"):
        server.start()


def test_what_a_killed_initdb_left_is_made_anew(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = _passable(tmp_path_factory.mktemp("killed")) / "data"
    (directory / "postgres.making").mkdir(parents=True)
    (directory / "postgres.making" / "PG_VERSION").write_text("18\n")
    server = EmbeddedPostgres(directory)
    try:
        with psycopg.connect(server.start()) as connection:
            assert connection.execute("SELECT 1").fetchone() == (1,)
        assert sorted(path.name for path in directory.iterdir()) == ["postgres", "postgres.json", "postgres.log"]
    finally:
        server.kill()


def test_directory_with_other_things_is_refused(tmp_path_factory: pytest.TempPathFactory) -> None:
    directory = _passable(tmp_path_factory.mktemp("other")) / "data"
    (directory / "postgres").mkdir(parents=True)
    (directory / "postgres" / "diary.txt").write_text("mine")
    with pytest.raises(ConfigurationError, match="postgres is no PostgreSQL cluster"):
        EmbeddedPostgres(directory).start()
    assert (directory / "postgres" / "diary.txt").read_text() == "mine"
