"""What is found, judged. Pure: no client, no clock, no disk.

Bounds are those that the processes themselves keep to, where they have any; the others are here, each with its reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from cli.doctor.findings import Finding, fail, ok, warn
from db.replication import PrimaryPosition, ReplicaPosition
from db.server_facts import ServerFacts, setting_value
from db.server_settings import SERVER_SETTINGS
from runtime.clock import CLOCKS_APART_US_MAX
from schemas.hosts import AWAY_S
from store.status import StoreStatus
from store.tiers.status import TierStatus

POSTGRES_MIN: Final = 170_000
"""Transactions end by transaction_timeout, which is of PostgreSQL 17."""
AT_LEAST: Final = (
    "shared_buffers",
    "wal_buffers",
    "max_wal_size",
    "checkpoint_timeout",
    "max_locks_per_transaction",
    "max_connections",
)
"""Of SERVER_SETTINGS; jit and the time zone are set by each session."""
DURABLE: Final = ("fsync", "full_page_writes", "synchronous_commit")
CONNECTIONS_SHARE_MAX: Final = 0.8
CLOCK_US_WARN: Final = 2_000_000
"""Clocks under NTP are milliseconds apart; ids and `visible_through` tell times, and seconds are seen by people."""
DISK_SHARE_MIN: Final = 0.1
HOSTS_NAMED_MAX: Final = 10
LAG_S_WARN, LAG_S_FAIL = 60.0, 900.0
"""Writers that keep up are a second behind. A quarter of an hour is what chunks wait for before they close."""
WAL_BEHIND_WARN: Final = 256 * 1024**2
"""Bytes: some seconds of the largest load that one server takes."""
TABLES_DUE_MAX: Final = 4
"""A day of chunks: tiering writes one within minutes of its end."""
_ROLES: Final = {
    "sealer": ("write", "chunks are not closed, indexed or dropped"),
    "tier": ("tier", "old rows stay in tables"),
    "alerts": ("alert", "no rule is evaluated"),
    "patterns": ("mine", "patterns are not counted"),
    "routes": ("route", "derived topics get nothing"),
}
_GIB: Final = 1024**3


def server(facts: ServerFacts, *, wants_timescale: bool) -> list[Finding]:
    """Version, room for connections, settings (docs/operating.md, PostgreSQL)."""
    return [*_version(facts, wants_timescale), *_connections(facts), *_settings(facts)]


def _version(facts: ServerFacts, wants_timescale: bool) -> Iterable[Finding]:
    with_timescale = f" with TimescaleDB {facts.timescale}" if facts.timescale else ""
    size = f"{facts.database_bytes / _GIB:.1f} GiB"
    if facts.version_number < POSTGRES_MIN:
        yield fail("database", f"is PostgreSQL {facts.version}", "use PostgreSQL 17 or later")
    elif facts.is_standby:
        yield fail("database", "is a standby: it takes no writes", "name the primary in database.url")
    elif wants_timescale and facts.timescale is None:
        yield fail(
            "database",
            "lacks the extension timescaledb, which profile full stores in",
            "CREATE EXTENSION timescaledb in this database, with shared_preload_libraries=timescaledb in the server",
        )
    else:
        yield ok("database", f"answers: PostgreSQL {facts.version}{with_timescale}, {size}")


def _connections(facts: ServerFacts) -> Iterable[Finding]:
    most = facts.settings.get("max_connections")
    if isinstance(most, str) and most.isdigit():
        text = f"{facts.connections} of {most} connections are in use"
        if facts.connections > CONNECTIONS_SHARE_MAX * int(most):
            yield warn("database", text, "raise max_connections, or lower database.connections_max of the roles")
        else:
            yield ok("database", text)


def _settings(facts: ServerFacts) -> Iterable[Finding]:
    wrong = [name for name in DURABLE if facts.settings.get(name) == "off"]
    if wrong:
        yield fail(
            "database", f"{', '.join(wrong)} off: what was acknowledged is lost in a crash", "turn on what is off"
        )
    low = [
        f"{name} is {_shown(facts.settings[name])}, recommended {SERVER_SETTINGS[name]}"
        for name in AT_LEAST
        if name in facts.settings and not _reaches(facts.settings[name], setting_value(SERVER_SETTINGS[name]))
    ]
    if low:
        yield warn("database", "; ".join(low), "set what docs/operating.md recommends, and restart the server")
    elif not wrong:
        yield ok("database", "its settings are as recommended")


def _reaches(found: str | float, wanted: str | float) -> bool:
    try:
        return float(found) >= float(wanted)
    except ValueError:
        return found == wanted


def _shown(value: str | float) -> str:
    if isinstance(value, str):
        return value
    return f"{value / 1024**2:.0f}MB" if value >= 1024**2 else f"{value:.0f}"


def replica(name: str, position: ReplicaPosition, primary: PrimaryPosition | None) -> list[Finding]:
    """primary: asked after the replica; None: it does not say where it is."""
    if not position.is_replica or position.replayed is None:
        return [fail("replicas", f"{name} is no replica", "name streaming replicas only in database.replicas")]
    if primary is None:
        return [warn("replicas", f"{name} answers, and the primary does not say where it is", "see the lines above")]
    if position.cluster != primary.cluster:
        return [fail("replicas", f"{name} is a replica of another database", "mend database.replicas")]
    if position.replayed > primary.written:
        text = f"{name} has followed another primary, which was ahead of this one"
        return [fail("replicas", text, "make it anew: pg_rewind, or pg_basebackup")]
    found = []
    behind = primary.written - position.replayed
    text = f"{name} answers, {behind / 1024**2:.1f} MiB of WAL behind"
    if behind > WAL_BEHIND_WARN:
        found.append(warn("replicas", text, "see whether it still streams (pg_stat_replication), and its disks"))
    else:
        found.append(ok("replicas", text))
    if not position.gives_feedback:
        text = f"{name}: hot_standby_feedback is off: questions hold replaying up, or are ended by it"
        found.append(warn("replicas", text, "set hot_standby_feedback = on there"))
    return found


def migrated(missing: Sequence[int], applied: Sequence[int], known: Sequence[int]) -> Finding:
    """Versions that the database lacks, has, and that this program knows."""
    if missing:
        return fail(
            "database", f"lacks {len(missing)} migrations", "run `logfeed db migrate` (it is safe to run twice)"
        )
    newer = sorted(set(applied) - set(known))
    if newer:
        return warn(
            "database",
            f"has {len(newer)} migrations that this program does not know (up to {newer[-1]:04})",
            "upgrade this program too: a newer one runs on this database",
        )
    return ok("database", f"is migrated, up to {max(known, default=0):04}")


def clock(what: str, apart_us: int, uncertain_us: int) -> Finding:
    """How far another clock is ahead of this host's (behind: less than 0), give or take what the question took."""
    seen_us = max(0, abs(apart_us) - uncertain_us)
    where = "ahead of" if apart_us > 0 else "behind"
    text = f"of {what} is {abs(apart_us) / 1e6:.3f} s {where} this host's (± {uncertain_us / 1e6:.3f} s)"
    do = "synchronise both hosts' clocks (chrony, systemd-timesyncd)"
    if seen_us > CLOCKS_APART_US_MAX:
        return fail("clock", f"{text}: ingest gives no ids, and nothing expires", do)
    if seen_us > CLOCK_US_WARN:
        return warn("clock", text, do)
    return ok("clock", text)


