"""The leader's tables: what was known at which positions, and what came of it, in one transaction.

Every save holds the row of the lease `alerts` at its holder's epoch (StaleEpoch), and moves `version` from the one that was
read (StateMoved). So whoever was thought dead and goes on is refused, and a save whose outcome nobody knows is settled by
reading again: either all of it happened, outbox included, or nothing did. A process that is killed loses what it had not
saved, and decides it again from the same positions.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final, TypeVar

import msgspec
import zstandard

from alerts.breaker import Breaker
from alerts.errors import StaleEpoch, StateMoved
from alerts.evaluate import RuleState
from alerts.matching import Matcher, Silence
from alerts.notify import Alert, Notification, NotifierState, parts_of
from alerts.rules import Rule, RuleDocument
from db.database import Connection, Database, bounded
from db.leases import Lease

_State = TypeVar("_State", NotifierState, RuleState)

ALERTS: Final = "alerts"
"""Name of the lease."""
STATE_BYTES_MAX: Final = 256 * 1024 * 1024
"""Of one state decoded; what rules may hold is bounded far below."""
_SAVE_S: Final = 20.0
_LOCK_TIMEOUT_MS: Final = 10_000
KEPT_DAYS: Final = 30
_PURGED_AT_ONCE: Final = 1_000

_FENCE: Final = "SELECT epoch FROM leases WHERE name = 'alerts' FOR SHARE"
_EVALUATOR: Final = "SELECT version, positions, read_to, notifier FROM alert_evaluator WHERE topic = %s"
_SAVE: Final = """
    INSERT INTO alert_evaluator AS e (topic, version, epoch, positions, read_to, notifier, figures)
    VALUES (%(topic)s, 1, %(epoch)s, %(positions)s::jsonb, %(read_to)s::jsonb, %(notifier)s, %(figures)s::jsonb)
    ON CONFLICT (topic) DO UPDATE SET version = e.version + 1, epoch = excluded.epoch, positions = excluded.positions,
        read_to = excluded.read_to, notifier = coalesce(nullif(excluded.notifier, ''::bytea), e.notifier),
        figures = excluded.figures, saved_at = clock_timestamp()
    WHERE e.version = %(version)s
    RETURNING version"""
_SAVE_RULE: Final = """
    INSERT INTO alert_states (topic, rule, state) VALUES (%s, %s, %s)
    ON CONFLICT (topic, rule) DO UPDATE SET state = excluded.state"""
_SAVE_ALERT: Final = """
    INSERT INTO alerts (alert_id, rule, state, severity, labels, started_at, ended_at, alert)
    VALUES (%s, %s, %s, %s, %s::jsonb, to_timestamp(%s / 1e6), to_timestamp(%s / 1e6), %s::jsonb)
    ON CONFLICT (alert_id) DO UPDATE
        SET state = excluded.state, ended_at = excluded.ended_at, alert = excluded.alert"""
_PUT_OUT: Final = """
    INSERT INTO alert_outbox (notification_id, rule, channel, body) VALUES (%s, %s, %s, %s::jsonb) ON CONFLICT DO NOTHING"""
_SAVE_BREAKERS: Final = """
    INSERT INTO alert_breakers (rule, channel, state, since, held, opened)
    VALUES (%s, %s, %s, to_timestamp(%s / 1e6), %s, %s)"""
_PURGE: Final = (
    f"""DELETE FROM alerts WHERE alert_id IN (
        SELECT alert_id FROM alerts WHERE state = 'resolved' AND ended_at < clock_timestamp() - interval '{KEPT_DAYS} days'
        LIMIT {_PURGED_AT_ONCE})""",
    f"""DELETE FROM alert_outbox WHERE notification_id IN (
        SELECT notification_id FROM alert_outbox
        WHERE state <> 'waiting' AND created_at < clock_timestamp() - interval '{KEPT_DAYS} days' LIMIT {_PURGED_AT_ONCE})""",
    f"""DELETE FROM alert_silences WHERE silence_id IN (
        SELECT silence_id FROM alert_silences WHERE ends_at < clock_timestamp() - interval '{KEPT_DAYS} days'
        LIMIT {_PURGED_AT_ONCE})""",
)


@dataclass(slots=True)
class Saved:
    """What whoever leads goes on from."""

    version: int = 0
    """0: nobody has led yet."""
    positions: dict[int, int] = field(default_factory=dict)
    """partition -> next offset."""
    read_us: dict[int, int] = field(default_factory=dict)
    """partition -> everything appended before was read."""
    notifier: NotifierState = field(default_factory=NotifierState)
    rules: dict[str, RuleState] = field(default_factory=dict)


@dataclass(slots=True)
class Wanted:
    """What people want."""

    version: int
    rules: list[Rule]
    silences: tuple[Silence, ...]


class AlertState:
    """The leader's view of the database."""

    def __init__(self, database: Database, lease: Lease, topic: str) -> None:
        """lease: of the name ALERTS, on the same database."""
        self._database = database
        self._lease = lease
        self._topic = topic
        self._version = 0

    async def load(self) -> Saved:
        """What was saved last. Raises DatabaseUnavailable."""
        async with bounded(_SAVE_S), self._database.transaction(snapshot=True) as connection:
            row = await (await connection.execute(_EVALUATOR, (self._topic,))).fetchone()
            states = await (
                await connection.execute("SELECT rule, state FROM alert_states WHERE topic = %s", (self._topic,))
            ).fetchall()
        if row is None:
            self._version = 0
            return Saved()
        version, positions, read_to, notifier = row
        self._version = version
        return Saved(
            version,
            {int(partition): offset for partition, offset in positions.items()},
            {int(partition): us for partition, us in read_to.items()},
            _unpack(bytes(notifier), NotifierState),
            {rule: _unpack(bytes(state), RuleState) for rule, state in states},
        )

    async def save(
        self,
        *,
        positions: Mapping[int, int],
        read_us: Mapping[int, int],
        rules: Mapping[str, RuleState],
        forgotten: set[str],
        notifier: NotifierState | None,
        alerts: Mapping[str, Alert],
        notifications: Sequence[tuple[Notification, bytes]],
        figures: Mapping[str, Any],  # JSON values
        resets: Sequence[int] = (),
    ) -> None:
        """One moment. notifier: None where nothing of it has changed. notifications: with their bodies, JSON. resets: requests
        that were carried out. Raises StaleEpoch, StateMoved, DatabaseUnavailable; after any of them nothing in memory
        counts."""
        async with bounded(_SAVE_S), self._database.transaction() as connection:
            await connection.execute(f"SET LOCAL lock_timeout = {_LOCK_TIMEOUT_MS}".encode())
            await self._fence(connection)
            row = await (
                await connection.execute(
                    _SAVE,
                    {
                        "topic": self._topic,
                        "epoch": self._lease.epoch,
                        "positions": _json(positions),
                        "read_to": _json(read_us),
                        "notifier": b"" if notifier is None else _pack(notifier),
                        "figures": _json(figures),
                        "version": self._version,
                    },
                )
            ).fetchone()
            if row is None or row[0] != self._version + 1:
                raise StateMoved
            async with connection.cursor() as cursor:
                if forgotten:
                    await cursor.execute(
                        "DELETE FROM alert_states WHERE topic = %s AND rule = ANY (%s)", (self._topic, [*forgotten])
                    )
                if rules:
                    await cursor.executemany(
                        _SAVE_RULE, [(self._topic, rule, _pack(state)) for rule, state in sorted(rules.items())]
                    )
                if alerts:
                    await cursor.executemany(_SAVE_ALERT, [_alert_row(alert) for _, alert in sorted(alerts.items())])
                if notifications:
                    await cursor.executemany(
                        _PUT_OUT,
                        [
                            (each.notification_id, each.rule, each.channel, body.decode())
                            for each, body in notifications
                        ],
                    )
                if resets:
                    await cursor.execute("DELETE FROM alert_resets WHERE reset_id = ANY (%s)", ([*resets],))
                if notifier is not None:
                    await cursor.execute("DELETE FROM alert_breakers")
                    await cursor.executemany(
                        _SAVE_BREAKERS, [_breaker_row(place, each) for place, each in sorted(notifier.breakers.items())]
                    )
        self._version += 1

    async def wanted(self) -> Wanted:
        """Rules and silences, in one snapshot. Rules that this program cannot read are left out, and told."""
        rules, problems = [], []
        async with bounded(_SAVE_S), self._database.transaction(snapshot=True) as connection:
            (version,) = await self._one(connection, "SELECT version FROM alert_version")
            cursor = await connection.execute("SELECT name, owner, document FROM alert_rules ORDER BY name")
            for name, owner, document in await cursor.fetchall():
                try:
                    rules.append(Rule(RuleDocument.model_validate(document), owner))
                except ValueError as error:
                    problems.append((name, f"this version cannot read the rule: {' '.join(str(error).split())[:300]}"))
            cursor = await connection.execute(
                """SELECT silence_id, matchers, (extract(epoch FROM starts_at) * 1000000)::bigint,
                    (extract(epoch FROM ends_at) * 1000000)::bigint, author, comment
                FROM alert_silences WHERE ends_at > clock_timestamp() - interval '1 hour' ORDER BY silence_id"""
            )
            silences = tuple(
                Silence(name, tuple(msgspec.convert(matchers, list[Matcher])), starts_us, ends_us, author, comment)
                for name, matchers, starts_us, ends_us, author, comment in await cursor.fetchall()
            )
        for name, problem in problems:
            await self.note_problem(name, problem)
        return Wanted(version, rules, silences)

    async def wanted_version(self) -> int:
        """Whether rules or silences have changed."""
        row = await self._database.fetch_one("SELECT version FROM alert_version")
        return 0 if row is None else int(row[0])

    async def resets(self) -> list[tuple[int, str, str]]:
        """(number, rule, channel) of breakers that people want closed."""
        rows = await self._database.fetch_all("SELECT reset_id, rule, channel FROM alert_resets ORDER BY 1 LIMIT 100")
        return [(number, rule, channel) for number, rule, channel in rows]

    async def note_problem(self, rule: str, problem: str | None) -> None:
        """Why a rule is not evaluated, for whoever lists it."""
        await self._database.execute(
            "UPDATE alert_rules SET problem = %s WHERE name = %s AND problem IS DISTINCT FROM %s",
            (problem, rule, problem),
        )

    async def purge(self) -> None:
        """Remove what is long over, some at a time."""
        for statement in _PURGE:
            await self._database.execute(statement)

    async def _fence(self, connection: Connection) -> None:
        row = await (await connection.execute(_FENCE)).fetchone()
        if self._lease.epoch is None or row is None or row[0] != self._lease.epoch:
            raise StaleEpoch

    @staticmethod
    async def _one(connection: Connection, statement: str) -> Any:  # a row, of whatever it asks for
        row = await (await connection.execute(statement.encode())).fetchone()
        assert row is not None, "it always returns a row"
        return row


