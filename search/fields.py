"""Finding a metadata field: which nestings the name a.b.c may mean (see predicate.MetaEquals)."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import combinations, pairwise
from typing import Any


def key_chains(path: tuple[str, ...]) -> Iterator[tuple[str, ...]]:
    """Every way to join neighbouring parts into keys, fully nested first: (a, b) and (a.b,) for ("a", "b").

    2^(parts - 1) of them: 32 for the longest path.
    """
    for joins in range(len(path)):
        for cuts in combinations(range(1, len(path)), len(path) - 1 - joins):
            edges = (0, *cuts, len(path))
            yield tuple(".".join(path[start:end]) for start, end in pairwise(edges))


def values_at(metadata: dict[str, Any], path: tuple[str, ...]) -> Iterator[Any]:
    """Every value that the path means in these metadata (JSON values)."""
    for count in range(1, len(path) + 1):
        key = ".".join(path[:count])
        if key not in metadata:
            continue
        value = metadata[key]
        if count == len(path):
            yield value
        elif isinstance(value, dict):
            yield from values_at(value, path[count:])