def disk(where: str, free_bytes: int, total_bytes: int, *, needed_bytes: int) -> Finding:
    """Room on the disk of a directory. needed_bytes: what a process leaves free itself."""
    text = f"{where}: {free_bytes / _GIB:.1f} GiB free of {total_bytes / _GIB:.1f} GiB"
    do = "make room, move old rows to object storage (objects.url), or keep logs for less long (store.retention_days)"
    if free_bytes < needed_bytes:
        return fail("disk", f"{text}, less than the {needed_bytes / _GIB:.1f} GiB that stay free: work is put off", do)
    if free_bytes < DISK_SHARE_MIN * total_bytes:
        return warn("disk", text, do)
    return ok("disk", text)


def private(path: str, mode: int, *, is_directory: bool) -> Finding | None:
    """mode: permission bits of what holds secrets. None: only its owner may."""
    if not mode & 0o077:
        return None
    right = "700" if is_directory else "600"
    return fail("keys", f"{path} may be read or entered by others (mode {mode:03o})", f"chmod {right} {path}")


def stored(status: StoreStatus, ends: Mapping[int, int], now_us: int) -> list[Finding]:
    """Partitions, writers, dead letters. ends: partition -> offset of its next record, of those that have a leader."""
    return [*_halted(status), *_away(status, ends), *_lag(status, ends, now_us), *_dead(status)]


def _halted(status: StoreStatus) -> Iterable[Finding]:
    for each in status.partitions:
        if each.halted is not None:
            yield fail(
                "writers",
                f"partition {each.partition} is halted: {each.halted}",
                f"mend the cause, then `logfeed db resume {each.partition}` (docs/runbooks/partition-halted.md)",
            )


