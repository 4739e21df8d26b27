"""One Logfeed of real processes whose every connection to a server leads through a relay: what rounds of random faults hurt.

Rounds follow one another on it, each with services of its own, so that its logs are told from those of rounds before.
Everything is in one event loop; what blocks (starts, stops, servers) is in threads, but for starts of roles, which end with the
thread that started them.
"""

from __future__ import annotations

import asyncio
import re
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import psycopg

from infra.fleet import Fleet, Role, until
from infra.native import KafkaNode
from tests.faults.relay import Passing, Relay
from tests.faults.rounds.schedule import BROKER, DATABASE, ROLES, WRITERS, Event, Fault

LEASE_TTL_S: Final = 1.5
STOP_S: Final = 40.0
"""A role's own deadline for its end is 25 s."""
MEMORY_MIB_MAX: Final = {"ingest": 300, "query": 400, "tier": 500} | dict.fromkeys(WRITERS, 500)
"""Peak of resident memory of each role. At work: 130, 190, 160, 150."""
_CONNECTIONS: Final = {
    Fault.CUT: Passing.CUT,
    Fault.SILENCE: Passing.SILENT,
    Fault.SLOW: Passing.SLOW,
}


class RelayedKafka(KafkaNode):
    """A second listener tells clients the relay's address instead of its own."""

    @property
    def relayed_port(self) -> int:
        """Where it listens."""
        return self.port("relayed")

    @property
    def relay_port(self) -> int:
        """Where clients are sent."""
        return self.port("relay")

    def _settings(self) -> dict[str, str]:
        settings = super()._settings()
        return settings | {
            "listeners": f"{settings['listeners']},RELAYED://127.0.0.1:{self.relayed_port}",
            "advertised.listeners": f"{settings['advertised.listeners']},RELAYED://127.0.0.1:{self.relay_port}",
            "listener.security.protocol.map": settings["listener.security.protocol.map"] + ",RELAYED:PLAINTEXT",
            "inter.broker.listener.name": "PLAINTEXT",
        }


class Site:
    """Roles, relays and servers of one profile."""

    def __init__(self, fleet: Fleet, relays: dict[str, Relay], roles: dict[str, Role]) -> None:
        self.fleet = fleet
        self.found = 0
        """Logs that rounds so far have found in the store."""
        self.faults = 0
        """Events so far."""
        self._relays = relays
        self._roles = roles
        self._turns = {name: asyncio.Lock() for name in (*ROLES, DATABASE, BROKER)}

    async def hurt(self, event: Event) -> None:
        """One event, from its beginning to its end; events of one target follow one another."""
        async with self._turns[event.target]:
            self.faults += 1
            if event.target in (DATABASE, BROKER) and event.fault is Fault.KILL:
                await self._kill_server(event)
            elif event.fault in _CONNECTIONS:
                relay = self._relays[event.target]
                relay.turn(_CONNECTIONS[event.fault], delay_s=event.delay_s)
                try:
                    await asyncio.sleep(event.lasts_s)
                finally:
                    relay.turn(Passing.PASS)
            else:
                await self._hurt_role(self._roles[event.target], event)

    async def settle(self) -> None:
        """Wait until every role runs and is ready again; one that ended by itself is a failure."""
        for name, role in self._roles.items():
            assert role.alive, f"{name} ended by itself"
        await self.fleet.ready("ingest", "query", *WRITERS, timeout_s=60)

    def dead_letters(self) -> int:
        """Lines that were put aside; asked without a relay."""
        with psycopg.connect(self.fleet.database_url) as connection:
            row = connection.execute("SELECT count(*) FROM dead_letters").fetchone()
        return 0 if row is None else int(row[0])

    def files(self) -> int:
        """Segments that tiering has written so far."""
        with psycopg.connect(self.fleet.database_url) as connection:
            row = connection.execute("SELECT count(*) FROM segments").fetchone()
        return 0 if row is None else int(row[0])

    def check_memory(self) -> None:
        """Each role's peak is within its bound."""
        for name, role in self._roles.items():
            role.signal(signal.SIGCONT)  # notes it
            assert role.peak_kib < MEMORY_MIB_MAX[name] * 1024, f"{name}: {role.peak_kib} KiB of memory at its peak"

    async def _hurt_role(self, role: Role, event: Event) -> None:
        if event.fault is Fault.STOP:
            role.signal(signal.SIGSTOP)
            try:
                await asyncio.sleep(event.lasts_s)
            finally:
                role.signal(signal.SIGCONT)
            return
        if event.fault is Fault.TERM:
            await until(
                lambda: asyncio.to_thread(_minds_sigterm, role), what=f"{role.arguments} minds SIGTERM", timeout_s=30
            )
            began = len(role.log_text())
            code = await asyncio.to_thread(role.stop, STOP_S)
            said = role.log_text()[began:]
            # 1 says that not everything was given back in time: a server was away, or silent.
            assert code == (1 if "the stop takes too long" in said else 0), f"{role.arguments}: {code}\n{said[-2000:]}"
        else:
            await asyncio.to_thread(role.kill)
        await asyncio.sleep(event.lasts_s)
        role.start()

    async def _kill_server(self, event: Event) -> None:
        servers = self.fleet.servers
        await asyncio.to_thread(servers.kill_database if event.target == DATABASE else servers.kill_broker)
        await asyncio.sleep(event.lasts_s)
        await asyncio.to_thread(servers.start)


