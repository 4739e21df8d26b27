"""Readers by SQL on both layouts: each sees the logs of its services, touches nothing else, and holds nobody up for long."""

from __future__ import annotations

import asyncio
import random
import re
import textwrap
import time
import uuid
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, LiteralString

import msgspec
import psycopg
import pytest
from psycopg import sql
from psycopg.conninfo import make_conninfo

from access.errors import AccountError
from access.sql_roles import OWNER, SESSIONS_MAX, SETTINGS, SqlRoles, scope_of
from db.migrations import Layout
from db.reader_sessions import end_reads
from schemas.ids import first_id_at, received_ms
from schemas.levels import level_name
from schemas.record import Log, LogLine
from schemas.scope import AUDIT_SERVICE
from search.match import compile_match
from store.chunks import LOCK_TIMEOUT_MS
from store.port import EncodedRow, StorePlan
from store.rows import encode_row
from store.settings import StoreSettings
from store.tiers.hiding import Hiding
from store.tiers.shown_by_sql import write_down
from tests.store_sites import HOUR_US, PostgresSite, booked, now_us, postgres_site, prepared
from tests.tier_sites import retention

PASSWORD = "correct horse battery"
CHUNK_US = 6 * HOUR_US
DAY_US = 24 * HOUR_US
SECOND_US = 1_000_000
SERVICES = ("pay", "pay/api", "pay/web", "payroll", "shop", AUDIT_SERVICE)
Session = psycopg.Connection[tuple[Any, ...]]  # Any: values


@dataclass
class SqlSite:
    """A store, and readers by SQL of it."""

    hot: PostgresSite
    roles: SqlRoles
    made: list[str] = field(default_factory=list)

    async def reader(self, *services: str, password: str = PASSWORD, **options: Any) -> str:
        """A role's name. options: of create."""
        name = f"r{uuid.uuid4().hex[:12]}"
        await self.roles.create(name, services, password=password, created_by="tests", **options)
        self.made.append(name)
        return name

    @contextmanager
    def session(self, role: str, password: str = PASSWORD) -> Iterator[Session]:
        """Logged in as the role, autocommit."""
        place = make_conninfo(self.hot.database.url, user=role, password=password)
        with psycopg.connect(place, autocommit=True) as connection:
            yield connection

    def seen(self, role: str, query: LiteralString = "SELECT id FROM logs ORDER BY id") -> list[Any]:
        """First column of a query as the role."""
        with self.session(role) as session:
            return [value for value, *_ in session.execute(query).fetchall()]

    async def store(self, lines: Sequence[LogLine], *, late: Sequence[LogLine] = ()) -> None:
        await self.store_rows([encode_row(line) for line in lines], [encode_row(line) for line in late])

    async def store_rows(self, hot: list[EncodedRow], late: list[EncodedRow]) -> None:
        async with self.hot.writer.begin() as batch:
            await batch.commit(StorePlan(hot=hot, late=late, ledger=booked(len(hot) + len(late))))

    async def end_late_generation(self) -> None:
        """Close what is due until the late table is among it: the server counts its rows some time after they came."""
        deadline_s = time.monotonic() + 60
        while await self.hot.database.fetch_one("SELECT 1 FROM border WHERE late_generation = 1"):
            assert time.monotonic() < deadline_s
            await self.hot.upkeep.close_due(now_us=now_us())
            await asyncio.sleep(0.2)

    async def border_us(self) -> int:
        async with self.hot.writer.begin() as batch:
            return batch.border.closed_before_us


def line(log_id: int, at_us: int, service: str, *, level: int = 9, **fields: Any) -> LogLine:
    """Any: fields of LogLine."""
    values = {"message": f"message {log_id}", "correlation_id": None, "metadata": msgspec.Raw(b'{"n":1}')} | fields
    return LogLine(id=log_id, timestamp=at_us, level=level, service_name=service, **values)


@pytest.fixture(params=[Layout.NATIVE.value, pytest.param(Layout.TIMESCALE.value, marks=pytest.mark.timescale)])
def place(request: pytest.FixtureRequest) -> tuple[str, Layout]:
    """URL and layout of a fresh database."""
    return request.getfixturevalue(f"{request.param}_url"), Layout(request.param)


