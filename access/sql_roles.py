"""PostgreSQL roles that read the logs of their services by SQL, and nothing else.

What a role may see is a row of `sql_readers`, asked by row security (sql_surface.sql) as each statement begins: a role without
one sees nothing. What it may do is to select from one view; the tables behind it are refused. Roles belong to a server: one
that is there already and is not of this database is never touched.

Bounds that PostgreSQL enforces by itself: the number of sessions, the disk for sorting, rights. Time and memory are what a
session begins with and can set anew; transactions that go on regardless are ended (db/reader_sessions.py). What is left:
docs/sql.md.
"""

from __future__ import annotations

import asyncio
import hashlib
import re
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib import resources
from typing import Final, TypeAlias

from access.errors import AccountError
from access.grants import Permission, check_grants, grant, principal_of
from access.passwords import check_password
from db.database import Connection, Database, sql, sqlstate
from db.roles import scram_verifier
from schemas.errors import DatabaseUnavailable
from schemas.scope import ServiceScope

SCHEMA: Final = "logfeed_sql"
VIEW: Final = "logs"
OWNER: Final = "logfeed_sql"
"""Of the view. Nobody logs in as this role."""
ROLES_MAX: Final = 100
SERVICES_MAX: Final = 100
"""Names and prefixes of one role: each row that is read is compared with them."""
SESSIONS_MAX: Final = 5
SETTINGS: Final[Mapping[str, str]] = {
    "search_path": SCHEMA,
    "timezone": "UTC",
    "default_transaction_read_only": "on",
    "statement_timeout": "30s",
    "transaction_timeout": "60s",
    "idle_in_transaction_session_timeout": "10s",
    "lock_timeout": "2s",
    "work_mem": "16MB",
    "temp_file_limit": "1GB",
    "max_parallel_workers_per_gather": "0",
    "jit": "off",
}
"""What a session begins with. transaction_timeout: as long as a chunk can be kept from being dropped. No parallel workers: the
processors are the writers'."""

_Action: TypeAlias = Callable[[Connection], Awaitable[None]]
_NAME: Final = re.compile(r"[a-z][a-z0-9._@+-]{0,62}")
_LOCK: Final = 7409
"""Advisory: one maker of roles at a time."""
_LOCK_TIMEOUT_MS: Final = 2_000
"""For the tables of rows: longer than deadlock_timeout, after which an autovacuum gives way."""
_ATTEMPTS: Final = 5
_ATTEMPT_PAUSE_S: Final = 0.3
_TERMINATE_MS: Final = 5_000
_BUSY: Final = ("55P03", "40P01")
_IS_SUPERUSER: Final = "SELECT rolsuper FROM pg_roles WHERE rolname = current_user"
_HAS_ROLE: Final = "SELECT FROM pg_roles WHERE rolname = %s"
# Another database of the server may need it at the same moment: the lock is this one's.
_MAKE_OWNER: Final = f"""
    DO $$ BEGIN CREATE ROLE {OWNER} NOLOGIN NOINHERIT; EXCEPTION WHEN duplicate_object OR unique_violation THEN NULL; END $$"""
_COUNT: Final = "SELECT count(*) FROM sql_readers WHERE role_name <> ''"
# A restored database has the view, and perhaps of the wrong owner; an older program's view is another.
_IS_SET_UP: Final = """
    SELECT FROM pg_views AS v WHERE v.schemaname = %s AND v.viewname = %s AND v.viewowner = %s
        AND obj_description(format('%%I.%%I', v.schemaname, v.viewname)::regclass) = %s
        AND (SELECT count(*) FROM pg_policies AS p WHERE p.policyname = %s AND p.tablename IN ('logs', 'late_logs')) = 2
        AND NOT EXISTS (SELECT FROM pg_class WHERE oid IN ('logs'::regclass, 'late_logs'::regclass) AND NOT relrowsecurity)"""
