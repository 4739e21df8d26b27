"""Fresh databases on the shared servers.

A migrated one is a copy of a template that the run's first test with that need makes: half the time of migrating, and the
server's work alone. Templates bear the run's name and the 6 hours they were made in, since migrating reads the clock.
"""

from __future__ import annotations

import asyncio
import time
import uuid
from typing import Final

import psycopg
from psycopg import sql

from db.migrations import Layout, migrate

_BOUNDED: Final = "-c statement_timeout=120000"
"""A process of the server that says nothing any more would hold up whoever drops, and with that the end of a run."""
_LOCK: Final = 7499
_BORDER_S: Final = 6 * 3600
"""Migrations set the border of open storage to the start of the current 6 hours."""


def create_database(server_url: str, *, template: str = "template0") -> str:
    """A fresh database on a server, empty unless another template is named; returns its URL."""
    name = f"t_{uuid.uuid4().hex[:16]}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        _create(connection, name, template)
    return _url(server_url, name)


def create_migrated_database(server_url: str, layout: Layout, *, run: str) -> str:
    """A fresh migrated database; returns its URL. run: name of the test run, the same in all its processes."""
    name = f"t_{uuid.uuid4().hex[:16]}"
    template = f"migrated_{run}_{layout}_{int(time.time()) // _BORDER_S}"
    with psycopg.connect(server_url, autocommit=True) as connection:
        if not _exists(connection, template):
            _make_template(connection, server_url, template, layout)
        _create(connection, name, template)
    return _url(server_url, name)


def drop_database(server_url: str, url: str) -> None:
    """Remove a database made here, ending its connections."""
    with psycopg.connect(server_url, autocommit=True, options=_BOUNDED) as connection:
        _drop(connection, url.rsplit("/", 1)[1])


def drop_templates(server_url: str, *, run: str) -> None:
    """Remove the templates of a run."""
    with psycopg.connect(server_url, autocommit=True, options=_BOUNDED) as connection:
        found = connection.execute(
            "SELECT datname FROM pg_database WHERE starts_with(datname, %s)", [f"migrated_{run}_"]
        )
        for (name,) in found.fetchall():
            _drop(connection, name)


def _make_template(
    connection: psycopg.Connection[tuple[object, ...]], server_url: str, name: str, layout: Layout
) -> None:
    connection.execute("SELECT pg_advisory_lock(%s)", [_LOCK])
    try:
        if _exists(connection, name):
            return  # another process was first
        making = f"{name}_making"
        _drop(connection, making)
        _create(connection, making, "template0")
        asyncio.run(migrate(_url(server_url, making), layout))
        # TimescaleDB's scheduler connects to every database that lets it, and nobody copies a database in use.
        connection.execute(sql.SQL("ALTER DATABASE {} ALLOW_CONNECTIONS false").format(sql.Identifier(making)))
        connection.execute("SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity WHERE datname = %s", [making])
        rename = sql.SQL("ALTER DATABASE {} RENAME TO {}")
        connection.execute(rename.format(sql.Identifier(making), sql.Identifier(name)))
    finally:
        connection.execute("SELECT pg_advisory_unlock(%s)", [_LOCK])


def _exists(connection: psycopg.Connection[tuple[object, ...]], name: str) -> bool:
    return connection.execute("SELECT FROM pg_database WHERE datname = %s", [name]).fetchone() is not None


def _create(connection: psycopg.Connection[tuple[object, ...]], name: str, template: str) -> None:
    statement = sql.SQL("CREATE DATABASE {} TEMPLATE {}").format(sql.Identifier(name), sql.Identifier(template))
    connection.execute(statement)


def _drop(connection: psycopg.Connection[tuple[object, ...]], name: str) -> None:
    connection.execute(sql.SQL("DROP DATABASE IF EXISTS {} WITH (FORCE)").format(sql.Identifier(name)))


def _url(server_url: str, name: str) -> str:
    return server_url.rsplit("/", 1)[0] + f"/{name}"
