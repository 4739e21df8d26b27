"""`logfeed users sql-role`, `sql-roles`, `drop-sql-role`: readers by SQL, for Grafana and psql (docs/sql.md)."""

from __future__ import annotations

import asyncio
import getpass
import json
import re
import socket
import sys
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Final, TypeVar

import typer

from cli.database import ConfigOption, opened_database, read_settings
from cli.keys import lifetime
from cli.terminal import harmless
from schemas.errors import InvalidInput
from schemas.scope import ServiceScope

if TYPE_CHECKING:
    from access.sql_roles import SqlRole, SqlRoles
    from cli.settings import Settings
    from db.database import Database

_Answer = TypeVar("_Answer")
_FILE_BYTES_MAX: Final = 4_096
_LIFETIME: Final = re.compile(r"\d+[hdwy]")

RoleArgument = Annotated[
    str, typer.Argument(metavar="NAME", help="Of the PostgreSQL role: lower-case letters, digits and . _ @ + -")
]


def create_sql_role(
    name: RoleArgument,
    read: Annotated[
        list[str] | None,
        typer.Option("--read", metavar="SERVICE", help="May read its logs: a name, a prefix with *, or *; repeatable."),
    ] = None,
    password_file: Annotated[
        Path | None,
        typer.Option(
            "--password-file", metavar="FILE", help="Read the password from its first line; - is standard input."
        ),
    ] = None,
    valid_until: Annotated[
        str | None,
        typer.Option("--valid-until", metavar="TIME", help="90d, 12h, 8w, 1y from now, or 2026-12-31[T18:00Z] (UTC)."),
    ] = None,
    config: ConfigOption = None,
) -> None:
    """Make a PostgreSQL login that reads the logs of some services by SQL, and nothing else. Asks for its password.

    Takes a superuser's connection to the database. Rights are not changed afterwards: drop the role, make it anew.

    [bold]Examples[/bold]
      logfeed users sql-role grafana --read '*'
      logfeed users sql-role payments --read 'pay/*' --read shop --valid-until 90d
    """
    until = None if valid_until is None else _time(valid_until)
    password = _password(password_file)
    created_by = f"{getpass.getuser()}@{socket.gethostname()}"

    async def make(settings: Settings, database: Database, roles: SqlRoles) -> None:
        from store.tiers.shown_by_sql import write_down

        await write_down(database, settings.retention_policy())
        await roles.create(name, read or (), password=password, created_by=created_by, valid_until=until)

    _with_roles(config, make)
    print(f"role {name} made: it reads logfeed_sql.logs")


def list_sql_roles(
    as_json: Annotated[bool, typer.Option("--json", help="JSON lines.")] = False, config: ConfigOption = None
) -> None:
    """Readers by SQL by name: state, and whose logs each may read. Exit code 1 when there is none."""

    async def found(settings: Settings, database: Database, roles: SqlRoles) -> list[SqlRole]:
        return await roles.roles()

    now = datetime.now(UTC)
    shown = _with_roles(config, found)
    for role in shown:
        services, state = _services(role.scope), _state(role, now)
        if as_json:
            until = None if role.valid_until is None else role.valid_until.astimezone(UTC).isoformat()
            print(json.dumps({"name": role.name, "state": state, "read": services, "valid_until": until}))
        else:
            end = "" if role.valid_until is None else f"  until {role.valid_until:%Y-%m-%d %H:%M}"
            print(harmless(f"{role.name}  {state:8}  {' '.join(services)}{end}"))
    if not shown:
        raise typer.Exit(1)


def drop_sql_role(name: RoleArgument, config: ConfigOption = None) -> None:
    """Drop a reader by SQL and end its sessions."""

    async def drop(settings: Settings, database: Database, roles: SqlRoles) -> None:
        await roles.drop(name)

    _with_roles(config, drop)
    print(f"role {name} dropped")


def _with_roles(config: Path | None, action: Callable[[Settings, Database, SqlRoles], Awaitable[_Answer]]) -> _Answer:
    from access.sql_roles import SqlRoles

    settings = read_settings(config, "accounts")

    async def run() -> _Answer:
        async with opened_database(settings, "accounts") as database:
            return await action(settings, database, SqlRoles(database))

    return asyncio.run(run())


def _password(file: Path | None) -> str:
    if file is None:
        if not sys.stdin.isatty():
            raise InvalidInput("standard input is no terminal to ask on: use --password-file")
        password: str = typer.prompt("Password", hide_input=True, confirmation_prompt=True, err=True)
        return password
    try:
        if str(file) == "-":
            text = sys.stdin.readline(_FILE_BYTES_MAX)
        else:
            with file.open(encoding="utf-8") as opened:
                text = opened.readline(_FILE_BYTES_MAX)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(f"--password-file: {file} cannot be read: {error}") from error
    return text.rstrip("\r\n")


def _time(text: str) -> datetime:
    if _LIFETIME.fullmatch(text):
        return datetime.now(UTC) + lifetime(text)
    try:
        time = datetime.fromisoformat(text)
    except ValueError:
        raise InvalidInput(
            f"--valid-until: expected 90d, 12h, 8w, 1y, or a time such as 2026-12-31T18:00Z, got {text[:60]!r}"
        ) from None
    return time if time.tzinfo is not None else time.replace(tzinfo=UTC)


def _services(scope: ServiceScope) -> list[str]:
    return ["*"] if scope.everything else [*sorted(scope.names), *(f"{prefix}*" for prefix in sorted(scope.prefixes))]


def _state(role: SqlRole, now: datetime) -> str:
    if not role.is_on_server:
        return "missing"
    return "expired" if role.valid_until is not None and role.valid_until <= now else "good"
