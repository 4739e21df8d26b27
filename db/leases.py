"""Roles that one process has at a time (`sealer`), as rows of the table `leases`.

A lease is advice, not a fence: a holder that was stopped may go on for a moment after it lost the lease. Whatever a role
does must therefore be safe twice at once; `epoch` grows with each holder, for work that has to prove whose it is.
Each call is one statement, bounded in time; times are the database's clock_timestamp(). One task per Lease.
"""

from __future__ import annotations

from typing import Final

from db.database import Database, bounded

_CALL_S: Final = 10.0
_ACQUIRE: Final = """
    INSERT INTO leases AS l (name, owner, epoch, lease_until)
    VALUES (%s, %s, 1, clock_timestamp() + %s * interval '1 second')
    ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, epoch = l.epoch + 1, lease_until = excluded.lease_until
    WHERE l.owner = excluded.owner OR l.lease_until < clock_timestamp()
    RETURNING epoch"""
_TAKE_OVER: Final = """
    INSERT INTO leases AS l (name, owner, epoch, lease_until)
    VALUES (%s, %s, 1, clock_timestamp() + %s * interval '1 second')
    ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, epoch = l.epoch + 1, lease_until = excluded.lease_until
    RETURNING epoch"""
_RENEW: Final = """
    UPDATE leases SET lease_until = clock_timestamp() + %s * interval '1 second'
    WHERE name = %s AND owner = %s AND epoch = %s RETURNING epoch"""
_RELEASE: Final = """
    UPDATE leases SET owner = NULL, lease_until = '-infinity' WHERE name = %s AND owner = %s AND epoch = %s"""


class Lease:
    """The right to one role under one owner's name."""

    def __init__(self, database: Database, name: str, owner: str, *, ttl_s: float) -> None:
        """owner: stable name of the process: a restart under it takes the lease at once. ttl_s: seconds between renewals
        at most."""
        self._database = database
        self._name = name
        self._owner = owner
        self._ttl_s = ttl_s
        self._epoch: int | None = None

    @property
    def epoch(self) -> int | None:
        """Epoch of the lease while this object has it, as far as it knows."""
        return self._epoch

    async def acquire(self) -> bool:
        """Have the lease: renew it when it is ours, take it when it is free, expired or our name's from before.

        Returns whether it is ours now. Raises DatabaseUnavailable.
        """
        if self._epoch is not None and await self.renew():
            return True
        async with bounded(_CALL_S):
            row = await self._database.fetch_one(_ACQUIRE, (self._name, self._owner, self._ttl_s))
        self._epoch = None if row is None else row[0]
        return row is not None

    async def take_over(self) -> None:
        """Have the lease, whoever has it now: from here on that one's epoch is a former one. Raises DatabaseUnavailable."""
        async with bounded(_CALL_S):
            row = await self._database.fetch_one(_TAKE_OVER, (self._name, self._owner, self._ttl_s))
        assert row is not None, "it inserts or updates"
        self._epoch = row[0]

    async def renew(self) -> bool:
        """Extend the lease; False when it is not ours (any more). Raises DatabaseUnavailable."""
        if self._epoch is None:
            return False
        async with bounded(_CALL_S):
            row = await self._database.fetch_one(_RENEW, (self._ttl_s, self._name, self._owner, self._epoch))
        if row is None:
            self._epoch = None
        return row is not None

    async def release(self) -> None:
        """Give the lease up at once. Idempotent. Raises DatabaseUnavailable."""
        if self._epoch is not None:
            epoch, self._epoch = self._epoch, None
            async with bounded(_CALL_S):
                await self._database.execute(_RELEASE, (self._name, self._owner, epoch))
