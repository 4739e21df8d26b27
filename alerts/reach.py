"""Which services the logs of a query can be of: an upper bound, for deciding who may have, see and change a rule. Pure."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Final

from schemas.scope import RESERVED_SERVICES, ServiceScope
from search.predicate import And, Nothing, Or, Predicate, ServiceIn

TEXTS_MAX: Final = 100
EVERYTHING_TEXT: Final = "*"
_MARK: Final = "#"


@dataclass(frozen=True, slots=True)
class Reach:
    """All services, or those of these names and prefixes. Reserved services are in all only where they are named."""

    everything: bool = False
    names: frozenset[str] = frozenset()
    prefixes: frozenset[str] = frozenset()

    @property
    def is_empty(self) -> bool:
        """Whether no service can be in it."""
        return not (self.everything or self.names or self.prefixes)


ALL: Final = Reach(everything=True)


def reach(predicate: Predicate) -> Reach:
    """No log of another service matches."""
    match predicate:
        case ServiceIn(names, prefixes):
            return Reach(names=names, prefixes=prefixes)
        case Nothing():
            return Reach()
        case And(children):
            found = ALL
            for child in children:
                found = both(found, reach(child))
            return found
        case Or(children):
            parts = [reach(child) for child in children]
            return Reach(
                any(part.everything for part in parts),
                frozenset().union(*(part.names for part in parts)),
                frozenset().union(*(part.prefixes for part in parts)),
            )
    return ALL


def both(left: Reach, right: Reach) -> Reach:
    """What is in both."""
    if left.everything and right.everything:
        return Reach(everything=True, names=left.names | right.names)
    if left.everything:
        return right
    if right.everything:
        return left
    names = {name for name in left.names if _has(right, name)} | {name for name in right.names if _has(left, name)}
    prefixes = {
        max(one, other, key=len)
        for one in left.prefixes
        for other in right.prefixes
        if one.startswith(other) or other.startswith(one)
    }
    return Reach(names=frozenset(names), prefixes=frozenset(prefixes))


def of_scope(scope: ServiceScope) -> Reach:
    """The services that a right names. What a prefix covers and the right excludes is left in: the right itself keeps it
    out."""
    if scope.everything:
        return Reach(everything=True, names=RESERVED_SERVICES - scope.excluded)
    return Reach(names=scope.names - scope.excluded, prefixes=scope.prefixes)


def is_within(part: Reach, scope: ServiceScope) -> bool:
    """Whether the right covers all of it. What is excluded by name from everybody's `*` is nobody's by a prefix either."""
    if scope.everything:
        return not part.names & scope.excluded
    if part.everything:
        return False
    return all(scope.permits(name) for name in part.names) and all(
        any(prefix.startswith(mine) for mine in scope.prefixes) for prefix in part.prefixes
    )


def texts(reached: Reach) -> list[str]:
    """Names, prefixes with * behind them, and * for all. More than TEXTS_MAX are one text that means this very set."""
    found = [EVERYTHING_TEXT] if reached.everything else []
    found += sorted(reached.names) + sorted(f"{prefix}*" for prefix in reached.prefixes)
    if len(found) <= TEXTS_MAX:
        return found
    return [_MARK + hashlib.sha256(json.dumps(found).encode()).hexdigest()]


def marks(of: Iterable[Reach]) -> list[str]:
    """The texts that mean one of these sets as a whole."""
    return [text for reached in of for text in texts(reached) if text.startswith(_MARK)]


def _has(reached: Reach, name: str) -> bool:
    return reached.everything or name in reached.names or name.startswith(tuple(reached.prefixes))