@pytest.fixture
async def site(place: tuple[str, Layout]) -> AsyncIterator[SqlSite]:
    """With a row of each service in an open chunk and in a late table: ids 1..6, 101..106."""
    async with postgres_site(*place, StoreSettings(late_rows_max=3)) as hot:
        await prepared(hot)
        made = SqlSite(hot, SqlRoles(hot.database))
        start_us = await made.border_us()
        await made.store(
            [line(n, start_us + n, service) for n, service in enumerate(SERVICES, 1)],
            late=[line(n, start_us - n, service) for n, service in enumerate(SERVICES, 101)],
        )
        yield made
        for name in made.made:
            if await hot.database.fetch_one("SELECT FROM sql_readers WHERE role_name = %s", (name,)):
                await made.roles.drop(name)


# --- what is seen -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("services", "ids"),
    [
        (["pay"], [1]),
        (["pay/*"], [2, 3]),
        (["pay*"], [1, 2, 3, 4]),
        (["pay/*", "shop"], [2, 3, 5]),
        (["*"], [1, 2, 3, 4, 5]),
        (["logfeed/*"], []),
        (["nobody"], []),
    ],
)
async def test_a_reader_sees_the_logs_of_its_services_and_no_others(
    site: SqlSite, services: list[str], ids: list[int]
) -> None:
    assert site.seen(await site.reader(*services)) == [*ids, *(100 + each for each in ids)]


async def test_what_is_seen_is_what_the_scope_permits(site: SqlSite) -> None:
    """Names over all characters there are, such as LIKE and regular expressions take for something else."""
    chance = random.Random(14)
    names = {"".join(chance.choices("aA_.-/", k=chance.randint(1, 4))) for _ in range(150)}
    at_us = await site.border_us()
    lines = [line(1_000 + n, at_us + n, name) for n, name in enumerate(sorted(names))]
    await site.store(lines)
    ordered = sorted(names)
    for _ in range(12):
        services = chance.sample(ordered, k=chance.randint(0, 3))
        services += [name[: chance.randint(0, 2)] + "*" for name in chance.sample(ordered, k=chance.randint(0, 2))]
        services = services or ["*"]
        scope = scope_of(services)
        expected = [each.id for each in lines if scope.permits(each.service_name)]
        role = await site.reader(*services)
        assert site.seen(role, "SELECT id FROM logs WHERE id BETWEEN 1000 AND 2000 ORDER BY id") == expected, services
        await site.roles.drop(role)