_NOTE: Final = """
    INSERT INTO sql_readers (role_name, names, prefixes, excluded, valid_until, created_by) VALUES (%s, %s, %s, %s, %s, %s)
    ON CONFLICT (role_name) DO UPDATE SET names = excluded.names, prefixes = excluded.prefixes,
        excluded = excluded.excluded, valid_until = excluded.valid_until, created_at = excluded.created_at,
        created_by = excluded.created_by"""
_LIST: Final = """
    SELECT r.role_name, r.names, r.prefixes, r.excluded, r.created_at, r.created_by, r.valid_until, p.rolname IS NOT NULL
    FROM sql_readers AS r LEFT JOIN pg_roles AS p ON p.rolname = r.role_name WHERE r.role_name <> '' ORDER BY r.role_name"""
_FORGET: Final = "DELETE FROM sql_readers WHERE role_name = %s AND role_name <> ''"
_END: Final = "SELECT pg_terminate_backend(pid, %s) FROM pg_stat_activity WHERE usename = %s"


@dataclass(frozen=True, slots=True)
class SqlRole:
    """A role as lists show it."""

    name: str
    scope: ServiceScope
    created_at: datetime
    created_by: str
    valid_until: datetime | None
    is_on_server: bool
    """False where the database came from another server: make the role anew."""


class SqlRoles:
    """The readers by SQL of one database. To make and drop them takes a superuser's connection."""

    def __init__(self, database: Database) -> None:
        """database: opened and closed by the caller."""
        self._database = database

    async def create(
        self,
        name: str,
        services: Sequence[str],
        *,
        password: str,
        created_by: str,
        valid_until: datetime | None = None,
    ) -> None:
        """Make a role and, the first time, what it reads. services: names, prefixes with * behind them, or *. Raises
        AccountError, DatabaseUnavailable."""
        _check(name, password, valid_until)
        scope = scope_of(services)

        async def make(connection: Connection) -> None:
            if await (await connection.execute(_HAS_ROLE, (name,))).fetchone() is not None:
                raise AccountError(f"the server has a role {name!r} already: choose another name, or drop that one")
            ((count,),) = await (await connection.execute(_COUNT)).fetchall()
            if count >= ROLES_MAX:
                raise AccountError(f"there are {count} roles for SQL, the most there may be: drop one")
            await _set_up(connection)
            await _make_role(connection, name, password, valid_until)
            await connection.execute(
                _NOTE, (name, sorted(scope.names), _prefixes(scope), sorted(scope.excluded), valid_until, created_by)
            )

        await self._alone(make)

    async def roles(self) -> list[SqlRole]:
        """All of them by name, those whose time is over, too. Raises DatabaseUnavailable."""
        return [
            SqlRole(name, _scope(names, prefixes, excluded), *rest)
            for name, names, prefixes, excluded, *rest in await self._database.fetch_all(_LIST)
        ]

    async def drop(self, name: str) -> None:
        """Drop a role; its sessions end. Raises AccountError, DatabaseUnavailable."""

        async def forget(connection: Connection) -> None:
            if not _NAME.fullmatch(name) or (await connection.execute(_FORGET, (name,))).rowcount == 0:
                raise AccountError(f"there is no role for SQL {name[:100]!r}")
            if await (await connection.execute(_HAS_ROLE, (name,))).fetchone() is not None:
                await connection.execute(sql.SQL("ALTER ROLE {} NOLOGIN").format(sql.Identifier(name)))

        async def remove(connection: Connection) -> None:
            if await (await connection.execute(_HAS_ROLE, (name,))).fetchone() is None:
                return
            role = sql.Identifier(name)
            for statement in ("DROP OWNED BY {}", "DROP ROLE {}"):
                await connection.execute(sql.SQL(statement).format(role))

        # Seen by none of its statements from here on, and nobody comes in as it: then those who are in go.
        await self._alone(forget)
        await self._database.fetch_all(_END, (_TERMINATE_MS, name))
        await self._alone(remove)

    async def _alone(self, action: _Action) -> None:
        """In one transaction, again where somebody holds a table."""
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                async with self._database.transaction() as connection:
                    await _begin(connection)
                    await action(connection)
                return
            except DatabaseUnavailable as error:
                if attempt == _ATTEMPTS or error.__cause__ is None or sqlstate(error.__cause__) not in _BUSY:
                    raise
            await asyncio.sleep(_ATTEMPT_PAUSE_S * attempt)


