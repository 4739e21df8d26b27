"""What `logfeed doctor` makes of what it finds, and what it finds on this machine."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest

from agent.roots import Root
from cli.doctor import judging, looking
from cli.doctor.findings import Finding, State, as_json, as_text, fail, is_well, ok, warn
from cli.doctor.host import agent_files
from cli.settings import Settings
from db.replication import PrimaryPosition, ReplicaPosition
from db.server_facts import ServerFacts, in_base_unit, setting_value
from db.server_settings import SERVER_SETTINGS
from store.status import DeadLetterCount, PartitionStatus, StoreStatus
from store.tiers.status import TierStatus

GIB = 1024**3
NOW_US = 1_790_000_000_000_000
RECOMMENDED: dict[str, str | float] = {name: setting_value(value) for name, value in SERVER_SETTINGS.items()}
DURABLE = dict.fromkeys(judging.DURABLE, "on")


def facts(**changes: Any) -> ServerFacts:
    found: dict[str, Any] = {
        "version_number": 180_004,
        "version": "18.4",
        "timescale": None,
        "connections": 20,
        "database_bytes": GIB,
        "is_standby": False,
        "settings": {**RECOMMENDED, **DURABLE},
    }
    return ServerFacts(**{**found, **changes})


def worst(findings: list[Finding]) -> State:
    return max((each.state for each in findings), key=list(State).index)


def only(findings: list[Finding], state: State) -> Finding:
    (found,) = [each for each in findings if each.state is state]
    return found


def test_a_server_as_recommended_is_well() -> None:
    found = judging.server(facts(), wants_timescale=False)
    assert worst(found) is State.OK
    assert "PostgreSQL 18.4, 1.0 GiB" in found[0].text
    assert "20 of 200 connections" in found[1].text


@pytest.mark.parametrize("name", judging.AT_LEAST)
def test_a_setting_below_what_is_recommended_is_named_with_both_values(name: str) -> None:
    wanted = RECOMMENDED[name]
    low = str(int(wanted) // 2) if isinstance(wanted, str) else wanted / 2
    found = only(
        judging.server(facts(settings={**RECOMMENDED, **DURABLE, name: low}), wants_timescale=False), State.WARN
    )
    assert f"{name} is " in found.text
    assert f"recommended {SERVER_SETTINGS[name]}" in found.text
    more = str(int(wanted) * 2) if isinstance(wanted, str) else wanted * 2
    plenty = judging.server(facts(settings={**RECOMMENDED, **DURABLE, name: more}), wants_timescale=False)
    assert worst(plenty) is State.OK


@pytest.mark.parametrize("name", judging.DURABLE)
def test_a_server_that_forgets_what_it_committed_fails(name: str) -> None:
    found = judging.server(facts(settings={**RECOMMENDED, **DURABLE, name: "off"}), wants_timescale=False)
    assert name in only(found, State.FAIL).text


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"version_number": 160_009, "version": "16.9"}, "PostgreSQL 16.9"),
        ({"is_standby": True}, "standby"),
        ({"timescale": None}, "timescaledb"),
    ],
)
def test_a_server_that_cannot_do_fails(changes: dict[str, Any], says: str) -> None:
    found = only(judging.server(facts(**changes), wants_timescale=True), State.FAIL)
    assert says in found.text
    assert found.do


def test_a_replica_is_judged_by_what_it_has_replayed() -> None:
    primary = PrimaryPosition(written=10 * GIB, cluster=7, started=1.0)

    def judged(replayed: int | None, *, cluster: int = 7, feedback: bool = True) -> list[Finding]:
        position = ReplicaPosition(replayed is not None, replayed, cluster, feedback)
        return judging.replica("db2:5432", position, primary)

    assert worst(judged(10 * GIB)) is State.OK
    assert "1024.0 MiB of WAL behind" in only(judged(9 * GIB), State.WARN).text
    assert "hot_standby_feedback" in only(judged(10 * GIB, feedback=False), State.WARN).text
    for wrong in (judged(None), judged(10 * GIB, cluster=8), judged(11 * GIB)):
        assert only(wrong, State.FAIL).do


def test_few_connections_left_are_told() -> None:
    found = only(judging.server(facts(connections=170), wants_timescale=False), State.WARN)
    assert "170 of 200" in found.text


def test_units_of_settings_are_those_of_the_server() -> None:
    assert in_base_unit("65536", "8kB") == setting_value("512MB") == 512 * 1024**2
    assert in_base_unit("900", "s") == setting_value("15min") == 900_000
    assert (in_base_unit("200", None), setting_value("200"), setting_value("off")) == ("200", "200", "off")


def test_migrations_are_missing_there_or_newer() -> None:
    assert judging.migrated([17, 18], [1], [1, 17, 18]).state is State.FAIL
    newer = judging.migrated([], [1, 2, 3], [1, 2])
    assert (newer.state, "0003" in newer.text) == (State.WARN, True)
    assert judging.migrated([], [1, 2], [1, 2]) == ok("database", "is migrated, up to 0002")


@pytest.mark.parametrize(
    ("apart_us", "uncertain_us", "state"),
    [
        (1_000, 500, State.OK),
        (-1_900_000, 0, State.OK),
        (3_000_000, 0, State.WARN),
        (-3_000_000, 0, State.WARN),
        (3_000_000, 2_000_000, State.OK),
        (301_000_000, 0, State.FAIL),
        (-301_000_000, 500_000, State.FAIL),
    ],
)
def test_clocks_apart_are_told_by_how_far_they_surely_are(apart_us: int, uncertain_us: int, state: State) -> None:
    found = judging.clock("the database", apart_us, uncertain_us)
    assert found.state is state
    assert ("ahead of" in found.text) == (apart_us > 0)


def test_a_record_from_the_future_shows_a_brokers_clock() -> None:
    assert judging.broker_clock(NOW_US - 86_400_000_000, NOW_US) is None, "nothing was sent since yesterday"
    ahead = judging.broker_clock(NOW_US + 10_000_000, NOW_US)
    assert ahead is not None
    assert ahead.state is State.WARN


@pytest.mark.parametrize(
    ("free", "total", "state"), [(50, 100, State.OK), (9, 100, State.WARN), (0.5, 100, State.FAIL), (2, 5, State.OK)]
)
def test_room_on_disks(free: float, total: float, state: State) -> None:
    assert judging.disk("/srv", int(free * GIB), int(total * GIB), needed_bytes=GIB).state is state


def partition(number: int, *, stored: int = 10, age_s: float = 0.0, halted: str | None = None) -> PartitionStatus:
    return PartitionStatus(number, "w1", stored, NOW_US - int(age_s * 1e6), halted)


@pytest.mark.parametrize(
    ("age_s", "ends", "state"),
    [
        (0, {0: 10}, State.OK),
        (30, {0: 12}, State.OK),
        (90, {0: 12}, State.WARN),
        (2000, {0: 12}, State.FAIL),
        (2000, {0: 10}, State.OK),
    ],
)
def test_writers_behind_are_told_by_records_and_by_age(age_s: float, ends: dict[int, int], state: State) -> None:
    status = StoreStatus((partition(0, age_s=age_s),), ("w1",), {}, ())
    assert worst(judging.stored(status, ends, NOW_US)) is state


def test_no_writer_is_worse_while_records_wait() -> None:
    status = StoreStatus((partition(0),), (), {}, ())
    assert worst(judging.stored(status, {0: 10}, NOW_US)) is State.WARN
    waiting = only(judging.stored(status, {0: 17}, NOW_US), State.FAIL)
    assert "7 records wait" in waiting.text


def test_halted_and_leaderless_partitions_and_dead_letters_say_what_to_do() -> None:
    dead = (DeadLetterCount("refused", "shop", 3, NOW_US, 17), DeadLetterCount("mismatch", "mail", 1, NOW_US, 4))
    status = StoreStatus((partition(0, halted="offsets are gone"), partition(1)), ("w1",), {}, dead)
    found = judging.stored(status, {0: 10}, NOW_US)
    halted, away = (each for each in found if each.state is State.FAIL)
    assert "logfeed db resume 0" in halted.do
    assert "partitions 1 have no leader" in away.text
    put_aside = only(found, State.WARN)
    assert "4 lines were put aside: mismatch, refused" in put_aside.text
    assert "logfeed dead show 17" in put_aside.do


def test_roles_that_nobody_leads_are_told_and_those_that_never_ran_are_not() -> None:
    found = judging.roles({"sealer": "w1", "alerts": None})
    assert [each.state for each in found] == [State.OK, State.WARN]
    assert "logfeed alert" in found[1].do


@pytest.mark.parametrize(
    ("leader", "to_write", "state"),
    [("t1", 1, State.OK), ("t1", 9, State.WARN), (None, 1, State.FAIL), (None, 0, State.OK)],
)
def test_rows_that_nobody_moves(leader: str | None, to_write: int, state: State) -> None:
    status = TierStatus((), leader, 1, to_write, 0, 0, 0, 0, 0)
    assert judging.tiers(status).state is state


def test_another_databases_directory_is_found() -> None:
    mine, other = "ab" * 16, "cd" * 16
    assert judging.marker("/srv", None, mine) is None
    assert judging.marker("/srv", f"{mine} lost", mine) == ok("tiers", "/srv is this database's")
    found = judging.marker("/srv", other, mine)
    assert found is not None
    assert found.state is State.FAIL


def test_lines_and_json_say_the_same_and_take_no_more_lines_than_they_are_given() -> None:
    findings = [ok("a", "x"), warn("b", "two\nlines \x1b[31m", "do this"), fail("c", "y", "do that")]
    text = as_text(findings[1])
    assert text.splitlines() == ["warn  b          two lines \\x1b[31m", " " * 17 + "-> do this"], text
    document = json.loads(as_json(findings))
    assert (document["ok"], is_well(findings), is_well(findings[:2])) == (False, False, True)
    assert [each["state"] for each in document["findings"]] == ["ok", "warn", "fail"]
    assert document["findings"][2] == {"state": "fail", "what": "c", "text": "y", "do": "do that"}


# On this machine


@pytest.fixture
def data(tmp_path: Path) -> Path:
    keys = tmp_path / "keys"
    keys.mkdir(mode=0o700)
    (keys / "admin").touch(mode=0o600)
    return tmp_path


def test_keys_that_others_may_read_fail(data: Path) -> None:
    settings = Settings(data_dir=data)
    assert [each.state for each in looking._secrets(settings)] == [State.OK]
    (data / "keys" / "admin").chmod(0o640)
    (data / "keys").chmod(0o755)
    found = list(looking._secrets(settings))
    assert [each.state for each in found] == [State.FAIL, State.FAIL]
    assert [each.do for each in found] == [f"chmod 700 {data}/keys", f"chmod 600 {data}/keys/admin"]


def test_each_disk_is_told_once(data: Path) -> None:
    found = list(looking._places(Settings.model_validate({"data_dir": data, "tiers": {"directory": data}})))
    assert [each.what for each in found] == ["disk"]


@contextlib.asynccontextmanager
async def answering(answer: bytes) -> AsyncIterator[int]:
    """A server that says the same to everybody."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()
        writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0)
    async with server:
        yield server.sockets[0].getsockname()[1]


