"""What happens in one round of random faults, drawn from its seed alone. Pure.

An event begins when a share of the round's logs is acknowledged, so that a replay meets the same work at about the same place;
it lasts for a time. Events overlap as chance will have it, but for those of one target, which follow one another.
"""

from __future__ import annotations

import random
from dataclasses import dataclass
from enum import StrEnum

from infra.fleet import FULL

WRITERS = ("write-a", "write-b")
ROLES = ("ingest", "query", *WRITERS, "tier")
DATABASE, BROKER = "database", "broker"
EVENTS_MIN, EVENTS_MAX = 2, 5


class Fault(StrEnum):
    """What is done to a target; it is undone when the event ends."""

    KILL = "SIGKILL"
    """Of a role or a server, which starts again."""
    STOP = "SIGSTOP"
    """Of a role, which goes on."""
    TERM = "SIGTERM"
    """Of a role, which must end by itself, and starts again."""
    CUT = "connections cut"
    """A role's to its database, or everybody's to the broker."""
    SILENCE = "connections silent"
    SLOW = "connections slow"


_LASTS_S = {
    Fault.KILL: (0.0, 0.8),
    # Leases are of 1.5 s: some of these end before, some after.
    Fault.STOP: (0.2, 3.0),
    Fault.TERM: (0.0, 0.5),
    Fault.CUT: (0.05, 2.0),
    Fault.SILENCE: (0.1, 2.5),
    Fault.SLOW: (0.5, 2.0),
}


@dataclass(frozen=True, slots=True)
class Event:
    """One fault."""

    after: float
    """Share of the round's logs that are acknowledged when it begins."""
    fault: Fault
    target: str
    """A role, `database` or `broker`."""
    lasts_s: float
    delay_s: float
    """Of each piece, where connections are slow."""

    def __str__(self) -> str:
        return f"{self.fault} {self.target} at {self.after:.0%} for {self.lasts_s:.2f} s"


@dataclass(frozen=True, slots=True)
class Schedule:
    """One round."""

    seed: int
    producers: int
    requests: int
    logs_per_request: int
    pause_s: float
    """Before each request of a producer, so that faults fall among the requests and not behind them."""
    events: tuple[Event, ...]

    @property
    def logs(self) -> int:
        """In all."""
        return self.producers * self.requests * self.logs_per_request

    def __str__(self) -> str:
        return f"seed {self.seed}: {self.logs} logs; " + "; ".join(map(str, self.events))


def draw(seed: int, profile: str) -> Schedule:
    """The round of this seed, the same for ever in this version."""
    chance = random.Random(f"{profile} {seed}")
    events = [_event(chance, profile) for _ in range(chance.randint(EVENTS_MIN, EVENTS_MAX))]
    return Schedule(
        seed,
        producers=chance.randint(2, 6),
        requests=chance.randint(20, 40),
        logs_per_request=chance.choice((1, 20, 60)),
        pause_s=chance.uniform(0.03, 0.12),
        events=tuple(sorted(events, key=lambda event: event.after)),
    )


def _event(chance: random.Random, profile: str) -> Event:
    fault, target = chance.choice(_choices(profile))
    return Event(chance.random() * 0.9, fault, target, chance.uniform(*_LASTS_S[fault]), chance.uniform(0.001, 0.02))


def _choices(profile: str) -> list[tuple[Fault, str]]:
    """Writers more often than others: what they do is what can be done twice. Servers as often as one role."""
    roles = (*ROLES, *WRITERS)
    found = [(fault, role) for role in roles for fault in Fault]
    servers = [(Fault.KILL, DATABASE)] * 3
    if profile == FULL:
        servers += [(Fault.KILL, BROKER)] * 2
        servers += [(fault, BROKER) for fault in (Fault.CUT, Fault.SILENCE, Fault.SLOW)]
    return found + servers
