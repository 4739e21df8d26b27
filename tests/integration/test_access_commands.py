"""`logfeed keys` and `logfeed users` as people type them."""

from __future__ import annotations

import asyncio
import json
import subprocess
import uuid
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import make_conninfo

from access.keys import KEY_PATTERN, key_prefix, key_sha256
from access.oidc.users import remember_user
from access.passwords import is_password
from cli.first_keys import FirstAccess, FirstKey, key_file, make_first_access, password_file
from db.database import Database
from schemas.errors import ConfigurationError
from tests import commands
from tests.access_site import PASSWORD, running, soon


def logfeed(url: str, *arguments: str, stdin: str = "") -> subprocess.CompletedProcess[str]:
    return commands.logfeed(*arguments, stdin=stdin, LOGFEED_DATABASE__URL=url)


def test_a_key_is_shown_once_listed_and_revoked(native_url: str) -> None:
    assert logfeed(native_url, "keys", "list").returncode == 1
    made = logfeed(native_url, "keys", "create", "shop", "--write", "shop", "--read", "pay/*", "--expires", "90d")
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    assert KEY_PATTERN.fullmatch(key)
    prefix = key[3:15]
    listed = logfeed(native_url, "keys", "list")
    assert listed.stdout.split()[:3] == [prefix, "good", "shop"]
    assert "write:shop" in listed.stdout
    assert "never used" in listed.stdout
    assert key[16:] not in listed.stdout + listed.stderr + made.stderr
    assert logfeed(native_url, "keys", "revoke", prefix).returncode == 0
    assert logfeed(native_url, "keys", "list").returncode == 1
    [shown] = logfeed(native_url, "keys", "list", "--all", "--json").stdout.splitlines()
    assert (json.loads(shown)["state"], json.loads(shown)["prefix"]) == ("revoked", prefix)


def test_a_keys_rates_are_shown_as_they_were_typed(native_url: str) -> None:
    rates = ["--rate", "5000/s", "--rate-bytes", "5MB/s", "--burst", "10s"]
    for name, options in (("paced", rates), ("free", ["--rate", "none"]), ("plain", [])):
        assert logfeed(native_url, "keys", "create", name, "--write", "shop", *options).returncode == 0
    plain, free, paced = logfeed(native_url, "keys", "list").stdout.splitlines()
    assert paced.endswith("rate 5000/s, 5MB/s, burst 10s")
    assert "rate none" in free
    assert "rate" not in plain
    shown = {
        key["name"]: (key["logs_per_s"], key["bytes_per_s"], key["burst_s"])
        for key in map(json.loads, logfeed(native_url, "keys", "list", "--json").stdout.splitlines())
    }
    assert shown == {"paced": (5000, 5e6, 10), "free": ("none", None, 1), "plain": (None, None, 1)}


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["keys", "create", "nothing"], "--write"),
        (["keys", "create", "a", "--write", "a b"], "'a b'"),
        (["keys", "create", "a", "--write", "logfeed/audit"], "nobody else"),
        (["keys", "create", "a", "--write", "a", "--expires", "soon"], "90d"),
        (["keys", "create", "a", "--write", "a", "--from", "here"], "10.0.0.0/8"),
        (["keys", "create", "a", "--write", "a", "--rate", "5000"], "5000/s"),
        (["keys", "create", "a", "--write", "a", "--burst", "10s"], "--rate"),
        (["keys", "revoke", "lf_whole"], "prefix"),
        (["users", "create", "Ann", "--read", "*", "--password-stdin"], "lower-case"),
        (["users", "create", "ann", "--password-stdin"], "nothing"),
        (["users", "create", "ann", "--read", "*"], "--password-stdin"),
        (["users", "passwd", "nobody", "--password-stdin"], "no user"),
        (["users", "disable", "nobody"], "no user"),
        (["users", "enable", "nobody"], "no user"),
        (["users", "sessions", "nobody"], "no user"),
        (["users", "sign-out", "nobody"], "no user"),
        (["users", "sql-role", "Ann", "--read", "*", "--password-file", "-"], "lower-case"),
        (["users", "sql-role", "ann", "--password-file", "-"], "nothing"),
        (["users", "sql-role", "ann", "--read", "*"], "--password-file"),
        (["users", "sql-role", "ann", "--read", "*", "--password-file", "/nowhere"], "/nowhere"),
        (["users", "sql-role", "ann", "--read", "*", "--password-file", "-", "--valid-until", "soon"], "90d"),
        (["users", "sql-role", "ann", "--read", "logfeed/audit", "--password-file", "-"], "admin"),
        (["users", "drop-sql-role", "nobody"], "no role"),
        (["topics", "acl"], "--subscriber"),
        (["topics", "acl", "--subscriber", "ann", "--read", "a", "--group-prefix", "g"], "User:"),
        (["topics", "acl", "--subscriber", "User:ann", "--read", "a"], "--group-prefix"),
    ],
)
def test_what_cannot_be_made_is_said_in_one_line(native_url: str, arguments: list[str], says: str) -> None:
    result = logfeed(native_url, *arguments, stdin=f"{PASSWORD}\n")
    assert result.returncode == 1, result.stderr
    assert says in result.stderr
    assert "Traceback" not in result.stderr