@asynccontextmanager
async def opened_site(fleet: Fleet) -> AsyncIterator[Site]:
    """Relays and roles in front of the fleet's servers, ready. The fleet is ended by the caller."""
    async with AsyncExitStack() as stack:
        database = urlsplit(fleet.database_url)
        assert database.hostname
        assert database.port
        relays: dict[str, Relay] = {}
        for name in ROLES:
            relays[name] = await stack.enter_async_context(Relay(database.hostname, database.port))
        fleet.writers_listen = True
        fleet.extra |= _settings(fleet)
        if isinstance(fleet.kafka, RelayedKafka):
            kafka = fleet.kafka
            relay = Relay("127.0.0.1", kafka.relayed_port, listen_port=kafka.relay_port)
            relays[BROKER] = await stack.enter_async_context(relay)
            fleet.extra["LOGFEED_BROKER__BOOTSTRAP"] = relay.address
        roles = {
            name: fleet.role(
                "write" if name in WRITERS else name,
                label=name,
                LOGFEED_DATABASE__URL=relays[name].url_of(fleet.database_url),
            )
            for name in ROLES
        }
        site = Site(fleet, relays, roles)
        await site.settle()
        yield site


def _settings(fleet: Fleet) -> dict[str, str]:
    """Late rows lie in files within a second or two, and these in object storage, so that each round moves some."""
    return {
        "LOGFEED_WRITER__LEASE_TTL_S": str(LEASE_TTL_S),
        "LOGFEED_STORE__LATE_ROWS_MAX": "50",
        "LOGFEED_TIERS__DIRECTORY": str(fleet.directory / "segments"),
        "LOGFEED_OBJECTS__URL": f"file://{fleet.directory}/objects",
        "LOGFEED_TIERS__ROUND_S": "0.2",
        "LOGFEED_TIERS__BUSY_SHARE": "1",
    }


def _minds_sigterm(role: Role) -> bool:
    """Whether the process has come so far (proc(5), SigCgt); one that ended does not have to."""
    if role.process is None or not role.alive:
        return True
    try:
        status = Path(f"/proc/{role.process.pid}/status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return True
    caught = re.search(r"^SigCgt:\s*([0-9a-f]+)$", status, re.MULTILINE)
    return caught is not None and bool(int(caught[1], 16) >> (signal.SIGTERM - 1) & 1)