def scope_of(services: Sequence[str]) -> ServiceScope:
    """What a role with these may see: as whoever has `read` of them. Raises AccountError."""
    if len(services) > SERVICES_MAX:
        raise AccountError(f"expected at most {SERVICES_MAX} services, got {len(services)}: use prefixes")
    return principal_of("", "", check_grants(grant(Permission.READ, each) for each in services)).may_read


def _check(name: str, password: str, valid_until: datetime | None) -> None:
    if not _NAME.fullmatch(name) or name.startswith("pg_") or name == OWNER:
        raise AccountError(
            "expected a name of 1..63 lower-case letters, digits and . _ @ + -, a letter first, neither pg_… nor"
            f" {OWNER}, got {name[:120]!r}"
        )
    check_password(password)
    if not password.isprintable():
        raise AccountError("expected a password of printable characters")
    if valid_until is not None and valid_until <= datetime.now(UTC):
        raise AccountError(f"expected a time to come, got {valid_until.isoformat()}")


def _prefixes(scope: ServiceScope) -> list[str]:
    return [""] if scope.everything else sorted(scope.prefixes)


def _scope(names: Sequence[str], prefixes: Sequence[str], excluded: Sequence[str]) -> ServiceScope:
    everything = "" in prefixes
    return ServiceScope(
        everything=everything,
        names=frozenset(names),
        prefixes=frozenset(() if everything else prefixes),
        excluded=frozenset(excluded),
    )


async def _begin(connection: Connection) -> None:
    ((is_superuser,),) = await (await connection.execute(_IS_SUPERUSER)).fetchall()
    if not is_superuser:
        raise AccountError(
            "roles for SQL are made by a superuser of the database: run this once with such an account in database.url"
        )
    await connection.execute("SELECT pg_advisory_xact_lock(%s)", (_LOCK,))
    await connection.execute(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS:d}")


async def _set_up(connection: Connection) -> None:
    """What readers see is there and is this program's; what everybody may do is no more than it has to be."""
    await connection.execute(_MAKE_OWNER)
    text = _text("sql_surface.sql")
    version = hashlib.sha256(text.encode()).hexdigest()
    if await (await connection.execute(_IS_SET_UP, (SCHEMA, VIEW, OWNER, version, OWNER))).fetchone() is None:
        await connection.execute(text.encode())
        await connection.execute(
            sql.SQL("COMMENT ON VIEW {} IS {}").format(sql.Identifier(SCHEMA, VIEW), sql.Literal(version))
        )
    await connection.execute(_text("sql_rights.sql").encode())


async def _make_role(connection: Connection, name: str, password: str, valid_until: datetime | None) -> None:
    role = sql.Identifier(name)
    verifier = scram_verifier(connection, name, password)
    until = (
        sql.SQL("") if valid_until is None else sql.SQL("VALID UNTIL {}").format(sql.Literal(valid_until.isoformat()))
    )
    await connection.execute(
        sql.SQL(
            "CREATE ROLE {} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOINHERIT NOREPLICATION NOBYPASSRLS"
            " CONNECTION LIMIT {} PASSWORD {} {}"
        ).format(role, sql.Literal(SESSIONS_MAX), sql.Literal(verifier), until)
    )
    for setting, value in SETTINGS.items():
        await connection.execute(
            sql.SQL("ALTER ROLE {} SET {} = {}").format(role, sql.Identifier(setting), sql.Literal(value))
        )
    await connection.execute(
        sql.SQL("GRANT CONNECT ON DATABASE {} TO {}").format(sql.Identifier(connection.info.dbname), role)
    )
    await connection.execute(sql.SQL("GRANT USAGE ON SCHEMA {} TO {}").format(sql.Identifier(SCHEMA), role))
    await connection.execute(sql.SQL("GRANT SELECT ON {} TO {}").format(sql.Identifier(SCHEMA, VIEW), role))


def _text(name: str) -> str:
    return resources.files("access").joinpath(name).read_text()