async def test_a_user_is_made_changed_and_disabled(native_url: str) -> None:
    made = logfeed(native_url, "users", "create", "ann", "--read", "pay/*", "--password-stdin", stdin=f"{PASSWORD}\n")
    assert made.returncode == 0, made.stderr
    short = logfeed(native_url, "users", "create", "bob", "--read", "*", "--password-stdin", stdin="short\n")
    assert short.returncode == 1
    assert "10 characters" in short.stderr
    again = logfeed(native_url, "users", "create", "ann", "--read", "*", "--password-stdin", stdin=f"{PASSWORD}\n")
    assert "already" in again.stderr
    changed = logfeed(native_url, "users", "passwd", "ann", "--password-stdin", stdin="another long one\r\n")
    assert changed.returncode == 0
    database = Database(native_url, application_name="test")
    await database.open()
    row = await database.fetch_one("SELECT password_hash FROM users WHERE name = 'ann'")
    await database.close()
    assert row is not None
    assert row[0].startswith("$argon2id$")
    assert is_password(row[0], "another long one")
    assert not is_password(row[0], PASSWORD)
    database = Database(native_url, application_name="test")
    await database.open()
    await remember_user(database, "https://login.example.org", "u1", name="bob", grants=["read:*"])
    await database.close()
    listed = logfeed(native_url, "users", "list").stdout.splitlines()
    assert [line.split() for line in listed] == [
        ["ann", "good", "read:pay/*"],
        ["bob", "good", "read:*", "from", "https://login.example.org"],
    ]
    as_json = [json.loads(line) for line in logfeed(native_url, "users", "list", "--json").stdout.splitlines()]
    assert [user["issuer"] for user in as_json] == [None, "https://login.example.org"]
    no_password = logfeed(native_url, "users", "passwd", "bob", "--password-stdin", stdin="another long one\n")
    assert (no_password.returncode, "https://login.example.org" in no_password.stderr) == (1, True)
    assert logfeed(native_url, "users", "disable", "ann").returncode == 0
    assert "disabled" in logfeed(native_url, "users", "list").stdout
    enabled = logfeed(native_url, "users", "enable", "ann")
    assert (enabled.returncode, enabled.stdout) == (0, "user ann enabled\n")
    assert "disabled" not in logfeed(native_url, "users", "list").stdout


async def test_a_users_sessions_are_listed_and_ended(native_url: str) -> None:
    async with running(native_url, audit=False) as site:
        await site.user("ann", "read:*")
        login = {"name": "ann", "password": PASSWORD}
        token = (await site.ask(None, "POST", "/api/v1/auth/login", json=login)).json()["access_token"]
        (line,) = (await asyncio.to_thread(logfeed, native_url, "users", "sessions", "ann")).stdout.splitlines()
        assert line.split()[0::3] == ["since", "used", "until"]
        shown = await asyncio.to_thread(logfeed, native_url, "users", "sessions", "ann", "--json")
        assert json.loads(shown.stdout).keys() == {"began_at", "refreshed_at", "ends_at"}
        ended = await asyncio.to_thread(logfeed, native_url, "users", "sign-out", "ann")
        assert (ended.returncode, ended.stdout) == (0, "sessions of ann have ended\n")

        async def is_out() -> bool:
            return (await site.ask(token, "GET", "/api/v1/auth/me")).status_code == 401

        await soon(is_out, "the session has ended in a process that runs")
        none = await asyncio.to_thread(logfeed, native_url, "users", "sessions", "ann")
        assert (none.returncode, none.stdout) == (1, "")


