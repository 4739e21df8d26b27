"""Rules, silences and resets in the database: what people want. The leader sees changes within a second or so.

Each change is one transaction that holds the row of `alert_version`, so that what is counted stays so until it is committed.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import msgspec

from alerts.errors import NoSuchRule, NoSuchSilence, RuleConflict, RuleInvalid
from alerts.matching import PATTERNS_MAX, Matcher
from alerts.rules import FILE_OWNER, RULES_MAX, RuleDocument, check_share, check_together
from db.database import Connection, Database, bounded
from schemas.scope import ServiceScope

SILENCES_MAX: Final = 1_000
"""In force or to come."""
RESETS_MAX: Final = 1_000
LIST_MAX: Final = 1_000
_CALL_S: Final = 10.0
_VERSION: Final = "UPDATE alert_version SET version = version + 1"
_RULES: Final = """
    SELECT name, owner, document, revision, changed_at, changed_by, problem FROM alert_rules {} ORDER BY name"""
_PUT: Final = """
    INSERT INTO alert_rules AS r (name, owner, document, changed_by) VALUES (%s, %s, %s::jsonb, %s)
    ON CONFLICT (name) DO UPDATE SET owner = excluded.owner, document = excluded.document, changed_by = excluded.changed_by,
        changed_at = clock_timestamp(), revision = r.revision + 1, problem = NULL"""
_SILENCES: Final = """
    SELECT silence_id, matchers, starts_at, ends_at, author, subject, comment FROM alert_silences
    WHERE ends_at > clock_timestamp() - interval '1 day' {} ORDER BY ends_at, silence_id LIMIT %s"""
_SILENCE_LOADS: Final = """
    SELECT count(*), count(*) FILTER (WHERE is_mine), coalesce(sum(patterns), 0)::bigint,
        coalesce(sum(patterns) FILTER (WHERE is_mine), 0)::bigint
    FROM (
        SELECT subject = %s AS is_mine, (
            SELECT count(*) FROM jsonb_array_elements(matchers) AS each (matcher) WHERE matcher ->> 'op' IN ('=~', '!~')
        ) AS patterns
        FROM alert_silences WHERE ends_at > clock_timestamp()) AS loads"""
# Whoever takes the name next must not find it quiet.
_END_SILENCES_OF: Final = """
    UPDATE alert_silences SET ends_at = clock_timestamp(),
        starts_at = least(starts_at, clock_timestamp() - interval '1 microsecond')
    WHERE ends_at > clock_timestamp()
        AND matchers @> jsonb_build_array(jsonb_build_object('label', 'rule', 'op', '=', 'value', %s::text))"""
_BREAKERS: Final = "SELECT rule, channel, state, since, held, opened FROM alert_breakers ORDER BY rule, channel"
# What an alert may tell of stands with it: a rule's name, owner, query and rights may have been others then.
_SHOWN: Final = """NOT EXISTS (
        SELECT FROM jsonb_array_elements_text(coalesce({column} -> 'services', '["*"]')) AS told (service)
        WHERE service = ANY (%(excluded)s) OR NOT (%(everything)s OR service = ANY (%(names)s) OR EXISTS (
            SELECT FROM unnest(%(prefixes)s::text[]) AS mine (prefix) WHERE starts_with(service, prefix))))"""
# What one may not see is no place to go on from either: ids are made of what somebody may know.
_OUTBOX: Final = f"""
    SELECT notification_id, rule, channel, state, attempts, created_at, ended_at, problem, body FROM alert_outbox
    WHERE rule = ANY (%(rules)s) AND {_SHOWN.format(column="body")} AND (%(channel)s::text IS NULL OR channel = %(channel)s)
        AND (%(state)s::text IS NULL OR state = %(state)s)
        AND (%(before)s::text IS NULL OR (created_at, notification_id) < (
            SELECT created_at, notification_id FROM alert_outbox
            WHERE notification_id = %(before)s AND {_SHOWN.format(column="body")}))
    ORDER BY created_at DESC, notification_id DESC LIMIT %(limit)s"""
_ALERTS: Final = f"""
    SELECT alert FROM alerts
    WHERE rule = ANY (%(rules)s) AND {_SHOWN.format(column="alert")} AND (%(state)s::text IS NULL OR state = %(state)s)
    ORDER BY (state = 'firing') DESC, started_at DESC, alert_id LIMIT %(limit)s"""


@dataclass(frozen=True, slots=True)
class StoredRule:
    """A rule with what is known of it."""

    document: RuleDocument
    owner: str
    revision: int
    changed_at: datetime
    changed_by: str
    problem: str | None
    """Why it is not evaluated."""


@dataclass(frozen=True, slots=True)
class StoredSilence:
    """A silence as it is listed."""

    silence_id: str
    matchers: tuple[Matcher, ...]
    starts_at: datetime
    ends_at: datetime
    author: str
    subject: str
    comment: str


@dataclass(frozen=True, slots=True)
class StoredBreaker:
    """Where a breaker stands."""

    rule: str
    channel: str
    state: str
    since: datetime
    held: int
    opened: int


@dataclass(frozen=True, slots=True)
class Shown:
    """Of which alerts and messages somebody is told."""

    rules: Sequence[str]
    """Names of rules that they may see."""
    allowed: ServiceScope
    marks: Sequence[str] = ()
    """See reach.marks."""

    @property
    def params(self) -> dict[str, Any]:  # whatever psycopg adapts
        """Of the statements."""
        allowed = self.allowed
        return {
            "rules": [*self.rules],
            "everything": allowed.everything,
            "names": [*allowed.names, *self.marks],
            "prefixes": [*allowed.prefixes],
            "excluded": [*allowed.excluded],
        }


class RuleStore:
    """Of one database."""

    def __init__(self, database: Database) -> None:
        """database: opened and closed by the caller. Methods raise DatabaseUnavailable."""
        self._database = database
        self._documents: dict[tuple[str, int, datetime], RuleDocument] = {}

    async def rules(self) -> list[StoredRule]:
        """All that this program can read, by name."""
        async with bounded(_CALL_S):
            rows = await self._database.fetch_all(_RULES.format(""))
        return self._read(rows)

    async def rule(self, name: str) -> StoredRule:
        """Raises NoSuchRule."""
        async with bounded(_CALL_S):
            rows = await self._database.fetch_all(_RULES.format("WHERE name = %s"), (_sound(name),))
        found = self._read(rows)
        if not found:
            raise NoSuchRule(f"there is no rule {name[:100]!r}, or it is not yours")
        return found[0]

    async def create(self, document: RuleDocument, *, owner: str, by: str) -> None:
        """A new rule. Raises RuleConflict, RuleInvalid."""
        async with self._change() as connection:
            if await self._others(connection, document, owner) is not None:
                raise RuleConflict(f"there is a rule {document.name} already")
            await connection.execute(_PUT, (document.name, owner, _json(document), by))

    async def replace(self, document: RuleDocument, *, owner: str, by: str, expected: StoredRule) -> None:
        """The rule of this name is another now, and `owner`'s. expected: as it was looked at. Raises RuleConflict,
        RuleInvalid."""
        async with self._change() as connection:
            if await self._others(connection, document, owner) != (expected.revision, expected.owner):
                raise RuleConflict(f"rule {document.name} was changed meanwhile: look at it again")
            await connection.execute(_PUT, (document.name, owner, _json(document), by))

    async def delete(self, name: str, *, expected: StoredRule) -> None:
        """The rule is no more. Raises RuleConflict."""
        async with self._change() as connection:
            cursor = await connection.execute(
                "DELETE FROM alert_rules WHERE name = %s AND revision = %s AND owner = %s",
                (name, expected.revision, expected.owner),
            )
            if cursor.rowcount != 1:
                raise RuleConflict(f"rule {name} was changed meanwhile: look at it again")
            await connection.execute(_END_SILENCES_OF, (name,))

    async def sync_files(self, documents: Sequence[RuleDocument]) -> list[str]:
        """The rules of files are these now. Returns what could not be so: names that people have taken."""
        problems = []
        async with self._change(moves=False) as connection:
            rows = await (await connection.execute(_RULES.format("").encode())).fetchall()
            known = {row[0]: row for row in rows}
            changed = 0
            for document in documents:
                row = known.get(document.name)
                if row is not None and row[1] != FILE_OWNER:
                    problems.append(f"rule {document.name} of the files: {row[1]} has a rule of that name")
                elif row is None or row[2] != msgspec.json.decode(_json(document)):
                    await connection.execute(_PUT, (document.name, FILE_OWNER, _json(document), FILE_OWNER))
                    changed += 1
            cursor = await connection.execute(
                "DELETE FROM alert_rules WHERE owner = %s AND NOT name = ANY (%s)",
                (FILE_OWNER, [document.name for document in documents]),
            )
            if changed + cursor.rowcount:
                await connection.execute(_VERSION)
        return problems

    async def add_silence(
        self,
        matchers: Sequence[Matcher],
        *,
        starts_at: datetime,
        ends_at: datetime,
        author: str,
        subject: str,
        comment: str,
    ) -> str:
        """Its id. Raises RuleConflict where there are too many, or where one subject's would leave too little to others."""
        silence_id = secrets.token_hex(8)
        patterns = sum(matcher.is_pattern for matcher in matchers)
        async with self._change() as connection:
            rows = await (await connection.execute(_SILENCE_LOADS.encode(), (subject,))).fetchall()
            ((silences, mine, all_patterns, my_patterns),) = rows
            has_room = mine + 1 <= SILENCES_MAX - silences - 1
            if patterns:
                has_room &= my_patterns + patterns <= PATTERNS_MAX - all_patterns - patterns
            if not has_room:
                raise RuleConflict(
                    f"{mine} silences of yours are in force or to come, with {my_patterns} patterns: of {SILENCES_MAX} silences"
                    f" and {PATTERNS_MAX} patterns one may have as many as all leave free: end some"
                )
            await connection.execute(
                "INSERT INTO alert_silences (silence_id, matchers, starts_at, ends_at, author, subject, comment)"
                " VALUES (%s, %s::jsonb, %s, %s, %s, %s, %s)",
                (
                    silence_id,
                    msgspec.json.encode([*matchers]).decode(),
                    *(starts_at, ends_at, _sound(author), subject, _sound(comment)),
                ),
            )
        return silence_id

    async def silences(self) -> list[StoredSilence]:
        """Those in force, to come, or over since a day."""
        async with bounded(_CALL_S):
            rows = await self._database.fetch_all(_SILENCES.format(""), (LIST_MAX,))
        return [_silence(row) for row in rows]

    async def silence(self, silence_id: str) -> StoredSilence:
        """Raises NoSuchSilence."""
        async with bounded(_CALL_S):
            rows = await self._database.fetch_all(_SILENCES.format("AND silence_id = %s"), (_sound(silence_id), 1))
        if not rows:
            raise NoSuchSilence
        return _silence(rows[0])

    async def end_silence(self, silence_id: str) -> None:
        """It holds no longer. Harmless when it is over."""
        async with self._change() as connection:
            await connection.execute(
                "UPDATE alert_silences SET ends_at = clock_timestamp(),"
                " starts_at = least(starts_at, clock_timestamp() - interval '1 microsecond')"
                " WHERE silence_id = %s AND ends_at > clock_timestamp()",
                (silence_id,),
            )

    async def breakers(self) -> list[StoredBreaker]:
        """Those that anything has passed lately."""
        async with bounded(_CALL_S):
            return [StoredBreaker(*row) for row in await self._database.fetch_all(_BREAKERS)]

    async def ask_reset(self, rule: str, channel: str, *, by: str) -> None:
        """The leader closes this breaker soon. Raises RuleConflict where too many wait."""
        async with bounded(_CALL_S):
            done = await self._database.execute(
                "INSERT INTO alert_resets (rule, channel, asked_by)"
                " SELECT %s, %s, %s WHERE (SELECT count(*) FROM alert_resets) < %s",
                (rule, channel, by, RESETS_MAX),
            )
        if not done:
            raise RuleConflict(f"{RESETS_MAX} resets wait already: does `logfeed alert` run?")

    async def alerts(self, asked: Shown, *, state: str | None, limit: int) -> list[dict[str, Any]]:
        """Those that fire first, then the newest."""
        async with bounded(_CALL_S):
            rows = await self._database.fetch_all(_ALERTS, asked.params | {"state": state, "limit": limit})
        return [row[0] for row in rows]

    async def notifications(
        self, shown: Shown, *, channel: str | None, state: str | None, before: str | None, limit: int
    ) -> list[dict[str, Any]]:
        """Newest first. before: the id of one that is shown, to go on after it; of any other there is nothing."""
        sound = {"channel": channel and _sound(channel), "before": before and _sound(before)}
        asked = shown.params | sound | {"state": state, "limit": limit}
        async with bounded(_CALL_S):
            rows = await self._database.fetch_all(_OUTBOX, asked)
        names = ("id", "rule", "channel", "state", "attempts", "created_at", "ended_at", "problem", "message")
        return [dict(zip(names, row, strict=True)) for row in rows]

    async def status(self, topic: str) -> tuple[str | None, datetime | None, dict[str, Any]]:
        """(who leads, when it saved last, its figures)."""
        async with bounded(_CALL_S):
            lease = await self._database.fetch_one(
                "SELECT owner FROM leases WHERE name = 'alerts' AND lease_until > clock_timestamp()"
            )
            row = await self._database.fetch_one(
                "SELECT saved_at, figures FROM alert_evaluator WHERE topic = %s", (topic,)
            )
        return (None if lease is None else lease[0], *((None, {}) if row is None else (row[0], row[1])))

    def _read(self, rows: Sequence[Any]) -> list[StoredRule]:
        """Each is read once, 0.1 to 4 ms: every question of alerting looks at all of them."""
        found, known = [], self._documents
        for name, owner, content, revision, changed_at, changed_by, problem in rows:
            key = (name, revision, changed_at)
            document = known.get(key)
            if document is None:
                try:
                    document = RuleDocument.model_validate(content)
                except ValueError:  # a newer program's; the leader says so
                    continue
                if len(known) >= 2 * RULES_MAX:
                    known.clear()
                known[key] = document
            found.append(StoredRule(document, owner, revision, changed_at, changed_by, problem))
        return found

    @asynccontextmanager
    async def _change(self, *, moves: bool = True) -> AsyncIterator[Connection]:
        async with bounded(_CALL_S), self._database.transaction() as connection:
            await connection.execute("SELECT version FROM alert_version FOR UPDATE")
            yield connection
            if moves:
                await connection.execute(_VERSION)

    async def _others(self, connection: Connection, document: RuleDocument, owner: str) -> tuple[int, str] | None:
        """(revision, owner) of the rule of this name; checks that the new one fits beside the others, as the owner's. Raises
        RuleInvalid."""
        rows = await (await connection.execute(_RULES.format("").encode())).fetchall()
        mine: list[RuleDocument] = []
        others: list[RuleDocument] = []
        before = None
        for stored in self._read(rows):
            if stored.document.name == document.name:
                before = stored.document if stored.owner == owner else None
            else:
                (mine if stored.owner == owner else others).append(stored.document)
        try:
            check_together([*mine, *others, document])
            check_share(document, before, mine, others)
        except ValueError as error:
            raise RuleInvalid([("", str(error))]) from error
        return next(((row[3], row[1]) for row in rows if row[0] == document.name), None)


def _silence(row: Sequence[Any]) -> StoredSilence:
    silence_id, matchers, starts_at, ends_at, author, subject, comment = row
    read = tuple(msgspec.convert(matchers, list[Matcher]))
    return StoredSilence(silence_id, read, starts_at, ends_at, author, subject, comment)


def _json(document: RuleDocument) -> str:
    return msgspec.json.encode(document.as_json()).decode()


def _sound(text: str) -> str:
    """What PostgreSQL takes as text."""
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