async def test_columns_are_what_pages_show(site: SqlSite) -> None:
    at_us = await site.border_us() + 5
    log_id = first_id_at(at_us // 1000 + 7) + 3
    await site.store(
        [
            line(log_id + n, at_us, "deep", level=n, correlation_id="c-1", metadata=msgspec.Raw(b'{"a":[1]}'))
            for n in range(1, 25)
        ]
    )
    with site.session(await site.reader("deep")) as session:
        rows = session.execute("SELECT * FROM logs ORDER BY id").fetchall()
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    for n, row in enumerate(rows, 1):
        assert row == (
            log_id + n,
            epoch + timedelta(microseconds=at_us),
            epoch + timedelta(milliseconds=received_ms(log_id)),
            "deep",
            level_name(n),
            n,
            f"message {log_id + n}",
            "c-1",
            {"a": [1]},
            str(log_id + n),
        )
    assert len(rows) == 24


def examples() -> list[str]:
    """Queries in docs/sql.md, with Grafana's macros and variables as it writes them out."""
    text = (Path(__file__).parents[2] / "docs" / "sql.md").read_text()
    blocks = re.findall(r"(?:^    .+\n)+", text, re.MULTILINE)
    queries = [textwrap.dedent(block).strip() for block in blocks if re.match(r"    (SELECT|WITH)\b", block)]
    for macro, meaning in (
        (r"\$__timeFilter\((\w+)\)", r"\1 BETWEEN now() - interval '1 day' AND now()"),
        (r"\$__timeGroupAlias\((\w+), '1m'\)", r"floor(extract(epoch from \1)/60)*60 AS time"),
        (r"'\$(\w+)'", r"'\1'"),
        (r"\(\$level\)", "('ERROR','FATAL')"),
    ):
        queries = [re.sub(macro, meaning, query) for query in queries]
    return queries


async def test_examples_of_the_documentation_are_answered(site: SqlSite) -> None:
    at_us = now_us() - SECOND_US
    metadata = msgspec.Raw(b'{"duration_ms":5}')
    await site.store(
        [
            line(5_000 + n, at_us + n, "service", level=17, correlation_id="correlation_id", metadata=metadata)
            for n in range(3)
        ]
    )
    queries = examples()
    assert len(queries) >= 6
    with site.session(await site.reader("*")) as session:
        for query in queries:
            assert "$" not in query, query
            rows = session.execute(query.encode()).fetchall()
            assert rows, query


async def test_an_id_as_text_is_that_of_the_api(site: SqlSite) -> None:
    """JavaScript, and so Grafana, rounds numbers past 2^53."""
    log_id = first_id_at(now_us() // 1000)
    await site.store([line(log_id, now_us() - SECOND_US, "shop")])
    assert log_id > 2**53
    role = await site.reader("shop")
    assert site.seen(role, "SELECT log_id FROM logs ORDER BY id DESC LIMIT 1") == [str(log_id)]


@pytest.mark.slow
async def test_chunks_and_late_tables_made_later_are_seen(site: SqlSite) -> None:
    role = await site.reader("new")
    start_us = await site.border_us()
    await site.hot.upkeep.ensure_chunks(now_us=now_us() + 3 * DAY_US)
    await site.store([line(7, start_us + 3 * DAY_US, "new")])
    await site.end_late_generation()
    await site.store([], late=[line(8, start_us - 8, "new")])
    assert site.seen(role) == [7, 8]


async def test_rows_of_a_late_table_go_with_it(site: SqlSite) -> None:
    role = await site.reader("*")
    await site.hot.database.execute("DELETE FROM catalogue WHERE table_name = 'logs_late_1'")
    await site.hot.database.execute("DROP TABLE logs_late_1")
    assert site.seen(role) == [1, 2, 3, 4, 5]


async def test_what_is_past_its_age_is_hidden_as_pages_hide_it(site: SqlSite) -> None:
    policy = retention(
        {"name": "pay", "days": 3, "services": ("pay/api", "payr*"), "min_level": "ERROR"},
        {"name": "short", "days": 1, "services": ("pay*",)},
        {"name": "debug", "days": 2, "max_level": "DEBUG"},
        default_days=4,
    )
    start_us = now_us() - 5 * DAY_US
    lines = [
        line(10_000 + n, start_us + n * 3 * HOUR_US // 4, SERVICES[n % 5], level=(5, 9, 17)[n % 3]) for n in range(150)
    ]
    role = await site.reader("*")
    query: LiteralString = "SELECT id FROM logs WHERE id >= 10000 ORDER BY id"
    await site.store([], late=lines)
    assert site.seen(role, query) == [each.id for each in lines], "no rule, nothing hidden"
    await write_down(site.hot.database, policy)
    hiding = Hiding.at(policy, now_us())
    found = site.seen(role, query)
    if not hiding.lasts(now_us()):
        hiding, found = Hiding.at(policy, now_us()), site.seen(role, query)
    shown = compile_match(hiding.shown)
    expected = [each.id for each in lines if shown(_log(each))]
    assert found == expected
    assert 0 < len(expected) < len(lines)


def _log(found: LogLine) -> Log:
    return Log(
        id=found.id,
        timestamp=found.timestamp,
        level=found.level,
        service_name=found.service_name,
        correlation_id=found.correlation_id,
        message=found.message,
        metadata={},
    )


# --- what is refused ----------------------------------------------------------------------------------------------------

REFUSED: list[LiteralString] = [
    "SELECT * FROM public.logs",
    "SELECT * FROM public.late_logs",
    "SELECT * FROM public.logs_late_1",
    "SELECT * FROM public.api_keys",
    "SELECT * FROM public.users",
    "SELECT * FROM public.sessions",
    "SELECT * FROM public.secrets",
    "SELECT * FROM public.consumer_offsets",
    "SELECT * FROM public.dead_letters",
    "SELECT * FROM public.ledger",
    "SELECT * FROM public.sql_readers",
    "SELECT * FROM public.sql_retention",
    "TABLE public.queue_0",
    "INSERT INTO logs (id) VALUES (1)",
    "UPDATE logs SET message = ''",
    "DELETE FROM logs",
    "TRUNCATE public.logs",
    "SELECT * FROM logs FOR UPDATE",
    "LOCK TABLE logs IN ACCESS EXCLUSIVE MODE",
    "LOCK TABLE public.consumer_offsets IN SHARE MODE",
    "COPY logs TO PROGRAM 'cat'",
    "COPY logs TO '/tmp/logs'",
    "SELECT pg_read_file('PG_VERSION')",
    "SELECT pg_ls_dir('.')",
    "SELECT pg_advisory_lock(7401)",
    "SELECT pg_advisory_xact_lock_shared(7401)",
    "SELECT pg_try_advisory_lock(7400)",
    "SELECT lo_create(0)",
    "SELECT lo_from_bytea(0, 'x')",
    "SELECT pg_logical_emit_message(false, 'a', 'b')",
    "CREATE TEMPORARY TABLE t (a int)",
    "CREATE TABLE t (a int)",
    "CREATE TABLE public.t (a int)",
    "CREATE SCHEMA s",
    "CREATE VIEW v AS SELECT 1",
    "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE FUNCTION public.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "CREATE FUNCTION pg_temp.f() RETURNS int LANGUAGE sql AS 'SELECT 1'",
    "DO $$ BEGIN END $$",
    "CREATE ROLE other",
    "SET ROLE logfeed_sql",
    "SET SESSION AUTHORIZATION logfeed_sql",
    "SET temp_file_limit = -1",
    "SET row_security = off; SELECT * FROM public.logs",
    "DROP VIEW logs",
    "ALTER VIEW logs OWNER TO current_user",
    "REINDEX TABLE public.logs",
    "CREATE INDEX ON public.logs (id)",
    "SELECT logfeed_sql.nothing()",
]


@pytest.fixture
async def one_site(site: SqlSite) -> tuple[SqlSite, str]:
    return site, await site.reader("*")


async def test_nothing_but_the_view_is_open_to_a_reader(one_site: tuple[SqlSite, str]) -> None:
    site, role = one_site
    with site.session(role) as session:
        session.execute("SET default_transaction_read_only = off")  # whoever wants to, may
        for statement in REFUSED:
            with pytest.raises(psycopg.errors.Error) as refusal:
                session.execute(statement if "LOCK" not in statement else "BEGIN; " + statement)
            session.rollback()
            allowed = {"42501", "42883"} if "nothing()" in statement else {"42501"}
            # Of a view over a union nobody asks for rights on rows before he hears that it has none to change or lock.
            view = {"55000", "0A000", "42809"} if "logs" in statement and "public" not in statement else set()
            assert refusal.value.sqlstate in allowed | view, (statement, refusal.value)
        assert session.execute("SELECT count(*) FROM logs").fetchone() == (10,)


async def test_a_reader_has_no_right_on_any_other_relation(one_site: tuple[SqlSite, str]) -> None:
    """Chunks, partitions, late tables, parts and sequences included, those made after the role as well."""
    site, role = one_site
    await site.hot.upkeep.ensure_chunks(now_us=now_us() + 3 * DAY_US)
    open_to_it = await site.hot.database.fetch_all(
        "SELECT c.oid::regclass::text FROM pg_class AS c JOIN pg_namespace AS n ON n.oid = c.relnamespace"
        " WHERE c.relkind IN ('r', 'p', 'v', 'm', 'f') AND has_any_column_privilege(%s, c.oid, 'SELECT, INSERT, UPDATE')"
        "   AND n.nspname !~ '^(pg_catalog|information_schema|_timescaledb_catalog|_timescaledb_config|"
        "timescaledb_information|timescaledb_experimental|_timescaledb_cache|_timescaledb_debug)$'"
        "   AND c.oid NOT IN (SELECT objid FROM pg_depend WHERE deptype = 'e' AND classid = 'pg_class'::regclass)",
        (role,),
    )
    assert open_to_it == [("logfeed_sql.logs",)]
    chunks = await site.hot.database.fetch_all("SELECT table_name FROM catalogue")
    assert len(chunks) > 10
    with site.session(role) as session:
        for (table,) in chunks:
            name = table if "." in table else f"public.{table}"
            with pytest.raises(psycopg.errors.InsufficientPrivilege):
                session.execute(f"SELECT * FROM {name}")


async def test_what_is_in_where_does_not_meet_rows_of_others(site: SqlSite) -> None:
    """The classic leak: a cheap function that tells of each row it is asked about, and errors that quote values."""
    role = await site.reader("shop")
    schema = "logfeed_sql"
    await site.hot.database.execute(
        f"CREATE FUNCTION {schema}.tell(text) RETURNS boolean LANGUAGE plpgsql COST 0.0000001 AS"
        " $$ BEGIN RAISE NOTICE '%%', $1; RETURN true; END $$"
    )
    told: list[str] = []
    with site.session(role) as session:
        session.add_notice_handler(lambda notice: told.append(str(notice.message_primary)))
        for query in (
            "SELECT count(*) FROM logs WHERE tell(service)",
            "SELECT count(*) FROM logs WHERE tell(service) AND timestamp > '2000-01-01'",
            "SELECT count(*) FROM logs WHERE tell(service) AND service LIKE '%'",
            "SELECT count(*) FROM (SELECT * FROM logs WHERE tell(service) OFFSET 0) AS l",
            "SELECT count(*) FROM logs AS l JOIN (VALUES ('shop'), ('pay')) AS v (s) ON tell(l.service) AND v.s = l.service",
            "SELECT count(DISTINCT l.id) FROM logs AS l, LATERAL (SELECT tell(l.service)) AS t (x) WHERE t.x",
        ):
            assert session.execute(query).fetchone() == (2,), query
        assert session.execute(
            "SELECT count(*) FROM logs WHERE 1 / (CASE WHEN service = 'pay' THEN 0 ELSE 1 END) = 1"
        ).fetchone() == (2,)
        assert session.execute(
            "SELECT count(*) FROM logs WHERE CASE WHEN service <> 'shop' THEN service::int END IS NULL"
        ).fetchone() == (2,)
    assert set(told) == {"shop"}


async def test_a_view_of_a_wrong_owner_shows_nothing(site: SqlSite) -> None:
    """As pg_restore --no-owner leaves it: the superuser's own, whom row security does not hold."""
    role = await site.reader("pay")
    assert site.seen(role) == [1, 101]
    await site.hot.database.execute("ALTER VIEW logfeed_sql.logs OWNER TO current_user")
    assert site.seen(role) == []
    other = await site.reader("pay")
    assert site.seen(role) == site.seen(other) == [1, 101], "whoever makes a role puts it right"


# --- roles --------------------------------------------------------------------------------------------------------------


async def test_sessions_begin_bounded(one_site: tuple[SqlSite, str]) -> None:
    site, role = one_site
    with site.session(role) as session:
        for name, value in SETTINGS.items():
            shown = session.execute("SELECT current_setting(%s)", (name,)).fetchone()
            assert shown is not None
            same = {"60s": "1min"}.get(value, value)
            assert shown[0] == same, name
    attributes = await site.hot.database.fetch_one(
        "SELECT rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolreplication, rolbypassrls, rolconnlimit"
        " FROM pg_roles WHERE rolname = %s",
        (role,),
    )
    assert attributes == (False, False, False, False, False, False, SESSIONS_MAX)
    assert await site.hot.database.fetch_one("SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", (OWNER,)) == (
        False,
    )


@pytest.mark.parametrize("password", ['it\'s "quoted" \\ $$ ; --', "pässwörter %s {} 漢字", "'; DROP TABLE logs; --"])
async def test_passwords_are_taken_as_they_are_and_not_kept(site: SqlSite, password: str) -> None:
    role = await site.reader("pay", password=password)
    with site.session(role, password) as session:
        assert session.execute("SELECT count(*) FROM logs").fetchone() == (2,)
    with pytest.raises(psycopg.OperationalError), site.session(role, password + "x"):
        pass
    row = await site.hot.database.fetch_one("SELECT rolpassword FROM pg_authid WHERE rolname = %s", (role,))
    assert row is not None
    assert row[0].startswith("SCRAM-SHA-256$")


@pytest.mark.parametrize(
    "name",
    [
        'a"b',
        "a'b",
        "a; DROP TABLE logs",
        "a b",
        "Ann",
        "",
        "pg_reader",
        OWNER,
        "a" * 64,
        "ä",
        "a\n",
        "-a",
        "a\0b",
        "1a",
    ],
)
async def test_hostile_names_make_no_role(site: SqlSite, name: str) -> None:
    with pytest.raises(AccountError):
        await site.roles.create(name, ["pay"], password=PASSWORD, created_by="tests")
    with pytest.raises(AccountError):
        await site.roles.drop(name)


async def test_names_with_all_characters_there_may_be_work(site: SqlSite) -> None:
    name = f"a.b-c@d+e_{uuid.uuid4().hex[:8]}"
    await site.roles.create(name, ["pay"], password=PASSWORD, created_by="tests")
    site.made.append(name)
    assert site.seen(name) == [1, 101]


@pytest.mark.parametrize(
    ("services", "options"),
    [
        ([], {}),
        ([AUDIT_SERVICE], {}),
        (["a b"], {}),
        (["x%"], {}),
        ([f"s{n}" for n in range(101)], {}),
        (["pay"], {"password": "short"}),
        (["pay"], {"password": "a nul \0 in the middle"}),
        (["pay"], {"valid_until": datetime(2020, 1, 1, tzinfo=UTC)}),
    ],
)
async def test_what_cannot_be_a_reader_is_refused(site: SqlSite, services: list[str], options: dict[str, Any]) -> None:
    with pytest.raises(AccountError):
        await site.reader(*services, **options)
    assert await site.roles.roles() == []


async def test_roles_of_others_are_not_touched(site: SqlSite) -> None:
    name = f"r{uuid.uuid4().hex[:12]}"
    await site.hot.database.execute(f"CREATE ROLE {name}")
    try:
        with pytest.raises(AccountError, match="already"):
            await site.roles.create(name, ["*"], password=PASSWORD, created_by="tests")
        with pytest.raises(AccountError, match="no role"):
            await site.roles.drop(name)
        assert await site.hot.database.fetch_one("SELECT rolcanlogin FROM pg_roles WHERE rolname = %s", (name,)) == (
            False,
        )
    finally:
        await site.hot.database.execute(f"DROP ROLE {name}")


async def test_a_dropped_reader_is_out_at_once(site: SqlSite) -> None:
    role = await site.reader("pay")
    with site.session(role) as session:
        session.execute("BEGIN")
        session.execute("SELECT FROM logs")
        await site.roles.drop(role)
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT FROM logs")
    with pytest.raises(psycopg.OperationalError), site.session(role):
        pass
    assert await site.roles.roles() == []


async def test_a_reader_whose_time_is_over_sees_nothing_and_is_not_let_in(site: SqlSite) -> None:
    role = await site.reader("pay", valid_until=datetime.now(UTC) + timedelta(hours=1))
    with site.session(role) as session:
        assert session.execute("SELECT count(*) FROM logs").fetchone() == (2,)
        await site.hot.database.execute("UPDATE sql_readers SET valid_until = now() WHERE role_name = %s", (role,))
        assert session.execute("SELECT count(*) FROM logs").fetchone() == (0,)
    await site.hot.database.execute(f"ALTER ROLE {role} VALID UNTIL '2020-01-01'")
    with pytest.raises(psycopg.OperationalError), site.session(role):
        pass


async def test_who_is_no_superuser_makes_no_roles(site: SqlSite) -> None:
    role = await site.reader("pay")
    from db.database import Database

    database = Database(make_conninfo(site.hot.database.url, user=role, password=PASSWORD), application_name="test")
    await database.open()
    try:
        with pytest.raises(AccountError, match="superuser"):
            await SqlRoles(database).create("another", ["*"], password=PASSWORD, created_by="tests")
    finally:
        await database.close()


# --- beside writers and upkeep ------------------------------------------------------------------------------------------


@pytest.mark.slow
async def test_writing_goes_on_beside_a_read_and_drops_end_it(site: SqlSite) -> None:
    """A reader in a transaction without end, who has lifted all its limits."""
    role = await site.reader("*")
    start_us = await site.border_us()
    await site.hot.process().claim("a", want=3, ttl_s=60)
    await site.hot.see(start_us + 2 * CHUNK_US)
    await site.end_late_generation()
    await site.hot.upkeep.finish_closed()
    expired_us = start_us + CHUNK_US + 400 * DAY_US
    await site.hot.upkeep.drop_expired(now_us=expired_us, retention_us=400 * DAY_US)
    gone = await site.hot.database.fetch_all("SELECT table_name FROM expired_tables WHERE kind IN ('chunk', 'late')")
    assert len(gone) == 2
    with site.session(role) as session:
        for name in ("statement_timeout", "transaction_timeout", "idle_in_transaction_session_timeout"):
            session.execute(sql.SQL("SET {} = 0").format(sql.Identifier(name)))
        session.execute("BEGIN")
        session.execute("SELECT count(*) FROM logs")
        await site.store([line(200, start_us + CHUNK_US, "pay")])
        dropping = asyncio.create_task(
            site.hot.upkeep.drop_expired(now_us=expired_us + 600 * SECOND_US, retention_us=400 * DAY_US)
        )
        stored = 1
        while not dropping.done():
            await site.store([line(200 + stored, start_us + CHUNK_US + stored, "pay")])
            stored += 1
            await site.hot.upkeep.ensure_chunks(now_us=now_us() + DAY_US)
        assert await dropping == 2
        with pytest.raises(psycopg.OperationalError):
            session.execute("SELECT count(*) FROM logs")
    assert site.seen(role) == [*range(200, 200 + stored)]


async def test_a_short_read_is_not_ended_by_upkeep(one_site: tuple[SqlSite, str]) -> None:
    site, role = one_site
    with site.session(role) as session:
        session.execute("BEGIN")
        session.execute("SELECT count(*) FROM logs")
        await site.hot.upkeep.drop_expired(now_us=now_us(), retention_us=400 * DAY_US)
        async with site.hot.database.connection() as connection:
            assert await end_reads(connection, older_s=LOCK_TIMEOUT_MS) == 0
            assert session.execute("SELECT count(*) FROM logs").fetchone() == (10,)
            assert await end_reads(connection, older_s=0) == 1
        deadline_s = time.monotonic() + 10
        while time.monotonic() < deadline_s:
            try:
                session.execute("SELECT 1")
            except psycopg.OperationalError:
                break
        else:
            pytest.fail("the session was not ended")


# --- plans --------------------------------------------------------------------------------------------------------------


def plan_of(session: Session, query: LiteralString, *params: Any) -> str:
    rows = session.execute("EXPLAIN (COSTS off) " + query, params).fetchall()
    return "\n".join(text for (text,) in rows)


async def test_questions_still_reach_indexes_and_leave_out_chunks(site: SqlSite) -> None:
    role = await site.reader("pay*")
    start_us = await site.border_us()
    await site.hot.upkeep.ensure_chunks(now_us=now_us() + 5 * DAY_US)
    await site.hot.database.execute(
        "INSERT INTO logs (timestamp, id, level, service_name, correlation_id, message, metadata)"
        " SELECT timestamptz 'epoch' + (%s + n * 1000000::bigint) * interval '1 microsecond', n, 9, 'pay/' || n %% 40,"
        " 'c-' || n, 'm', '{}' FROM generate_series(1, 40000) AS n",
        (start_us,),
    )
    await site.hot.database.execute("ANALYZE logs")
    start = datetime.fromtimestamp(start_us / 1e6, UTC)
    with site.session(role) as session:
        newest = plan_of(session, "SELECT timestamp, message FROM logs ORDER BY timestamp DESC LIMIT 100")
        ordered = [text for text in newest.splitlines() if "Backward" in text and "timestamp_id" in text]
        assert len(ordered) >= 5, newest
        assert newest.splitlines()[0] == "Limit"
        read_whole = [text for text in newest.splitlines() if "Seq Scan on" in text]
        assert all("late" in text or "sql_" in text for text in read_whole), newest
        minute = plan_of(
            session,
            "SELECT date_trunc('minute', timestamp), level, count(*) FROM logs"
            " WHERE timestamp >= %s AND timestamp < %s GROUP BY 1, 2",
            start,
            start + timedelta(minutes=20),
        )
        assert "timestamp_id" in minute
        chunks = set(re.findall(r" on (_hyper_\d+_\d+_chunk|logs_\d{8}t\d\d)\b(?!_)", minute))
        assert len(chunks) == 1, minute
        correlation = plan_of(session, "SELECT * FROM logs WHERE correlation_id = %s", "c-777")
        assert "correlation" in correlation
        assert "late_1_correlation" in correlation or "late_1" in correlation
