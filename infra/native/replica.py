"""A streaming replica of a `TimescaleNode`: a copy made with pg_basebackup, which follows its primary's WAL.

It is another server in a directory of its own, with the same account and password, so it can be killed, stopped and promoted
like any. Copies are made by the embedded server's pg_basebackup, which takes copies of older servers as well.
"""

from __future__ import annotations

from db.embedded import POSTGRES_BIN
from infra.native.places import remove_tree
from infra.native.timescale import SUPERUSER, TimescaleNode


class TimescaleReplica(TimescaleNode):
    """Follows a primary until it is promoted."""

    name = "replica"

    def follow(self, primary: TimescaleNode) -> None:
        """Before the first start: of which server it is a replica; that one must run."""
        self._state["secret"] = primary.secret()
        self.save()
        self._primary = primary

    def prepare(self) -> None:
        if not (self._data / "PG_VERSION").exists():
            self._copy()
        super().prepare()
        lines = (
            f"primary_conninfo = '{self._conninfo()}'",
            # Questions are short: what they hold back from the primary's vacuum is nothing, and replay never waits.
            "hot_standby_feedback = on",
        )
        with self._settings.open("a") as settings:
            settings.write("\n".join(lines) + "\n")

    def wait_ready(self) -> None:
        super(TimescaleNode, self).wait_ready()  # it makes no database: it has its primary's

    def promote(self) -> None:
        """Make it a primary, and wait until it takes writes."""
        self._psql("postgres", "SELECT pg_promote(true, 30)")

    def _conninfo(self) -> str:
        primary = self._primary
        return f"host=127.0.0.1 port={primary.port()} user={SUPERUSER} password={primary.secret()}"

    def _copy(self) -> None:
        fresh = self.directory / "data.new"  # of a copy that was cut off
        remove_tree(fresh)
        fresh.mkdir(mode=0o700)
        self.own(fresh)
        command = [str(POSTGRES_BIN / "pg_basebackup"), "--dbname", self._conninfo(), "--pgdata", str(fresh)]
        self.run_as_server([*command, "--wal-method", "stream", "--checkpoint", "fast", "--no-sync"])
        (fresh / "standby.signal").touch()
        self.own(fresh / "standby.signal")
        fresh.rename(self._data)