def _http(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n%b" % (len(body), body)


@pytest.mark.parametrize(
    ("answer", "state", "says"),
    [
        (_http(b'{"ready": true, "problems": []}'), State.OK, "ready"),
        (_http(b'{"ready": false, "problems": ["waits for the broker"]}'), State.WARN, "waits for the broker"),
        (_http(b"<html>"), State.FAIL, "another program"),
        (b"220 mail.example ESMTP\r\n", State.FAIL, "another program"),
    ],
)
async def test_who_listens_on_a_port_is_told(answer: bytes, state: State, says: str) -> None:
    async with answering(answer) as port:
        (found,) = await looking._ports(Settings.model_validate({"http": {"port": port}}))
    assert found.state is state
    assert says in found.text


async def test_a_free_port_is_free(free: int) -> None:
    (found,) = await looking._ports(Settings.model_validate({"http": {"port": free}}))
    assert (found.state, "nobody listens" in found.text) == (State.OK, True)


@pytest.fixture
def free() -> Iterator[int]:
    with socket.socket() as held:  # bound and not listening: nobody else takes it meanwhile
        held.bind(("127.0.0.1", 0))
        yield held.getsockname()[1]


async def test_what_hangs_is_a_finding_and_no_wait_without_end() -> None:
    async def hangs() -> list[Finding]:
        await asyncio.Event().wait()
        return []

    (found,) = await looking._looked(hangs, "broker", 0.01)
    assert found.state is State.FAIL
    assert "did not answer" in found.text


def test_hosts_that_are_away_are_named() -> None:
    assert judging.hosts({}) is None
    well = judging.hosts({"web-1": 3.0, "web-2": 12.0})
    assert well is not None
    assert (well.state, well.text) == (State.OK, "2 are heard of")
    away = judging.hosts({f"web-{number:02}": 1e6 for number in range(12)} | {"up": 1.0})
    assert away is not None
    assert away.state is State.WARN
    assert away.text.startswith("12 of 13 are away: web-00, web-01, ")
    assert away.text.endswith("web-09, …")
    assert "logfeed hosts forget" in away.do


def test_roots_of_an_agent_are_looked_at(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert agent_files(Settings().agent) == []
    (tmp_path / "logs").mkdir()
    (tmp_path / "logs" / "a.log").write_text("x")
    (tmp_path / "logs" / "b.log").write_text("x")
    roots = {name: {"path": str(tmp_path / name), "service": name} for name in ("logs", "none")}
    settings = Settings.model_validate({"agent": {"roots": roots}}).agent
    missing, there = agent_files(settings)
    assert (missing.state, there.state) == (State.WARN, State.OK)
    assert "there is no folder" in missing.text
    assert "2 files" in there.text
    reason = "Permission denied: this account may not read it"
    monkeypatch.setattr(Root, "why_not", lambda _, name: reason if name == "b.log" else None)
    _, refused = agent_files(settings)
    assert refused.state is State.WARN
    assert f"1 of which this account cannot look at, such as logs/b.log: {reason}" in refused.text