def alert_json(alert: Alert) -> dict[str, Any]:
    """JSON of an alert as it is stored and told."""
    document: dict[str, Any] = msgspec.to_builtins(alert)
    document.pop("is_told"), document.pop("channels")
    document["samples"] = [
        {
            "timestamp_us": sample.timestamp,
            "id": str(sample.id),
            "level": sample.level,
            "service_name": sample.service_name,
            "message": sample.message,
        }
        for sample in alert.samples
    ]
    return document


def _alert_row(alert: Alert) -> tuple[Any, ...]:  # whatever psycopg adapts
    document = msgspec.json.encode(alert_json(alert)).decode()
    labels = msgspec.json.encode(alert.labels).decode()
    return (
        *(alert.alert_id, alert.rule, alert.state, alert.severity, labels),
        *(alert.started_us, alert.ended_us, document),
    )


def _breaker_row(place: str, breaker: Breaker) -> tuple[Any, ...]:  # whatever psycopg adapts
    return (*parts_of(place), breaker.state, breaker.since_us, breaker.held.notifications, breaker.opened)


def _json(value: Any) -> str:  # JSON values; keys may be numbers
    return msgspec.json.encode(value).decode()


def _pack(state: NotifierState | RuleState) -> bytes:
    return zstandard.ZstdCompressor(level=1).compress(msgspec.msgpack.encode(state))


def _unpack(packed: bytes, kind: type[_State]) -> _State:
    data = zstandard.ZstdDecompressor().decompress(packed, max_output_size=STATE_BYTES_MAX)
    return msgspec.msgpack.decode(data, type=kind)
