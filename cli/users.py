"""`logfeed users`: people who read logs. Speaks to the database directly."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, TypeVar

import typer

from cli.database import ConfigOption, opened_database, read_settings
from cli.keys import with_accounts
from cli.permissions import AdminOption, AlertOption, ExportOption, ReadOption, TailOption, grants_of
from cli.sql_roles import create_sql_role, drop_sql_role, list_sql_roles
from cli.terminal import harmless
from cli.usage import Command, group
from schemas.errors import InvalidInput

if TYPE_CHECKING:
    from access.accounts import Accounts
    from access.user_sessions import UserSessions

_Answer = TypeVar("_Answer")
app = group(help="People (changes act everywhere within two seconds), and readers by SQL.")

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Lower-case letters, digits and . _ @ + -")]
StdinOption = Annotated[
    bool, typer.Option("--password-stdin", help="Read the password from the first line of standard input.")
]


@app.command(cls=Command)
def create(
    name: NameArgument,
    read: ReadOption = None,
    tail: TailOption = None,
    export: ExportOption = None,
    alert: AlertOption = None,
    admin: AdminOption = None,
    password_stdin: StdinOption = False,
    config: ConfigOption = None,
) -> None:
    """Make a user. Asks for the password twice.

    SERVICE is a name, a prefix with * behind it, or * for all; quote the star.

    [bold]Examples[/bold]
      logfeed users create ann --read 'pay/*' --tail 'pay/*'
      logfeed users create root --admin '*'
    """
    grants = grants_of(read=read, tail=tail, export=export, alert=alert, admin=admin)
    password_hash = _hash(_asked(password_stdin))

    async def make(accounts: Accounts) -> None:
        await accounts.create_user(name, grants, password_hash=password_hash)

    with_accounts(config, make)
    print(f"user {name} created")


@app.command("list", cls=Command)
def list_users(
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines.")] = False, config: ConfigOption = None
) -> None:
    """By name: state, what each may, and where they come from who have no password here. Exit code 1 when there is none."""
    found = with_accounts(config, lambda accounts: accounts.users())
    for user in found:
        if as_json:
            made = user.created_at.astimezone(UTC).isoformat()
            line = {
                "name": user.name,
                "state": user.state,
                "grants": user.grants,
                "created_at": made,
                "issuer": user.issuer,
            }
            print(json.dumps(line))
        else:
            comes_from = "" if user.issuer is None else f"  from {user.issuer}"
            print(harmless(f"{user.name}  {user.state:8}  {' '.join(user.grants)}{comes_from}"))
    if not found:
        raise typer.Exit(1)


@app.command(cls=Command)
def passwd(name: NameArgument, password_stdin: StdinOption = False, config: ConfigOption = None) -> None:
    """Change a user's password and end their sessions."""
    password_hash = _hash(_asked(password_stdin))
    with_accounts(config, lambda accounts: accounts.set_password(name, password_hash))
    print(f"password of {name} changed; their sessions have ended")


@app.command(cls=Command)
def disable(name: NameArgument, config: ConfigOption = None) -> None:
    """Let a user in no more, and end their sessions."""
    with_accounts(config, lambda accounts: accounts.disable_user(name))
    print(f"user {name} disabled")


@app.command(cls=Command)
def enable(name: NameArgument, config: ConfigOption = None) -> None:
    """Let a user in again who was disabled: with the password, or at the login provider, that they had."""

    async def let_in(accounts: Accounts) -> None:
        await accounts.change_user(name, is_disabled=False)

    with_accounts(config, let_in)
    print(f"user {name} enabled")


@app.command(cls=Command)
def sessions(
    name: NameArgument,
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines.")] = False,
    config: ConfigOption = None,
) -> None:
    """A user's logins that go on, the one that was used last first. Exit code 1 when there is none."""
    idle_s = read_settings(config, "accounts").access.session_idle_s
    _, found = _with_sessions(config, lambda logins: logins.of(name, idle_s=idle_s))
    for each in found:
        times = {"began_at": each.began_at, "refreshed_at": each.refreshed_at, "ends_at": each.ends_at}
        if as_json:
            print(json.dumps({key: time.astimezone(UTC).isoformat() for key, time in times.items()}))
        else:
            began, refreshed, ends = (f"{time.astimezone(UTC):%Y-%m-%d %H:%M}" for time in times.values())
            print(f"since {began}  used {refreshed}  until {ends}")
    if not found:
        raise typer.Exit(1)


@app.command("sign-out", cls=Command)
def sign_out(name: NameArgument, config: ConfigOption = None) -> None:
    """End all sessions of a user. They may log in again: `disable` lets them in no more."""
    _with_sessions(config, lambda logins: logins.end(name))
    print(f"sessions of {name} have ended")


def _with_sessions(config: Path | None, action: Callable[[UserSessions], Awaitable[_Answer]]) -> _Answer:
    """Do something to the sessions in the database that the settings name. Raises what it raises."""
    from access.user_sessions import UserSessions

    settings = read_settings(config, "accounts")

    async def run() -> _Answer:
        async with opened_database(settings, "accounts") as database:
            return await action(UserSessions(database))

    return asyncio.run(run())


def _asked(from_stdin: bool) -> str:
    if from_stdin:
        return sys.stdin.readline().rstrip("\r\n")
    if not sys.stdin.isatty():
        raise InvalidInput("standard input is no terminal to ask on: use --password-stdin")
    password: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
    return password


def _hash(password: str) -> str:
    from access.passwords import check_password, hash_password

    check_password(password)
    return hash_password(password)


app.command("sql-role", cls=Command)(create_sql_role)
app.command("sql-roles", cls=Command)(list_sql_roles)
app.command("drop-sql-role", cls=Command)(drop_sql_role)