def test_a_reader_by_sql_is_made_listed_and_dropped(native_url: str, tmp_path: Path) -> None:
    name = f"reader-{uuid.uuid4().hex[:8]}"
    file = tmp_path / "password"
    file.write_text(f"{PASSWORD}\n")
    assert logfeed(native_url, "users", "sql-roles").returncode == 1
    options = ("--read", "pay/*", "--read", "shop", "--password-file", str(file), "--valid-until", "90d")
    made = logfeed(native_url, "users", "sql-role", name, *options)
    assert made.returncode == 0, made.stderr
    assert PASSWORD not in made.stdout + made.stderr
    place = make_conninfo(native_url, user=name, password=PASSWORD)
    with psycopg.connect(place) as reader:
        assert reader.execute("SELECT count(*) FROM logs").fetchone() == (0,)
    listed = logfeed(native_url, "users", "sql-roles")
    assert listed.stdout.split()[:4] == [name, "good", "shop", "pay/*"]
    [shown] = logfeed(native_url, "users", "sql-roles", "--json").stdout.splitlines()
    assert json.loads(shown)["read"] == ["shop", "pay/*"]
    again = logfeed(native_url, "users", "sql-role", name, *options)
    assert (again.returncode, "already" in again.stderr) == (1, True)
    assert logfeed(native_url, "users", "drop-sql-role", name).returncode == 0
    with pytest.raises(psycopg.OperationalError):
        psycopg.connect(place)
    assert logfeed(native_url, "users", "sql-roles").returncode == 1


async def test_first_keys_that_cannot_be_kept_are_not_made(native_url: str, tmp_path: Path) -> None:
    database = Database(native_url, application_name="test")
    await database.open()
    try:
        in_the_way = key_file(tmp_path, FirstKey.INGEST)
        in_the_way.parent.mkdir(mode=0o700)
        in_the_way.mkdir()
        with pytest.raises(ConfigurationError, match="cannot be kept"):
            await make_first_access(database, tmp_path)
        assert await database.fetch_all("SELECT FROM api_keys") == []
        assert await database.fetch_all("SELECT FROM users") == []
        in_the_way.rmdir()
        made = await make_first_access(database, tmp_path)
        assert await make_first_access(database, tmp_path) == FirstAccess()
        rows = await database.fetch_all("SELECT prefix, secret_sha256, grants FROM api_keys")
        [user] = await database.fetch_all("SELECT name, grants, password_hash FROM users")
    finally:
        await database.close()
    keys = made.keys
    assert {prefix: (bytes(sha256), grants) for prefix, sha256, grants in rows} == {
        key_prefix(text): (key_sha256(text), grants)
        for text, grants in ((keys[FirstKey.ADMIN], ["admin:*"]), (keys[FirstKey.INGEST], ["write:*"]))
    }
    assert made.password is not None
    assert (user[0], user[1], is_password(user[2], made.password)) == ("admin", ["admin:*"], True)
    kept = {key_file(tmp_path, which): text for which, text in keys.items()} | {password_file(tmp_path): made.password}
    for file, text in kept.items():
        assert (file.read_text(), file.stat().st_mode & 0o777) == (text + "\n", 0o600)
        assert file.parent.stat().st_mode & 0o777 == 0o700


async def test_a_user_named_admin_keeps_their_password_at_the_first_start(native_url: str, tmp_path: Path) -> None:
    created = logfeed(
        native_url, "users", "create", "admin", "--read", "shop", "--password-stdin", stdin=f"{PASSWORD}\n"
    )
    assert created.returncode == 0, created.stderr
    database = Database(native_url, application_name="test")
    await database.open()
    try:
        made = await make_first_access(database, tmp_path)
        [user] = await database.fetch_all("SELECT name, grants, password_hash FROM users")
    finally:
        await database.close()
    assert (len(made.keys), made.password) == (2, None)
    assert (user[0], user[1], is_password(user[2], PASSWORD)) == ("admin", ["read:shop"], True)
    assert not password_file(tmp_path).exists()