def _away(status: StoreStatus, ends: Mapping[int, int]) -> Iterable[Finding]:
    unknown = [str(each.partition) for each in status.partitions if each.partition not in ends]
    if unknown and ends:
        yield fail(
            "broker",
            f"partitions {', '.join(unknown)} have no leader that answers",
            "bring the broker that leads them back: they wait, the others go on",
        )


def _lag(status: StoreStatus, ends: Mapping[int, int], now_us: int) -> Iterable[Finding]:
    behind = [each for each in status.partitions if ends.get(each.partition, 0) > each.next_offset]
    records = sum(ends[each.partition] - each.next_offset for each in behind)
    times = [each.stored_to_us for each in behind if each.stored_to_us is not None]
    age_s = (now_us - min(times)) / 1e6 if times else 0.0
    names = ", ".join(status.writers) or "nobody"
    do = "start more writers, or see docs/runbooks/writers-behind.md"
    if not status.writers:
        judged = fail if records else warn
        yield judged("writers", f"no writer runs; {records} records wait to be stored", "start `logfeed write`")
    elif records and age_s > LAG_S_FAIL:
        yield fail("writers", f"{records} records are not stored, for {age_s:.0f} s; writers: {names}", do)
    elif records and age_s > LAG_S_WARN:
        yield warn("writers", f"{records} records are not stored, for {age_s:.0f} s; writers: {names}", do)
    else:
        yield ok("writers", f"{records} records wait to be stored; writers: {names}")


def _dead(status: StoreStatus) -> Iterable[Finding]:
    if status.dead:
        count = sum(each.count for each in status.dead)
        reasons = ", ".join(sorted({each.reason for each in status.dead}))
        newest = status.dead[0].newest_id
        yield warn(
            "dead",
            f"{count} lines were put aside: {reasons}",
            f"`logfeed dead list`, `logfeed dead show {newest}`, then replay or drop them",
        )
    else:
        yield ok("dead", "no lines were put aside")


def roles(leaders: Mapping[str, str | None]) -> list[Finding]:
    """Who leads what one process does at a time. What never ran here is nobody's fault."""
    found = []
    for name, (command, consequence) in _ROLES.items():
        if name not in leaders:
            continue
        leader = leaders[name]
        if leader is None:
            found.append(warn("roles", f"nobody is {name}: {consequence}", f"start `logfeed {command}`"))
        else:
            found.append(ok("roles", f"{name}: {leader}"))
    return found


def hosts(silent_s: Mapping[str, float]) -> Finding | None:
    """silent_s: of each host whose agent registered, since it was last heard of. None: there are none."""
    if not silent_s:
        return None
    away = sorted(name for name, seconds in silent_s.items() if seconds > AWAY_S)
    if not away:
        return ok("hosts", f"{len(silent_s)} are heard of")
    names = ", ".join(away[:HOSTS_NAMED_MAX]) + (", …" if len(away) > HOSTS_NAMED_MAX else "")
    return warn(
        "hosts",
        f"{len(away)} of {len(silent_s)} are away: {names}",
        "see whether their agents run and reach this server; `logfeed hosts forget NAME` for those that are gone for good",
    )


def tiers(status: TierStatus) -> Finding:
    """Whether old rows move."""
    due = f"{status.tables_to_write} tables to write, {status.tables_to_switch} to switch"
    if status.leader is None and (status.tables_to_write or status.tables_to_switch):
        return fail("tiers", f"{due}, and nobody moves rows", "start `logfeed tier`")
    if status.tables_to_write > TABLES_DUE_MAX or status.tables_to_switch > TABLES_DUE_MAX:
        return warn("tiers", f"behind: {due}", "see docs/runbooks/tiering-behind.md, or run `logfeed tier run --now`")
    return ok("tiers", f"{due}, {status.segments_to_cool} files to move to object storage")


def marker(directory: str, found: str | None, installation: str | None) -> Finding | None:
    """Whether a directory of files is this database's (docs/operating.md, Tiers). None: neither has an id yet."""
    if found is None or installation is None:
        return None
    if found.split()[:1] == [installation]:
        return ok("tiers", f"{directory} is this database's")
    return fail(
        "tiers",
        f"{directory} belongs to another installation ({found!r:.60}), this one is {installation}",
        "name the right directory in tiers.directory; nothing moves or expires meanwhile",
    )


def broker_clock(newest_us: int, now_us: int) -> Finding | None:
    """newest_us: append time of the newest record. It cannot be later than now, unless the broker's clock is ahead."""
    ahead_us = newest_us - now_us
    return clock("the broker", ahead_us, 0) if ahead_us > CLOCK_US_WARN else None
