"""Ends sessions of readers by SQL (access/sql_roles.py) that go on for too long.

A role's statement_timeout and transaction_timeout are what it begins with: PostgreSQL lets whoever is logged in set them anew.
So those who are held up by a reader end its session, and need not trust it.
"""

from __future__ import annotations

from typing import Final

import structlog

from db.database import Connection, Error, sqlstate

log = structlog.get_logger(__name__)

READ_S_MAX: Final = 90
"""Seconds that a transaction may take, by the clock of whoever looks. Beyond what the role has for itself (60)."""
_FORBIDDEN: Final = "42501"
_END: Final = """
    SELECT a.usename, pg_terminate_backend(a.pid)
    FROM pg_stat_activity AS a JOIN sql_readers AS r ON r.role_name = a.usename
    WHERE a.datname = current_database() AND a.xact_start <= clock_timestamp() - %s * interval '1 second'"""


async def end_reads(connection: Connection, *, older_s: float) -> int:
    """End the sessions of readers whose transaction began as long ago or longer; how many. connection: autocommit. An account
    that may not is told in the log. Raises as `Connection.execute`."""
    try:
        ended = await (await connection.execute(_END, (older_s,))).fetchall()
    except Error as error:
        if sqlstate(error) != _FORBIDDEN:
            raise
        log.error("readers by SQL cannot be ended: grant the account pg_signal_backend", reason=str(error).strip())
        return 0
    for role, _ in ended:
        log.warning("the session of a reader by SQL was ended", role=role, older_than_s=older_s)
    return len(ended)
